// What an encoded strip cost: sums, counts and the largest error, pair by pair while the weights are in registers.
//
// Sums of a strip are float32, in an order that no instruction set, slab or thread changes: squared errors as a tree
// over the 16 weights of half a pair, squares lane by lane; eleven roundings at most. A row adds up, in double, eight
// sums of each strip. Only a strip that is `careful`, as its squares may not fit in float32, is double throughout.
#pragma once

#include "codecs.h"

namespace VARIANT {

// Squared errors of a strip: sixteen lanes of float32 for each pair of vectors, or eight doubles for each half of it.
union Workspace {
    Floats error[PAIRS];
    Doubles exact[2 * PAIRS];
};

// Sums of one row, and what is kept over all rows.
struct Totals {
    Doubles squares, error, max_square;
    Floats max_error;
    Integers vanished;
    float largest;                  // at most the largest error so far, nearly it
    uint32_t scale_counts[2][256];  // two tables: runs of equal scales do not wait for each other

    void start_row() {
        squares = error = Doubles{};
    }
};

// What is summed over one strip, in registers.
struct Tally {
    Floats squares[4];  // more, and none is the sum of so many that roundings add up
    Integers vanished;
};

// sum + x * x for an x whose square is exact, so fused or not the result is the same.
template <typename V> INLINE V add_exact_square(V x, V sum) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_elementwise_fma(x, x, sum);
#else
    return sum + x * x;
#endif
}

// One flag, in the lowest bit of each code, where its magnitude is not zero.
template <int BITS> INLINE Words nonzero_codes(Words packed) {
    if constexpr (BITS == 4) return (packed | packed >> 1 | packed >> 2) & 0x11111111u;
    return (((packed & 0x7F7F7F7Fu) + 0x7F7F7F7Fu) >> 7) & 0x01010101u;
}

// Per lane, the sum of small counters BITS wide.
template <int BITS> INLINE Words sum_counters(Words counters) {
    if constexpr (BITS == 4) counters = (counters & 0x0F0F0F0Fu) + ((counters >> 4) & 0x0F0F0F0Fu);
    if constexpr (BITS <= 8) counters = (counters & 0x00FF00FFu) + ((counters >> 8) & 0x00FF00FFu);
    return (counters & 0xFFFFu) + (counters >> 16);
}

template <class S> INLINE Words count_zeros(const typename S::T* strip) {
    Words zeros = {};
    for (int j = 0; j < PAIRS; j++) zeros += S::zeros(strip + 32 * j);
    return sum_counters<16>(zeros);
}

INLINE void count_vanished(const Floats* weight, const Floats* decoded, Tally& tally) {
    for (int odd = 0; odd < 2; odd++) tally.vanished -= (decoded[odd] == 0.0f) & (weight[odd] != 0.0f);
}

// Squares and squared errors of a pair in double, where those of float32 numbers are exact; and the largest error.
INLINE void measure_wide(const Floats* weight, const Floats* decoded, Doubles* partial, Doubles* squares,
                         Doubles& max_square) {
#pragma clang loop unroll(full)
    for (int half = 0; half < 2; half++) {
        Doubles error[2];
        for (int odd = 0; odd < 2; odd++) {
            Doubles wide = widen_half_of(weight[odd], half), difference = wide - widen_half_of(decoded[odd], half);
            squares[half] = add_exact_square(wide, squares[half]);
            error[odd] = difference * difference;
        }
        max_square = larger(max_square, larger(error[0], error[1]));
        partial[half] = error[0] + error[1];
    }
}

// Adds a pair of vectors, `weight` and what it decodes to; gives its squared errors. SIGNED: a float32 difference may
// round, which the sums bear and the largest error does not.
template <class S, bool SIGNED>
INLINE Floats measure_pair(const Floats* weight, const Floats* decoded, int turn, Tally& tally) {
    Floats error[2] = {weight[0] - decoded[0], weight[1] - decoded[1]};
    for (int odd = 0; odd < 2; odd++) {
        Floats& squares = tally.squares[2 * turn + odd];
        squares = S::EXACT_SQUARES && !SIGNED ? add_exact_square(weight[odd], squares)
                                              : squares + weight[odd] * weight[odd];
    }
    if constexpr (SIGNED) count_vanished(weight, decoded, tally);
    return error[0] * error[0] + error[1] * error[1];
}

// A strip's blocks: where their errors go, if anywhere, and how many there are.
struct Blocks {
    float* errors;
    int count, block;
};

// Sums of lanes eight apart, in double.
INLINE Doubles widen_sum(Floats x) {
    const Octet low = __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7);
    const Octet high = __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_convertvector(low + high, Doubles);
}

INLINE void keep_errors(Floats low, Floats high, const Blocks& blocks) {
    alignas(64) float sums[STRIP / 16];
    const int step = blocks.block < 32 ? 1 : blocks.block / 32;
    if (blocks.block == 16) {
        float* to = blocks.count == STRIP / 16 ? blocks.errors : sums;
        store(to, interleave_low(low, high));
        store(to + LANES, interleave_high(low, high));
        if (to == blocks.errors) return;
    } else {
        store(sums, fold(low + high, step, [](Floats x, Floats y) { return x + y; }));
    }
    for (int i = 0; i < blocks.count; i++) blocks.errors[i] = sums[i * step];
}

// Adds a strip's sums to its row and keeps the errors of its blocks; gives numbers that bound its squared errors.
INLINE Floats record_strip(const Workspace& work, const Tally& tally, const Blocks& blocks, Totals& totals) {
    Floats low, high;  // lane j: the first and the second half of pair j
    const auto add = [](Floats x, Floats y) { return x + y; };
    reduce_halves<Floats>([&](int j) { return work.error[j]; }, add, low, high);
    const Floats* squares = tally.squares;
    totals.squares += widen_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
    totals.error += widen_sum(low + high);
    if (blocks.errors) keep_errors(low, high, blocks);
    return larger(low, high);
}

// The same for a strip that was measured in double.
INLINE void record_wide(const Workspace& work, const Doubles* squares, const Blocks& blocks, Totals& totals) {
    alignas(64) double sixteens[STRIP / 16];
    for (int i = 0; i < STRIP / 16; i += 8) store(sixteens + i, sums_of_eight(work.exact + i));
    totals.squares += squares[0] + squares[1];
    for (int i = 0; i < STRIP / 16; i += 8) totals.error += load<Doubles>(sixteens + i);
    if (!blocks.errors) return;
    const int each = blocks.block / 16;
    for (int i = 0; i < blocks.count; i++) {
        double total = sixteens[i * each];
        for (int k = 1; k < each; k++) total += sixteens[i * each + k];
        blocks.errors[i] = (float)total;
    }
}

INLINE double largest_error(const Totals& totals) {
    double largest = floats(splat(__builtin_reduce_max(bits(totals.max_error))))[0];
    for (int i = 0; i < 8; i++) {
        const double error = __builtin_sqrt(totals.max_square[i]);
        if (error > largest) largest = error;
    }
    return largest;
}

// `largest` may be less than it is, never more.
INLINE void note_largest(Totals& totals) { totals.largest = (float)largest_error(totals) * (1 - 0x1p-22f); }

// The blocks from `count` on, a strip's padding, were counted with it.
INLINE void discount_scales(const uint8_t* scales, int count, int all, Totals& totals) {
    for (int i = count; i < all; i++) totals.scale_counts[i & 1][scales[i]]--;
}

INLINE void finish_row(const EncodeTask& task, const Totals& totals, int64_t row) {
    task.measure->row_squares[row] = sum(totals.squares);
    task.measure->row_error[row] = sum(totals.error);
}

INLINE void finish(Measure& measure, const Totals& totals) {
    for (int i = 0; i < LANES; i++) measure.vanished += totals.vanished[i];
    measure.max_error = largest_error(totals) > measure.max_error ? largest_error(totals) : measure.max_error;
    for (int i = 0; i < 256; i++)
        for (const auto& table : totals.scale_counts) measure.scale_counts[i] += (uint64_t)table[i];
}

}  // namespace VARIANT
