  // w [rows, K] -> codes [rows, K * BITS / 32], scales [rows, K / 32]. One thread per block, a grid-stride loop.
  // Attributes: thread_position_in_grid, threads_per_grid.
  const int N = KIND == 0 ? 32 : 16, PER_WORD = 32 / BITS;
  size_t blocks = size_t(w_shape[0]) * size_t(w_shape[1] / 32), stride = threads_per_grid.x;
  for (size_t i = thread_position_in_grid.x; i < blocks; i += stride) {
    Words<N> block = load_block<N>(w, i);
    uint peak = peak_of<KIND>(block), scale = e8m0_scale<BITS, CEIL>(peak);
    if (SEARCH) scale = e8m0_chosen<KIND>(block, peak, scale);
    Words<BITS> packed = {};
    UNROLL for (int k = 0; k < 32; ++k) {
      uint code = mx_code<BITS>(magnitude_bits<KIND>(block, k), scale) | (sign_bit<KIND>(block, k) << (BITS - 1));
      packed.w[k / PER_WORD] |= code << (BITS * (k % PER_WORD));
    }
    store_block<BITS>(codes, i, packed);
    scales[i] = uint8_t(scale);
  }
