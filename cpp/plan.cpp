#include "plan.hpp"

#include <algorithm>
#include <memory>
#include <new>
#include <stdexcept>

#include "threads.hpp"

namespace hmatrix {
namespace {

// Rows of a batch that go through both stages together, so that the workspace stays bounded.
constexpr std::ptrdiff_t most_batch = 128;

// Entries times rows of the batch below which a further thread costs more than it saves.
constexpr std::int64_t work_per_thread = 1 << 19;

void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

void check_permutation(const std::int32_t* permutation, std::int32_t size) {
    if (permutation == nullptr) return;
    std::vector<bool> seen(static_cast<std::size_t>(size));
    for (std::int32_t i = 0; i < size; ++i) {
        require(0 <= permutation[i] && permutation[i] < size && !seen[permutation[i]], "permutation is none");
        seen[permutation[i]] = true;
    }
}

// Every panel lies in the data, and every run in the source; the panels cover the target in order.
void check_stage(const Stage& stage, std::int64_t data, std::int64_t source, std::int64_t target) {
    const auto run_count = static_cast<std::int64_t>(stage.runs.size());
    for (const Run& run : stage.runs)
        require(run.source >= 0 && run.length > 0 && run.source + std::int64_t{run.length} <= source,
                "a run lies outside the source");
    std::int64_t covered = 0;
    for (const Panel& panel : stage.panels) {
        require(panel.height > 0 && panel.height <= max_panel_height, "a panel has a bad height");
        require(panel.target == covered, "panels do not cover the target in order");
        covered += panel.height;
        require(panel.first_run >= 0 && panel.run_count >= 0 &&
                    panel.first_run + std::int64_t{panel.run_count} <= run_count,
                "a panel's runs lie outside the table");
        require(panel.offset >= 0 && panel.size >= 0 && panel.offset <= data && panel.size <= data - panel.offset,
                "a panel lies outside the data");
        std::int64_t width = 0;
        for (std::int32_t i = 0; i < panel.run_count; ++i) width += stage.runs[panel.first_run + i].length;
        require(width * panel.height == panel.size, "a panel's size is not that of its runs");
    }
    require(covered == target, "panels do not cover the target");
}

// Memory for one call: kept by each thread, so that a product does not allocate.
template <class T>
T* workspace(std::size_t entries) {
    constexpr std::size_t alignment = 64;
    struct Free {
        void operator()(T* p) const { ::operator delete(p, std::align_val_t{alignment}); }
    };
    thread_local std::unique_ptr<T, Free> memory;
    thread_local std::size_t capacity = 0;
    if (entries > capacity) {
        memory.reset(static_cast<T*>(::operator new(entries * sizeof(T), std::align_val_t{alignment})));
        capacity = entries;
    }
    return memory.get();
}

template <class T>
void gather(const T* x, const std::int32_t* permutation, std::ptrdiff_t size, T* y) {
    for (std::ptrdiff_t i = 0; i < size; ++i) y[i] = x[permutation[i]];
}

template <class T>
void scatter(const T* x, const std::int32_t* permutation, std::ptrdiff_t size, T* y) {
    for (std::ptrdiff_t i = 0; i < size; ++i) y[permutation[i]] = x[i];
}

std::int64_t entries(const Stage& stage) {
    if (stage.panels.empty()) return 0;
    return stage.panels.back().offset + stage.panels.back().size - stage.panels.front().offset;
}

// Splits the panels into `parts` runs of about the same number of entries; returns where part k begins.
std::size_t part_begin(const Stage& stage, int part, int parts) {
    if (stage.panels.empty() || part == 0) return 0;
    if (part == parts) return stage.panels.size();
    const std::int64_t begin = stage.panels.front().offset + entries(stage) / parts * part;
    const auto panel = std::lower_bound(stage.panels.begin(), stage.panels.end(), begin,
                                        [](const Panel& p, std::int64_t offset) { return p.offset < offset; });
    return static_cast<std::size_t>(panel - stage.panels.begin());
}

}  // namespace

template <class T>
Plan<T>::Plan(const InstructionSet& set, Packed<T> packed) : packed_(std::move(packed)) {
    if constexpr (std::is_same_v<T, float>)
        kernels_ = &set.float32;
    else
        kernels_ = &set.float64;
    const auto [rows, columns] = packed_.shape;
    require(rows > 0 && columns > 0 && packed_.intermediate >= 0, "the shape is not positive");
    check_stage(packed_.far, packed_.size, columns, packed_.intermediate);
    check_stage(packed_.near, packed_.size, std::int64_t{columns} + packed_.intermediate, rows);
    check_permutation(packed_.row_permutation, rows);
    check_permutation(packed_.column_permutation, columns);
}

template <class T>
void Plan<T>::run_stage(const Stage& stage, const Source<const T>& source, Rows<T> y, std::ptrdiff_t batch) const {
    const std::int64_t paying = entries(stage) * batch / work_per_thread;
    const auto most = std::min<std::int64_t>(get_num_threads(), static_cast<std::int64_t>(stage.panels.size()));
    const int parts = static_cast<int>(std::max<std::int64_t>(1, std::min(paying, most)));
    const auto part = [&](int k) {
        for (std::size_t i = part_begin(stage, k, parts), end = part_begin(stage, k + 1, parts); i < end; ++i) {
            const Panel& panel = stage.panels[i];
            kernels_->forward(packed_.data, panel, stage.runs.data(), source, {y.base + panel.target, y.stride}, batch);
        }
    };
    if (parts == 1)
        part(0);
    else
        run_tasks(parts, part);
}

template <class T>
void Plan<T>::multiply(const T* x, T* y, std::ptrdiff_t batch) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const bool gathers = packed_.column_permutation != nullptr, scatters = packed_.row_permutation != nullptr;
    for (std::ptrdiff_t first = 0; first < batch; first += most_batch) {
        const std::ptrdiff_t count = std::min(most_batch, batch - first);
        T* const t = workspace<T>(static_cast<std::size_t>(count * (k + (gathers ? n : 0) + (scatters ? m : 0))));
        T* const ordered_x = t + count * k;
        T* const ordered_y = ordered_x + (gathers ? count * n : 0);
        const T* const xs = x + first * n;
        T* const ys = y + first * m;
        if (gathers)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                gather(xs + b * n, packed_.column_permutation, n, ordered_x + b * n);
        const Rows<const T> source{gathers ? ordered_x : xs, n};
        const Rows<T> target{scatters ? ordered_y : ys, m};
        run_stage(packed_.far, {source, source, packed_.shape.columns}, {t, k}, count);
        run_stage(packed_.near, {source, {t, k}, packed_.shape.columns}, target, count);
        if (scatters)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                scatter(ordered_y + b * m, packed_.row_permutation, m, ys + b * m);
    }
}

template <class T>
void Plan<T>::multiply_transposed(const T* x, T* y, std::ptrdiff_t batch) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const bool gathers = packed_.row_permutation != nullptr, scatters = packed_.column_permutation != nullptr;
    for (std::ptrdiff_t first = 0; first < batch; first += most_batch) {
        const std::ptrdiff_t count = std::min(most_batch, batch - first);
        T* const t = workspace<T>(static_cast<std::size_t>(count * (k + (gathers ? m : 0) + (scatters ? n : 0))));
        T* const ordered_x = t + count * k;
        T* const ordered_y = ordered_x + (gathers ? count * m : 0);
        const T* const xs = x + first * m;
        T* const ys = y + first * n;
        if (gathers)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                gather(xs + b * m, packed_.row_permutation, m, ordered_x + b * m);
        const Rows<const T> source{gathers ? ordered_x : xs, m};
        const Rows<T> target{scatters ? ordered_y : ys, n};
        std::fill(t, t + count * k, T{0});
        std::fill(target.base, target.base + count * n, T{0});
        // The stages in reverse; both add to what is there, so the panels follow each other on one thread.
        for (const Panel& panel : packed_.near.panels)
            kernels_->transposed(packed_.data, panel, packed_.near.runs.data(), {source.base + panel.target, m},
                                 {target, {t, k}, packed_.shape.columns}, count);
        for (const Panel& panel : packed_.far.panels)
            kernels_->transposed(packed_.data, panel, packed_.far.runs.data(), {t + panel.target, k},
                                 {target, target, packed_.shape.columns}, count);
        if (scatters)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                scatter(ordered_y + b * n, packed_.column_permutation, n, ys + b * n);
    }
}

template class Plan<float>;
template class Plan<double>;

}  // namespace hmatrix
