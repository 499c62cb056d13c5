// Products of matrices in 8 bits: of the steps of numbers, 0 to 255, with weights from -127 to 127.
//
// What goes into a product is rounded to steps as it is written. Each sum is a whole number, and
// exact, of up to 2^31 / (255 · 127) numbers, which are 66 thousand.

#pragma once

#include <algorithm>
#include <cstring>

#include "ahead.h"
#include "gelu.h"
#include "matrix.h"
#include "vectors.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include <arm_neon.h>
#endif

constexpr long ROWS8 = REGISTERS == 32 ? 8 : 4;
constexpr long VECTORS8 = REGISTERS == 32 ? 3 : 2;  // 24 or 8 registers are sums
constexpr long PANEL8 = LANES * VECTORS8;  // columns of a product that are computed together
constexpr long LANE = 4;                   // bytes, which are multiplied and added up in one go
constexpr long DEPTH8 = 128;               // lanes of a product in one go: a panel stays near
constexpr long IN_PANELS = 0;              // in the place of how far rows are apart

// So many numbers in 8 bits take as many lanes.
inline long lanes_of(long numbers) { return (numbers + LANE - 1) / LANE; }

typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef int32_t WholeInMemory __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint8_t BytesInMemory __attribute__((vector_size(LANES), aligned(1), may_alias));

// Sums + the products of the four steps and the four weights in each lane; `DOTS`: whether the
// processor has an operation for that.
#if defined(__AVX512VNNI__)
constexpr bool DOTS = true;
inline Whole dot(Whole sums, Whole steps, Whole weights) {
    return (Whole)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)steps, (__m512i)weights);
}
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
constexpr bool DOTS = true;
inline Whole dot(Whole sums, Whole steps, Whole weights) {
    return (Whole)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)steps, (__m256i)weights);
}
#elif defined(__ARM_FEATURE_MATMUL_INT8)
constexpr bool DOTS = true;
inline Whole dot(Whole sums, Whole steps, Whole weights) {
    return (Whole)vusdotq_s32((int32x4_t)sums, (uint8x16_t)steps, (int8x16_t)weights);
}
#else
constexpr bool DOTS = false;
inline Whole dot(Whole sums, Whole steps, Whole weights) {
    for (int bits = 0; bits < 32; bits += 8)
        sums += ((steps >> bits) & 255) * ((weights << (24 - bits)) >> 24);
    return sums;
}
#endif

// How numbers become steps: the nearest to `per_unit` · number + `zero`. `per_unit` 0: not at all.
struct Rounding {
    float per_unit, zero;

    explicit operator bool() const { return per_unit != 0; }

    // What is beyond the steps becomes the last one, and what is not a number step 0.
    inline Whole steps(Vector x) const {
        const Vector place = x * all(per_unit) + zero;
        const Vector from_0 = place > 0.0f ? place : Vector{};
        const Vector to_255 = from_0 < 255.0f ? from_0 : all(255);
        return (Whole)(to_255 + float(1 << 23)) & 255;  // where a float's last bit stands for 1
    }
};

// A row of steps, of vectors so many floats apart; whole vectors of it are written.
inline void to_row(Rounding rounding, long columns, const float* from, uint8_t* row,
                   long apart = LANES) {
    for (long c = 0; c < columns; c += LANES, from += apart)
        *reinterpret_cast<BytesInMemory*>(row + c) =
            __builtin_convertvector(rounding.steps(load(from)), Bytes);
}

// Just so many steps: nothing beyond them is read or written.
inline void to_steps(Rounding rounding, long count, const float* from, uint8_t* steps) {
    const long full = count / LANES * LANES;
    to_row(rounding, full, from, steps);
    float rest[LANES] = {};
    uint8_t steps_of_rest[LANES];
    std::memcpy(rest, from + full, (count - full) * sizeof(float));
    to_row(rounding, LANES, rest, steps_of_rest);
    std::memcpy(steps + full, steps_of_rest, count - full);
}

// A matrix on the right of a product is in panels of columns, one after the other: [depth, columns]
// lanes, each of four numbers of a column. Where in it the k-th lane of a column begins.
inline long in_panels(long columns, long depth, long k, long column) {
    const long first = column / PANEL8 * PANEL8;
    return LANE * (first * depth + k * std::min(PANEL8, whole(columns) - first) + column - first);
}

// Of up to four rows the steps of each column, side by side in its lane.
inline Whole side_by_side(Rounding rounding, const float* from, long apart, long rows) {
    Whole four = {};
    for (long i = 0; i < LANE; i++)  // a row that is not there meets weights that are 0
        four |= rounding.steps(load(from + std::min(i, rows - 1) * apart)) << int(8 * i);
    return four;
}

inline void put(uint8_t* to, Whole lanes) { *reinterpret_cast<WholeInMemory*>(to) = lanes; }

// Up to four rows, of these columns, become the k-th lanes of panels.
inline void to_panels(Rounding rounding, long rows, long columns, Span span, const float* from,
                      long apart, long k, long depth, uint8_t* panels) {
    for (long c = span.begin; c < span.end; c += LANES)
        put(panels + in_panels(columns, depth, k, c), side_by_side(rounding, from + c, apart, rows));
}

// result [rows, columns] = scale · (left [rows, depth lanes] · right [depth lanes, columns]) + bias.
struct Product8 {
    long rows, columns, depth;
    bool steps_on_left;  // and weights on the right; or else the other way round
    const uint8_t* left;
    long left_apart;             // bytes from row to row
    const uint8_t* right;        // in panels
    const float *scale, *bias;   // of each output of the weights
    const CoarseGelu* gelu = nullptr;

    // Either the result is floats, or the steps of that are wanted instead.
    Matrix result = {nullptr, 0};
    bool added = false;  // to what the result holds
    uint8_t* steps = nullptr;
    Rounding rounding;
    long steps_apart;  // from row to row, or IN_PANELS

    int32_t* partial;  // memory for sums over the depth so far, [rows, PANEL8]

    template <bool STEPS_ON_LEFT, int HIGH, int WIDE>
    inline void tile(long row, long column, Span part, Share next) const {
        Whole sums[HIGH][WIDE] = {};
        WholeInMemory(*so_far)[VECTORS8] =
            reinterpret_cast<WholeInMemory(*)[VECTORS8]>(partial + row * PANEL8);
        if (part.begin)
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) sums[i][j] = so_far[i][j];
        const uint8_t* x = left + row * left_apart + part.begin * LANE;
        const uint8_t* y = right + LANE * (column * depth + part.begin * LANES * WIDE);
        for (long k = part.size(); k > 0; k--, x += LANE, y += LANE * LANES * WIDE) {
            if (k % AHEAD == 0) next.ask();
            Whole columns[WIDE];
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++)
                columns[j] = *reinterpret_cast<const WholeInMemory*>(y + j * LANE * LANES);
            ask_for(y + AHEAD * sizeof(columns), sizeof(columns));
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++) {
                int32_t lane;
                std::memcpy(&lane, x + i * left_apart, LANE);
                const Whole same = lane + Whole{};
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++)
                    sums[i][j] = STEPS_ON_LEFT ? dot(sums[i][j], same, columns[j])
                                               : dot(sums[i][j], columns[j], same);
            }
        }
        if (part.end < depth) {
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) so_far[i][j] = sums[i][j];
            return;
        }
        Vector numbers[HIGH][WIDE];
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++) {
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) {
                const long c = column + j * LANES;
                const Vector sum = __builtin_convertvector(sums[i][j], Vector);
                numbers[i][j] = STEPS_ON_LEFT ? sum * load(scale + c) + load(bias + c)
                                              : sum * all(scale[row + i]) + bias[row + i];
            }
        }
        if (gelu)
            gelu->over<HIGH, WIDE>(reinterpret_cast<float*>(numbers), WIDE * LANES, LANES);
        deliver<HIGH, WIDE>(row, column, numbers);
    }

    template <int HIGH, int WIDE>
    inline void deliver(long row, long column, Vector (&numbers)[HIGH][WIDE]) const {
        const float* first = reinterpret_cast<const float*>(numbers);
        if (result.data) {
            const long on = result.vectors_apart();
            for (int i = 0; i < HIGH; i++)
                for (int j = 0; j < WIDE; j++) {
                    float* at = result.at(row + i, column) + j * on;
                    store(at, added ? load(at) + numbers[i][j] : numbers[i][j]);
                }
        } else if (steps_apart != IN_PANELS) {
            for (int i = 0; i < HIGH; i++)
                to_row(rounding, WIDE * LANES, first + i * WIDE * LANES,
                       steps + (row + i) * steps_apart + column);
        } else {
            for (int i = 0; i < HIGH; i += LANE)
                for (int j = 0; j < WIDE; j++)
                    put(steps + in_panels(columns, lanes_of(rows), (row + i) / LANE,
                                          column + j * LANES),
                        side_by_side(rounding, first + (i * WIDE + j) * LANES, WIDE * LANES,
                                     std::min(LANE, long(HIGH) - i)));
        }
    }

    template <bool STEPS_ON_LEFT, int WIDE>
    void panel(long column) const {
        for (Span part = {0, 0}; part.end < depth;) {
            part = {part.end, std::min(part.end + DEPTH8, depth)};
            const long bytes = part.size() * WIDE * sizeof(Whole);  // of a part of a panel
            const Next next(right + LANE * column * depth + part.end * WIDE * sizeof(Whole), bytes,
                            STEPS_ON_LEFT ? LANE * depth * columns : 0,
                            (rows + ROWS8 - 1) / ROWS8, part.size() / AHEAD);
            long row = 0;
            for (; row + ROWS8 <= rows; row += ROWS8)
                tile<STEPS_ON_LEFT, ROWS8, WIDE>(row, column, part, next.of_tile(row / ROWS8));
            const Share last = next.of_tile(row / ROWS8);
            if (ROWS8 > 4)
                for (; row + 4 <= rows; row += 4)
                    tile<STEPS_ON_LEFT, 4, WIDE>(row, column, part, last);
            switch (rows - row) {
                case 1: tile<STEPS_ON_LEFT, 1, WIDE>(row, column, part, last); break;
                case 2: tile<STEPS_ON_LEFT, 2, WIDE>(row, column, part, last); break;
                case 3: tile<STEPS_ON_LEFT, 3, WIDE>(row, column, part, last);
            }
        }
    }

    // These columns, from where a panel begins.
    void compute(Span span) const {
        for (long n = span.begin; n < span.end; n += PANEL8) {
            const long vectors = std::min(whole(span.end - n), PANEL8) / LANES;
            if (vectors == 1) steps_on_left ? panel<true, 1>(n) : panel<false, 1>(n);
            else if (vectors == 2) steps_on_left ? panel<true, 2>(n) : panel<false, 2>(n);
            else steps_on_left ? panel<true, VECTORS8>(n) : panel<false, VECTORS8>(n);
        }
    }
};
