// What the kernels need of Metal beyond the language. mlx puts its own utils.h (metal_stdlib) before this.
#pragma METAL fp contract(off)
#define UNROLL _Pragma("clang loop unroll(full)")
#define ROLLED _Pragma("clang loop unroll(disable)")

// Buffers of at least 8 elements arrive in device memory; 16 bytes at a time, counted in units of the access.
template <class T> inline uint4 load16(const device T* p, size_t i) { return ((const device uint4*)p)[i]; }
template <class T> inline uint4 load16_kept(const device T* p, size_t i) { return load16(p, i); }
template <class T> inline uint2 load8(const device T* p, size_t i) { return ((const device uint2*)p)[i]; }
template <class T> inline uint load4(const device T* p, size_t i) { return ((const device uint*)p)[i]; }
template <class T> inline void store16(device T* p, size_t i, uint4 v) { ((device uint4*)p)[i] = v; }
template <class T> inline void store4(device T* p, size_t i, uint v) { ((device uint*)p)[i] = v; }

template <class T> inline void store8(device T* p, size_t i, uint a, uint b) { ((device uint2*)p)[i] = uint2(a, b); }

inline float fused(float a, float b, float c) { return metal::fma(a, b, c); }
inline float product(float a, float b) { return a * b; }
inline float reciprocal(float x) { return 1.0f / x; }
inline float saturated(float x) { return metal::clamp(x, 0.0f, 1.0f); }
inline float larger(float a, float b) { return metal::max(a, b); }
inline float smaller(float a, float b) { return metal::min(a, b); }
inline float absolute(float x) { return metal::abs(x); }
inline float nearest(float x) { return metal::rint(x); }
inline uint larger(uint a, uint b) { return metal::max(a, b); }
inline uint smaller(uint a, uint b) { return metal::min(a, b); }
inline int larger(int a, int b) { return metal::max(a, b); }
inline int smaller(int a, int b) { return metal::min(a, b); }
inline uint ones(uint x) { return metal::popcount(x); }

inline uint2 two(uint a, uint b) { return uint2(a, b); }
inline uint4 four(uint a, uint b, uint c, uint d) { return uint4(a, b, c, d); }

// Two 16-bit magnitudes in one word.
inline uint low_half_up(uint pair) { return pair << 16; }
inline uint larger_halves(uint a, uint b) { return as_type<uint>(metal::max(as_type<ushort2>(a), as_type<ushort2>(b))); }
inline uint higher_halves(uint a, uint b) { return as_type<uint>(metal::max(as_type<short2>(a), as_type<short2>(b))); }
inline uint smaller_halves(uint a, uint b) { return as_type<uint>(metal::min(as_type<ushort2>(a), as_type<ushort2>(b))); }

inline uint float_of_half(uint bits) { return as_type<uint>(float(as_type<half>(ushort(bits)))); }
inline uint half_of_float(float x) { return as_type<ushort>(half(x)); }

struct Pair { float low; float high; };
inline Pair floats_of_halves(uint bits) {
  half2 h = as_type<half2>(bits);
  return Pair{float(h.x), float(h.y)};
}
inline uint halves_of_floats(float low, float high) { return half_of_float(low) | (half_of_float(high) << 16); }
inline uint bfloat_of_bits(uint f) { return (f + 0x7fffu + ((f >> 16) & 1u)) >> 16; }  // to nearest even, subnormals too
inline uint bfloats_of_floats(float low, float high) {
  return bfloat_of_bits(as_type<uint>(low)) | (bfloat_of_bits(as_type<uint>(high)) << 16);
}

// The signs of four 16-bit pairs, each above its nibble of the packed word.
inline uint sign_nibbles(uint a, uint b, uint c, uint d) {
  uint even = ((a >> 12) & 0x8u) | ((b >> 4) & 0x800u) | ((c << 4) & 0x80000u) | ((d << 12) & 0x8000000u);
  uint odd = ((a >> 24) & 0x80u) | ((b >> 16) & 0x8000u) | ((c >> 8) & 0x800000u) | (d & 0x80000000u);
  return even | odd;
}
