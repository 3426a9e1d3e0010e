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
    float* errors;    // [group][width][64] in order; the weights until a column is done
    uint8_t* codes;   // [group][width][64]
    uint8_t* scales;  // [group][width / 16][64]
    float* targets;   // [group][BATCH][64]
    int64_t groups;
};

INLINE int vectors_of(const FeedbackTask& task, int64_t group) {
    const int64_t left = task.rows - group * GROUP;
    return left < GROUP ? (int)((left + LANES - 1) / LANES) : GROUP / LANES;
}

template <class S> void turn_weights(const FeedbackTask& task, const Feed& feed) {
    const auto* weight = (const typename S::T*)task.weight;
    for (int64_t first = 0; first < task.width; first += BATCH)
        for (int64_t row = 0; row < task.rows; row++) {
            const auto* from = weight + row * task.width;
            float* to = feed.errors + (row / GROUP * task.width + first) * GROUP + row % GROUP;
            const int64_t count = task.width - first < BATCH ? task.width - first : BATCH;
            for (int64_t c = 0; c < count; c++) to[c * GROUP] = S::widen(from[task.order[first + c]]);
        }
}

INLINE void turn_scales(const FeedbackTask& task, const Feed& feed) {
    const int64_t count = task.width / BLOCK;
    for (int64_t row = 0; row < task.rows; row++)
        for (int64_t block = 0; block < count; block++)
            feed.scales[(row / GROUP * count + block) * GROUP + row % GROUP] = task.scales[row * count + block];
}

// Shares of `count` columns from `from` in those from `to`, four of these side by side.
INLINE void pack_shares(const FeedbackTask& task, int64_t from, int64_t to, int64_t count, float* packed) {
    for (int64_t i = 0; i < BATCH; i++)
        for (int64_t c = 0; c < count; c++)
            packed[c / NEXT * BATCH * NEXT + i * NEXT + c % NEXT] = task.feedback[(from + i) * task.width + to + c];
}

// Four columns of targets take the errors of a block of columns.
template <int VECTORS> INLINE void take_errors(float* targets, const float* errors, const float* shares) {
    Floats sums[NEXT][VECTORS];
    for (int c = 0; c < NEXT; c++)
        for (int v = 0; v < VECTORS; v++) sums[c][v] = load<Floats>(targets + c * GROUP + v * LANES);
    for (int i = 0; i < BATCH; i++) {
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

INLINE void take_block(float* targets, const float* errors, const float* packed, int64_t count, int vectors) {
    for (int64_t c = 0; c < count; c += NEXT) {
        const float* shares = packed + c * BATCH;
        for (int v = 0; v < vectors;) {
            float* to = targets + c * GROUP + v * LANES;
            if (v + WIDE <= vectors) {
                take_errors<WIDE>(to, errors + v * LANES, shares);
                v += WIDE;
            } else {
                take_errors<1>(to, errors + v * LANES, shares);
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

// The columns of one block in turn: encoded, and their errors taken by those after them in the block.
INLINE void encode_block(const FeedbackTask& task, const Feed& feed, int64_t group, int64_t first, int64_t count) {
    const uint8_t* scales = feed.scales + group * (task.width / BLOCK) * GROUP;
    float* targets = feed.targets + group * BATCH * GROUP;
    for (int v = 0; v < vectors_of(task, group); v++)
        for (int64_t c = 0; c < count; c++) {
            const int64_t column = task.order[first + c], lane = v * LANES;
            float* own = feed.errors + (group * task.width + first + c) * GROUP + lane;
            const Floats scale = scale_of(task, scales + column / BLOCK * GROUP + lane);
            uint8_t* codes = feed.codes + (group * task.width + column) * GROUP + lane;
            const Floats decoded = encode_column(load<Floats>(targets + c * GROUP + lane), scale, codes);
            const Floats error = load<Floats>(own) - decoded;
            store(own, error);
            const float* shares = task.feedback + (first + c) * task.width + first;
            for (int64_t next = c + 1; next < count; next++) {
                float* to = targets + next * GROUP + lane;
                store(to, load<Floats>(to) + error * splat(shares[next]));
            }
        }
}

static void feed_forward(const FeedbackTask& task, const Feed& feed) {
    alignas(64) float packed[BATCH * BATCH];
    for (int64_t first = 0; first < task.width; first += BATCH) {
        const int64_t count = task.width - first < BATCH ? task.width - first : BATCH;
        for (int64_t group = 0; group < feed.groups; group++)
            memcpy(feed.targets + group * BATCH * GROUP, feed.errors + (group * task.width + first) * GROUP,
                   (size_t)(count * GROUP) * sizeof(float));
        for (int64_t before = 0; before < first; before += BATCH) {
            pack_shares(task, before, first, count, packed);
            for (int64_t group = 0; group < feed.groups; group++)
                take_block(feed.targets + group * BATCH * GROUP, feed.errors + (group * task.width + before) * GROUP,
                           packed, count, vectors_of(task, group));
        }
        for (int64_t group = 0; group < feed.groups; group++) encode_block(task, feed, group, first, count);
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
    float* wide = (float*)calloc((size_t)(lanes * (task.width + BATCH)), sizeof(float));
    uint8_t* bytes = (uint8_t*)calloc((size_t)(lanes * (task.width + scales)), 1);
    if (wide && bytes) {
        const Feed feed = {wide, bytes, bytes + lanes * task.width, wide + lanes * task.width, groups};
        turn_weights<S>(task, feed);
        turn_scales(task, feed);
        feed_forward(task, feed);
        pack_codes(task, feed);
        if (task.measure) measure_rows<S>(task);
    }
    const int result = wide && bytes ? 0 : -1;
    free(wide);
    free(bytes);
    return result;
}

}  // namespace VARIANT
