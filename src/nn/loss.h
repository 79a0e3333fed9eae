/*
 * loss.h - the losses by name, and the sum of them that a recipe asks for.
 *
 * A recipe writes a sum of terms, each with a weight and with options where the defaults do not
 * serve:
 *
 *     l1
 *     l1 + mrstft * 0.5
 *     l1 + mrstft(windows=2048:1024:512, n_fft=1024, hop=160) + snr * 0.01
 *
 * Every loss is a mean over stems and items (wherever a formula says no more, over channels and
 * samples too), so that weights do not depend on their number. To add one: a row of the table in
 * loss.c.
 */
#ifndef SAW_NN_LOSS_H
#define SAW_NN_LOSS_H

#include "kernels/ops.h"

enum { NN_LOSS_TERMS = 8, NN_LOSS_OPTIONS = 3, NN_LOSS_NUMBERS = SAW_SPECTRAL_STFTS };

/** One option of a loss: a number, or up to NN_LOSS_NUMBERS numbers as 1:2:3. */
typedef struct nn_loss_option {
    const char *name, *value; /* the default as text */
    const char *what;
    double least, most;
    bool whole, list; /* whole numbers only; more than one */
} nn_loss_option;

/** A loss of the table. */
typedef struct nn_loss_row nn_loss_row;
const nn_loss_row *nn_loss_at(int i); /* NULL at the end */
const char *nn_loss_name(const nn_loss_row *row);
/** Its formula in a line. */
const char *nn_loss_what(const nn_loss_row *row);
/** Its option i; NULL at the end. */
const nn_loss_option *nn_loss_option_at(const nn_loss_row *row, int i);

typedef struct nn_loss_term {
    const nn_loss_row *row;
    double weight;
    int count[NN_LOSS_OPTIONS]; /* numbers of each option of the row */
    double value[NN_LOSS_OPTIONS][NN_LOSS_NUMBERS];
} nn_loss_term;

/** Read the sum of a recipe. SAW_ERR_ARGUMENT with a sentence that says what is wrong, and the
 * nearest known name for an unknown one. A loss may be named once. */
saw_status nn_loss_parse(saw_context *ctx, const char *text, nn_loss_term terms[NN_LOSS_TERMS],
                         int *n);

/**
 * Record the sum: stems[n_stems] [B,C,N] each, target [B,S,C,N], S = n_stems (or [B,C,N] for one
 * stem) -> [1], the output "loss". Every term without its weight is the output "loss.<name>".
 * STFT plans are the graph's. The gradient goes to the stems; a target may have one too.
 */
saw_val nn_loss(saw_graph *g, const nn_loss_term *terms, int n, int n_stems, const saw_val *stems,
                saw_val target);

#endif
