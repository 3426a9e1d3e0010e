  // x [ROWS, K], codes [O, K / 2] bytes, scales [O, K / 16], g [1] -> y [ROWS, O] in the dtype of x. A simdgroup takes
  // TEAM rows of the weight at a time and a lane one block of each, so that a part of x is loaded once for all of them;
  // DEPTH steps are loaded before the first is used. Sums are float32 in the order of the lanes; g multiplies them before
  // the one rounding. Attributes:
  //   threadgroup_position_in_grid, threadgroups_per_grid, thread_index_in_simdgroup,
  //   simdgroup_index_in_threadgroup, simdgroups_per_threadgroup.
  const int N = KIND == 0 ? 16 : 8, TEAM = 4, DEPTH = 2;
  uint outputs = uint(codes_shape[0]), per_row = uint(codes_shape[1]) / 8u, teams = (outputs + uint(TEAM) - 1u) / uint(TEAM);
  uint team = threadgroup_position_in_grid.x * simdgroups_per_threadgroup + simdgroup_index_in_threadgroup;
  uint stride = threadgroups_per_grid.x * simdgroups_per_threadgroup;
  float multiplier = THREE ? g[0] : 1.0f;
  for (; team < teams; team += stride) {
    float sum[TEAM * ROWS];
    UNROLL for (int k = 0; k < TEAM * ROWS; ++k) sum[k] = 0.0f;
    for (uint start = thread_index_in_simdgroup; start < per_row; start += 32u * uint(DEPTH)) {
      uint low[TEAM * DEPTH], high[TEAM * DEPTH], scale[TEAM * DEPTH];
      UNROLL for (int k = 0; k < TEAM * DEPTH; ++k) {
        uint row = smaller(uint(TEAM) * team + uint(k % TEAM), outputs - 1u);
        uint at = smaller(start + 32u * uint(k / TEAM), per_row - 1u);
        size_t i = size_t(row) * size_t(per_row) + size_t(at);
        uint2 both = load8(codes, i);
        low[k] = both.x;
        high[k] = both.y;
        scale[k] = uint(scales[i]);
      }
      UNROLL for (int d = 0; d < DEPTH; ++d) {
        uint at = start + 32u * uint(d);
        if (at >= per_row) break;
        UNROLL for (int m = 0; m < ROWS; ++m) {
          Words<N> part = load_kept<N>(x, size_t(m) * size_t(per_row) + size_t(at));
          UNROLL for (int r = 0; r < TEAM; ++r) {
            int k = TEAM * d + r;
            float inner = dot_eight<KIND>(low[k], part, 0) + dot_eight<KIND>(high[k], part, 8);
            sum[TEAM * m + r] = fused(inner, e4m3_decode_small(scale[k]) * 0x1p22f, sum[TEAM * m + r]);
          }
        }
      }
    }
    UNROLL for (int k = 0; k < TEAM * ROWS; ++k) {
      float whole = simd_sum(sum[k]) * multiplier;
      uint output = uint(TEAM) * team + uint(k % TEAM);
      if (thread_index_in_simdgroup == 0u && output < outputs)
        y[size_t(k / TEAM) * size_t(outputs) + size_t(output)] = narrow<KIND>(whole);
    }
  }
