// The names of Metal that the kernels use, over CUDA. mlx includes cooperative_groups.h and its utils.cuh before this.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef unsigned int uint;
typedef unsigned short ushort;
#define UNROLL _Pragma("unroll")
#define ROLLED _Pragma("unroll 1")

template <class To, class From> __device__ inline To as_type(From v) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs equal sizes");
  To r;
  memcpy(&r, &v, sizeof(To));
  return r;
}

struct grid_index { uint x; };
#define thread_position_in_grid (grid_index{blockIdx.x * blockDim.x + threadIdx.x})
#define threads_per_grid (grid_index{gridDim.x * blockDim.x})
#define threadgroup_position_in_grid (grid_index{blockIdx.x})
#define threadgroups_per_grid (grid_index{gridDim.x})
#define thread_index_in_threadgroup threadIdx.x
#define threads_per_threadgroup (grid_index{blockDim.x})
#define thread_index_in_simdgroup (threadIdx.x & 31u)
#define simdgroup_index_in_threadgroup (threadIdx.x >> 5)
#define simdgroups_per_threadgroup (blockDim.x >> 5)

#define threadgroup __shared__
#define threadgroup_barrier(flags) __syncthreads()

template <class T> __device__ inline uint4 load16(const T* p, size_t i) { return __ldcs((const uint4*)p + i); }
template <class T> __device__ inline uint4 load16_kept(const T* p, size_t i) { return __ldg((const uint4*)p + i); }
template <class T> __device__ inline uint2 load8(const T* p, size_t i) { return __ldcs((const uint2*)p + i); }
template <class T> __device__ inline uint load4(const T* p, size_t i) { return __ldcs((const uint*)p + i); }
template <class T> __device__ inline void store16(T* p, size_t i, uint4 v) { __stcs((uint4*)p + i, v); }
template <class T> __device__ inline void store4(T* p, size_t i, uint v) { __stcs((uint*)p + i, v); }

template <class T> __device__ inline void store8(T* p, size_t i, uint a, uint b) { __stcs((uint2*)p + i, make_uint2(a, b)); }

__device__ inline float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline float product(float a, float b) { return __fmul_rn(a, b); }  // never contracted into a fused add
__device__ inline float reciprocal(float x) {  // to nearest, where x and 1 / x are normal numbers
  float r;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return __fmaf_rn(r, __fmaf_rn(-x, r, 1.0f), r);
}
__device__ inline float saturated(float x) { return __saturatef(x); }
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline float smaller(float a, float b) { return fminf(a, b); }
__device__ inline float absolute(float x) { return fabsf(x); }
__device__ inline float nearest(float x) { return rintf(x); }
__device__ inline uint larger(uint a, uint b) { return max(a, b); }
__device__ inline uint smaller(uint a, uint b) { return min(a, b); }
__device__ inline int larger(int a, int b) { return max(a, b); }
__device__ inline int smaller(int a, int b) { return min(a, b); }
__device__ inline uint ones(uint x) { return __popc(x); }
__device__ inline uint2 two(uint a, uint b) { return make_uint2(a, b); }
__device__ inline uint4 four(uint a, uint b, uint c, uint d) { return make_uint4(a, b, c, d); }
__device__ inline uint low_half_up(uint pair) { return __byte_perm(pair, 0u, 0x1044); }
__device__ inline uint larger_halves(uint a, uint b) { return __vmaxu2(a, b); }
__device__ inline uint higher_halves(uint a, uint b) { return __vmaxs2(a, b); }
__device__ inline uint smaller_halves(uint a, uint b) { return __vminu2(a, b); }
__device__ inline uint float_of_half(uint bits) { return __float_as_uint(__half2float(__ushort_as_half(ushort(bits)))); }
__device__ inline uint half_of_float(float x) { return __half_as_ushort(__float2half_rn(x)); }

struct Pair { float low; float high; };
__device__ inline Pair floats_of_halves(uint bits) {
  float2 f = __half22float2(as_type<__half2>(bits));
  return Pair{f.x, f.y};
}
__device__ inline uint halves_of_floats(float low, float high) { return as_type<uint>(__floats2half2_rn(low, high)); }
__device__ inline uint bfloat_of_bits(uint f) { return (f + 0x7fffu + ((f >> 16) & 1u)) >> 16; }
__device__ inline uint bfloats_of_floats(float low, float high) { return as_type<uint>(__floats2bfloat162_rn(low, high)); }

// The signs of four 16-bit pairs, each above its nibble of the packed word: bytes are permuted, then two masks.
__device__ inline uint sign_nibbles(uint a, uint b, uint c, uint d) {
  uint front = __byte_perm(a, b, 0x7531), back = __byte_perm(c, d, 0x7531);
  uint even = __byte_perm(front, back, 0x6420), odd = __byte_perm(front, back, 0x7531);
  return ((even >> 4) & 0x08080808u) | (odd & 0x80808080u);
}

__device__ inline int simd_shuffle_xor(int v, ushort mask) { return __shfl_xor_sync(0xffffffffu, v, mask); }
__device__ inline float simd_sum(float v) {
  for (int m = 16; m; m >>= 1) v = __fadd_rn(v, __shfl_xor_sync(0xffffffffu, v, m));
  return v;
}
__device__ inline float simd_max(float v) {
  for (int m = 16; m; m >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
  return v;
}
