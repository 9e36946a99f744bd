#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
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
#endif
}

// Waits for `ready`: at first busily, since the next product often follows at once, then asleep.
template <class Ready>
void spin(Ready&& ready, int rounds = 2000) {
    for (int i = 0; i < rounds && !ready(); ++i) pause();
}

class Pool {
public:
    // Returns false, having done nothing, when another call is under way.
    bool run(int tasks, const std::function<void(int)>& task) {
        const std::unique_lock<std::mutex> alone(caller_, std::try_to_lock);
        if (!alone.owns_lock()) return false;
        while (static_cast<int>(workers_.size()) < tasks - 1) {
            const int number = static_cast<int>(workers_.size()) + 1;
            workers_.emplace_back([this, number, seen = generation_.load()] { work(number, seen); });
        }
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            task_ = &task;
            tasks_ = tasks;
            pending_ = static_cast<int>(workers_.size());
            ++generation_;
        }
        wake_.notify_all();
        task(0);
        spin([this] { return pending_ == 0; });
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return pending_ == 0; });
        return true;
    }

private:
    void work(int number, unsigned long seen) {
        for (;;) {
            spin([&] { return generation_ != seen; });
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return generation_ != seen; });
            seen = generation_;
            const auto* task = task_;
            const int tasks = tasks_;
            lock.unlock();
            if (number < tasks) (*task)(number);
            lock.lock();
            if (--pending_ == 0) done_.notify_all();
        }
    }

    std::mutex caller_, mutex_;
    std::condition_variable wake_, done_;
    std::vector<std::thread> workers_;
    const std::function<void(int)>* task_ = nullptr;
    int tasks_ = 0;
    std::atomic<int> pending_{0};
    std::atomic<unsigned long> generation_{0};
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

void run_tasks(int tasks, const std::function<void(int)>& task) {
    if (tasks > 1 && pool().run(tasks, task)) return;
    for (int i = 0; i < tasks; ++i) task(i);
}

}  // namespace hmatrix
