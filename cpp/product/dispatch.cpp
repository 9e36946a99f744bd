#include <stdexcept>

#include "kernels/kernels.hpp"

namespace hmatrix {

#if defined(__x86_64__)
const bool prefetch_pays = (__builtin_cpu_init(), __builtin_cpu_is("intel"));
#else
const bool prefetch_pays = true;
#endif

std::vector<const InstructionSet*> available() {
    std::vector<const InstructionSet*> sets;
    for (const InstructionSet* set : {
#if defined(__x86_64__)
             &avx512vbmi, &avx512, &avx2,
#elif defined(__aarch64__) && defined(__linux__)
             &neon,
#endif
             &portable})
        if (set->supported()) sets.push_back(set);
    return sets;
}

const InstructionSet& find(const std::string& name) {
    for (const InstructionSet* set : available())
        if (name == set->name) return *set;
    throw std::invalid_argument("instruction set " + name + " is not available on this machine");
}

}  // namespace hmatrix
