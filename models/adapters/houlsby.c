/*
 * houlsby.c - a bottleneck behind every part of a layer (Houlsby et al., arXiv 1902.00751): h + U
 * gelu(D h + d) + u, D [width, dim], U [dim, width]; U = u = 0 at the start. It cannot be merged.
 */
#include "models/adapters/houlsby.h"

#include "kernels/ops.h"

#include <math.h>

enum { DOWN, DOWN_BIAS, UP, UP_BIAS, TENSORS };

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    int64_t width = ((const saw_houlsby_options *)options)->width;
    tensors[DOWN] = nn_adapter_tensor(g, m, "houlsby_down.weight", SAW_DIMS(width, m->in), false);
    tensors[DOWN_BIAS] = nn_adapter_tensor(g, m, "houlsby_down.bias", SAW_DIMS(width), false);
    tensors[UP] = nn_adapter_tensor(g, m, "houlsby_up.weight", SAW_DIMS(m->out, width), false);
    tensors[UP_BIAS] = nn_adapter_tensor(g, m, "houlsby_up.bias", SAW_DIMS(m->out), false);
    return TENSORS;
}

static saw_val insert(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val x)
{
    (void)options, (void)m;
    saw_val h = saw_gelu(g, saw_linear(g, x, tensors[DOWN], tensors[DOWN_BIAS]));
    return saw_add(g, x, saw_linear(g, h, tensors[UP], tensors[UP_BIAS]));
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    (void)ctx, (void)w;
    int64_t width = ((const saw_houlsby_options *)options)->width;
    double bound = 1 / sqrt((double)m->in);
    for (int64_t i = 0; i < width * m->in; i++)
        out[DOWN][i] = (float)(bound * saw_adapter_uniform(random, i));
    return SAW_OK;
}

static const saw_houlsby_options defaults = {.width = 32};

static const saw_adapter_option keys[] = {
    {"width", SAW_ADAPTER_INT, offsetof(saw_houlsby_options, width), 1, 4096},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_houlsby = {.name = "houlsby",
                                         .title = "Houlsby's bottleneck",
                                         .options_bytes = sizeof(saw_houlsby_options),
                                         .defaults = &defaults,
                                         .keys = keys,
                                         .declare = declare,
                                         .start = start,
                                         .insert = insert};
