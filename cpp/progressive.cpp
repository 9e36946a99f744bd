#include "progressive.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "threads.hpp"

namespace hmatrix {
namespace {

// A thread is woken for this many coefficients of coarse products.
constexpr std::int64_t least_work = 1 << 18;

// Calls each(sample, workspace) for the samples of a batch, shared among the threads.
template <class F>
void for_samples(const Head& head, std::ptrdiff_t batch, F&& each) {
    const std::int64_t work = batch * std::max<std::int64_t>(1, std::int64_t{head.rank} * (head.rows + head.columns));
    const auto tasks = static_cast<int>(
        std::max<std::int64_t>(1, std::min<std::int64_t>({get_num_threads(), batch, work / least_work})));
    const auto run = [&](int task) {
        thread_local Workspace workspace;
        workspace.fit(head);
        for (std::ptrdiff_t b = batch * task / tasks; b < batch * (task + 1) / tasks; ++b) each(b, workspace);
    };
    if (tasks == 1)
        run(0);
    else
        run_tasks(tasks, tasks, run);
}

}  // namespace

void Workspace::fit(const Head& head) {
    const auto grow = [](auto& vector, std::int32_t size) {
        if (vector.size() < static_cast<std::size_t>(size)) vector.resize(static_cast<std::size_t>(size));
    };
    const std::int32_t columns = padded_to(head.columns, block_columns), rank = padded_to(head.rank, strip_height),
                       rows = padded_to(head.rows, strip_height);
    grow(codes, columns);
    grow(x, columns);
    grow(t, rank);
    // Quantising fills up whole segments.
    grow(inner_codes, padded_to(head.rank, static_cast<std::int32_t>(segment_padding)));
    for (auto* vector : {&coarse, &upper, &refined}) grow(*vector, rows);
    grow(chosen, rows);
}

void head_outputs(Refine refine, const Head& head, const float* x, float* y, std::ptrdiff_t batch) {
    for_samples(head, batch, [&](std::ptrdiff_t b, Workspace& work) {
        const std::int32_t count = refine(head, x + b * head.columns, head.top, work);
        float* out = y + b * head.rows;
        const float* coarse = work.coarse.data();
        if (count == 0) {
            std::copy(coarse, coarse + head.rows, out);
            return;
        }
        const float best = *std::max_element(work.refined.begin(), work.refined.begin() + count);
        const float below = std::nextafter(best, -std::numeric_limits<float>::infinity());
        for (std::int32_t i = 0; i < head.rows; ++i) out[i] = coarse[i] < below ? coarse[i] : below;
        for (std::int32_t i = 0; i < count; ++i) out[work.chosen[i]] = work.refined[i];
    });
}

void head_largest(Refine refine, const Head& head, const float* x, std::int32_t top, float* values,
                  std::int64_t* indices, std::int64_t* counts, std::ptrdiff_t batch) {
    for_samples(head, batch, [&](std::ptrdiff_t b, Workspace& work) {
        const std::int32_t count = refine(head, x + b * head.columns, std::max(top, head.top), work);
        if (counts) counts[b] = count;
        float* value = values + b * top;
        std::int64_t* index = indices + b * top;
        if (count == 0) {
            std::fill(value, value + top, std::numeric_limits<float>::quiet_NaN());
            std::iota(index, index + top, 0);
            return;
        }
        // Insertion: nearly all rows are less than the last of the largest.
        std::int32_t kept = 0;
        for (std::int32_t i = 0; i < count; ++i) {
            const float v = work.refined[i];
            const std::int32_t row = work.chosen[i];
            const auto before = [&](std::int32_t j) { return v > value[j] || (v == value[j] && row < index[j]); };
            if (kept == top && !before(top - 1)) continue;
            std::int32_t j = kept < top ? kept++ : top - 1;
            for (; j > 0 && before(j - 1); --j) value[j] = value[j - 1], index[j] = index[j - 1];
            value[j] = v, index[j] = row;
        }
    });
}

}  // namespace hmatrix
