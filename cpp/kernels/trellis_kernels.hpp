// The Viterbi algorithm over the words of a trellis, for as many rows at a time as a register has lanes.
//
// A state is what two neighbouring windows share. Since a word is read as a ring, a path must end in the state in which
// it begins: after a walk from all states at once, which says how little a path that ends in each of them costs at
// least, the most promising are walked from one by one. Each path remembers what it owes to the visits to come.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/trellis.hpp"

namespace hmatrix {
namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

// A number for each row.
using Floats = float __attribute__((vector_size(4 * lanes)));
using Integers = std::int32_t __attribute__((vector_size(4 * lanes)));
using Bytes = std::uint8_t __attribute__((vector_size(lanes)));

template <Precision P, bool owing>
class Walk {
    static constexpr int visits = columns_per_word(P), ring = 32 / visits, parallel = parallel_bits(P);
    static constexpr int states = 1 << (window_bits(P) - parallel - ring), branches = 1 << ring;
    static constexpr int own = ring + parallel;  // bits of a window that its state does not tell
    static constexpr int sources = std::min(branches, states);  // states from which one is reached
    static constexpr float never = std::numeric_limits<float>::infinity();

public:
    explicit Walk(const Words& words) : words_(words) {
        for (int w = 0; w < windows_of(P); ++w) values_[w] = static_cast<float>(codebook(P)[w]) - 128.0f;
    }

    // Writes the windows of rows first to first + count, at most `lanes`.
    void encode(std::ptrdiff_t first, int count, std::uint8_t* out) {
        for (int m = 0; m < visits; ++m)
            for (int l = 0; l < lanes; ++l) {
                const std::ptrdiff_t at = (first + std::min(l, count - 1)) * visits + m;
                target_[m][l] = words_.target[at];
                if constexpr (owing) owed_at_first_[m][l] = words_.owed[at];
            }
        int start[lanes];
        std::fill(start, start + lanes, -1);
        walk(start);
        Floats bound[states];
        std::memcpy(bound, cost_[now_], sizeof bound);
        float best[lanes];
        std::fill(best, best + lanes, never);
        for (int n = 0; n < std::min(words_.tries, states); ++n) {
            // The first is taken whatever it costs: a row of huge numbers has infinite ones.
            bool hopeful[lanes] = {};
            for (int l = 0; l < count; ++l) {
                start[l] = 0;
                for (int s = 1; s < states; ++s)
                    if (bound[s][l] < bound[start[l]][l]) start[l] = s;
                hopeful[l] = n == 0 || bound[start[l]][l] < best[l];
                bound[start[l]][l] = never;
            }
            if (std::none_of(hopeful, hopeful + lanes, [](bool row) { return row; })) break;
            walk(start);
            for (int l = 0; l < count; ++l) {
                const float cost = cost_[now_][start[l]][l];
                if (!hopeful[l] || (n > 0 && !(cost < best[l]))) continue;
                best[l] = cost;
                trace(l, start[l], out + (first + l) * visits);
            }
        }
    }

private:
    // Least costs of the paths from the state `start` of each row, or from any where it is negative.
    void walk(const int* start) {
        now_ = 0;
        for (int s = 0; s < states; ++s) {
            for (int l = 0; l < lanes; ++l) cost_[0][s][l] = start[l] < 0 || start[l] == s ? 0.0f : never;
            if constexpr (owing) std::memcpy(owed_[0][s], owed_at_first_, sizeof owed_at_first_);
        }
        for (int m = 0; m < visits; ++m) {
            if (!words_.present[m])
                visit<1>(m, 0.0f);
            else
                visit<branches>(m, owing ? words_.root[m * visits + m] : 1.0f);
            now_ = 1 - now_;
        }
    }

    // Goes on to all states by the first `open` of the branches that lead to each, and where they are open by all
    // parallel bits.
    template <int open>
    void visit(int m, float weight) {
        constexpr int choices = open > 1 ? open << parallel : 1;
        Floats wanted[states];
        for (int s = 0; s < states; ++s) {
            wanted[s] = weight * target_[m];
            if constexpr (owing && open > 1) wanted[s] += owed_[now_][s][m];
        }
        for (int u = 0; u < states; ++u) {
            // Windows that lead to state u are those that end in it; they differ in their lowest bits.
            Floats least = Floats{} + never, value = Floats{} + values_[u << own];
            Integers lowest{};
            for (int low = 0; low < choices; ++low) {
                const int window = u << own | low, s = window >> parallel & (states - 1);
                const Floats off = wanted[s] - weight * values_[window], cost = cost_[now_][s] + off * off;
                const Integers better = cost < least;
                least = better ? cost : least;
                lowest = better ? Integers{} + low : lowest;
                if constexpr (owing) value = better ? Floats{} + values_[window] : value;
            }
            cost_[1 - now_][u] = least;
            lowest_[m][u] = __builtin_convertvector(lowest, Bytes);
            if constexpr (owing) owe<open>(m, u, value, lowest);
        }
    }

    // What the best path to state u owes: what it owed where it comes from, and the error of this visit.
    template <int open>
    void owe(int m, int u, const Floats& value, const Integers& lowest) {
        const int base = (u << ring) & (states - 1);
        const Floats error = open > 1 ? target_[m] - value : Floats{};
        const Integers source = lowest >> parallel & (sources - 1);
        for (int j = m + 1; j < visits; ++j) {
            Floats owed = owed_[now_][base][j];
            for (int q = 1; q < std::min(open, sources); ++q)
                owed = source == q ? owed_[now_][base + q][j] : owed;
            owed_[1 - now_][u][j] = owed + words_.root[m * visits + j] * error;
        }
    }

    // Writes the windows of the best path of row l that ends in a state.
    void trace(int l, int state, std::uint8_t* out) const {
        for (int m = visits - 1; m >= 0; --m) {
            const int window = state << own | lowest_[m][state][l];
            out[m] = static_cast<std::uint8_t>(window);
            state = window >> parallel & (states - 1);
        }
    }

    const Words& words_;
    int now_ = 0;
    float values_[windows_of(P)];
    Floats target_[visits];
    Floats owed_at_first_[owing ? visits : 1];
    Floats cost_[2][states];
    Floats owed_[2][owing ? states : 1][visits];
    Bytes lowest_[visits][states];
};

template <Precision P, bool owing>
void encode_all(const Words& words, std::uint8_t* out) {
    Walk<P, owing> walk(words);
    for (std::ptrdiff_t first = 0; first < words.rows; first += lanes)
        walk.encode(first, static_cast<int>(std::min<std::ptrdiff_t>(lanes, words.rows - first)), out);
}

template <Precision P>
void encode_owing(const Words& words, std::uint8_t* out) {
    words.owed ? encode_all<P, true>(words, out) : encode_all<P, false>(words, out);
}

void encode(const Words& words, std::uint8_t* out) {
    switch (words.precision) {
        case Precision::trellis4: return encode_owing<Precision::trellis4>(words, out);
        case Precision::trellis2: return encode_owing<Precision::trellis2>(words, out);
        case Precision::trellis3: return encode_owing<Precision::trellis3>(words, out);
        case Precision::trellis4p: return encode_owing<Precision::trellis4p>(words, out);
        default: return encode_owing<Precision::trellis1>(words, out);
    }
}

}  // namespace
}  // namespace hmatrix
