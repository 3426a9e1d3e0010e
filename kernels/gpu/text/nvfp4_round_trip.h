  // x [rows, K], g [2]: the multiplier of x and one more factor -> out [rows, K] = code * (scale * g[0] * g[1]).
  // Attributes: thread_position_in_grid, threads_per_grid.
  const int N = KIND == 0 ? 16 : 8;
  size_t blocks = size_t(x_shape[0]) * size_t(x_shape[1] / 16), stride = threads_per_grid.x;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  for (size_t i = thread_position_in_grid.x; i < blocks; i += stride) {
    Encoded r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(load_block<N>(x, i), by);
    Factor f = factor_of(r.scale, by.value);
    if (ABSORB) f = absorbed(f, g[1]);
    store_block<N / 2>(out, 2 * i, decode_eight<KIND>(r.low, f));
    store_block<N / 2>(out, 2 * i + 1, decode_eight<KIND>(r.high, f));
  }
