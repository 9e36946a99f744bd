// DLPack's C interface for the exchange of tensors (dlpack.h 1.2), as far as it is used here: views of the tensors of a
// library of Python, and new ones that own their memory.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <new>
#include <numeric>

namespace hmatrix {

class Exchange {
public:
    using View = nanobind::dlpack::dltensor;

    // The capsule is a type's attribute __dlpack_c_exchange_api__; it lives as long as the process.
    explicit Exchange(nanobind::handle capsule) {
        auto* header = static_cast<const Header*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        if (header == nullptr) throw nanobind::python_error();
        while (header != nullptr && header->major != 1) header = header->older;
        functions_ = reinterpret_cast<const Functions*>(header);
        if (functions_ == nullptr || functions_->view == nullptr)
            throw nanobind::value_error("the library of tensors offers no exchange of views by DLPack 1");
    }

    // False for tensors that have no memory of their own, such as those of transforms and sparse ones.
    bool view(nanobind::handle tensor, View& result) const {
        if (functions_->view(tensor.ptr(), &result) == 0) return true;
        PyErr_Clear();
        return false;
    }

    // A new contiguous tensor (..., last) on the CPU, shaped like another but for its last dimension.
    template <class T>
    nanobind::object make(const View& like, std::int64_t last, T*& data) const {
        const auto dimensions = static_cast<std::size_t>(like.ndim);
        const std::int64_t count =
            std::accumulate(like.shape, like.shape + like.ndim - 1, last, std::multiplies<std::int64_t>{});
        // One piece of memory: the description, shape and strides, data.
        const std::size_t head = (sizeof(Managed) + 2 * dimensions * sizeof(std::int64_t) + line - 1) / line * line;
        void* const memory = operator new(head + static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{line});
        auto* const shape = reinterpret_cast<std::int64_t*>(static_cast<char*>(memory) + sizeof(Managed));
        std::int64_t* const strides = shape + dimensions;
        std::copy_n(like.shape, dimensions, shape);
        shape[dimensions - 1] = last;
        for (std::size_t i = dimensions, stride = 1; i-- > 0; stride *= static_cast<std::size_t>(shape[i]))
            strides[i] = static_cast<std::int64_t>(stride);
        data = reinterpret_cast<T*>(static_cast<char*>(memory) + head);
        auto* const managed = new (memory) Managed{1, 0, nullptr, &release, 0, {}};
        managed->tensor = {data, {nanobind::device::cpu::value, 0}, like.ndim, nanobind::dtype<T>(), shape, strides, 0};
        void* result = nullptr;
        if (functions_->to_object(managed, &result) != 0) throw nanobind::python_error();
        return nanobind::steal(static_cast<PyObject*>(result));
    }

private:
    struct Header {
        std::uint32_t major, minor;
        const Header* older;
    };
    struct Managed {
        std::uint32_t major, minor;
        void* context;
        void (*release)(Managed*);
        std::uint64_t flags;
        View tensor;
    };
    struct Functions {
        Header header;
        void* unused_allocate;
        void* unused_from_object;
        int (*to_object)(Managed*, void**);
        int (*view)(void*, View*);
    };
    static constexpr std::size_t line = 64;  // bytes of a cache line

    static void release(Managed* managed) { operator delete(managed, std::align_val_t{line}); }

    const Functions* functions_;
};

}  // namespace hmatrix
