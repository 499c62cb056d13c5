// Products of matrices in float32.

#pragma once

#include <algorithm>

#include "ahead.h"
#include "gelu.h"
#include "matrix.h"
#include "vectors.h"

// result [rows, columns] = left [rows, depth] · right [depth, columns] + bias.
struct Product {
    long rows, columns, depth;
    const float* left;   // in tiles
    const float* right;  // in panels
    const float* bias;
    bool bias_of_rows = false;  // a number for each row of the result, else for each column
    Matrix result;
    bool added = false;          // to what the result holds
    const Gelu* gelu = nullptr;  // of the result
    long panel = PANEL;          // columns of one

    // A part of the result that fits into registers, [HIGH, WIDE vectors].
    template <int HIGH, int WIDE>
    inline void tile(long row, long column, Share next) const {
        float* const at = result.at(row, column);
        const long apart = result.rows_apart(), on = result.vectors_apart();
        Vector sums[HIGH][WIDE];
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++)
                sums[i][j] = bias_of_rows ? all(bias[row + i]) : load(bias + column + j * LANES);
        if (added)
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) sums[i][j] += load(at + i * apart + j * on);
        const float* x = left + row * whole(depth);
        const float* y = right + column * depth;
        const auto multiply = [&](long count) __attribute__((always_inline)) {
#pragma GCC unroll 2
            for (long k = 0; k < count; k++, y += WIDE * LANES) {
                Vector columns[WIDE];
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) columns[j] = load(y + j * LANES);
                ask_for(y + AHEAD * WIDE * LANES, sizeof(columns));
#pragma GCC unroll 8
                for (int i = 0; i < HIGH; i++) {
                    const Vector same = all(x[i * LANES + k]);
#pragma GCC unroll 8
                    for (int j = 0; j < WIDE; j++) sums[i][j] += same * columns[j];
                }
            }
            x += TILE;
        };
        for (long k = 0; k + LANES <= depth; k += LANES) {
            next.ask();
            multiply(LANES);
        }
        multiply(depth % LANES);
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) store(at + i * apart + j * on, sums[i][j]);
        if (gelu) gelu->over<HIGH, WIDE>(at, apart, on);
    }

    template <int WIDE>
    void columns_from(long column) const {
        const long bytes = depth * WIDE * sizeof(Vector);  // of a panel
        const Next next(right + (column + WIDE * LANES) * depth, bytes,
                        depth * columns * long(sizeof(float)), whole_tiles(rows) / ROWS,
                        depth / LANES);
        long row = 0;
        for (; row + ROWS <= rows; row += ROWS)
            tile<ROWS, WIDE>(row, column, next.of_tile(row / ROWS));
        const Share last = next.of_tile(row / ROWS);
        switch (rows - row) {
            case 5: return tile<5, WIDE>(row, column, last);
            case 4: return tile<4, WIDE>(row, column, last);
            case 3: return tile<3, WIDE>(row, column, last);
            case 2: return tile<2, WIDE>(row, column, last);
            case 1: return tile<1, WIDE>(row, column, last);
        }
    }

    // These columns, from where a panel begins.
    void compute(Span span) const {
        for (long n = span.begin; n < span.end; n += panel) {
            switch (std::min(whole(span.end - n), panel) / LANES) {
                case 1: columns_from<1>(n); break;
                case 2: columns_from<2>(n); break;
                case 3: columns_from<std::min(3L, VECTORS)>(n); break;
                default: columns_from<VECTORS>(n);
            }
        }
    }
    void compute() const { compute({0, columns}); }
};
