/*
 * nn.h - layers: parameters under the checkpoint's names and the ops that use them.
 *
 * `name` is the layer's own part of the name; its tensors are name + ".weight", ".bias", ".gamma"
 * in the present scope.
 */
#ifndef SAW_NN_H
#define SAW_NN_H

#include "kernels/ops.h"

typedef enum nn_batch_norm_mode { NN_BN_FROZEN, NN_BN_BATCH } nn_batch_norm_mode;

/** How layers behave in training. All zero: as in inference. */
typedef struct nn_training_options {
    /** FROZEN: by the running statistics, which are constants. BATCH: by those of the batch, which
     * are outputs of the graph, named module + ".running_mean.batch" and ".running_var.batch":
     * after a step the running ones are to be moved, running += momentum (batch - running). The
     * momentum of torch's default is 0.1, that of TensorFlow's, with which Spleeter was trained,
     * 0.01. */
    nn_batch_norm_mode batch_norm;
    bool dropout;
} nn_training_options;

/** What the layers that are recorded from now on do beside what the model says. */
typedef struct nn_mode {
    const struct saw_adapters *adapters;  /* NULL: none (adapter.h) */
    struct nn_adapted *adapted, **behind; /* what they have adapted so far: list, its end */
    nn_training_options training;
} nn_mode;
/** The graph's own; NULL, with the sticky error, when memory fails. */
nn_mode *nn_mode_of(saw_graph *g);
/** Layers that are recorded from now on are those of a training step. */
void nn_training(saw_graph *g, const nn_training_options *options);

/** x [..., K] -> [..., out]: weight [out, K], bias [out]. */
saw_val nn_linear(saw_graph *g, const char *name, saw_val x, int64_t out, bool bias);
/** Square kernels of `size`: weight [out, C, size, size] (transposed: [C, out, size, size]), bias
 * [out]. */
saw_val nn_conv(saw_graph *g, const char *name, saw_val x, int64_t out, int64_t size,
                const saw_conv_form *form, bool transposed);
/** weight, bias, running_mean, running_var [D]; the last two are never trained, and not there where
 * training is by the statistics of the batch. */
saw_val nn_batch_norm(saw_graph *g, const char *name, saw_val x, double eps);
/** saw_dropout in training, where it is wanted; else x. */
saw_val nn_dropout(saw_graph *g, saw_val x, double rate);
/** gamma [D]. */
saw_val nn_rmsnorm(saw_graph *g, const char *name, saw_val x);
/** The rotations of x [..., H, d] along axis, from the frequencies stored as name + "." + tensor.
 */
saw_val nn_rotations(saw_graph *g, const char *name, const char *tensor, int64_t count, saw_val x,
                     int axis);
/** Part i of `parts` equal ones of x [..., parts * heads * d], as heads: [..., heads, d]. */
saw_val nn_heads(saw_graph *g, saw_val x, int i, int parts, int heads);

/** What an adapter puts behind the part of a layer that is named; else x itself. `name` is that of
 * the tap there. */
saw_val nn_insert(saw_graph *g, const char *name, saw_val x);

/** One layer a band: the scope of band b's tensors is scope_format with b (one %d), e.g.
 * "to_features.%d.1". */
saw_val nn_band_rmsnorm(saw_graph *g, const char *scope_format, saw_val x, int bands,
                        const int64_t *widths);
/** x ragged (in NULL: uniform [B,T,F,D]); out NULL: uniform with `uniform_out` features. weight
 * [out_b, in_b], bias [out_b]. */
saw_val nn_band_linear(saw_graph *g, const char *scope_format, saw_val x, int bands,
                       const int64_t *in, const int64_t *out, int64_t uniform_out);

/** Open an STFT plan that the graph owns; NULL and the sticky error when it cannot be. */
const saw_stft *nn_stft_plan(saw_graph *g, const saw_stft_options *options);

#endif
