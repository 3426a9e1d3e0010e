  // w [rows, K] -> codes [rows, K * BITS / 32], scales and biases [rows, K / GROUP] as bits of w's dtype. A lane encodes 16
  // weights, and neighbours find the range of their group together. Whole simdgroups stay in the loop: lanes past the end
  // read the last part and write nothing. Attributes: thread_position_in_grid, threads_per_grid, thread_index_in_simdgroup.
  const int N = KIND == 0 ? 16 : 8, LANES = GROUP / 16;
  size_t parts = size_t(w_shape[0]) * size_t(w_shape[1] / 16), stride = threads_per_grid.x;
  size_t i = thread_position_in_grid.x, first = i - size_t(thread_index_in_simdgroup);
  for (; first < parts; first += stride, i += stride) {
    Words<N> block = load_block<N>(w, i < parts ? i : parts - 1);
    Range range = range_of_lanes<LANES>(range_of<KIND>(block));
    Affine a = affine_of<BITS>(from_ordered(range.low), from_ordered(range.high));
    if (SEARCH) a = shrunk<KIND, BITS, LANES>(block, a);
    Words<BITS / 2> packed = a.quick ? affine_codes<KIND, BITS, true, SEARCH>(block, a)
                                            : affine_codes<KIND, BITS, false, SEARCH>(block, a);
    if (i >= parts) continue;
    if (BITS == 4) store8(codes, i, packed.w[0], packed.w[1]);
    else store_block<BITS / 2>(codes, i, packed);
    if (thread_index_in_simdgroup % uint(LANES) == 0u) {
      scales[i / LANES] = narrow<KIND>(a.scale);
      biases[i / LANES] = narrow<KIND>(a.bias);
    }
  }
