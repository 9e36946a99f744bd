// The product with the transpose of a panel, over the vector type V of columns.hpp.
#pragma once

#include "kernels/columns.hpp"
#include "kernels/looked_up.hpp"

namespace hmatrix {
namespace {

// The product of column K of words with N registers of x.
template <class V, Precision P, int K, int N>
typename V::value of_column(const typename V::ireg (&words)[N], const typename V::reg (&x)[N]) {
    typename V::reg sum = V::zero();
    UNROLL for (int i = 0; i < N; ++i) sum = V::fma(V::template decode<P, K>(words[i]), x[i], sum);
    return V::sum(sum);
}

template <class V, int N>
using TransposedColumns = Columns<V, N, V::asks_ahead>;
template <class V, int N>
using TransposedEntries = typename V::reg[N];

// target += panel^T * x for N registers of one row of the batch.
template <class V, int N>
void transposed_tile(const LookedUp& looked_up, const Word<typename V::value>* words, int rows, const Panel& panel,
                     const Run* runs, const typename V::value* x, const Source<typename V::value>& target, std::ptrdiff_t b) {
    using T = typename V::value;
    using Reg = typename V::reg;
    TransposedColumns<V, N> columns(words, panel.height, rows);
    TransposedEntries<V, N> entries, scaled;
    UNROLL for (int i = 0; i < N - 1; ++i) entries[i] = V::load(x + i * V::width);
    entries[N - 1] = V::load_part(x + (N - 1) * V::width, columns.part());
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end; ++run) {
        T* out = target.at(run->source).row(b);
        const auto values = [&] {
            for (std::ptrdiff_t c = 0; c < run->length; ++c) {
                Reg a[N], sum = V::zero();
                columns.values(a);
                UNROLL for (int i = 0; i < N; ++i) sum = V::fma(a[i], entries[i], sum);
                out[c] += V::sum(sum);
            }
        };
        if constexpr (std::is_same_v<T, double>) {
            values();
        } else {
            const auto decoded = [&](auto precision, const Reg(&x_of_run)[N]) {
                constexpr Precision P = decltype(precision)::value;
                // The first columns of a word are unrolled; its bits then move on to those that follow.
                constexpr int K = columns_per_word(P), several = std::min(K, 4);
                for (std::ptrdiff_t c = 0; c < run->length; c += K) {
                    typename V::ireg w[N];
                    columns.words(w);
                    for (std::ptrdiff_t first = c; first < std::min<std::ptrdiff_t>(c + K, run->length); first += several) {
                        unroll(
                            [&](auto k) {
                                if (first + k < run->length) out[first + k] += of_column<V, P, k>(w, x_of_run);
                            },
                            std::make_integer_sequence<int, several>());
                        if constexpr (K > several)
                            UNROLL for (int i = 0; i < N; ++i) w[i] = V::rotated(w[i], 32 / K);
                    }
                }
            };
            if (run->begins) {
                Reg scales[N];
                columns.values(scales);
                UNROLL for (int i = 0; i < N; ++i) scaled[i] = V::fma(scales[i], entries[i], V::zero());
            }
            switch (run->precision) {
                case Precision::bfloat16:
                    decoded(std::integral_constant<Precision, Precision::bfloat16>(), entries);
                    break;
                case Precision::int8:
                    decoded(std::integral_constant<Precision, Precision::int8>(), scaled);
                    break;
                case Precision::int4:
                    decoded(std::integral_constant<Precision, Precision::int4>(), scaled);
                    break;
                case Precision::int2:
                    decoded(std::integral_constant<Precision, Precision::int2>(), scaled);
                    break;
                case Precision::int1:
                    decoded(std::integral_constant<Precision, Precision::int1>(), scaled);
                    break;
                case Precision::float64:
                case Precision::float32:
                    values();
                    break;
                default:
                    looked_up.transposed[N - 1](&columns, &scaled, *run, out);
            }
        }
    }
}

template <class V>
void transposed(const LookedUp& looked_up, const Word<typename V::value>* words, const Panel& panel, const Run* runs,
                Rows<const typename V::value> x, const Source<typename V::value>& target, std::ptrdiff_t batch) {
    over_rows<V, registers_of_several<V>>(panel, [&](int row, int rows, auto n) {
        for (std::ptrdiff_t b = 0; b < batch; ++b)
            transposed_tile<V, n>(looked_up, words + row, rows, panel, runs, x.row(b) + row, target, b);
    });
}

}  // namespace
}  // namespace hmatrix
