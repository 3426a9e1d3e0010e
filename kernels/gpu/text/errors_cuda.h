// The same over pairs of halves: what is whole in 2**-24 is a half as it stands, a fused multiply-add with a number whose
// last place is 2**-20 rounds to 1/64 of a scale, and in that unit halves below 2**-14 are E2M1's own grid.
#define WHOLE 0x1p-24f
#define ROUND_TO_64THS 0x16001600u

__device__ inline uint whole_pair(float low, float high) { return halves_of_floats(low, high); }

__device__ inline uint packed_multiplier(float m) { return halves_of_floats(m, m); }

__device__ inline uint least_halves(uint a, uint b) { return as_type<uint>(__hmin2(as_type<__half2>(a), as_type<__half2>(b))); }
__device__ inline uint most_halves(uint a, uint b) { return as_type<uint>(__hmax2(as_type<__half2>(a), as_type<__half2>(b))); }

template <bool LARGE, bool SIGNED> __device__ inline uint errors_of_pair(uint wholes, uint multiplier) {
  const __half2 magic = as_type<__half2>(ROUND_TO_64THS);
  __half2 sum = __hfma2(as_type<__half2>(wholes), as_type<__half2>(multiplier), magic);
  uint size = as_type<uint>(__hsub2(sum, magic));
  uint up = LARGE && !SIGNED ? __viaddmin_u16x2(size, 0x01000100u, 0x0fff0fffu) : size + 0x01000100u;
  uint level = up & (SIGNED ? 0xbe00be00u : 0x3e003e00u);
  if (LARGE && SIGNED) level = most_halves(least_halves(level, 0x0e000e00u), 0x8e008e00u);
  return as_type<uint>(__hsub2(sum, as_type<__half2>(level)));
}

__device__ inline uint four_bytes(uint a, uint b) { return __byte_perm(a, b, 0x6420); }
__device__ inline int byte_of(uint bytes, int k) { return int(bytes << (24 - 8 * k)) >> 24; }
__device__ inline int add_squares(uint bytes, int sum) { return __dp4a(int(bytes), int(bytes), sum); }
__device__ inline int add_products(uint pair, uint bytes, int first, int sum) {
  return first == 0 ? __dp2a_lo(int(pair), int(bytes), sum) : __dp2a_hi(int(pair), int(bytes), sum);
}
