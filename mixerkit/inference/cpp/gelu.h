// GELU as a polynomial: a processor adds and multiplies faster than it divides.

#pragma once

#include "vectors.h"

// x/2 · (1 + x·P(x²)) inside ±limit, where P is given by native_gelu.py for either flavour of GELU as a
// polynomial in 2x²/limit² - 1, its highest power first; 0 and x beyond.
template <int DEGREE>
struct Polynomial {
    float limit;
    float powers[DEGREE + 1];

    // Of `WIDE` vectors in memory, so many floats apart; computed side by side, as none waits for
    // the other.
    template <int WIDE>
    inline void over(float* at, long apart = LANES) const {
        Vector x[WIDE], u[WIDE], p[WIDE];
#pragma GCC unroll 8
        for (int j = 0; j < WIDE; j++) {
            x[j] = load(at + j * apart);
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
            store(at + j * apart, x[j] < -limit ? Vector{} : not_high);
        }
    }
};

typedef Polynomial<16> Gelu;
typedef Polynomial<9> CoarseGelu;  // of the results of products in 8 bits
