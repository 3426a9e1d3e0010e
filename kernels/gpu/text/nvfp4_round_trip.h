  // x [rows, K], g [2]: the multiplier of x and one more factor -> out [rows, K] = code * (scale * g[0] * g[1]).
  // Attributes: thread_position_in_grid, threads_per_grid.
  size_t blocks = size_t(x_shape[0]) * size_t(x_shape[1] / 16);
  size_t stride = threads_per_grid.x;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  for (size_t i = thread_position_in_grid.x; i < blocks; i += stride) {
    Words<KIND == 0 ? 16 : 8> block;
    UNROLL for (int k = 0; k < (KIND == 0 ? 4 : 2); ++k)
      block = load_words<KIND>(block, load16(x, i * (KIND == 0 ? 4 : 2) + size_t(k)), 4 * k);
    Encoded r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by);
    Factor f = factor_of(r.scale, by.value);
    if (ABSORB) {
      f.value = f.value * g[1];
      f.tiny = false;
    }
    if (KIND == 0) {
      UNROLL for (int k = 0; k < 2; ++k) {
        store16(out, i * 4 + size_t(k), decoded_words<0>(r.low, k, f));
        store16(out, i * 4 + size_t(k) + 2, decoded_words<0>(r.high, k, f));
      }
    } else {
      store16(out, i * 2, decoded_words<KIND>(r.low, 0, f));
      store16(out, i * 2 + 1, decoded_words<KIND>(r.high, 0, f));
    }
  }
