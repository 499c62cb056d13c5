// Threads that compute together.

#pragma once

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
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

// Threads that sleep until somebody brings work, and do it together with them. A thread that is
// woken gets its core at once; one that is new waits behind whoever is computing there.
class Crew {
    std::mutex in_use, mutex;
    std::condition_variable wake, done;
    std::vector<std::thread> threads;  // besides whoever brings the work
    int kept_off = -1;                 // the core that they may not use
    long job = 0, of = 0, busy = 0;
    const std::function<void(Member)>* work = nullptr;
    Meeting* meeting = nullptr;

    void serve(long index, long seen) {
        std::unique_lock<std::mutex> lock(mutex);
        while (true) {
            wake.wait(lock, [&] { return job != seen; });
            seen = job;
            if (index >= of) continue;
            const Member member = {index, of, meeting};
            lock.unlock();
            (*work)(member);
            lock.lock();
            if (--busy == 0) done.notify_one();
        }
    }

    void hire(long wanted) {
        try {
            while (long(threads.size()) < wanted) {
                threads.emplace_back(&Crew::serve, this, long(threads.size()) + 1, job);
                kept_off = -1;
            }
        } catch (const std::system_error&) {  // the system has no more: fewer will do
        }
    }

    // Keeps them off the core of whoever brings the work. Systems that save cores, as virtual
    // machines do, wake a thread on the core that woke it, and both would take turns there.
    void keep_off_this_core() {
#ifdef __linux__
        const int here = sched_getcpu();
        cpu_set_t cores;
        if (here < 0 || here == kept_off) return;
        if (pthread_getaffinity_np(pthread_self(), sizeof(cores), &cores)) return;
        CPU_CLR(here, &cores);
        if (!CPU_COUNT(&cores)) return;
        for (auto& thread : threads)
            pthread_setaffinity_np(thread.native_handle(), sizeof(cores), &cores);
        kept_off = here;
#endif
    }

  public:
    // `task` of each of so many members, or of fewer; of one, where others are at work already.
    void together(long members, const std::function<void(Member)>& task) {
        std::unique_lock<std::mutex> mine(in_use, std::defer_lock);
        if (members > 1 && mine.try_lock()) hire(members - 1);
        const long size = mine ? std::min(members, long(threads.size()) + 1) : 1;
        if (size <= 1) return task(Member{0, 1, nullptr});
        keep_off_this_core();
        Meeting all_of_them(size);
        {
            std::lock_guard<std::mutex> lock(mutex);
            work = &task, meeting = &all_of_them, of = size, busy = size - 1, job++;
        }
        wake.notify_all();
        task(Member{0, size, &all_of_them});
        std::unique_lock<std::mutex> lock(mutex);
        done.wait(lock, [&] { return busy == 0; });
    }
};

// One for the process; a process that is forked off has none of its threads, and gets another.
inline Crew* the_crew = new Crew;
inline const int renewed = pthread_atfork(nullptr, nullptr, [] { the_crew = new Crew; });
