#include "product/plan.hpp"

#include <algorithm>
#include <iterator>
#include <memory>
#include <new>
#include <utility>

#include "product/checks.hpp"

namespace hmatrix {
namespace {

// Rows of a batch that go through both stages together, so that the workspace stays bounded.
constexpr std::ptrdiff_t most_batch = 128;

// Words times rows of the batch below which a further thread costs more than it saves.
constexpr std::int64_t work_per_thread = 1 << 18;

// Pieces that a stage is cut into for each thread.
constexpr int tasks_per_thread = 4;

// Words that a product which goes back over the panels still meets in their order: each jump to where a processor does
// not expect the next line costs some 50 ns.
constexpr std::int64_t least_stretch = 1 << 14;

constexpr std::size_t alignment = 64;

// Memory for one call: kept by each thread, so that a product does not allocate.
std::byte* workspace(std::size_t bytes) {
    struct Free {
        void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{alignment}); }
    };
    thread_local std::unique_ptr<std::byte, Free> memory;
    thread_local std::size_t capacity = 0;
    if (bytes > capacity) {
        memory.reset();
        capacity = 0;
        memory.reset(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{alignment})));
        capacity = bytes;
    }
    return memory.get();
}

// Arrays that follow each other in the workspace.
class Layout {
public:
    // Returns where an array of `count` elements of T begins.
    template <class T>
    std::size_t add(std::ptrdiff_t count) {
        const std::size_t offset = size_;
        size_ += (static_cast<std::size_t>(count) * sizeof(T) + alignment - 1) / alignment * alignment;
        return offset;
    }
    std::size_t size() const { return size_; }

private:
    std::size_t size_ = 0;
};

// One side of a product: rows of the user's batch, and a workspace for them in tree order where the two differ.
template <class T>
struct Side {
    T* rows;
    std::ptrdiff_t size;
    const std::int32_t* permutation;  // null: the identity
    std::remove_const_t<T>* ordered;
};

// Calls f(x, y, count) for at most most_batch rows at a time, both in tree order.
template <class T, class F>
void over_batch(const Side<const T>& x, const Side<T>& y, std::ptrdiff_t batch, F&& f) {
    for (std::ptrdiff_t first = 0; first < batch; first += most_batch) {
        const std::ptrdiff_t count = std::min(most_batch, batch - first);
        const T* const given = x.rows + first * x.size;
        T* const wanted = y.rows + first * y.size;
        if (x.permutation != nullptr)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                for (std::ptrdiff_t i = 0; i < x.size; ++i)
                    x.ordered[b * x.size + i] = given[b * x.size + x.permutation[i]];
        f(x.permutation != nullptr ? x.ordered : given, y.permutation != nullptr ? y.ordered : wanted, count);
        if (y.permutation != nullptr)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                for (std::ptrdiff_t i = 0; i < y.size; ++i)
                    wanted[b * y.size + y.permutation[i]] = y.ordered[b * y.size + i];
    }
}

// Splits the panels into `parts` of about the same number of words; returns where part k begins.
std::size_t part_begin(const Stage& stage, std::int64_t end, int part, int parts) {
    if (part == 0) return 0;
    if (part == parts) return stage.panels.size();
    const std::int64_t first = stage.panels.front().offset;
    const std::int64_t begin = first + (end - first) / parts * part;
    const auto panel = std::lower_bound(stage.panels.begin(), stage.panels.end(), begin,
                                        [](const Panel& p, std::int64_t offset) { return p.offset < offset; });
    return static_cast<std::size_t>(panel - stage.panels.begin());
}

// Where the stretch begins that ends before panel `last`.
std::size_t stretch_begin(const Stage& stage, std::size_t first, std::size_t last) {
    std::size_t begin = last - 1;
    while (begin > first && stage.panels[last - 1].offset - stage.panels[begin - 1].offset < least_stretch) --begin;
    return begin;
}

}  // namespace

template <class T>
Plan<T>::Plan(const InstructionSet& set, Packed<T> packed) : packed_(std::move(packed)), set_(&set) {
    if constexpr (std::is_same_v<T, float>)
        kernels_ = &set.float32;
    else
        kernels_ = &set.float64;
    codes_ = check(packed_);
}

template <class T>
void Plan<T>::run_stage(const Stage& stage, const Source<const T>& source, const Quantized& quantized, Rows<T> y,
                        std::ptrdiff_t batch, int most_threads, bool backwards) const {
    if (stage.panels.empty()) return;
    const std::int64_t end = &stage == &packed_.far ? packed_.near.panels.front().offset : packed_.size;
    const std::int64_t paying = (end - stage.panels.front().offset) * batch / work_per_thread;
    const auto most = std::min<std::int64_t>(most_threads, static_cast<std::int64_t>(stage.panels.size()));
    const int threads = static_cast<int>(std::max<std::int64_t>(1, std::min(paying, most)));
    const int parts = threads == 1 ? 1 : std::min(tasks_per_thread * threads, most_tasks);
    const auto part = [&](int k) {
        const std::size_t first = part_begin(stage, end, k, parts);
        for (std::size_t last = part_begin(stage, end, k + 1, parts); last > first;) {
            const std::size_t begin = backwards ? stretch_begin(stage, first, last) : first;
            for (std::size_t i = begin; i < last; ++i) {
                const Panel& panel = stage.panels[i];
                kernels_->forward(set_->looked_up, packed_.data + panel.offset, panel, stage.runs.data(), source, quantized,
                                  {y.base + panel.target, y.stride}, batch);
            }
            last = begin;
        }
    };
    if (parts == 1)
        part(0);
    else
        run_tasks(parts, threads, part);
}

template <class T>
void Plan<T>::quantize(const Source<const T>& source, const Quantized& quantized, bool of_t,
                       std::ptrdiff_t batch) const {
    if constexpr (std::is_same_v<T, float>) {
        for (std::size_t i = 0; i < packed_.segments.size(); ++i) {
            const Segment& segment = packed_.segments[i];
            if ((segment.source >= packed_.shape.columns) != of_t) continue;
            const Rows<const float> rows = source.at(segment.source);
            for (std::ptrdiff_t b = 0; b < batch; ++b)
                set_->vectors.quantize(rows.row(b), segment.length, quantized.codes.row(b) + segment.offset,
                               quantized.steps.row(b) + i, quantized.sums.row(b) + i);
        }
    }
}

template <class T>
void Plan<T>::multiply(const T* x, T* y, std::ptrdiff_t batch, int threads) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const std::int32_t *const gathered = packed_.column_permutation, *const scattered = packed_.row_permutation;
    const auto segments = static_cast<std::ptrdiff_t>(packed_.segments.size());
    const std::ptrdiff_t most = std::min(batch, most_batch);
    Layout layout;
    const std::size_t t_at = layout.add<T>(most * k), x_at = layout.add<T>(gathered ? most * n : 0),
                      y_at = layout.add<T>(scattered ? most * m : 0),
                      codes_at = layout.add<std::int8_t>(most * codes_), steps_at = layout.add<float>(most * segments),
                      sums_at = layout.add<std::int32_t>(most * segments);
    std::byte* const memory = workspace(layout.size());
    const Rows<T> t{reinterpret_cast<T*>(memory + t_at), k};
    const Quantized quantized{{reinterpret_cast<std::int8_t*>(memory + codes_at), codes_},
                              {reinterpret_cast<float*>(memory + steps_at), segments},
                              {reinterpret_cast<std::int32_t*>(memory + sums_at), segments},
                              packed_.segments.data()};
    const Side<const T> given{x, n, gathered, reinterpret_cast<T*>(memory + x_at)};
    const Side<T> wanted{y, m, scattered, reinterpret_cast<T*>(memory + y_at)};
    over_batch<T>(given, wanted, batch, [&](const T* xs, T* ys, std::ptrdiff_t count) {
        const Source<const T> source{{xs, n}, {t.base, k}, packed_.shape.columns};
        const bool backwards = backwards_.load(std::memory_order_relaxed);
        backwards_.store(!backwards, std::memory_order_relaxed);
        quantize(source, quantized, false, count);
        run_stage(packed_.far, source, quantized, t, count, threads, backwards);
        quantize(source, quantized, true, count);
        run_stage(packed_.near, source, quantized, {ys, m}, count, threads, backwards);
    });
}

template <class T>
void Plan<T>::multiply_transposed(const T* x, T* y, std::ptrdiff_t batch) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const std::int32_t *const gathered = packed_.row_permutation, *const scattered = packed_.column_permutation;
    const std::ptrdiff_t most = std::min(batch, most_batch);
    Layout layout;
    const std::size_t t_at = layout.add<T>(most * k), x_at = layout.add<T>(gathered ? most * m : 0),
                      y_at = layout.add<T>(scattered ? most * n : 0);
    std::byte* const memory = workspace(layout.size());
    T* const t = reinterpret_cast<T*>(memory + t_at);
    const Side<const T> given{x, m, gathered, reinterpret_cast<T*>(memory + x_at)};
    const Side<T> wanted{y, n, scattered, reinterpret_cast<T*>(memory + y_at)};
    over_batch<T>(given, wanted, batch, [&](const T* xs, T* ys, std::ptrdiff_t count) {
        const Source<T> target{{ys, n}, {t, k}, packed_.shape.columns};
        std::fill(t, t + count * k, T{0});
        std::fill(ys, ys + count * n, T{0});
        // The stages in reverse; both add to what is there, so the panels follow each other on one thread.
        for (const Panel& panel : packed_.near.panels)
            kernels_->transposed(set_->looked_up, packed_.data + panel.offset, panel, packed_.near.runs.data(),
                                 {xs + panel.target, m}, target, count);
        for (const Panel& panel : packed_.far.panels)
            kernels_->transposed(set_->looked_up, packed_.data + panel.offset, panel, packed_.far.runs.data(), {t + panel.target, k},
                                 target, count);
    });
}

template <class T>
void Plan<T>::rows(const std::int32_t* positions, T* y, std::ptrdiff_t count) const {
    const std::ptrdiff_t n = packed_.shape.columns, k = packed_.intermediate;
    const std::int32_t* const scattered = packed_.column_permutation;
    Layout layout;
    const std::size_t t_at = layout.add<T>(k), unit_at = layout.add<T>(max_panel_height),
                      y_at = layout.add<T>(scattered ? n : 0);
    std::byte* const memory = workspace(layout.size());
    T *const t = reinterpret_cast<T*>(memory + t_at), *const unit = reinterpret_cast<T*>(memory + unit_at);
    std::fill(unit, unit + max_panel_height, T{0});
    for (std::ptrdiff_t b = 0; b < count; ++b) {
        T* const wanted = y + b * n;
        T* const row = scattered ? reinterpret_cast<T*>(memory + y_at) : wanted;
        const Source<T> target{{row, n}, {t, k}, packed_.shape.columns};
        std::fill(t, t + k, T{0});
        std::fill(row, row + n, T{0});
        // A row is the transposed product with a unit vector, which one panel meets, and few of the factors.
        const Panel& panel = *std::prev(std::upper_bound(
            packed_.near.panels.begin(), packed_.near.panels.end(), positions[b],
            [](std::int32_t position, const Panel& other) { return position < other.target; }));
        T& entry = unit[positions[b] - panel.target];
        entry = T{1};
        kernels_->transposed(set_->looked_up, packed_.data + panel.offset, panel, packed_.near.runs.data(), {unit, 0}, target, 1);
        entry = T{0};
        for (const Panel& factors : packed_.far.panels) {
            const T* const first = t + factors.target;
            if (std::any_of(first, first + factors.height, [](T value) { return value != T{0}; }))
                kernels_->transposed(set_->looked_up, packed_.data + factors.offset, factors, packed_.far.runs.data(), {first, k}, target,
                                     1);
        }
        for (std::ptrdiff_t j = 0; scattered && j < n; ++j) wanted[scattered[j]] = row[j];
    }
}

template class Plan<float>;
template class Plan<double>;

}  // namespace hmatrix
