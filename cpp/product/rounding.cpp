#include "product/rounding.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace hmatrix {

void round_evenly(const Evenly& evenly, float* values) {
    const std::ptrdiff_t n = evenly.columns;
    std::vector<float> owed(static_cast<std::size_t>(n));
    for (std::ptrdiff_t i = 0; i < evenly.rows; ++i, values += n) {
        const float* target = evenly.target + i * n;
        std::copy_n(evenly.owed + i * n, n, owed.begin());
        for (std::ptrdiff_t j = 0; j < n; ++j) {
            const float* root = evenly.root + j * n;
            // A column that does not matter makes up for nothing.
            const float wanted = target[j] + (root[j] != 0.0f ? owed[static_cast<std::size_t>(j)] / root[j] : 0.0f);
            const float code = std::nearbyint(wanted + evenly.zero);
            // In this order NaN becomes a code, too.
            values[j] = std::max(evenly.lowest, std::min(evenly.highest, code)) - evenly.zero;
            const float error = target[j] - values[j];
            for (std::ptrdiff_t k = j + 1; k < n; ++k) owed[static_cast<std::size_t>(k)] += error * root[k];
        }
    }
}

}  // namespace hmatrix
