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
constexpr int HALF_BLOCK = 8;         // vectors of two weights that 16 blocks fill
constexpr int PAIRS_OF_MOMENTS = 72;  // of the upper triangle, each row from an even column on
constexpr int FLOORS_AT = PAIRS_OF_MOMENTS, SHARES_AT = FLOORS_AT + HALF_BLOCK;  // what follows them, see columns.h
constexpr int VECTORS_OF_MOMENTS = SHARES_AT + 2 * HALF_BLOCK;

enum class Cost { SQUARES, IMPORTANCE, MOMENTS };

// In scale codes; below code 8, 2 instead of -2. Where inputs are known, falling ones from FALLING on.
constexpr int CANDIDATES = 8, FALLING = 7, GUIDED = 10;
constexpr int WINDOW[CANDIDATES] = {-2, -1, 0, 1, 3, 4, 5, 6};
constexpr int GUIDED_WINDOW[GUIDED] = {-2, -1, 0, 1, 3, 4, 5, -3, -6, -10};
constexpr uint32_t SQUARES_MOST = 511, GUIDED_MOST = 1023;  // the largest weight in 1/64 of a scale
constexpr uint16_t WEIGHT_MOST = 2047, ERROR_MOST = 2047, MULTIPLIER_MOST = 4095;
constexpr float FAR = 256, CODE_MOST = 320;  // steps from zero

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
        const Shorts magnitude = (Shorts)__builtin_elementwise_abs(x);
        to.magnitude[k] = (Words)__builtin_elementwise_min(magnitude, Shorts{} + WEIGHT_MOST);
        to.sign[k] = (Words)(x >> 15) | 0x00010001u;
    }
}

// What a weight is multiplied by to be whole, and what an inverse scale is multiplied by to be a multiplier.
struct Unit {
    Floats weight, scale;
};
INLINE Unit unit_of(Floats peak) {
    const Words exponent = bits(peak) & 0x7F800000u;
    return {floats((264u << 23) - exponent), floats(exponent + (8u << 23))};
}

// A strip in whole numbers, relative to the largest weight of each lane of its halves.
template <class S> INLINE void whole_weights(const typename S::T* strip, const Floats* peaks, Half* parts) {
    alignas(64) float units[2][PAIRS];
    for (int h = 0; h < 2; h++) store(units[h], unit_of(peaks[h]).weight);
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

INLINE Integers searchable(Floats peak) { return (peak >= 0x1p-60f) & (peak < 0x1p60f); }

// The multiplier of kernels/search.py, at most 4095 and odd.
INLINE Words multiplier(Floats inverse, const Unit& unit) {
    return (round_low(smaller(inverse * unit.scale, splat((float)MULTIPLIER_MOST))) & 0xFFFu) | 1u;
}

// Whether the largest weight is at most `most` in 1/64 of the scale.
INLINE Integers fits(Words largest, Words multiplier, uint32_t most) {
    return largest * multiplier < ((most + 1) << 12) - 2048;
}

INLINE Floats as_floats(Words cost) { return __builtin_convertvector((Integers)cost, Floats); }

// The low 15 bits of two numbers of 30 bits and a sign, and what is above them: each two to a lane.
struct Split {
    Part low, high;
};
INLINE Part both(Part low, Part high) { return (low & 0xFFFFu) | (high & 0xFFFF0000u); }
INLINE Split split(Part even, Part odd) {
    return {both(even, odd << 16) & 0x7FFF7FFFu, both(even >> 15, odd << 1)};
}

// What the errors e cost at the outputs of a block; `moments` has pairs of numbers in the order in which they are met.
INLINE Split output_cost(const Part* e, const Words* moments, int part) {
    Split total = {};
#pragma clang loop unroll(full)
    for (int p = 0; p < HALF_BLOCK; p++) {
        Part product[2];
#pragma clang loop unroll(full)
        for (int i = 0; i < 2; i++) {
            product[i] = Part{};
#pragma clang loop unroll(full)
            for (int k = p; k < HALF_BLOCK; k++) product[i] += multiply_add(e[k], part_of(*moments++, part));
        }
        const Split both = split(product[0], product[1]);
        total.low += multiply_add(e[p], both.low);
        total.high += multiply_add(e[p], both.high);
    }
    return total;
}

template <bool WIDE> INLINE Part error_of(const Half& half, Part scale, int k, int part) {
    const Part t = multiply_high(part_of(half.magnitude[k], part), scale);
    return subtract(t, nearest_level<WIDE>(t));
}

template <Cost COST, bool WIDE>
INLINE Part cost_of_part(const Half& half, Part scale, const Words* columns, int part) {
    Part total = {};
#pragma clang loop unroll(full)
    for (int k = 0; k < HALF_BLOCK; k++) {
        const Part e = error_of<WIDE>(half, scale, k, part);
        Part weighed = e;
        if constexpr (COST == Cost::IMPORTANCE)
            weighed = multiply_high((Part)((PartShorts)e << 5), part_of(columns[k], part));
        total += multiply_add(weighed, e);
    }
    return total;
}

// What rounding to the scale with this multiplier costs each block, in the square of the scale.
template <Cost COST, bool WIDE> INLINE Words cost_of(const Half& half, Words multiplier, const Words* columns) {
    const Words scale = both_halves(multiplier) << 3;
    Part total[PARTS];
    for (int part = 0; part < PARTS; part++)
        total[part] = cost_of_part<COST, WIDE>(half, part_of(scale, part), columns, part);
    return load<Words>(total);
}

// The same at the outputs of a block.
INLINE Floats moments_cost(const Half& half, Words multiplier, const Words* columns) {
    const Words scale = both_halves(multiplier) << 3;
    Part low[PARTS], high[PARTS];
    for (int part = 0; part < PARTS; part++) {
        Part e[HALF_BLOCK];
#pragma clang loop unroll(full)
        for (int k = 0; k < HALF_BLOCK; k++)
            e[k] = signed_by(error_of<true>(half, part_of(scale, part), k, part), part_of(half.sign[k], part));
        const Split total = output_cost(e, columns, part);
        low[part] = total.low;
        high[part] = total.high;
    }
    return as_floats(load<Words>(high)) * 32768.0f + as_floats(load<Words>(low));
}

// The best so far of each lane, a scale byte or bits of a factor, and what it costs.
struct Best {
    Words choice;
    Floats cost;

    void take(Integers where, Words other, Floats total) {
        choice = where ? other : choice;
        cost = where ? total : cost;
    }
};

// The scale bytes to try for 16 blocks whose largest weights are `peak`, `first` being those of `max`; their number.
INLINE int list_candidates(const EncodeTask& task, Floats peak, Words first, bool guided, Words* tried) {
    const Words least = larger(splat((uint32_t)task.min_scale), splat(1u));
    if (task.method == FOUR_SIX) {
        Floats rounded;
        const Floats wanted = peak * 0.25f / task.tensor_scale;
        tried[0] = first;
        tried[1] = E4M3::encode(smaller(wanted, splat(E4M3_MAX)), rounded) & E4M3::MASK;
    } else {
        const Integers subnormal = first < 8u;
        for (int i = 0; i < (guided ? GUIDED : CANDIDATES); i++)
            tried[i] = first + (uint32_t)(guided ? GUIDED_WINDOW : WINDOW)[i];
        tried[0] = subnormal ? first + 2u : tried[0];
    }
    const int count = task.method == FOUR_SIX ? 2 : guided ? GUIDED : CANDIDATES;
    for (int i = 0; i < count; i++)
        tried[i] = (Words)__builtin_elementwise_min(
            __builtin_elementwise_max((Integers)tried[i], (Integers)least), Integers{} + 126);
    return count;
}

// For each of 16 blocks the number in `columns` of its largest weight's column, the largest where several weights are.
INLINE Floats weight_of_largest(const Half& half, Words largest, const Words* columns) {
    const Shorts wanted = (Shorts)both_halves(largest);
    Shorts found = {};
    for (int k = 0; k < HALF_BLOCK; k++) {
        const Shorts at = (Shorts)((Shorts)half.magnitude[k] == wanted) & (Shorts)columns[k];
        found = __builtin_elementwise_max(found, at);
    }
    return as_floats(larger((Words)found & 0xFFFFu, (Words)found >> 16));
}

// Less than what cutting off the largest weight costs, in the square of the scale, whatever becomes of the others; below
// all costs where it is hardly cut off. `weight`: its importance, or its floor (columns.h).
template <Cost COST> INLINE Floats cut_cost(Words largest, Words multiplier, Floats weight) {
    const Floats excess = as_floats((largest * multiplier + 2048u) >> 12) - 384.0f;
    const Floats counted = COST == Cost::MOMENTS ? weight : (weight - 8.0f) * 0x1p-10f;  // rounded, each product
    const Floats cost = counted * (1 - 0x1p-10f) * (excess * excess);
    return (excess >= 64.0f) & (weight > 8.0f) ? cost : splat(-__builtin_inff());
}

// The best scale bytes of 16 blocks, of `first` and its neighbours.
template <Cost COST>
__attribute__((noinline)) Words choose_scales(const EncodeTask& task, const Half& half, Floats peak, Words first,
                                              const Words* columns) {
    const Unit unit = unit_of(peak);
    const Words whole = round_low(peak * unit.weight) & 0xFFFFu;
    const Words largest = __builtin_elementwise_min(whole, splat((uint32_t)WEIGHT_MOST));
    Best best = {first, splat(__builtin_inff())};
    constexpr bool KNOWN = COST != Cost::SQUARES;
    Words tried[GUIDED > CANDIDATES ? GUIDED : CANDIDATES];
    const int count = list_candidates(task, peak, first, KNOWN, tried);
    const Integers usable = searchable(peak);
    Floats weight;
    if constexpr (KNOWN)
        weight = weight_of_largest(half, largest, columns + (COST == Cost::MOMENTS ? FLOORS_AT : 0));
    for (int i = 0; i < count; i++) {
        const Floats value = E4M3::decode(tried[i]);
        const Words scale = multiplier(1.0f / (value * task.tensor_scale), unit);
        // Smaller scales cut off more: once that alone costs too much in every block, it does so from here on.
        if constexpr (KNOWN) {
            if (i >= FALLING) {
                const Floats least = value * value * cut_cost<COST>(largest, scale, weight);
                if (!any(usable & ~(least > best.cost))) break;
            }
        }
        Floats cost;
        if constexpr (COST == Cost::MOMENTS)
            cost = moments_cost(half, scale, columns);
        else
            cost = as_floats(cost_of<COST, KNOWN>(half, scale, columns));
        const Floats total = value * value * cost;
        const Integers better = (total < best.cost) | ((total == best.cost) & (tried[i] > best.choice));
        best.take(better & fits(largest, scale, KNOWN ? GUIDED_MOST : SQUARES_MOST), tried[i], total);
    }
    return usable ? best.choice : first;
}

// Where the pairs of a row of moments from an even column on stand; of columns before that there are none.
constexpr int row_of_moments(int row) { return row / 2 * (17 - row / 2) + row % 2 * (8 - row / 2) - row / 2; }

INLINE PartIntegers low_halves(Part x) { return (PartIntegers)(x << 16) >> 16; }
INLINE PartIntegers high_halves(Part x) { return (PartIntegers)x >> 16; }

// Columns of 16 blocks that are gone over, as kernels/search.py defines it: what their weights are in 1/64 of the scale, and
// what their codes miss of that.
struct Sweep {
    Part t[HALF_BLOCK], e[HALF_BLOCK], codes[2], sums[2];
    const Words* columns;
    int part;

    static __attribute__((always_inline)) Sweep start(const Half& half, Words multiplier, const Words* columns, int part) {
        Sweep self = {{}, {}, {}, {}, columns, part};
        const Part scale = part_of(both_halves(multiplier) << 3, part);
#pragma clang loop unroll(full)
        for (int k = 0; k < HALF_BLOCK; k++) {
            const Part sign = part_of(half.sign[k], part);
            const Part size = multiply_high(part_of(half.magnitude[k], part), scale);
            self.t[k] = signed_by(size, sign);
            self.e[k] = signed_by(subtract(size, nearest_level<true>(size)), sign);
        }
        return self;
    }

    __attribute__((always_inline)) Part moments(int row, int k) const {
        return part_of(columns[row_of_moments(row) + k], part);
    }

    // Adds what the errors of pair k mean for both columns of pair p.
    __attribute__((always_inline)) void meet(int p, int k) {
        if (k > p) {
            for (int i = 0; i < 2; i++) sums[i] += multiply_add(e[k], moments(2 * p + i, k));
        } else {
            const Part first = moments(2 * k, p), second = moments(2 * k + 1, p);
            sums[0] += multiply_add(e[k], both(first, second << 16));
            sums[1] += multiply_add(e[k], both(first >> 16, second));
        }
    }

    // What the errors of all other pairs mean for pair p, the newest last.
    __attribute__((always_inline)) void meet_others(int p) {
        sums[0] = sums[1] = Part{};
#pragma clang loop unroll(full)
        for (int k = HALF_BLOCK - 1; k > p; k--) meet(p, k);
#pragma clang loop unroll(full)
        for (int k = 0; k < p; k++) meet(p, k);
    }

    // The code of a column while all others stand; `error` becomes what it misses.
    __attribute__((always_inline)) Part nearest(int column, PartIntegers whole, Part sums, PartIntegers& error) const {
        const PartFloats share = (PartFloats)part_of(columns[SHARES_AT + column], part);
        const PartFloats wanted = __builtin_convertvector(whole, PartFloats);
        const Part target = (Part)(wanted + __builtin_convertvector((PartIntegers)sums, PartFloats) * share);
        const Rounded found = round_to_level((PartFloats)(target & 0x7FFFFFFFu));
        const Part sign = target & 0x80000000u;
        error = round(wanted - (PartFloats)((Part)found.value | sign));
        return (found.bits & 7u) | sign >> 28;
    }

    __attribute__((always_inline)) void even(int p) {
        PartIntegers error;
        const Part sum = sums[0] + multiply_add(e[p], moments(2 * p, p) & 0xFFFF0000u);
        codes[p / 4] |= nearest(2 * p, low_halves(t[p]), sum, error) << (8 * (p % 4));
        e[p] = both((Part)error, e[p]);
    }
    __attribute__((always_inline)) void odd(int p) {
        PartIntegers error;
        const Part sum = sums[1] + multiply_add(e[p], moments(2 * p, p) >> 16);
        codes[p / 4] |= nearest(2 * p + 1, high_halves(t[p]), sum, error) << (8 * (p % 4) + 4);
        e[p] = both(e[p], (Part)error << 16);
    }
};

// Codes of the blocks of a strip, four bytes of two columns to a word, gone over once from those nearest under these
// multipliers. A column waits for the one before it, so all vectors take turns.
static __attribute__((noinline)) void go_over(const Half* halves, const Words* multipliers, const Words* columns,
                                              Words (*codes)[2]) {
    Sweep parts[2 * PARTS];
    for (int i = 0; i < 2 * PARTS; i++)
        parts[i] = Sweep::start(halves[i / PARTS], multipliers[i / PARTS], columns + i / PARTS * VECTORS_OF_MOMENTS, i % PARTS);
#pragma clang loop unroll(full)
    for (int p = 0; p < HALF_BLOCK; p++) {
        for (Sweep& one : parts) one.meet_others(p);
        for (Sweep& one : parts) one.even(p);
        for (Sweep& one : parts) one.odd(p);
    }
    for (int i = 0; i < 2 * PARTS; i++)
        for (int k = 0; k < 2; k++) store((char*)&codes[i / PARTS][k] + i % PARTS * PART, parts[i].codes[k]);
}

// The best E8M0 bytes of 16 blocks of 32 E2M1 codes, of `first` and its neighbours.
static __attribute__((noinline)) Words choose_exponents(const Half* parts, Floats peak, Words first) {
    const Unit unit = unit_of(peak);
    Best best = {first, splat(__builtin_inff())};
    for (int step = 1; step >= -1; step--) {
        const Words byte = first + (uint32_t)step, scale = multiplier(floats((254u - byte) << 23), unit);
        Words cost = {};
        for (int h = 0; h < 2; h++) cost += cost_of<Cost::SQUARES, true>(parts[h], scale, nullptr);
        const Floats total = as_floats(cost) * floats(splat((uint32_t)(127 + 2 * step) << 23));
        best.take(total < best.cost, byte, total);
    }
    return searchable(peak) ? best.choice : first;
}

// Every lane gets the result over its group of `lanes` (1, 2 or 4) neighbours.
template <typename V, typename Op> INLINE V fold(V x, int lanes, Op op) {
    if (lanes >= 2) x = op(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    if (lanes >= 4) x = op(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    return x;
}

INLINE Floats within(Floats x, float most) { return smaller(larger(x, splat(-most)), splat(most)); }
INLINE SignedPart within(SignedPart x, SignedPart low, SignedPart high) {
    return __builtin_elementwise_min(__builtin_elementwise_max(x, low), high);
}

// A strip of affine groups in 1/64 of its scales.
template <class S> INLINE void whole_steps(const typename S::T* strip, Floats scale, Words* sixty_fourths) {
    alignas(64) float scales[PAIRS];
    store(scales, scale);
    Words pairs[PAIRS];
    const auto whole = [](Floats x) { return round_low(within(x, CODE_MOST) * 64.0f); };
    for (int j = 0; j < PAIRS; j++) {
        Floats even, odd;
        S::load_pair(strip + 32 * j, even, odd);
        pairs[j] = select(0xFFFFu, whole(even / scales[j]), whole(odd / scales[j]) << 16);
    }
    transpose(pairs, sixty_fourths, sixty_fourths + HALF_BLOCK);
}

// What rounding costs each lane when its scale shrinks by `factor`, in the square of the smaller scale.
INLINE Words shrunk_cost(const Words* sixty_fourths, float factor, Words lowest, uint16_t most) {
    const uint16_t beyond = (uint16_t)(4096 / factor + 0.5f) - 4096;  // x m / 4096 is x + x beyond / 4096
    const Part excess = (Part)(PartShorts{} + (uint16_t)(beyond << 3));
    const SignedPart error_most = SignedPart{} + (int16_t)ERROR_MOST;
    Part total[PARTS];
    for (int part = 0; part < PARTS; part++) {
        const SignedPart low = (SignedPart)part_of(lowest, part), high = low + (int16_t)most;
        total[part] = Part{};
        for (int k = 0; k < PAIRS; k++) {
            const Part x = part_of(sixty_fourths[k], part);
            const SignedPart scaled = (SignedPart)x + (SignedPart)multiply_high(x, excess);
            const SignedPart code = within((scaled + (int16_t)32) >> 6, low, high);
            const Part error = (Part)within(scaled - (code << 6), -error_most, error_most);
            total[part] += multiply_add(error, error);
        }
    }
    return load<Words>(total);
}

// What scale and bias of each affine group of `lanes` lanes are multiplied by; `steps` lie between it and zero.
static __attribute__((noinline)) Floats choose_shrink(const Words* sixty_fourths, Floats steps, int most, int lanes) {
    const Integers near = (steps >= -FAR) & (steps <= FAR - (float)most);
    const Integers offset = __builtin_convertvector(near ? steps : Floats{}, Integers);
    const Words lowest = both_halves((Words)offset);
    Best best = {bits(splat(1.0f)), splat(__builtin_inff())};
    for (int step = 0; step < 8; step++) {
        const float factor = 1.0f - (float)step / 32;
        const Words cost = shrunk_cost(sixty_fourths, factor, lowest, (uint16_t)most);
        const Floats total = as_floats(fold(cost, lanes, [](Words x, Words y) { return x + y; })) * (factor * factor);
        best.take(total < best.cost, bits(splat(factor)), total);
    }
    return near ? floats(best.choice) : splat(1.0f);
}

}  // namespace VARIANT
