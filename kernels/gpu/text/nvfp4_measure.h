  // As nvfp4_encode, and per unit of at most SEGMENT blocks of one row its sums -> sums [units, 6]: squares, squared
  // error, and with OUTLIERS (else zeros) largest error, vanished, fourth powers, largest weight; with BLOCKS the
  // squared error of each block.
  // One simdgroup per unit, so every sum has one owner and the result does not depend on the launch.
  // Attributes: threadgroup_position_in_grid, threadgroups_per_grid, thread_index_in_simdgroup,
  //             simdgroup_index_in_threadgroup, simdgroups_per_threadgroup, thread_index_in_threadgroup,
  //             threads_per_threadgroup.
  uint per_row = uint(w_shape[1]) / 16u, segments = (per_row + uint(SEGMENT) - 1u) / uint(SEGMENT);
  uint units = uint(w_shape[0]) * segments;
  uint unit = threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup;
  uint stride = threadgroups_per_grid.x * simdgroups_per_threadgroup;
  const int N = KIND == 0 ? 16 : 8;
  Divisor by = divisor(THREE ? g[0] : 1.0f);
  threadgroup uint2 table[CANDIDATES];
  if (METHOD != MAX) {
    for (uint k = thread_index_in_threadgroup; k < uint(CANDIDATES); k += threads_per_threadgroup.x)
      table[k] = candidate_entry<MIN_SCALE>(k, by.value);
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
  for (; unit < units; unit += stride) {
    uint first = (unit % segments) * uint(SEGMENT), last = smaller(first + uint(SEGMENT), per_row);
    size_t row = size_t(unit / segments) * size_t(per_row);
    Error sum = no_error();
    for (uint at = first + thread_index_in_simdgroup; at < last; at += 32u) {
      size_t i = row + size_t(at);
      Words<N> block = load_block<N>(w, i);
      Encoded r;
      if (METHOD == MAX) r = encode_block<KIND, THREE, MIN_SCALE, ZERO_SCALE, true, OUTLIERS>(block, by);
      else r = encode_chosen<METHOD, KIND, THREE, MIN_SCALE, ZERO_SCALE, true, OUTLIERS>(block, by, table,
                                                                                          load_known<METHOD>(known, at));
      store8(codes, i, r.low, r.high);
      scales[i] = uint8_t(r.scale);
      if (BLOCKS) block_error[i] = r.error.error;
      sum = add_block(sum, r.error);
    }
    float squares = simd_sum(sum.squares), error = simd_sum(sum.error);
    float vanished = 0.0f, fourth = 0.0f, largest = 0.0f, peak = 0.0f;
    if (OUTLIERS) {
      vanished = simd_sum(sum.vanished);
      fourth = simd_sum(sum.fourth);
      largest = simd_max(sum.largest);
      peak = simd_max(sum.peak);
    }
    if (thread_index_in_simdgroup == 0u) {
      size_t to = size_t(unit) * 6u;
      sums[to] = squares;
      sums[to + 1u] = error;
      sums[to + 2u] = largest;
      sums[to + 3u] = vanished;
      sums[to + 4u] = fourth;
      sums[to + 5u] = peak;
    }
  }
