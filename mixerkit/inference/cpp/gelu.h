// GELU as a polynomial: a processor adds and multiplies faster than it divides.

#pragma once

#include <algorithm>

#include "vectors.h"

// x/2 · (1 + x·P(x²)) inside ±limit, where P is given by native_gelu.py for either flavour of GELU as a
// polynomial in 2x²/limit² - 1, its highest power first; 0 and x beyond.
template <int DEGREE>
struct Polynomial {
    float limit;
    float powers[DEGREE + 1];

    // Of `HIGH` rows of `WIDE` vectors in memory: rows are so many floats `apart`, the next vector
    // of a row is as many `on`.
    template <int HIGH, int WIDE>
    inline void over(float* at, long apart, long on) const {
        constexpr int FEW = std::max(1L, REGISTERS / 4 / WIDE);  // side by side: none waits
        int i = 0;
        for (; i + FEW <= HIGH; i += FEW) rows<FEW, WIDE>(at + i * apart, apart, on);
        if constexpr (HIGH % FEW) rows<HIGH % FEW, WIDE>(at + i * apart, apart, on);
    }

  private:
    template <int HIGH, int WIDE>
    inline void rows(float* at, long apart, long on) const {
        constexpr int ALL = HIGH * WIDE;
        const Vector to_1 = all(2 / (limit * limit)), high = all(limit);
        Vector x[ALL], u[ALL], p[ALL];
#pragma GCC unroll 16
        for (int j = 0; j < ALL; j++) {
            x[j] = load(at + j / WIDE * apart + j % WIDE * on);
            u[j] = x[j] * x[j] * to_1 - 1.0f;
            p[j] = all(powers[0]);
        }
#pragma GCC unroll 32
        for (int i = 1; i <= DEGREE; i++)
#pragma GCC unroll 16
            for (int j = 0; j < ALL; j++) p[j] = p[j] * u[j] + powers[i];
#pragma GCC unroll 16
        for (int j = 0; j < ALL; j++) {
            const Vector half = x[j] * 0.5f, inside = half + half * (x[j] * p[j]);
            const Vector not_high = x[j] > high ? x[j] : inside;
            store(at + j / WIDE * apart + j % WIDE * on, x[j] < -high ? Vector{} : not_high);
        }
    }
};

typedef Polynomial<16> Gelu;
typedef Polynomial<9> CoarseGelu;  // of the results of products in 8 bits
