/*
 * vec.h - vectors of W floats. W and the few operations that C cannot say are chosen by the
 * compiler's target flags; everything has a fallback, so that any width can be compiled, and
 * tested, on any machine.
 */
#ifndef SAW_SIMD_VEC_H
#define SAW_SIMD_VEC_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(SAW_LANES) /* a width wider than the machine's, for the tests */
#define W SAW_LANES
#elif defined(__AVX512F__)
#define W      16
#define AVX512 1
#elif defined(__AVX2__) && defined(__FMA__)
#define W    8
#define AVX2 1
#else
#define W 4
#if defined(__SSE2__)
#define SSE2 1
#elif defined(__aarch64__)
#define NEON 1
#endif
#endif

#if defined(__F16C__)
#define F16C 1
#endif

#if W == 16
enum { MR = 12, NV = 2 }; /* rows and vectors of the register tile: 24 of 32 registers */
#else
enum { MR = 6, NV = 2 }; /* 12 of 16 */
#endif
enum { NR = NV * W };

/* bf16 and int8 dot products: in hardware, or (tests) as the same sums in C */
#if (AVX512 && defined(__AVX512BF16__) && defined(__AVX512VNNI__)) || defined(SAW_LANES)
#define DOT_PRODUCTS 1
#else
#define DOT_PRODUCTS 0
#endif

#define INLINE static inline __attribute__((always_inline))
/* A loop over i in [0, n), n known to the compiler, that leaves no loop. */
#if defined(__clang__)
#define foreach(i, n) _Pragma("clang loop unroll(full)") for (int i = 0; i < (n); i++)
#else
#define foreach(i, n) _Pragma("GCC unroll 32") for (int i = 0; i < (n); i++)
#endif

/* v is computed here: the compiler would mix the steps of a loop until its sums no longer fit the
 * registers. */
#if AVX512
#define PIN(v) __asm__ volatile("" : "+v"(v))
#elif AVX2 || SSE2
#define PIN(v) __asm__ volatile("" : "+x"(v))
#else
#define PIN(v) (void)(v)
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint64_t vu64 __attribute__((vector_size(4 * W)));
typedef int16_t vi16 __attribute__((vector_size(4 * W)));     /* two to a lane */
typedef int16_t half_i16 __attribute__((vector_size(2 * W))); /* one to a lane */
typedef uint16_t half_u16 __attribute__((vector_size(2 * W)));
typedef uint8_t quarter_u8 __attribute__((vector_size(W)));
typedef float v4 __attribute__((vector_size(16)));
typedef int32_t vi4 __attribute__((vector_size(16)));

typedef float vf_any __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef float v4_any __attribute__((vector_size(16), aligned(4), may_alias));
typedef half_u16 half_u16_any __attribute__((aligned(2), may_alias));
typedef half_i16 half_i16_any __attribute__((aligned(2), may_alias));
typedef quarter_u8 quarter_u8_any __attribute__((aligned(1), may_alias));
typedef uint32_t u32_any __attribute__((may_alias));
typedef int32_t i32_any __attribute__((may_alias));

INLINE vf load(const float *p)
{
    return *(const vf_any *)p;
}

INLINE void store(float *p, vf v)
{
    *(vf_any *)p = v;
}

INLINE vi load_i(const void *p)
{
    return *(const vi_any *)p;
}

INLINE void store_i(void *p, vi v)
{
    *(vi_any *)p = v;
}

INLINE vf set1(float x)
{
    return x - (vf){0};
}

INLINE vi set1_i(int32_t x)
{
    return x - (vi){0};
}

/** Lanes 0, 1, 2, ... */
INLINE vi lane_index(void)
{
    vi v;
    for (int i = 0; i < W; i++)
        v[i] = i;
    return v;
}

/** The first n < W floats, zeros after them; touches no memory behind them. */
INLINE vf load_part(const float *p, int64_t n)
{
#if AVX512
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif AVX2
    return (vf)_mm256_maskload_ps(p, (__m256i)(lane_index() < set1_i((int32_t)n)));
#else
    vf v = {0};
    memcpy(&v, p, (size_t)n * 4);
    return v;
#endif
}

INLINE void store_part(float *p, vf v, int64_t n)
{
#if AVX512
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif AVX2
    _mm256_maskstore_ps(p, (__m256i)(lane_index() < set1_i((int32_t)n)), (__m256)v);
#else
    memcpy(p, &v, (size_t)n * 4);
#endif
}

/** v in the first n lanes, zero in the others. */
INLINE vf keep_part(vf v, int64_t n)
{
    return (vf)((vi)v & (lane_index() < set1_i((int32_t)n)));
}

/** a * b + c; rounded once where the machine can. */
INLINE vf fmadd(vf a, vf b, vf c)
{
#if AVX512
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif AVX2
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif NEON
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

INLINE vf pick(vi mask, vf yes, vf no)
{
    return (vf)(((vi)yes & mask) | ((vi)no & ~mask));
}

/** The larger; b when either is NaN. */
INLINE vf max(vf a, vf b)
{
#if AVX512
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif AVX2
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif SSE2
    return (vf)_mm_max_ps((__m128)a, (__m128)b);
#else
    return pick(a > b, a, b);
#endif
}

INLINE vi max_i(vi a, vi b)
{
#if AVX512
    return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b);
#elif AVX2
    return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b);
#else
    return (vi)pick(a > b, (vf)a, (vf)b);
#endif
}

/** The smaller; b when either is NaN. */
INLINE vf min(vf a, vf b)
{
#if AVX512
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif AVX2
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif SSE2
    return (vf)_mm_min_ps((__m128)a, (__m128)b);
#else
    return pick(a < b, a, b);
#endif
}

INLINE vf absolute(vf v)
{
    return (vf)((vi)v & set1_i(0x7fffffff));
}

INLINE vf sign_of(vf v)
{
    return (vf)((vi)v & set1_i(INT32_MIN));
}

/** v where x >= limit or x is NaN, else 0. */
INLINE vf zero_below(vf v, vf x, float limit)
{
#if AVX512
    return (vf)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)set1(limit), _CMP_NLT_UQ),
                                   (__m512)v);
#else
    return (vf)((vi)v & ~(x < set1(limit)));
#endif
}

/** f over the lanes by a fixed tree: halves against halves. */
INLINE float fold(vf v, v4 (*f)(v4, v4))
{
#if W == 16
    typedef float v8 __attribute__((vector_size(32)));
    v8 a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
    v8 b = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    v4 x =
        f(f(__builtin_shufflevector(a, a, 0, 1, 2, 3), __builtin_shufflevector(b, b, 0, 1, 2, 3)),
          f(__builtin_shufflevector(a, a, 4, 5, 6, 7), __builtin_shufflevector(b, b, 4, 5, 6, 7)));
#elif W == 8
    v4 x = f(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7));
#else
    v4 x = v;
#endif
    x = f(x, __builtin_shufflevector(x, x, 2, 3, 0, 1));
    return f(x, __builtin_shufflevector(x, x, 1, 0, 3, 2))[0];
}

INLINE v4 sum4(v4 a, v4 b)
{
    return a + b;
}

INLINE v4 max4(v4 a, v4 b)
{
#if SSE2 || AVX2 || AVX512
    return (v4)_mm_max_ps((__m128)a, (__m128)b);
#else
    return (v4)(((vi4)a & (a > b)) | ((vi4)b & ~(a > b)));
#endif
}

INLINE float lanes_sum(vf v)
{
    return fold(v, sum4);
}

/** Any lane when one is NaN. */
INLINE float lanes_max(vf v)
{
    return fold(v, max4);
}

/** (x1, x0, x3, x2, ...), (x0, x0, x2, x2, ...), (x1, x1, x3, x3, ...) */
INLINE vf swap_pairs(vf v)
{
#if AVX512
    return (vf)_mm512_permute_ps((__m512)v, 0xb1);
#elif AVX2
    return (vf)_mm256_permute_ps((__m256)v, 0xb1);
#else
    return (vf)(((vu64)v << 32) | ((vu64)v >> 32));
#endif
}

INLINE vf first_of_pairs(vf v)
{
#if AVX512
    return (vf)_mm512_moveldup_ps((__m512)v);
#elif AVX2
    return (vf)_mm256_moveldup_ps((__m256)v);
#else
    return (vf)(((vu64)v << 32) | (((vu64)v << 32) >> 32));
#endif
}

INLINE vf second_of_pairs(vf v)
{
#if AVX512
    return (vf)_mm512_movehdup_ps((__m512)v);
#elif AVX2
    return (vf)_mm256_movehdup_ps((__m256)v);
#else
    return (vf)(((vu64)v >> 32) | (((vu64)v >> 32) << 32));
#endif
}

/** Round to bfloat16, nearest even, in the upper half of each lane; the lower half is zero. NaN
 * stays NaN. */
INLINE vu bf16_round(vf v)
{
    vu u = (vu)v, rounded = u + 0x7fffu + ((u >> 16) & 1u), nan = (vu)(v != v);
    return ((rounded & ~nan) | ((u | 0x400000u) & nan)) & 0xffff0000u;
}

/** The 16-bit halves of all lanes: sum + lo * lo + hi * hi, exactly. */
INLINE vi madd(vi16 a, vi16 b, vi sum)
{
    /* unsigned, because the peak loop lets its sums wrap */
#if AVX512
    return (vi)((vu)sum + (vu)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif AVX2
    return (vi)((vu)sum + (vu)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif SSE2
    return (vi)((vu)sum + (vu)_mm_madd_epi16((__m128i)a, (__m128i)b));
#else
    vi x = (vi)a, y = (vi)b;
    return (vi)((vu)sum + (vu)(((x << 16) >> 16) * ((y << 16) >> 16)) +
                (vu)((x >> 16) * (y >> 16)));
#endif
}

/** *sum += a * b and madd, computed here (see PIN) and without a copy of a register. */
INLINE void fmadd_here(vf *sum, vf a, vf b)
{
#if AVX2
    __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(*sum) : "x"(a), "x"(b));
#else
    *sum = fmadd(a, b, *sum);
    PIN(*sum);
#endif
}

INLINE void madd_here(vi *sum, vi16 a, vi16 b)
{
#if AVX2
    vi t;
    __asm__ volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0"
                     : "+x"(*sum), "=&x"(t)
                     : "x"(a), "x"(b));
#else
    *sum = madd(a, b, *sum);
    PIN(*sum);
#endif
}

/** Pairs of bfloat16: sum + lo * lo + hi * hi. */
INLINE vf dot_bf16(vf sum, vi a, vi b)
{
#if AVX512 && DOT_PRODUCTS
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)(__m512i)a, (__m512bh)(__m512i)b);
#else
    sum += (vf)(a & (int32_t)0xffff0000) * (vf)(b & (int32_t)0xffff0000);
    return sum + (vf)(a << 16) * (vf)(b << 16);
#endif
}

/** Quads of bytes, unsigned in a, signed in b: sum + the four products, exactly. */
INLINE vi dot_u8s8(vi sum, vi a, vi b)
{
#if AVX512 && DOT_PRODUCTS
    return (vi)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#else
    for (int shift = 0; shift < 32; shift += 8)
        sum += (vi)(((vu)a >> shift) & 255u) * ((b << (24 - shift)) >> 24);
    return sum;
#endif
}

#endif
