// Products of large matrices by their quarters: seven products of sums of quarters give what eight of
// quarters do (Strassen, "Gaussian elimination is not optimal", 1969).
//
// The rows of a quarter are every other one, so that its two halves are of the same image; its columns
// are one half.

#pragma once

#include <algorithm>

#include "gelu.h"
#include "matrix.h"
#include "product.h"
#include "vectors.h"

// With A on the left and B on the right, and quarters 11 12 / 21 22, the products are
//     1. (A11 + A22) (B11 + B22)    5. (A11 + A12) B22
//     2. (A21 + A22) B11            6. (A21 - A11) (B11 + B12)
//     3. A11 (B12 - B22)            7. (A12 - A22) (B21 + B22)
//     4. A22 (B21 - B11)
// `Sevens::put` makes the sums of A, native_constants.py those of B, both in this order.
constexpr int SEVEN = 7;

// By which sign each product counts in the result's quarters: 11, 12, 21, 22.
constexpr int SIGNS[SEVEN][4] = {{1, 0, 0, 1}, {0, 0, 1, -1}, {0, 1, 0, 1}, {1, 0, 1, 0},
                                 {-1, 1, 0, 0}, {0, 0, 0, 1}, {1, 0, 0, 0}};

// What is on the left of the seven products: each in tiles [rows, columns], one after the other.
struct Sevens {
    float* data;
    long rows, columns;

    long apart() const { return whole_tiles(rows) * columns; }
    static long floats(long rows, long columns) { return SEVEN * whole_tiles(rows) * columns; }

    // A vector of each, so many floats from their beginnings, of those of the quarters.
    void put(long at, Vector upper_left, Vector upper_right, Vector lower_left,
             Vector lower_right) const {
        const Vector sums[SEVEN] = {upper_left + lower_right, lower_left + lower_right, upper_left,
                                    lower_right, upper_left + upper_right, lower_left - upper_left,
                                    upper_right - lower_right};
        for (int i = 0; i < SEVEN; i++) store(data + at + i * apart(), sums[i]);
    }
};

// So many columns of each of the result's quarters.
struct Quarters {
    Matrix quarter[4];
    const float *left_bias, *right_bias;
    bool added;
};

// left · right, of which these are the seven panels, from this column of either half on; `columns`:
// of a half.
inline void compute(const Sevens& left, const float* right, long columns, Span span,
                    const Quarters& result) {
    bool begun[4] = {};
    for (int i = 0; i < SEVEN; i++) {
        const long first = SEVEN * span.begin + i * span.size();
        Product product = {.rows = left.rows, .columns = SEVEN * columns, .depth = left.columns,
                           .left = left.data + i * left.apart(), .right = right, .first = first};
        Into* into = &product.into;
        for (int q = 0; q < 4; q++) {
            if (!SIGNS[i][q]) continue;
            *into = {.result = result.quarter[q], .added = begun[q] || result.added,
                     .sign = float(SIGNS[i][q])};
            if (!begun[q]) into->bias = q % 2 ? result.right_bias : result.left_bias;
            begun[q] = true;
            into = &product.also;
        }
        product.compute({first, first + span.size()});
    }
}

// GELU of a result's quarters in tiles, of these columns of either half, as the next product has it on
// its left.
inline void activate(const Gelu& gelu, const Quarters& result, Span span, const Sevens& next) {
    for (long row = 0; row < next.rows; row += ROWS) {
        float* at[4];
        for (int q = 0; q < 4; q++) at[q] = result.quarter[q].data + row * span.size();
        const long place = row * next.columns + span.begin * ROWS;
        for (long i = 0; i < span.size() * ROWS; i += TILE) {
            for (int q = 0; q < 4; q++) gelu.over<ROWS, 1>(at[q] + i, LANES, 0);
            for (long k = i; k < i + TILE; k += LANES)
                next.put(place + k, load(at[0] + k), load(at[1] + k), load(at[2] + k),
                         load(at[3] + k));
        }
    }
}
