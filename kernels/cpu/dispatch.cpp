// The library's C functions: which variants this processor runs, and calls into one of them.
#include "tasks.h"

#if defined(_WIN32)
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C" __attribute__((visibility("default")))
#endif

#if defined(__x86_64__)
#include <cpuid.h>

namespace avx512 { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
namespace sse { extern const Kernels kernels; }

namespace {

struct Registers {
    unsigned a = 0, b = 0, c = 0, d = 0;
};

Registers leaf(unsigned number) {
    Registers r;
    __get_cpuid_count(number, 0, &r.a, &r.b, &r.c, &r.d);
    return r;
}

// Which register states the operating system saves.
unsigned saved_state() {
    unsigned low, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(low), "=d"(high) : "c"(0));  // xgetbv
    return low;
}

bool has(unsigned value, unsigned mask) { return (value & mask) == mask; }

constexpr unsigned bit(int n) { return 1u << n; }

bool runs_sse() {
    return has(leaf(1).c, bit(0) | bit(9) | bit(19) | bit(20) | bit(23));  // SSE3, SSSE3, SSE4.1, SSE4.2, POPCNT
}

bool runs_avx2() {
    const unsigned one = leaf(1).c, seven = leaf(7).b;
    const bool basic = has(one, bit(12) | bit(22) | bit(27) | bit(28) | bit(29));  // FMA, MOVBE, OSXSAVE, AVX, F16C
    const bool wide = has(seven, bit(3) | bit(5) | bit(8));                        // BMI1, AVX2, BMI2
    return runs_sse() && basic && wide && has(leaf(0x80000001u).c, bit(5)) && has(saved_state(), 0x6);  // LZCNT
}

bool runs_avx512() {
    const unsigned features = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);  // F, DQ, CD, BW, VL
    return runs_avx2() && has(leaf(7).b, features) && has(saved_state(), 0xE6);
}

struct Variant {
    const Kernels* kernels;
    bool (*runs)();
};
const Variant VARIANTS[] = {{&avx512::kernels, runs_avx512}, {&avx2::kernels, runs_avx2}, {&sse::kernels, runs_sse}};

}  // namespace
#else
namespace neon { extern const Kernels kernels; }

namespace {

struct Variant {
    const Kernels* kernels;
    bool (*runs)();
};
const Variant VARIANTS[] = {{&neon::kernels, [] { return true; }}};

}  // namespace
#endif

// Variants are numbered from the fastest; the name is null past the last.
EXPORT const char* nvfp4_variant_name(int32_t variant) {
    const int32_t count = sizeof VARIANTS / sizeof *VARIANTS;
    return variant >= 0 && variant < count ? VARIANTS[variant].kernels->name : nullptr;
}

EXPORT int32_t nvfp4_variant_runs(int32_t variant) { return VARIANTS[variant].runs(); }

EXPORT int32_t nvfp4_encode(int32_t variant, EncodeTask* task) { return VARIANTS[variant].kernels->encode(task); }

EXPORT int32_t nvfp4_decode(int32_t variant, const DecodeTask* task) { return VARIANTS[variant].kernels->decode(task); }

EXPORT int32_t nvfp4_compare(int32_t variant, CompareTask* task) { return VARIANTS[variant].kernels->compare(task); }

EXPORT int32_t nvfp4_census(int32_t variant, CensusTask* task) { return VARIANTS[variant].kernels->census(task); }

EXPORT int32_t nvfp4_factor(int32_t variant, FactorTask* task) { return VARIANTS[variant].kernels->factor(task); }

EXPORT int32_t nvfp4_feedback(int32_t variant, FeedbackTask* task) {
    return VARIANTS[variant].kernels->feedback(task);
}

EXPORT float nvfp4_max_abs(int32_t variant, const void* weight, int64_t count, int32_t dtype) {
    return VARIANTS[variant].kernels->max_abs(weight, count, dtype);
}
