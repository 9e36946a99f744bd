#include "heads/progressive.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "product/plan.hpp"
#include "heads/ties.hpp"

namespace hmatrix {
namespace {

// A thread is woken for this many coefficients of coarse products.
constexpr std::int64_t least_work = 1 << 18;

// Coefficients of one coarse product, at least.
std::int64_t coarse_work(const Head& head) {
    if (head.matrix) return head.matrix->words();
    const std::int32_t looked_at = head.clusters.rows > 0 ? head.clusters.rows : head.rows;
    return std::int64_t{head.rank} * (looked_at + head.columns);
}

// Calls each(sample, workspace, threads) for the samples of a batch, shared among the threads; where all samples are
// one thread's, a coarse product may be shared.
template <class F>
void for_samples(const Head& head, std::ptrdiff_t batch, F&& each) {
    const std::int64_t work = batch * std::max<std::int64_t>(1, coarse_work(head));
    const auto tasks = static_cast<int>(
        std::max<std::int64_t>(1, std::min<std::int64_t>({get_num_threads(), batch, work / least_work})));
    const auto run = [&](int task) {
        thread_local Workspace workspace;
        workspace.fit(head);
        for (std::ptrdiff_t b = batch * task / tasks; b < batch * (task + 1) / tasks; ++b)
            each(b, workspace, tasks == 1 ? get_num_threads() : 1);
    };
    if (tasks == 1)
        run(0);
    else
        run_tasks(tasks, tasks, run);
}

// Refines one sample.
std::int32_t refine_sample(Refine refine, const Head& head, const float* x, std::int32_t top, Workspace& work,
                           int threads) {
    if (head.matrix) {
        head.matrix->multiply(x, work.coarse.data(), 1, threads);
        std::fill(work.coarse.begin() + head.rows, work.coarse.begin() + padded_to(head.rows, strip_height), 0.0f);
    }
    return refine(head, x, top, work);
}

// Outputs by rows where there are clusters: coarse ones, or that of the cluster where it was not looked into.
void spread_out(const Head& head, Workspace& work, float below, float* out) {
    const auto put = [&](std::int32_t place, float value) {
        if (head.order[place] >= 0) out[head.order[place]] = value < below ? value : below;
    };
    for (std::int32_t c = 0; c < head.clusters.rows; ++c) {
        const float output = work.cluster_outputs[c] - head.clusters.bias[c];
        for (std::int32_t p = head.starts[c] * strip_height; p < head.starts[c + 1] * strip_height; ++p)
            put(p, output + head.places.bias[p]);
    }
    std::int32_t i = 0;
    for (std::int32_t o = 0; o < work.opened_count; ++o)
        for (const std::int32_t end = i + (head.starts[work.opened[o] + 1] - head.starts[work.opened[o]]) * strip_height;
             i < end; ++i)
            put(work.place_at(head, i), work.coarse[i]);
}

}  // namespace

void Workspace::fit(const Head& head) {
    const auto grow = [](auto& vector, std::int32_t size) {
        if (vector.size() < static_cast<std::size_t>(size)) vector.resize(static_cast<std::size_t>(size));
    };
    const std::int32_t columns = padded_to(head.columns, block_columns), rank = padded_to(head.rank, strip_height),
                       rows = padded_to(head.rows, strip_height);
    grow(codes, columns);
    grow(rest, columns);
    grow(x, columns);
    grow(t, rank);
    // Quantising fills up whole segments.
    grow(inner_codes, padded_to(head.rank, static_cast<std::int32_t>(segment_padding)));
    const std::int32_t places = head.order ? head.starts[head.clusters.rows] * strip_height : rows,
                       clusters = padded_to(head.clusters.rows, strip_height);
    for (auto* vector : {&coarse, &upper, &refined, &sorted}) grow(*vector, places);
    grow(chosen, places);
    grow(strips, places / strip_height);
    for (auto* vector : {&cluster_outputs, &cluster_upper}) grow(*vector, clusters);
    grow(opened, clusters);
}

std::int32_t Workspace::drop_filling(const Head& head, std::int32_t begin, std::int32_t end) {
    const auto first = chosen.begin() + begin, last = chosen.begin() + end;
    const auto kept = std::remove_if(first, last, [&](std::int32_t i) { return row_at(head, i) < 0; });
    return static_cast<std::int32_t>(kept - chosen.begin());
}

void head_outputs(Refine refine, const Head& head, const float* x, float* y, std::ptrdiff_t batch) {
    for_samples(head, batch, [&](std::ptrdiff_t b, Workspace& work, int threads) {
        const std::int32_t count = refine_sample(refine, head, x + b * head.columns, head.top, work, threads);
        float* out = y + b * head.rows;
        if (count == 0) {
            std::fill_n(out, head.rows, std::numeric_limits<float>::quiet_NaN());
            return;
        }
        const auto largest = std::max_element(work.refined.begin(), work.refined.begin() + count) - work.refined.begin();
        const float best = work.refined[largest];
        const float below = std::nextafter(best, -std::numeric_limits<float>::infinity());
        const float* coarse = work.coarse.data();
        if (head.order)
            spread_out(head, work, below, out);
        else
            for (std::int32_t i = 0; i < head.rows; ++i) out[i] = coarse[i] < below ? coarse[i] : below;
        for (std::int32_t i = 0; i < count; ++i) out[work.row_at(head, work.chosen[i])] = work.refined[i];
        Refined(head, work, count).each_equal(static_cast<std::int32_t>(largest), [&](std::int32_t i) {
            out[work.row_at(head, work.chosen[i])] = best;
        });
    });
}

void head_largest(Refine refine, const Head& head, const float* x, std::int32_t top, float* values,
                  std::int64_t* indices, std::int64_t* counts, std::ptrdiff_t batch) {
    for_samples(head, batch, [&](std::ptrdiff_t b, Workspace& work, int threads) {
        const std::int32_t count =
            refine_sample(refine, head, x + b * head.columns, std::max(top, head.top), work, threads);
        if (counts) counts[b] = count;
        float* value = values + b * top;
        std::int64_t* index = indices + b * top;
        if (count == 0) {
            std::fill(value, value + top, std::numeric_limits<float>::quiet_NaN());
            std::iota(index, index + top, 0);
            return;
        }
        Refined(head, work, count).largest(top, value, index);
    });
}

}  // namespace hmatrix
