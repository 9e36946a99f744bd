// The functions and classes that Python sees.
#include <algorithm>

#include <nanobind/stl/vector.h>

#include "heads/head.hpp"
#include "python/arrays.hpp"
#include "product/checks.hpp"
#include "product/rounding.hpp"
#include "python/tensor_product.hpp"
#include "product/threads.hpp"

using namespace nb::literals;

namespace hmatrix {
namespace {

// A head together with the arrays that it views; whoever makes it keeps the coarse matrix alive.
class OwningHead {
public:
    OwningHead(const std::string& instruction_set, const nb::dict& arrays, const OwningPlan<float>* matrix)
        : refine_(refine_of(find(instruction_set))), checked_(viewed(arrays, matrix)), head_(checked_.head()) {}

    template <std::size_t Dimensions>
    void outputs(const Array<const float, Dimensions>& x, const Array<float, Dimensions>& y) const {
        const std::size_t batch = Dimensions == 1 ? 1 : x.shape(0);
        require(x.shape(Dimensions - 1) == columns() && y.shape(Dimensions - 1) == static_cast<std::size_t>(head_.rows) &&
                    (Dimensions == 1 || y.shape(0) == batch),
                "x and y must have the shapes of the product");
        const nb::gil_scoped_release release;
        head_outputs(refine_, head_, x.data(), y.data(), static_cast<std::ptrdiff_t>(batch));
    }

    // Addresses of x and y, contiguous, and how many vectors there are; whoever calls has checked them.
    void multiply_at(std::uintptr_t x, std::uintptr_t y, std::ptrdiff_t batch) const {
        const nb::gil_scoped_release release;
        head_outputs(refine_, head_, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), batch);
    }

    void largest(const Array<const float, 2>& x, const Array<float, 2>& values, const Array<std::int64_t, 2>& indices,
                 const std::optional<Array<std::int64_t, 1>>& counts) const {
        const std::size_t batch = x.shape(0), top = values.shape(1);
        require(x.shape(1) == columns() && values.shape(0) == batch && indices.shape(0) == batch && top >= 1 &&
                    top <= static_cast<std::size_t>(head_.rows) && indices.shape(1) == top &&
                    (!counts || counts->shape(0) == batch),
                "x, values, indices and counts must have the shapes of the largest outputs");
        const nb::gil_scoped_release release;
        head_largest(refine_, head_, x.data(), static_cast<std::int32_t>(top), values.data(), indices.data(),
                     counts ? counts->data() : nullptr, static_cast<std::ptrdiff_t>(batch));
    }

    void largest_one(const Array<const float, 1>& x, const Array<float, 1>& values,
                     const Array<std::int64_t, 1>& indices) const {
        const std::size_t top = values.shape(0);
        require(x.shape(0) == columns() && top >= 1 && top <= static_cast<std::size_t>(head_.rows) &&
                    indices.shape(0) == top,
                "x, values and indices must have the shapes of the largest outputs");
        const nb::gil_scoped_release release;
        head_largest(refine_, head_, x.data(), static_cast<std::int32_t>(top), values.data(), indices.data(), nullptr, 1);
    }

private:
    HeadArrays viewed(const nb::dict& arrays, const OwningPlan<float>* matrix) {
        HeadArrays views{};
        view(arrays, "sizes", views.sizes);
        view(arrays, "limits", views.limits);
        view(arrays, "basis", views.basis);
        view(arrays, "basis_scales", views.basis_scales);
        view(arrays, "weights", views.weights);
        view(arrays, "factor", views.factor);
        view(arrays, "factor_scales", views.factor_scales);
        view(arrays, "bias", views.bias);
        view(arrays, "remainder", views.remainder);
        view(arrays, "reach", views.reach);
        view(arrays, "cluster_limits", views.cluster_limits);
        view(arrays, "cluster_factor", views.cluster_factor);
        view(arrays, "cluster_scales", views.cluster_scales);
        view(arrays, "cluster_bias", views.cluster_bias);
        view(arrays, "cluster_remainder", views.cluster_remainder);
        view(arrays, "cluster_reach", views.cluster_reach);
        view(arrays, "order", views.order);
        view(arrays, "starts", views.starts);
        view(arrays, "fine", views.fine);
        view(arrays, "fine_scales", views.fine_scales);
        views.matrix = matrix ? &matrix->plan() : nullptr;
        return views;
    }

    // Views the array of that name, and keeps it.
    template <class T>
    void view(const nb::dict& arrays, const char* name, View<T>& view) {
        Array<const T, 1> array;
        if (!arrays.contains(name) || !nb::try_cast(arrays[name], array, false))
            throw nb::type_error((std::string("arrays of a head: ") + name + " is missing, or of another type").c_str());
        view = {array.data(), array.shape(0)};
        kept_.emplace_back(array.handle());
    }

    std::size_t columns() const { return static_cast<std::size_t>(head_.columns); }

    Refine refine_;
    std::vector<nb::ndarray<>> kept_;
    CheckedHead checked_;
    const Head& head_;
};

void bind_head(nb::module_& module) {
    nb::class_<OwningHead>(module, "ProgressiveHead")
        .def(nb::init<const std::string&, const nb::dict&, const OwningPlan<float>*>(), "instruction_set"_a, "arrays"_a,
             nb::arg("matrix").none(), nb::keep_alive<1, 4>())
        .def("multiply_at", &OwningHead::multiply_at, "x"_a, "y"_a, "batch"_a)
        .def("multiply", &OwningHead::outputs<1>, nb::arg("x").noconvert(), nb::arg("y").noconvert())
        .def("multiply_batch", &OwningHead::outputs<2>, nb::arg("x").noconvert(), nb::arg("y").noconvert())
        .def("largest_one", &OwningHead::largest_one, nb::arg("x").noconvert(), nb::arg("values").noconvert(),
             nb::arg("indices").noconvert())
        .def("largest", &OwningHead::largest, nb::arg("x").noconvert(), nb::arg("values").noconvert(),
             nb::arg("indices").noconvert(), nb::arg("counts").noconvert().none());
}

template <class T>
void bind_plan(nb::module_& module, const char* name) {
    using P = OwningPlan<T>;
    nb::class_<P>(module, name)
        .def(nb::init<const std::string&, std::pair<std::int32_t, std::int32_t>, std::int32_t,
                      Array<const Word<T>, 1>, const Tables&, const Tables&,
                      const std::optional<Array<const std::int32_t, 2>>&, Permutation, Permutation>(),
             "instruction_set"_a, "shape"_a, "intermediate"_a, nb::arg("data").noconvert(), "far"_a, "near"_a,
             nb::arg("segments").none(), nb::arg("row_permutation").none(), nb::arg("column_permutation").none())
        .def("multiply_at", &P::multiply_at, "x"_a, "y"_a, "batch"_a, "bias"_a)
        .def("rows_at", &P::rows_at, "indices"_a, "y"_a, "count"_a)
        .def("multiply", &P::template multiply<false, 1>, nb::arg("x").noconvert(), nb::arg("y").noconvert())
        .def("multiply_batch", &P::template multiply<false, 2>, nb::arg("x").noconvert(), nb::arg("y").noconvert())
        .def("multiply_transposed", &P::template multiply<true, 1>, nb::arg("x").noconvert(),
             nb::arg("y").noconvert())
        .def("multiply_transposed_batch", &P::template multiply<true, 2>, nb::arg("x").noconvert(),
             nb::arg("y").noconvert());
}

template <class T>
bool is(const Array<T, 2>& array, std::size_t rows, std::size_t columns) {
    return array.shape(0) == rows && array.shape(1) == columns;
}

// Windows of the words (rows, visits) that leave the least error; see trellis.hpp.
void encode(const std::string& instruction_set, std::uint8_t precision, const Array<const float, 2>& target,
            const std::optional<Array<const float, 2>>& owed, const std::optional<Array<const float, 2>>& root,
            const Array<const std::uint8_t, 1>& present, int tries, const Array<std::uint8_t, 2>& windows) {
    const auto of = static_cast<Precision>(precision);
    require(is_trellis(of), "the precision has no trellis");
    const std::size_t rows = target.shape(0), visits = static_cast<std::size_t>(columns_per_word(of));
    require(is(target, rows, visits) && is(windows, rows, visits) && present.shape(0) == visits && tries > 0 &&
                owed.has_value() == root.has_value() && (!owed || (is(*owed, rows, visits) && is(*root, visits, visits))),
            "target, owed, root, present and windows must have the shapes of words");
    const auto encode_words = find(instruction_set).encode_words;
    const nb::gil_scoped_release release;
    // A multiple of the rows that fill a register.
    const std::size_t height = 64 * (1 + rows / (64 * std::size_t{most_tasks}));
    const int tasks = static_cast<int>((rows + height - 1) / height);
    run_tasks(tasks, std::min(tasks, get_num_threads()), [&](int task) {
        const std::size_t first = static_cast<std::size_t>(task) * height, at = first * visits;
        encode_words({of, static_cast<std::ptrdiff_t>(std::min(height, rows - first)), target.data() + at,
                      owed ? owed->data() + at : nullptr, root ? root->data() : nullptr, present.data(), tries},
                     windows.data() + at);
    });
}

// Values (rows, columns) of codes from the lowest to the highest; see rounding.hpp.
void round_columns(const Array<const float, 2>& target, const Array<const float, 2>& owed,
                   const Array<const float, 2>& root, float lowest, float highest, float zero,
                   const Array<float, 2>& values) {
    const std::size_t rows = target.shape(0), columns = target.shape(1);
    require(is(owed, rows, columns) && is(root, columns, columns) && is(values, rows, columns),
            "target, owed, root and values must have the shapes of some columns");
    const nb::gil_scoped_release release;
    round_evenly({static_cast<std::ptrdiff_t>(rows), static_cast<std::ptrdiff_t>(columns), target.data(), owed.data(),
                  root.data(), lowest, highest, zero},
                 values.data());
}

// Values of the windows of a precision whose values are looked up, in units of the scale.
std::vector<int> values(std::uint8_t precision) {
    const auto of = static_cast<Precision>(precision);
    require(is_looked_up(of), "the precision has no codebook");
    std::vector<int> values(codebook(of), codebook(of) + windows_of(of));
    for (int& value : values) value -= 128;
    return values;
}

}  // namespace
}  // namespace hmatrix

NB_MODULE(_core, module) {
    // Objects that outlive the interpreter do so because the process ends, not because they leak.
    nb::set_leak_warnings(false);
    module.doc() = "Native products with matrices in packed form";
    hmatrix::bind_plan<float>(module, "PlanFloat32");
    hmatrix::bind_plan<double>(module, "PlanFloat64");
    hmatrix::bind_head(module);
    hmatrix::bind_tensor_product<float>(module, "TensorProductFloat32");
    hmatrix::bind_tensor_product<double>(module, "TensorProductFloat64");
    module.def("instruction_sets", [] {
        std::vector<std::string> names;
        for (const auto* set : hmatrix::available()) names.emplace_back(set->name);
        return names;
    });
    module.def(
        "read",
        [](const std::string& instruction_set, const hmatrix::Array<const std::uint32_t, 1>& words) {
            const auto& set = hmatrix::find(instruction_set);
            const nb::gil_scoped_release release;
            return set.vectors.read(words.data(), words.shape(0));
        },
        "instruction_set"_a, nb::arg("words").noconvert());
    module.def("encode_words", &hmatrix::encode, "instruction_set"_a, "precision"_a, nb::arg("target").noconvert(),
               nb::arg("owed").noconvert().none(), nb::arg("root").noconvert().none(), nb::arg("present").noconvert(),
               "tries"_a, nb::arg("windows").noconvert());
    module.def("round_columns", &hmatrix::round_columns, nb::arg("target").noconvert(), nb::arg("owed").noconvert(),
               nb::arg("root").noconvert(), "lowest"_a, "highest"_a, "zero"_a, nb::arg("values").noconvert());
    module.def("codebook", &hmatrix::values, "precision"_a);
    module.def("get_num_threads", &hmatrix::get_num_threads);
    module.def("set_num_threads", &hmatrix::set_num_threads, "threads"_a);
}
