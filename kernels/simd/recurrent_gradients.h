/*
 * recurrent_gradients.h - gradients of the recurrent cells of rows.h, one row. The gates come in as
 * before their activations and go out as gradients of that.
 */
#ifndef SAW_SIMD_RECURRENT_GRADIENTS_H
#define SAW_SIMD_RECURRENT_GRADIENTS_H

#include "kernels/simd/rows.h"

static void lstm_gates_gradient(float *gates, const float *c_before, const float *c_after,
                                const float *dh, float *dc, int64_t hidden)
{
    for (int64_t i = 0; i < hidden; i += W) {
        int64_t left = hidden - i;
        float *at = gates + i;
        vf in = sigmoid_of(load_up_to(at, left)),
           forget = sigmoid_of(load_up_to(at + hidden, left));
        vf cell = tanh_of(load_up_to(at + 2 * hidden, left)),
           out = sigmoid_of(load_up_to(at + 3 * hidden, left));
        vf size = tanh_of(load_up_to(c_after + i, left)), d = load_up_to(dh + i, left);
        vf d_cell = fmadd(d * out, 1.0f - size * size, load_up_to(dc + i, left));
        store_up_to(at, d_cell * cell * in * (1.0f - in), left);
        store_up_to(at + hidden, d_cell * load_up_to(c_before + i, left) * forget * (1.0f - forget),
                    left);
        store_up_to(at + 2 * hidden, d_cell * in * (1.0f - cell * cell), left);
        store_up_to(at + 3 * hidden, d * size * out * (1.0f - out), left);
        store_up_to(dc + i, d_cell * forget, left);
    }
}

static void gru_gates_gradient(float *from_x, float *from_h, const float *h_before, float *dh,
                               int64_t hidden)
{
    for (int64_t i = 0; i < hidden; i += W) {
        int64_t left = hidden - i;
        float *x = from_x + i, *h = from_h + i;
        vf reset = sigmoid_of(load_up_to(x, left) + load_up_to(h, left));
        vf keep = sigmoid_of(load_up_to(x + hidden, left) + load_up_to(h + hidden, left));
        vf again = load_up_to(h + 2 * hidden, left);
        vf fresh = tanh_of(fmadd(reset, again, load_up_to(x + 2 * hidden, left)));
        vf d = load_up_to(dh + i, left), d_fresh = d * (1.0f - keep) * (1.0f - fresh * fresh);
        vf d_reset = d_fresh * again * reset * (1.0f - reset);
        vf d_keep = d * (load_up_to(h_before + i, left) - fresh) * keep * (1.0f - keep);
        store_up_to(x, d_reset, left);
        store_up_to(h, d_reset, left);
        store_up_to(x + hidden, d_keep, left);
        store_up_to(h + hidden, d_keep, left);
        store_up_to(x + 2 * hidden, d_fresh, left);
        store_up_to(h + 2 * hidden, d_fresh * reset, left);
        store_up_to(dh + i, d * keep, left);
    }
}

#endif
