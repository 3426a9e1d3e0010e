// What is known of the inputs of a matrix's columns, laid out in the order in which choosing scales meets it.
#pragma once

#include <stdlib.h>

#include "search.h"

namespace VARIANT {

// For each strip of a row and each half of it `each` vectors; lane j is for block 2 j of the strip, or block 2 j + 1.
struct Columns {
    void* memory;
    uint32_t* lanes;
    int each;

    const Words* at(int64_t column) const { return (const Words*)lanes + column / STRIP * 2 * each; }
};

INLINE uint32_t pair_of(uint32_t low, uint32_t high) { return (low & 0xFFFFu) | high << 16; }

// One block's importance, or the upper triangle of its moments, into lanes LANES apart.
INLINE void spread_importance(const uint16_t* importance, uint32_t* to) {
    for (int k = 0; k < HALF_BLOCK; k++) to[k * LANES] = pair_of(importance[2 * k], importance[2 * k + 1]);
}

INLINE void spread_moments(const int16_t* triangle, uint32_t* to) {
    for (int row = 0; row < 2 * HALF_BLOCK; row++) {
        for (int k = row / 2; k < HALF_BLOCK; k++, to += LANES) {
            const int16_t* at = triangle + 2 * k - row;
            *to = pair_of(2 * k < row ? 0 : (uint32_t)at[0], (uint32_t)at[1]);
        }
        triangle += 2 * HALF_BLOCK - row;
    }
}

// False when memory ran out. Columns past the last are zeros.
static bool lay_out(const EncodeTask& task, Columns& columns) {
    columns = {nullptr, nullptr, task.moments ? PAIRS_OF_MOMENTS : task.importance ? HALF_BLOCK : 0};
    if (!columns.each) return true;
    const int64_t strips = (task.width + STRIP - 1) / STRIP;
    columns.memory = calloc((size_t)(strips * 2 * columns.each + 1), sizeof(Words));
    if (!columns.memory) return false;
    columns.lanes = (uint32_t*)(((uintptr_t)columns.memory + sizeof(Words) - 1) & ~(uintptr_t)(sizeof(Words) - 1));
    for (int64_t block = 0; block < task.width / 16; block++) {
        uint32_t* to = columns.lanes + block / 2 % PAIRS + (block / (2 * PAIRS) * 2 + block % 2) * columns.each * LANES;
        if (task.moments)
            spread_moments(task.moments + 136 * block, to);
        else
            spread_importance(task.importance + 16 * block, to);
    }
    return true;
}

}  // namespace VARIANT
