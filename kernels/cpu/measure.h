// What an encoded strip cost: sums, counts and the largest error, pair by pair while the weights are in registers.
#pragma once

#include "codecs.h"

namespace VARIANT {

// Squared errors of a strip: eight partial sums for each sixteen weights.
struct Workspace {
    Doubles error[STRIP / 16];
};

// Sums of one row, and what is kept over all rows; copied to registers for each strip.
struct Sums {
    Doubles squares[4], error[2], max_square;
    Floats max_error;
    Integers vanished;
};

struct Totals {
    Sums sums;
    float max_error;  // of the lanes of sums.max_error, as it was last looked for
    uint32_t scale_counts[4][256];  // four tables: runs of equal scales do not wait for each other

    void start_row() {
        for (Doubles& one : sums.squares) one = Doubles{};
        for (Doubles& one : sums.error) one = Doubles{};
    }
};

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

// Adds a pair of vectors, `weight` and what it decodes to. Sums in double: the square of a float32 is exact there, so
// every variant gets the same. Several accumulators, or the additions would wait for one another. DIFFERENCE: a
// float32 difference would round.
template <bool DIFFERENCE, bool TRACK>
INLINE void measure_pair(const Floats* weight, const Floats* decoded, Doubles* partial, Sums& sums) {
    Floats error[2] = {weight[0] - decoded[0], weight[1] - decoded[1]};
#pragma clang loop unroll(full)
    for (int half = 0; half < 2; half++) {
        Doubles difference[2];
#pragma clang loop unroll(full)
        for (int odd = 0; odd < 2; odd++) {
            Doubles wide = widen_half_of(weight[odd], half);
            difference[odd] = DIFFERENCE ? wide - widen_half_of(decoded[odd], half) : widen_half_of(error[odd], half);
            Doubles& squares = sums.squares[2 * half + odd];
            squares = add_exact_square(wide, squares);
        }
        Doubles first = difference[0] * difference[0];
        if constexpr (DIFFERENCE) {
            Doubles second = difference[1] * difference[1];
            sums.max_square = larger(sums.max_square, larger(first, second));
            partial[half] = first + second;
        } else {
            partial[half] = add_exact_square(difference[1], first);
        }
        sums.error[half] += partial[half];
    }
    for (int odd = 0; odd < 2; odd++) {
        if constexpr (DIFFERENCE) sums.vanished -= (decoded[odd] == 0.0f) & (weight[odd] != 0.0f);
        if constexpr (TRACK && !DIFFERENCE) sums.max_error = larger(sums.max_error, magnitude(error[odd]));
    }
}

// Keep the errors of `count` blocks.
INLINE void record_blocks(const EncodeTask& task, const Workspace& work, int64_t block, int count) {
    float* errors = task.measure->block_error;
    if (!errors) return;
    alignas(64) double sixteens[STRIP / 16];
    for (int i = 0; i < STRIP / 16; i += 8) store(sixteens + i, sums_of_eight(work.error + i));
    const int each = task.layout.block / 16;
    for (int i = 0; i < count; i++) {
        double total = sixteens[i * each];
        for (int k = 1; k < each; k++) total += sixteens[i * each + k];
        errors[block + i] = (float)total;
    }
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
    const Doubles* squares = totals.sums.squares;
    task.measure->row_squares[row] = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
    task.measure->row_error[row] = sum(totals.sums.error[0] + totals.sums.error[1]);
}

INLINE void finish(Measure& measure, const Totals& totals) {
    for (int i = 0; i < LANES; i++) {
        measure.vanished += totals.sums.vanished[i];
        if (totals.sums.max_error[i] > measure.max_error) measure.max_error = totals.sums.max_error[i];
    }
    for (int i = 0; i < 8; i++) {
        const double error = __builtin_sqrt(totals.sums.max_square[i]);
        if (error > measure.max_error) measure.max_error = error;
    }
    for (int i = 0; i < 256; i++)
        for (int table = 0; table < 4; table++) measure.scale_counts[i] += totals.scale_counts[table][i];
}

}  // namespace VARIANT
