// Products of matrices in float32.

#pragma once

#include <algorithm>

#include "ahead.h"
#include "gelu.h"
#include "matrix.h"
#include "vectors.h"

constexpr float NOTHING[PANEL] = {};  // the bias of one panel without a bias

// What becomes of a product: it, or `sign` times it, is written, or added to what is there.
struct Into {
    Matrix result;
    const float* bias = NOTHING;  // is added, too
    bool added = false;
    float sign = 1;
};

// left [rows, depth] · right [depth, columns].
struct Product {
    long rows, columns, depth;
    const float* left;   // in tiles
    const float* right;  // in panels
    Into into, also = {{nullptr, 0}};
    bool bias_of_rows = false;   // a number for each row of the result, else for each column
    const Gelu* gelu = nullptr;  // of the result
    long panel = PANEL;          // columns of one
    long first = 0;              // column, which is the first one of the result
    bool written = true;         // whether the next panel on the right is there already

    // A part of the result that fits into registers, [HIGH, WIDE vectors].
    template <int HIGH, int WIDE>
    inline void tile(long row, long column, Share next) const {
        Vector sums[HIGH][WIDE] = {};
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
        put(sums, into, row, column - first);
        if (also.result.data) put(sums, also, row, column - first);
        if (gelu)
            gelu->over<HIGH, WIDE>(into.result.at(row, column - first), into.result.rows_apart(),
                                   into.result.vectors_apart());
    }

    // A tile's sums, where they are to go.
    template <int HIGH, int WIDE>
    inline void put(const Vector (&sums)[HIGH][WIDE], const Into& into, long row,
                    long column) const {
        float* const at = into.result.at(row, column);
        const long apart = into.result.rows_apart(), on = into.result.vectors_apart();
        const float* bias = into.bias + (bias_of_rows ? row : column);
        const auto on_top_of = [&](const auto& before) __attribute__((always_inline)) {
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++)
                    store(at + i * apart + j * on, before(i, j) + sums[i][j] * into.sign);
        };
        const auto there = [&](int i, int j) { return load(at + i * apart + j * on); };
        const auto of_row = [&](int i, int j) { return all(bias[i]); };
        const auto of_column = [&](int i, int j) { return load(bias + j * LANES); };
        if (bias_of_rows && into.added)
            on_top_of([&](int i, int j) { return there(i, j) + of_row(i, j); });
        else if (bias_of_rows)
            on_top_of(of_row);
        else if (into.added)
            on_top_of([&](int i, int j) { return there(i, j) + of_column(i, j); });
        else
            on_top_of(of_column);
    }

    // All rows of one panel's columns.
    template <int WIDE>
    void columns_from(long column) const {
        const long bytes = depth * WIDE * sizeof(Vector);  // of a panel
        const long of = written ? depth * columns * long(sizeof(float)) : 0;
        const Next next(right + (column + WIDE * LANES) * depth, bytes, of,
                        whole_tiles(rows) / ROWS, depth / LANES);
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
