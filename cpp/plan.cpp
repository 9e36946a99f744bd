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

// Words times rows of the batch below which a further thread costs more than it saves.
constexpr std::int64_t work_per_thread = 1 << 19;

// Columns of a run of integer codes at most, so that its sums stay within 32 bits.
constexpr std::int32_t longest_run = 1 << 14;

constexpr std::size_t alignment = 64;

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

// Every panel lies in the data, from `offset` on and in order, and every run in the source; the panels cover
// the target in order.
template <class T>
void check_stage(const Stage& stage, const Packed<T>& packed, std::int64_t source, std::int64_t target,
                 std::int64_t offset) {
    const auto run_count = static_cast<std::int64_t>(stage.runs.size());
    const auto segment_count = static_cast<std::int64_t>(packed.segments.size());
    for (const Run& run : stage.runs) {
        require(run.source >= 0 && run.length > 0 && run.source + std::int64_t{run.length} <= source,
                "a run lies outside the source");
        // A run reads x or t, which are two arrays.
        require(run.source >= packed.shape.columns || run.source + std::int64_t{run.length} <= packed.shape.columns,
                "a run crosses from x into t");
        require((run.precision == Precision::float64) == std::is_same_v<T, double>, "a run has the wrong precision");
        require(is_integer(run.precision) || (!run.begins && !run.ends && run.segment < 0), "a run has scales in vain");
        if (!is_integer(run.precision)) continue;
        require(segment_count == 0 ? run.segment == -1 : 0 <= run.segment && run.segment < segment_count,
                "a run has no segment");
        if (run.segment < 0) continue;
        const Segment& segment = packed.segments[static_cast<std::size_t>(run.segment)];
        require(segment.source == run.source && segment.length == run.length, "a run is not its segment");
        require(run.length <= longest_run, "a run is too long");
    }
    std::int64_t covered = 0;
    for (const Panel& panel : stage.panels) {
        require(panel.height > 0 && panel.height <= max_panel_height, "a panel has a bad height");
        require(panel.target == covered, "panels do not cover the target in order");
        covered += panel.height;
        require(panel.first_run >= 0 && panel.run_count >= 0 &&
                    panel.first_run + std::int64_t{panel.run_count} <= run_count,
                "a panel's runs lie outside the table");
        std::int64_t words = 0;
        bool in_group = false;
        for (std::int32_t i = 0; i < panel.run_count; ++i) {
            const Run& run = stage.runs[static_cast<std::size_t>(panel.first_run + i)];
            words += run.words();
            if (is_integer(run.precision)) {
                require(run.begins != in_group, "groups do not follow each other");
                in_group = !run.ends;
            } else {
                require(!in_group, "a group does not end");
            }
        }
        require(!in_group, "a group does not end");
        // Threads share the panels by their places in the data.
        require(panel.offset >= offset, "panels do not lie in the data in order");
        offset = panel.offset;
        require(panel.offset <= packed.size && words * panel.height <= packed.size - panel.offset,
                "a panel lies outside the data");
    }
    require(covered == target, "panels do not cover the target");
}

// Returns the bytes of the quantised source.
template <class T>
std::int64_t place_segments(Packed<T>& packed) {
    const std::int64_t source = std::int64_t{packed.shape.columns} + packed.intermediate;
    std::int64_t offset = 0;
    for (Segment& segment : packed.segments) {
        require(segment.source >= 0 && segment.length > 0 && segment.source + std::int64_t{segment.length} <= source,
                "a segment lies outside the source");
        require(segment.source >= packed.shape.columns ||
                    segment.source + std::int64_t{segment.length} <= packed.shape.columns,
                "a segment crosses from x into t");
        segment.offset = offset;
        offset += (segment.length + segment_padding - 1) / segment_padding * segment_padding;
    }
    return offset;
}

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

template <class T>
void gather(const T* x, const std::int32_t* permutation, std::ptrdiff_t size, T* y) {
    for (std::ptrdiff_t i = 0; i < size; ++i) y[i] = x[permutation[i]];
}

template <class T>
void scatter(const T* x, const std::int32_t* permutation, std::ptrdiff_t size, T* y) {
    for (std::ptrdiff_t i = 0; i < size; ++i) y[permutation[i]] = x[i];
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

}  // namespace

Stage make_stage(const std::int64_t* offsets, const std::int32_t* panels, std::size_t panel_count,
                 const std::int32_t* runs, std::size_t run_count) {
    Stage stage;
    for (const std::int32_t* run = runs; run != runs + 4 * run_count; run += 4) {
        const std::int32_t flags = run[3], precision = flags & 15;
        require(flags >= 0 && flags < 64 && precision <= static_cast<std::int32_t>(Precision::int2),
                "a run has unknown flags");
        stage.runs.push_back(
            {run[0], run[1], run[2], static_cast<Precision>(precision), (flags & 16) != 0, (flags & 32) != 0});
    }
    for (std::size_t i = 0; i < panel_count; ++i, panels += 4)
        stage.panels.push_back({offsets[i], panels[0], panels[1], panels[2], panels[3]});
    return stage;
}

template <class T>
Plan<T>::Plan(const InstructionSet& set, Packed<T> packed) : packed_(std::move(packed)), set_(&set) {
    if constexpr (std::is_same_v<T, float>)
        kernels_ = &set.float32;
    else
        kernels_ = &set.float64;
    const auto [rows, columns] = packed_.shape;
    require(rows > 0 && columns > 0 && packed_.intermediate >= 0, "the shape is not positive");
    codes_ = place_segments(packed_);
    check_stage(packed_.far, packed_, columns, packed_.intermediate, 0);
    check_stage(packed_.near, packed_, std::int64_t{columns} + packed_.intermediate, rows,
                packed_.far.panels.empty() ? 0 : packed_.far.panels.back().offset);
    check_permutation(packed_.row_permutation, rows);
    check_permutation(packed_.column_permutation, columns);
}

template <class T>
void Plan<T>::run_stage(const Stage& stage, const Source<const T>& source, const Quantized& quantized, Rows<T> y,
                        std::ptrdiff_t batch) const {
    if (stage.panels.empty()) return;
    const std::int64_t end = &stage == &packed_.far ? packed_.near.panels.front().offset : packed_.size;
    const std::int64_t paying = (end - stage.panels.front().offset) * batch / work_per_thread;
    const auto most = std::min<std::int64_t>(get_num_threads(), static_cast<std::int64_t>(stage.panels.size()));
    const int parts = static_cast<int>(std::max<std::int64_t>(1, std::min(paying, most)));
    const auto part = [&](int k) {
        const std::size_t last = part_begin(stage, end, k + 1, parts);
        for (std::size_t i = part_begin(stage, end, k, parts); i < last; ++i) {
            const Panel& panel = stage.panels[i];
            kernels_->forward(packed_.data + panel.offset, panel, stage.runs.data(), source, quantized,
                              {y.base + panel.target, y.stride}, batch);
        }
    };
    if (parts == 1)
        part(0);
    else
        run_tasks(parts, part);
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
                set_->quantize(rows.row(b), segment.length, quantized.codes.row(b) + segment.offset,
                               quantized.steps.row(b) + i, quantized.sums.row(b) + i);
        }
    }
}

template <class T>
void Plan<T>::multiply(const T* x, T* y, std::ptrdiff_t batch) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const bool gathers = packed_.column_permutation != nullptr, scatters = packed_.row_permutation != nullptr;
    const auto segments = static_cast<std::ptrdiff_t>(packed_.segments.size());
    const std::ptrdiff_t most = std::min(batch, most_batch);
    Layout layout;
    const std::size_t t_at = layout.add<T>(most * k), x_at = layout.add<T>(gathers ? most * n : 0),
                      y_at = layout.add<T>(scatters ? most * m : 0), codes_at = layout.add<std::int8_t>(most * codes_),
                      steps_at = layout.add<float>(most * segments),
                      sums_at = layout.add<std::int32_t>(most * segments);
    std::byte* const memory = workspace(layout.size());
    const Rows<T> t{reinterpret_cast<T*>(memory + t_at), k};
    T* const ordered_x = reinterpret_cast<T*>(memory + x_at);
    T* const ordered_y = reinterpret_cast<T*>(memory + y_at);
    const Quantized quantized{{reinterpret_cast<std::int8_t*>(memory + codes_at), codes_},
                              {reinterpret_cast<float*>(memory + steps_at), segments},
                              {reinterpret_cast<std::int32_t*>(memory + sums_at), segments},
                              packed_.segments.data()};
    for (std::ptrdiff_t first = 0; first < batch; first += most_batch) {
        const std::ptrdiff_t count = std::min(most_batch, batch - first);
        const T* const xs = x + first * n;
        T* const ys = y + first * m;
        if (gathers)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                gather(xs + b * n, packed_.column_permutation, n, ordered_x + b * n);
        const Source<const T> source{{gathers ? ordered_x : xs, n}, {t.base, k}, packed_.shape.columns};
        quantize(source, quantized, false, count);
        run_stage(packed_.far, source, quantized, t, count);
        quantize(source, quantized, true, count);
        run_stage(packed_.near, source, quantized, {scatters ? ordered_y : ys, m}, count);
        if (scatters)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                scatter(ordered_y + b * m, packed_.row_permutation, m, ys + b * m);
    }
}

template <class T>
void Plan<T>::multiply_transposed(const T* x, T* y, std::ptrdiff_t batch) const {
    const std::ptrdiff_t m = packed_.shape.rows, n = packed_.shape.columns, k = packed_.intermediate;
    const bool gathers = packed_.row_permutation != nullptr, scatters = packed_.column_permutation != nullptr;
    const std::ptrdiff_t most = std::min(batch, most_batch);
    Layout layout;
    const std::size_t t_at = layout.add<T>(most * k), x_at = layout.add<T>(gathers ? most * m : 0),
                      y_at = layout.add<T>(scatters ? most * n : 0);
    std::byte* const memory = workspace(layout.size());
    T* const t = reinterpret_cast<T*>(memory + t_at);
    T* const ordered_x = reinterpret_cast<T*>(memory + x_at);
    T* const ordered_y = reinterpret_cast<T*>(memory + y_at);
    for (std::ptrdiff_t first = 0; first < batch; first += most_batch) {
        const std::ptrdiff_t count = std::min(most_batch, batch - first);
        const T* const xs = x + first * m;
        T* const ys = y + first * n;
        if (gathers)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                gather(xs + b * m, packed_.row_permutation, m, ordered_x + b * m);
        const T* const source = gathers ? ordered_x : xs;
        const Source<T> target{{scatters ? ordered_y : ys, n}, {t, k}, packed_.shape.columns};
        std::fill(t, t + count * k, T{0});
        std::fill(target.x.base, target.x.base + count * n, T{0});
        // The stages in reverse; both add to what is there, so the panels follow each other on one thread.
        for (const Panel& panel : packed_.near.panels)
            kernels_->transposed(packed_.data + panel.offset, panel, packed_.near.runs.data(),
                                 {source + panel.target, m}, target, count);
        for (const Panel& panel : packed_.far.panels)
            kernels_->transposed(packed_.data + panel.offset, panel, packed_.far.runs.data(), {t + panel.target, k},
                                 target, count);
        if (scatters)
            for (std::ptrdiff_t b = 0; b < count; ++b)
                scatter(ordered_y + b * n, packed_.column_permutation, n, ys + b * n);
    }
}

template class Plan<float>;
template class Plan<double>;

}  // namespace hmatrix
