/*
 * simd_emulated.c - the code of AVX-512, 16 lanes and dot products, on a machine that may not have
 * it: the compiler splits the vectors. Correct, not fast.
 */
#define SAW_LANES 16
#define SAW_ISA   emulated
#include "kernels/simd/variant.c"
