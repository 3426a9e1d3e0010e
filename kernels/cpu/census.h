// Count magnitudes: one bin per upper half of a float32 without its sign.
#pragma once

#include <stdlib.h>

#include "elements.h"
#include "tasks.h"

namespace VARIANT {

constexpr int BINS = 32768, INFINITY_BIN = 0x7F80;
constexpr int TABLES = 2;                        // so that runs of equal weights do not wait for each other
constexpr int64_t PASS = (int64_t)1 << 30;       // weights per pass: a 32-bit counter can not overflow

// Counts 16-bit magnitudes (sign bits already cleared), four to a 64-bit word.
INLINE void count_word(uint64_t four, uint32_t* tables) {
    tables[four & 0xFFFF]++;
    tables[BINS + ((four >> 16) & 0xFFFF)]++;
    tables[(four >> 32) & 0xFFFF]++;
    tables[BINS + (four >> 48)]++;
}

INLINE void count_shorts(const uint16_t* from, int64_t count, uint32_t* tables) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        __builtin_prefetch((const char*)(from + i) + 1024);
#pragma clang loop unroll(full)
        for (int k = 0; k < 16; k += 4) count_word(load<uint64_t>(from + i + k) & 0x7FFF7FFF7FFF7FFFull, tables);
    }
    for (; i < count; i++) tables[from[i] & 0x7FFF]++;
}

// Adds a pass's tables, whose index is a bfloat16 or float16 magnitude; sums are exact for every counted value.
template <class S> INLINE void fold_shorts(const uint32_t* tables, CensusTask& task) {
    for (int i = 0; i < BINS; i++) {
        const uint64_t count = (uint64_t)tables[i] + tables[BINS + i];
        if (!count) continue;
        const float value = S::widen((uint16_t)i);
        uint32_t wide;
        memcpy(&wide, &value, sizeof wide);
        const bool nan = value != value;
        task.counts[nan ? BINS - 1 : wide >> 16] += count;
        if (wide >= 0x7F800000u) continue;
        const double square = (double)value * value;
        task.sum2 += square * (double)count;
        task.sum4 += square * square * (double)count;
        if (value > task.max_abs) task.max_abs = value;
    }
}

// Bins and moments of 32 float32 weights; what is not finite adds nothing to the moments.
INLINE void bin_floats(const float* from, uint16_t* bins, Doubles* sum2, Doubles* sum4, Words& largest) {
    Words bin[2];
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; i++) {
        Words wide = load<Words>(from + LANES * i) & 0x7FFFFFFFu;
        bin[i] = wide > 0x7F800000u ? splat((uint32_t)(BINS - 1)) : wide >> 16;
        Words finite = wide < 0x7F800000u ? wide : Words{};
        largest = larger(largest, finite);
        float values[LANES];
        store(values, finite);
#pragma clang loop unroll(full)
        for (int half = 0; half < 2; half++) {
            Doubles value = __builtin_convertvector(load<Octet>(values + 8 * half), Doubles), square = value * value;
            sum2[half] += square;
            sum4[half] += square * square;
        }
    }
    store(bins, bin[0] | bin[1] << 16);  // in another order: a count has none
}

INLINE void census_floats(const float* from, int64_t count, uint32_t* tables, CensusTask& task) {
    constexpr int STEP = 256;
    Doubles sum2[2] = {}, sum4[2] = {};
    Words largest = {};
    uint16_t bins[STEP];
    for (int64_t done = 0; done < count; done += STEP) {
        const int64_t left = count - done;
        float padded[STEP] = {};
        const float* source = from + done;
        if (left < STEP) {
            memcpy(padded, source, (size_t)left * sizeof(float));
            source = padded;
            tables[0] -= (uint32_t)(STEP - left);  // the padding's zeros
        } else {
            prefetch(source + 4 * STEP, STEP * sizeof(float));
        }
        for (int i = 0; i < STEP; i += 2 * LANES) bin_floats(source + i, bins + i, sum2, sum4, largest);
        count_shorts(bins, STEP, tables);
    }
    for (int bin = 0; bin < BINS; bin++) task.counts[bin] += (uint64_t)(uint32_t)(tables[bin] + tables[BINS + bin]);
    task.sum2 += sum(sum2[0] + sum2[1]);
    task.sum4 += sum(sum4[0] + sum4[1]);
    const float largest_value = floats(splat(__builtin_reduce_max(largest)))[0];
    if (largest_value > task.max_abs) task.max_abs = largest_value;
}

static int census(CensusTask* task) {
    uint32_t* tables = (uint32_t*)malloc(TABLES * BINS * sizeof(uint32_t));
    if (!tables) return -1;
    for (int64_t done = 0; done < task->count; done += PASS) {
        const int64_t count = task->count - done < PASS ? task->count - done : PASS;
        memset(tables, 0, TABLES * BINS * sizeof(uint32_t));
        if (task->dtype == FLOAT32) {
            census_floats((const float*)task->weight + done, count, tables, *task);
            continue;
        }
        count_shorts((const uint16_t*)task->weight + done, count, tables);
        if (task->dtype == BFLOAT16)
            fold_shorts<BFloat16>(tables, *task);
        else
            fold_shorts<Float16>(tables, *task);
    }
    free(tables);
    return 0;
}

// Largest magnitude as bits of the dtype; Inf and NaN compare above every finite number.
template <typename V, typename T> INLINE uint32_t largest_bits(const T* from, int64_t count, T mask) {
    constexpr int PER = (int)(sizeof(V) / sizeof(T));
    V largest[4] = {};
    int64_t i = 0;
    for (; i + 4 * PER <= count; i += 4 * PER) {
#pragma clang loop unroll(full)
        for (int k = 0; k < 4; k++) {
            __builtin_prefetch((const char*)(from + i + k * PER) + 4096);
            largest[k] = __builtin_elementwise_max(largest[k], load<V>(from + i + k * PER) & mask);
        }
    }
    V all = __builtin_elementwise_max(__builtin_elementwise_max(largest[0], largest[1]),
                                      __builtin_elementwise_max(largest[2], largest[3]));
    uint32_t result = __builtin_reduce_max(all);
    for (; i < count; i++) {
        const uint32_t one = from[i] & mask;
        if (one > result) result = one;
    }
    return result;
}

static float max_abs(const void* weight, int64_t count, int32_t dtype) {
    if (dtype == FLOAT32) return floats(splat(largest_bits<Words>((const uint32_t*)weight, count, 0x7FFFFFFFu)))[0];
    const uint16_t largest = (uint16_t)largest_bits<Shorts>((const uint16_t*)weight, count, (uint16_t)0x7FFF);
    return dtype == BFLOAT16 ? BFloat16::widen(largest) : Float16::widen(largest);
}

}  // namespace VARIANT
