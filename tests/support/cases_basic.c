/*
 * cases_basic.c - cases of the ops that every model shares. Sizes are odd on purpose: no multiple
 * of a vector, a panel or a block.
 */
#include "nn/nn.h"
#include "support/op_case.h"

static saw_val zero(saw_graph *g, const saw_val *in)
{
    (void)in;
    return saw_zero(g, SAW_DIMS(3, 5, 7));
}

#define UNARY(name)                                                                                \
    static saw_val name##_case(saw_graph *g, const saw_val *in)                                    \
    {                                                                                              \
        return saw_##name(g, in[0]);                                                               \
    }
UNARY(gelu)
UNARY(tanh)
UNARY(sigmoid)
UNARY(softplus)
UNARY(silu)
UNARY(relu)
UNARY(elu)
UNARY(exp)

static saw_val add(saw_graph *g, const saw_val *in)
{
    return saw_add(g, in[0], in[1]);
}

static saw_val mul(saw_graph *g, const saw_val *in)
{
    return saw_mul(g, in[0], in[1]);
}

static saw_val scale(saw_graph *g, const saw_val *in)
{
    return saw_scale(g, in[0], -1.75);
}

static saw_val cmul(saw_graph *g, const saw_val *in)
{
    return saw_cmul(g, in[0], in[1]);
}

static saw_val linear(saw_graph *g, const saw_val *in)
{
    return saw_linear(g, in[0], in[1], in[2]);
}

static saw_val rank_product(saw_graph *g, const saw_val *in)
{
    return saw_rank_product(g, in[0], in[1]);
}

static saw_val band_linear_ragged(saw_graph *g, const saw_val *in)
{
    return saw_band_linear(g, in[0], 3, in + 1, in + 4, true);
}

static saw_val band_linear_uniform(saw_graph *g, const saw_val *in)
{
    return saw_band_linear(g, in[0], 3, in + 1, in + 4, false);
}

static saw_val band_linear_plain(saw_graph *g, const saw_val *in)
{
    return saw_band_linear(g, in[0], 3, in + 1, NULL, true);
}

static saw_val rmsnorm(saw_graph *g, const saw_val *in)
{
    return saw_rmsnorm(g, in[0], in[1]);
}

static saw_val band_rmsnorm(saw_graph *g, const saw_val *in)
{
    return saw_band_rmsnorm(g, in[0], 3, in + 1);
}

static saw_val rope_table(saw_graph *g, const saw_val *in)
{
    return saw_rope_table(g, in[0], 9);
}

static saw_val rope_time(saw_graph *g, const saw_val *in)
{
    return saw_rope(g, in[0], in[1], 1);
}

static saw_val rope_bands(saw_graph *g, const saw_val *in)
{
    return saw_rope(g, in[0], in[1], 2);
}

static saw_val pope_phase(saw_graph *g, const saw_val *in)
{
    return saw_pope_phase(g, in[0]);
}

static saw_val pope_time(saw_graph *g, const saw_val *in)
{
    return saw_pope(g, in[0], in[1], in[2], 1);
}

static saw_val pope_bands(saw_graph *g, const saw_val *in)
{
    return saw_pope(g, in[0], in[1], in[2], 2);
}

static saw_val attention_time(saw_graph *g, const saw_val *in)
{
    return saw_attention(g, in[0], in[1], in[2], 1, 0.7);
}

static saw_val attention_bands(saw_graph *g, const saw_val *in)
{
    return saw_attention(g, in[0], in[1], in[2], 2, 1.3);
}

static saw_val linear_attention(saw_graph *g, const saw_val *in)
{
    return saw_linear_attention(g, in[0], in[1], in[2], in[3], 8);
}

static saw_val mul_heads(saw_graph *g, const saw_val *in)
{
    return saw_mul_heads(g, in[0], in[1]);
}

static saw_val glu_plain(saw_graph *g, const saw_val *in)
{
    return saw_glu(g, in[0], 1, (int64_t[]){300});
}

static saw_val glu_bands(saw_graph *g, const saw_val *in)
{
    return saw_glu(g, in[0], 3, (int64_t[]){3, 7, 1});
}

static saw_val gather(saw_graph *g, const saw_val *in)
{
    return saw_gather(g, in[0], (int32_t[]){4, 0, 0, -1, 6, 2, 6, 6, 1}, 9);
}

static saw_val scatter(saw_graph *g, const saw_val *in)
{
    return saw_scatter(g, in[0], (int32_t[]){4, 0, 0, -1, 6, 2, 6, 6, 1}, 8);
}

static const saw_stft_options stft_options = {
    .n_fft = 24, .hop = 7, .win_length = 20, .center = true};

static saw_val stft(saw_graph *g, const saw_val *in)
{
    return saw_stft_op(g, in[0], nn_stft_plan(g, &stft_options));
}

static saw_val istft(saw_graph *g, const saw_val *in)
{
    return saw_istft_op(g, in[0], nn_stft_plan(g, &stft_options), 61);
}

static const saw_stft_options stream_options = {.n_fft = 24, .hop = 7};

static saw_val stream_stft(saw_graph *g, const saw_val *in)
{
    return saw_stream_stft(g, in[0], nn_stft_plan(g, &stream_options));
}

static saw_val stream_istft(saw_graph *g, const saw_val *in)
{
    return saw_stream_istft(g, in[0], nn_stft_plan(g, &stream_options));
}

#define D OP_DIMS
static const op_case cases[] = {
    {.name = "zero", .record = zero},
    {.name = "gelu", .record = gelu_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "tanh", .record = tanh_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "sigmoid", .record = sigmoid_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "softplus", .record = softplus_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "silu", .record = silu_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "relu", .record = relu_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "elu", .record = elu_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "exp", .record = exp_case, .in = {D(2, 3, 301)}, .gain = 4},
    {.name = "add", .record = add, .in = {D(2, 5, 19), D(2, 5, 19)}},
    {.name = "add, repeated", .record = add, .in = {D(2, 5, 1, 19), D(2, 1, 3, 19)}},
    {.name = "mul", .record = mul, .in = {D(2, 5, 19), D(2, 5, 19)}},
    {.name = "mul, repeated", .record = mul, .in = {D(2, 5, 3, 1), D(1, 5, 3, 19)}},
    {.name = "scale", .record = scale, .in = {D(2, 5, 19)}},
    {.name = "cmul", .record = cmul, .in = {D(2, 5, 38), D(2, 5, 38)}},
    {.name = "cmul, long rows", .record = cmul, .in = {D(2, 602), D(2, 602)}},
    {.name = "linear", .record = linear, .in = {D(2, 5, 3, 19), D(23, 19), D(23)}, .params = 6},
    {.name = "linear, no bias", .record = linear, .in = {D(9, 129), D(65, 129)}, .params = 2},
    {.name = "rank_product", .record = rank_product, .in = {D(37, 5), D(5, 131)}},
    {.name = "rank_product, many columns", .record = rank_product, .in = {D(19, 3), D(3, 2311)}},
    {.name = "linear, many rows", /* and several blocks of the weight */
     .record = linear,
     .in = {D(3, 67, 41), D(203, 41), D(203)},
     .params = 6},
    {.name = "band_linear, ragged to uniform",
     .record = band_linear_uniform,
     .in = {D(2, 5, 14), D(7, 3), D(7, 9), D(7, 2), D(7), D(7), D(7)},
     .params = 0x7e},
    {.name = "band_linear, uniform to ragged",
     .record = band_linear_ragged,
     .in = {D(2, 5, 3, 11), D(3, 11), D(9, 11), D(17, 11), D(3), D(9), D(17)},
     .params = 0x7e},
    {.name = "band_linear, uniform to uniform",
     .record = band_linear_uniform,
     .in = {D(2, 5, 3, 11), D(6, 11), D(6, 11), D(6, 11), D(6), D(6), D(6)},
     .params = 0x7e},
    {.name = "band_linear, ragged to ragged, no bias",
     .record = band_linear_plain,
     .in = {D(2, 5, 14), D(4, 3), D(1, 9), D(6, 2)},
     .params = 0xe},
    {.name = "rmsnorm", .record = rmsnorm, .in = {D(2, 5, 3, 19), D(19)}, .params = 2},
    {.name = "rmsnorm, many rows", .record = rmsnorm, .in = {D(3, 43, 301), D(301)}, .params = 2},
    {.name = "band_rmsnorm",
     .record = band_rmsnorm,
     .in = {D(2, 5, 14), D(3), D(9), D(2)},
     .params = 0xe},
    {.name = "rope_table", .record = rope_table, .in = {D(5)}, .params = 1, .fixed = 1},
    {.name = "rope along time",
     .record = rope_time,
     .in = {D(2, 5, 3, 2, 6), D(8, 3, 2)},
     .params = 2,
     .fixed = 2},
    {.name = "rope along bands",
     .record = rope_bands,
     .in = {D(2, 3, 5, 2, 22), D(5, 11, 2)},
     .params = 2,
     .fixed = 2},
    {.name = "pope_phase",
     .record = pope_phase,
     .in = {D(3, 5)},
     .params = 1,
     .gain = 1.5,
     .offset = -1},
    {.name = "pope along time",
     .record = pope_time,
     .in = {D(2, 5, 3, 2, 7), D(8, 7, 2), D(2, 7, 2)},
     .params = 6,
     .fixed = 2},
    {.name = "pope along time, many positions",
     .record = pope_time,
     .in = {D(2, 47, 1, 3, 5), D(47, 5, 2), D(3, 5, 2)},
     .params = 6,
     .fixed = 2},
    {.name = "pope along bands, no phase",
     .record = pope_bands,
     .in = {D(2, 3, 5, 2, 7), D(5, 7, 2)},
     .params = 2,
     .fixed = 2},
    {.name = "attention along time",
     .record = attention_time,
     .in = {D(2, 9, 3, 2, 6), D(2, 9, 3, 2, 6), D(2, 9, 3, 2, 5)},
     .gain = 2},
    {.name = "attention along bands",
     .record = attention_bands,
     .in = {D(2, 3, 7, 2, 16), D(2, 3, 7, 2, 16), D(2, 3, 7, 2, 8)}},
    {.name = "attention over more keys than queries",
     .record = attention_time,
     .in = {D(3, 19, 4), D(3, 37, 4), D(3, 37, 4)},
     .gain = 2},
    {.name = "attention, many keys",
     .record = attention_time,
     .in = {D(1, 53, 4), D(1, 789, 4), D(1, 789, 4)},
     .gain = 2},
    {.name = "attention, many features",
     .record = attention_bands,
     .in = {D(1, 1, 5, 1, 389), D(1, 1, 7, 1, 389), D(1, 1, 7, 1, 387)},
     .gain = 0.2},
    {.name = "linear_attention",
     .record = linear_attention,
     .in = {D(2, 5, 3, 2, 6), D(2, 5, 3, 2, 6), D(2, 5, 3, 2, 6), D(2, 1, 1)},
     .params = 8},
    {.name = "mul_heads", .record = mul_heads, .in = {D(2, 5, 3, 4, 7), D(2, 5, 3, 4)}},
    {.name = "glu", .record = glu_plain, .in = {D(2, 3, 600)}, .gain = 3},
    {.name = "glu of bands", .record = glu_bands, .in = {D(2, 3, 22)}, .gain = 3},
    {.name = "gather", .record = gather, .in = {D(2, 5, 7)}},
    {.name = "scatter", .record = scatter, .in = {D(2, 5, 9)}},
    {.name = "stft", .record = stft, .in = {D(2, 3, 64)}, .dense_last = true},
    {.name = "istft", .record = istft, .in = {D(2, 10, 13, 3, 2)}, .dense_last = true},
    {.name = "stream_stft", .record = stream_stft, .in = {D(2, 3, 63)}, .fixed = 1},
    {.name = "stream_istft",
     .record = stream_istft,
     .in = {D(2, 9, 13, 3, 2)},
     .fixed = 1,
     .dense_last = true},
};

const op_case_list op_cases_basic = {cases, sizeof cases / sizeof *cases};
