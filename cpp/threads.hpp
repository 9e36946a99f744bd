// Threads that wait for work together. Which of them does what never changes the bits of a result.
#pragma once

#include <functional>

namespace hmatrix {

int get_num_threads();
void set_num_threads(int threads);

// Calls task(0) to task(tasks - 1), each once, and returns when all have ended; task(0) runs on the
// calling thread. Where the threads are busy with another call, all run on the calling thread.
void run_tasks(int tasks, const std::function<void(int)>& task);

}  // namespace hmatrix
