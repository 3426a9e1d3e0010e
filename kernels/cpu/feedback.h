// Codes under given scales, each column making up for the errors of the columns before it; see kernels/feedback.py.
//
// Rows lie in lanes, columns in their order. Errors go forward from one block of columns to the next, so that what is
// read over and over stays in the nearest cache; each target takes them one after the other, a product and then a sum.
#pragma once

#include <stdlib.h>

#include "decode.h"
#include "measure.h"

namespace VARIANT {

constexpr int BLOCK = 16;  // codes per scale
constexpr int GROUP = 64;  // rows side by side
constexpr int BATCH = 64;  // columns of a block
constexpr int NEXT = 4;    // columns that take errors together
#if defined(__AVX512F__)
constexpr int WIDE = 4;  // vectors of rows that take them together: as many as registers can hold
#else
constexpr int WIDE = 1;
#endif

// What a call works on. Groups lie one after the other.
struct Feed {
    float* errors;    // [group][width][64] in order
    uint8_t* codes;   // [group][width][64]
    uint8_t* scales;  // [group][width / 16][64]
    float* weights;   // [group][BATCH][64], of the block of columns at hand
    float* targets;   // the same
    int64_t groups;
};

INLINE int vectors_of(const FeedbackTask& task, int64_t group) {
    const int64_t left = task.rows - group * GROUP;
    return left < GROUP ? (int)((left + LANES - 1) / LANES) : GROUP / LANES;
}

template <class S> void turn_weights(const FeedbackTask& task, const Feed& feed, int64_t first, int64_t count) {
    const auto* weight = (const typename S::T*)task.weight;
    for (int64_t row = 0; row < task.rows; row++) {
        const auto* from = weight + row * task.width;
        float* to = feed.weights + row / GROUP * BATCH * GROUP + row % GROUP;
        for (int64_t c = 0; c < count; c++) to[c * GROUP] = S::widen(from[task.order[first + c]]);
    }
    memcpy(feed.targets, feed.weights, (size_t)(feed.groups * BATCH * GROUP) * sizeof(float));
}

INLINE void turn_scales(const FeedbackTask& task, const Feed& feed) {
    const int64_t count = task.width / BLOCK;
    for (int64_t row = 0; row < task.rows; row++)
        for (int64_t block = 0; block < count; block++)
            feed.scales[(row / GROUP * count + block) * GROUP + row % GROUP] = task.scales[row * count + block];
}

// A block of columns, or what is left of one.
struct Batch {
    int64_t first, count;
};

INLINE Batch batch_from(const FeedbackTask& task, int64_t first) {
    return {first, task.width - first < BATCH ? task.width - first : BATCH};
}

// Shares of the columns `from` in those of `to`, four of these side by side.
INLINE void pack_shares(const float* shares, int64_t width, Batch from, Batch to, float* packed) {
    for (int64_t i = 0; i < from.count; i++)
        for (int64_t c = 0; c < to.count; c++)
            packed[c / NEXT * BATCH * NEXT + i * NEXT + c % NEXT] = shares[(from.first + i) * width + to.first + c];
}

// Four columns of targets take the errors of `count` columns.
template <int VECTORS>
INLINE void take_errors(float* targets, const float* errors, int64_t count, const float* shares) {
    Floats sums[NEXT][VECTORS];
    for (int c = 0; c < NEXT; c++)
        for (int v = 0; v < VECTORS; v++) sums[c][v] = load<Floats>(targets + c * GROUP + v * LANES);
    for (int64_t i = 0; i < count; i++) {
#pragma clang loop unroll(full)
        for (int v = 0; v < VECTORS; v++) {
            const Floats error = load<Floats>(errors + i * GROUP + v * LANES);
#pragma clang loop unroll(full)
            for (int c = 0; c < NEXT; c++) sums[c][v] += error * splat(shares[i * NEXT + c]);
        }
    }
    for (int c = 0; c < NEXT; c++)
        for (int v = 0; v < VECTORS; v++) store(targets + c * GROUP + v * LANES, sums[c][v]);
}

// The targets of the columns `to` take the errors of those of `from`.
static void take_block(const FeedbackTask& task, const Feed& feed, int64_t group, Batch from, Batch to,
                       const float* packed) {
    float* targets = feed.targets + group * BATCH * GROUP;
    const float* errors = feed.errors + (group * task.width + from.first) * GROUP;
    const int vectors = vectors_of(task, group);
    for (int64_t c = 0; c < to.count; c += NEXT) {
        const float* shares = packed + c * BATCH;
        for (int v = 0; v < vectors;) {
            float* target = targets + c * GROUP + v * LANES;
            if (v + WIDE <= vectors) {
                take_errors<WIDE>(target, errors + v * LANES, from.count, shares);
                v += WIDE;
            } else {
                take_errors<1>(target, errors + v * LANES, from.count, shares);
                v += 1;
            }
        }
    }
}

INLINE Floats scale_of(const FeedbackTask& task, const uint8_t* bytes) {
    typedef uint8_t Row __attribute__((vector_size(16)));
    const Words byte = __builtin_convertvector(load<Row>(bytes), Words);
    return e4m3_decode(byte) * task.tensor_scale;
}

// Codes of sixteen rows' targets; gives what they decode to.
INLINE Floats encode_column(Floats target, Floats scale, uint8_t* codes) {
    Floats rounded;
    const Words sign = bits(target) & 0x80000000u;
    const Floats scaled = quotient<true>(magnitude(target), scale, Floats{});
    const Words code = E2M1::encode(smaller(scaled, splat(E2M1_MAX)), rounded) & E2M1::MASK;
    store_bytes(codes, code | sign >> 28);
    return floats(bits(rounded * scale) | sign);
}

// The targets of one block take what is left of the errors of later columns in it.
INLINE void take_later(const FeedbackTask& task, const Feed& feed, const float* shares, int64_t group, Batch own) {
    const float* errors = feed.errors + (group * task.width + own.first) * GROUP;
    for (int v = 0; v < vectors_of(task, group); v++)
        for (int64_t c = 0; c < own.count; c++) {
            float* target = feed.targets + (group * BATCH + c) * GROUP + v * LANES;
            Floats sum = load<Floats>(target);
            for (int64_t later = c + 1; later < own.count; later++)
                sum += load<Floats>(errors + later * GROUP + v * LANES) *
                       splat(shares[(own.first + later) * task.width + own.first + c]);
            store(target, sum);
        }
}

// The columns of one block in turn: encoded, and their errors taken by those after them in the block.
INLINE void encode_block(const FeedbackTask& task, const Feed& feed, const float* shares, int64_t group, Batch own) {
    const int64_t first = own.first, count = own.count;
    const uint8_t* scales = feed.scales + group * (task.width / BLOCK) * GROUP;
    float* targets = feed.targets + group * BATCH * GROUP;
    for (int v = 0; v < vectors_of(task, group); v++)
        for (int64_t c = 0; c < count; c++) {
            const int64_t column = task.order[first + c], lane = v * LANES;
            const Floats scale = scale_of(task, scales + column / BLOCK * GROUP + lane);
            uint8_t* codes = feed.codes + (group * task.width + column) * GROUP + lane;
            const Floats decoded = encode_column(load<Floats>(targets + c * GROUP + lane), scale, codes);
            const Floats error = load<Floats>(feed.weights + (group * BATCH + c) * GROUP + lane) - decoded;
            store(feed.errors + (group * task.width + first + c) * GROUP + lane, error);
            const float* taken = shares + (first + c) * task.width + first;
            for (int64_t next = c + 1; next < count; next++) {
                float* to = targets + next * GROUP + lane;
                store(to, load<Floats>(to) + error * splat(taken[next]));
            }
        }
}

// All columns in turn; again: each target takes the errors that later columns were left with first.
template <class S> void go_over(const FeedbackTask& task, const Feed& feed, const float* shares, bool again) {
    alignas(64) float packed[BATCH * BATCH];
    const auto take = [&](Batch from, Batch to) {
        pack_shares(shares, task.width, from, to, packed);
        for (int64_t group = 0; group < feed.groups; group++) take_block(task, feed, group, from, to, packed);
    };
    for (int64_t first = 0; first < task.width; first += BATCH) {
        const Batch own = batch_from(task, first);
        turn_weights<S>(task, feed, first, own.count);
        if (again) {
            for (int64_t group = 0; group < feed.groups; group++) take_later(task, feed, shares, group, own);
            for (int64_t after = first + BATCH; after < task.width; after += BATCH)
                take(batch_from(task, after), own);
        }
        for (int64_t before = 0; before < first; before += BATCH) take({before, BATCH}, own);
        for (int64_t group = 0; group < feed.groups; group++) encode_block(task, feed, shares, group, own);
    }
}

// Rows of codes, two to a byte.
INLINE void pack_codes(const FeedbackTask& task, const Feed& feed) {
    for (int64_t first = 0; first < task.width; first += 2 * LANES)
        for (int64_t row = 0; row < task.rows; row++) {
            const uint8_t* from = feed.codes + (row / GROUP * task.width + first) * GROUP + row % GROUP;
            uint8_t* to = task.codes + (row * task.width + first) / 2;
            const int64_t count = task.width - first < 2 * LANES ? (task.width - first) / 2 : LANES;
            for (int64_t i = 0; i < count; i++)
                to[i] = (uint8_t)(from[2 * i * GROUP] | from[(2 * i + 1) * GROUP] << 4);
        }
}

// What the codes of all rows cost, in double: errors that were fed forward may be larger than a block's steps.
template <class S> void measure_rows(const FeedbackTask& task) {
    using T = typename S::T;
    const Layout layout = {NVFP4, 4, BLOCK};
    const DecodeTask coded = {task.codes, task.scales, nullptr, nullptr, 0, layout, 0, 0, task.tensor_scale};
    Totals totals = {};
    Factors factors = {};
    Tally tally = {};
    float* errors = task.measure->block_error;
    int64_t block = 0;
    for (int64_t row = 0; row < task.rows; row++) {
        totals.start_row();
        for (int64_t column = 0; column < task.width; column += STRIP) {
            const int64_t left = task.width - column, at = row * task.width + column;
            const int size = left < STRIP ? (int)left : STRIP, count = size / BLOCK;
            uint8_t codes[STRIP / 2] = {};
            T weight[STRIP] = {};
            memcpy(codes, task.codes + at / 2, (size_t)size / 2);
            memcpy(weight, (const T*)task.weight + at, (size_t)size * sizeof(T));
            read_factors(coded, block, count, factors);
            Workspace work;
            Doubles squares[2] = {};
            decode_pairs<4, NVFP4>(codes, factors, [&](int j, Floats even, Floats odd) {
                Floats decoded[2] = {even, odd}, wide[2];
                S::load_pair(weight + 32 * j, wide[0], wide[1]);
                measure_wide(wide, decoded, work.exact + 2 * j, squares, totals.max_square);
                count_vanished(wide, decoded, tally);
            });
            record_wide(work, squares, {errors ? errors + block : nullptr, count, BLOCK}, totals);
            for (int i = 0; i < count; i++) totals.scale_counts[0][task.scales[block + i]]++;
            block += count;
        }
        task.measure->row_squares[row] = sum(totals.squares);
        task.measure->row_error[row] = sum(totals.error);
    }
    totals.vanished = tally.vanished;
    finish(*task.measure, totals);
}

template <class S> int feedback_dtype(FeedbackTask& task) {
    const int64_t groups = (task.rows + GROUP - 1) / GROUP, lanes = groups * GROUP;
    const int64_t scales = task.width / BLOCK;
    // Zeros, so that lanes without a row hold numbers.
    float* wide = (float*)calloc((size_t)(lanes * (task.width + 2 * BATCH)), sizeof(float));
    uint8_t* bytes = (uint8_t*)calloc((size_t)(lanes * (task.width + scales)), 1);
    if (wide && bytes) {
        float *weights = wide + lanes * task.width, *targets = weights + lanes * BATCH;
        const Feed feed = {wide, bytes, bytes + lanes * task.width, weights, targets, groups};
        turn_scales(task, feed);
        go_over<S>(task, feed, task.feedback, false);
        for (int sweep = 0; sweep < task.sweeps; sweep++) go_over<S>(task, feed, task.coupling, true);
        pack_codes(task, feed);
        if (task.measure) measure_rows<S>(task);
    }
    const int result = wide && bytes ? 0 : -1;
    free(wide);
    free(bytes);
    return result;
}

}  // namespace VARIANT
