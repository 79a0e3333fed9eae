/*
 * variant.c - the primitives of simd.h for the instruction set that this file is compiled for;
 * SAW_ISA is its name.
 */
#include "kernels/simd/attention_gradient.h"
#include "kernels/simd/columns.h"
#include "kernels/simd/gradients.h"
#include "kernels/simd/recurrent_gradients.h"
#include "kernels/simd/outer.h"

INLINE vf chain_f32(vf x, vf a, vf b)
{
    return fmadd(x, a, b);
}

INLINE vf chain_bf16(vf x, vf a, vf b)
{
    return DOT_PRODUCTS ? dot_bf16(x, (vi)a, (vi)b) : fmadd(x, a, b);
}

INLINE vf chain_s8(vf x, vf a, vf b)
{
    return (vf)(DOT_PRODUCTS ? dot_u8s8((vi)x, (vi)a, (vi)b) : madd((vi16)a, (vi16)b, (vi)x));
}

/** Repeat x = f(x, a, b) in independent chains; each f does `operations` in a lane. The best rate
 * of many pieces. */
INLINE double rate(vf (*f)(vf, vf, vf), int operations, double seconds)
{
    enum { CHAINS = 10, REPEATS = 20000 };
    volatile float source = 1.0f, sink = 0.0f;
    vf x[CHAINS], a = set1(source), b = set1(source * 1e-9f);
    foreach (i, CHAINS)
        x[i] = set1(source * (float)i);
    double best = 1e9, now = saw_seconds(), end = now + seconds;
    do {
        double begin = now;
        for (int n = 0; n < REPEATS; n++) {
            foreach (i, CHAINS) {
                PIN(a); /* or equal products would be computed once for all */
                x[i] = f(x[i], a, b);
                PIN(x[i]);
            }
        }
        now = saw_seconds();
        best = now - begin < best ? now - begin : best;
    } while (now < end);
    foreach (i, CHAINS)
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
    .fast_bf16 = DOT_PRODUCTS,
    .panel = NR,
    .pack_bytes = pack_bytes,
    .pack_offset = pack_offset,
    .pack = pack,
    .gemm = gemm,
    .pack_transposed = pack_transposed,
    .outer_bytes = outer_bytes,
    .outer = outer,
    .attention_pack_bytes = attention_pack_bytes,
    .attention_scratch_bytes = attention_scratch_bytes,
    .attention_pack = attention_pack,
    .attention = attention,
    .attention_gradient_bytes = attention_gradient_bytes,
    .attention_gradient = attention_gradient,
    .rmsnorm = rmsnorm,
    .rmsnorm_gradient = rmsnorm_gradient,
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
    .elu = map_elu,
    .gelu_gradient = gelu_gradient,
    .tanh_gradient = tanh_gradient,
    .sigmoid_gradient = sigmoid_gradient,
    .silu_gradient = silu_gradient,
    .softplus_gradient = softplus_gradient,
    .relu_gradient = relu_gradient,
    .elu_gradient = elu_gradient,
    .exp_gradient = exp_gradient,
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
    .column_sums = column_sums,
    .f32_from_bf16 = f32_from_bf16,
    .bf16_from_f32 = bf16_from_f32,
    .f32_from_f16 = f32_from_f16,
    .f16_from_f32 = f16_from_f32,
    .lstm_gates = lstm_gates,
    .gru_gates = gru_gates,
    .lstm_gates_gradient = lstm_gates_gradient,
    .gru_gates_gradient = gru_gates_gradient,
    .peak = peak,
};
