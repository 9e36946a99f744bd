// Multiplies with a progressive head that a test has written to a file, so that a kernel can be tested where there is
// no Python: run_head INSTRUCTION_SET CASE RESULT.
//
// A case is a row of arrays, each its size in bytes (int64) and its bytes: the number of largest outputs (int32), those of
// HeadArrays in their order, the intermediate entries of a coarse matrix (int32; empty where there is none), that matrix,
// and x. The result is all outputs, then the largest, their rows (int64), and the numbers of refined rows (int64).
#include <cstdio>
#include <optional>

#include "heads/head.hpp"
#include "kernels/kernels.hpp"
#include "tests/case_plan.hpp"

namespace {

using namespace hmatrix;

// Arrays that are kept while they are viewed.
class Kept {
public:
    explicit Kept(std::ifstream& file) : file_(file) {}

    View<std::int32_t> integers() { return viewed(integers_); }
    View<std::uint32_t> words() { return viewed(words_); }
    View<float> floats() { return viewed(floats_); }

private:
    template <class T>
    View<T> viewed(std::vector<std::vector<T>>& arrays) {
        arrays.push_back(read<T>(file_));
        return {arrays.back().data(), arrays.back().size()};
    }

    std::ifstream& file_;
    std::vector<std::vector<std::int32_t>> integers_;
    std::vector<std::vector<std::uint32_t>> words_;
    std::vector<std::vector<float>> floats_;
};

HeadArrays read_head(Kept& kept) {
    HeadArrays arrays{};
    arrays.sizes = kept.integers();
    arrays.limits = kept.floats();
    arrays.basis = kept.words();
    arrays.basis_scales = kept.floats();
    arrays.weights = kept.floats();
    arrays.factor = kept.words();
    arrays.factor_scales = kept.floats();
    arrays.bias = kept.floats();
    arrays.remainder = kept.floats();
    arrays.reach = kept.floats();
    arrays.cluster_limits = kept.floats();
    arrays.cluster_factor = kept.words();
    arrays.cluster_scales = kept.floats();
    arrays.cluster_bias = kept.floats();
    arrays.cluster_remainder = kept.floats();
    arrays.cluster_reach = kept.floats();
    arrays.order = kept.integers();
    arrays.starts = kept.integers();
    arrays.fine = kept.words();
    arrays.fine_scales = kept.floats();
    return arrays;
}

template <class T>
void write(std::ofstream& file, const std::vector<T>& values) {
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
}

void run(const InstructionSet& set, std::ifstream& file, const char* result) {
    const std::int32_t top = read<std::int32_t>(file).at(0);
    Kept kept(file);
    HeadArrays arrays = read_head(kept);
    const auto intermediate = read<std::int32_t>(file);
    std::optional<CasePlan<float>> matrix;
    if (!intermediate.empty()) {
        matrix.emplace(set, Shape{arrays.sizes.data[0], arrays.sizes.data[1]}, intermediate[0], file);
        arrays.matrix = &matrix->plan();
    }
    const auto x = read<float>(file);
    const CheckedHead checked(arrays);
    const Head& head = checked.head();
    const std::size_t batch = x.size() / static_cast<std::size_t>(head.columns), found = batch * static_cast<std::size_t>(top);
    std::vector<float> y(batch * static_cast<std::size_t>(head.rows)), values(found);
    std::vector<std::int64_t> indices(found), counts(batch);
    head_outputs(refine_of(set), head, x.data(), y.data(), static_cast<std::ptrdiff_t>(batch));
    head_largest(refine_of(set), head, x.data(), top, values.data(), indices.data(), counts.data(),
                 static_cast<std::ptrdiff_t>(batch));
    std::ofstream out(result, std::ios::binary);
    write(out, y), write(out, values), write(out, indices), write(out, counts);
}

}  // namespace

int main(int count, char** arguments) {
    try {
        if (count != 4) throw std::runtime_error("usage: run_head INSTRUCTION_SET CASE RESULT");
        std::ifstream file(arguments[2], std::ios::binary);
        run(find(arguments[1]), file, arguments[3]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "run_head: %s\n", error.what());
        return 1;
    }
    return 0;
}
