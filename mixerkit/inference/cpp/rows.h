// What is done to whole rows of numbers.

#pragma once

#include <algorithm>
#include <cmath>

#include "shape.h"
#include "vectors.h"

// LayerNorm of each row; without weights the row itself.
inline void layer_norm(long rows, long columns, float epsilon, const float* weight,
                       const float* bias, const float* x, float* y) {
    const long row = whole(columns);
    for (; rows > 0; rows--, x += row, y += row) {
        if (!weight) {
            for (long c = 0; c < columns; c += LANES) store(y + c, load(x + c));
            continue;
        }
        Vector total = {}, squares = {};
        for (long c = 0; c < columns; c += LANES) total += cut_off(load(x + c), columns - c);
        const Vector mean = all(sum(total) / columns);
        for (long c = 0; c < columns; c += LANES) {
            const Vector from_mean = cut_off(load(x + c) - mean, columns - c);
            squares += from_mean * from_mean;
        }
        const Vector scale = all(1 / std::sqrt(sum(squares) / columns + epsilon));
        for (long c = 0; c < columns; c += LANES)
            store(y + c, (load(x + c) - mean) * scale * load(weight + c) + load(bias + c));
    }
}

inline void mean_of_rows(long rows, long columns, const float* x, float* mean) {
    const long row = whole(columns);
    for (long c = 0; c < columns; c += LANES) {
        Vector total = {};
        for (long i = 0; i < rows; i++) total += load(x + i * row + c);
        store(mean + c, total / all(rows));
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
