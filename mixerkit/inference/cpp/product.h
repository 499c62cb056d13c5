// Products of matrices in float32.

#pragma once

#include <algorithm>

#include "gelu.h"
#include "matrix.h"
#include "vectors.h"

constexpr long AHEAD = 8;  // rows of a panel: so early they are asked for

// A part of what is needed soon; asked for in time, it is near by then.
struct Share {
    const float* from;
    long lines;  // at a time

    void ask() {
        for (long i = 0; i < lines; i++, from += LINE / sizeof(float)) __builtin_prefetch(from, 0, 2);
    }
};

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
    inline void tile(long row, long column) const {
        float* const at = result.at(row, column);
        const long apart = result.rows_apart(), next = result.vectors_apart();
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
                for (int j = 0; j < WIDE; j++) sums[i][j] += load(at + i * apart + j * next);
        const float* x = left + row * whole(depth);
        const float* y = right + column * depth;
        const auto multiply = [&](long count) __attribute__((always_inline)) {
#pragma GCC unroll 2
            for (long k = 0; k < count; k++, y += WIDE * LANES) {
                Vector columns[WIDE];
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) columns[j] = load(y + j * LANES);
#pragma GCC unroll 8
                for (int line = 0; line < WIDE * LANES; line += LINE / long(sizeof(float)))
                    __builtin_prefetch(y + AHEAD * WIDE * LANES + line);
#pragma GCC unroll 8
                for (int i = 0; i < HIGH; i++) {
                    const Vector same = all(x[i * LANES + k]);
#pragma GCC unroll 8
                    for (int j = 0; j < WIDE; j++) sums[i][j] += same * columns[j];
                }
            }
            x += TILE;
        };
        const long floats = WIDE * LANES * depth;  // of a panel
        Share of_next = share_of(right + column * depth + floats, floats, row);
        for (long k = 0; k + LANES <= depth; k += LANES) {
            of_next.ask();
            multiply(LANES);
        }
        multiply(depth % LANES);
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) store(at + i * apart + j * next, sums[i][j]);
        if (gelu)
            for (int i = 0; i < HIGH; i++) gelu->over<WIDE>(at + i * apart, next);
    }

    // What the tile at this row asks for of the next panel, so many floats, each time that it has
    // multiplied a vector of its rows: all tiles together ask for all of it.
    Share share_of(const float* next, long floats, long row) const {
        const long lines = floats * long(sizeof(float)) / LINE;
        const long times = std::max(depth / LANES, 1L), tiles = whole_tiles(rows) / ROWS;
        const long each = (lines + tiles * times - 1) / (tiles * times);
        const long before = row / ROWS * times * each;
        return {next + before * LINE / long(sizeof(float)), before < lines ? each : 0};
    }

    template <int WIDE>
    void columns_from(long column) const {
        long row = 0;
        for (; row + ROWS <= rows; row += ROWS) tile<ROWS, WIDE>(row, column);
        switch (rows - row) {
            case 5: return tile<5, WIDE>(row, column);
            case 4: return tile<4, WIDE>(row, column);
            case 3: return tile<3, WIDE>(row, column);
            case 2: return tile<2, WIDE>(row, column);
            case 1: return tile<1, WIDE>(row, column);
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
