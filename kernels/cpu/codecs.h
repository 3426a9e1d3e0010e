// How each format chooses the scales of a strip and encodes its weights.
//
// A codec holds what is computed once, its Strip the scales of one strip. `encode` gives codes, in their BITS low bits, and
// what they decode to: with its sign when SIGNED, and then the difference to the weight may round in float32; else as
// magnitudes, whose difference is exact unless the strip is `careful`, because a weight and its code's value are within
// a factor of two, or the value is 0. A measured strip is careful, too, when float32 can not hold its squares.
#pragma once

#include "columns.h"

namespace VARIANT {

// What one look at a strip tells: largest magnitudes, lane j of the first vector for weights 32 j .. 32 j + 15, of the
// second for the 16 after them; and, if asked, whether any weight is zero (or so small that its square needs care).
struct Peaks {
    Floats halves[2];
    bool zero;
};

// Squares of numbers up to 2**60 can be summed in float32, and those of the errors of blocks from 2**-38 are normal.
INLINE bool squares_fit(Floats x, Floats y) {
    const Words least = __builtin_elementwise_min(bits(x) - 1u, bits(y) - 1u);  // zeros are large
    return !any((larger(x, y) > 0x1p60f) | (least < ((127u - 38) << 23) - 1u));
}

// Whether a weight other than zero is so small that its square may not be exact.
template <class S> INLINE bool holds_tiny(const typename S::T* strip) {
    if constexpr (S::SMALLEST > 1) {
        Shorts least = Shorts{} + (uint16_t)0xFFFF;
        for (int j = 0; j < PAIRS; j++)
            least = __builtin_elementwise_min(least, (load<Shorts>(strip + 32 * j) & (uint16_t)0x7FFF) - (uint16_t)1);
        return any(least < (uint16_t)(S::SMALLEST - 1));
    }
    return false;
}

template <class S, bool ZEROS> INLINE Peaks find_peaks(const typename S::T* strip) {
    Peaks peaks;
    Words low, high, least = splat(0xFFFFFFFFu);
    if constexpr (sizeof(typename S::T) == 2) {
        const auto get = [&](int j) {
            Words x = load<Words>(strip + 32 * j) & 0x7FFF7FFFu;
            if constexpr (ZEROS) least = (Words)__builtin_elementwise_min((Shorts)least, (Shorts)x);
            return x;
        };
        reduce_halves<Words>(get, [](Words x, Words y) { return larger_shorts(x, y); }, low, high);
        peaks.halves[0] = S::widen(larger(low & 0xFFFFu, low >> 16));
        peaks.halves[1] = S::widen(larger(high & 0xFFFFu, high >> 16));
        peaks.zero = any((Shorts)least < (uint16_t)S::SMALLEST);
    } else {
        const auto get = [&](int j) {
            Words a = load<Words>(strip + 32 * j) & 0x7FFFFFFFu, b = load<Words>(strip + 32 * j + 16) & 0x7FFFFFFFu;
            if constexpr (ZEROS) least = __builtin_elementwise_min(least, __builtin_elementwise_min(a, b));
            return larger(first_halves(a, b), second_halves(a, b));
        };
        reduce_halves<Words>(get, [](Words x, Words y) { return larger(x, y); }, low, high);
        peaks.halves[0] = floats(low);
        peaks.halves[1] = floats(high);
        peaks.zero = any(least == 0);
    }
    return peaks;
}

template <class S> INLINE bool measures_wide(const Peaks& peaks, const typename S::T* strip) {
    return !squares_fit(peaks.halves[0], peaks.halves[1]) || (peaks.zero && holds_tiny<S>(strip));
}

// x / divisor given the rounded inverse: the residual of the first guess is exact, so the second is right (Markstein).
// test_cpu_division.py compares it with division for every divisor, around every midpoint that decides a code.
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

INLINE void store_bytes(uint8_t* to, Words x) {
    typedef uint8_t Row __attribute__((vector_size(16)));
    store(to, __builtin_convertvector(x, Row));
}

// The scales of a strip's blocks, where they are known before it is encoded.
struct Given {
    const float* scales;
    int count;
};

struct Nvfp4 {
    static constexpr int BITS = 4;
    static constexpr bool SIGNED = false, COUNTED = true;
    alignas(64) float factor[256], inverse[256];  // of every scale byte
    bool fast;

    struct Strip {
        Floats error_bound;
        alignas(64) uint8_t bytes[2 * PAIRS];
        bool careful, zero;
    };

    INLINE void prepare(Nvfp4& self, const EncodeTask& task) {
        self.fast = divides_fast(task.tensor_scale);
        for (uint32_t byte = 0; byte < 256; byte += LANES) {
            Words lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
            Floats factor = e4m3_decode(lane + byte) * task.tensor_scale;
            store(self.factor + byte, factor);
            store(self.inverse + byte, factor == 0.0f ? Floats{} : 1.0f / factor);
        }
    }

    INLINE Words search(const EncodeTask& task, const Half& half, Floats peak, Words first, const Words* columns) {
        if (task.moments) return choose_scales<Cost::MOMENTS>(task, half, peak, first, columns);
        if (task.importance) return choose_scales<Cost::IMPORTANCE>(task, half, peak, first, columns);
        return choose_scales<Cost::SQUARES>(task, half, peak, first, columns);
    }

    // Scale bytes of a strip, and what they were chosen by.
    struct Chosen {
        Peaks peaks;
        Half parts[2];  // where there was a choice
        Words byte[2];
    };

    // Better scale bytes than those of `max`, but where these saturate.
    template <class S>
    __attribute__((noinline)) static void improve(const EncodeTask& task, const typename S::T* weight,
                                                  const Integers* saturated, const Columns& columns, int64_t column,
                                                  Chosen& chosen) {
        whole_weights<S>(weight, chosen.peaks.halves, chosen.parts);
        for (int h = 0; h < 2; h++) {
            Words& byte = chosen.byte[h];
            const Words found = search(task, chosen.parts[h], chosen.peaks.halves[h], byte, columns.of(column, h));
            byte = saturated[h] ? byte : found;
        }
    }

    template <class S, bool MEASURE>
    INLINE void choose_bytes(const Nvfp4& self, Strip& strip, const typename S::T* weight, const EncodeTask& task,
                             const Columns& columns, int64_t column, Chosen& chosen) {
        const Peaks& peaks = chosen.peaks = find_peaks<S, MEASURE>(weight);
        const Floats six = splat(6.0f), sixth = splat(1.0f / 6.0f), g = splat(task.tensor_scale);
        const Floats inverse = splat(1.0f / task.tensor_scale);
        const Words least = splat((uint32_t)task.min_scale);
        Words* byte = chosen.byte;
        Integers saturated[2];
        strip.error_bound = Floats{};
        const bool guided = task.moments || task.importance;
        const float share = guided ? 0.64f : task.method == MAX ? 0.18f : 0.34f;
        for (int i = 0; i < 2; i++) {
            const Floats peak = peaks.halves[i];
            Floats rounded, wanted = self.fast ? quotient<false>(quotient<false>(peak, six, sixth), g, inverse)
                                               : quotient<true>(quotient<true>(peak, six, sixth), g, inverse);
            Words code = E4M3::encode(smaller(wanted, splat(E4M3_MAX)), rounded) & E4M3::MASK;
            byte[i] = larger(code, least);
            saturated[i] = ~(wanted <= E4M3_MAX + 16);
            // Half the widest step is one scale, and a normal scale is within 1/16 of a sixth of the peak; one that is
            // chosen may be 1.75 times as large, or cut off two scales where the peak is eight, guided ten of sixteen.
            Floats bound = code < larger(least, splat(8u)) ? peak : peak * share;
            strip.error_bound = larger(strip.error_bound, bound);
        }
        // Only a saturated scale makes a weight more than twice its code's value, or one that cuts off half of it.
        strip.careful = !self.fast || any(saturated[0] | saturated[1]);
        strip.zero = peaks.zero;
        if constexpr (MEASURE) strip.careful |= measures_wide<S>(peaks, weight);
        if (task.method != MAX) improve<S>(task, weight, saturated, columns, column, chosen);
        for (int i = 0; guided && i < 2; i++)
            strip.careful |= any(peaks.halves[i] > E4M3::decode(byte[i]) * g * (2 * E2M1_MAX));
        for (int i = 0; i < 2; i++) byte[i] = peaks.halves[i] == 0.0f ? splat((uint32_t)task.zero_scale) : byte[i];
        store_bytes(strip.bytes, interleave_low(byte[0], byte[1]));
        store_bytes(strip.bytes + LANES, interleave_high(byte[0], byte[1]));
    }

    template <class S, bool MEASURE>
    INLINE void choose(const Nvfp4& self, Strip& strip, const typename S::T* weight, const EncodeTask& task,
                       const Columns& columns, int64_t column, const Given&) {
        Chosen chosen;
        choose_bytes<S, MEASURE>(self, strip, weight, task, columns, column, chosen);
    }

    struct Pair {
        Floats factor, inverse;
    };
    INLINE Pair pair(const Nvfp4& self, const Strip& strip, int j) {
        const int low = strip.bytes[2 * j], high = strip.bytes[2 * j + 1];
        return {halves(self.factor[low], self.factor[high]), halves(self.inverse[low], self.inverse[high])};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, int, Floats& decoded) {
        Floats scaled = quotient<CAREFUL>(magnitude(weight), pair.factor, pair.inverse), rounded;
        Words code = E2M1::encode(smaller(scaled, splat(E2M1_MAX)), rounded);
        decoded = rounded * pair.factor;
        return select(8u, bits(weight) >> 28, code);
    }
    template <class S> INLINE void store_scales(const Strip& strip, const EncodeTask& task, int64_t block, int count) {
        memcpy((uint8_t*)task.scales + block, strip.bytes, (size_t)count);
    }
    INLINE void count_scales(const Strip& strip, int j, uint32_t (*counts)[256]) {
        counts[0][strip.bytes[2 * j]]++;
        counts[1][strip.bytes[2 * j + 1]]++;
    }
};

// NVFP4 whose codes are gone over once more, by moments: they are there before a strip is encoded.
struct Nvfp4GoneOver : Nvfp4 {
    static constexpr bool SIGNED = true;

    struct Strip : Nvfp4::Strip {
        alignas(64) uint8_t codes[STRIP / 2];
    };

    // The nearest codes of a pair of blocks, where `keeps` says so.
    template <class S>
    INLINE void keep_nearest(const Nvfp4& self, Strip& strip, const typename S::T* weight, int j, const bool* keeps) {
        const Nvfp4::Pair pair = Nvfp4::pair(self, strip, j);
        Floats even, odd, decoded;
        S::load_pair(weight + 32 * j, even, odd);
        const Words low = Nvfp4::encode<true>(pair, even, 0, decoded) & 15u;
        uint8_t codes[LANES];
        store_bytes(codes, low | (Nvfp4::encode<true>(pair, odd, 1, decoded) & 15u) << 4);
        for (int h = 0; h < 2; h++)
            if (keeps[h]) memcpy(strip.codes + 16 * j + 8 * h, codes + 8 * h, 8);
    }

    template <class S>
    __attribute__((noinline)) static void choose_codes(const Nvfp4& self, Strip& strip, const typename S::T* weight,
                                                       const EncodeTask& task, const Columns& columns, int64_t column,
                                                       const Chosen& chosen) {
        Integers kept[2];
        Words scales[2], codes[2][2];
        for (int h = 0; h < 2; h++) {
            const Floats peak = chosen.peaks.halves[h];
            const Unit unit = unit_of(peak);
            const Words whole = round_low(peak * unit.weight) & 0xFFFFu, most = splat((uint32_t)WEIGHT_MOST);
            scales[h] = multiplier(1.0f / (E4M3::decode(chosen.byte[h]) * task.tensor_scale), unit);
            kept[h] = ~(searchable(peak) & fits(whole < most ? whole : most, scales[h], GUIDED_MOST));
        }
        go_over(chosen.parts, scales, columns.of(column, 0), codes);
        for (int i = 0; i < 4 * LANES; i++)
            memcpy(strip.codes + 4 * i, (const uint32_t*)&codes[i / 2 % 2][i % 2] + i / 4, 4);
        if (!any(kept[0] | kept[1])) return;
        for (int j = 0; j < PAIRS; j++) {
            const bool keeps[2] = {kept[0][j] != 0, kept[1][j] != 0};
            if (keeps[0] || keeps[1]) keep_nearest<S>(self, strip, weight, j, keeps);
        }
    }

    template <class S, bool MEASURE>
    INLINE void choose(const Nvfp4& self, Strip& strip, const typename S::T* weight, const EncodeTask& task,
                       const Columns& columns, int64_t column, const Given&) {
        Chosen chosen;
        choose_bytes<S, MEASURE>(self, strip, weight, task, columns, column, chosen);
        choose_codes<S>(self, strip, weight, task, columns, column, chosen);
        for (int h = 0; h < 2; h++) {  // any code of either sign
            const Floats most = E4M3::decode(chosen.byte[h]) * task.tensor_scale * E2M1_MAX;
            strip.error_bound = larger(strip.error_bound, chosen.peaks.halves[h] + most);
        }
        strip.careful |= any(strip.error_bound > 0x1p60f);
    }

    struct Pair {
        Floats factor;
        Words codes;
    };
    INLINE Pair pair(const Nvfp4& self, const Strip& strip, int j) {
        typedef uint8_t Row __attribute__((vector_size(16)));
        return {Nvfp4::pair(self, strip, j).factor, __builtin_convertvector(load<Row>(strip.codes + 16 * j), Words)};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats, int odd, Floats& decoded) {
        const Words code = odd ? pair.codes >> 4 : pair.codes & 15u;
        decoded = floats(bits(E2M1::decode(code & 7u)) | (code & 8u) << 28) * pair.factor;
        return code;
    }
};

template <class Element, int WIDTH, int LARGEST, uint32_t FLOOR_SHIFT> struct Mx {
    static constexpr int BITS = WIDTH;
    static constexpr bool SIGNED = false, COUNTED = true;

    struct Strip {
        Floats error_bound;
        alignas(64) float factor[PAIRS], inverse[PAIRS];
        uint8_t bytes[PAIRS];
        bool careful, zero;
    };

    INLINE void prepare(Mx&, const EncodeTask&) {}

    template <class S, bool MEASURE>
    INLINE void choose(const Mx&, Strip& strip, const typename S::T* weight, const EncodeTask& task, const Columns&,
                       int64_t, const Given&) {
        const Peaks peaks = find_peaks<S, MEASURE>(weight);
        Floats peak = larger(peaks.halves[0], peaks.halves[1]);
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
        strip.error_bound = peak < 0x1p-100f ? peak : peak * 0.5f;
        if constexpr (WIDTH == 4) {
            if (task.method != MAX) {
                const Floats peaks_of_halves[2] = {peak, peak};
                Half parts[2];
                whole_weights<S>(weight, peaks_of_halves, parts);
                byte = choose_exponents(parts, peak, byte);
                strip.error_bound = peak;
            }
        }
        store(strip.factor, e8m0_decode(byte));
        store(strip.inverse, (254u - byte) << 23);  // no finite peak needs byte 254
        store_bytes(strip.bytes, byte);
        strip.zero = peaks.zero;
        strip.careful = MEASURE && measures_wide<S>(peaks, weight);
    }

    struct Pair {
        Floats factor, inverse;
    };
    INLINE Pair pair(const Mx&, const Strip& strip, int j) {
        return {splat(strip.factor[j]), splat(strip.inverse[j])}; }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, int, Floats& decoded) {
        Floats scaled = magnitude(weight) * pair.inverse, rounded;
        Words code = Element::encode(smaller(scaled, splat((float)LARGEST)), rounded);
        decoded = rounded * pair.factor;
        return select(1u << (WIDTH - 1), bits(weight) >> (32 - WIDTH), code);
    }
    template <class S> INLINE void store_scales(const Strip& strip, const EncodeTask& task, int64_t block, int count) {
        memcpy((uint8_t*)task.scales + block, strip.bytes, (size_t)count);
    }
    INLINE void count_scales(const Strip& strip, int j, uint32_t (*counts)[256]) { counts[j & 1][strip.bytes[j]]++; }
};

using Mxfp4 = Mx<E2M1, 4, 6, 2>;
using Mxfp8 = Mx<E4M3, 8, 448, 8>;

// E4M3 under scales of float32 that are given, one for each block of 16, times the tensor scale.
struct Tiled {
    static constexpr int BITS = 8;
    static constexpr bool SIGNED = false, COUNTED = false;

    struct Strip {
        Floats error_bound;
        alignas(64) float factor[2][PAIRS], inverse[2][PAIRS];
        bool careful, zero;
    };

    INLINE void prepare(Tiled&, const EncodeTask&) {}

    template <class S, bool MEASURE>
    INLINE void choose(const Tiled&, Strip& strip, const typename S::T* weight, const EncodeTask& task, const Columns&,
                       int64_t, const Given& given) {
        const Peaks peaks = find_peaks<S, MEASURE>(weight);
        alignas(64) float scales[2][PAIRS];
        for (int i = 0; i < 2 * PAIRS; i++) scales[i & 1][i >> 1] = i < given.count ? given.scales[i] : 1.0f;
        strip.careful = MEASURE && measures_wide<S>(peaks, weight);
        strip.zero = peaks.zero;
        strip.error_bound = Floats{};
        for (int i = 0; i < 2; i++) {
            const Floats factor = load<Floats>(scales[i]) * task.tensor_scale, peak = peaks.halves[i];
            store(strip.factor[i], factor);
            store(strip.inverse[i], 1.0f / factor);
            strip.careful |= any((factor < 0x1p-90f) | (factor > 0x1p90f) | ~(peak <= factor * (E4M3_MAX + 16)));
            strip.error_bound = larger(strip.error_bound, peak);
        }
    }

    struct Pair {
        Floats factor, inverse;
    };
    INLINE Pair pair(const Tiled&, const Strip& strip, int j) {
        return {halves(strip.factor[0][j], strip.factor[1][j]), halves(strip.inverse[0][j], strip.inverse[1][j])};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, int, Floats& decoded) {
        Floats scaled = quotient<CAREFUL>(magnitude(weight), pair.factor, pair.inverse), rounded;
        Words code = E4M3::encode(smaller(scaled, splat(E4M3_MAX)), rounded) & E4M3::MASK;
        decoded = rounded * pair.factor;
        return select(0x80u, bits(weight) >> 24, code);
    }
    template <class S> INLINE void store_scales(const Strip&, const EncodeTask&, int64_t, int) {}
    INLINE void count_scales(const Strip&, int, uint32_t (*)[256]) {}
};

// SEARCHED: the range may be smaller than that of the weights, which are cut off then.
template <int WIDTH, bool SEARCHED> struct Affine {
    static constexpr int BITS = WIDTH;
    static constexpr bool SIGNED = true, COUNTED = false;

    struct Strip {
        Floats error_bound;
        alignas(64) float scale[PAIRS], inverse[PAIRS], bias[PAIRS], stored_scale[PAIRS], stored_bias[PAIRS];
        bool careful;
    };

    INLINE void prepare(Affine&, const EncodeTask&) {}

    template <class S, typename Op> INLINE Floats extremes(const typename S::T* weight, int lanes, Op op) {
        Floats low, high;
        const auto get = [=](int j) {
            Floats even, odd;
            S::load_pair(weight + 32 * j, even, odd);
            return op(even, odd);
        };
        reduce_halves<Floats>(get, op, low, high);
        return fold(op(low, high), lanes, op);
    }

    template <class S, bool MEASURE>
    INLINE void choose(const Affine&, Strip& strip, const typename S::T* weight, const EncodeTask& task, const Columns&,
                       int64_t, const Given&) {
        const int lanes = task.layout.block / 32;
        Floats low = extremes<S>(weight, lanes, [](Floats x, Floats y) { return smaller(x, y); });
        Floats high = extremes<S>(weight, lanes, [](Floats x, Floats y) { return larger(x, y); });
        Integers low_is_edge = magnitude(low) > magnitude(high);
        const float steps_wanted = (float)((1 << WIDTH) - 1);
        Floats range = high - low;
        Floats scale = any(range > 0x1p100f) ? range / steps_wanted
                                             : quotient<false>(range, splat(steps_wanted), splat(1.0f / steps_wanted));
        scale = larger(scale, splat(1e-7f));
        scale = low_is_edge ? scale : -scale;
        Floats edge = low_is_edge ? low : high;
        Floats steps = __builtin_elementwise_roundeven(edge / scale);
        scale = steps == 0.0f ? scale : edge / steps;
        Floats bias = steps == 0.0f ? Floats{} : edge, lost = {};
        const float lowest = -(float)(1 << (WIDTH - 1));
        if (task.layout.kind == SYMMETRIC) {
            const float half = steps_wanted / 2;
            const Floats peak = magnitude(edge);
            scale = any(peak > 0x1p100f) ? peak / half : quotient<false>(peak, splat(half), splat(1.0f / half));
            scale = smaller(larger(scale, splat(1e-7f)), splat(S::LARGEST / -lowest));
            steps = splat(lowest);
            bias = scale * lowest;
        }
        if constexpr (SEARCHED) {
            Words sixty_fourths[PAIRS];
            whole_steps<S>(weight, scale, sixty_fourths);
            const Floats shrink = choose_shrink(sixty_fourths, steps, (1 << WIDTH) - 1, lanes);
            lost = magnitude(bias) * (1.0f - shrink);
            scale *= shrink;
            bias *= shrink;
        }
        store(strip.scale, scale);
        store(strip.bias, bias);
        store(strip.inverse, 1.0f / scale);
        const Floats stored_scale = S::rounded(scale);
        const Floats stored_bias = S::rounded(task.layout.kind == SYMMETRIC ? stored_scale * lowest : bias);
        store(strip.stored_scale, stored_scale);
        store(strip.stored_bias, stored_bias);
        Floats size = magnitude(scale);
        strip.careful = any(size > 0x1p90f) || any(size < 1e-8f);
        if constexpr (MEASURE) {
            strip.careful |= !squares_fit(magnitude(low), magnitude(high));
            // Half a step, what lies past the last code, and the rounding: of scale and bias to the dtype, of the sums.
            Floats past = lost + larger(range - size * steps_wanted, Floats{}), sums = (size + range) * steps_wanted;
            Floats stored = magnitude(scale - stored_scale) * steps_wanted + magnitude(bias - stored_bias);
            strip.error_bound = size * 0.51f + past + stored + (sums + magnitude(edge)) * 0x1p-20f;
        }
    }

    struct Pair {
        Floats scale, inverse, bias, stored_scale, stored_bias;
    };
    INLINE Pair pair(const Affine&, const Strip& strip, int j) {
        return {splat(strip.scale[j]), splat(strip.inverse[j]), splat(strip.bias[j]), splat(strip.stored_scale[j]),
                splat(strip.stored_bias[j])};
    }
    template <bool CAREFUL> INLINE Words encode(const Pair& pair, Floats weight, int, Floats& decoded) {
        constexpr float largest = (float)((1 << WIDTH) - 1), magic = 0x1.8p23f;
        // Else never below -1/2, as the bias is an end of the range; that rounds to 0 above this magic number.
        Floats scaled = quotient<CAREFUL>(weight - pair.bias, pair.scale, pair.inverse);
        if constexpr (SEARCHED) scaled = larger(scaled, Floats{});
        Floats sum = smaller(scaled, splat(largest)) + magic;
        decoded = (sum - magic) * pair.stored_scale + pair.stored_bias;
        return bits(sum);
    }
    template <class S> INLINE void store_scales(const Strip& strip, const EncodeTask& task, int64_t block, int count) {
        using T = typename S::T;
        const int lanes = task.layout.block / 32;
        for (int i = 0; i < count; i++) {
            ((T*)task.scales)[block + i] = S::narrow(strip.stored_scale[i * lanes]);
            ((T*)task.biases)[block + i] = S::narrow(strip.stored_bias[i * lanes]);
        }
    }
    INLINE void count_scales(const Strip&, int, uint32_t (*)[256]) {}
};

}  // namespace VARIANT
