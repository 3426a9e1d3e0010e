  // w [rows, K], g [1] -> codes [rows, K / 8], scales [rows, K / 16]. One thread per block, a grid-stride loop that loads
  // the next block before it stores this one. Attributes: thread_position_in_grid, threads_per_grid.
  const int N = KIND == 0 ? 16 : 8;
  size_t blocks = size_t(w_shape[0]) * size_t(w_shape[1] / 16), stride = threads_per_grid.x;
  size_t i = thread_position_in_grid.x;
  if (i < blocks) {
    Divisor by = divisor(THREE ? g[0] : 1.0f);
    Words<N> next = load_block<N>(w, i);
    for (; i < blocks; i += stride) {
      Words<N> block = next;
      if (i + stride < blocks) next = load_block<N>(w, i + stride);
      Encoded r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by);
      store8(codes, i, r.low, r.high);
      scales[i] = uint8_t(r.scale);
    }
  }
