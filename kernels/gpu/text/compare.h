  // w [rows, K], decoded float32 [rows, K] -> sums [units, 6] as in nvfp4_measure, block_error [rows, K / GROUP]. One
  // simdgroup per unit of at most SEGMENT blocks of one row. Attributes: threadgroup_position_in_grid,
  // threadgroups_per_grid, thread_index_in_simdgroup, simdgroup_index_in_threadgroup, simdgroups_per_threadgroup.
  uint per_row = uint(w_shape[1]) / uint(GROUP), segments = (per_row + uint(SEGMENT) - 1u) / uint(SEGMENT);
  uint units = uint(w_shape[0]) * segments;
  uint unit = threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup;
  uint stride = threadgroups_per_grid.x * simdgroups_per_threadgroup;
  for (; unit < units; unit += stride) {
    uint first = (unit % segments) * uint(SEGMENT), last = smaller(first + uint(SEGMENT), per_row);
    size_t row = size_t(unit / segments) * size_t(per_row);
    Error sum = no_error();
    for (uint at = first + thread_index_in_simdgroup; at < last; at += 32u) {
      size_t i = row + size_t(at);
      Error block = no_error();
      for (int k = 0; k < GROUP; ++k) {
        float weight = float(w[i * GROUP + size_t(k)]), back = decoded[i * GROUP + size_t(k)];
        uint magnitude = as_type<uint>(weight) & 0x7fffffffu, kept = as_type<uint>(back) & 0x7fffffffu;
        block = add_element(block, weight, weight - back, true);
        block.vanished = block.vanished + (magnitude != 0u && kept == 0u ? 1.0f : 0.0f);
        block.peak = larger(block.peak, as_type<float>(magnitude));
      }
      block_error[i] = block.error;
      sum = add_block(sum, block);
    }
    float squares = simd_sum(sum.squares), error = simd_sum(sum.error), vanished = simd_sum(sum.vanished);
    float fourth = simd_sum(sum.fourth), largest = simd_max(sum.largest), peak = simd_max(sum.peak);
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
