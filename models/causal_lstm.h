/*
 * causal_lstm.h - options of the causal band-split LSTM.
 */
#ifndef SAW_CAUSAL_LSTM_H
#define SAW_CAUSAL_LSTM_H

#include "models/model.h"

typedef struct causal_lstm_options {
    saw_model_common common;
    int n_fft, hop;
    int dim, hidden, depth;
    int bands;
    int64_t freqs_per_bands[SAW_MAX_BANDS]; /* in bins */
} causal_lstm_options;

/** Samples by which the output is later than the input. */
static inline int64_t causal_lstm_delay_samples(const causal_lstm_options *o)
{
    return o->n_fft - o->hop;
}

/** mix [B,C,n hop]: the next n hops of a signal without end. The run's state goes on from block to
 * block. */
void causal_lstm_record(saw_graph *g, const void *options, saw_val mix);

#endif
