/*
 * band_reinterpret.c - the numbers of each band, [T, w] in memory, read as [w, T]: y[t, r] = flat[r
 * T + t] where flat[t w + r] = x[t, r]. Checkpoints of one BSRNN implementation were trained with
 * this in place of a transposition.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct reinterpret_attr {
    int bands;
    const int64_t *start; /* bands + 1 */
} reinterpret_attr;

#ifdef SAW_REF

/* x[b, t, start + r] and y at the place that it goes to. */
static void move_all(const saw_call *c, const saw_tensor *x, const saw_tensor *y, bool back)
{
    const reinterpret_attr *a = c->attr;
    int64_t frames = x->dims[1];
    for (int64_t b = 0; b < x->dims[0]; b++)
        for (int band = 0; band < a->bands; band++) {
            int64_t first = a->start[band], width = a->start[band + 1] - first;
            for (int64_t flat = 0; flat < frames * width; flat++) {
                int64_t r = flat / frames, t = flat % frames;
                real *from = (real *)x->data + b * x->strides[0] + flat / width * x->strides[1] +
                             (first + flat % width) * x->strides[2];
                real *to = (real *)y->data + b * y->strides[0] + t * y->strides[1] +
                           (first + r) * y->strides[2];
                put(back ? from : to, saw_adds(c, 0), (double)(back ? *to : *from));
            }
        }
}

SAW_REF_KERNEL(band_reinterpret_forward)
{
    move_all(c, &c->in[0], &c->out[0], false);
}

SAW_REF_KERNEL(band_reinterpret_backward)
{
    move_all(c, &c->out[0], &c->in[2], true);
}

#else

static bool shape(saw_shape *s)
{
    const reinterpret_attr *a = s->attr;
    if (s->in[0].n != 3 || s->in[0].d[2] != a->start[a->bands])
        return saw_refuse(s, "x is not [B, T, %lld]", (long long)a->start[a->bands]);
    s->out[0] = s->in[0];
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return SAW_AXIS(0);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

const saw_op saw_op_band_reinterpret = {
    .name = "band_reinterpret",
    .attr_bytes = sizeof(reinterpret_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .differentiable = true,
    .tolerance_db = 140,
};

saw_val saw_band_reinterpret(saw_graph *g, saw_val x, int bands, const int64_t *widths)
{
    reinterpret_attr a = {bands, saw_band_starts(g, bands, widths)};
    return a.start ? SAW_RECORD(g, &saw_op_band_reinterpret, &a, x) : 0;
}

#endif
