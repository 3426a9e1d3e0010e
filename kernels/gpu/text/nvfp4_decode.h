  // codes [rows, K / 2] bytes, scales [rows, K / 16], g [1] -> out [rows, K]. Eight codes a thread, and four such at a
  // time, loaded before any is stored. Attributes: thread_position_in_grid, threads_per_grid.
  const int N = KIND == 0 ? 8 : 4;
  size_t words = size_t(codes_shape[0]) * size_t(codes_shape[1] / 4), stride = threads_per_grid.x;
  float multiplier = THREE ? g[0] : 1.0f;
  for (size_t i = thread_position_in_grid.x; i < words; i += 4 * stride) {
    uint eight[4], scale[4];
    UNROLL for (int k = 0; k < 4; ++k) {
      size_t at = i + size_t(k) * stride;
      eight[k] = at < words ? load4(codes, at) : 0u;
      scale[k] = at < words ? uint(scales[at >> 1]) : 0u;
    }
    UNROLL for (int k = 0; k < 4; ++k) {
      size_t at = i + size_t(k) * stride;
      if (at < words) store_block<N>(out, at, decode_eight<KIND>(eight[k], factor_of(scale[k], multiplier)));
    }
  }
