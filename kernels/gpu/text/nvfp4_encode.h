  // w [rows, K], g [1], known (see coding.py) -> codes [rows, K / 8], scales [rows, K / 16]. One thread per block, a grid-stride loop that loads
  // the next block before it stores this one. Attributes: thread_position_in_grid,
  // threads_per_grid, thread_index_in_threadgroup, threads_per_threadgroup.
  const int N = KIND == 0 ? 16 : 8;
  size_t blocks = size_t(w_shape[0]) * size_t(w_shape[1] / 16), stride = threads_per_grid.x;
  size_t i = thread_position_in_grid.x;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  threadgroup uint2 table[CANDIDATES];
  if (METHOD != MAX) {
    for (uint k = thread_index_in_threadgroup; k < uint(CANDIDATES); k += threads_per_threadgroup.x)
      table[k] = candidate_entry<MIN_SCALE>(k, by.value);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  if (i < blocks) {
    Words<N> next = load_block<N>(w, i);
    for (; i < blocks; i += stride) {
      Words<N> block = next;
      if (i + stride < blocks) next = load_block<N>(w, i + stride);
      Encoded r;
      if (METHOD == MAX) {
        r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by);
      } else {
        uint column = uint(i % size_t(w_shape[1] / 16));
        r = encode_chosen<METHOD, KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by, table, known, column);
      }
      store8(codes, i, r.low, r.high);
      scales[i] = uint8_t(r.scale);
    }
  }
