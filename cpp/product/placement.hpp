// The core on which a thread wakes up.
#pragma once

#include <thread>

#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace hmatrix {

// Lets a thread wake up on another core than its caller's. Linux may wake it on the caller's core, the more so in a
// virtual machine, where an idle core looks like one that the host has taken away. There the thread waits until the
// system compares the loads of the cores, which can take many milliseconds where threads sleep between products.
// All calls are under one lock, except `caller_core`.
class Placement {
public:
#if defined(__linux__)
    static int caller_core() { return sched_getcpu(); }

    // By the caller, of a thread that sleeps, or has yet to begin.
    void leave(std::thread& thread, int core) {
        if (!sleeps_ || moved_ || core < 0 || core >= CPU_SETSIZE) return;
        if (pthread_getaffinity_np(thread.native_handle(), sizeof allowed_, &allowed_) != 0) return;
        cpu_set_t elsewhere = allowed_;
        CPU_CLR(static_cast<unsigned>(core), &elsewhere);
        moved_ = CPU_COUNT(&elsewhere) > 0 &&
                 pthread_setaffinity_np(thread.native_handle(), sizeof elsewhere, &elsewhere) == 0;
    }

    // By the thread itself.
    void fall_asleep() { sleeps_ = true; }

    // By the thread itself: it may run everywhere again.
    void wake_up() {
        sleeps_ = false;
        if (moved_) pthread_setaffinity_np(pthread_self(), sizeof allowed_, &allowed_);
        moved_ = false;
    }

private:
    bool sleeps_ = true, moved_ = false;
    cpu_set_t allowed_{};  // before it was moved
#else
    static int caller_core() { return 0; }
    void leave(std::thread&, int) {}
    void fall_asleep() {}
    void wake_up() {}
#endif
};

}  // namespace hmatrix
