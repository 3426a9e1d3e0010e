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
            if constexpr (MEASURE) record_blocks(task, work, block, blocks);
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
