// A Mixer's forward pass in float32, compiled by native_compiler.py for the processor that it runs
// on. It is for small models, whose products are too small for a library: nothing is allocated,
// handed from one operation to the next, or waited for.
//
// Letters: B images, I image channels, H W image height and width, h w those of a patch, S patches
// (tokens) of a tile, C channels, T token-mixing width, D channel-mixing width, K classes.
//
// A row of numbers in memory is filled up to whole vectors; what stands in the places beyond its
// end is never part of a sum.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

#if defined(__AVX512F__)
constexpr long LANES = 16, ROWS = 6, VECTORS = 4;  // 24 of 32 registers are sums
#elif defined(__AVX__)
constexpr long LANES = 8, ROWS = 6, VECTORS = 2;  // 12 of 16
#elif defined(__aarch64__)
constexpr long LANES = 4, ROWS = 6, VECTORS = 4;  // 24 of 32
#else
constexpr long LANES = 4, ROWS = 6, VECTORS = 2;
#endif
static_assert(sizeof(long) == sizeof(int64_t));
constexpr long PANEL = LANES * VECTORS;  // columns of a product that are computed together

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float InMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const InMemory*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<InMemory*>(to) = x; }
inline Vector all(float x) { return x - Vector{}; }  // no sum: 0 + -0 is 0
inline long whole(long columns) { return (columns + LANES - 1) / LANES * LANES; }

// -- GELU -------------------------------------------------------------------------------------

constexpr int DEGREE = 16;

// x/2 · (1 + x·P(x²)) inside ±limit, where P is given by native.py for either flavour of GELU as a
// polynomial in 2x²/limit² - 1, its highest power first; 0 and x beyond.
struct Gelu {
    float limit;
    float powers[DEGREE + 1];

    // Of `WIDE` vectors in memory, side by side: none waits for the other.
    template <int WIDE>
    inline void over(float* at) const {
        Vector x[WIDE], u[WIDE], p[WIDE];
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++) {
            x[j] = load(at + j * LANES);
            u[j] = x[j] * x[j] * all(2 / (limit * limit)) - 1.0f;
            p[j] = all(powers[0]);
        }
#pragma GCC unroll 32
        for (int i = 1; i <= DEGREE; i++)
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) p[j] = p[j] * u[j] + powers[i];
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++) {
            const Vector half = x[j] * 0.5f, inside = half + half * (x[j] * p[j]);
            const Vector not_high = x[j] > limit ? x[j] : inside;
            store(at + j * LANES, x[j] < -limit ? Vector{} : not_high);
        }
    }
};

// -- products ---------------------------------------------------------------------------------

// Rows of numbers, so many floats apart.
struct Rows {
    const float* data;
    long apart;
};
constexpr long IN_PANELS = 0;  // apart: panels of columns one after the other, as native.py packs

// result [rows, columns] = left [rows, depth] · right [depth, columns] + bias.
struct Product {
    long rows, columns, depth;
    Rows left, right;
    const float* bias;
    bool bias_of_rows = false;  // a number for each row of the result, else for each column
    float* result;
    long apart;
    bool added = false;          // to what the result holds
    const Gelu* gelu = nullptr;  // of the result
};

// A part of the result that fits into registers, [HIGH, WIDE vectors].
template <int HIGH, int WIDE>
inline void tile(const Product& p) {
    float* const result = p.result;
    const long apart = p.apart;
    Vector sums[HIGH][WIDE];
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++)
            sums[i][j] = p.bias_of_rows ? all(p.bias[i]) : load(p.bias + j * LANES);
    if (p.added)
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) sums[i][j] += load(result + i * apart + j * LANES);
    const float* right = p.right.data;
    for (long k = 0; k < p.depth; k++, right += p.right.apart) {
        Vector columns[WIDE];
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++) columns[j] = load(right + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++) {
            const Vector x = all(p.left.data[i * p.left.apart + k]);
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) sums[i][j] += x * columns[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++) store(result + i * apart + j * LANES, sums[i][j]);
}

// Columns of the result that are as many vectors wide.
template <int WIDE>
void panel(Product p) {
    const auto next = [&p](long high) {
        if (p.gelu)
            for (long i = 0; i < high; i++) p.gelu->over<WIDE>(p.result + i * p.apart);
        p.left.data += high * p.left.apart;
        p.result += high * p.apart;
        p.bias += p.bias_of_rows ? high : 0;
        p.rows -= high;
    };
    while (p.rows >= ROWS) tile<ROWS, WIDE>(p), next(ROWS);
    while (p.rows >= 4) tile<4, WIDE>(p), next(4);
    while (p.rows >= 2) tile<2, WIDE>(p), next(2);
    while (p.rows >= 1) tile<1, WIDE>(p), next(1);
}

void compute(const Product& task) {
    for (long n = 0; n < task.columns; n += PANEL) {
        Product p = task;
        p.columns = std::min(whole(p.columns - n), PANEL);
        if (p.right.apart == IN_PANELS)
            p.right = {p.right.data + n * p.depth, p.columns};
        else
            p.right.data += n;
        p.bias += p.bias_of_rows ? 0 : n;
        p.result += n;
        switch (p.columns / LANES) {
            case 1: panel<1>(p); break;
            case 2: panel<2>(p); break;
            case 3: panel<std::min(3L, VECTORS)>(p); break;
            default: panel<VECTORS>(p);
        }
    }
}

// -- the rest ---------------------------------------------------------------------------------

inline float sum(Vector x) {
    for (long half = LANES / 2; half; half /= 2)
        for (long i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

// A vector whose lanes from `count` on are 0.
inline Vector cut_off(Vector x, long count) {
    if (count < LANES)
        for (long i = count; i < LANES; i++) x[i] = 0;
    return x;
}

// LayerNorm of each row; without weights the row itself.
void layer_norm(long rows, long columns, float epsilon, const float* weight, const float* bias,
                const float* x, float* y) {
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

void mean_of_rows(long rows, long columns, const float* x, float* mean) {
    const long row = whole(columns);
    for (long c = 0; c < columns; c += LANES) {
        Vector total = {};
        for (long i = 0; i < rows; i++) total += load(x + i * row + c);
        store(mean + c, total / all(rows));
    }
}

// -- the model --------------------------------------------------------------------------------

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
    float epsilon;
    Gelu gelu;
};

// Weights in the order in which the forward pass comes to them. Each begins at a whole vector, and
// a row of a matrix on the right of a product is filled up with zeros.
struct Weights {
    const float* next;

    const float* take(long count) {
        const float* taken = next;
        next += whole(count);
        return taken;
    }
    Rows panels(long depth, long columns) { return {take(depth * whole(columns)), IN_PANELS}; }
};

// The pixels of each patch, [tiles · S, I·h·w], as the kernel of the patch embedding has them.
void cut(const Shape& shape, const float* image, float* patches) {
    const long high = shape.patch_height, wide = shape.patch_width;
    for (long tile_y = 0; tile_y < shape.tiles_down; tile_y++)
    for (long tile_x = 0; tile_x < shape.tiles_across; tile_x++)
    for (long row = 0; row < shape.rows; row++)
    for (long column = 0; column < shape.columns; column++) {
        const long top = (tile_y * shape.rows + row) * high - shape.above;
        const long start = (tile_x * shape.columns + column) * wide - shape.left;
        const long from = std::max(start, 0L), to = std::min(start + wide, long(shape.width));
        for (long i = 0; i < shape.channels; i++)
        for (long y = top; y < top + high; y++, patches += wide) {
            if (to - from < wide || y < 0 || y >= shape.height)
                std::fill(patches, patches + wide, 0.0f);
            if (0 <= y && y < shape.height) {
                const float* line = image + (i * shape.height + y) * shape.width;
                std::copy(line + from, line + to, patches + from - start);
            }
        }
    }
}

struct Mixer {
    const Shape& shape;
    const Gelu* gelu = &shape.gelu;
    const long tiles = shape.tiles_down * shape.tiles_across, tokens = shape.rows * shape.columns;
    const long C = shape.model_width, T = shape.token_width, D = shape.channel_width;
    const long row = whole(C), pixels = shape.channels * shape.patch_height * shape.patch_width;

    // Floats of working memory: x, y, and one after the other patches, hidden units and features.
    long scratch(long images) const {
        const long rows = images * tiles * tokens;
        return 2 * rows * row + std::max({rows * pixels, T * row, rows * whole(D), images * row});
    }

    // x [parts · S, C] += the mixing of y's tokens in each part.
    void mix_tokens(Weights& weights, long parts, const float* y, float* x, float* h) const {
        const long units = T ? T : tokens;
        Product first = {.rows = units, .columns = C, .depth = tokens,
                         .left = {weights.take(units * tokens), tokens}, .right = {y, row},
                         .bias = weights.take(units), .bias_of_rows = true,
                         .result = T ? h : x, .apart = row, .added = !T,
                         .gelu = T ? gelu : nullptr};
        Product second = {.rows = tokens, .columns = C, .depth = T,
                          .left = {weights.take(T * tokens), T}, .right = {h, row},
                          .bias = T ? weights.take(tokens) : nullptr, .bias_of_rows = true,
                          .result = x, .apart = row, .added = true};
        for (; parts > 0; parts--) {
            compute(first);
            if (T) compute(second);
            first.right.data += tokens * row;
            (T ? second : first).result += tokens * row;
        }
    }

    // x [rows, C] += the mixing of each row of y.
    void mix_channels(Weights& weights, long rows, const float* y, float* x, float* h) const {
        if (D)
            compute({.rows = rows, .columns = D, .depth = C, .left = {y, row},
                     .right = weights.panels(C, D), .bias = weights.take(D),
                     .result = h, .apart = whole(D), .gelu = gelu});
        const long depth = D ? D : C;
        compute({.rows = rows, .columns = C, .depth = depth, .left = {D ? h : y, whole(depth)},
                 .right = weights.panels(depth, C), .bias = weights.take(C),
                 .result = x, .apart = row, .added = true});
    }

    void norm(Weights& weights, long rows, const float* x, float* y) const {
        const float* weight = shape.has_norms ? weights.take(C) : nullptr;
        const float* bias = shape.has_norms ? weights.take(C) : nullptr;
        layer_norm(rows, C, shape.epsilon, weight, bias, x, y);
    }

    // So many images → logits [B, K], or features [B, C] where there is no head; their rows are
    // filled up.
    void forward(Weights weights, const float* images, long count, float* out, float* work) const {
        const long parts = count * tiles, rows = parts * tokens;
        float *x = work, *y = x + rows * row, *h = y + rows * row;
        for (long i = 0; i < count; i++)
            cut(shape, images + i * shape.channels * shape.height * shape.width,
                h + i * tiles * tokens * pixels);
        compute({.rows = rows, .columns = C, .depth = pixels, .left = {h, pixels},
                 .right = weights.panels(pixels, C), .bias = weights.take(C),
                 .result = x, .apart = row});
        for (long block = 0; block < shape.depth; block++) {
            norm(weights, rows, x, y);
            mix_tokens(weights, parts, y, x, h);
            norm(weights, rows, x, y);
            mix_channels(weights, rows, y, x, h);
        }
        norm(weights, rows, x, y);
        float* features = shape.classes ? h : out;
        for (long i = 0; i < count; i++)
            mean_of_rows(tiles * tokens, C, y + i * tiles * tokens * row, features + i * row);
        if (shape.classes)
            compute({.rows = count, .columns = shape.classes, .depth = C, .left = {features, row},
                     .right = weights.panels(C, shape.classes),
                     .bias = weights.take(shape.classes),
                     .result = out, .apart = whole(shape.classes)});
    }
};

}  // namespace

extern "C" {

int64_t shape_bytes() { return sizeof(Shape); }
int64_t lanes() { return LANES; }
int64_t panel_columns() { return PANEL; }

// Floats of working memory for so many images at once.
int64_t scratch_floats(const Shape* shape, int64_t at_once) {
    return Mixer{*shape}.scratch(at_once);
}

// Images [B, I, H, W] → [B, K or C], rows filled up to whole vectors, computed so many `at_once`
// with `scratch_floats` of working memory.
void forward(const Shape* shape, const float* weights, const float* images, int64_t count,
             int64_t at_once, float* out, float* work) {
    const Mixer mixer{*shape};
    const long image = shape->channels * shape->height * shape->width;
    const long result = whole(shape->classes ? shape->classes : shape->model_width);
    for (int64_t i = 0; i < count; i += at_once)
        mixer.forward({weights}, images + i * image, std::min(at_once, count - i),
                      out + i * result, work);
}

}  // extern "C"
