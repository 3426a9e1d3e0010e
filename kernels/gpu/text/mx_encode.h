  // w [rows, K] -> codes [rows, K * BITS / 32], scales [rows, K / 32]. One thread per block, two passes over its 16-byte
  // parts, a grid-stride loop. Attributes: thread_position_in_grid, threads_per_grid.
  const int PARTS = KIND == 0 ? 8 : 4, PER_PART = KIND == 0 ? 4 : 8;
  size_t blocks = size_t(w_shape[0]) * size_t(w_shape[1] / 32);
  size_t stride = threads_per_grid.x;
  for (size_t i = thread_position_in_grid.x; i < blocks; i += stride) {
    uint peak = 0u;
    for (int k = 0; k < PARTS; ++k) {
      Words<4> part = {};
      peak = larger(peak, peak_of<KIND>(load_words<KIND>(part, load16(w, i * PARTS + size_t(k)), 0)));
    }
    uint scale = e8m0_scale<BITS, CEIL>(peak), word = 0u;
    for (int k = 0; k < PARTS; ++k) {
      Words<4> part = {};
      part = load_words<KIND>(part, load16(w, i * PARTS + size_t(k)), 0);
      UNROLL for (int j = 0; j < PER_PART; ++j) {
        uint code = mx_code<BITS>(magnitude_bits<KIND>(part, j), scale) | (sign_bit<KIND>(part, j) << (BITS - 1));
        int at = k * PER_PART + j, per_word = 32 / BITS;
        word |= code << (BITS * (at % per_word));
        if (at % per_word == per_word - 1) {
          codes[i * BITS + size_t(at / per_word)] = word;
          word = 0u;
        }
      }
    }
    scales[i] = uint8_t(scale);
  }
