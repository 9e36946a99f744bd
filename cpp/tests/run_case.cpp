// Multiplies with a packed matrix that a test has written to a file, so that a kernel can be tested where
// there is no Python: run_case INSTRUCTION_SET CASE RESULT.
//
// A case is a row of arrays, each its size in bytes (int64) and its bytes: the header (int64: float64 or not,
// rows, columns, intermediate, batch, transposed or not), the packed matrix, and x. The result is y.
#include <cstdio>
#include <cstring>

#include "tests/case_plan.hpp"

namespace {

using namespace hmatrix;

template <class T>
void run(const InstructionSet& set, const std::vector<std::int64_t>& header, std::ifstream& file, const char* result) {
    const auto m = header[1], n = header[2], batch = header[4];
    const bool transposed = header[5] != 0;
    const CasePlan<T> matrix(set, {static_cast<std::int32_t>(m), static_cast<std::int32_t>(n)},
                             static_cast<std::int32_t>(header[3]), file);
    const auto x = read<T>(file);
    std::vector<T> y(static_cast<std::size_t>(batch * (transposed ? n : m)));
    if (transposed)
        matrix.plan().multiply_transposed(x.data(), y.data(), batch);
    else
        matrix.plan().multiply(x.data(), y.data(), batch);
    std::ofstream(result, std::ios::binary)
        .write(reinterpret_cast<const char*>(y.data()), static_cast<std::streamsize>(y.size() * sizeof(T)));
}

}  // namespace

int main(int count, char** arguments) {
    try {
        if (count != 4) throw std::runtime_error("usage: run_case INSTRUCTION_SET CASE RESULT");
        const InstructionSet& set = find(arguments[1]);
        std::ifstream file(arguments[2], std::ios::binary);
        const auto header = read<std::int64_t>(file);
        if (header[0])
            run<double>(set, header, file, arguments[3]);
        else
            run<float>(set, header, file, arguments[3]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "run_case: %s\n", error.what());
        return 1;
    }
    return 0;
}
