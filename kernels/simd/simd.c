/*
 * simd.c - which instruction sets this processor and its operating system can run.
 */
#include "kernels/simd/simd.h"

extern const saw_simd saw_simd_plain, saw_simd_avx2, saw_simd_avx512, saw_simd_avx512bf16;

const saw_simd *saw_simd_at(int i)
{
    const saw_simd *sets[5] = {&saw_simd_plain};
    int count = 1;
#if defined(SAW_SIMD_X86)
    /* each set contains the one before, so the first that is missing ends the list */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c")) {
        sets[count++] = &saw_simd_avx2;
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            sets[count++] = &saw_simd_avx512;
            if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni"))
                sets[count++] = &saw_simd_avx512bf16;
        }
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
