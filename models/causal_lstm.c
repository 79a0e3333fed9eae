/*
 * causal_lstm.c - a small causal separator: the band-split RNN (Luo and Yu, arXiv 2209.15174) with
 * LSTMs that only look back along time.
 *
 * B batch, C audio channels, T frames of a block, K bins, F bands, R features of all bands of a
 * frame, D width, H hidden.
 *
 * The same function is recorded for any number of hops. What couples frames, the transforms and the
 * LSTM along time, carries state from block to block; there is no look-ahead, and all delay is in
 * the synthesis window.
 */
#include "models/causal_lstm.h"
#include "nn/recurrent.h"

/* x [B,T,F,D] + a recurrent layer along one axis. */
static saw_val recurrent(saw_graph *g, const char *scope, saw_val x, const causal_lstm_options *o,
                         int axis)
{
    saw_scope(g, 0, "%s", scope);
    saw_val h = nn_rmsnorm(g, "norm", x);
    h = nn_rnn(g, "rnn", h, SAW_RNN_LSTM, axis, o->hidden, axis == 2, axis == 1);
    h = nn_linear(g, "fc", h, o->dim, true);
    saw_scope_end(g);
    return saw_add(g, x, h);
}

void causal_lstm_record(saw_graph *g, const void *options, saw_val mix)
{
    const causal_lstm_options *o = options;
    const saw_stft *plan = nn_stft_plan(g, &(saw_stft_options){.n_fft = o->n_fft, .hop = o->hop});
    if (!plan)
        return;
    int64_t bins = o->n_fft / 2 + 1, row = 2 * o->common.channels, widths[SAW_MAX_BANDS],
            twice[SAW_MAX_BANDS];
    for (int b = 0; b < o->bands; b++) {
        widths[b] = row * o->freqs_per_bands[b];
        twice[b] = 2 * widths[b];
    }
    saw_val spectrum = saw_tap(g, "stft", saw_stream_stft(g, mix, plan)); /* [B,T,K,C,2] */
    saw_val frame = saw_merge_last(g, saw_merge_last(g, spectrum));       /* [B,T,R] */
    saw_val x =
        nn_band_linear(g, "band_split.%d", frame, o->bands, widths, NULL, o->dim); /* [B,T,F,D] */
    for (int i = 0; i < o->depth; i++) {
        saw_scope(g, 0, "layers.%d", i);
        x = recurrent(g, "time", x, o, 1);
        x = saw_tap(g, "out", recurrent(g, "band", x, o, 2));
        saw_scope_end(g);
    }
    for (int s = 0; s < o->common.stems; s++) {
        char name[32];
        saw_scope(g, 0, "masks.%d", s);
        saw_val m = nn_band_linear(g, "%d", nn_rmsnorm(g, "norm", x), o->bands, NULL, twice, 0);
        m = saw_glu(g, m, o->bands, widths); /* [B,T,R] */
        saw_scope_end(g);
        saw_val y =
            saw_split_last(g, saw_split_last(g, saw_cmul(g, frame, m), bins), o->common.channels);
        snprintf(name, sizeof name, "stem%d", s);
        saw_output(g, name, saw_stream_istft(g, y, plan)); /* [B,C,n hop] */
    }
}
