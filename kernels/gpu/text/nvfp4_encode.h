  // w [rows, K], g [1] -> codes [rows, K / 8], scales [rows, K / 16]. One thread per block, a grid-stride loop.
  // Attributes: thread_position_in_grid, threads_per_grid.
  size_t blocks = size_t(w_shape[0]) * size_t(w_shape[1] / 16);
  size_t stride = threads_per_grid.x;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  for (size_t i = thread_position_in_grid.x; i < blocks; i += stride) {
    Words<KIND == 0 ? 16 : 8> block;
    UNROLL for (int k = 0; k < (KIND == 0 ? 4 : 2); ++k)
      block = load_words<KIND>(block, load16(w, i * (KIND == 0 ? 4 : 2) + size_t(k)), 4 * k);
    Encoded r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by);
    store8(codes, i, r.low, r.high);
    scales[i] = uint8_t(r.scale);
  }
