// A Mixer's forward pass in float32 or in 8 bits, compiled by native_compiler.py for the processor
// that it runs on. Nothing stands between two operations: what one writes, the next reads as it is.
//
// Letters: B images, I image channels, H W image height and width, h w those of a patch, S patches
// (tokens) of a tile, C channels, T token-mixing width, D channel-mixing width, K classes.

#include <algorithm>
#include <cstdint>

#include "matrix.h"
#include "product.h"
#include "product8.h"
#include "quarters.h"
#include "rows.h"
#include "shape.h"
#include "team.h"
#include "vectors.h"

namespace {

// One member's share of the forward pass, and the memory that all of them work in. Where one reads
// what another has written, they meet in between.
struct Mixer {
    const Shape& shape;
    const long images;
    const Member member;
    const long tiles = shape.tiles_down * shape.tiles_across, tokens = shape.rows * shape.columns;
    const long parts = images * tiles, all_tokens = parts * tokens;
    const long C = shape.model_width, T = shape.token_width, D = shape.channel_width;
    const long row = whole(C);  // floats or bytes of a token
    const long plane = shape.height * shape.width;
    const long pixels = shape.channels * shape.patch_height * shape.patch_width;
    const long most_rows = std::max({all_tokens, T, tokens});  // of a product in 8 bits
    const long wide = shape.eight_bits ? PANEL8 : PANEL;       // panels along the tokens
    const Span own = own_rows();
    Constants constants = {nullptr};
    float *x = nullptr, *y = nullptr, *h = nullptr, *quarters = nullptr;
    uint8_t *steps = nullptr, *hidden_steps = nullptr;  // of what goes into products
    int32_t* partial = nullptr;                         // sums, of each member its own

    // Gives each array its place in some memory; the bytes that they take together.
    long place(char* memory) {
        long bytes = 0;
        const auto take = [memory, &bytes](auto*& array, long count) {
            if (memory) array = reinterpret_cast<decltype(+array)>(memory + bytes);
            bytes += aligned(count * long(sizeof(*array)));
        };
        take(x, all_tokens * row);
        const long in_tiles = all_tokens + ROWS * member.of;
        static_assert(ROWS >= LANE, "norm_steps has LANE rows for each member");
        const long pairs = shape.by_quarters ? all_tokens / 2 : 0;
        take(y, std::max({in_tiles * row, member.of * whole(pixels), Sevens::floats(pairs, C / 2)}));
        take(h, std::max({in_tiles * whole(pixels), T * row, in_tiles * whole(D),
                          member.of * whole_tiles(images) * row, Sevens::floats(pairs, D / 2)}));
        take(quarters, 4 * whole_tiles(pairs) * PANEL);
        if (shape.eight_bits) {
            take(steps, std::max(all_tokens * whole(pixels), parts * panels_of(tokens)));
            take(hidden_steps, std::max({panels_of(T), all_tokens * whole(D),
                                         long(shape.channels) * plane}));
            take(partial, member.of * most_rows * PANEL8);
        }
        return bytes;
    }

    // Bytes of so many tokens on the right of a product in 8 bits.
    long panels_of(long count) const { return LANE * lanes_of(count) * row; }

    // This member's rows of x: whole lanes of tokens of a part.
    Span own_rows() const {
        const long lanes = lanes_of(tokens);
        const Span own = member.part(parts * lanes);
        const auto first = [this, lanes](long lane) {
            return lane / lanes * tokens + std::min(lane % lanes * LANE, tokens);
        };
        return {first(own.begin), first(own.end)};
    }

    // Of an array in tiles, those of this member's rows: its own begin where a tile does.
    Matrix own_tiles(float* array, long columns) const {
        const long apart = whole(columns);
        return {array + (own.begin + ROWS * member.index) * apart, apart, true};
    }

    enum class For { TOKEN_MIXING, CHANNEL_MIXING, MEAN };

    // LayerNorm(x) of this member's rows in y, or its steps in `steps`: for what is next in panels,
    // tiles or rows; steps in panels or rows.
    void norm(Rounding rounding, For next) {
        const float* weight = shape.has_norms ? constants.take(C) : nullptr;
        const float* bias = shape.has_norms ? constants.take(C) : nullptr;
        const LayerNorm layer = {weight, bias, C, shape.epsilon};
        if (rounding) return norm_steps(layer, rounding, next);
        if (shape.by_quarters && next == For::CHANNEL_MIXING) return norm_sevens(layer);
        const Matrix tiles = own_tiles(y, C);
        for (long r = own.begin; r < own.end; r++) {
            const Normed normed(layer, x + r * row);
            if (next == For::TOKEN_MIXING) {
                const Panels panels = {y + r / tokens * tokens * row, tokens, C, wide};
                for (long n = 0; n < row; n += wide)
                    normed.put({n, std::min(n + wide, row)}, panels.from(n).at(r % tokens, n));
            } else if (next == For::CHANNEL_MIXING) {
                normed.put({0, row}, tiles.at(r - own.begin, 0), TILE);
            } else {
                normed.put({0, row}, y + r * row);
            }
        }
    }

    // LayerNorm(x) of all rows, as products by quarters take it.
    void norm_sevens(const LayerNorm& layer) const {
        const Sevens sevens = {y, all_tokens / 2, C / 2};
        const Matrix tiles = {nullptr, C / 2, true};
        for (long r = 0; r < all_tokens / 2; r++) {
            const Normed upper(layer, x + 2 * r * row), lower(layer, x + (2 * r + 1) * row);
            for (long c = 0; c < C / 2; c += LANES)
                sevens.put(tiles.place(r, c), upper.at(c), upper.at(c + C / 2), lower.at(c),
                           lower.at(c + C / 2));
        }
    }

    void norm_steps(const LayerNorm& layer, Rounding rounding, For next) const {
        float* some = y + LANE * member.index * row;
        for (long r = own.begin, count; r < own.end; r += count) {
            const long part = r / tokens, token = r % tokens;
            count = std::min(LANE, tokens - token);
            for (long i = 0; i < count; i++)
                Normed(layer, x + (r + i) * row).put({0, row}, some + i * row);
            if (next == For::TOKEN_MIXING)
                to_panels(rounding, count, C, {0, C}, some, row, token / LANE, lanes_of(tokens),
                          steps + part * panels_of(tokens));
            else
                for (long i = 0; i < count; i++)
                    to_row(rounding, C, some + i * row, steps + (r + i) * row);
        }
    }

    // A linear map along the tokens; `rounding`: of what goes into it.
    struct Along {
        Rounding rounding;
        long outputs, inputs;
        const void* weight;
        const float *scale, *bias;
    };

    Along take_along(Rounding rounding, long outputs, long inputs) {
        Along map = {rounding, outputs, inputs};
        if (rounding) {
            map.weight = constants.take<uint8_t>(outputs * LANE * lanes_of(inputs));
            map.scale = constants.take(outputs);
        } else {
            map.weight = constants.tiles(outputs, inputs);
        }
        map.bias = constants.take(outputs);
        return map;
    }

    // These columns of the map, of a panel of `in` or of `steps_in`: written to or added to `out`,
    // or their GELU as `next` wants it, in `out` or rounded in `hidden_steps`.
    void along(const Along& map, Span columns, const float* in, const uint8_t* steps_in, Matrix out,
               bool added, const Rounding* next = nullptr) const {
        const bool rounds = next && *next;
        if (map.rounding) {
            const long lanes = lanes_of(map.inputs);
            Product8 product = {.rows = map.outputs, .columns = C, .depth = lanes,
                                .steps_on_left = false,
                                .left = static_cast<const uint8_t*>(map.weight),
                                .left_apart = LANE * lanes, .right = steps_in,
                                .scale = map.scale, .bias = map.bias,
                                .gelu = next ? &shape.coarse_gelu : nullptr,
                                .result = rounds ? Matrix{nullptr, 0} : out, .added = added,
                                .steps = hidden_steps, .rounding = rounds ? *next : Rounding{},
                                .steps_apart = IN_PANELS, .partial = own_partial()};
            return product.compute(columns);
        }
        Product product = {.rows = map.outputs, .columns = C, .depth = map.inputs,
                           .left = static_cast<const float*>(map.weight), .right = in,
                           .into = {out, map.bias, added}, .bias_of_rows = true,
                           .gelu = next ? &shape.gelu : nullptr, .panel = wide,
                           .written = in != h};
        product.compute(columns);
        if (rounds)
            for (long r = 0; r < map.outputs; r += LANE)
                to_panels(*next, std::min(LANE, map.outputs - r), C, columns, out.at(r, 0), out.row,
                          r / LANE, lanes_of(map.outputs), hidden_steps);
    }

    int32_t* own_partial() const { return partial + member.index * most_rows * PANEL8; }

    // x [parts · S, C] += the mixing of y's tokens in each part; of this member's columns, a panel
    // after the other.
    void mix_tokens(Rounding rounding, Rounding hidden) {
        const Along first = take_along(rounding, T ? T : tokens, tokens);
        const Along second = T ? take_along(hidden, tokens, T) : Along{};
        const Span columns = member.part(row, wide);
        for (long part = 0; part < parts; part++) {
            const float* in = y + part * tokens * row;
            const uint8_t* steps_in = steps + part * panels_of(tokens);
            const Matrix out = {x + part * tokens * row, row};
            for (long n = columns.begin; n < columns.end; n += wide) {
                const Span panel = {n, std::min(n + wide, columns.end)};
                if (T) {
                    const Matrix between = Panels{h, T, C, wide}.from(n);
                    along(first, panel, in, steps_in, between, false, &hidden);
                    along(second, panel, h, hidden_steps, out, true);
                } else {
                    along(first, panel, in, steps_in, out, true);
                }
            }
        }
    }

    // A linear map of each of this member's rows, in tiles or as steps, taken from the constants;
    // otherwise as `along`.
    void each_row(Rounding rounding, long inputs, long outputs, const float* in,
                  const uint8_t* steps_in, Matrix out, bool added,
                  const Rounding* next = nullptr) {
        const long row_in = whole(inputs), row_out = whole(outputs);
        const bool rounds = next && *next;
        if (rounding) {
            const long lanes = lanes_of(inputs);
            const uint8_t* weight = constants.take<uint8_t>(LANE * lanes * row_out);
            const float* scale = constants.take(outputs);
            Product8 product = {.rows = own.size(), .columns = outputs, .depth = lanes,
                                .steps_on_left = true,
                                .left = steps_in + own.begin * row_in, .left_apart = row_in,
                                .right = weight, .scale = scale,
                                .bias = constants.take(outputs),
                                .gelu = next ? &shape.coarse_gelu : nullptr,
                                .result = rounds ? Matrix{nullptr, 0} : out, .added = added,
                                .steps = hidden_steps + own.begin * row_out,
                                .rounding = rounds ? *next : Rounding{}, .steps_apart = row_out,
                                .partial = own_partial()};
            return product.compute({0, outputs});
        }
        const float* weight = constants.panels(inputs, outputs);
        Product product = {.rows = own.size(), .columns = outputs, .depth = inputs,
                           .left = in, .right = weight,
                           .into = {out, constants.take(outputs), added},
                           .gelu = next ? &shape.gelu : nullptr};
        product.compute();
        if (rounds)
            for (long r = own.begin; r < own.end; r++)
                to_row(*next, outputs, out.at(r - own.begin, 0), hidden_steps + r * row_out,
                       out.vectors_apart());
    }

    // x [rows, C] += the mixing of each row of y, of all rows, by quarters of the matrices: there is
    // no other member.
    void mix_channels_by_quarters() {
        const long half_C = C / 2, half_D = D / 2, pairs = all_tokens / 2;
        const Sevens in = {y, pairs, half_C}, between = {h, pairs, half_D};
        const float* weight = constants.sevens(C, D);
        const float* bias = constants.take(D);
        for (long n = 0; n < half_D; n += PANEL) {
            const Span span = {n, std::min(n + PANEL, half_D)};
            Quarters result = {.left_bias = bias + n, .right_bias = bias + half_D + n};
            const long floats = whole_tiles(pairs) * span.size();
            for (int q = 0; q < 4; q++)
                result.quarter[q] = {quarters + q * floats, span.size(), true};
            compute(in, weight, half_D, span, result);
            activate(shape.gelu, result, span, between);
        }
        weight = constants.sevens(D, C);
        bias = constants.take(C);
        for (long n = 0; n < half_C; n += PANEL) {
            Quarters result = {.left_bias = bias + n, .right_bias = bias + half_C + n, .added = true};
            for (int q = 0; q < 4; q++)
                result.quarter[q] = {x + q / 2 * row + q % 2 * half_C + n, 2 * row};
            compute(between, weight, half_C, {n, std::min(n + PANEL, half_C)}, result);
        }
    }

    // x [rows, C] += the mixing of each row of y; of this member's rows.
    void mix_channels(Rounding rounding, Rounding hidden) {
        if (shape.by_quarters) return mix_channels_by_quarters();
        const float* in = own_tiles(y, C).data;
        const Matrix between = own_tiles(h, D), out = {x + own.begin * row, row};
        if (!D) return each_row(rounding, C, C, in, steps, out, true);
        each_row(rounding, C, D, in, steps, between, false, &hidden);
        each_row(hidden, D, C, between.data, hidden_steps, out, true);
    }

    // x [rows, C] = the patch embedding; of this member's rows. Pixels become steps in
    // `hidden_steps`, a channel of the image after the other, before they are cut.
    void embed(const float* image) {
        const Rounding* of_channel = constants.take<Rounding>(shape.channels);
        const Rounding rounding = *constants.take<Rounding>(1);
        const long of_one = tiles * tokens;
        const Matrix patches = own_tiles(h, pixels);
        float* patch = y + member.index * whole(pixels);
        for (long i = 0; i < images; i++, image += shape.channels * plane) {
            const Span some = {std::clamp(own.begin - i * of_one, 0L, of_one),
                               std::clamp(own.end - i * of_one, 0L, of_one)};
            if (!rounding) {
                for (long t = some.begin; t < some.end; t++) {
                    cut(shape, image, {t, t + 1}, patch, 0);
                    for (long c = 0; c < pixels; c += LANES)
                        store(patches.at(i * of_one + t - own.begin, c), load(patch + c));
                }
                continue;
            }
            const long at = (i * of_one + some.begin) * whole(pixels);
            const Span channels = member.part(shape.channels);
            for (long c = channels.begin; c < channels.end; c++)
                to_steps(of_channel[c], plane, image + c * plane, hidden_steps + c * plane);
            member.meet();
            cut(shape, static_cast<const uint8_t*>(hidden_steps), some, steps + at, whole(pixels));
            member.meet();
        }
        each_row(rounding, pixels, C, patches.data, steps, {x + own.begin * row, row}, false);
    }

    // So many images → logits [B, K], or features [B, C] where there is no head; their rows are
    // filled up.
    void forward(Constants all, const float* image, float* out) {
        constants = all;
        embed(image);
        member.meet();
        for (long block = 0; block < shape.depth; block++) {
            const BlockRounding rounding = *constants.take<BlockRounding>(1);
            norm(rounding.tokens, For::TOKEN_MIXING);
            member.meet();
            mix_tokens(rounding.tokens, rounding.hidden_tokens);
            member.meet();
            norm(rounding.channels, For::CHANNEL_MIXING);
            mix_channels(rounding.channels, rounding.hidden_channels);
            member.meet();
        }
        norm({}, For::MEAN);
        member.meet();
        if (!shape.classes && member.index) return;
        const long in_tiles = whole_tiles(images) * row;
        const Matrix features = shape.classes ? Matrix{h + member.index * in_tiles, row, true}
                                              : Matrix{out, row};
        for (long i = 0; i < images; i++)
            mean_of_rows(tiles * tokens, C, y + i * tiles * tokens * row, features.at(i, 0),
                         features.vectors_apart());
        if (shape.classes) {
            const float* weight = constants.panels(C, shape.classes);
            Product head = {.rows = images, .columns = shape.classes, .depth = C,
                            .left = features.data, .right = weight,
                            .into = {{out, whole(shape.classes)}, constants.take(shape.classes)}};
            head.compute(member.part(shape.classes, PANEL));
        }
    }
};

}  // namespace

extern "C" {

int64_t shape_bytes() { return sizeof(Shape); }
int64_t lanes() { return LANES; }
int64_t tile_rows() { return ROWS; }
int64_t panel_columns() { return PANEL; }
int64_t panel_columns_in_8_bits() { return PANEL8; }
int64_t has_dots() { return DOTS; }

// Bytes of working memory for so many images at once, computed by so many members of a team.
int64_t scratch_bytes(const Shape* shape, int64_t at_once, int64_t members) {
    return Mixer{*shape, long(at_once), {0, long(members), nullptr}}.place(nullptr);
}

// Images [B, I, H, W] → [B, K or C], rows filled up to whole vectors, computed so many `at_once`
// by so many threads: all of them compute the same images, in `scratch_bytes` of working memory for
// as many members, or each has images of its own, and memory for one member.
void forward(const Shape* shape, const char* constants, const float* images, int64_t count,
             int64_t at_once, int64_t threads, int64_t images_of_its_own, float* out,
             char* memory) {
    const long image = shape->channels * shape->height * shape->width;
    const long result = whole(shape->classes ? shape->classes : shape->model_width);
    const long apart = scratch_bytes(shape, at_once, 1);
    the_crew->together(images_of_its_own ? std::min(threads, count) : threads, [=](Member member) {
        const Span own = images_of_its_own ? member.part(count) : Span{0, long(count)};
        char* own_memory = memory + (images_of_its_own ? member.index * apart : 0);
        if (images_of_its_own) member = {0, 1, nullptr};
        for (long i = own.begin; i < own.end; i += at_once) {
            Mixer mixer{*shape, std::min(long(at_once), own.end - i), member};
            mixer.place(own_memory);
            mixer.forward({constants}, images + i * image, out + i * result);
            member.meet();
        }
    });
}

}  // extern "C"
