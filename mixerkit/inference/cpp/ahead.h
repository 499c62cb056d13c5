// Memory that is asked for before it is needed, and is near by then.

#pragma once

#include <algorithm>

constexpr long LINE = 64;       // bytes that come together
constexpr long AHEAD = 8;       // rows of a panel: so early they are asked for while it is read
constexpr long NEAR = 1 << 18;  // bytes of a matrix that stay in a core's own cache

// The bytes that are to come next into a core's cache, in lines. Inlined by force: g++ drops the call
// of a function that computes nothing.
__attribute__((always_inline)) inline void ask_for(const void* from, long bytes) {
#pragma GCC unroll 8
    for (long at = 0; at < bytes; at += LINE)
        __builtin_prefetch(static_cast<const char*>(from) + at);
}

// What a tile asks for, so many lines at a time.
struct Share {
    const char* from;
    long lines;

    __attribute__((always_inline)) void ask() {
        for (long i = 0; i < lines; i++, from += LINE) __builtin_prefetch(from, 0, 2);
    }
};

// A panel that is needed next, shared out among the tiles of a product: all of them together ask for
// all of it, each so many times.
struct Next {
    const char* from;
    long times, lines, each = 0;

    // Of a matrix that has so many bytes in all: a small one is near by.
    Next(const void* panel, long bytes, long of, long tiles, long times)
        : from(static_cast<const char*>(panel)), times(times), lines(bytes / LINE) {
        const long asked = std::max(tiles * times, 1L);
        if (of > NEAR) each = (lines + asked - 1) / asked;
    }

    Share of_tile(long tile) const {
        const long before = tile * times * each;
        return {from + before * LINE, before < lines ? each : 0};
    }
};
