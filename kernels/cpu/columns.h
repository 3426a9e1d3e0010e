// What is known of the inputs of a matrix's columns, laid out in the order in which choosing scales meets it.
#pragma once

#include <stdlib.h>

#include "search.h"

namespace VARIANT {

// For each strip of a row and each half of it `each` vectors; lane j is for block 2 j of the strip, or block 2 j + 1.
// Moments are followed by what every column costs at least, and by the inverse of twice its own moment, as float32.
struct Columns {
    void* memory;
    uint32_t* lanes;
    int each;

    const Words* of(int64_t column, int half) const {
        return (const Words*)lanes + (column / STRIP * 2 + half) * each;
    }
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

INLINE void spread_shares(const int16_t* triangle, uint32_t* to) {
    for (int row = 0; row < 2 * HALF_BLOCK; triangle += 2 * HALF_BLOCK - row, row++, to += LANES) {
        const float share = *triangle > 0 ? 1.0f / (float)(2 * *triangle) : 0.0f;
        memcpy(to, &share, sizeof share);
    }
}

// What an error of each column of some blocks costs at least, whatever the errors of the others: e T e >= floor * E**2
// where E >= 64 is the error of that column and none is larger than E. The inverse of the diagonal of T's inverse, for
// T + 1, as rounding may have left T a little indefinite: e e <= 16 E**2. 0 where T is not nearly a sum of squares.
static __attribute__((noinline)) void find_floors(const int16_t* triangles, int count, uint16_t (*floors)[16]) {
    Doubles a[16][16] = {}, least;  // the lower triangle
    for (int lane = 0; lane < count; lane++) {
        const int16_t* at = triangles + 136 * lane;
        for (int row = 0; row < 16; row++)
            for (int column = row; column < 16; column++, at++)
                a[column][row][lane] = column == row ? *at + 1.0 : *at * 0.5;
    }
    least = a[0][0];
    for (int k = 0; k < 16; k++) {  // sweeps: in the end, the inverse with the other sign
        const Doubles inverse = 1.0 / a[k][k];
        Doubles row[16];
        least = a[k][k] < least ? a[k][k] : least;
        for (int i = 0; i < 16; i++) row[i] = i < k ? a[k][i] : a[i][k];
        for (int i = 0; i < 16; i++) {
            const Doubles share = row[i] * inverse;
            for (int j = 0; j <= i; j++) a[i][j] -= share * row[j];
        }
        for (int i = 0; i < 16; i++) (i < k ? a[k][i] : a[i][k]) = row[i] * inverse;
        a[k][k] = -inverse;
    }
    for (int lane = 0; lane < count; lane++)
        for (int k = 0; k < 16; k++) {
            const double floor = least[lane] >= 0.5 ? -(1 - 0x1p-10) / a[k][k][lane] - 17 : 0;
            floors[lane][k] = floor > 0 ? (uint16_t)floor : 0;
        }
}

// False when memory ran out. Columns past the last are zeros.
static bool lay_out(const EncodeTask& task, Columns& columns) {
    columns = {nullptr, nullptr, task.moments ? VECTORS_OF_MOMENTS : task.importance ? HALF_BLOCK : 0};
    if (!columns.each) return true;
    const int64_t strips = (task.width + STRIP - 1) / STRIP;
    columns.memory = calloc((size_t)(strips * 2 * columns.each + 1), sizeof(Words));
    if (!columns.memory) return false;
    columns.lanes = (uint32_t*)(((uintptr_t)columns.memory + sizeof(Words) - 1) & ~(uintptr_t)(sizeof(Words) - 1));
    const int64_t blocks = task.width / 16;
    uint16_t floors[8][16];
    for (int64_t block = 0; block < blocks; block++) {
        uint32_t* to = columns.lanes + block / 2 % PAIRS + (block / (2 * PAIRS) * 2 + block % 2) * columns.each * LANES;
        if (!task.moments) {
            spread_importance(task.importance + 16 * block, to);
            continue;
        }
        const int64_t left = blocks - block;
        if (block % 8 == 0) find_floors(task.moments + 136 * block, left < 8 ? (int)left : 8, floors);
        spread_moments(task.moments + 136 * block, to);
        spread_importance(floors[block % 8], to + FLOORS_AT * LANES);
        spread_shares(task.moments + 136 * block, to + SHARES_AT * LANES);
    }
    return true;
}

}  // namespace VARIANT
