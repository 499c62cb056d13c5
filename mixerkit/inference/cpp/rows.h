// What is done to whole rows of numbers.

#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"
#include "vectors.h"

// LayerNorm; without weights the row itself.
struct LayerNorm {
    const float *weight, *bias;
    long columns;
    float epsilon;
};

// A row that is to be normalised: its statistics are known.
struct Normed {
    const LayerNorm& norm;
    const float* x;
    Vector mean = {}, scale = {};

    Normed(const LayerNorm& norm, const float* x) : norm(norm), x(x) {
        if (!norm.weight) return;
        Vector total = {}, squares = {};
        for (long c = 0; c < norm.columns; c += LANES)
            total += cut_off(load(x + c), norm.columns - c);
        mean = all(sum(total) / norm.columns);
        for (long c = 0; c < norm.columns; c += LANES) {
            const Vector from_mean = cut_off(load(x + c) - mean, norm.columns - c);
            squares += from_mean * from_mean;
        }
        scale = all(1 / std::sqrt(sum(squares) / norm.columns + norm.epsilon));
    }

    // The vector from this column on.
    Vector at(long c) const {
        if (!norm.weight) return load(x + c);
        return (load(x + c) - mean) * scale * load(norm.weight + c) + load(norm.bias + c);
    }

    // These columns, written in vectors so many floats apart.
    void put(Span columns, float* to, long apart = LANES) const {
        for (long c = columns.begin; c < columns.end; c += LANES, to += apart) store(to, at(c));
    }
};

inline void mean_of_rows(long rows, long columns, const float* x, float* mean, long apart) {
    const long row = whole(columns);
    for (long c = 0; c < columns; c += LANES, mean += apart) {
        Vector total = {};
        for (long i = 0; i < rows; i++) total += load(x + i * row + c);
        store(mean, total / all(rows));
    }
}

// The pixels of some patches of an image, [I·h·w] of each, as the kernel of the patch embedding has
// them.
template <typename Number>
void cut(const Shape& shape, const Number* image, Span tokens, Number* patches, long apart) {
    const long high = shape.patch_height, wide = shape.patch_width;
    for (long t = tokens.begin; t < tokens.end; t++, patches += apart) {
        const long tile = t / (shape.rows * shape.columns), column = t % shape.columns;
        const long tile_y = tile / shape.tiles_across, tile_x = tile % shape.tiles_across;
        const long row = t / shape.columns % shape.rows;
        const long top = (tile_y * shape.rows + row) * high - shape.above;
        const long start = (tile_x * shape.columns + column) * wide - shape.left;
        const long from = std::max(start, 0L), to = std::min(start + wide, long(shape.width));
        Number* line = patches;
        for (long i = 0; i < shape.channels; i++)
        for (long y = top; y < top + high; y++, line += wide) {
            if (to - from < wide || y < 0 || y >= shape.height)
                std::fill(line, line + wide, Number(0));
            if (0 <= y && y < shape.height) {
                const Number* pixels = image + (i * shape.height + y) * shape.width;
                std::copy(pixels + from, pixels + to, line + from - start);
            }
        }
    }
}
