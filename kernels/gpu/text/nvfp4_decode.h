  // codes [rows, K / 2] bytes, scales [rows, K / 16], g [1] -> out [rows, K]. Eight codes a thread, grid-stride loop.
  // Attributes: thread_position_in_grid, threads_per_grid.
  size_t words = size_t(codes_shape[0]) * size_t(codes_shape[1] / 4);
  size_t stride = threads_per_grid.x;
  float multiplier = THREE ? g[0] : 1.0f;
  for (size_t i = thread_position_in_grid.x; i < words; i += stride) {
    uint eight = load4(codes, i);
    Factor f = factor_of(scales[i >> 1], multiplier);
    store16(out, i * (KIND == 0 ? 2 : 1), decoded_words<KIND>(eight, 0, f));
    if (KIND == 0) store16(out, i * 2 + 1, decoded_words<0>(eight, 1, f));
  }
