// The part of Metal's standard library that the kernels (ours and mlx's) use.
#pragma once
#include <cmath>
#include <limits>

#include "collectives.h"

namespace metal {
using std::conditional_t;
using std::is_same_v;
template <class T> constexpr bool is_number = std::is_arithmetic_v<T> || std::is_same_v<T, half> || std::is_same_v<T, bfloat>;
template <class T> using whole = std::enable_if_t<std::is_integral_v<T>, int>;
template <class T> using real = std::enable_if_t<is_number<T> && !std::is_integral_v<T>, int>;

// Functions of half and bfloat are computed in float; bfloat promotes to float.
template <class T> using result = std::conditional_t<std::is_same_v<T, bfloat>, float, T>;
#define SHIM_UNARY(name) template <class T, real<T> = 0> result<T> name(T x) { return result<T>(std::name(float(x))); }
SHIM_UNARY(log2) SHIM_UNARY(exp2) SHIM_UNARY(rint) SHIM_UNARY(round) SHIM_UNARY(floor) SHIM_UNARY(sqrt)
template <class T, real<T> = 0> result<T> abs(T x) { return result<T>(std::fabs(float(x))); }
template <class T, real<T> = 0> bool isnan(T x) { return std::isnan(float(x)); }
template <class T, real<T> = 0> bool isfinite(T x) { return std::isfinite(float(x)); }
template <class T, real<T> = 0> bool signbit(T x) { return std::signbit(float(x)); }

template <class T, whole<T> = 0> T max(T a, T b) { return a < b ? b : a; }
template <class T, whole<T> = 0> T min(T a, T b) { return b < a ? b : a; }
inline float max(float a, float b) { return a != a ? b : b != b ? a : a < b ? b : a; }
inline float min(float a, float b) { return a != a ? b : b != b ? a : b < a ? b : a; }
inline ushort2 max(ushort2 a, ushort2 b) { return ushort2{max(ushort(a.x), ushort(b.x)), max(ushort(a.y), ushort(b.y))}; }
inline ushort2 min(ushort2 a, ushort2 b) { return ushort2{min(ushort(a.x), ushort(b.x)), min(ushort(a.y), ushort(b.y))}; }
inline short2 max(short2 a, short2 b) { return short2{max(short(a.x), short(b.x)), max(short(a.y), short(b.y))}; }
inline float clamp(float x, float low, float high) { return min(max(x, low), high); }
inline float fma(float a, float b, float c) { return std::fma(a, b, c); }
inline uint popcount(uint x) { return uint(__builtin_popcount(x)); }
}  // namespace metal
