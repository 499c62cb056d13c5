// Products of matrices in float32.

#pragma once

#include <algorithm>

#include "gelu.h"
#include "vectors.h"

#if defined(__AVX512F__)
constexpr long ROWS = 6, VECTORS = 4;  // 24 of 32 registers are sums
#elif defined(__AVX__)
constexpr long ROWS = 6, VECTORS = 2;  // 12 of 16
#elif defined(__aarch64__)
constexpr long ROWS = 6, VECTORS = 4;  // 24 of 32
#else
constexpr long ROWS = 6, VECTORS = 2;
#endif
constexpr long PANEL = LANES * VECTORS;  // columns of a product that are computed together

// Rows of numbers, so many floats apart.
struct Rows {
    const float* data;
    long apart;
};

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

// These columns of a product; they begin where a vector does and, of panels, where one does.
inline void compute(const Product& task, Span columns) {
    for (long n = columns.begin; n < columns.end; n += PANEL) {
        Product p = task;
        p.columns = std::min(whole(columns.end - n), PANEL);
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

inline void compute(const Product& task) { compute(task, {0, task.columns}); }
