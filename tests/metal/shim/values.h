// Scalar and vector types of Metal as host C++17, and as_type.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__clang__)
#define SHIM_SPACES 1
#define device __attribute__((address_space(1)))
#define constant __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#else
#define SHIM_SPACES 0
#define device
#define constant
#define threadgroup
#endif
#define thread
#define kernel

typedef unsigned char uchar;
#if !defined(__GLIBC__)
typedef unsigned short ushort;
typedef unsigned int uint;
#endif
typedef _Float16 half;
typedef half float16_t;

template <class To, class From> constexpr To as_type(From v) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs equal sizes");
  return __builtin_bit_cast(To, v);
}

// bfloat16 as Metal has it: widens by itself, is made from float on request, to nearest even.
constexpr uint16_t bfloat_bits(float f) {
  uint32_t u = __builtin_bit_cast(uint32_t, f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return uint16_t((u >> 16) | 0x40u);
  return uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
#if SHIM_SPACES
typedef __bf16 bfloat;  // a built-in type, which alone can be loaded from an address space
extern "C" inline __attribute__((used, weak)) bfloat __truncsfbf2(float f) { return as_type<bfloat>(bfloat_bits(f)); }
#else
struct bfloat {
  uint16_t raw;
  bfloat() = default;
  template <class T, class = std::enable_if_t<std::is_arithmetic_v<T> || std::is_same_v<T, half>>>
  explicit constexpr bfloat(T v) : raw(bfloat_bits(float(v))) {}
  constexpr operator float() const { return __builtin_bit_cast(float, uint32_t(raw) << 16); }
};
#endif
typedef bfloat bfloat16_t;

namespace metal {
#if defined(__clang__)
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
#else
template <class T, int N> struct vec;
template <class T> struct vec<T, 2> {
  T x, y;
  vec() = default;
  constexpr vec(T a, T b) : x(a), y(b) {}
};
template <class T> struct vec<T, 3> {
  T x, y, z;
  vec() = default;
  constexpr vec(T a, T b, T c) : x(a), y(b), z(c) {}
};
template <class T> struct vec<T, 4> {
  T x, y, z, w;
  vec() = default;
  constexpr vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
};
#endif
}  // namespace metal

typedef metal::vec<uint, 2> uint2;
typedef metal::vec<uint, 3> uint3;
typedef metal::vec<uint, 4> uint4;
typedef metal::vec<ushort, 2> ushort2;
typedef metal::vec<short, 2> short2;
typedef metal::vec<half, 2> half2;
#if defined(__clang__)  // vectors of clang have no constructor; a macro with arguments leaves other uses of the name alone
#define uint2(...) (uint2{__VA_ARGS__})
#define uint3(...) (uint3{__VA_ARGS__})
#define uint4(...) (uint4{__VA_ARGS__})
#endif
