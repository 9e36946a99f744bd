#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#include <asm/hwcap.h>
#endif

#include <stdexcept>

#include "kernels/kernels.hpp"

namespace hmatrix {

#if defined(__x86_64__)
const bool prefetch_pays = (__builtin_cpu_init(), __builtin_cpu_is("intel"));
#else
const bool prefetch_pays = true;
#endif

namespace {

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vnni");
}
bool has_avx512vbmi() { return has_avx512() && __builtin_cpu_supports("avx512vbmi"); }
#elif defined(HMATRIX_NEON) && defined(__linux__)
bool has_dot_products() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }
#elif defined(HMATRIX_NEON)
bool has_dot_products() { return true; }  // of all Macs
#endif
bool always() { return true; }

// The best first.
const InstructionSet sets[] = {
#if defined(__x86_64__)
    // Only looked up values differ between these two.
    {"avx512vbmi", has_avx512vbmi, avx512::float32, avx512vbmi::looked_up, avx512::float64, avx512::vectors,
     avx512::encode_words},
    {"avx512", has_avx512, avx512::float32, avx512::looked_up, avx512::float64, avx512::vectors, avx512::encode_words},
    {"avx2", has_avx2, avx2::float32, avx2::looked_up, avx2::float64, avx2::vectors, avx2::encode_words},
#elif defined(HMATRIX_NEON)
    {"neon", has_dot_products, neon::float32, neon::looked_up, neon::float64, neon::vectors, neon::encode_words},
#endif
    {"portable", always, portable::float32, portable::looked_up, portable::float64, portable::vectors, portable::encode_words}};

}  // namespace

std::vector<const InstructionSet*> available() {
    std::vector<const InstructionSet*> found;
    for (const InstructionSet& set : sets)
        if (set.supported()) found.push_back(&set);
    return found;
}

const InstructionSet& find(const std::string& name) {
    for (const InstructionSet* set : available())
        if (name == set->name) return *set;
    throw std::invalid_argument("instruction set " + name + " is not available on this machine");
}

}  // namespace hmatrix
