// What an encoded strip cost: sums, counts and the largest error, from what the encoder left in a workspace.
#pragma once

#include "codecs.h"

namespace VARIANT {

// Weights and their errors of a strip, as pass two leaves them for pass three. Both may lack the weight's sign.
struct Workspace {
    alignas(64) float weight[STRIP];
    alignas(64) float other[STRIP];  // the error; or the decoded weight where a float32 difference would round
    alignas(64) double block_error[STRIP / 16];
};

// Sums of one row, and what is kept over all rows.
struct Totals {
    Doubles squares[4], error[2], max_square;
    float max_error;
    Integers vanished;
    uint32_t scale_counts[4][256];  // four tables: runs of equal scales do not wait for each other
};

INLINE Doubles widen_octet(const float* from) { return __builtin_convertvector(load<Octet>(from), Doubles); }

// sum + x * x for an x that is a float32: the square is exact, so fused or not the result is the same.
INLINE Doubles add_exact_square(Doubles x, Doubles sum) {
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

INLINE float largest_error(const Workspace& work, float least) {
    Words largest[2] = {};
    for (int i = 0; i < STRIP; i += 2 * LANES) {
        largest[0] = larger(largest[0], load<Words>(work.other + i) & 0x7FFFFFFFu);
        largest[1] = larger(largest[1], load<Words>(work.other + i + LANES) & 0x7FFFFFFFu);
    }
    const float found = floats(splat(__builtin_reduce_max(larger(largest[0], largest[1]))))[0];
    return found > least ? found : least;
}

// Sums in double: the square of a float32 is exact there, so every variant gets the same. Several accumulators, or the
// additions would wait for one another.
template <bool DIFFERENCE, bool BLOCKS> INLINE void measure_strip(Workspace& work, Totals& totals) {
    Doubles squares[4], error[2], max_square = totals.max_square;
    memcpy(squares, totals.squares, sizeof squares);
    memcpy(error, totals.error, sizeof error);
#pragma clang loop unroll(disable)
    for (int first = 0; first < PAIRS; first += 4) {
        Doubles sums[8];
#pragma clang loop unroll(full)
        for (int half = 0; half < 8; half++) {
            Doubles difference[2];
#pragma clang loop unroll(full)
            for (int odd = 0; odd < 2; odd++) {
                const int at = 32 * (first + half / 2) + 16 * odd + 8 * (half & 1), slot = 2 * (half & 1) + odd;
                Doubles weight = widen_octet(work.weight + at);
                difference[odd] = widen_octet(work.other + at);
                if constexpr (DIFFERENCE) difference[odd] = weight - difference[odd];
                squares[slot] = add_exact_square(weight, squares[slot]);
            }
            sums[half] = difference[0] * difference[0];
            if constexpr (DIFFERENCE) {
                Doubles second = difference[1] * difference[1];
                max_square = larger(max_square, larger(sums[half], second));
                sums[half] += second;
            } else {
                sums[half] = add_exact_square(difference[1], sums[half]);
            }
            error[half & 1] += sums[half];
        }
        if constexpr (BLOCKS) store(work.block_error + 2 * first, sums_of_eight(sums));
    }
    memcpy(totals.squares, squares, sizeof squares);
    memcpy(totals.error, error, sizeof error);
    totals.max_square = max_square;
}

template <bool DIFFERENCE> INLINE void measure_strip(Workspace& work, Totals& totals, bool blocks) {
    if (blocks)
        measure_strip<DIFFERENCE, true>(work, totals);
    else
        measure_strip<DIFFERENCE, false>(work, totals);
}

// Keep the errors of `count` blocks.
INLINE void record_blocks(const EncodeTask& task, const Workspace& work, int64_t block, int count) {
    float* errors = task.measure->block_error;
    if (!errors) return;
    const int sixteens = task.layout.block / 16;
    float narrow[STRIP / 16];
    if (sixteens == 1)
        for (int i = 0; i < STRIP / 16; i += 8)
            store(narrow + i, __builtin_convertvector(load<Doubles>(work.block_error + i), Octet));
    else
        for (int i = 0; i < count; i++) {
            double total = 0;
            for (int k = 0; k < sixteens; k++) total += work.block_error[i * sixteens + k];
            narrow[i] = (float)total;
        }
    memcpy(errors + block, narrow, (size_t)count * sizeof(float));
}

INLINE void count_scales(const uint8_t* scales, int64_t count, Totals& totals) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const uint64_t eight = load<uint64_t>(scales + i);
#pragma clang loop unroll(full)
        for (int k = 0; k < 8; k++) totals.scale_counts[k & 3][(eight >> (8 * k)) & 0xFF]++;
    }
    for (; i < count; i++) totals.scale_counts[0][scales[i]]++;
}

INLINE void finish_row(const EncodeTask& task, Totals& totals, int64_t row) {
    const int64_t blocks = task.width / task.layout.block;
    if (task.layout.kind != AFFINE) count_scales((const uint8_t*)task.scales + row * blocks, blocks, totals);
    task.measure->row_squares[row] = sum((totals.squares[0] + totals.squares[1]) + (totals.squares[2] + totals.squares[3]));
    task.measure->row_error[row] = sum(totals.error[0] + totals.error[1]);
}

INLINE void finish(Measure& measure, const Totals& totals) {
    for (int i = 0; i < LANES; i++) measure.vanished += totals.vanished[i];
    if (totals.max_error > measure.max_error) measure.max_error = totals.max_error;
    for (int i = 0; i < 8; i++) {
        const double error = __builtin_sqrt(totals.max_square[i]);
        if (error > measure.max_error) measure.max_error = error;
    }
    for (int i = 0; i < 256; i++)
        for (int table = 0; table < 4; table++) measure.scale_counts[i] += totals.scale_counts[table][i];
}

}  // namespace VARIANT
