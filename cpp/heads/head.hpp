// The arrays of a progressive head as they come from outside, each by its name, and the head that views them once they
// are checked. Names and order are those of src/hmatrix/heads/sizes.py, levels.py and packed_head.py; tests/heads/test_records.py
// compares them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "heads/progressive.hpp"

namespace hmatrix {

struct HeadSizes {
    std::int32_t rows;
    std::int32_t columns;
    std::int32_t rank;
    std::int32_t top;       // outputs that are to be the fine ones
    std::int32_t most;      // rows that are refined at most
    std::int32_t fine;      // the number of the fine rows' precision
    std::int32_t clusters;  // how many there are
    std::int32_t probes;    // clusters that are looked into first
    std::int32_t coarse;    // the number of the coarse factors' precision
    std::int32_t first;     // rows that are refined first
};

template <class T>
struct View {
    const T* data;
    std::size_t size;
};

struct HeadArrays {
    View<std::int32_t> sizes;  // a HeadSizes
    View<float> limits;        // a Bound, of the places
    View<std::uint32_t> basis;
    View<float> basis_scales;
    View<float> weights;
    View<std::uint32_t> factor;  // this and the next are the level of the places
    View<float> factor_scales;
    View<float> bias;
    View<float> remainder;
    View<float> reach;
    View<float> cluster_limits;  // this and the next are the level of the clusters
    View<std::uint32_t> cluster_factor;
    View<float> cluster_scales;
    View<float> cluster_bias;
    View<float> cluster_remainder;
    View<float> cluster_reach;
    View<std::int32_t> order;
    View<std::int32_t> starts;
    View<std::uint32_t> fine;
    View<float> fine_scales;
    const Plan<float>* matrix;  // outlives the head; or null
};

// A head that views such arrays; std::invalid_argument if they do not fit together. No index comes from outside then.
class CheckedHead {
public:
    explicit CheckedHead(const HeadArrays& arrays);
    CheckedHead(const CheckedHead&) = delete;
    CheckedHead& operator=(const CheckedHead&) = delete;

    const Head& head() const { return head_; }

private:
    void arrange(const View<std::int32_t>& order, const View<std::int32_t>& starts, std::int32_t clusters);

    Head head_{};
    std::vector<std::int32_t> counts_;
    std::vector<float> zeros_;
};

}  // namespace hmatrix
