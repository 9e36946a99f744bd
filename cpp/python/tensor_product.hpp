// The product of a plan with tensors of a library of Python: the shortest way from a layer to the kernel.
#pragma once

#include <nanobind/stl/vector.h>

#include <functional>
#include <numeric>

#include "python/arrays.hpp"
#include "python/exchange.hpp"

namespace hmatrix {

// Questions to the tensors are the slow part of a product of some microseconds. They are asked here, once each,
// and whatever is out of the ordinary is left to others.
template <class T>
class TensorProduct {
public:
    // Name, tensor or None, and its version, which counts changes in place.
    using Other = std::tuple<nb::object, nb::object, std::int64_t>;

    // `plan` multiplies by the packed matrix of the words at an address and of `others`; `types` are those of tensors
    // that are nothing but tensors. Tensors may be asked for gradients if `recording` returns what is true, and have
    // tangents if `forward`, a module, is at some level. Nothing is multiplied here then, nor if one of `obstacles`
    // returns what is true.
    TensorProduct(nb::object plan, nb::handle exchange, std::vector<nb::object> types, nb::object recording,
                  nb::object forward, std::vector<nb::object> obstacles, std::uintptr_t words,
                  std::vector<Other> others)
        : keep_(plan), plan_(nb::cast<const OwningPlan<T>&>(plan)), exchange_(exchange), types_(std::move(types)),
          recording_(recording), forward_(forward), obstacles_(std::move(obstacles)), words_(words), others_(std::move(others)) {}

    // x A^T + bias, x (..., columns), bias (rows,) or None; None if that takes more than the kernel, or if `buffers` by
    // name are no longer the tensors that the plan was made of.
    nb::object multiply(nb::handle x, nb::handle bias, nb::dict buffers) const {
        const auto [m, n] = plan_.plan().shape();
        Exchange::View of_x, of_bias{};
        if (!is_plain(x) || is_obstructed() || !is_current(buffers)) return nb::none();
        if (!is_readable(x, of_x) || of_x.ndim < 1 || of_x.shape[of_x.ndim - 1] != n) return nb::none();
        const bool is_added = !bias.is_none();
        if (is_added && (!is_plain(bias) || !is_readable(bias, of_bias) || count(of_bias) != m)) return nb::none();
        if (is_true(ask(recording_)) && (is_true(x, requires_grad_) || (is_added && is_true(bias, requires_grad_))))
            return nb::none();
        T* y = nullptr;
        nb::object result = exchange_.make(of_x, m, y);
        plan_.multiply(data<T>(of_x), y, count(of_x, of_x.ndim - 1), is_added ? data<T>(of_bias) : nullptr);
        return result;
    }

private:
    static std::int64_t count(const Exchange::View& view) { return count(view, view.ndim); }

    // Over the first dimensions.
    static std::int64_t count(const Exchange::View& view, std::int32_t dimensions) {
        return std::accumulate(view.shape, view.shape + dimensions, std::int64_t{1}, std::multiplies<>{});
    }

    static bool is_contiguous(const Exchange::View& view) {
        std::int64_t stride = 1;
        for (std::int32_t i = view.ndim; i-- > 0; stride *= std::max<std::int64_t>(view.shape[i], 1))
            if (view.shape[i] > 1 && view.strides[i] != stride) return false;
        return true;
    }

    static nb::object ask(nb::handle function) {
        PyObject* const answer = PyObject_CallNoArgs(function.ptr());
        if (answer == nullptr) throw nb::python_error();
        return nb::steal(answer);
    }

    static bool is_true(const nb::object& answer) {
        const int truth = PyObject_IsTrue(answer.ptr());
        if (truth < 0) throw nb::python_error();
        return truth > 0;
    }

    static bool is_true(nb::handle tensor, const nb::object& attribute) { return is_true(get(tensor, attribute)); }

    static nb::object get(nb::handle object, const nb::object& attribute) {
        PyObject* const value = PyObject_GetAttr(object.ptr(), attribute.ptr());
        if (value == nullptr) throw nb::python_error();
        return nb::steal(value);
    }

    static nb::object interned(const char* name) { return nb::steal(PyUnicode_InternFromString(name)); }

    template <class U>
    static U* data(const Exchange::View& view) {
        return reinterpret_cast<U*>(static_cast<char*>(view.data) + view.byte_offset);
    }

    bool is_plain(nb::handle tensor) const {
        const nb::handle type = tensor.type();
        return std::any_of(types_.begin(), types_.end(), [type](nb::handle plain) { return type.is(plain); });
    }

    bool is_obstructed() const {
        if (nb::cast<long>(get(forward_, level_)) >= 0) return true;
        return std::any_of(obstacles_.begin(), obstacles_.end(), [](nb::handle asked) { return is_true(ask(asked)); });
    }

    // Whether memory holds the values of a tensor, contiguous.
    bool is_readable(nb::handle tensor, Exchange::View& view) const {
        PyObject* const arguments[] = {tensor.ptr()};
        if (!exchange_.view(tensor, view) || view.device.device_type != nb::device::cpu::value ||
            view.dtype != nb::dtype<T>() || !is_contiguous(view) || (view.data == nullptr && count(view) > 0))
            return false;
        PyObject* const negated = PyObject_Vectorcall(is_neg_.ptr(), arguments, 1, nullptr);
        if (negated == nullptr) throw nb::python_error();
        return !is_true(nb::steal(negated));
    }

    bool is_current(nb::dict buffers) const {
        for (const auto& [name, known, version] : others_) {
            PyObject* const tensor = PyDict_GetItemWithError(buffers.ptr(), name.ptr());
            if (tensor != known.ptr() || (!known.is_none() && nb::cast<std::int64_t>(get(tensor, version_)) != version))
                return false;
        }
        PyObject* const words = PyDict_GetItemWithError(buffers.ptr(), words_name_.ptr());
        Exchange::View view;
        return words != nullptr && is_plain(words) && exchange_.view(words, view) && is_contiguous(view) &&
               count(view) == plan_.plan().words() && view.dtype.bits == 8 * sizeof(Word<T>) &&
               data<char>(view) == reinterpret_cast<const char*>(words_);
    }

    nb::object keep_;
    const OwningPlan<T>& plan_;
    Exchange exchange_;
    std::vector<nb::object> types_;
    nb::object recording_;
    nb::object forward_;
    std::vector<nb::object> obstacles_;
    std::uintptr_t words_;
    std::vector<Other> others_;
    nb::object is_neg_ = types_.front().attr("is_neg");
    nb::object words_name_ = interned("words"), version_ = interned("_version"), level_ = interned("_current_level"),
               requires_grad_ = interned("requires_grad");
};

template <class T>
void bind_tensor_product(nb::module_& module, const char* name) {
    using namespace nb::literals;
    using P = TensorProduct<T>;
    nb::class_<P>(module, name)
        .def(nb::init<nb::object, nb::handle, std::vector<nb::object>, nb::object, nb::object,
                      std::vector<nb::object>, std::uintptr_t, std::vector<typename P::Other>>(),
             "plan"_a, "exchange"_a, "types"_a, "recording"_a, "forward"_a, "obstacles"_a, "words"_a, "others"_a)
        .def("multiply", &P::multiply, nb::arg("x").none(), nb::arg("bias").none(), "buffers"_a);
}

}  // namespace hmatrix
