// How each format chooses the scales of a strip and encodes its weights.
#pragma once

#include "elements.h"
#include "tasks.h"

namespace VARIANT {

constexpr int STRIP = 512;  // weights handled at a time: 16 pairs of vectors, and a whole number of every block
constexpr int PAIRS = STRIP / 32;

// Largest magnitudes: lane j of low is that of weights 32 j .. 32 j + 15, of high that of the 16 after them.
template <class S> INLINE void peaks(const typename S::T* strip, Floats& low, Floats& high) {
    Words a, b;
    if constexpr (sizeof(typename S::T) == 2) {
        const auto get = [=](int j) { return load<Words>(strip + 32 * j) & 0x7FFF7FFFu; };
        reduce_halves<Words>(get, [](Words x, Words y) { return larger_shorts(x, y); }, a, b);
        low = S::widen(larger(a & 0xFFFFu, a >> 16));
        high = S::widen(larger(b & 0xFFFFu, b >> 16));
    } else {
        const auto get = [=](int j) {
            Floats even, odd;
            S::load_pair(strip + 32 * j, even, odd);
            return larger(bits(even) & 0x7FFFFFFFu, bits(odd) & 0x7FFFFFFFu);
        };
        reduce_halves<Words>(get, [](Words x, Words y) { return larger(x, y); }, a, b);
        low = floats(a);
        high = floats(b);
    }
}

// x / divisor, correctly rounded, given the rounded inverse: the residual of the first guess is exact (Markstein).
// CAREFUL, or no fused multiply-add: divide. Either way 0 where the divisor, and with it the inverse, is 0.
template <bool CAREFUL> INLINE Floats quotient(Floats x, Floats divisor, Floats inverse) {
#if defined(__FMA__) || defined(__aarch64__)
    if constexpr (!CAREFUL) {
        Floats guess = x * inverse;
        return __builtin_elementwise_fma(inverse, __builtin_elementwise_fma(-guess, divisor, x), guess);
    }
#endif
    return divisor == 0.0f ? Floats{} : x / divisor;
}

// Between these, residuals and inverses of block scale x tensor scale are normal numbers.
INLINE bool divides_fast(float scale) { return scale >= 0x1p-90f && scale <= 0x1p90f; }

struct Nvfp4 {
    static constexpr int BITS = 4;
    static constexpr bool INEXACT_DIFFERENCE = false;
    float factor[2][PAIRS], inverse[2][PAIRS];
    uint8_t bytes[2 * PAIRS];
    bool careful;

    template <class S> INLINE void choose(Nvfp4& self, const typename S::T* strip, const EncodeTask& task) {
        Floats peak[2], wanted[2];
        Words byte[2];
        peaks<S>(strip, peak[0], peak[1]);
        const float g = task.tensor_scale;
        for (int i = 0; i < 2; i++) {
            Floats rounded;
            wanted[i] = peak[i] / 6.0f / g;
            Words code = E4M3::encode(smaller(wanted[i], splat(E4M3_MAX)), rounded) & E4M3::MASK;
            code = larger(code, splat((uint32_t)task.min_scale));
            byte[i] = peak[i] == 0.0f ? splat((uint32_t)task.zero_scale) : code;
            Floats factor = e4m3_decode(byte[i]) * g;
            store(self.factor[i], factor);
            store(self.inverse[i], factor == 0.0f ? Floats{} : 1.0f / factor);
        }
        // Only a saturated scale makes a weight more than twice its code's value.
        self.careful = !divides_fast(g) || any(larger(wanted[0], wanted[1]) > 2 * E4M3_MAX);
        typedef uint8_t Row __attribute__((vector_size(16)));
        store(self.bytes, __builtin_convertvector(interleave_low(byte[0], byte[1]), Row));
        store(self.bytes + 16, __builtin_convertvector(interleave_high(byte[0], byte[1]), Row));
    }

    struct Pair {
        Floats factor, inverse;
    };
    INLINE Pair pair(const Nvfp4& self, int j) {
        return {halves(self.factor[0][j], self.factor[1][j]), halves(self.inverse[0][j], self.inverse[1][j])};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, Floats& decoded) {
        Floats scaled = quotient<CAREFUL>(magnitude(weight), pair.factor, pair.inverse), rounded;
        Words code = E2M1::encode(smaller(scaled, splat(E2M1_MAX)), rounded);
        decoded = floats(bits(rounded * pair.factor) | (bits(weight) & 0x80000000u));
        return (code & 7u) | ((bits(weight) >> 28) & 8u);
    }
    template <class S> INLINE void store_scales(const Nvfp4& self, const EncodeTask& task, int64_t block, int count) {
        memcpy((uint8_t*)task.scales + block, self.bytes, (size_t)count);
    }
};

template <class Element, int WIDTH, int LARGEST, uint32_t FLOOR_SHIFT> struct Mx {
    static constexpr int BITS = WIDTH;
    static constexpr bool INEXACT_DIFFERENCE = false;
    static constexpr bool careful = false;
    float factor[PAIRS], inverse[PAIRS];
    uint8_t bytes[PAIRS];

    template <class S> INLINE void choose(Mx& self, const typename S::T* strip, const EncodeTask& task) {
        Floats low, high;
        peaks<S>(strip, low, high);
        Floats peak = larger(low, high);
        Words byte;
        if (task.floor_exponent) {
            byte = larger(bits(peak) >> 23, splat(FLOOR_SHIFT)) - FLOOR_SHIFT;
            byte = peak == 0.0f ? splat(127u) : byte;
        } else {
            Floats ratio = peak / (float)LARGEST;
            Words above = bits(ratio) > 0x00400000u ? splat(1u) : Words{};  // 2**-127 and less is byte 0
            byte = bits(ratio) < 0x00800000u ? above : (bits(ratio) + 0x7FFFFFu) >> 23;
            byte = ratio == 0.0f ? splat(127u) : byte;
        }
        store(self.factor, e8m0_decode(byte));
        store(self.inverse, (254u - byte) << 23);  // no finite peak needs byte 254
        typedef uint8_t Row __attribute__((vector_size(16)));
        store(self.bytes, __builtin_convertvector(byte, Row));
    }

    struct Pair {
        Floats factor, inverse;
    };
    INLINE Pair pair(const Mx& self, int j) { return {splat(self.factor[j]), splat(self.inverse[j])}; }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, Floats& decoded) {
        Floats scaled = magnitude(weight) * pair.inverse, rounded;
        Words code = Element::encode(smaller(scaled, splat((float)LARGEST)), rounded);
        decoded = floats(bits(rounded * pair.factor) | (bits(weight) & 0x80000000u));
        return (code & Element::MASK) | ((bits(weight) >> (32 - WIDTH)) & (1u << (WIDTH - 1)));
    }
    template <class S> INLINE void store_scales(const Mx& self, const EncodeTask& task, int64_t block, int count) {
        memcpy((uint8_t*)task.scales + block, self.bytes, (size_t)count);
    }
};

using Mxfp4 = Mx<E2M1, 4, 6, 2>;
using Mxfp8 = Mx<E4M3, 8, 448, 8>;

// Every lane gets the result over its group of `lanes` (1, 2 or 4) neighbours.
template <typename Op> INLINE Floats fold(Floats x, int lanes, Op op) {
    if (lanes >= 2) x = op(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    if (lanes >= 4) x = op(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    return x;
}

template <int WIDTH> struct Affine {
    static constexpr int BITS = WIDTH;
    static constexpr bool INEXACT_DIFFERENCE = true;
    float scale[PAIRS], inverse[PAIRS], bias[PAIRS], stored_scale[PAIRS], stored_bias[PAIRS];
    bool careful;

    template <class S, typename Op> INLINE Floats extremes(const typename S::T* strip, int lanes, Op op) {
        Floats low, high;
        const auto get = [=](int j) {
            Floats even, odd;
            S::load_pair(strip + 32 * j, even, odd);
            return op(even, odd);
        };
        reduce_halves<Floats>(get, op, low, high);
        return fold(op(low, high), lanes, op);
    }

    template <class S> INLINE void choose(Affine& self, const typename S::T* strip, const EncodeTask& task) {
        const int lanes = task.layout.block / 32;
        Floats low = extremes<S>(strip, lanes, [](Floats x, Floats y) { return smaller(x, y); });
        Floats high = extremes<S>(strip, lanes, [](Floats x, Floats y) { return larger(x, y); });
        Integers low_is_edge = magnitude(low) > magnitude(high);
        Floats scale = larger((high - low) / (float)((1 << WIDTH) - 1), splat(1e-7f));
        scale = low_is_edge ? scale : -scale;
        Floats edge = low_is_edge ? low : high;
        Floats steps = __builtin_elementwise_roundeven(edge / scale);
        scale = steps == 0.0f ? scale : edge / steps;
        Floats bias = steps == 0.0f ? Floats{} : edge;
        store(self.scale, scale);
        store(self.bias, bias);
        store(self.inverse, 1.0f / scale);
        for (int j = 0; j < PAIRS; j++) {
            self.stored_scale[j] = S::widen(S::narrow(scale[j]));
            self.stored_bias[j] = S::widen(S::narrow(bias[j]));
        }
        Floats size = magnitude(scale);
        self.careful = any(size > 0x1p90f) || any(size < 1e-8f);
    }

    struct Pair {
        Floats scale, inverse, bias, stored_scale, stored_bias;
    };
    INLINE Pair pair(const Affine& self, int j) {
        return {splat(self.scale[j]), splat(self.inverse[j]), splat(self.bias[j]), splat(self.stored_scale[j]),
                splat(self.stored_bias[j])};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, Floats& decoded) {
        constexpr float largest = (float)((1 << WIDTH) - 1), magic = 0x1p23f;
        Floats scaled = quotient<CAREFUL>(weight - pair.bias, pair.scale, pair.inverse);
        Floats sum = larger(smaller(scaled, splat(largest)), Floats{}) + magic;
        decoded = (sum - magic) * pair.stored_scale + pair.stored_bias;
        return bits(sum) & (uint32_t)largest;
    }
    template <class S> INLINE void store_scales(const Affine& self, const EncodeTask& task, int64_t block, int count) {
        using T = typename S::T;
        const int lanes = task.layout.block / 32;
        for (int i = 0; i < count; i++) {
            ((T*)task.scales)[block + i] = S::narrow(self.scale[i * lanes]);
            ((T*)task.biases)[block + i] = S::narrow(self.bias[i * lanes]);
        }
    }
};

}  // namespace VARIANT
