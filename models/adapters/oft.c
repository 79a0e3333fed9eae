/*
 * oft.c - orthogonal finetuning (Qiu et al., arXiv 2306.07280) of what goes into a matrix, block by
 * block: x_block <- x_block R, so W_eff = W diag(R)^T. oft_R.weight [blocks, b (b - 1) / 2] holds
 * what is above the diagonal of skew matrices (cayley.c), zeros at the start: R = I.
 */
#include "models/adapters/oft.h"

#include "kernels/ops.h"

int64_t saw_oft_block(const saw_oft_options *o, int64_t in)
{
    if (o->block >= in)
        return in;
    int64_t up = o->block, down = o->block;
    while (in % up)
        up++;
    while (in % down)
        down--;
    return o->block - down <= up - o->block ? down : up;
}

static bool fits(const void *options, const saw_matrix *m)
{
    return saw_oft_block(options, m->in) > 1;
}

static int declare(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors)
{
    const saw_oft_options *o = options;
    int64_t b = saw_oft_block(o, m->in);
    tensors[0] = nn_adapter_tensor(g, m, "oft_R.weight",
                                   SAW_DIMS(o->shared ? 1 : m->in / b, b * (b - 1) / 2), false);
    return 1;
}

static saw_val weight(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias)
{
    (void)bias;
    const saw_oft_options *o = options;
    return saw_block_linear(g, w, saw_cayley(g, tensors[0], saw_oft_block(o, m->in), o->terms));
}

static saw_status start(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out)
{
    (void)ctx, (void)options, (void)m, (void)w, (void)random, (void)out;
    return SAW_OK; /* zeros */
}

static const saw_oft_options defaults = {.block = 32, .terms = 5};

static const saw_adapter_option keys[] = {
    {"block", SAW_ADAPTER_INT, offsetof(saw_oft_options, block), 2, 1024},
    {"terms", SAW_ADAPTER_INT, offsetof(saw_oft_options, terms), 0, 32},
    {"shared", SAW_ADAPTER_BOOL, offsetof(saw_oft_options, shared), 0, 0},
    {NULL, SAW_ADAPTER_INT, 0, 0, 0}};

const saw_adapter saw_adapter_oft = {.name = "oft",
                                     .title = "OFT",
                                     .options_bytes = sizeof(saw_oft_options),
                                     .defaults = &defaults,
                                     .keys = keys,
                                     .fits = fits,
                                     .declare = declare,
                                     .weight = weight,
                                     .start = start};
