// What an encoded strip cost: sums, counts and the largest error, pair by pair while the weights are in registers.
//
// Sums of a strip are float32, in an order that no instruction set, slab or thread changes: squared errors as a tree over
// the 16 weights of half a pair, squares lane by lane. A row adds them up in double. Only a strip that is `careful`,
// whose squares could leave the range of float32, is summed in double throughout.
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
    Doubles squares[2], error[2], max_square;
    Floats max_error;
    Integers vanished;
    float largest;                  // at most the largest error so far, nearly it
    uint32_t scale_counts[2][256];  // two tables: runs of equal scales do not wait for each other

    void start_row() {
        for (Doubles& one : squares) one = Doubles{};
        for (Doubles& one : error) one = Doubles{};
    }
};

// What is summed over one strip, in registers.
struct Tally {
    Floats squares[2], max_error;
    Doubles max_square;
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
template <class S, bool SIGNED, bool TRACK>
INLINE Floats measure_pair(const Floats* weight, const Floats* decoded, Tally& tally) {
    Floats error[2] = {weight[0] - decoded[0], weight[1] - decoded[1]};
    for (int odd = 0; odd < 2; odd++) {
        Floats& squares = tally.squares[odd];
        squares = S::EXACT_SQUARES && !SIGNED ? add_exact_square(weight[odd], squares)
                                              : squares + weight[odd] * weight[odd];
        if constexpr (TRACK && !SIGNED) tally.max_error = larger(tally.max_error, magnitude(error[odd]));
    }
    if constexpr (SIGNED) count_vanished(weight, decoded, tally);
    if constexpr (TRACK && SIGNED) {
        Doubles unused[2] = {}, partial[2];
        measure_wide(weight, decoded, partial, unused, tally.max_square);
    }
    return error[0] * error[0] + error[1] * error[1];
}

// A strip's blocks: where their errors go, if anywhere, and how many there are.
struct Blocks {
    float* errors;
    int count, block;
};

// Adds a strip's sums to its row and keeps the errors of its blocks.
INLINE void record_strip(const Workspace& work, const Tally& tally, const Blocks& blocks, Totals& totals) {
    Floats low, high;  // lane j: the first and the second half of pair j
    const auto add = [](Floats x, Floats y) { return x + y; };
    reduce_halves<Floats>([&](int j) { return work.error[j]; }, add, low, high);
    const Floats squares = tally.squares[0] + tally.squares[1];
#pragma clang loop unroll(full)
    for (int half = 0; half < 2; half++) {
        totals.squares[half] += widen_half_of(squares, half);
        totals.error[half] += widen_half_of(low, half) + widen_half_of(high, half);
    }
    if (!blocks.errors) return;
    if (blocks.count == STRIP / 16) {
        store(blocks.errors, interleave_low(low, high));
        store(blocks.errors + LANES, interleave_high(low, high));
        return;
    }
    alignas(64) float sums[STRIP / 16];
    int step = 1;
    if (blocks.block == 16) {
        store(sums, interleave_low(low, high));
        store(sums + LANES, interleave_high(low, high));
    } else {
        step = blocks.block / 32;
        store(sums, fold(low + high, step, add));
    }
    for (int i = 0; i < blocks.count; i++) blocks.errors[i] = sums[i * step];
}

// The same for a strip that was measured in double.
INLINE void record_wide(const Workspace& work, const Doubles* squares, const Blocks& blocks, Totals& totals) {
    alignas(64) double sixteens[STRIP / 16];
    for (int i = 0; i < STRIP / 16; i += 8) store(sixteens + i, sums_of_eight(work.exact + i));
    for (int half = 0; half < 2; half++) totals.squares[half] += squares[half];
    for (int i = 0; i < STRIP / 16; i += 8) totals.error[i / 8 & 1] += load<Doubles>(sixteens + i);
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

INLINE void record_largest(const Tally& tally, Totals& totals) {
    totals.max_error = larger(totals.max_error, tally.max_error);
    totals.max_square = larger(totals.max_square, tally.max_square);
    totals.largest = (float)largest_error(totals) * (1 - 0x1p-22f);
}

// The padding of a strip was counted with it.
INLINE void discount_scales(const uint8_t* scales, int count, Totals& totals) {
    for (int i = 0; i < count; i++) totals.scale_counts[0][scales[i]]--;
}

INLINE void finish_row(const EncodeTask& task, const Totals& totals, int64_t row) {
    task.measure->row_squares[row] = sum(totals.squares[0] + totals.squares[1]);
    task.measure->row_error[row] = sum(totals.error[0] + totals.error[1]);
}

INLINE void finish(Measure& measure, const Totals& totals) {
    for (int i = 0; i < LANES; i++) measure.vanished += totals.vanished[i];
    measure.max_error = largest_error(totals) > measure.max_error ? largest_error(totals) : measure.max_error;
    for (int i = 0; i < 256; i++) measure.scale_counts[i] += (uint32_t)(totals.scale_counts[0][i] + totals.scale_counts[1][i]);
}

}  // namespace VARIANT
