// Small floats and weights' dtypes, one vector at a time: round, decode, widen, narrow.
#pragma once

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "vectors.h"

namespace VARIANT {

// The float with M mantissa bits whose smallest normal number has the float32 exponent field LOW.
template <int M, uint32_t LOW, uint32_t CODES> struct Minifloat {
    INLINE Floats magic_of(Floats x) {
        Words exponent = larger(bits(x) & 0x7F800000u, splat(LOW << 23));
        return floats(exponent + (exponent >> (23 - M)) + (((23 - M) << 23) - (LOW << M)));
    }
    // Codes of x in 0..max, to nearest even. The magic constant's last place is the step of x's binade, and its low
    // bits count the codes below that binade: so the low bits of the sum are the code.
    INLINE Words encode(Floats x, Floats& rounded) {
        Floats magic = magic_of(x);
        Floats sum = x + magic;
        rounded = sum - magic;
        return bits(sum);  // the code is in the low bits
    }
    INLINE Floats decode(Words code) {
        Words shifted = code << (23 - M);
        Floats normal = floats(shifted + ((LOW - 1) << 23));
        Floats subnormal = floats(shifted + (LOW << 23)) - floats(splat(LOW << 23));
        return code < (1u << M) ? subnormal : normal;
    }
    static constexpr uint32_t MASK = CODES - 1;
};

using E2M1 = Minifloat<1, 127, 8>;

#if defined(__AVX2__)
// Three constants are enough for E2M1, looked up by the low bits of the exponent.
template <> inline __attribute__((always_inline)) Floats E2M1::magic_of(Floats x) {
    const float below_2 = 0x1p22f, below_4 = 0x1p23f + 2, below_8 = 0x1p24f + 8;
#if defined(__AVX512F__)
    const __m512 table = _mm512_setr_ps(below_4, below_8, below_2, below_2, below_2, below_2, below_2, below_2, below_2,
                                        below_2, below_2, below_2, below_2, below_2, below_2, below_2);
    return (Floats)_mm512_permutexvar_ps((__m512i)(bits(larger(x, splat(0x1p-12f))) >> 23), table);
#else
    const __m256 table = _mm256_setr_ps(below_4, below_8, below_2, below_2, below_2, below_2, below_2, below_2);
    Words index = bits(larger(x, splat(0x1p-5f))) >> 23;
    typedef uint32_t Half __attribute__((vector_size(32)));
    Half low = __builtin_shufflevector(index, index, 0, 1, 2, 3, 4, 5, 6, 7);
    Half high = __builtin_shufflevector(index, index, 8, 9, 10, 11, 12, 13, 14, 15);
    Octet a = (Octet)_mm256_permutevar8x32_ps(table, (__m256i)low);
    Octet b = (Octet)_mm256_permutevar8x32_ps(table, (__m256i)high);
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif
}
#endif

using E4M3 = Minifloat<3, 121, 128>;

constexpr float E2M1_MAX = 6.0f;
constexpr float E4M3_MAX = 448.0f;

// An E4M3 byte with its sign, NaN where it is NaN.
INLINE Floats e4m3_decode(Words byte) {
    Words low = byte & 0x7Fu;
    Words value = bits(E4M3::decode(low));
    value = low == 0x7Fu ? splat(0x7FC00000u) : value;
    return floats(value | ((byte & 0x80u) << 24));
}

INLINE Floats e8m0_decode(Words byte) {
    Words value = byte == 0u ? splat(0x00400000u) : byte << 23;
    return floats(byte == 255u ? splat(0x7FC00000u) : value);
}

INLINE Words round_to_bfloat16(Floats x) {
    Words b = bits(x);
    return b + 0x7FFFu + ((b >> 16) & 1u);  // the upper halves; finite x, or the NaN 0x7FC0....
}

INLINE Floats widen_half(Words half) {
    Words magnitude = (half & 0x7FFFu) << 13;
    Floats normal = floats(magnitude + (112u << 23));
    Floats subnormal = floats(magnitude + (113u << 23)) - floats(splat(113u << 23));
    Words value = bits(magnitude < (1u << 23) ? subnormal : normal);
    return floats(value | ((half & 0x8000u) << 16));
}

INLINE Words narrow_half(Floats x) {
    Words magnitude = bits(x) & 0x7FFFFFFFu, sign = (bits(x) >> 16) & 0x8000u;
    Words normal = (magnitude - (112u << 23) + 0xFFFu + ((magnitude >> 13) & 1u)) >> 13;
    Words subnormal = bits(floats(magnitude) + 0.5f) - 0x3F000000u;  // 0.5's last place is 2**-24
    Words special = magnitude > 0x7F800000u ? splat(0x7E00u) : splat(0x7C00u);
    Words value = magnitude < 0x38800000u ? subnormal : normal;
    return (magnitude >= 0x47800000u ? special : value) | sign;
}

INLINE Words count_zero_shorts(Words x) {
    Shorts magnitude = (Shorts)x & (uint16_t)0x7FFF;
    return (Words)(magnitude == 0 ? Shorts{} + (uint16_t)1 : Shorts{});
}

// `rounded` is to the dtype, still in float32; `narrow` stores such a number.
// Each dtype loads 32 weights as even and odd elements: lanes 0..7 are the first 16 weights, lanes 8..15 the others.
// EXACT_SQUARES: in float32 the square of a weight is exact, unless its magnitude has bits below SMALLEST.
struct BFloat16 {
    using T = uint16_t;
    static constexpr bool EXACT_SQUARES = true;
    static constexpr float LARGEST = 0x1.FEp127f;
    static constexpr uint32_t SMALLEST = (127 - 64) << 7;  // 2**-64, as bits
    // Of 32 weights, how many are zero: 16-bit counters, two to a lane.
    INLINE Words zeros(const T* from) { return count_zero_shorts(load<Words>(from)); }
    INLINE void load_pair(const T* from, Floats& even, Floats& odd) {
        Words x = load<Words>(from);
        even = floats(x << 16);
        odd = floats(x & 0xFFFF0000u);
    }
    INLINE void store_pair(T* to, Floats even, Floats odd) {
        store(to, (round_to_bfloat16(even) >> 16) | (round_to_bfloat16(odd) & 0xFFFF0000u));
    }
    INLINE Floats widen(Words x) { return floats(x << 16); }
    INLINE float widen(T x) {
        uint32_t wide = (uint32_t)x << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    INLINE Floats rounded(Floats x) { return floats(round_to_bfloat16(x) & 0xFFFF0000u); }
    INLINE T narrow(float rounded) {
        uint32_t b;
        memcpy(&b, &rounded, sizeof b);
        return (T)(b >> 16);
    }
};

struct Float32 {
    using T = float;
    static constexpr bool EXACT_SQUARES = false;
    static constexpr float LARGEST = 0x1.FFFFFEp127f;
    static constexpr uint32_t SMALLEST = 1;
    INLINE Words zeros(const T* from) {
        Words first = load<Words>(from) & 0x7FFFFFFFu, second = load<Words>(from + 16) & 0x7FFFFFFFu;
        return (first == 0u ? splat(1u) : Words{}) + (second == 0u ? splat(1u) : Words{});
    }
    INLINE void load_pair(const T* from, Floats& even, Floats& odd) {
        Floats a = load<Floats>(from), b = load<Floats>(from + 16);
        even = evens(a, b);
        odd = odds(a, b);
    }
    INLINE void store_pair(T* to, Floats even, Floats odd) {
        store(to, interleave_low(even, odd));
        store(to + 16, interleave_high(even, odd));
    }
    INLINE float widen(T x) { return x; }
    INLINE Floats rounded(Floats x) { return x; }
    INLINE T narrow(float rounded) { return rounded; }
};

struct Float16 {
    using T = uint16_t;
    static constexpr bool EXACT_SQUARES = true;
    static constexpr float LARGEST = 65504.0f;
    static constexpr uint32_t SMALLEST = 1;
    INLINE Words zeros(const T* from) { return count_zero_shorts(load<Words>(from)); }
#if defined(__F16C__) || defined(__aarch64__)
    typedef _Float16 Native __attribute__((vector_size(32)));
    INLINE void load_pair(const T* from, Floats& even, Floats& odd) {
        Floats a = __builtin_convertvector(load<Native>(from), Floats);
        Floats b = __builtin_convertvector(load<Native>(from + 16), Floats);
        even = evens(a, b);
        odd = odds(a, b);
    }
    INLINE void store_pair(T* to, Floats even, Floats odd) {
        store(to, __builtin_convertvector(interleave_low(even, odd), Native));
        store(to + 16, __builtin_convertvector(interleave_high(even, odd), Native));
    }
#else
    INLINE void load_pair(const T* from, Floats& even, Floats& odd) {
        Words x = load<Words>(from);
        even = widen_half(x & 0xFFFFu);
        odd = widen_half(x >> 16);
    }
    INLINE void store_pair(T* to, Floats even, Floats odd) {
        store(to, narrow_half(even) | (narrow_half(odd) << 16));
    }
#endif
    INLINE Floats widen(Words x) { return widen_half(x); }
    INLINE float widen(T x) {
        _Float16 half;
        memcpy(&half, &x, sizeof half);
        return (float)half;
    }
    INLINE Floats rounded(Floats x) { return widen_half(narrow_half(x)); }
    INLINE T narrow(float rounded) {
        _Float16 half = (_Float16)rounded;
        T value;
        memcpy(&value, &half, sizeof value);
        return value;
    }
};

}  // namespace VARIANT
