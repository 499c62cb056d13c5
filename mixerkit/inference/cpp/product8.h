// Products of matrices in 8 bits: of the steps of numbers, 0 to 255, with weights from -127 to 127.
//
// What goes into a product is rounded to steps as it is written; each sum is a whole number, and
// exact.

#pragma once

#include <algorithm>

#include "gelu.h"
#include "vectors.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr long ROWS8 = 8, VECTORS8 = 3;  // 24 of 32 registers are sums
#else
constexpr long ROWS8 = 4, VECTORS8 = 2;  // 8 of 16
#endif
constexpr long PANEL8 = LANES * VECTORS8;  // columns of a product that are computed together
constexpr long DEPTH8 = 128;               // of a product, in one go, so that a panel stays near
constexpr long LINE = 64;                  // bytes that come from memory together
constexpr long FOUR = 4;                   // bytes of a lane, multiplied and added up in one go

typedef int32_t Whole __attribute__((vector_size(4 * LANES)));
typedef int32_t WholeInMemory __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));
typedef uint8_t BytesInMemory __attribute__((vector_size(LANES), aligned(1), may_alias));

// Whether the processor has an operation for `dot`.
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

// How numbers are rounded: a step is `per_unit` · number + `zero`. `per_unit` 0: they are not.
struct Steps {
    float per_unit, zero;

    explicit operator bool() const { return per_unit != 0; }

    // The nearest step of each number; what is not a number becomes 0.
    inline Whole of(Vector x) const {
        const Vector place = x * all(per_unit) + zero;
        const Vector from_0 = place > 0.0f ? place : Vector{};
        const Vector to_255 = from_0 < 255.0f ? from_0 : all(255);
        return (Whole)(to_255 + float(1 << 23)) & 255;  // whose last bit is 1
    }
};

// A row of steps.
inline void to_row(Steps to, long columns, const float* from, uint8_t* row) {
    for (long c = 0; c < columns; c += LANES)
        *reinterpret_cast<BytesInMemory*>(row + c) =
            __builtin_convertvector(to.of(load(from + c)), Bytes);
}

// Just so many steps: nothing beyond them is read or written.
inline void to_steps(Steps to, long count, const float* from, uint8_t* steps) {
    const long full = count / LANES * LANES;
    to_row(to, full, from, steps);
    float rest[LANES] = {};
    uint8_t of_rest[LANES];
    std::memcpy(rest, from + full, (count - full) * sizeof(float));
    to_row(to, LANES, rest, of_rest);
    std::memcpy(steps + full, of_rest, count - full);
}

// Matrices on the right of a product, [depth / 4, columns, 4] bytes, are in panels of columns, one
// after the other: where four numbers of each column, the k-th in its depth, begin.
inline long in_panels(long columns, long depth, long k, long column) {
    const long first = column / PANEL8 * PANEL8;
    return FOUR * (first * depth + k * std::min(PANEL8, whole(columns) - first) + column - first);
}

// Four rows become one of a matrix on the right, four steps of each column side by side.
inline Whole four_steps(Steps to, const float* from, long apart, long rows) {
    Whole four = {};
    for (long i = 0; i < FOUR; i++)  // a row that is not there meets weights that are 0
        four |= to.of(load(from + std::min(i, rows - 1) * apart)) << int(8 * i);
    return four;
}

inline void put(uint8_t* to, Whole four) { *reinterpret_cast<WholeInMemory*>(to) = four; }

// Of these columns of some rows.
inline void to_panels(Steps to, long rows, long columns, Span span, const float* from, long apart,
                      long k, long depth, uint8_t* panels) {
    for (long c = span.begin; c < span.end; c += LANES)
        put(panels + in_panels(columns, depth, k, c), four_steps(to, from + c, apart, rows));
}

// result [rows, columns] = scale · (left [rows, depth · 4] · right [depth · 4, columns]) + bias.
struct Product8 {
    long rows, columns, depth;
    bool steps_on_left;        // and weights on the right; or else the other way round
    const uint8_t* left;
    long left_apart;
    const uint8_t* right;      // in panels
    const float *scale, *bias; // of each output of the weights
    const CoarseGelu* gelu = nullptr;
    float* result = nullptr;   // or:
    long apart;
    bool added = false;        // to what the result holds
    uint8_t* steps = nullptr;  // of the result
    Steps to;
    long steps_apart;          // from row to row, or IN_PANELS
    int32_t* partial;          // memory for sums of the first part of the depth, [rows, PANEL8]

    template <bool STEPS_ON_LEFT, int HIGH, int WIDE>
    inline void tile(long row, long column, Span part) const {
        Whole sums[HIGH][WIDE] = {};
        WholeInMemory(*before)[VECTORS8] =
            reinterpret_cast<WholeInMemory(*)[VECTORS8]>(partial + row * PANEL8);
        if (part.begin)
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++)
#pragma GCC unroll 8
                for (int j = 0; j < WIDE; j++) sums[i][j] = before[i][j];
        const uint8_t* x = left + row * left_apart + part.begin * FOUR;
        const uint8_t* y = right + FOUR * (column * depth + part.begin * LANES * WIDE);
        for (long k = part.size(); k > 0; k--, x += FOUR, y += FOUR * LANES * WIDE) {
            Whole columns[WIDE];
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++)
                columns[j] = *reinterpret_cast<const WholeInMemory*>(y + j * FOUR * LANES);
#pragma GCC unroll 8
            for (int i = 0; i < HIGH; i++) {
                int32_t four;
                std::memcpy(&four, x + i * left_apart, FOUR);
                const Whole same = four + Whole{};
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
                for (int j = 0; j < WIDE; j++) before[i][j] = sums[i][j];
            return;
        }
        Vector out[HIGH][WIDE];
#pragma GCC unroll 8
        for (int i = 0; i < HIGH; i++) {
#pragma GCC unroll 8
            for (int j = 0; j < WIDE; j++) {
                const long c = column + j * LANES;
                const Vector own = __builtin_convertvector(sums[i][j], Vector);
                out[i][j] = STEPS_ON_LEFT ? own * load(scale + c) + load(bias + c)
                                          : own * all(scale[row + i]) + bias[row + i];
            }
            if (gelu) gelu->over<WIDE>(reinterpret_cast<float*>(out[i]));
        }
        deliver<HIGH, WIDE>(row, column, out);
    }

    template <int HIGH, int WIDE>
    inline void deliver(long row, long column, Vector (&out)[HIGH][WIDE]) const {
        const float* rows_out = reinterpret_cast<const float*>(out);
        if (result) {
            for (int i = 0; i < HIGH; i++)
                for (int j = 0; j < WIDE; j++) {
                    float* at = result + (row + i) * apart + column + j * LANES;
                    store(at, added ? load(at) + out[i][j] : out[i][j]);
                }
        } else if (steps_apart) {
            for (int i = 0; i < HIGH; i++)
                to_row(to, WIDE * LANES, rows_out + i * WIDE * LANES,
                       steps + (row + i) * steps_apart + column);
        } else {
            const long fours = (rows + FOUR - 1) / FOUR;
            for (int i = 0; i < HIGH; i += FOUR)
                for (int j = 0; j < WIDE; j++)
                    put(steps + in_panels(columns, fours, (row + i) / FOUR, column + j * LANES),
                        four_steps(to, rows_out + (i * WIDE + j) * LANES, WIDE * LANES,
                                   std::min(FOUR, long(HIGH) - i)));
        }
    }

    // Asks for a share of the weights after these, so that all of them are near by then.
    template <int WIDE>
    void fetch_next(long row, long column, Span part) const {
        const long line = FOUR * WIDE * LANES, lines = part.size() * line / LINE;
        const uint8_t* next = right + FOUR * column * depth + part.end * line;
        const long end = lines * (row + ROWS8) / rows;
        for (long i = lines * row / rows; i < end; i++) __builtin_prefetch(next + i * LINE, 0, 2);
    }

    template <bool STEPS_ON_LEFT, int WIDE>
    void panel(long column) const {
        for (Span part = {0, 0}; part.end < depth;) {
            part = {part.end, std::min(part.end + DEPTH8, depth)};
            long row = 0;
            for (; row + ROWS8 <= rows; row += ROWS8) {
                if (STEPS_ON_LEFT) fetch_next<WIDE>(row, column, part);
                tile<STEPS_ON_LEFT, ROWS8, WIDE>(row, column, part);
            }
            if (ROWS8 > 4)
                for (; row + 4 <= rows; row += 4) tile<STEPS_ON_LEFT, 4, WIDE>(row, column, part);
            switch (rows - row) {
                case 1: tile<STEPS_ON_LEFT, 1, WIDE>(row, column, part); break;
                case 2: tile<STEPS_ON_LEFT, 2, WIDE>(row, column, part); break;
                case 3: tile<STEPS_ON_LEFT, 3, WIDE>(row, column, part);
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
