// Arrays of Python as the kernels see them, and a plan together with those that it views.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>

#include "product/plan.hpp"

namespace nb = nanobind;

namespace hmatrix {

template <class T, std::size_t Dimensions>
using Array = nb::ndarray<T, nb::numpy, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
using Permutation = std::optional<Array<const std::int32_t, 1>>;
using Tables = std::tuple<Array<const std::int64_t, 1>, Array<const std::int32_t, 2>, Array<const std::int32_t, 2>>;

inline Stage make_stage(const Tables& tables) {
    const auto& [offsets, panels, runs] = tables;
    if (panels.shape(0) != offsets.shape(0) || panels.shape(1) != 4 || runs.shape(1) != 4)
        throw nb::value_error("tables of a stage: panels must be (panels, 4) and runs (runs, 4)");
    return hmatrix::make_stage(offsets.data(), panels.data(), panels.shape(0), runs.data(), runs.shape(0));
}

inline std::vector<Segment> make_segments(const std::optional<Array<const std::int32_t, 2>>& table) {
    std::vector<Segment> segments;
    if (table && table->shape(1) != 2) throw nb::value_error("segments must be (segments, 2)");
    for (std::size_t i = 0; table && i < table->shape(0); ++i)
        segments.push_back({(*table)(i, 0), (*table)(i, 1), 0});
    return segments;
}

// A plan together with the arrays that it views.
template <class T>
class OwningPlan {
public:
    OwningPlan(const std::string& instruction_set, std::pair<std::int32_t, std::int32_t> shape,
               std::int32_t intermediate, Array<const Word<T>, 1> data, const Tables& far, const Tables& near,
               const std::optional<Array<const std::int32_t, 2>>& segments, Permutation rows, Permutation columns)
        : data_(data),
          rows_(rows),
          columns_(columns),
          plan_(find(instruction_set),
                Packed<T>{{shape.first, shape.second},
                          intermediate,
                          data.data(),
                          static_cast<std::int64_t>(data.shape(0)),
                          make_stage(far),
                          make_stage(near),
                          make_segments(segments),
                          view(rows, shape.first),
                          view(columns, shape.second)}) {}

    const Plan<T>& plan() const { return plan_; }

    template <bool transposed, std::size_t Dimensions>
    void multiply(const Array<const T, Dimensions>& x, const Array<T, Dimensions>& y) const {
        const auto [m, n] = plan_.shape();
        const std::size_t batch = Dimensions == 1 ? 1 : x.shape(0);
        if (x.shape(Dimensions - 1) != static_cast<std::size_t>(transposed ? m : n) ||
            y.shape(Dimensions - 1) != static_cast<std::size_t>(transposed ? n : m) ||
            (Dimensions == 2 && y.shape(0) != batch))
            throw nb::value_error("x and y must have the shapes of the product");
        const nb::gil_scoped_release release;
        if constexpr (transposed)
            plan_.multiply_transposed(x.data(), y.data(), static_cast<std::ptrdiff_t>(batch));
        else
            plan_.multiply(x.data(), y.data(), static_cast<std::ptrdiff_t>(batch));
    }

    // y (batch, m) = x (batch, n) A^T + bias, contiguous; no bias if that is null. Without the lock of Python.
    void multiply(const T* x, T* y, std::ptrdiff_t batch, const T* bias) const {
        const nb::gil_scoped_release release;
        plan_.multiply(x, y, batch);
        if (bias == nullptr) return;
        const std::ptrdiff_t m = plan_.shape().rows;
        for (std::ptrdiff_t b = 0; b < batch; ++b)
            for (std::ptrdiff_t i = 0; i < m; ++i) y[b * m + i] += bias[i];
    }

    // The same by addresses, for callers that have checked their arrays.
    void multiply_at(std::uintptr_t x, std::uintptr_t y, std::ptrdiff_t batch, std::uintptr_t bias) const {
        multiply(reinterpret_cast<const T*>(x), reinterpret_cast<T*>(y), batch, reinterpret_cast<const T*>(bias));
    }

    // y (count, n) = the rows of A with indices (count,), by addresses, contiguous. Checks the indices first.
    void rows_at(std::uintptr_t indices, std::uintptr_t y, std::ptrdiff_t count) {
        const std::int64_t* const wanted = reinterpret_cast<const std::int64_t*>(indices);
        const std::int32_t m = plan_.shape().rows;
        if (std::any_of(wanted, wanted + count, [m](std::int64_t index) { return index < 0 || index >= m; }))
            throw nb::index_error("indices are out of range");
        std::vector<std::int32_t> positions(wanted, wanted + count);
        if (rows_) {
            if (tree_.empty()) {
                tree_.resize(static_cast<std::size_t>(m));
                for (std::int32_t i = 0; i < m; ++i) tree_[static_cast<std::size_t>((*rows_)(i))] = i;
            }
            for (std::int32_t& position : positions) position = tree_[static_cast<std::size_t>(position)];
        }
        const nb::gil_scoped_release release;
        plan_.rows(positions.data(), reinterpret_cast<T*>(y), count);
    }

private:
    static const std::int32_t* view(const Permutation& permutation, std::int32_t size) {
        if (!permutation) return nullptr;
        if (permutation->shape(0) != static_cast<std::size_t>(size))
            throw nb::value_error("a permutation must have one entry for each row or column");
        return permutation->data();
    }

    Array<const Word<T>, 1> data_;
    Permutation rows_, columns_;
    std::vector<std::int32_t> tree_;  // positions of rows, once some were asked for
    Plan<T> plan_;
};

}  // namespace hmatrix
