// Whole numbers of 16 bits, two to a 32-bit lane: the arithmetic of kernels/search.py, exact on every machine.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "vectors.h"

namespace VARIANT {

// What one instruction takes.
#if defined(__AVX512BW__)
typedef __m512i Part;
#elif defined(__AVX2__)
typedef __m256i Part;
#elif defined(__x86_64__)
typedef __m128i Part;
#else
typedef int16x8_t Part;
#endif

template <typename Op> INLINE Words by_parts(Words a, Words b, Op op) {
    constexpr int COUNT = sizeof(Words) / sizeof(Part);
    Part x[COUNT], y[COUNT];
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
#pragma clang loop unroll(full)
    for (int i = 0; i < COUNT; i++) x[i] = op(x[i], y[i]);
    memcpy(&a, x, sizeof a);
    return a;
}

// a * b / 2**15, rounded.
INLINE Words multiply_high(Words a, Words b) {
    return by_parts(a, b, [](Part x, Part y) {
#if defined(__AVX512BW__)
        return _mm512_mulhrs_epi16(x, y);
#elif defined(__AVX2__)
        return _mm256_mulhrs_epi16(x, y);
#elif defined(__x86_64__)
        return _mm_mulhrs_epi16(x, y);
#else
        return vqrdmulhq_s16(x, y);
#endif
    });
}

// Each lane's sum of two products.
INLINE Words multiply_add(Words a, Words b) {
    return by_parts(a, b, [](Part x, Part y) {
#if defined(__AVX512BW__)
        return _mm512_madd_epi16(x, y);
#elif defined(__AVX2__)
        return _mm256_madd_epi16(x, y);
#elif defined(__x86_64__)
        return _mm_madd_epi16(x, y);
#else
        int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
        return vreinterpretq_s16_s32(vpaddq_s32(low, high));
#endif
    });
}

INLINE Words multiply_low(Words a, Words b) { return (Words)((Shorts)a * (Shorts)b); }
INLINE Words subtract(Words a, Words b) { return (Words)((Shorts)a - (Shorts)b); }

// The E2M1 number nearest to t / 64, as t / 64 counts; t is below 512, or of any size if WIDE.
template <bool WIDE> INLINE Words nearest_level(Words t) {
    Shorts sixteenths = (Shorts)t >> 4;
#if defined(__AVX512BW__)
    if constexpr (WIDE) sixteenths = __builtin_elementwise_min(sixteenths, Shorts{} + (uint16_t)31);
    const Shorts levels = {0,   32,  32,  64,  64,  96,  96,  128, 128, 128, 192, 192, 192, 192, 256, 256,
                           256, 256, 256, 256, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384, 384};
    return (Words)_mm512_permutexvar_epi16((__m512i)sixteenths, (__m512i)levels);
#elif defined(__aarch64__)
    if constexpr (WIDE) sixteenths = __builtin_elementwise_min(sixteenths, Shorts{} + (uint16_t)31);
    const uint8x16x2_t halves = {{{0, 16, 16, 32, 32, 48, 48, 64, 64, 64, 96, 96, 96, 96, 128, 128},
                                  {128, 128, 128, 128, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192, 192}}};
    Shorts half = (Shorts)by_parts((Words)sixteenths, Words{}, [=](Part x, Part) {
        return vreinterpretq_s16_u8(vqtbl2q_u8(halves, vreinterpretq_u8_s16(x)));
    });
    return (Words)(half + half);
#else
    // A table of 16 bytes: what lies beyond it is 256, or from 320 on 384.
    sixteenths = __builtin_elementwise_min(sixteenths, Shorts{} + (uint16_t)15);
    const __m128i halves = _mm_setr_epi8(0, 16, 16, 32, 32, 48, 48, 64, 64, 64, 96, 96, 96, 96, -128, -128);
    Shorts half = (Shorts)by_parts((Words)sixteenths, Words{}, [=](Part x, Part) {
#if defined(__AVX2__)
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(halves), x);
#else
        return _mm_shuffle_epi8(halves, x);
#endif
    });
    Shorts beyond = (Shorts)((SignedShorts)t > (int16_t)319) & (uint16_t)128;
    return (Words)(half + half + beyond);
#endif
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
