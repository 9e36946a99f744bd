// Parts that all products with a panel share, written once over a vector type V and compiled for each instruction set.
//
// V has: value (float or double); reg and part (a mask for the last register of a panel); width; registers,
// how many accumulators fit beside the loaded registers; batch_registers, those of one row of a batch; asks_ahead,
// whether processors that it runs on may want to be asked for lines ahead; and static functions over them. V of
// floats also has words: ireg, and what turns them into floats or sums of integers; table and wide_table, which look
// bytes up by six and by seven bits; and joined and rotated, which make these bits. Its sum adds the second half of the
// entries to the first until one is left; fused is an fma that rounds once on every processor.
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

// Unrolls a loop over registers: what is indexed by a variable would lie in memory. A kernel without registers
// of its own defines it as nothing.
#if defined(UNROLL)
#elif defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace hmatrix {
namespace {

// Of what a loop and its rest both do: called as a function it would have the sums in memory.
#define INLINED __attribute__((always_inline))

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

// Calls f(std::integral_constant<int, 0>()) to f(... Count - 1).
template <class F, int... K>
inline void unroll(F&& f, std::integer_sequence<int, K...>) {
    (f(std::integral_constant<int, K>()), ...);
}

// The words of at most N registers of rows of a panel, column by column, asking for lines ahead or not.
template <class V, int N, bool ahead>
class Columns {
public:
    using T = typename V::value;

    Columns(const Word<T>* words, std::ptrdiff_t height, int rows)
        : words_(words), height_(height), part_(V::part(rows - (N - 1) * V::width)) {}

    template <class Reg, class Load, class LoadPart>
    void next(Reg (&a)[N], Load load, LoadPart load_part) {
        UNROLL for (int i = 0; i < N - 1; ++i) a[i] = load(words_ + i * V::width);
        a[N - 1] = load_part(words_ + (N - 1) * V::width, part_);
        if constexpr (ahead) prefetch<N * V::width * sizeof(Word<T>)>(words_);
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

// The words of a precision whose values are looked up, with or without parallel bits: four columns at a time.
template <class V, bool parallel>
struct Lookup {
    explicit Lookup(Precision precision)
        : table(codebook(precision)), columns(columns_per_word(precision)), bits(32 / columns) {}

    // Calls f(c, std::integral_constant<int, u>(), found) with what columns c to c + 3 stand for, as codes of int8, for
    // all columns of a run and what is left of eight columns, with u by turns 0 and 1.
    template <int N, bool ahead, class F>
    INLINED void each_four(Columns<V, N, ahead>& words, std::ptrdiff_t length, F&& f) const {
        typename V::ireg w[N], own[N], found[N];
        const auto four = [&](std::ptrdiff_t c, auto u) INLINED {
            UNROLL for (int i = 0; i < N; ++i) {
                if constexpr (parallel) {
                    found[i] = table.of(V::joined(own[i], w[i]));
                    own[i] = V::rotated(own[i], parallel_width);
                } else {
                    found[i] = table.of(w[i]);
                }
                w[i] = V::rotated(w[i], bits);
            }
            f(c, u, found);
        };
        const int step = parallel ? 32 / parallel_width : columns;
        for (std::ptrdiff_t block = 0; block < length; block += columns) {
            words.words(w);
            // The parallel bits take the lowest places of a window.
            if constexpr (parallel) UNROLL for (int i = 0; i < N; ++i) w[i] = V::rotated(w[i], 32 - parallel_width);
            for (std::ptrdiff_t word = block; word < block + columns; word += step) {
                if constexpr (parallel) words.words(own);
                for (std::ptrdiff_t c = word; c < std::min(word + step, length); c += 8) {
                    four(c, std::integral_constant<int, 0>());
                    four(c + 4, std::integral_constant<int, 1>());
                }
            }
        }
    }

    // Calls f(c, std::integral_constant<int, j>(), found) for the columns c of a run: column j of what is found.
    template <int N, bool ahead, class F>
    INLINED void each_column(Columns<V, N, ahead>& words, std::ptrdiff_t length, F&& f) const {
        each_four(words, length, [&](std::ptrdiff_t c, auto, const auto& found) INLINED {
            unroll(
                [&](auto j) INLINED {
                    if (c + j < length) f(c + j, j, found);
                },
                std::make_integer_sequence<int, 4>());
        });
    }

    static constexpr int parallel_width = parallel_bits(Precision::trellis3);  // of all that have parallel bits
    std::conditional_t<parallel, typename V::wide_table, typename V::table> table;
    int columns, bits;
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
