// Encode rows strip by strip, and measure what that cost while the strip is in the nearest cache.
#pragma once

#include "codecs.h"

namespace VARIANT {

// Weights and their errors of a strip, as pass two leaves them for pass three.
struct Workspace {
    float weight[STRIP];
    float other[STRIP];  // the error, exact; or the decoded weight where a float32 difference would round
    double block_error[STRIP / 16];
};

// Sums of one row, and what is kept over all rows.
struct Totals {
    Doubles squares, error, max_square;
    Integers vanished;
};

INLINE Doubles widen_octet(const float* from) { return __builtin_convertvector(load<Octet>(from), Doubles); }

// Codes of a strip; with MEASURE also fills the workspace.
template <class S, class C, bool MEASURE, bool CAREFUL, bool DIFFERENCE>
INLINE void encode_strip(const typename S::T* strip, const C& codec, uint8_t* codes, Workspace& work, Totals& totals) {
    constexpr int PER_STORE = 16 / C::BITS;  // pairs whose codes fill a vector
#pragma clang loop unroll(disable)
    for (int first = 0; first < PAIRS; first += PER_STORE) {
        Words packed = {};
#pragma clang loop unroll(full)
        for (int k = 0; k < PER_STORE; k++) {
            const int j = first + k;
            const auto pair = C::pair(codec, j);
            Floats weight[2], decoded[2];
            S::load_pair(strip + 32 * j, weight[0], weight[1]);
            Words even = C::template encode<CAREFUL>(pair, weight[0], decoded[0]);
            Words odd = C::template encode<CAREFUL>(pair, weight[1], decoded[1]);
            packed |= (even | (odd << C::BITS)) << (2 * C::BITS * k);
            if constexpr (MEASURE) {
                for (int i = 0; i < 2; i++) {
                    Floats other = DIFFERENCE ? decoded[i] : weight[i] - decoded[i];
                    store(work.weight + 32 * j + 16 * i, weight[i]);
                    store(work.other + 32 * j + 16 * i, other);
                    totals.vanished += (decoded[i] == 0.0f) & (weight[i] != 0.0f);
                }
            }
        }
        if constexpr (C::BITS == 4)
            store(codes + 16 * first, ravel_bytes(packed));
        else
            store(codes + 32 * first, ravel_shorts(packed));
    }
}

// Sums in double: the square of a float32 is exact there, so every variant gets the same.
template <bool DIFFERENCE> INLINE void measure_strip(Workspace& work, Totals& totals, bool blocks) {
    Doubles squares = totals.squares, error = totals.error, largest = totals.max_square, halves[8];
    for (int j = 0; j < PAIRS; j++) {
        Doubles sums[2];
        for (int half = 0; half < 2; half++) {
            Doubles square[2];
            for (int odd = 0; odd < 2; odd++) {
                const int at = 32 * j + 16 * odd + 8 * half;
                Doubles weight = widen_octet(work.weight + at), difference = widen_octet(work.other + at);
                if constexpr (DIFFERENCE) difference = weight - difference;
                squares += weight * weight;
                square[odd] = difference * difference;
                largest = larger(largest, square[odd]);
            }
            sums[half] = square[0] + square[1];
            error += sums[half];
            halves[2 * (j % 4) + half] = sums[half];
        }
        if (blocks && j % 4 == 3) store(work.block_error + 2 * (j - 3), sums_of_eight(halves));
    }
    totals.squares = squares;
    totals.error = error;
    totals.max_square = largest;
}

template <class S, class C, bool MEASURE>
INLINE void encode_and_measure(const typename S::T* strip, const C& codec, uint8_t* codes, Workspace& work,
                               Totals& totals, bool blocks) {
    if (codec.careful) {
        encode_strip<S, C, MEASURE, true, true>(strip, codec, codes, work, totals);
        if constexpr (MEASURE) measure_strip<true>(work, totals, blocks);
    } else {
        encode_strip<S, C, MEASURE, false, C::INEXACT_DIFFERENCE>(strip, codec, codes, work, totals);
        if constexpr (MEASURE) measure_strip<C::INEXACT_DIFFERENCE>(work, totals, blocks);
    }
}

template <class S, class C> INLINE void record_blocks(const EncodeTask& task, const Workspace& work, int64_t block, int count) {
    Measure& measure = *task.measure;
    if (task.layout.kind != AFFINE)
        for (int i = 0; i < count; i++) measure.scale_counts[((const uint8_t*)task.scales)[block + i]]++;
    if (!measure.block_error) return;
    const int sixteens = task.layout.block / 16;
    for (int i = 0; i < count; i++) {
        double total = 0;
        for (int k = 0; k < sixteens; k++) total += work.block_error[i * sixteens + k];
        measure.block_error[block + i] = (float)total;
    }
}

template <class S, class C, bool MEASURE> void encode_rows(EncodeTask& task) {
    using T = typename S::T;
    // Blocks do not cross rows and rows are packed: without row sums to keep, all is one row.
    const int64_t rows = MEASURE ? task.rows : 1, width = MEASURE ? task.width : task.rows * task.width;
    const T* weight = (const T*)task.weight;
    uint8_t* codes = task.codes;
    int64_t block = 0;
    Totals totals = {};
    Workspace work;
    C codec;
    for (int64_t row = 0; row < rows; row++) {
        totals.squares = totals.error = Doubles{};
        for (int64_t done = 0; done < width; done += STRIP) {
            const int64_t left = width - done;
            const int size = left < STRIP ? (int)left : STRIP, blocks = size / task.layout.block;
            if (size == STRIP) {
                for (size_t line = 0; line < STRIP * sizeof(T); line += 64)
                    __builtin_prefetch((const char*)(weight + 2 * STRIP) + line);
                C::template choose<S>(codec, weight, task);
                encode_and_measure<S, C, MEASURE>(weight, codec, codes, work, totals, MEASURE && task.measure->block_error);
            } else {
                T padded[STRIP] = {};
                uint8_t packed[STRIP];
                memcpy(padded, weight, (size_t)size * sizeof(T));
                C::template choose<S>(codec, padded, task);
                encode_and_measure<S, C, MEASURE>(padded, codec, packed, work, totals, MEASURE && task.measure->block_error);
                memcpy(codes, packed, (size_t)size * C::BITS / 8);
            }
            C::template store_scales<S>(codec, task, block, blocks);
            if constexpr (MEASURE) record_blocks<S, C>(task, work, block, blocks);
            weight += size;
            codes += (int64_t)size * C::BITS / 8;
            block += blocks;
        }
        if constexpr (MEASURE) {
            task.measure->row_squares[row] = sum(totals.squares);
            task.measure->row_error[row] = sum(totals.error);
        }
    }
    if constexpr (MEASURE) {
        for (int i = 0; i < 8; i++) {
            const double error = __builtin_sqrt(totals.max_square[i]);
            if (error > task.measure->max_error) task.measure->max_error = error;
        }
        for (int i = 0; i < LANES; i++) task.measure->vanished -= totals.vanished[i];
    }
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
