// A Mixer's forward pass in float32 or in 8 bits, compiled by native_compiler.py for the processor
// that it runs on. Nothing is allocated, handed from one operation to the next, or waited for.
//
// Letters: B images, I image channels, H W image height and width, h w those of a patch, S patches
// (tokens) of a tile, C channels, T token-mixing width, D channel-mixing width, K classes.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "gelu.h"
#include "product.h"
#include "product8.h"
#include "team.h"
#include "vectors.h"

namespace {

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
    float epsilon;
    Gelu gelu;
    CoarseGelu coarse_gelu;
};

// Of what goes into the products of a block; where there is one linear map, into that.
struct BlockSteps {
    Steps tokens, hidden_tokens, channels, hidden_channels;
};

// All constants in the order in which the forward pass comes to them. Each begins at a whole
// vector, and a row of a matrix on the right of a product is filled up with zeros.
struct Constants {
    static constexpr long ALIGNED = 64;
    const char* next;

    template <typename Number = float>
    const Number* take(long count) {
        const char* taken = next;
        next += (count * long(sizeof(Number)) + ALIGNED - 1) / ALIGNED * ALIGNED;
        return reinterpret_cast<const Number*>(taken);
    }
    Rows panels(long depth, long columns) { return {take(depth * whole(columns)), IN_PANELS}; }
};

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

// One member's share of the forward pass, and the memory that all of them work in.
struct Mixer {
    const Shape& shape;
    const long images;
    const Member member;
    const long tiles = shape.tiles_down * shape.tiles_across, tokens = shape.rows * shape.columns;
    const long parts = images * tiles, rows = parts * tokens;
    const long C = shape.model_width, T = shape.token_width, D = shape.channel_width;
    const long row = whole(C), pixels = shape.channels * shape.patch_height * shape.patch_width;
    const long fours = (tokens + FOUR - 1) / FOUR;  // of tokens; the last may be fewer
    Constants constants = {nullptr};
    float *x = nullptr, *y = nullptr, *h = nullptr;
    uint8_t *steps = nullptr, *hidden_steps = nullptr;  // of what goes into products
    int32_t* partial = nullptr;                         // sums, for each member its own

    // Gives each array its place from `from` on; the bytes that they take together.
    long place(char* from) {
        char* next = from;
        const auto take = [&next](auto*& array, long count) {
            array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(next);
            next += (count * long(sizeof(*array)) + Constants::ALIGNED - 1) / Constants::ALIGNED *
                    Constants::ALIGNED;
        };
        take(x, rows * row);
        take(y, std::max(rows, FOUR * member.of) * row);
        take(h, std::max({rows * whole(pixels), T * row, rows * whole(D), member.of * images * row}));
        if (shape.eight_bits) {
            take(steps, std::max({rows * whole(pixels), parts * fours * FOUR * row}));
            take(hidden_steps, std::max({(T + FOUR - 1) / FOUR * FOUR * row, rows * whole(D),
                                         shape.channels * shape.height * shape.width}));
            take(partial, member.of * most_rows() * PANEL8);
        }
        return next - from;
    }

    // Of a product in 8 bits.
    long most_rows() const { return std::max({rows, T, tokens}); }
    int32_t* own_partial() const { return partial + member.index * most_rows() * PANEL8; }

    // This member's rows of x: four of a part at a time.
    Span own_rows() const {
        const Span groups = member.part(parts * fours);
        const auto first = [this](long group) {
            return group / fours * tokens + std::min(group % fours * FOUR, tokens);
        };
        return {first(groups.begin), first(groups.end)};
    }

    // y = LayerNorm(x) of its rows, or the steps of that in rows or, for a product along the
    // tokens, in panels.
    void norm(Steps to, bool along_tokens) {
        const float* weight = shape.has_norms ? constants.take(C) : nullptr;
        const float* bias = shape.has_norms ? constants.take(C) : nullptr;
        const Span own = own_rows();
        if (!to)
            return layer_norm(own.size(), C, shape.epsilon, weight, bias, x + own.begin * row,
                              y + own.begin * row);
        float* some = y + FOUR * member.index * row;
        for (long r = own.begin, count; r < own.end; r += count) {
            const long part = r / tokens, token = r % tokens;
            count = std::min(FOUR, tokens - token);
            layer_norm(count, C, shape.epsilon, weight, bias, x + r * row, some);
            if (along_tokens)
                to_panels(to, count, C, {0, C}, some, row, token / FOUR, fours,
                          steps + part * fours * FOUR * row);
            else
                for (long i = 0; i < count; i++)
                    to_row(to, C, some + i * row, steps + (r + i) * row);
        }
    }

    // What stands in h as rows [count, columns], of these columns.
    void hidden_to_panels(Steps to, long count, Span columns) const {
        for (long k = 0; k < count; k += FOUR)
            to_panels(to, std::min(FOUR, count - k), C, columns, h + k * row, row, k / FOUR,
                      (count + FOUR - 1) / FOUR, hidden_steps);
    }

    // A product along the tokens: result [outputs, C] of this member's columns.
    struct Along {
        long outputs, inputs;
        Steps from;
        const float *weight, *scale, *bias;
    };

    Along take_along(Steps from, long outputs, long inputs) {
        Along taken = {outputs, inputs, from};
        const long fours = (inputs + FOUR - 1) / FOUR;
        taken.weight = from ? constants.take(outputs * fours) : constants.take(outputs * inputs);
        taken.scale = from ? constants.take(outputs) : nullptr;
        taken.bias = constants.take(outputs);
        return taken;
    }

    void along(const Along& p, Span columns, const float* from, const uint8_t* from_steps,
               float* result, bool added, bool gelu, Steps to) const {
        if (p.from) {
            const long fours = (p.inputs + FOUR - 1) / FOUR;
            Product8 product = {.rows = p.outputs, .columns = C, .depth = fours,
                                .steps_on_left = false,
                                .left = reinterpret_cast<const uint8_t*>(p.weight),
                                .left_apart = FOUR * fours, .right = from_steps,
                                .scale = p.scale, .bias = p.bias,
                                .gelu = gelu ? &shape.coarse_gelu : nullptr,
                                .result = to ? nullptr : result, .apart = row, .added = added,
                                .steps = hidden_steps, .to = to, .steps_apart = IN_PANELS,
                                .partial = own_partial()};
            return product.compute(columns);
        }
        compute({.rows = p.outputs, .columns = C, .depth = p.inputs,
                 .left = {p.weight, p.inputs}, .right = {from, row},
                 .bias = p.bias, .bias_of_rows = true,
                 .result = result, .apart = row, .added = added,
                 .gelu = gelu ? &shape.gelu : nullptr}, columns);
        if (to) hidden_to_panels(to, p.outputs, columns);
    }

    // x [parts · S, C] += the mixing of y's tokens in each part.
    void mix_tokens(Steps from, Steps hidden) {
        const Along first = take_along(from, T ? T : tokens, tokens);
        const Along second = T ? take_along(hidden, tokens, T) : Along{};
        const Span columns = member.part(row, shape.eight_bits ? PANEL8 : PANEL);
        for (long part = 0; part < parts; part++) {
            const uint8_t* own_steps = steps + part * fours * FOUR * row;
            float* result = x + part * tokens * row;
            const float* own = y + part * tokens * row;
            if (!T) {
                along(first, columns, own, own_steps, result, true, false, {});
                continue;
            }
            along(first, columns, own, own_steps, h, false, true, hidden);
            along(second, columns, h, hidden_steps, result, true, false, {});
        }
    }

    // result [rows, outputs] of this member's rows, of which each becomes another.
    void each_row(Steps from, long inputs, long outputs, const float* floats,
                  const uint8_t* from_steps, float* result, bool added, bool gelu, Steps to) {
        const Span own = own_rows();
        const long row_in = whole(inputs), row_out = whole(outputs);
        if (from) {
            const long fours = (inputs + FOUR - 1) / FOUR;
            const uint8_t* weight = constants.take<uint8_t>(FOUR * fours * row_out);
            const float* scale = constants.take(outputs);
            const float* bias = constants.take(outputs);
            Product8 product = {.rows = own.size(), .columns = outputs, .depth = fours,
                                .steps_on_left = true,
                                .left = from_steps + own.begin * row_in, .left_apart = row_in,
                                .right = weight, .scale = scale, .bias = bias,
                                .gelu = gelu ? &shape.coarse_gelu : nullptr,
                                .result = to ? nullptr : result + own.begin * row_out,
                                .apart = row_out, .added = added,
                                .steps = hidden_steps + own.begin * row_out, .to = to,
                                .steps_apart = row_out, .partial = own_partial()};
            return product.compute({0, outputs});
        }
        const Rows weight = constants.panels(inputs, outputs);
        compute({.rows = own.size(), .columns = outputs, .depth = inputs,
                 .left = {floats + own.begin * row_in, row_in}, .right = weight,
                 .bias = constants.take(outputs), .result = result + own.begin * row_out,
                 .apart = row_out, .added = added, .gelu = gelu ? &shape.gelu : nullptr});
        if (to)
            for (long r = own.begin; r < own.end; r++)
                to_row(to, outputs, result + r * row_out, hidden_steps + r * row_out);
    }

    // x [rows, C] += the mixing of each row of y.
    void mix_channels(Steps from, Steps hidden) {
        if (!D) return each_row(from, C, C, y, steps, x, true, false, {});
        each_row(from, C, D, y, steps, h, false, true, hidden);
        each_row(hidden, D, C, h, hidden_steps, x, true, false, {});
    }

    // x [rows, C] = the patch embedding of this member's rows.
    void embed(const float* image) {
        const Span own = own_rows();
        const Steps* of_channel = constants.take<Steps>(shape.channels);
        const Steps from = *constants.take<Steps>(1);
        const long plane = shape.height * shape.width, of_one = tiles * tokens;
        for (long i = 0; i < images; i++, image += shape.channels * plane) {
            const Span some = {std::clamp(own.begin - i * of_one, 0L, of_one),
                               std::clamp(own.end - i * of_one, 0L, of_one)};
            const long at = (i * of_one + some.begin) * whole(pixels);
            if (!from) {
                cut(shape, image, some, h + at, whole(pixels));
                continue;
            }
            const Span channels = member.part(shape.channels);
            for (long c = channels.begin; c < channels.end; c++)
                to_steps(of_channel[c], plane, image + c * plane, hidden_steps + c * plane);
            member.meet();
            cut(shape, static_cast<const uint8_t*>(hidden_steps), some, steps + at, whole(pixels));
            member.meet();
        }
        each_row(from, pixels, C, h, steps, x, false, false, {});
    }

    // So many images → logits [B, K], or features [B, C] where there is no head; their rows are
    // filled up.
    void forward(Constants from, const float* image, float* out) {
        constants = from;
        embed(image);
        member.meet();
        for (long block = 0; block < shape.depth; block++) {
            const BlockSteps to = *constants.take<BlockSteps>(1);
            norm(to.tokens, true);
            member.meet();
            mix_tokens(to.tokens, to.hidden_tokens);
            member.meet();
            norm(to.channels, false);
            mix_channels(to.channels, to.hidden_channels);
            member.meet();
        }
        norm({}, false);
        member.meet();
        if (!shape.classes && member.index) return;
        float* features = shape.classes ? h + member.index * images * row : out;
        for (long i = 0; i < images; i++)
            mean_of_rows(tiles * tokens, C, y + i * tiles * tokens * row, features + i * row);
        if (shape.classes) {
            const Rows weight = constants.panels(C, shape.classes);
            compute({.rows = images, .columns = shape.classes, .depth = C,
                     .left = {features, row}, .right = weight,
                     .bias = constants.take(shape.classes),
                     .result = out, .apart = whole(shape.classes)},
                    member.part(shape.classes, PANEL));
        }
    }
};

}  // namespace

extern "C" {

int64_t shape_bytes() { return sizeof(Shape); }
int64_t lanes() { return LANES; }
int64_t panel_columns() { return PANEL; }
int64_t panel_columns_in_8_bits() { return PANEL8; }
int64_t has_dots() { return DOTS; }

// Bytes of working memory for so many images at once, computed by so many members of a team.
int64_t scratch_bytes(const Shape* shape, int64_t at_once, int64_t members) {
    return Mixer{*shape, at_once, {0, members, nullptr}}.place(nullptr);
}

// Images [B, I, H, W] → [B, K or C], rows filled up to whole vectors, computed so many `at_once`
// with `scratch_bytes` of working memory.
void forward(const Shape* shape, const char* constants, const float* images, int64_t count,
             int64_t at_once, int64_t members, float* out, char* work) {
    const long image = shape->channels * shape->height * shape->width;
    const long result = whole(shape->classes ? shape->classes : shape->model_width);
    in_team(members, [=](Member member) {
        for (long i = 0; i < count; i += at_once) {
            Mixer mixer{*shape, std::min(long(at_once), long(count - i)), member};
            mixer.place(work);
            mixer.forward({constants}, images + i * image, out + i * result);
            member.meet();
        }
    });
}

}  // extern "C"
