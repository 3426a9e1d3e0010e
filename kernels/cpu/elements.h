// Small floats and weights' dtypes, one vector at a time: round, decode, widen, narrow.
#pragma once

#include "vectors.h"

namespace VARIANT {

// The float with M mantissa bits whose smallest normal number has the float32 exponent field LOW.
template <int M, uint32_t LOW, uint32_t CODES> struct Minifloat {
    // Codes of x in 0..max, to nearest even. The magic constant's last place is the step of x's binade, and its low
    // bits count the codes below that binade: so the low bits of the sum are the code.
    INLINE Words encode(Floats x, Floats& rounded) {
        Words exponent = larger(bits(x) & 0x7F800000u, splat(LOW << 23));
        Floats magic = floats(exponent + (exponent >> (23 - M)) + (((23 - M) << 23) - (LOW << M)));
        Floats sum = x + magic;
        rounded = sum - magic;
        return bits(sum);  // the low bits; callers mask
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

// Each dtype loads 32 weights as even and odd elements: lanes 0..7 are the first 16 weights, lanes 8..15 the others.
struct BFloat16 {
    using T = uint16_t;
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
    INLINE T narrow(float x) {
        uint32_t b;
        memcpy(&b, &x, sizeof b);
        if (x != x) return (T)((b >> 16) | 0x40u);
        return (T)((b + 0x7FFFu + ((b >> 16) & 1u)) >> 16);
    }
};

struct Float32 {
    using T = float;
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
    INLINE T narrow(float x) { return x; }
};

struct Float16 {
    using T = uint16_t;
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
    INLINE T narrow(float x) {
        _Float16 half = (_Float16)x;
        T value;
        memcpy(&value, &half, sizeof value);
        return value;
    }
};

}  // namespace VARIANT
