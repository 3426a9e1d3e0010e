// Sixteen-lane vectors in the compiler's vector extensions: every instruction set gets the widest registers it has.
#pragma once

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

namespace VARIANT {

typedef float Floats __attribute__((vector_size(64)));     // 16 lanes
typedef uint32_t Words __attribute__((vector_size(64)));   // 16 lanes
typedef int32_t Integers __attribute__((vector_size(64))); // 16 lanes
typedef uint16_t Shorts __attribute__((vector_size(64)));  // 32 lanes
typedef int16_t SignedShorts __attribute__((vector_size(64)));  // 32 lanes
typedef uint8_t Bytes __attribute__((vector_size(64)));    // 64 lanes
typedef double Doubles __attribute__((vector_size(64)));   // 8 lanes
typedef float Octet __attribute__((vector_size(32)));      // 8 lanes

constexpr int LANES = 16;

template <typename V> INLINE V load(const void* from) {
    V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <typename V> INLINE void store(void* to, V v) { memcpy(to, &v, sizeof v); }

// Also for what will be written: a store that waits for its cache line holds up all stores after it.
INLINE void prefetch(const void* from, int64_t nbytes) {
    for (int64_t line = 0; line < nbytes; line += 64) __builtin_prefetch((const char*)from + line);
}

INLINE Words bits(Floats x) { return (Words)x; }
INLINE Floats floats(Words x) { return (Floats)x; }
INLINE Floats splat(float x) { return x - Floats{}; }
INLINE Words splat(uint32_t x) { return x - Words{}; }
INLINE Floats magnitude(Floats x) { return floats(bits(x) & 0x7FFFFFFFu); }

// Like the machine's instructions, these return the second argument when the first is NaN.
INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
INLINE Doubles larger(Doubles a, Doubles b) { return a > b ? a : b; }
INLINE Words larger(Words a, Words b) { return __builtin_elementwise_max(a, b); }
INLINE Words larger_shorts(Words a, Words b) { return (Words)__builtin_elementwise_max((Shorts)a, (Shorts)b); }

// Bits of `a` where the mask has ones, of `b` elsewhere.
INLINE Words select(uint32_t mask, Words a, Words b) { return (a & mask) | (b & ~mask); }

template <typename Mask> INLINE bool any(Mask mask) { return __builtin_reduce_or(mask) != 0; }

// Lanes 0..7 hold `low`, lanes 8..15 hold `high`: the two halves of a pair of blocks.
INLINE Floats halves(float low, float high) {
    return __builtin_shufflevector(splat(low), splat(high), 0, 1, 2, 3, 4, 5, 6, 7, 24, 25, 26, 27, 28, 29, 30, 31);
}

template <typename V> INLINE V evens(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
template <typename V> INLINE V odds(V a, V b) {
    return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
template <typename V> INLINE V interleave_low(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <typename V> INLINE V interleave_high(V a, V b) {
    return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// Reduce neighbouring 32-bit lanes of two vectors, within each 16 bytes: [a01 a23 b01 b23] four times.
template <typename V, typename Op> INLINE V reduce_neighbours(V a, V b, Op op) {
    return op(__builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30),
              __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31));
}

template <typename V> INLINE V first_halves(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
}
template <typename V> INLINE V second_halves(V a, V b) {
    return __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

template <typename V> INLINE V quarter_pairs(V a, V b, bool second) {
    return second ? __builtin_shufflevector(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31)
                  : __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
}

// Within each 16 bytes: lanes 0 and 1, or 2 and 3, of both by turns; then the first or the second two lanes of both.
template <typename V> INLINE V interleave_low_quarters(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
}
template <typename V> INLINE V interleave_high_quarters(V a, V b) {
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
}
template <typename V> INLINE V first_pairs(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
}
template <typename V> INLINE V second_pairs(V a, V b) {
    return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}

template <typename V> INLINE V even_quarters(V a, V b) {
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
}
template <typename V> INLINE V odd_quarters(V a, V b) {
    return __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}

// From 16 vectors `get(0)`..`get(15)`: lane j of `low` reduces lanes 0..7 of vector j, lane j of `high` lanes 8..15.
template <typename V, typename Get, typename Op> INLINE void reduce_halves(Get get, Op op, V& low, V& high) {
    V four[4];
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        V first = reduce_neighbours(get(4 * i), get(4 * i + 1), op);
        V second = reduce_neighbours(get(4 * i + 2), get(4 * i + 3), op);
        four[i] = reduce_neighbours(first, second, op);
    }
    // Each vector now holds one lane per source in each 16 bytes; transpose the 16-byte quarters.
    V a = quarter_pairs(four[0], four[1], false), b = quarter_pairs(four[2], four[3], false);
    V c = quarter_pairs(four[0], four[1], true), d = quarter_pairs(four[2], four[3], true);
    low = op(first_halves(a, b), second_halves(a, b));
    high = op(first_halves(c, d), second_halves(c, d));
}

INLINE Doubles widen_half_of(Floats x, int half) {
    Octet low = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    Octet high = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_convertvector(half ? high : low, Doubles);
}

// The sums of eight vectors of eight doubles, in order.
INLINE Doubles sums_of_eight(const Doubles* x) {
    Doubles pair[4], four[2];
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++)
        pair[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
                  __builtin_shufflevector(x[2 * i], x[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int i = 0; i < 2; i++)
        four[i] = __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 0, 1, 4, 5, 8, 9, 12, 13) +
                  __builtin_shufflevector(pair[2 * i], pair[2 * i + 1], 2, 3, 6, 7, 10, 11, 14, 15);
    return __builtin_shufflevector(four[0], four[1], 0, 1, 4, 5, 8, 9, 12, 13) +
           __builtin_shufflevector(four[0], four[1], 2, 3, 6, 7, 10, 11, 14, 15);
}

INLINE double sum(Doubles x) {
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

// Byte k of lane i goes to byte 16 k + i; `unravel_bytes` is its inverse.
INLINE Bytes ravel_bytes(Words x) {
    return __builtin_shufflevector((Bytes)x, (Bytes)x, 0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 1,
                                   5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 2, 6, 10, 14, 18, 22, 26,
                                   30, 34, 38, 42, 46, 50, 54, 58, 62, 3, 7, 11, 15, 19, 23, 27, 31, 35, 39, 43, 47,
                                   51, 55, 59, 63);
}
INLINE Words unravel_bytes(Bytes x) {
    return (Words)__builtin_shufflevector(
        x, x, 0, 16, 32, 48, 1, 17, 33, 49, 2, 18, 34, 50, 3, 19, 35, 51, 4, 20, 36, 52, 5, 21, 37, 53, 6, 22, 38, 54,
        7, 23, 39, 55, 8, 24, 40, 56, 9, 25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61,
        14, 30, 46, 62, 15, 31, 47, 63);
}
// The same for the two 16-bit halves of each lane.
INLINE Shorts ravel_shorts(Words x) {
    return __builtin_shufflevector((Shorts)x, (Shorts)x, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 1,
                                   3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
INLINE Words unravel_shorts(Shorts x) {
    return (Words)__builtin_shufflevector(x, x, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25,
                                          10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

}  // namespace VARIANT
