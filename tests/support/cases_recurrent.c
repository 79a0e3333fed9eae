/*
 * cases_recurrent.c - cases of the recurrent layers, of norms over several axes, and of the ops
 * that belong to the models with them. Sizes are odd on purpose.
 */
#include "support/op_case.h"

static saw_val rnn(saw_graph *g, const saw_val *in, saw_rnn_kind kind, int axis, int directions,
                   bool stateful)
{
    saw_rnn_weights w[2] = {{in[1], in[2], in[3], in[4]}, {in[5], in[6], in[7], in[8]}};
    return saw_rnn(g, in[0], kind, axis, directions, w, stateful);
}

static saw_val lstm_time(saw_graph *g, const saw_val *in)
{
    return rnn(g, in, SAW_RNN_LSTM, 1, 2, false);
}

static saw_val lstm_bands(saw_graph *g, const saw_val *in)
{
    return rnn(g, in, SAW_RNN_LSTM, 2, 1, false);
}

static saw_val gru_time(saw_graph *g, const saw_val *in)
{
    return rnn(g, in, SAW_RNN_GRU, 1, 1, false);
}

static saw_val gru_bands(saw_graph *g, const saw_val *in)
{
    return rnn(g, in, SAW_RNN_GRU, 2, 2, false);
}

#define OVER(mask, ...) (&(saw_norm_form){.over = mask, .affine = {__VA_ARGS__}, .eps = 1e-5})
enum { T = 1 << 1, F = 1 << 2, D = 1 << 3 };

static saw_val layer_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(D, 3));
}

static saw_val group_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(T | D, 3));
}

static saw_val groups_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(F | 1 << 4, 3, 4));
}

static saw_val sequence_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(F, 3));
}

static saw_val frame_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(F | D, 3, 2));
}

static saw_val plain_norm(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], 0, 0, OVER(T, 0));
}

static saw_val per_frame_weights(saw_graph *g, const saw_val *in)
{
    return saw_norm(g, in[0], in[1], in[2], OVER(D, 1, 3));
}

static saw_val bands_apart(saw_graph *g, const saw_val *in)
{
    return saw_band_norm(g, in[0], 3, NULL, in + 1, in + 4, OVER(T | D, 1, 3));
}

static const int64_t widths[] = {3, 9, 2};

static saw_val bands_ragged(saw_graph *g, const saw_val *in)
{
    return saw_band_norm(g, in[0], 3, widths, in + 1, in + 4, OVER(T | F, 2));
}

static saw_val bands_ragged_frames(saw_graph *g, const saw_val *in)
{
    return saw_band_norm(g, in[0], 3, widths, in + 1, in + 4, OVER(T | F, 2, 1));
}

static saw_val bands_ragged_rows(saw_graph *g, const saw_val *in)
{
    return saw_band_norm(g, in[0], 3, widths, in + 1, in + 4, OVER(F, 2));
}

static saw_val prelu(saw_graph *g, const saw_val *in)
{
    return saw_prelu(g, in[0], in[1]);
}

static saw_val mean_of_pairs(saw_graph *g, const saw_val *in)
{
    return saw_mean(g, in[0], 0, 2);
}

static saw_val mean_of_all(saw_graph *g, const saw_val *in)
{
    return saw_mean(g, in[0], 2, 3);
}

static saw_val concat(saw_graph *g, const saw_val *in)
{
    return saw_concat(g, 3, in);
}

static saw_val standardize(saw_graph *g, const saw_val *in)
{
    saw_val statistics;
    return saw_standardize(g, in[0], 1, 1e-5, &statistics);
}

static saw_val standardize_complex(saw_graph *g, const saw_val *in)
{
    saw_val statistics;
    return saw_standardize(g, in[0], 2, 1e-5, &statistics);
}

static saw_val restore(saw_graph *g, const saw_val *in)
{
    return saw_restore(g, in[0], in[1]);
}

static saw_val band_reinterpret(saw_graph *g, const saw_val *in)
{
    return saw_band_reinterpret(g, in[0], 3, widths);
}

#undef D
#define D OP_DIMS
static const op_case cases[] = {
    {.name = "lstm along time, both directions",
     .record = lstm_time,
     .in = {D(2, 7, 3, 5), D(12, 5), D(12, 3), D(12), D(12), D(12, 5), D(12, 3), D(12), D(12)},
     .params = 0x1fe},
    {.name = "lstm along bands, more sequences than a batch",
     .record = lstm_bands,
     .in = {D(2, 53, 4, 3), D(8, 3), D(8, 2), D(8), D(8)},
     .params = 0x1e},
    {.name = "gru along time",
     .record = gru_time,
     .in = {D(2, 7, 3, 5), D(9, 5), D(9, 3), D(9), D(9)},
     .params = 0x1e},
    {.name = "gru along bands, both directions",
     .record = gru_bands,
     .in = {D(2, 3, 5, 4), D(15, 4), D(15, 5), D(15), D(15), D(15, 4), D(15, 5), D(15), D(15)},
     .params = 0x1fe},
    {.name = "norm of rows",
     .record = layer_norm,
     .in = {D(2, 5, 3, 19), D(19), D(19)},
     .params = 6,
     .offset = 0.5},
    {.name = "norm over time and features",
     .record = group_norm,
     .in = {D(2, 5, 3, 19), D(19), D(19)},
     .params = 6,
     .offset = 0.5},
    {.name = "norm over bands, in groups of features",
     .record = groups_norm,
     .in = {D(2, 3, 5, 2, 9), D(18), D(18)},
     .params = 6},
    {.name = "norm over bands, features apart",
     .record = sequence_norm,
     .in = {D(2, 5, 4, 19), D(19), D(19)},
     .params = 6},
    {.name = "norm over bands and features, weights transposed",
     .record = frame_norm,
     .in = {D(2, 5, 3, 7), D(1, 7, 1, 3), D(1, 7, 1, 3)},
     .params = 6},
    {.name = "norm without weights", .record = plain_norm, .in = {D(2, 5, 3, 19)}},
    {.name = "norm of rows, weights for each frame",
     .record = per_frame_weights,
     .in = {D(2, 5, 3, 11), D(5, 11), D(5, 11)},
     .params = 6},
    {.name = "band_norm, uniform",
     .record = bands_apart,
     .in = {D(2, 5, 3, 11), D(5, 11), D(5, 11), D(5, 11), D(5, 11), D(5, 11), D(5, 11)},
     .params = 0x7e},
    {.name = "band_norm, ragged",
     .record = bands_ragged,
     .in = {D(2, 5, 14), D(3), D(9), D(2), D(3), D(9), D(2)},
     .params = 0x7e},
    {.name = "band_norm, ragged, weights for each frame",
     .record = bands_ragged_frames,
     .in = {D(2, 5, 14), D(3, 5), D(9, 5), D(2, 5), D(3, 5), D(9, 5), D(2, 5)},
     .params = 0x7e},
    {.name = "band_norm, ragged, frames apart",
     .record = bands_ragged_rows,
     .in = {D(2, 5, 14), D(3), D(9), D(2), D(3), D(9), D(2)},
     .params = 0x7e},
    {.name = "prelu, one slope", .record = prelu, .in = {D(2, 5, 19), D(1)}, .params = 2},
    {.name = "prelu, a slope a feature", .record = prelu, .in = {D(2, 5, 19), D(19)}, .params = 2},
    {.name = "mean of pairs", .record = mean_of_pairs, .in = {D(4, 5, 3, 7)}},
    {.name = "mean of all bands", .record = mean_of_all, .in = {D(4, 5, 3, 7)}},
    {.name = "concat", .record = concat, .in = {D(4, 5, 3, 7), D(2, 5, 1, 11), D(4, 5, 3, 2)}},
    {.name = "standardize", .record = standardize, .in = {D(3, 5, 7)}, .offset = 0.5},
    {.name = "standardize complex numbers",
     .record = standardize_complex,
     .in = {D(3, 5, 4, 2)},
     .offset = 0.5},
    {.name = "restore", .record = restore, .in = {D(3, 5, 8), D(3, 3)}},
    {.name = "band_reinterpret", .record = band_reinterpret, .in = {D(2, 5, 14)}},
};

const op_case_list op_cases_recurrent = {cases, sizeof cases / sizeof *cases};
