// A Cholesky factorization of the upper triangle of a matrix of doubles, R R^T = H, in panels from the last column on.
// Every element takes its updates one after the other, from the last column on, each a product and then a difference:
// blocks, vectors and threads change no bit.
#pragma once

#include "tasks.h"
#include "vectors.h"

namespace VARIANT {

constexpr int TILE = 16;    // columns that are updated together
constexpr int DEPTH = 128;  // columns whose updates are taken together: a tile of them stays in the nearest cache
constexpr int PANEL = 128;  // columns of a panel, at most
#if defined(__AVX512F__)
constexpr int TILE_VECTORS = 2;  // of eight doubles: as many as registers can hold for four rows
#else
constexpr int TILE_VECTORS = 1;
#endif

INLINE Doubles splat(double x) { return x - Doubles{}; }

// Columns `low` to `high` of the panel's rows as tiles, [tile][column][16]: sixteen rows side by side.
static void pack_panel(const FactorTask& task, int64_t low, int64_t high) {
    for (int64_t row = task.start; row < task.stop; row++) {
        const int64_t lane = row - task.start;
        const double* from = task.matrix + row * task.size;
        double* to = task.panel + lane / TILE * task.size * TILE + lane % TILE;
        for (int64_t k = low; k < high; k++) to[k * TILE] = from[k];
    }
}

// Four rows of 8 * VECTORS columns take the updates of columns `high` down to `low`.
template <int VECTORS>
INLINE void update_tile(double* to, const double* rows, const double* packed, int64_t low, int64_t high, int64_t size) {
    Doubles sums[4][VECTORS];
    for (int r = 0; r < 4; r++)
        for (int v = 0; v < VECTORS; v++) sums[r][v] = load<Doubles>(to + r * size + 8 * v);
    for (int64_t k = high - 1; k >= low; k--) {
#pragma clang loop unroll(full)
        for (int v = 0; v < VECTORS; v++) {
            const Doubles column = load<Doubles>(packed + k * TILE + 8 * v);
#pragma clang loop unroll(full)
            for (int r = 0; r < 4; r++) sums[r][v] -= splat(rows[r * size + k]) * column;
        }
    }
    for (int r = 0; r < 4; r++)
        for (int v = 0; v < VECTORS; v++) store(to + r * size + 8 * v, sums[r][v]);
}

// The panel's columns of some rows take the updates of all columns right of the panel.
static void update_rows(const FactorTask& task, int64_t first, int64_t last) {
    const int64_t size = task.size;
    for (int64_t high = size; high > task.stop; high -= DEPTH) {
        const int64_t low = high - DEPTH > task.stop ? high - DEPTH : task.stop;
        for (int64_t column = task.start; column < task.stop; column += 8 * TILE_VECTORS) {
            const int64_t lane = column - task.start;
            const double* packed = task.panel + lane / TILE * size * TILE + lane % TILE;
            for (int64_t row = first; row < last; row += 4) {
                double* rows = task.matrix + row * size;
                update_tile<TILE_VECTORS>(rows + column, rows, packed, low, high, size);
            }
        }
    }
}

// Factors the panel's own square; row c of `corner` is its column c. Gives the column
// without a positive square, which is then on the matrix's diagonal, or -1.
static int64_t factor_corner(const FactorTask& task) {
    const int64_t width = task.stop - task.start;
    double* corner = task.corner;
    double* own = task.matrix + task.start * task.size + task.start;
    for (int64_t i = 0; i < width; i++)
        for (int64_t c = i; c < width; c++) corner[c * width + i] = own[i * task.size + c];
    for (int64_t c = width - 1; c >= 0; c--) {
        double* column = corner + c * width;
        own[c * task.size + c] = column[c];
        if (!(column[c] > 0 && column[c] < __builtin_inf())) return task.start + c;
        column[c] = __builtin_sqrt(column[c]);
        for (int64_t i = 0; i < c; i++) column[i] /= column[c];
        for (int64_t j = 0; j < c; j++)
            for (int64_t i = 0; i <= j; i++) corner[j * width + i] -= column[i] * column[j];
    }
    for (int64_t i = 0; i < width; i++)
        for (int64_t c = i; c < width; c++) own[i * task.size + c] = corner[c * width + i];
    return -1;
}

// Four rows above the panel: each of its columns over the diagonal, then taken from the columns left of it.
INLINE void solve_rows(const FactorTask& task, double* rows) {
    const int64_t width = task.stop - task.start;
    double rest[4][PANEL];  // what the loop leaves right of a column that is done has no meaning
    for (int r = 0; r < 4; r++) memcpy(rest[r], rows + r * task.size, (size_t)width * sizeof(double));
    for (int64_t c = width - 1; c >= 0; c--) {
        const double* column = task.corner + c * width;
        for (int r = 0; r < 4; r++) {
            const double found = rest[r][c] / column[c];
            rows[r * task.size + c] = found;
            for (int64_t i = 0; i < c; i += 8)
                store(rest[r] + i, load<Doubles>(rest[r] + i) - splat(found) * load<Doubles>(column + i));
        }
    }
}

// The panel's own rows first, by one call with no rows; then those above, any rows on any thread.
static int factor(FactorTask* task) {
    if (task->first < task->last) {
        update_rows(*task, task->first, task->last);
        for (int64_t row = task->first; row < task->last; row += 4)
            solve_rows(*task, task->matrix + row * task->size + task->start);
        return 0;
    }
    pack_panel(*task, task->stop, task->size);
    update_rows(*task, task->start, task->stop);
    task->failed = factor_corner(*task);
    return 0;
}

}  // namespace VARIANT
