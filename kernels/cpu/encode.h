// Encode rows strip by strip, and measure each strip while it is in the nearest cache.
#pragma once

#include "measure.h"

namespace VARIANT {

// A strip whose scales are chosen: its weights, or a copy padded with zeros when the row ends in it.
template <class S, class C> struct Slot {
    typename C::Strip strip;
    const typename S::T* source;
    int size;
    alignas(64) typename S::T padded[STRIP];
};

// Looks for the strip's largest error, once more from its weights.
template <class S, class C>
__attribute__((noinline)) void find_largest(const C& codec, const Slot<S, C>& slot, Totals& totals) {
    for (int j = 0; j < PAIRS; j++) {
        const auto pair = C::pair(codec, slot.strip, j);
        Floats weight[2], decoded[2];
        S::load_pair(slot.source + 32 * j, weight[0], weight[1]);
        for (int odd = 0; odd < 2; odd++) {
            C::template encode<false>(pair, weight[odd], odd, decoded[odd]);
            if constexpr (C::SIGNED) continue;
            totals.max_error = larger(totals.max_error, magnitude(magnitude(weight[odd]) - decoded[odd]));
        }
        if constexpr (C::SIGNED) {
            Doubles partial[2], squares[2] = {};
            measure_wide(weight, decoded, partial, squares, totals.max_square);
        }
    }
    note_largest(totals);
}

// CAREFUL divides, and measures in double precision.
template <class S, class C, bool MEASURE, bool CAREFUL>
INLINE void encode_strip(const C& codec, const Slot<S, C>& slot, uint8_t* codes, const Blocks& blocks, Totals& totals) {
    constexpr int PER_STORE = 16 / C::BITS;  // pairs whose codes fill a vector
    constexpr bool COUNT_CODES = !CAREFUL && !C::SIGNED;
    Workspace work;
    Tally tally = {};
    Doubles squares[2] = {};
    Words nonzero = {};
#pragma clang loop unroll(disable)
    for (int first = 0; first < PAIRS; first += PER_STORE) {
        Words packed = {};
#pragma clang loop unroll(full)
        for (int k = 0; k < PER_STORE; k++) {
            const int j = first + k;
            const auto pair = C::pair(codec, slot.strip, j);
            Floats weight[2], decoded[2];
            S::load_pair(slot.source + 32 * j, weight[0], weight[1]);
            Words even = C::template encode<CAREFUL>(pair, weight[0], 0, decoded[0]);
            Words odd = C::template encode<CAREFUL>(pair, weight[1], 1, decoded[1]);
            Words both = select((1u << C::BITS) - 1, even, odd << C::BITS);
            packed = k == 0 ? both : select((1u << (2 * C::BITS * k)) - 1, packed, both << (2 * C::BITS * k));
            if constexpr (MEASURE) {
                C::count_scales(slot.strip, j, totals.scale_counts);
                if constexpr (!C::SIGNED)
                    for (Floats& one : weight) one = magnitude(one);
                if constexpr (CAREFUL) {
                    measure_wide(weight, decoded, work.exact + 2 * j, squares, totals.max_square);
                    count_vanished(weight, decoded, tally);
                } else {
                    work.error[j] = measure_pair<S, C::SIGNED>(weight, decoded, k & 1, tally);
                }
            }
        }
        if constexpr (MEASURE && COUNT_CODES) nonzero += nonzero_codes<C::BITS>(packed);
        if constexpr (C::BITS == 4)
            store(codes + 16 * first, ravel_bytes(packed));
        else
            store(codes + 32 * first, ravel_shorts(packed));
    }
    if constexpr (MEASURE) {
        if constexpr (COUNT_CODES) {
            tally.vanished = (Integers)(STRIP / LANES - sum_counters<C::BITS>(nonzero));
            if (slot.strip.zero) tally.vanished -= (Integers)count_zeros<S>(slot.source);
        }
        totals.vanished += tally.vanished;
        if constexpr (CAREFUL) {
            record_wide(work, squares, blocks, totals);
            note_largest(totals);
        } else {
            const Floats errors = record_strip(work, tally, blocks, totals);
            if (any(slot.strip.error_bound > totals.largest) && any(errors >= totals.largest * totals.largest))
                find_largest<S, C>(codec, slot, totals);
        }
    }
}

// What is rare is kept out of the way of what is common.
template <class S, class C, bool MEASURE>
__attribute__((noinline)) void encode_carefully(const C& codec, const Slot<S, C>& slot, uint8_t* codes,
                                                const Blocks& blocks, Totals& totals) {
    encode_strip<S, C, MEASURE, true>(codec, slot, codes, blocks, totals);
}

template <class S, class C, bool MEASURE>
INLINE void encode_slot(const C& codec, const Slot<S, C>& slot, uint8_t* codes, const Blocks& blocks, Totals& totals) {
    if (slot.strip.careful) return encode_carefully<S, C, MEASURE>(codec, slot, codes, blocks, totals);
    encode_strip<S, C, MEASURE, false>(codec, slot, codes, blocks, totals);
}

template <class S, class C, bool MEASURE>
INLINE void prepare(const C& codec, const EncodeTask& task, const Columns& columns, const typename S::T* weight,
                    int64_t column, int64_t block, int64_t left, Slot<S, C>& slot) {
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
    const Given given = {(const float*)task.scales + block, slot.size / task.layout.block};
    C::template choose<S, MEASURE>(codec, slot.strip, slot.source, task, columns, column, given);
}

template <class S, class C, bool MEASURE> void encode_rows(EncodeTask& task, const Columns& columns) {
    // Blocks do not cross rows and rows are packed: without row sums to keep or columns to know, all is one row.
    const bool by_row = MEASURE || columns.each;
    const int64_t rows = by_row ? task.rows : 1, width = by_row ? task.width : task.rows * task.width;
    const auto* ahead = (const typename S::T*)task.weight;
    const auto* end = ahead + rows * width;
    uint8_t* codes = task.codes;
    int64_t block = 0, column_ahead = 0, block_ahead = 0;
    Totals totals = {};
    float* errors = MEASURE ? task.measure->block_error : nullptr;
    uint8_t packed[STRIP];
    Slot<S, C> slots[2];
    C codec;
    C::prepare(codec, task);
    // One strip ahead: its scales are chosen while this one's weights are encoded, neither waits for the other.
    const auto look_ahead = [&](Slot<S, C>& slot) {
        prepare<S, C, MEASURE>(codec, task, columns, ahead, column_ahead, block_ahead, width - column_ahead, slot);
        block_ahead += slot.size / task.layout.block;
        ahead += slot.size;
        column_ahead += slot.size;
        if (column_ahead == width) column_ahead = 0;
    };
    look_ahead(slots[0]);
    unsigned turn = 0;
    for (int64_t row = 0; row < rows; row++) {
        totals.start_row();
        for (int64_t column = 0; column < width; turn ^= 1) {
            if (ahead < end) look_ahead(slots[turn ^ 1]);
            const Slot<S, C>& slot = slots[turn];
            const int nbytes = slot.size * C::BITS / 8, count = slot.size / task.layout.block;
            const Blocks blocks = {errors ? errors + block : nullptr, count, task.layout.block};
            if (blocks.errors) prefetch(blocks.errors + 2 * count, count * (int64_t)sizeof(float));
            prefetch(codes + 2 * (STRIP * C::BITS / 8), STRIP * C::BITS / 8);
            encode_slot<S, C, MEASURE>(codec, slot, slot.size < STRIP ? packed : codes, blocks, totals);
            if (slot.size < STRIP) memcpy(codes, packed, (size_t)nbytes);
            C::template store_scales<S>(slot.strip, task, block, count);
            if constexpr (MEASURE && C::COUNTED)
                if (slot.size < STRIP) discount_scales(slot.strip.bytes, count, STRIP / task.layout.block, totals);
            column += slot.size;
            codes += nbytes;
            block += count;
        }
        if constexpr (MEASURE) finish_row(task, totals, row);
    }
    if constexpr (MEASURE) finish(*task.measure, totals);
}

template <class S, class C> int encode_format(EncodeTask& task) {
    Columns columns;
    if (!lay_out(task, columns)) return -1;
    if (task.measure)
        encode_rows<S, C, true>(task, columns);
    else
        encode_rows<S, C, false>(task, columns);
    free(columns.memory);
    return 0;
}

template <class S, bool SEARCHED> int encode_affine(EncodeTask& task) {
    if (task.layout.bits == 4) return encode_format<S, Affine<4, SEARCHED>>(task);
    return encode_format<S, Affine<8, SEARCHED>>(task);
}

template <class S> int encode_dtype(EncodeTask& task) {
    switch (task.layout.kind) {
        case NVFP4: return task.moments ? encode_format<S, Nvfp4GoneOver>(task) : encode_format<S, Nvfp4>(task);
        case MXFP4: return encode_format<S, Mxfp4>(task);
        case MXFP8: return encode_format<S, Mxfp8>(task);
        case TILED: return encode_format<S, Tiled>(task);
        default: return task.method == MAX ? encode_affine<S, false>(task) : encode_affine<S, true>(task);
    }
}

}  // namespace VARIANT
