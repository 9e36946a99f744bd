// The panel products, written once over a vector type V and compiled for each instruction set.
//
// V has: value (float or double), reg, width, and static functions zero, load, broadcast, fma, store, add,
// sum, and for the last register of a panel load_part, store_part with a part (mask) made by part(n).
// `registers` is how many accumulators fit beside the loaded registers.
//
// Everything is in an anonymous namespace, so that no function compiled for one instruction set can be
// linked into another.
#pragma once

#include <algorithm>
#include <utility>

#include "packed.hpp"

namespace hmatrix {
namespace {

constexpr std::ptrdiff_t prefetch_distance = 1024;

// Asks for the lines that `bytes` from p will reach some time later. The data are one stream, but it is
// read in pieces so short that the processor's own prefetching starts anew with each.
template <std::size_t bytes>
inline void prefetch(const void* p) {
    const char* ahead = static_cast<const char*>(p) + prefetch_distance;
    for (std::size_t line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 3);
}

// Calls f(std::integral_constant<int, n>()) for a runtime n of 1 to Most.
template <int Most, class F>
inline void with_constant(int n, F&& f) {
    if constexpr (Most > 1) {
        if (n < Most) return with_constant<Most - 1>(n, std::forward<F>(f));
    }
    f(std::integral_constant<int, Most>());
}

// y[b, 0..rows) for B rows of the batch, where N registers hold `rows` entries.
// U columns are multiplied at a time, into accumulators of their own, to hide the latency of an fma.
template <class V, int N, int B>
void forward_tile(const typename V::value* w, std::ptrdiff_t height, int rows, const Panel& panel, const Run* runs,
                  const Source<const typename V::value>& source, Rows<typename V::value> y, std::ptrdiff_t first) {
    using T = typename V::value;
    using Reg = typename V::reg;
    constexpr int U = std::max(1, std::min(8, V::registers) / (N * B));
    const auto part = V::part(rows - (N - 1) * V::width);
    Reg sum[U][B][N];
    for (int u = 0; u < U; ++u)
        for (int b = 0; b < B; ++b)
            for (int i = 0; i < N; ++i) sum[u][b][i] = V::zero();

    const auto column = [&](int u, const T* const* x, std::ptrdiff_t c) {
        Reg a[N];
        for (int i = 0; i < N - 1; ++i) a[i] = V::load(w + i * V::width);
        a[N - 1] = V::load_part(w + (N - 1) * V::width, part);
        if constexpr (B == 1) prefetch<N * V::width * sizeof(T)>(w);
        w += height;
        for (int b = 0; b < B; ++b) {
            const Reg entry = V::broadcast(x[b] + c);
            for (int i = 0; i < N; ++i) sum[u][b][i] = V::fma(a[i], entry, sum[u][b][i]);
        }
    };
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end; ++run) {
        const Rows<const T> rows_of_run = source.at(run->source);
        const T* x[B];
        for (int b = 0; b < B; ++b) x[b] = rows_of_run.row(first + b);
        std::ptrdiff_t c = 0;
        for (; c + U <= run->length; c += U)
            for (int u = 0; u < U; ++u) column(u, x, c + u);
        for (; c < run->length; ++c) column(0, x, c);
    }
    for (int b = 0; b < B; ++b) {
        T* out = y.row(first + b);
        for (int u = 1; u < U; ++u)
            for (int i = 0; i < N; ++i) sum[0][b][i] = V::add(sum[0][b][i], sum[u][b][i]);
        for (int i = 0; i < N - 1; ++i) V::store(out + i * V::width, sum[0][b][i]);
        V::store_part(out + (N - 1) * V::width, sum[0][b][N - 1], part);
    }
}

template <class V>
void forward(const typename V::value* data, const Panel& panel, const Run* runs,
             const Source<const typename V::value>& source, Rows<typename V::value> y, std::ptrdiff_t batch) {
    constexpr int most_rows = max_panel_height / V::width;
    const auto* w = data + panel.offset;
    if (batch == 1) {
        constexpr int N = std::min(V::registers, most_rows);
        for (int row = 0; row < panel.height; row += N * V::width) {
            const int rows = std::min(N * V::width, panel.height - row);
            with_constant<N>((rows + V::width - 1) / V::width, [&](auto n) {
                forward_tile<V, n, 1>(w + row, panel.height, rows, panel, runs, source, {y.base + row, y.stride}, 0);
            });
        }
        return;
    }
    constexpr int N = std::min(V::batch_registers, most_rows);
    constexpr int B = V::registers / N;
    const std::ptrdiff_t tiles = (batch + B - 1) / B;
    for (int row = 0; row < panel.height; row += N * V::width) {
        const int rows = std::min(N * V::width, panel.height - row);
        with_constant<N>((rows + V::width - 1) / V::width, [&](auto n) {
            for (std::ptrdiff_t tile = 0; tile < tiles; ++tile) {
                const std::ptrdiff_t first = batch * tile / tiles;
                with_constant<B>(static_cast<int>(batch * (tile + 1) / tiles - first), [&](auto b) {
                    forward_tile<V, n, b>(w + row, panel.height, rows, panel, runs, source,
                                          {y.base + row, y.stride}, first);
                });
            }
        });
    }
}

// target += panel^T * x for N registers of one row of the batch.
template <class V, int N>
void transposed_tile(const typename V::value* w, std::ptrdiff_t height, int rows, const Panel& panel,
                     const Run* runs, const typename V::value* x, const Source<typename V::value>& target,
                     std::ptrdiff_t b) {
    using Reg = typename V::reg;
    const auto part = V::part(rows - (N - 1) * V::width);
    Reg entries[N];
    for (int i = 0; i < N - 1; ++i) entries[i] = V::load(x + i * V::width);
    entries[N - 1] = V::load_part(x + (N - 1) * V::width, part);
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end; ++run) {
        auto* out = target.at(run->source).row(b);
        for (std::ptrdiff_t c = 0; c < run->length; ++c, w += height) {
            Reg sum = V::zero();
            for (int i = 0; i < N - 1; ++i) sum = V::fma(V::load(w + i * V::width), entries[i], sum);
            sum = V::fma(V::load_part(w + (N - 1) * V::width, part), entries[N - 1], sum);
            out[c] += V::sum(sum);
        }
    }
}

template <class V>
void transposed(const typename V::value* data, const Panel& panel, const Run* runs,
                Rows<const typename V::value> x, const Source<typename V::value>& target, std::ptrdiff_t batch) {
    constexpr int N = std::min(V::registers, max_panel_height / V::width);
    const auto* w = data + panel.offset;
    for (int row = 0; row < panel.height; row += N * V::width) {
        const int rows = std::min(N * V::width, panel.height - row);
        with_constant<N>((rows + V::width - 1) / V::width, [&](auto n) {
            for (std::ptrdiff_t b = 0; b < batch; ++b)
                transposed_tile<V, n>(w + row, panel.height, rows, panel, runs, x.row(b) + row, target, b);
        });
    }
}

}  // namespace
}  // namespace hmatrix
