/*
 * variant.c - the primitives of simd.h for the instruction set that this file is compiled for;
 * SAW_ISA is its name.
 */
#include "kernels/simd/attention.h"

INLINE vf chain_f32(vf x, vf a, vf b)
{
    return fmadd(x, a, b);
}

INLINE vf chain_bf16(vf x, vf a, vf b)
{
#if DOT_PRODUCTS
    return dot_bf16(x, (vi)a, (vi)b);
#else
    return fmadd(x, a, b);
#endif
}

INLINE vf chain_s8(vf x, vf a, vf b)
{
#if DOT_PRODUCTS
    return (vf)dot_u8s8((vi)x, (vi)a, (vi)b);
#else
    (void)a;
    return (vf)madd((vi16)x, (vi16)b, (vi)x); /* with a, the product would be the same each time */
#endif
}

/** Repeat x = f(x, a, b) in independent chains; each f does `operations` in a lane. The best rate
 * of many pieces. */
INLINE double rate(vf (*f)(vf, vf, vf), int operations, double seconds)
{
    enum { CHAINS = 12, REPEATS = 100000 };
    volatile float source = 1.0f, sink = 0.0f;
    vf x[CHAINS], a = set1(source), b = set1(source * 1e-9f);
    UNROLL
    for (int i = 0; i < CHAINS; i++)
        x[i] = set1(source * (float)i);
    double best = 1e9;
    for (double end = saw_seconds() + seconds, begin = 0.0; begin < end;) {
        begin = saw_seconds();
        for (int n = 0; n < REPEATS; n++) {
            UNROLL
            for (int i = 0; i < CHAINS; i++)
                x[i] = f(x[i], a, b);
        }
        double each = saw_seconds() - begin;
        best = each < best ? each : best;
    }
    for (int i = 0; i < CHAINS; i++)
        sink += x[i][0];
    (void)sink;
    return (double)REPEATS * CHAINS * W * operations / best * 1e-9;
}

static double peak(saw_dtype dtype, double seconds)
{
    if (dtype == SAW_I8)
        return rate(chain_s8, DOT_PRODUCTS ? 8 : 4, seconds);
    if (dtype == SAW_BF16)
        return rate(chain_bf16, DOT_PRODUCTS ? 4 : 2, seconds);
    return rate(chain_f32, 2, seconds);
}

#define JOIN(a, b)      a##b
#define TABLE_NAME(isa) JOIN(saw_simd_, isa)
#define STRING(x)       #x
#define STRING_OF(x)    STRING(x)

extern const saw_simd TABLE_NAME(SAW_ISA);

const saw_simd TABLE_NAME(SAW_ISA) = {
    .name = STRING_OF(SAW_ISA),
    .panel = NR,
    .pack_bytes = pack_bytes,
    .pack_offset = pack_offset,
    .pack = pack,
    .gemm = gemm,
    .attention_pack_bytes = attention_pack_bytes,
    .attention_scratch_bytes = attention_scratch_bytes,
    .attention_pack = attention_pack,
    .attention = attention,
    .rmsnorm = rmsnorm,
    .layernorm = layernorm,
    .softmax = softmax,
    .rope = rope,
    .exp = map_exp,
    .gelu = map_gelu,
    .tanh = map_tanh,
    .sigmoid = map_sigmoid,
    .silu = map_silu,
    .softplus = map_softplus,
    .relu = map_relu,
    .add = add,
    .mul = mul,
    .scale = scale,
    .mul_add = mul_add,
    .axpy = axpy,
    .complex_mul = complex_mul,
    .dot = dot,
    .sum = sum,
    .sum_squares = sum_squares,
    .max_abs = max_abs,
    .f32_from_bf16 = f32_from_bf16,
    .bf16_from_f32 = bf16_from_f32,
    .f32_from_f16 = f32_from_f16,
    .f16_from_f32 = f16_from_f32,
    .lstm_gates = lstm_gates,
    .gru_gates = gru_gates,
    .peak = peak,
};
