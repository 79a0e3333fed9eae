/*
 * simd.c - which instruction sets this processor and its operating system can run.
 */
#include "kernels/simd/simd.h"

#if defined(SAW_SIMD_X86)
#include <cpuid.h>

/* Two features that not every compiler knows by name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c >> 29 & 1;
}

#if defined(SAW_SIMD_AVX512)
static bool has_avx512bf16(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 5 & 1;
}
#endif
#endif

extern const saw_simd saw_simd_plain, saw_simd_avx2, saw_simd_avx512, saw_simd_avx512bf16;

const saw_simd *saw_simd_at(int i)
{
    const saw_simd *sets[5] = {&saw_simd_plain};
    int count = 1;
#if defined(SAW_SIMD_X86)
    /* each set contains the one before, so the first that is missing ends the list */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
        sets[count++] = &saw_simd_avx2;
#if defined(SAW_SIMD_AVX512)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            sets[count++] = &saw_simd_avx512;
            if (has_avx512bf16() && __builtin_cpu_supports("avx512vnni"))
                sets[count++] = &saw_simd_avx512bf16;
        }
#endif
    }
#endif
    return i >= 0 && i < count ? sets[i] : NULL;
}

const saw_simd *saw_simd_best(void)
{
    int last = 0;
    while (saw_simd_at(last + 1))
        last++;
    return saw_simd_at(last);
}
