// A packed matrix in a case, and the plan that views it: data, offsets, panels and runs of both stages, segments, both
// permutations (empty for none).
#pragma once

#include "product/plan.hpp"
#include "tests/case.hpp"

namespace {

template <class T>
class CasePlan {
public:
    CasePlan(const hmatrix::InstructionSet& set, hmatrix::Shape shape, std::int32_t intermediate, std::ifstream& file)
        : data_(read<hmatrix::Word<T>>(file)),
          far_(read_stage(file)),
          near_(read_stage(file)),
          segments_(read_segments(file)),
          rows_(read<std::int32_t>(file)),
          columns_(read<std::int32_t>(file)),
          plan_(set, {shape, intermediate, data_.data(), static_cast<std::int64_t>(data_.size()), far_, near_, segments_,
                      rows_.empty() ? nullptr : rows_.data(), columns_.empty() ? nullptr : columns_.data()}) {}
    CasePlan(const CasePlan&) = delete;
    CasePlan& operator=(const CasePlan&) = delete;

    const hmatrix::Plan<T>& plan() const { return plan_; }

private:
    static hmatrix::Stage read_stage(std::ifstream& file) {
        const auto offsets = read<std::int64_t>(file);
        const auto panels = read<std::int32_t>(file);
        const auto runs = read<std::int32_t>(file);
        return hmatrix::make_stage(offsets.data(), panels.data(), offsets.size(), runs.data(), runs.size() / 4);
    }

    static std::vector<hmatrix::Segment> read_segments(std::ifstream& file) {
        const auto table = read<std::int32_t>(file);
        std::vector<hmatrix::Segment> segments;
        for (std::size_t i = 0; i < table.size(); i += 2) segments.push_back({table[i], table[i + 1], 0});
        return segments;
    }

    std::vector<hmatrix::Word<T>> data_;
    hmatrix::Stage far_, near_;
    std::vector<hmatrix::Segment> segments_;
    std::vector<std::int32_t> rows_, columns_;
    hmatrix::Plan<T> plan_;
};

}  // namespace
