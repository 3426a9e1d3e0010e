// Encode rows strip by strip, and measure what that cost while the strip is in the nearest cache.
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

// A strip whose scales are chosen: its weights, or a copy padded with zeros when the row ends in it.
template <class S, class C> struct Slot {
    typename C::Strip strip;
    const typename S::T* source;
    int size;
    alignas(64) typename S::T padded[STRIP];
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

// Codes of a strip; with MEASURE also fills the workspace. DIFFERENCE: leave the subtraction to double precision.
template <class S, class C, bool MEASURE, bool CAREFUL, bool DIFFERENCE>
INLINE void encode_strip(const C& codec, const Slot<S, C>& slot, uint8_t* codes, Workspace& work, Totals& totals) {
    const auto* source = slot.source;
    constexpr int PER_STORE = 16 / C::BITS;  // pairs whose codes fill a vector
    Words nonzero = {};
#pragma clang loop unroll(disable)
    for (int first = 0; first < PAIRS; first += PER_STORE) {
        Words packed = {};
#pragma clang loop unroll(full)
        for (int k = 0; k < PER_STORE; k++) {
            const int j = first + k;
            const auto pair = C::pair(codec, slot.strip, j);
            Floats weight[2], decoded[2];
            S::load_pair(source + 32 * j, weight[0], weight[1]);
            Words even = C::template encode<CAREFUL>(pair, weight[0], decoded[0]);
            Words odd = C::template encode<CAREFUL>(pair, weight[1], decoded[1]);
            Words both = select((1u << C::BITS) - 1, even, odd << C::BITS);
            packed = k == 0 ? both : select((1u << (2 * C::BITS * k)) - 1, packed, both << (2 * C::BITS * k));
            if constexpr (MEASURE) {
                for (int i = 0; i < 2; i++) {
                    Floats kept = C::SIGNED ? weight[i] : magnitude(weight[i]);
                    store(work.weight + 32 * j + 16 * i, kept);
                    store(work.other + 32 * j + 16 * i, DIFFERENCE ? decoded[i] : kept - decoded[i]);
                    if constexpr (DIFFERENCE) totals.vanished -= (decoded[i] == 0.0f) & (kept != 0.0f);
                }
            }
        }
        if constexpr (MEASURE && !DIFFERENCE) nonzero += nonzero_codes<C::BITS>(packed);
        if constexpr (C::BITS == 4)
            store(codes + 16 * first, ravel_bytes(packed));
        else
            store(codes + 32 * first, ravel_shorts(packed));
    }
    if constexpr (MEASURE && !DIFFERENCE) {
        totals.vanished += (Integers)(STRIP / LANES - sum_counters<C::BITS>(nonzero));
        if (slot.strip.zero) totals.vanished -= (Integers)count_zeros<S>(source);
        if (any(slot.strip.error_bound > totals.max_error)) totals.max_error = largest_error(work, totals.max_error);
    }
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

// Rare, so kept out of the way of what is common.
template <class S, class C, bool MEASURE>
__attribute__((noinline)) void encode_carefully(const C& codec, const Slot<S, C>& slot, uint8_t* codes, Workspace& work,
                                                Totals& totals, bool blocks) {
    encode_strip<S, C, MEASURE, true, true>(codec, slot, codes, work, totals);
    if constexpr (MEASURE) measure_strip<true>(work, totals, blocks);
}

template <class S, class C, bool MEASURE>
INLINE void encode_and_measure(const C& codec, const Slot<S, C>& slot, uint8_t* codes, Workspace& work, Totals& totals,
                               bool blocks) {
    if (slot.strip.careful) {
        encode_carefully<S, C, MEASURE>(codec, slot, codes, work, totals, blocks);
    } else {
        encode_strip<S, C, MEASURE, false, C::SIGNED>(codec, slot, codes, work, totals);
        if constexpr (MEASURE) measure_strip<C::SIGNED>(work, totals, blocks);
    }
}

// Count the scales of `count` blocks and keep their errors.
INLINE void record_blocks(const EncodeTask& task, const Workspace& work, Totals& totals, int64_t block, int count) {
    if (task.layout.kind != AFFINE) {
        const uint8_t* scales = (const uint8_t*)task.scales + block;
        int i = 0;
        for (; i + 4 <= count; i += 4) {
            const uint32_t four = load<uint32_t>(scales + i);
            for (int k = 0; k < 4; k++) totals.scale_counts[k][(four >> (8 * k)) & 0xFF]++;
        }
        for (; i < count; i++) totals.scale_counts[0][scales[i]]++;
    }
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

INLINE void finish_row(const EncodeTask& task, const Totals& totals, int64_t row) {
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

template <class S, class C, bool MEASURE>
INLINE void prepare(const C& codec, const EncodeTask& task, const typename S::T* weight, int64_t left, Slot<S, C>& slot) {
    using T = typename S::T;
    slot.source = weight;
    slot.size = left < STRIP ? (int)left : STRIP;
    if (slot.size < STRIP) {
        memset(slot.padded, 0, sizeof slot.padded);
        memcpy(slot.padded, weight, (size_t)slot.size * sizeof(T));
        slot.source = slot.padded;
    } else {
        prefetch(weight + 2 * STRIP, STRIP * sizeof(T));
    }
    C::template choose<S, MEASURE>(codec, slot.strip, slot.source, task);
}

template <class S, class C, bool MEASURE> void encode_rows(EncodeTask& task) {
    // Blocks do not cross rows and rows are packed: without row sums to keep, all is one row.
    const int64_t rows = MEASURE ? task.rows : 1, width = MEASURE ? task.width : task.rows * task.width;
    const bool keep_blocks = MEASURE && task.measure->block_error;
    const auto* ahead = (const typename S::T*)task.weight;
    const auto* end = ahead + rows * width;
    uint8_t* codes = task.codes;
    int64_t block = 0, column_ahead = 0;
    Totals totals = {};
    Workspace work;
    uint8_t packed[STRIP];
    Slot<S, C> slots[2];
    C codec;
    C::prepare(codec, task);
    // One strip ahead: its scales are chosen while this one's weights are encoded, neither waits for the other.
    const auto look_ahead = [&](Slot<S, C>& slot) {
        prepare<S, C, MEASURE>(codec, task, ahead, width - column_ahead, slot);
        ahead += slot.size;
        column_ahead += slot.size;
        if (column_ahead == width) column_ahead = 0;
    };
    look_ahead(slots[0]);
    unsigned turn = 0;
    for (int64_t row = 0; row < rows; row++) {
        memset(totals.squares, 0, sizeof totals.squares);
        memset(totals.error, 0, sizeof totals.error);
        for (int64_t column = 0; column < width; turn ^= 1) {
            if (ahead < end) look_ahead(slots[turn ^ 1]);
            const Slot<S, C>& slot = slots[turn];
            const int nbytes = slot.size * C::BITS / 8, blocks = slot.size / task.layout.block;
            prefetch(codes + 2 * (STRIP * C::BITS / 8), STRIP * C::BITS / 8);
            encode_and_measure<S, C, MEASURE>(codec, slot, slot.size < STRIP ? packed : codes, work, totals, keep_blocks);
            if (slot.size < STRIP) memcpy(codes, packed, (size_t)nbytes);
            C::template store_scales<S>(slot.strip, task, block, blocks);
            if constexpr (MEASURE) record_blocks(task, work, totals, block, blocks);
            column += slot.size;
            codes += nbytes;
            block += blocks;
        }
        if constexpr (MEASURE) finish_row(task, totals, row);
    }
    if constexpr (MEASURE) finish(*task.measure, totals);
}

template <class S, class C> int encode_format(EncodeTask& task) {
    if (task.measure)
        encode_rows<S, C, true>(task);
    else
        encode_rows<S, C, false>(task);
    return 0;
}

template <class S> int encode_dtype(EncodeTask& task) {
    switch (task.layout.kind) {
        case NVFP4: return encode_format<S, Nvfp4>(task);
        case MXFP4: return encode_format<S, Mxfp4>(task);
        case MXFP8: return encode_format<S, Mxfp8>(task);
        default: return task.layout.bits == 4 ? encode_format<S, Affine<4>>(task) : encode_format<S, Affine<8>>(task);
    }
}

}  // namespace VARIANT
