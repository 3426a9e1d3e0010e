  // w [rows, K] -> codes [rows, K * BITS / 32], scales and biases [rows, K / GROUP] as bits of w's dtype. One thread per
  // group, two passes over its 16-byte parts. Attributes: thread_position_in_grid, threads_per_grid.
  const int PER_PART = KIND == 0 ? 4 : 8, PARTS = GROUP / PER_PART, PER_WORD = 32 / BITS;
  size_t groups = size_t(w_shape[0]) * size_t(w_shape[1] / GROUP), stride = threads_per_grid.x;
  for (size_t i = thread_position_in_grid.x; i < groups; i += stride) {
    int low = 0x7fffffff, high = -0x7fffffff - 1;
    for (int k = 0; k < PARTS; ++k) {
      Words<4> part = load_block<4>(w, i * PARTS + size_t(k));
      UNROLL for (int j = 0; j < PER_PART; ++j) {
        int key = ordered(as_type<uint>(value_of<KIND>(part, j)));
        low = key < low ? key : low;
        high = key > high ? key : high;
      }
    }
    Affine a = affine_of<BITS>(from_ordered(low), from_ordered(high));
    Words<GROUP * BITS / 32> packed = {};
    UNROLL for (int k = 0; k < PARTS; ++k) {
      Words<4> part = load_block<4>(w, i * PARTS + size_t(k));
      UNROLL for (int j = 0; j < PER_PART; ++j) {
        int at = k * PER_PART + j;
        packed.w[at / PER_WORD] |= affine_code<BITS>(value_of<KIND>(part, j), a) << (BITS * (at % PER_WORD));
      }
    }
    store_block<GROUP * BITS / 32>(codes, i, packed);
    scales[i] = narrow<KIND>(a.scale);
    biases[i] = narrow<KIND>(a.bias);
  }
