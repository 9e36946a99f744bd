// Threads that wait for work together. Which of them does what never changes the bits of a result.
#pragma once

#include <functional>

namespace hmatrix {

int get_num_threads();
void set_num_threads(int threads);

constexpr int most_tasks = 256;

// Calls task(0) to task(tasks - 1), each once, and returns when all have ended; at most `threads` threads take
// part, the calling one among them. Where they are busy with another call, all run on the calling thread.
void run_tasks(int tasks, int threads, const std::function<void(int)>& task);

}  // namespace hmatrix
