  // codes [rows, K * BITS / 8] bytes, scales [rows, K / 32] -> out [rows, K]. One word of codes a thread.
  // Attributes: thread_position_in_grid, threads_per_grid.
  const int PER_WORD = 32 / BITS, WORDS = KIND == 0 ? PER_WORD : PER_WORD / 2;
  size_t words = size_t(codes_shape[0]) * size_t(codes_shape[1] / 4);
  size_t stride = threads_per_grid.x;
  for (size_t i = thread_position_in_grid.x; i < words; i += stride) {
    uint packed = load4(codes, i), scale = scales[i / BITS];
    UNROLL for (int k = 0; k < WORDS; ++k) {
      int first = KIND == 0 ? k : 2 * k;
      uint word = mx_decoded<KIND, BITS>(packed >> (BITS * first), scale);
      if (KIND != 0) word |= mx_decoded<KIND, BITS>(packed >> (BITS * (first + 1)), scale) << 16;
      store4(out, i * WORDS + size_t(k), word);
    }
  }
