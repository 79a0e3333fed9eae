/*
 * cases_conv.c - cases of the convolutions and of the ops around a network of them. Sizes are odd
 * on purpose; each way that the CPU kernel goes (patch, runs, phases, inputs) has a case.
 */
#include "support/op_case.h"

#define CONV(name, fn, ...)                                                                        \
    static saw_val name(saw_graph *g, const saw_val *in)                                           \
    {                                                                                              \
        return fn(g, in[0], in[1], in[2], &(saw_conv_form){__VA_ARGS__});                          \
    }
CONV(conv_plain, saw_conv, 0)
CONV(conv_strided, saw_conv, .stride = {2, 2}, .before = {1, 1}, .after = {2, 2})
CONV(conv_uneven, saw_conv, .stride = {3, 1}, .dilation = {1, 2}, .before = {0, 3}, .after = {2, 1})
CONV(conv_cut, saw_conv, .before = {-1, 1}, .after = {2, -2})
CONV(conv_groups, saw_conv, .groups = 3, .stride = {1, 2}, .before = {1, 0}, .after = {1, 1})
CONV(conv_frames, saw_conv, .axis = 1, .stride = {2, 0}, .dilation = {2, 0}, .before = {3, 0})
CONV(conv_bands, saw_conv, .axis = 2, .dilation = {0, 3}, .before = {0, 3}, .after = {0, 3})
CONV(transpose_plain, saw_conv_transpose, 0)
CONV(transpose_strided, saw_conv_transpose, .stride = {2, 2}, .before = {1, 1}, .after = {2, 2})
CONV(transpose_uneven, saw_conv_transpose, .stride = {3, 4}, .dilation = {2, 6}, .before = {1, 0},
     .after = {-1, 2})
CONV(transpose_groups, saw_conv_transpose, .groups = 3, .stride = {1, 2}, .before = {0, 1})
CONV(transpose_frames, saw_conv_transpose, .axis = 1, .stride = {4, 0}, .before = {2, 0},
     .after = {2, 0})

static saw_val batch_norm(saw_graph *g, const saw_val *in)
{
    return saw_batch_norm(g, in[0], in[1], in[2], in[3], in[4], 1e-3);
}

static saw_val batch_norm_train(saw_graph *g, const saw_val *in)
{
    saw_val mean, var;
    return saw_batch_norm_train(g, in[0], in[1], in[2], 1e-3, &mean, &var);
}

static saw_val dropout(saw_graph *g, const saw_val *in)
{
    return saw_dropout(g, in[0], 0.3);
}

static saw_val leaky_relu(saw_graph *g, const saw_val *in)
{
    return saw_leaky_relu(g, in[0], 0.2);
}

static saw_val magnitude(saw_graph *g, const saw_val *in)
{
    return saw_magnitude(g, in[0]);
}

static saw_val ratio_mask(saw_graph *g, const saw_val *in)
{
    return saw_ratio_mask(g, 3, in, 1, 2, 1e-2);
}

static saw_val ratio_mask_other_power(saw_graph *g, const saw_val *in)
{
    return saw_ratio_mask(g, 2, in, 0, 1.5, 1e-10);
}

static saw_val pad_around(saw_graph *g, const saw_val *in)
{
    return saw_pad(g, in[0], 1, 2, 3);
}

static saw_val pad_cut(saw_graph *g, const saw_val *in)
{
    return saw_pad(g, in[0], 2, -3, 1);
}

static saw_val pad_last(saw_graph *g, const saw_val *in)
{
    return saw_pad(g, in[0], 2, 4, -5);
}

#define D OP_DIMS
static const op_case cases[] = {
    {.name = "conv, small patch",
     .record = conv_plain,
     .in = {D(2, 7, 9, 3), D(19, 3, 3, 2), D(19)},
     .params = 6},
    {.name = "conv, strided, small patch",
     .record = conv_strided,
     .in = {D(2, 7, 9, 2), D(5, 2, 5, 5), D(5)},
     .params = 6},
    {.name = "conv, strided, runs",
     .record = conv_strided,
     .in = {D(2, 5, 9, 37), D(7, 37, 5, 5), D(7)},
     .params = 6},
    {.name = "conv, many rows", /* more than one block of them */
     .record = conv_strided,
     .in = {D(1, 17, 33, 19), D(3, 19, 5, 5), D(3)},
     .params = 6},
    {.name = "conv, dilated, no bias",
     .record = conv_uneven,
     .in = {D(2, 8, 9, 3), D(5, 3, 2, 4)},
     .params = 6},
    {.name = "conv, dilated, runs",
     .record = conv_uneven,
     .in = {D(1, 8, 9, 43), D(5, 43, 2, 4), D(5)},
     .params = 6},
    {.name = "conv, one feature",
     .record = conv_uneven,
     .in = {D(2, 8, 9, 1), D(2, 1, 2, 4), D(2)},
     .params = 6},
    {.name = "conv, two features, negative padding",
     .record = conv_cut,
     .in = {D(2, 7, 9, 2), D(2, 2, 3, 3), D(2)},
     .params = 6},
    {.name = "conv, negative padding",
     .record = conv_cut,
     .in = {D(2, 7, 9, 3), D(5, 3, 3, 3), D(5)},
     .params = 6},
    {.name = "conv, groups",
     .record = conv_groups,
     .in = {D(2, 5, 7, 6), D(9, 2, 3, 2), D(9)},
     .params = 6},
    {.name = "conv, groups, runs",
     .record = conv_groups,
     .in = {D(1, 5, 5, 135), D(6, 45, 3, 2), D(6)},
     .params = 6},
    {.name = "conv, frames only",
     .record = conv_frames,
     .in = {D(2, 11, 3, 5), D(7, 5, 3), D(7)},
     .params = 6},
    {.name = "conv, frames without bands",
     .record = conv_frames,
     .in = {D(2, 11, 5), D(7, 5, 3), D(7)},
     .params = 6},
    {.name = "conv, bands only",
     .record = conv_bands,
     .in = {D(2, 3, 11, 5), D(7, 5, 3), D(7)},
     .params = 6},
    {.name = "conv_transpose, phases",
     .record = transpose_strided,
     .in = {D(2, 5, 6, 7), D(7, 19, 5, 5), D(19)},
     .params = 6},
    {.name = "conv_transpose, phases, runs",
     .record = transpose_strided,
     .in = {D(1, 4, 7, 61), D(61, 17, 5, 5), D(17)},
     .params = 6},
    {.name = "conv_transpose, few features",
     .record = transpose_strided,
     .in = {D(2, 5, 6, 7), D(7, 1, 5, 5), D(1)},
     .params = 6},
    {.name = "conv_transpose, few features, no bias",
     .record = transpose_plain,
     .in = {D(2, 5, 6, 7), D(7, 3, 2, 3)},
     .params = 6},
    {.name = "conv_transpose, outputs that no tap reaches",
     .record = transpose_uneven,
     .in = {D(2, 4, 5, 7), D(7, 18, 2, 3), D(18)},
     .params = 6},
    {.name = "conv_transpose, groups",
     .record = transpose_groups,
     .in = {D(2, 5, 7, 6), D(6, 19, 3, 2), D(57)},
     .params = 6},
    {.name = "conv_transpose, groups, few features",
     .record = transpose_groups,
     .in = {D(2, 5, 7, 6), D(6, 3, 3, 2), D(9)},
     .params = 6},
    {.name = "conv_transpose, frames only",
     .record = transpose_frames,
     .in = {D(2, 5, 3, 7), D(7, 18, 8), D(18)},
     .params = 6},
    {.name = "batch_norm",
     .record = batch_norm,
     .in = {D(2, 5, 7, 19), D(19), D(19), D(19), D(19)},
     .params = 0x1e,
     .fixed = 0x18,
     .gain = 0.5,
     .offset = 1},
    {.name = "batch_norm, wide",
     .record = batch_norm,
     .in = {D(1, 2, 1030), D(1030), D(1030), D(1030), D(1030)},
     .params = 0x1e,
     .fixed = 0x18,
     .gain = 0.5,
     .offset = 1},
    {.name = "batch_norm_train",
     .record = batch_norm_train,
     .in = {D(2, 5, 7, 19), D(19), D(19)},
     .params = 6,
     .fixed = 0x30,
     .offset = 0.5},
    {.name = "batch_norm_train, in parts",
     .record = batch_norm_train,
     .in = {D(2, 5, 80), D(80), D(80)},
     .params = 6,
     .fixed = 0x30,
     .offset = 0.5},
    {.name = "dropout", .record = dropout, .in = {D(2, 5, 7, 19)}},
    {.name = "dropout, wide", .record = dropout, .in = {D(2, 3, 1030)}},
    {.name = "leaky_relu", .record = leaky_relu, .in = {D(2, 5, 7, 19)}},
    {.name = "magnitude", .record = magnitude, .in = {D(2, 5, 38)}},
    {.name = "ratio_mask",
     .record = ratio_mask,
     .in = {D(2, 5, 301), D(2, 5, 301), D(2, 5, 301)},
     .gain = 0.9,
     .offset = 1},
    {.name = "ratio_mask, power 1.5",
     .record = ratio_mask_other_power,
     .in = {D(2, 5, 19), D(2, 5, 19)},
     .gain = 0.9,
     .offset = 1},
    {.name = "pad", .record = pad_around, .in = {D(2, 5, 3, 19)}},
    {.name = "pad, cut", .record = pad_cut, .in = {D(2, 5, 7, 19)}},
    {.name = "pad, last axis", .record = pad_last, .in = {D(2, 5, 19)}},
};

const op_case_list op_cases_conv = {cases, sizeof cases / sizeof *cases};
