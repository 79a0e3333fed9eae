/*
 * recurrent.h - layers of the recurrent band-split models: norms over several axes and recurrent
 * networks.
 */
#ifndef SAW_NN_RECURRENT_H
#define SAW_NN_RECURRENT_H

#include "nn/nn.h"

/** saw_norm with name + ".weight" and ".bias", whose dims are the sizes of the affine axes in
 * order. */
saw_val nn_norm(saw_graph *g, const char *name, saw_val x, const saw_norm_form *form);
/** saw_band_norm likewise; the scope of band b's tensors is scope_format with b (one %d). widths
 * NULL: x [B,T,F,D]. */
saw_val nn_band_norm(saw_graph *g, const char *scope_format, saw_val x, int bands,
                     const int64_t *widths, const saw_norm_form *form);
/** Recurrent layer along axis 1 or 2 of x [B,T,F,D] -> [B,T,F,hidden * directions], its tensors
 * named as torch names them: name + ".weight_ih_l0", ".weight_hh_l0", ".bias_ih_l0", ".bias_hh_l0"
 * and the same with "_reverse". */
saw_val nn_rnn(saw_graph *g, const char *name, saw_val x, saw_rnn_kind kind, int axis,
               int64_t hidden, bool bidirectional, bool stateful);

#endif
