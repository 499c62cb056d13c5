// What a model is made of, as Python hands it over.

#pragma once

#include "gelu.h"
#include "matrix.h"
#include "product8.h"
#include "quarters.h"
#include "vectors.h"

// As `Shape` of native.py has it.
struct Shape {
    int64_t channels, height, width;     // of an image
    int64_t patch_height, patch_width;   // in pixels
    int64_t tiles_down, tiles_across;    // of an image
    int64_t rows, columns;               // of patches in a tile
    int64_t above, left;                 // zeros beyond the edge of an image
    int64_t model_width, depth;          // C, and blocks
    int64_t token_width, channel_width;  // T and D; 0: one linear map
    int64_t has_norms, classes;          // whether there are; 0: no head
    int64_t eight_bits;                  // whether any product is computed so
    int64_t by_quarters;                 // whether those of channel mixing are
    float epsilon;
    Gelu gelu;
    CoarseGelu coarse_gelu;
};

// Of what goes into the products of a block; where there is one linear map, into that.
struct BlockRounding {
    Rounding tokens, hidden_tokens, channels, hidden_channels;
};

constexpr long ALIGNED = 64;  // bytes: no vector is longer

inline long aligned(long bytes) { return (bytes + ALIGNED - 1) / ALIGNED * ALIGNED; }

// All constants in the order in which the forward pass comes to them. Each begins at a whole
// vector, and the rows of a matrix are filled up with zeros, in tiles whole rows, too.
struct Constants {
    const char* next;

    template <typename Number = float>
    const Number* take(long count) {
        const char* taken = next;
        next += aligned(count * long(sizeof(Number)));
        return reinterpret_cast<const Number*>(taken);
    }
    const float* panels(long depth, long columns) { return take(depth * whole(columns)); }
    const float* sevens(long depth, long columns) { return take(SEVEN * depth * columns / 4); }
    const float* tiles(long rows, long depth) { return take(whole_tiles(rows) * whole(depth)); }
};
