// Where the numbers of a matrix stand in memory. A product reads what is on its left in tiles and
// what is on its right in panels: both one number after the other, as memory is fast.

#pragma once

#include <algorithm>

#include "vectors.h"

constexpr long ROWS = 6, VECTORS = REGISTERS == 32 ? 4 : 2;  // 24 or 12 registers are sums
constexpr long TILE = LANES * ROWS;      // of so many rows a vector of each
constexpr long PANEL = LANES * VECTORS;  // columns of a product that are computed together

// Whole vectors of rows: row after row, or in tiles, where of so many ROWS the first vectors stand
// together, then the second ones, and so on.
struct Matrix {
    float* data;
    long row;  // floats that it takes
    bool in_tiles = false;

    float* at(long r, long column) const { return data + place(r, column); }
    long place(long r, long column) const {
        if (!in_tiles) return r * row + column;
        return r / ROWS * ROWS * row + column * ROWS + r % ROWS * LANES;
    }
    long rows_apart() const { return in_tiles ? LANES : row; }
    long vectors_apart() const { return in_tiles ? TILE : LANES; }
};

// Rows of a matrix in tiles; its last tile may have fewer.
inline long whole_tiles(long rows) { return (rows + ROWS - 1) / ROWS * ROWS; }

// Panels of columns, one after the other, row after row in each; the last may be narrower.
struct Panels {
    float* data;
    long rows, columns, wide = PANEL;

    // The panel whose first column this is; columns are counted from the first of all.
    Matrix from(long column) const {
        return {data + column * rows - column, std::min(wide, whole(columns) - column)};
    }
};
