#include "product/threads.hpp"

#include "product/placement.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace hmatrix {
namespace {

std::atomic<int> most_threads{static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))};

long process_id() {
#if defined(__unix__) || defined(__APPLE__)
    return static_cast<long>(getpid());
#else
    return 0;
#endif
}

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Waits for `ready` busily, since the next product often follows at once; returns whether it came.
template <class Ready>
bool spin(Ready&& ready) {
    for (int i = 0; i < 2000; ++i) {
        if (ready()) return true;
        pause();
    }
    return ready();
}

// Tasks that several threads take from. Each thread begins at a place of its own, so that it meets the same data
// in every product, and goes on with what the others have not taken: a thread that sleeps, or that the system has
// put off, holds nobody up.
class Pool {
public:
    // Returns false, having done nothing, when another call is under way.
    bool run(int tasks, int threads, const std::function<void(int)>& task) {
        const std::unique_lock<std::mutex> alone(caller_, std::try_to_lock);
        if (!alone.owns_lock()) return false;
        const Call call{number_ + 2, &task, tasks, hire(threads)};
        ++number_;  // odd: nobody reads what follows
        task_ = call.task;
        tasks_ = call.tasks;
        threads_ = call.threads;
        finished_ = 0;
        ++number_;
        if (asleep_ > 0) wake();
        take(call, 0);
        const auto ended = [&] { return finished_ == tasks; };
        if (!spin(ended)) {
            std::unique_lock<std::mutex> lock(mutex_);
            done_.wait(lock, ended);
        }
        return true;
    }

private:
    struct Call {
        unsigned long number;
        const std::function<void(int)>* task;
        int tasks, threads;
    };

    struct Worker {
        std::thread thread;
        Placement placement;  // guarded by mutex_
    };

    // Returns for how many threads there are workers now: for fewer, where the system gives no more.
    int hire(int threads) {
        workers_.reserve(static_cast<std::size_t>(threads));
        while (static_cast<int>(workers_.size()) < threads - 1) {
            const int place = static_cast<int>(workers_.size()) + 1;
            auto worker = std::make_unique<Worker>();
            ++asleep_;
            try {
                worker->thread = std::thread([this, place, &placement = worker->placement] { work(place, placement); });
            } catch (const std::system_error&) {
                --asleep_;
                return place;
            }
            workers_.push_back(std::move(worker));
        }
        return threads;
    }

    void wake() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            const int core = Placement::caller_core();
            for (auto& worker : workers_) worker->placement.leave(worker->thread, core);
        }
        wake_.notify_all();
    }

    void work(int place, Placement& placement) {
        unsigned long seen = 0;
        const auto begin = [&] {
            placement.wake_up();
            --asleep_;
        };
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            begin();
        }
        for (;;) {
            const auto called = [&] { return number_ != seen && number_ % 2 == 0; };
            if (!spin(called)) {
                std::unique_lock<std::mutex> lock(mutex_);
                ++asleep_;
                placement.fall_asleep();
                wake_.wait(lock, called);
                begin();
            }
            const Call call{number_, task_, tasks_, threads_};
            if (call.number % 2 == 1 || call.number != number_) continue;
            seen = call.number;
            if (place < call.threads) take(call, place);
        }
    }

    // Does what no other thread has taken. Of a call that has ended nothing is left to take.
    void take(const Call& call, int place) {
        const int first = static_cast<int>(std::int64_t{call.tasks} * place / call.threads);
        for (int k = 0; k < call.tasks; ++k) {
            const int i = (first + k) % call.tasks;
            std::atomic<unsigned long>& taken = taken_[static_cast<std::size_t>(i)];
            unsigned long by = taken;
            if (by >= call.number || !taken.compare_exchange_strong(by, call.number)) continue;
            (*call.task)(i);
            if (++finished_ == call.tasks && place > 0) {
                // Who waits has looked, or has yet to look, at what was changed before.
                { const std::lock_guard<std::mutex> lock(mutex_); }
                done_.notify_all();
            }
        }
    }

    std::mutex caller_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::unique_ptr<Worker>> workers_;
    // The call under way, or the last one; its number is odd while it is being written.
    std::atomic<unsigned long> number_{0};
    std::atomic<const std::function<void(int)>*> task_{nullptr};
    std::atomic<int> tasks_{0}, threads_{0};
    // The last call that took each task, and how many tasks have ended.
    std::array<std::atomic<unsigned long>, most_tasks> taken_{};
    std::atomic<int> finished_{0};
    std::atomic<int> asleep_{0};
};

// The threads of a forked process are gone with the parent's: it gets a pool of its own, and the
// inherited one, whose locks may be held for ever, is left alone. A pool lives as long as its process:
// its threads may still be at work for another thread of the interpreter at exit.
Pool& pool() {
    static std::mutex mutex;
    static std::atomic<Pool*> current{nullptr};
    static std::atomic<long> owner{-1};
    if (owner != process_id()) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (owner != process_id()) {
            current = new Pool;
            owner = process_id();
        }
    }
    return *current;
}

}  // namespace

int get_num_threads() { return most_threads; }

void set_num_threads(int threads) { most_threads = threads; }

void run_tasks(int tasks, int threads, const std::function<void(int)>& task) {
    if (threads > 1 && pool().run(tasks, threads, task)) return;
    for (int i = 0; i < tasks; ++i) task(i);
}

}  // namespace hmatrix
