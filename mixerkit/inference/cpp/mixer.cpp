// A Mixer's forward pass in float32 or in 8 bits, compiled by native_compiler.py for the processor
// that it runs on. Nothing stands between two operations: what one writes, the next reads as it is.
//
// Letters: B images, I image channels, H W image height and width, h w those of a patch, S patches
// (tokens) of a tile, C channels, T token-mixing width, D channel-mixing width, K classes.

#include <algorithm>
#include <cstdint>

#include "product.h"
#include "product8.h"
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
    Constants constants = {nullptr};
    float *x = nullptr, *y = nullptr, *h = nullptr;
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
        take(y, std::max(all_tokens, LANE * member.of) * row);
        take(h, std::max({all_tokens * whole(pixels), T * row, all_tokens * whole(D),
                          member.of * images * row}));
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

    // y = LayerNorm(x) of this member's rows, or `steps` of that: in rows or, for a product along
    // the tokens, in panels.
    void norm(Rounding rounding, bool along_tokens) {
        const float* weight = shape.has_norms ? constants.take(C) : nullptr;
        const float* bias = shape.has_norms ? constants.take(C) : nullptr;
        const Span own = own_rows();
        if (!rounding)
            return layer_norm(own.size(), C, shape.epsilon, weight, bias, x + own.begin * row,
                              y + own.begin * row);
        float* some = y + LANE * member.index * row;
        for (long r = own.begin, count; r < own.end; r += count) {
            const long part = r / tokens, token = r % tokens;
            count = std::min(LANE, tokens - token);
            layer_norm(count, C, shape.epsilon, weight, bias, x + r * row, some);
            if (along_tokens)
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
            map.weight = constants.take(outputs * inputs);
        }
        map.bias = constants.take(outputs);
        return map;
    }

    // These columns of the map, of `in` or of `steps_in`: written to or added to `out`, or their
    // GELU as `next` wants it, in `out` or rounded in `hidden_steps`.
    void along(const Along& map, Span columns, const float* in, const uint8_t* steps_in, float* out,
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
                                .result = rounds ? nullptr : out, .apart = row, .added = added,
                                .steps = hidden_steps, .rounding = rounds ? *next : Rounding{},
                                .steps_apart = IN_PANELS, .partial = own_partial()};
            return product.compute(columns);
        }
        compute({.rows = map.outputs, .columns = C, .depth = map.inputs,
                 .left = {static_cast<const float*>(map.weight), map.inputs}, .right = {in, row},
                 .bias = map.bias, .bias_of_rows = true, .result = out, .apart = row,
                 .added = added, .gelu = next ? &shape.gelu : nullptr}, columns);
        if (rounds)
            for (long r = 0; r < map.outputs; r += LANE)
                to_panels(*next, std::min(LANE, map.outputs - r), C, columns, out + r * row, row,
                          r / LANE, lanes_of(map.outputs), hidden_steps);
    }

    int32_t* own_partial() const { return partial + member.index * most_rows * PANEL8; }

    // x [parts · S, C] += the mixing of y's tokens in each part; of this member's columns.
    void mix_tokens(Rounding rounding, Rounding hidden) {
        const Along first = take_along(rounding, T ? T : tokens, tokens);
        const Along second = T ? take_along(hidden, tokens, T) : Along{};
        const Span columns = member.part(row, shape.eight_bits ? PANEL8 : PANEL);
        for (long part = 0; part < parts; part++) {
            const float* in = y + part * tokens * row;
            const uint8_t* steps_in = steps + part * panels_of(tokens);
            float* out = x + part * tokens * row;
            if (T) {
                along(first, columns, in, steps_in, h, false, &hidden);
                along(second, columns, h, hidden_steps, out, true);
            } else {
                along(first, columns, in, steps_in, out, true);
            }
        }
    }

    // A linear map of each of this member's rows, taken from the constants; otherwise as `along`.
    void each_row(Rounding rounding, long inputs, long outputs, const float* in,
                  const uint8_t* steps_in, float* out, bool added,
                  const Rounding* next = nullptr) {
        const Span own = own_rows();
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
                                .result = rounds ? nullptr : out + own.begin * row_out,
                                .apart = row_out, .added = added,
                                .steps = hidden_steps + own.begin * row_out,
                                .rounding = rounds ? *next : Rounding{}, .steps_apart = row_out,
                                .partial = own_partial()};
            return product.compute({0, outputs});
        }
        const Rows weight = constants.panels(inputs, outputs);
        compute({.rows = own.size(), .columns = outputs, .depth = inputs,
                 .left = {in + own.begin * row_in, row_in}, .right = weight,
                 .bias = constants.take(outputs), .result = out + own.begin * row_out,
                 .apart = row_out, .added = added, .gelu = next ? &shape.gelu : nullptr});
        if (rounds)
            for (long r = own.begin; r < own.end; r++)
                to_row(*next, outputs, out + r * row_out, hidden_steps + r * row_out);
    }

    // x [rows, C] += the mixing of each row of y; of this member's rows.
    void mix_channels(Rounding rounding, Rounding hidden) {
        if (!D) return each_row(rounding, C, C, y, steps, x, true);
        each_row(rounding, C, D, y, steps, h, false, &hidden);
        each_row(hidden, D, C, h, hidden_steps, x, true);
    }

    // x [rows, C] = the patch embedding; of this member's rows. Pixels become steps in
    // `hidden_steps`, a channel of the image after the other, before they are cut.
    void embed(const float* image) {
        const Span own = own_rows();
        const Rounding* of_channel = constants.take<Rounding>(shape.channels);
        const Rounding rounding = *constants.take<Rounding>(1);
        const long of_one = tiles * tokens;
        for (long i = 0; i < images; i++, image += shape.channels * plane) {
            const Span some = {std::clamp(own.begin - i * of_one, 0L, of_one),
                               std::clamp(own.end - i * of_one, 0L, of_one)};
            const long at = (i * of_one + some.begin) * whole(pixels);
            if (!rounding) {
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
        each_row(rounding, pixels, C, h, steps, x, false);
    }

    // So many images → logits [B, K], or features [B, C] where there is no head; their rows are
    // filled up.
    void forward(Constants all, const float* image, float* out) {
        constants = all;
        embed(image);
        member.meet();
        for (long block = 0; block < shape.depth; block++) {
            const BlockRounding rounding = *constants.take<BlockRounding>(1);
            norm(rounding.tokens, true);
            member.meet();
            mix_tokens(rounding.tokens, rounding.hidden_tokens);
            member.meet();
            norm(rounding.channels, false);
            mix_channels(rounding.channels, rounding.hidden_channels);
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
