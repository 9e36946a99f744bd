// Standard C++ only, in loops over a few entries that any compiler can vectorise.
#include "kernels.hpp"
#include "panel_kernels.hpp"

namespace hmatrix {
namespace {

template <class T>
struct Portable {
    using value = T;
    static constexpr int width = 16 / sizeof(T), registers = 8, batch_registers = 2;
    struct reg {
        T v[width];
    };
    static int part(int n) { return n; }
    static reg zero() { return reg{}; }
    static reg load(const T* p) { return load_part(p, width); }
    static reg load_part(const T* p, int n) {
        reg r{};
        for (int i = 0; i < n; ++i) r.v[i] = p[i];
        return r;
    }
    static reg broadcast(const T* p) {
        reg r;
        for (int i = 0; i < width; ++i) r.v[i] = *p;
        return r;
    }
    static reg fma(const reg& a, const reg& b, reg c) {
        for (int i = 0; i < width; ++i) c.v[i] += a.v[i] * b.v[i];
        return c;
    }
    static reg add(reg a, const reg& b) {
        for (int i = 0; i < width; ++i) a.v[i] += b.v[i];
        return a;
    }
    static T sum(const reg& a) {
        T s = 0;
        for (int i = 0; i < width; ++i) s += a.v[i];
        return s;
    }
    static void store(T* p, const reg& a) { store_part(p, a, width); }
    static void store_part(T* p, const reg& a, int n) {
        for (int i = 0; i < n; ++i) p[i] = a.v[i];
    }
};

bool supported() { return true; }

}  // namespace

const InstructionSet portable = {"portable",
                                 supported,
                                 {forward<Portable<float>>, transposed<Portable<float>>},
                                 {forward<Portable<double>>, transposed<Portable<double>>}};

}  // namespace hmatrix
