  // w [rows, K], g [1], known: what METHOD reads of the context -> codes [rows, K / 8], scales [rows, K / 16]. One thread
  // per block, a grid-stride loop; MAX, which waits for memory, loads the next block before it stores this one.
  // Attributes: thread_position_in_grid, threads_per_grid, thread_index_in_threadgroup, threads_per_threadgroup.
  const int N = KIND == 0 ? 16 : 8;
  size_t per_row = size_t(w_shape[1] / 16), blocks = size_t(w_shape[0]) * per_row, stride = threads_per_grid.x;
  if (METHOD >= IMPORTANCE && stride >= per_row) stride -= stride % per_row;  // a thread stays in its column
  size_t i = thread_position_in_grid.x;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  threadgroup uint2 table[CANDIDATES];
  if (METHOD != MAX) {
    for (uint k = thread_index_in_threadgroup; k < uint(CANDIDATES); k += threads_per_threadgroup.x)
      table[k] = candidate_entry<MIN_SCALE>(k, by.value);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  if (i < blocks && i < stride) {
    Words<Known<METHOD>::words> inputs = load_known<METHOD>(known, uint(i % per_row));
    Words<N> next = {};
    if (METHOD == MAX) next = load_block<N>(w, i);
    for (; i < blocks; i += stride) {
      Words<N> block = METHOD == MAX ? next : load_block<N>(w, i);
      Encoded r;
      if (METHOD == MAX) {
        if (i + stride < blocks) next = load_block<N>(w, i + stride);
        r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by);
      } else {
        r = encode_chosen<METHOD, KIND, THREE, MIN_SCALE, ZERO_SCALE, false, false>(block, by, table, inputs);
        if (METHOD >= IMPORTANCE && stride < per_row && i + stride < blocks)
          inputs = load_known<METHOD>(known, uint((i + stride) % per_row));
      }
      store8(codes, i, r.low, r.high);
      scales[i] = uint8_t(r.scale);
    }
  }
