// Multiplies with a progressive head that a test has written to a file, so that a kernel can be tested where there is
// no Python: run_head INSTRUCTION_SET CASE RESULT.
//
// A case is a row of arrays, each its size in bytes (int64) and its bytes: the number of largest outputs (int32), sizes,
// both bounds, the arrays of words, those of floats, order, starts, the intermediate entries of a coarse matrix (int32; empty
// where there is none), that matrix, and x. The result is all outputs, then the largest,
// their rows (int64), and the numbers of refined rows (int64).
#include <cstdio>
#include <optional>

#include "kernels/kernels.hpp"
#include "tests/case_plan.hpp"

namespace {

using namespace hmatrix;

template <class T>
std::vector<std::vector<T>> read_all(std::ifstream& file, int count) {
    std::vector<std::vector<T>> arrays;
    for (int i = 0; i < count; ++i) arrays.push_back(read<T>(file));
    return arrays;
}

template <class T>
std::vector<View<T>> viewed(const std::vector<std::vector<T>>& arrays) {
    std::vector<View<T>> views;
    for (const auto& array : arrays) views.push_back({array.data(), array.size()});
    return views;
}

template <class T>
void write(std::ofstream& file, const std::vector<T>& values) {
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(T)));
}

void run(const InstructionSet& set, std::ifstream& file, const char* result) {
    const std::int32_t top = read<std::int32_t>(file).at(0);
    const auto sizes = read<std::int32_t>(file);
    const auto bounds = read_all<float>(file, 2);
    const auto words = read_all<std::uint32_t>(file, 4);
    const auto floats = read_all<float>(file, 11);
    const auto order = read<std::int32_t>(file), starts = read<std::int32_t>(file);
    const auto intermediate = read<std::int32_t>(file);
    std::optional<CasePlan<float>> matrix;
    if (!intermediate.empty()) matrix.emplace(set, Shape{sizes.at(0), sizes.at(1)}, intermediate[0], file);
    const auto x = read<float>(file);
    const CheckedHead checked({sizes, bounds, viewed(words), viewed(floats), {order.data(), order.size()},
                               {starts.data(), starts.size()}, matrix ? &matrix->plan() : nullptr});
    const Head& head = checked.head();
    const std::size_t batch = x.size() / static_cast<std::size_t>(head.columns), found = batch * static_cast<std::size_t>(top);
    std::vector<float> y(batch * static_cast<std::size_t>(head.rows)), values(found);
    std::vector<std::int64_t> indices(found), counts(batch);
    head_outputs(set.refine, head, x.data(), y.data(), static_cast<std::ptrdiff_t>(batch));
    head_largest(set.refine, head, x.data(), top, values.data(), indices.data(), counts.data(),
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
