// Threads that compute together.

#pragma once

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include "vectors.h"

// Says to the processor that this core is waiting, and its other thread may go on.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Where all wait until the last has come. They wait by looking, as their shares are about equal.
class Meeting {
    long size;
    std::atomic<long> there{0}, number{0};

  public:
    explicit Meeting(long size) : size(size) {}

    void meet() {
        const long this_one = number.load(std::memory_order_acquire);
        if (there.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
            there.store(0, std::memory_order_relaxed);
            number.store(this_one + 1, std::memory_order_release);
            return;
        }
        for (long looks = 1; number.load(std::memory_order_acquire) == this_one; looks++) {
            relax();
            if (looks % 1024 == 0) std::this_thread::yield();  // somebody else has the core
        }
    }
};

// One of `of`.
struct Member {
    long index, of;
    Meeting* meeting;

    void meet() const {
        if (of > 1) meeting->meet();
    }

    // Its part of so many things, by whole units.
    Span part(long count, long unit = 1) const {
        const long units = (count + unit - 1) / unit;
        const auto edge = [&](long i) { return std::min(count, units * i / of * unit); };
        return {edge(index), edge(index + 1)};
    }
};

// `work` of each member, on threads of their own; on fewer, if the system has no more.
template <typename Work>
void in_team(long size, Work work) {
    if (size <= 1) return work(Member{0, 1, nullptr});
    std::vector<std::thread> threads;
    std::atomic<long> members{0};
    Meeting* meeting = nullptr;
    const auto begin = [&](long index) {
        long of;
        while (!(of = members.load(std::memory_order_acquire))) std::this_thread::yield();
        work(Member{index, of, meeting});
    };
    threads.reserve(size - 1);
    try {
        for (long index = 1; index < size; index++) threads.emplace_back(begin, index);
    } catch (const std::system_error&) {
    }
    const long of = long(threads.size()) + 1;
    Meeting all_of_them(of);
    meeting = &all_of_them;
    members.store(of, std::memory_order_release);
    begin(0);
    for (std::thread& one : threads) one.join();
}
