/*
 * nn.h - layers: parameters under the checkpoint's names and the ops that use them.
 *
 * `name` is the layer's own part of the name; its tensors are name + ".weight", ".bias", ".gamma"
 * in the present scope.
 */
#ifndef SAW_NN_H
#define SAW_NN_H

#include "kernels/ops.h"

/** x [..., K] -> [..., out]: weight [out, K], bias [out]. */
saw_val nn_linear(saw_graph *g, const char *name, saw_val x, int64_t out, bool bias);
/** Square kernels of `size`: weight [out, C, size, size] (transposed: [C, out, size, size]), bias
 * [out]. */
saw_val nn_conv(saw_graph *g, const char *name, saw_val x, int64_t out, int64_t size,
                const saw_conv_form *form, bool transposed);
/** weight, bias, running_mean, running_var [D]; the last two are never trained. */
saw_val nn_batch_norm(saw_graph *g, const char *name, saw_val x, double eps);
/** gamma [D]. */
saw_val nn_rmsnorm(saw_graph *g, const char *name, saw_val x);
/** The rotations of x [..., H, d] along axis, from the frequencies stored as name + "." + tensor.
 */
saw_val nn_rotations(saw_graph *g, const char *name, const char *tensor, int64_t count, saw_val x,
                     int axis);
/** Part i of `parts` equal ones of x [..., parts * heads * d], as heads: [..., heads, d]. */
saw_val nn_heads(saw_graph *g, saw_val x, int i, int parts, int heads);

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
