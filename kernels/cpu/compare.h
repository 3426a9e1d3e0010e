// Codes decoded and compared with the weights that they stand for, in double: no decoded weight is stored.
#pragma once

#include "decode.h"

namespace VARIANT {

// Squared differences, eight lanes at a time; several sums, so that an addition does not wait for the one before.
struct Differences {
    Doubles sums[4];

    INLINE Doubles square(Doubles x) { return x * x; }

    __attribute__((always_inline)) void add(const Floats* weight, const Floats* decoded) {
#pragma clang loop unroll(full)
        for (int i = 0; i < 4; i++)
            sums[i] += square(widen_half_of(weight[i & 1], i >> 1) - widen_half_of(decoded[i & 1], i >> 1));
    }
};

template <class S, int BITS, int KIND> double compare_format(const CompareTask& task) {
    using T = typename S::T;
    const uint8_t* codes = task.coded.codes;
    const T* weight = (const T*)task.weight;
    Factors factors = {};
    Differences differences = {};
    double rest = 0;
    for (int64_t done = 0; done < task.coded.count; done += STRIP) {
        const int64_t left = task.coded.count - done;
        const int size = left < STRIP ? (int)left : STRIP;
        const int nbytes = size * BITS / 8;
        read_factors(task.coded, done / task.coded.layout.block, size / task.coded.layout.block, factors);
        if (size == STRIP) {
            prefetch(codes + 2 * (STRIP * BITS / 8), STRIP * BITS / 8);
            prefetch(weight + 2 * STRIP, STRIP * sizeof(T));
            decode_pairs<BITS, KIND>(codes, factors, [&](int j, Floats even, Floats odd) {
                Floats decoded[2] = {even, odd}, wide[2];
                S::load_pair(weight + 32 * j, wide[0], wide[1]);
                differences.add(wide, decoded);
            });
        } else {
            uint8_t padded[STRIP] = {};
            float strip[STRIP];
            memcpy(padded, codes, (size_t)nbytes);
            decode_strip<Float32, BITS, KIND>(padded, factors, strip);
            for (int i = 0; i < size; i++) {
                const double difference = (double)S::widen(weight[i]) - (double)strip[i];
                rest += difference * difference;
            }
        }
        codes += nbytes;
        weight += size;
    }
    const Doubles* sums = differences.sums;
    return sum((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

template <class S> double compare_dtype(const CompareTask& task) {
    switch (task.coded.layout.kind) {
        case NVFP4: return compare_format<S, 4, NVFP4>(task);
        case MXFP4: return compare_format<S, 4, MXFP4>(task);
        case MXFP8: return compare_format<S, 8, MXFP8>(task);
        case TILED: return compare_format<S, 8, TILED>(task);
        default:
            return task.coded.layout.bits == 4 ? compare_format<S, 4, AFFINE>(task)
                                               : compare_format<S, 8, AFFINE>(task);
    }
}

}  // namespace VARIANT
