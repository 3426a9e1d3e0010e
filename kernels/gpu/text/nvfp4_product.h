  // x [ROWS, K], codes [O, K / 2] bytes, scales [O, K / 16], g [1] -> y [ROWS, O] in the dtype of x. A simdgroup takes
  // four rows of the weight at a time and a lane one block of each, so that a part of x is loaded once for four. Sums are
  // float32 in the order of the lanes; g multiplies them before the one rounding. Attributes:
  //   threadgroup_position_in_grid, threadgroups_per_grid, thread_index_in_simdgroup,
  //   simdgroup_index_in_threadgroup, simdgroups_per_threadgroup.
  const int N = KIND == 0 ? 16 : 8;
  uint outputs = uint(codes_shape[0]), per_row = uint(codes_shape[1]) / 8u, quads = (outputs + 3u) / 4u;
  uint quad = threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup;
  uint stride = threadgroups_per_grid.x * simdgroups_per_threadgroup;
  float multiplier = THREE ? g[0] : 1.0f;
  for (; quad < quads; quad += stride) {
    float sum[4 * ROWS];
    UNROLL for (int k = 0; k < 4 * ROWS; ++k) sum[k] = 0.0f;
    for (uint at = thread_index_in_simdgroup; at < per_row; at += 32u) {
      uint low[4], high[4], scale[4];
      UNROLL for (int r = 0; r < 4; ++r) {
        size_t i = size_t(smaller(4u * quad + uint(r), outputs - 1u)) * size_t(per_row) + size_t(at);
        low[r] = load4(codes, 2u * i);
        high[r] = load4(codes, 2u * i + 1u);
        scale[r] = uint(scales[i]);
      }
      UNROLL for (int m = 0; m < ROWS; ++m) {
        Words<N> part = load_kept<N>(x, size_t(m) * size_t(per_row) + size_t(at));
        UNROLL for (int r = 0; r < 4; ++r) {
          float inner = dot_eight<KIND>(low[r], part, 0) + dot_eight<KIND>(high[r], part, 8);
          sum[4 * m + r] = fused(inner, e4m3_decode_any(scale[r]) * 16384.0f, sum[4 * m + r]);
        }
      }
    }
    UNROLL for (int k = 0; k < 4 * ROWS; ++k) {
      float whole = simd_sum(sum[k]) * multiplier;
      uint output = 4u * quad + uint(k & 3);
      if (thread_index_in_simdgroup == 0u && output < outputs)
        y[size_t(k >> 2) * size_t(outputs) + size_t(output)] = narrow<KIND>(whole);
    }
  }
