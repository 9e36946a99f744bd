// Checks of the plan's input, made once, so that no kernel needs to check anything.
#include "product/checks.hpp"

namespace hmatrix {
namespace {

// Columns of a run of integer codes at most, so that its sums stay within 32 bits.
constexpr std::int32_t longest_run = 1 << 14;

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

}  // namespace

template <class T>
std::int64_t check(Packed<T>& packed) {
    const auto [rows, columns] = packed.shape;
    require(rows > 0 && columns > 0 && packed.intermediate >= 0, "the shape is not positive");
    const std::int64_t codes = place_segments(packed);
    check_stage(packed.far, packed, columns, packed.intermediate, 0);
    check_stage(packed.near, packed, std::int64_t{columns} + packed.intermediate, rows,
                packed.far.panels.empty() ? 0 : packed.far.panels.back().offset);
    check_permutation(packed.row_permutation, rows);
    check_permutation(packed.column_permutation, columns);
    return codes;
}

template std::int64_t check(Packed<float>&);
template std::int64_t check(Packed<double>&);

Stage make_stage(const std::int64_t* offsets, const std::int32_t* panels, std::size_t panel_count,
                 const std::int32_t* runs, std::size_t run_count) {
    Stage stage;
    for (const std::int32_t* run = runs; run != runs + 4 * run_count; run += 4) {
        const std::int32_t flags = run[3], precision = flags & 15;
        require(flags >= 0 && flags < 64 && precision <= static_cast<std::int32_t>(last_precision),
                "a run has unknown flags");
        stage.runs.push_back(
            {run[0], run[1], run[2], static_cast<Precision>(precision), (flags & 16) != 0, (flags & 32) != 0});
    }
    for (std::size_t i = 0; i < panel_count; ++i, panels += 4)
        stage.panels.push_back({offsets[i], panels[0], panels[1], panels[2], panels[3]});
    return stage;
}

}  // namespace hmatrix
