// Numbers side by side: as many as one operation of the processor takes.
//
// A row of numbers in memory is filled up to whole vectors; what stands in the places beyond its
// end is never part of a sum.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr long LANES = 16;
#elif defined(__AVX__)
constexpr long LANES = 8;
#else
constexpr long LANES = 4;
#endif
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr long REGISTERS = 32;  // each for a vector
#else
constexpr long REGISTERS = 16;
#endif
static_assert(sizeof(long) == sizeof(int64_t));

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float InMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const InMemory*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<InMemory*>(to) = x; }
inline Vector all(float x) { return x - Vector{}; }  // no sum: 0 + -0 is 0
inline long whole(long columns) { return (columns + LANES - 1) / LANES * LANES; }

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

// From `begin` up to, not including, `end`.
struct Span {
    long begin, end;

    long size() const { return end - begin; }
};
