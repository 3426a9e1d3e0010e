// The block scales that cost least, as kernels/search.py defines it, for 16 blocks at a time.
//
// A strip's weights become whole numbers once and are transposed: a lane then holds two weights of one block, so one
// instruction multiplies 32 of them by their candidate scales, costs add up without crossing lanes, and what is chosen
// for a block is chosen in its lane.
#pragma once

#include "elements.h"
#include "tasks.h"
#include "whole.h"

namespace VARIANT {

constexpr int STRIP = 512;  // weights handled at a time: 16 pairs of vectors, and a whole number of every block
constexpr int PAIRS = STRIP / 32;
constexpr int HALF_BLOCK = 8;  // vectors of two weights that 16 blocks fill

constexpr int PAIRS_OF_MOMENTS = 72;  // of the upper triangle, each row from an even column on

enum class Cost { SQUARES, IMPORTANCE, MOMENTS };

constexpr int WINDOW[] = {-2, -1, 0, 1, 3, 4, 5, 6};  // in scale codes; below code 8, 2 instead of -2
constexpr uint32_t NVFP4_MOST = 511;                             // the largest weight in 1/64 of a scale
constexpr uint16_t WEIGHT_MOST = 2047;
constexpr float FAR = 256;  // steps

// Every other 16 weights of a strip: lane j of vector k has weights 2 k and 2 k + 1 of those from 32 j or 32 j + 16 on.
struct Half {
    Words magnitude[HALF_BLOCK], sign[HALF_BLOCK];  // at most 2047; 1 or -1
};

INLINE Words both_halves(Words x) { return select(0xFFFFu, x, x << 16); }

// Whole numbers in the low 16 bits of x, which is less than 2**21.
INLINE Words round_low(Floats x) { return bits(x + 0x1.8p23f); }

// The magnitude and the sign of whole numbers.
INLINE void take_signs(const Words* from, Half& to) {
    for (int k = 0; k < HALF_BLOCK; k++) {
        const SignedShorts x = (SignedShorts)from[k];
        to.magnitude[k] = (Words)__builtin_elementwise_min((Shorts)__builtin_elementwise_abs(x), Shorts{} + WEIGHT_MOST);
        to.sign[k] = (Words)(x >> 15) | 0x00010001u;
    }
}

// A strip in whole numbers; `unit` has what the weights of each lane of the halves are multiplied by.
template <class S> INLINE void whole_weights(const typename S::T* strip, const Floats* unit, Half* parts) {
    alignas(64) float units[2][PAIRS];
    for (int h = 0; h < 2; h++) store(units[h], unit[h]);
    Words pairs[PAIRS], low[HALF_BLOCK], high[HALF_BLOCK];
    for (int j = 0; j < PAIRS; j++) {
        Floats even, odd, factor = halves(units[0][j], units[1][j]);
        S::load_pair(strip + 32 * j, even, odd);
        pairs[j] = select(0xFFFFu, round_low(even * factor), round_low(odd * factor) << 16);
    }
    transpose(pairs, low, high);
    take_signs(low, parts[0]);
    take_signs(high, parts[1]);
}

// What a weight is multiplied by to be whole, and what an inverse scale is multiplied by to be a multiplier.
struct Unit {
    Floats weight, scale;
};
INLINE Unit unit_of(Floats peak) {
    const Words exponent = bits(peak) & 0x7F800000u;
    return {floats((264u << 23) - exponent), floats(exponent + (8u << 23))};
}

INLINE Integers searchable(Floats peak) { return (peak >= 0x1p-60f) & (peak < 0x1p60f); }

// The multiplier of kernels/search.py, at most 2047 and odd.
INLINE Words multiplier(Floats inverse, const Unit& unit) {
    return (round_low(smaller(inverse * unit.scale, splat((float)WEIGHT_MOST))) & 0x7FFu) | 1u;
}

// Whether the largest weight is at most `most` in 1/64 of the scale.
INLINE Integers fits(Words largest, Words multiplier, uint32_t most) {
    return multiply_add(largest, multiplier) < ((most + 1) << 12) - 2048;
}

// What the errors e cost at the outputs of a block; `moments` has pairs of numbers in the order in which they are met.
INLINE Words output_cost(const Words* e, const Words* moments) {
    Words total = {};
#pragma clang loop unroll(full)
    for (int p = 0; p < HALF_BLOCK; p++) {
        Words product[2];
#pragma clang loop unroll(full)
        for (int i = 0; i < 2; i++) {
            product[i] = splat(2048u);
#pragma clang loop unroll(full)
            for (int k = p; k < HALF_BLOCK; k++) product[i] += multiply_add(e[k], load<Words>(moments++));
        }
        total += multiply_add(e[p], select(0xFFFFu, product[0] >> 12, product[1] << 4));
    }
    return total;
}

// What rounding to the scale with this multiplier costs each block, in the square of the scale.
template <Cost COST, bool WIDE> INLINE Words cost_of(const Half& half, Words multiplier, const Words* columns) {
    const Words scale = both_halves(multiplier) << 3;
    Words e[HALF_BLOCK], total = {};
#pragma clang loop unroll(full)
    for (int k = 0; k < HALF_BLOCK; k++) {
        const Words t = multiply_high(half.magnitude[k], scale);
        e[k] = subtract(t, nearest_level<WIDE>(t));
        if constexpr (COST == Cost::SQUARES) total += multiply_add(e[k], e[k]);
        if constexpr (COST == Cost::IMPORTANCE) total += multiply_add(multiply_low(e[k], e[k]), load<Words>(columns + k));
        if constexpr (COST == Cost::MOMENTS) e[k] = multiply_low(e[k], half.sign[k]);
    }
    return COST == Cost::MOMENTS ? output_cost(e, columns) : total;
}

INLINE Floats as_floats(Words cost) { return __builtin_convertvector((Integers)cost, Floats); }

// What is known of 16 blocks of NVFP4, and the best scale so far.
struct Search {
    Unit unit;
    Words largest, first, found;
    Floats least;
};

template <Cost COST>
INLINE void consider(Search& search, Words byte, float g, const Half& half, const Words* columns) {
    const Floats value = E4M3::decode(byte);
    const Words scale = multiplier(1.0f / (value * g), search.unit);
    const Floats total = value * value * as_floats(cost_of<COST, false>(half, scale, columns));
    const Integers better = (total < search.least) | ((total == search.least) & (byte > search.found));
    const Integers taken = better & fits(search.largest, scale, NVFP4_MOST);
    search.found = taken ? byte : search.found;
    search.least = taken ? total : search.least;
}

template <typename V> INLINE V within(V x, V low, V high) {
    return __builtin_elementwise_min(__builtin_elementwise_max(x, low), high);
}

INLINE Words step_from(Words byte, int step, uint32_t least) {
    Integers other = (Integers)byte + step;
    if (step == -2) other = byte < 8u ? (Integers)(byte + 2u) : other;
    return (Words)within(other, Integers{} + (int)least, Integers{} + 126);
}

// The best scale bytes of a strip: lane j of `bytes[h]`, which has those of `max`, for the block of lane j of half h.
// `kept`: where they stay, as E4M3 saturates. `columns`: what is known of the inputs, for each half in turn.
template <class S, Cost COST>
__attribute__((noinline)) void choose_scales(const EncodeTask& task, const typename S::T* strip, const Floats* peaks,
                                             const Integers* kept, const Words* columns, Words* bytes) {
    const uint32_t least = task.min_scale > 1 ? (uint32_t)task.min_scale : 1;
    constexpr int each = COST == Cost::MOMENTS ? PAIRS_OF_MOMENTS : COST == Cost::IMPORTANCE ? HALF_BLOCK : 0;
    Half parts[2];
    const Floats units[2] = {unit_of(peaks[0]).weight, unit_of(peaks[1]).weight};
    whole_weights<S>(strip, units, parts);
    for (int h = 0; h < 2; h++, columns += each) {
        const Unit unit = unit_of(peaks[h]);
        Search search = {unit, __builtin_elementwise_min(round_low(peaks[h] * unit.weight) & 0xFFFFu, splat((uint32_t)WEIGHT_MOST)), bytes[h], bytes[h],
                         splat(__builtin_inff())};
        if (task.method == FOUR_SIX) {
            Floats rounded;
            const Floats quarter = peaks[h] * 0.25f / task.tensor_scale;
            const Words byte = E4M3::encode(smaller(quarter, splat(E4M3_MAX)), rounded) & E4M3::MASK;
            consider<COST>(search, step_from(search.first, 0, least), task.tensor_scale, parts[h], columns);
            consider<COST>(search, step_from(byte, 0, least), task.tensor_scale, parts[h], columns);
        } else {
#pragma clang loop unroll(disable)
            for (int step : WINDOW)
                consider<COST>(search, step_from(search.first, step, least), task.tensor_scale, parts[h], columns);
        }
        bytes[h] = kept[h] | ~searchable(peaks[h]) ? bytes[h] : search.found;
    }
}

// The best E8M0 bytes of a strip of E2M1 codes, of `byte` and its neighbours.
template <class S> __attribute__((noinline)) Words choose_exponents(const typename S::T* strip, Floats peak, Words byte) {
    const Unit unit = unit_of(peak);
    const Floats units[2] = {unit.weight, unit.weight};
    Half parts[2];
    whole_weights<S>(strip, units, parts);
    Words found = byte;
    Floats least = splat(__builtin_inff());
    for (int step = 1; step >= -1; step--) {
        const Words other = byte + (uint32_t)step, scale = multiplier(floats((254u - other) << 23), unit);
        const float square = step > 0 ? 4.0f : step < 0 ? 0.25f : 1.0f;
        const Words cost = cost_of<Cost::SQUARES, true>(parts[0], scale, nullptr) +
                           cost_of<Cost::SQUARES, true>(parts[1], scale, nullptr);
        const Floats total = as_floats(cost) * square;
        const Integers better = total < least;
        found = better ? other : found;
        least = better ? total : least;
    }
    return searchable(peak) ? found : byte;
}

// Every lane gets the result over its group of `lanes` (1, 2 or 4) neighbours.
template <typename V, typename Op> INLINE V fold(V x, int lanes, Op op) {
    if (lanes >= 2) x = op(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    if (lanes >= 4) x = op(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    return x;
}

// What scale and bias of each affine group of `lanes` lanes are multiplied by; `steps` lie between it and zero.
template <class S>
__attribute__((noinline)) Floats choose_shrink(const typename S::T* strip, Floats scale, Floats steps, int most,
                                               int lanes) {
    alignas(64) float scales[PAIRS];
    store(scales, scale);
    Words pairs[PAIRS], sixty_fourths[PAIRS];
    const auto whole = [](Floats x) { return round_low(smaller(larger(x, splat(-320.0f)), splat(320.0f)) * 64.0f); };
    for (int j = 0; j < PAIRS; j++) {
        Floats even, odd;
        S::load_pair(strip + 32 * j, even, odd);
        pairs[j] = select(0xFFFFu, whole(even / scales[j]), whole(odd / scales[j]) << 16);
    }
    transpose(pairs, sixty_fourths, sixty_fourths + HALF_BLOCK);
    const Integers near = (steps >= -FAR) & (steps <= FAR - (float)most);
    const Integers offset = __builtin_convertvector(near ? steps : Floats{}, Integers);
    const SignedShorts low = (SignedShorts)both_halves((Words)offset), high = low + (int16_t)most;
    Floats found = splat(1.0f), least = splat(__builtin_inff());
#pragma clang loop unroll(disable)
    for (int step = 0; step < 8; step++) {
        const float factor = 1.0f - (float)step / 32;
        const Words excess = both_halves(splat((uint32_t)(4096 / factor + 0.5f) - 4096)) << 3;  // x m = 4096 x + ...
        Words cost = {};
        for (Words x : sixty_fourths) {
            const SignedShorts scaled = (SignedShorts)x + (SignedShorts)multiply_high(x, excess);
            const SignedShorts code = within((scaled + (int16_t)32) >> 6, low, high);
            const Words error = (Words)within(scaled - (code << 6), SignedShorts{} - (int16_t)2047,
                                              SignedShorts{} + (int16_t)2047);
            cost += multiply_add(error, error);
        }
        const Floats total = as_floats(fold(cost, lanes, [](Words x, Words y) { return x + y; })) * (factor * factor);
        found = total < least ? splat(factor) : found;
        least = smaller(total, least);
    }
    return near ? found : splat(1.0f);
}

}  // namespace VARIANT
