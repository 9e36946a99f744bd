// Parts that all products with a panel share, written once over a vector type V and compiled for each instruction set.
//
// V has: value (float or double); reg and part (a mask for the last register of a panel); width; registers,
// how many accumulators fit beside the loaded registers; batch_registers, those of one row of a batch; asks_ahead,
// whether processors that it runs on may want to be asked for lines ahead; and static functions over them. V of
// floats also has words: ireg, and what turns them into floats or sums of integers; integer, which does so for codes of a
// precision that is known when it runs, and constants_fit, whether there are registers for it beside the accumulators;
// table and wide_table, which look bytes up by six and by seven bits; and joined and rotated, which make these bits. Its
// sum adds the second half of the entries to the first until one is left; fused is an fma that rounds once on every
// processor.
//
// Everything is in an anonymous namespace, so that no function compiled for one instruction set can be
// linked into another.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/kernels.hpp"

// Unrolls a loop over registers: what is indexed by a variable would lie in memory.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace hmatrix {
namespace {

// Of what a loop and its rest both do: called as a function it would have the sums in memory.
#define INLINED __attribute__((always_inline))
// Of functions with a loop, to which GCC would give too few registers among the loops of others.
#define APART __attribute__((noinline))

constexpr std::ptrdiff_t prefetch_distance = 1024;

// Asks for the lines that `bytes` from p will reach some time later.
template <std::size_t bytes>
inline void prefetch(const void* p) {
    const char* ahead = static_cast<const char*>(p) + prefetch_distance;
    for (std::size_t line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 3);
}

// Returns f(std::bool_constant<...>()): whether to ask for lines ahead.
template <class V, class F>
inline auto with_ahead(F&& f) {
    if constexpr (V::asks_ahead) {
        if (prefetch_pays) return f(std::true_type());
    }
    return f(std::false_type());
}

// Calls f(std::integral_constant<int, n>()) for a runtime n of 1 to Most.
template <int Most, class F>
inline void with_constant(int n, F&& f) {
    if constexpr (Most > 1) {
        if (n < Most) return with_constant<Most - 1>(n, std::forward<F>(f));
    }
    f(std::integral_constant<int, Most>());
}

// Has a value in a register here. GCC else plans registers for a loop together with what follows it, and keeps sums that
// both need in memory.
template <class Reg>
inline INLINED void settle(Reg& value) {
#if defined(__x86_64__)
    asm("" : "+v"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#else
    static_cast<void>(value);
#endif
}

// Calls f(std::integral_constant<int, 0>()) to f(... Count - 1).
template <class F, int... K>
inline INLINED constexpr void unroll(F&& f, std::integer_sequence<int, K...>) {
    (f(std::integral_constant<int, K>()), ...);
}

// Registers that the sums of one vector fill at most. These hide the latency of an fma.
constexpr int most_registers = 8;

// The most registers of rows that sums of one vector, and of several, have; and how many vectors these are at most.
template <class V>
constexpr int registers_of_one = std::min(most_registers, max_panel_height / V::width);
template <class V>
constexpr int registers_of_several = std::min(V::batch_registers, max_panel_height / V::width);
template <class V>
constexpr int most_vectors = V::registers / registers_of_several<V>;

// The words of at most N registers of rows of a panel, column by column. Where `asks`, lines are asked for ahead if that
// pays here: a branch, which costs less than loops of both kinds.
template <class V, int N, bool asks>
class Columns {
public:
    using T = typename V::value;

    Columns(const Word<T>* words, std::ptrdiff_t height, int rows)
        : words_(words), height_(height), part_(V::part(rows - (N - 1) * V::width)) {}

    template <class Reg, class Load, class LoadPart>
    void next(Reg (&a)[N], Load load, LoadPart load_part) {
        UNROLL for (int i = 0; i < N - 1; ++i) a[i] = load(words_ + i * V::width);
        a[N - 1] = load_part(words_ + (N - 1) * V::width, part_);
        if constexpr (asks)
            if (prefetch_pays) prefetch<N * V::width * sizeof(Word<T>)>(words_);
        words_ += height_;
    }

    // The next column as values: floats, doubles or scales.
    void values(typename V::reg (&a)[N]) {
        next(a, V::load_values, V::load_values_part);
    }

    // The next column as words.
    template <class Reg>
    void words(Reg (&a)[N]) {
        next(a, V::load_words, V::load_words_part);
    }

    auto part() const { return part_; }

private:
    const Word<T>* words_;
    std::ptrdiff_t height_;
    typename V::part_type part_;
};

// Calls f(row, rows, registers) for parts of the panel's rows that fill at most N registers.
template <class V, int N, class F>
void over_rows(const Panel& panel, F&& f) {
    for (int row = 0; row < panel.height; row += N * V::width) {
        const int rows = std::min(N * V::width, panel.height - row);
        with_constant<N>((rows + V::width - 1) / V::width, [&](auto n) { f(row, rows, n); });
    }
}

}  // namespace
}  // namespace hmatrix
