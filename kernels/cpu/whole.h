// Whole numbers of 16 bits, two to a 32-bit lane: the arithmetic of kernels/search.py, exact on every machine.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "vectors.h"

namespace VARIANT {

// What one register holds of the 64 bytes of a vector: whoever keeps many numbers works on one part after the other.
#if defined(__AVX512BW__)
constexpr int PART = 64;
#elif defined(__AVX2__)
constexpr int PART = 32;
#else
constexpr int PART = 16;
#endif
constexpr int PARTS = (int)sizeof(Words) / PART;

typedef uint32_t Part __attribute__((vector_size(PART)));
typedef uint16_t PartShorts __attribute__((vector_size(PART)));
typedef int16_t SignedPart __attribute__((vector_size(PART)));
typedef int32_t PartIntegers __attribute__((vector_size(PART)));
typedef float PartFloats __attribute__((vector_size(PART)));

INLINE Part part_of(const Words& x, int part) { return load<Part>((const char*)&x + part * PART); }

// a * b / 2**15, rounded.
INLINE Part multiply_high(Part a, Part b) {
#if defined(__AVX512BW__)
    return (Part)_mm512_mulhrs_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Part)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (Part)_mm_mulhrs_epi16((__m128i)a, (__m128i)b);
#else
    return (Part)vqrdmulhq_s16((int16x8_t)a, (int16x8_t)b);
#endif
}

// Each lane's sum of two products.
INLINE Part multiply_add(Part a, Part b) {
#if defined(__AVX512BW__)
    return (Part)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (Part)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (Part)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    const int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (Part)vpaddq_s32(low, vmull_high_s16((int16x8_t)a, (int16x8_t)b));
#endif
}

// x, or -x where `sign` is -1 and not 1.
INLINE Part signed_by(Part x, Part sign) {
#if defined(__AVX2__) && !defined(__AVX512BW__)
    return (Part)_mm256_sign_epi16((__m256i)x, (__m256i)sign);
#elif defined(__x86_64__) && !defined(__AVX512BW__)
    return (Part)_mm_sign_epi16((__m128i)x, (__m128i)sign);
#else
    return (Part)((PartShorts)x * (PartShorts)sign);
#endif
}

INLINE Part subtract(Part a, Part b) { return (Part)((PartShorts)a - (PartShorts)b); }
INLINE PartShorts at_most(Part x, uint16_t most) {
    return __builtin_elementwise_min((PartShorts)x, PartShorts{} + most);
}

// To the nearest whole numbers, ties to even.
INLINE PartIntegers round(PartFloats x) {
#if defined(__AVX512BW__)
    return (PartIntegers)_mm512_cvtps_epi32((__m512)x);
#elif defined(__AVX2__)
    return (PartIntegers)_mm256_cvtps_epi32((__m256)x);
#elif defined(__x86_64__)
    return (PartIntegers)_mm_cvtps_epi32((__m128)x);
#else
    return (PartIntegers)vcvtnq_s32_f32((float32x4_t)x);
#endif
}

// The E2M1 number nearest to t / 64, as t / 64 counts; t is below 512, or of any size if WIDE.
template <bool WIDE> INLINE Part nearest_level(Part t) {
    const Part sixteenths = (Part)((PartShorts)t >> 4);
#if defined(__AVX512BW__)
    const PartShorts levels = {0,   32,  32,  64,  64,  96,  96,  128, 128, 128, 192, 192, 192, 192, 256, 256,
                               256, 256, 256, 256, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384};
    const Part index = WIDE ? (Part)at_most(sixteenths, 31) : sixteenths;
    return (Part)_mm512_permutexvar_epi16((__m512i)index, (__m512i)levels);
#elif defined(__aarch64__)
    const uint8x16x2_t halves = {{{0, 16, 16, 32, 32, 48, 48, 64, 64, 64, 96, 96, 96, 96, 128, 128},
                                  {128, 128, 128, 128, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192}}};
    const Part index = WIDE ? (Part)at_most(sixteenths, 31) : sixteenths;
    const PartShorts half = (PartShorts)vqtbl2q_u8(halves, (uint8x16_t)index);
    return (Part)(half + half);
#else
    // A table of 16 bytes: what lies beyond it is 256, or from 320 on 384.
    const __m128i halves = _mm_setr_epi8(0, 16, 16, 32, 32, 48, 48, 64, 64, 64, 96, 96, 96, 96, -128, -128);
    const Part index = (Part)at_most(sixteenths, 15);
#if defined(__AVX2__)
    const PartShorts half = (PartShorts)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(halves), (__m256i)index);
#else
    const PartShorts half = (PartShorts)_mm_shuffle_epi8(halves, (__m128i)index);
#endif
    const PartShorts beyond = (PartShorts)((SignedPart)t > (int16_t)319) & (uint16_t)128;
    return (Part)(half + half + beyond);
#endif
}

// A number in 1/64 rounded to E2M1, to nearest even, saturating; in `bits` its code and above it what does not matter.
struct Rounded {
    Part bits;
    PartFloats value;
};
INLINE Rounded round_to_level(PartFloats magnitude) {
    const PartFloats most = PartFloats{} + 384.0f, least = PartFloats{} + 2.0f;
    const PartFloats x = magnitude < most ? magnitude : most, floored = x > least ? x : least;
#if defined(__AVX2__)
    // What to add so that the last place is the step of the binade, by the low bits of its exponent.
    const float below_2 = 0x1p28f, below_4 = 0x1p29f + 128, below_8 = 0x1p30f + 512;
#if defined(__AVX512BW__)
    const __m512 table = _mm512_setr_ps(below_2, below_2, below_2, below_2, below_2, below_2, below_4, below_8, below_2,
                                        below_2, below_2, below_2, below_2, below_2, below_4, below_8);
    const PartFloats magic = (PartFloats)_mm512_permutexvar_ps((__m512i)((Part)floored >> 23), table);
#else
    const __m256 table = _mm256_setr_ps(below_2, below_2, below_2, below_2, below_2, below_2, below_4, below_8);
    const PartFloats magic = (PartFloats)_mm256_permutevar8x32_ps(table, (__m256i)((Part)floored >> 23));
#endif
#else
    const Part exponent = (Part)__builtin_elementwise_max((Part)floored & 0x7F800000u, Part{} + (133u << 23));
    const PartFloats magic = (PartFloats)(exponent + (exponent >> 22) + ((22u << 23) - (133u << 1)));
#endif
    const PartFloats sum = x + magic;
    return {(Part)sum, sum - magic};
}

// From 16 vectors: lane j of `low[k]` is lane k of vector j, lane j of `high[k]` is its lane 8 + k.
INLINE void transpose(const Words* from, Words* low, Words* high) {
    Words quarters[4][4];  // [i][r]: lane 4 q + s is lane 4 q + r of vector 4 i + s
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        const Words *x = from + 4 * i;
        Words a = interleave_low_quarters(x[0], x[1]), b = interleave_high_quarters(x[0], x[1]);
        Words c = interleave_low_quarters(x[2], x[3]), d = interleave_high_quarters(x[2], x[3]);
        quarters[i][0] = first_pairs(a, c);
        quarters[i][1] = second_pairs(a, c);
        quarters[i][2] = first_pairs(b, d);
        quarters[i][3] = second_pairs(b, d);
    }
#pragma clang loop unroll(full)
    for (int r = 0; r < 4; r++) {
        Words a = first_halves(quarters[0][r], quarters[1][r]), b = first_halves(quarters[2][r], quarters[3][r]);
        Words c = second_halves(quarters[0][r], quarters[1][r]), d = second_halves(quarters[2][r], quarters[3][r]);
        low[r] = even_quarters(a, b);
        low[r + 4] = odd_quarters(a, b);
        high[r] = even_quarters(c, d);
        high[r + 4] = odd_quarters(c, d);
    }
}

}  // namespace VARIANT
