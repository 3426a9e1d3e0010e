// Codes back to weights.
#pragma once

#include "codecs.h"

namespace VARIANT {

// What a strip's codes are multiplied by, per half of each pair of vectors; for affine also added.
struct Factors {
    float factor[2][PAIRS], bias[PAIRS];
};

INLINE float canonical(float x) { return x == x ? x : __builtin_nanf(""); }

INLINE float read_scale(const void* scales, int64_t block, int32_t dtype) {
    switch (dtype) {
        case BFLOAT16: return BFloat16::widen(((const uint16_t*)scales)[block]);
        case FLOAT16: return Float16::widen(((const uint16_t*)scales)[block]);
        default: return ((const float*)scales)[block];
    }
}

INLINE void read_factors(const DecodeTask& task, int64_t block, int count, Factors& factors) {
    typedef uint8_t Row __attribute__((vector_size(16)));
    const int32_t kind = task.layout.kind;
    if (kind == AFFINE || kind == SYMMETRIC) {
        const int lanes = task.layout.block / 32;
        for (int j = 0; j < count * lanes; j++) {
            factors.factor[0][j] = factors.factor[1][j] =
                canonical(read_scale(task.scales, block + j / lanes, task.scale_dtype));
            factors.bias[j] = canonical(read_scale(task.biases, block + j / lanes, task.scale_dtype));
        }
        return;
    }
    if (kind == TILED) {
        for (int i = 0; i < count; i++)
            factors.factor[i & 1][i >> 1] = canonical(((const float*)task.scales)[block + i]) * task.tensor_scale;
        return;
    }
    uint8_t bytes[2 * PAIRS] = {};
    memcpy(bytes, (const uint8_t*)task.scales + block, (size_t)count);
    Words low = __builtin_convertvector(load<Row>(bytes), Words);
    Words high = __builtin_convertvector(load<Row>(bytes + 16), Words);
    if (kind == NVFP4) {
        store(factors.factor[0], e4m3_decode(evens(low, high)) * task.tensor_scale);
        store(factors.factor[1], e4m3_decode(odds(low, high)) * task.tensor_scale);
    } else {
        store(factors.factor[0], e8m0_decode(low));
        store(factors.factor[1], e8m0_decode(low));
    }
}

template <int KIND> INLINE Floats decode_codes(Words code, Floats factor, Floats bias) {
    if constexpr (KIND == AFFINE) return __builtin_convertvector((Integers)code, Floats) * factor + bias;
    if constexpr (KIND == MXFP8 || KIND == TILED) return e4m3_decode(code) * factor;
    Words value = bits(E2M1::decode(code & 7u)) | ((code & 8u) << 28);
    return floats(value) * factor;
}

// Decodes a strip pair by pair; `take` gets the number of the pair, its even and its odd elements.
template <int BITS, int KIND, typename Take>
INLINE void decode_pairs(const uint8_t* codes, const Factors& factors, Take take) {
    constexpr int PER_LOAD = 16 / BITS;
    constexpr uint32_t MASK = (1u << BITS) - 1;
    for (int first = 0; first < PAIRS; first += PER_LOAD) {
        Words packed = BITS == 4 ? unravel_bytes(load<Bytes>(codes + 16 * first))
                                 : unravel_shorts(load<Shorts>(codes + 32 * first));
#pragma clang loop unroll(full)
        for (int k = 0; k < PER_LOAD; k++) {
            const int j = first + k;
            Words pair = packed >> (2 * BITS * k);
            Floats factor = halves(factors.factor[0][j], factors.factor[1][j]), bias = splat(factors.bias[j]);
            take(j, decode_codes<KIND>(pair & MASK, factor, bias),
                 decode_codes<KIND>((pair >> BITS) & MASK, factor, bias));
        }
    }
}

template <class S, int BITS, int KIND>
INLINE void decode_strip(const uint8_t* codes, const Factors& factors, typename S::T* strip) {
    decode_pairs<BITS, KIND>(codes, factors,
                             [&](int j, Floats even, Floats odd) { S::store_pair(strip + 32 * j, even, odd); });
}

template <class S, int BITS, int KIND> int decode_format(const DecodeTask& task) {
    using T = typename S::T;
    const uint8_t* codes = task.codes;
    T* weight = (T*)task.weight;
    Factors factors = {};
    for (int64_t done = 0; done < task.count; done += STRIP) {
        const int64_t left = task.count - done;
        const int size = left < STRIP ? (int)left : STRIP;
        const int nbytes = size * BITS / 8;
        read_factors(task, done / task.layout.block, size / task.layout.block, factors);
        if (size == STRIP) {
            prefetch(codes + 2 * (STRIP * BITS / 8), STRIP * BITS / 8);
            prefetch(weight + 2 * STRIP, STRIP * sizeof(T));
            decode_strip<S, BITS, KIND>(codes, factors, weight);
        } else {
            uint8_t padded[STRIP] = {};
            T strip[STRIP];
            memcpy(padded, codes, (size_t)nbytes);
            decode_strip<S, BITS, KIND>(padded, factors, strip);
            memcpy(weight, strip, (size_t)size * sizeof(T));
        }
        codes += nbytes;
        weight += size;
    }
    return 0;
}

template <class S> int decode_dtype(const DecodeTask& task) {
    switch (task.layout.kind) {
        case NVFP4: return decode_format<S, 4, NVFP4>(task);
        case MXFP4: return decode_format<S, 4, MXFP4>(task);
        case MXFP8: return decode_format<S, 8, MXFP8>(task);
        case TILED: return decode_format<S, 8, TILED>(task);
        default: return task.layout.bits == 4 ? decode_format<S, 4, AFFINE>(task) : decode_format<S, 8, AFFINE>(task);
    }
}

}  // namespace VARIANT
