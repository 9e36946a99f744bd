// The panel products, written once over a vector type V and compiled for each instruction set.
//
// V has: value (float or double); reg and part (a mask for the last register of a panel); width; registers,
// how many accumulators fit beside the loaded registers; batch_registers, those of one row of a batch; and
// static functions over them. V of floats also has words: ireg, and what turns them into floats or sums of
// integers.
//
// Everything is in an anonymous namespace, so that no function compiled for one instruction set can be
// linked into another.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "packed.hpp"

// Unrolls a loop over registers: what is indexed by a variable would lie in memory.
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

namespace hmatrix {
namespace {

constexpr std::ptrdiff_t prefetch_distance = 1024;

// Asks for the lines that `bytes` from p will reach some time later.
template <std::size_t bytes>
inline void prefetch(const void* p) {
    const char* ahead = static_cast<const char*>(p) + prefetch_distance;
    for (std::size_t line = 0; line < bytes; line += 64) __builtin_prefetch(ahead + line, 0, 3);
}

// Calls f(std::bool_constant<...>()): whether to ask for lines ahead.
template <class F>
inline void with_ahead(F&& f) {
    prefetch_pays ? f(std::true_type()) : f(std::false_type());
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

// y[b, 0..rows) for B rows of the batch, where N registers hold `rows` entries. There are U sums of each
// entry, which take turns, to hide the latency of an fma.
template <class V, int N, int B, bool ahead>
class Tile {
    using T = typename V::value;
    using Reg = typename V::reg;
    static constexpr int U = std::max(1, std::min(8, V::registers) / (N * B));

public:
    Tile(const Word<T>* words, std::ptrdiff_t height, int rows) : columns_(words, height, rows) {}

    void add(const Run& run, const Source<const T>& source, const Quantized& quantized, std::ptrdiff_t first) {
        const Rows<const T> rows = source.at(run.source);
        const T* x[B];
        UNROLL for (int b = 0; b < B; ++b) x[b] = rows.row(first + b);
        if constexpr (std::is_same_v<T, double>) {
            add_values(run, x);
        } else {
            switch (run.precision) {
                case Precision::bfloat16: sum_ = with_decoded<Precision::bfloat16>(run, x, sum_); return;
                case Precision::int8: return add_codes<Precision::int8>(run, x, quantized, first);
                case Precision::int4: return add_codes<Precision::int4>(run, x, quantized, first);
                case Precision::int2: return add_codes<Precision::int2>(run, x, quantized, first);
                case Precision::int1: return add_codes<Precision::int1>(run, x, quantized, first);
                default: return add_values(run, x);
            }
        }
    }

    void store(Rows<T> y, std::ptrdiff_t first) {
        UNROLL for (int b = 0; b < B; ++b) {
            T* out = y.row(first + b);
            UNROLL for (int i = 0; i < N; ++i) {
                const Reg total = sum_.total(b, i);
                if (i < N - 1)
                    V::store(out + i * V::width, total);
                else
                    V::store_part(out + i * V::width, total, columns_.part());
            }
        }
    }

private:
    // What is a member may be changed by any store. Loops therefore work on copies, which stay in registers.
    struct Sums {
        Reg of[U][B][N];

        Sums() {
            UNROLL for (int u = 0; u < U; ++u)
                UNROLL for (int b = 0; b < B; ++b)
                    UNROLL for (int i = 0; i < N; ++i) of[u][b][i] = V::zero();
        }

        Reg total(int b, int i) const {
            Reg total = of[0][b][i];
            UNROLL for (int u = 1; u < U; ++u) total = V::add(total, of[u][b][i]);
            return total;
        }
    };

    struct Totals {
        Reg of[B][N];
    };

    static void add(Totals& totals, const Totals& others) {
        UNROLL for (int b = 0; b < B; ++b)
            UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = V::add(others.of[b][i], totals.of[b][i]);
    }

    void add_values(const Run& run, const T* const* x) {
        Columns<V, N, ahead> columns = columns_;
        Sums sums = sum_;
        const auto column = [&](int u, std::ptrdiff_t c) {
            Reg a[N];
            columns.values(a);
            UNROLL for (int b = 0; b < B; ++b) {
                const Reg entry = V::broadcast(x[b] + c);
                UNROLL for (int i = 0; i < N; ++i) sums.of[u][b][i] = V::fma(a[i], entry, sums.of[u][b][i]);
            }
        };
        std::ptrdiff_t c = 0;
        for (; c + U <= run.length; c += U)
            UNROLL for (int u = 0; u < U; ++u) column(u, c + u);
        for (; c < run.length; ++c) column(0, c);
        columns_ = columns;
        sum_ = sums;
    }

    // The sums with those of codes that become floats, which meet the exact source. A word that is not full
    // meets zeros.
    template <Precision P>
    Sums with_decoded(const Run& run, const T* const* x, Sums sums) {
        constexpr int K = columns_per_word(P);
        Columns<V, N, ahead> columns = columns_;
        const auto word = [&](const T* const* entries, std::ptrdiff_t c) {
            typename V::ireg w[N];
            columns.words(w);
            unroll(
                [&](auto k) {
                    constexpr int u = k % U;
                    Reg a[N];
                    UNROLL for (int i = 0; i < N; ++i) a[i] = V::template decode<P, k>(w[i]);
                    UNROLL for (int b = 0; b < B; ++b) {
                        const Reg entry = V::broadcast(entries[b] + c + k);
                        UNROLL for (int i = 0; i < N; ++i) sums.of[u][b][i] = V::fma(a[i], entry, sums.of[u][b][i]);
                    }
                },
                std::make_integer_sequence<int, K>());
        };
        std::ptrdiff_t c = 0;
        for (; c + K <= run.length; c += K) word(x, c);
        if (c < run.length) {
            T last[B][K] = {};
            const T* entries[B];
            UNROLL for (int b = 0; b < B; ++b) {
                std::copy(x[b] + c, x[b] + run.length, last[b]);
                entries[b] = last[b];
            }
            word(entries, 0);
        }
        columns_ = columns;
        return sums;
    }

    template <Precision P>
    void add_codes(const Run& run, const T* const* x, const Quantized& quantized, std::ptrdiff_t first) {
        if (run.begins) columns_.values(scales_);
        Totals totals;
        if (run.segment < 0) {
            const Sums sums = with_decoded<P>(run, x, Sums());
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = sums.total(b, i);
        } else {
            totals = of_integers<P>(run, quantized, first);
        }
        if (!run.begins) add(totals, group_);
        if (!run.ends) {
            group_ = totals;
            return;
        }
        UNROLL for (int b = 0; b < B; ++b)
            UNROLL for (int i = 0; i < N; ++i)
                sum_.of[0][b][i] = V::add(sum_.of[0][b][i], V::mul(totals.of[b][i], scales_[i]));
    }

    // Codes meet the codes of the source in sums of integers. No fma joins them, so that every instruction
    // set, and the reference in NumPy, gives the same bits.
    template <Precision P>
    Totals of_integers(const Run& run, const Quantized& quantized, std::ptrdiff_t first) {
        constexpr int K = columns_per_word(P);
        Columns<V, N, ahead> columns = columns_;
        const std::int8_t* x[B];
        UNROLL for (int b = 0; b < B; ++b) x[b] = quantized.codes.row(first + b) + quantized.segments[run.segment].offset;
        typename V::ireg sums[U][B][N];
        UNROLL for (int u = 0; u < U; ++u)
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) sums[u][b][i] = V::zero_words();
        const auto word = [&](int u, std::ptrdiff_t c) {
            typename V::ireg w[N];
            columns.words(w);
            unroll(
                [&](auto k) {
                    UNROLL for (int b = 0; b < B; ++b) {
                        const typename V::iword entries = V::broadcast_word(x[b] + c + 4 * k);
                        UNROLL for (int i = 0; i < N; ++i)
                            sums[u][b][i] = V::template dot<P, k>(sums[u][b][i], w[i], entries);
                    }
                },
                std::make_integer_sequence<int, K / 4>());
        };
        std::ptrdiff_t c = 0;
        for (; c + U * K <= run.length; c += U * K)
            UNROLL for (int u = 0; u < U; ++u) word(u, c + u * K);
        for (; c < run.length; c += K) word(0, c);
        columns_ = columns;
        Totals totals;
        UNROLL for (int b = 0; b < B; ++b) {
            const std::int32_t correction = twice_zero(P) * quantized.sums.row(first + b)[run.segment];
            const float step = 0.5f * quantized.steps.row(first + b)[run.segment];
            UNROLL for (int i = 0; i < N; ++i) {
                typename V::ireg total = sums[0][b][i];
                UNROLL for (int u = 1; u < U; ++u) total = V::add_words(total, sums[u][b][i]);
                // Twice the sum of (code - zero) x, an integer for int2 too.
                totals.of[b][i] = V::mul(V::twice_less(total, correction), V::broadcast(&step));
            }
        }
        return totals;
    }

    Columns<V, N, ahead> columns_;
    Sums sum_;
    Totals group_;  // of the runs of a group so far
    Reg scales_[N];
};

template <class V, int N, int B, bool ahead>
void forward_tile(const Word<typename V::value>* words, int rows, const Panel& panel, const Run* runs,
                  const Source<const typename V::value>& source, const Quantized& quantized,
                  Rows<typename V::value> y, std::ptrdiff_t first) {
    Tile<V, N, B, ahead> tile(words, panel.height, rows);
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end; ++run)
        tile.add(*run, source, quantized, first);
    tile.store(y, first);
}

// Calls f(words, y or x offset, rows, registers) for parts of the panel's rows that fill at most N registers.
template <class V, int N, class F>
void over_rows(const Panel& panel, F&& f) {
    for (int row = 0; row < panel.height; row += N * V::width) {
        const int rows = std::min(N * V::width, panel.height - row);
        with_constant<N>((rows + V::width - 1) / V::width, [&](auto n) { f(row, rows, n); });
    }
}

template <class V>
void forward(const Word<typename V::value>* words, const Panel& panel, const Run* runs,
             const Source<const typename V::value>& source, const Quantized& quantized, Rows<typename V::value> y,
             std::ptrdiff_t batch) {
    constexpr int most = max_panel_height / V::width;
    if (batch == 1) {
        over_rows<V, std::min(V::registers, most)>(panel, [&](int row, int rows, auto n) {
            with_ahead([&](auto ahead) {
                forward_tile<V, n, 1, ahead>(words + row, rows, panel, runs, source, quantized,
                                             {y.base + row, y.stride}, 0);
            });
        });
        return;
    }
    constexpr int N = std::min(V::batch_registers, most);
    constexpr int B = V::registers / N;
    const std::ptrdiff_t tiles = (batch + B - 1) / B;
    over_rows<V, N>(panel, [&](int row, int rows, auto n) {
        for (std::ptrdiff_t tile = 0; tile < tiles; ++tile) {
            const std::ptrdiff_t first = batch * tile / tiles;
            with_constant<B>(static_cast<int>(batch * (tile + 1) / tiles - first), [&](auto b) {
                // The words come from a cache near by, for all tiles but the first.
                forward_tile<V, n, b, false>(words + row, rows, panel, runs, source, quantized,
                                             {y.base + row, y.stride}, first);
            });
        }
    });
}

// target += panel^T * x for N registers of one row of the batch.
template <class V, int N, bool ahead>
void transposed_tile(const Word<typename V::value>* words, int rows, const Panel& panel, const Run* runs,
                     const typename V::value* x, const Source<typename V::value>& target, std::ptrdiff_t b) {
    using T = typename V::value;
    using Reg = typename V::reg;
    Columns<V, N, ahead> columns(words, panel.height, rows);
    Reg entries[N], scaled[N];
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
                constexpr int K = columns_per_word(P);
                for (std::ptrdiff_t c = 0; c < run->length; c += K) {
                    typename V::ireg w[N];
                    columns.words(w);
                    unroll(
                        [&](auto k) {
                            if (c + k >= run->length) return;
                            Reg sum = V::zero();
                            UNROLL for (int i = 0; i < N; ++i) sum = V::fma(V::template decode<P, k>(w[i]), x_of_run[i], sum);
                            out[c + k] += V::sum(sum);
                        },
                        std::make_integer_sequence<int, K>());
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
                default: values();
            }
        }
    }
}

template <class V>
void transposed(const Word<typename V::value>* words, const Panel& panel, const Run* runs,
                Rows<const typename V::value> x, const Source<typename V::value>& target, std::ptrdiff_t batch) {
    over_rows<V, std::min(V::batch_registers, max_panel_height / V::width)>(panel, [&](int row, int rows, auto n) {
        with_ahead([&](auto ahead) {
            for (std::ptrdiff_t b = 0; b < batch; ++b)
                transposed_tile<V, n, ahead>(words + row, rows, panel, runs, x.row(b) + row, target, b);
        });
    });
}

}  // namespace
}  // namespace hmatrix
