/*
 * dropout.c - every number set to 0 with probability `rate`, the others times 1 / (1 - rate)
 * (Srivastava et al., JMLR 2014).
 *
 * Whether a number stays is a word of Philox, of (seed, number of the entry, number of the element
 * in the whole value): the same however a call is cut, in backward, and when a value is computed
 * again.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct dropout_attr {
    double rate;
    int64_t stride[SAW_MAX_DIMS]; /* of elements in the whole value */
} dropout_attr;

enum { PIECE = 512, WORDS = 4 };

/* Which of n elements from number `first` on stay. */
static inline void draw(const saw_call *c, int64_t first, int64_t n, bool *stays)
{
    const uint32_t limit = (uint32_t)(((const dropout_attr *)c->attr)->rate * 4294967296.0);
    for (int64_t i = -(first % WORDS); i < n; i += WORDS) {
        uint32_t word[WORDS];
        saw_philox(c->seed, (uint64_t)c->entry, (uint64_t)(first + i) / WORDS, word);
        for (int k = 0; k < WORDS; k++)
            if (i + k >= 0 && i + k < n)
                stays[i + k] = word[k] >= limit;
    }
}

/* Number of element 0 of row `row` of this call. */
static inline int64_t number_of(const saw_call *c, const saw_tensor *t, int64_t row)
{
    const dropout_attr *a = c->attr;
    int64_t number = 0;
    for (int i = t->ndim - 1; i-- > 0; row /= t->dims[i])
        number += (c->origin[i] + row % t->dims[i]) * a->stride[i];
    return number;
}

#ifdef SAW_REF

static void drop(const saw_call *c, const saw_tensor *from)
{
    const saw_tensor *to = &c->out[0], *t[] = {from, to};
    double scale = 1 / (1 - ((const dropout_attr *)c->attr)->rate);
    int64_t row = 0;
    saw_walk w = saw_walk_start(from->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++, row++)
            for (int64_t i = 0; i < saw_last(from); i++) {
                bool stays = false;
                draw(c, number_of(c, from, row) + i, 1, &stays);
                put(SAW_ROW(real, w, 1, r) + i * saw_last_stride(to), saw_adds(c, 0),
                    stays ? scale * (double)SAW_ROW(real, w, 0, r)[i * saw_last_stride(from)] : 0);
            }
}

SAW_REF_KERNEL(dropout_forward)
{
    drop(c, &c->in[0]);
}

SAW_REF_KERNEL(dropout_backward)
{
    drop(c, &c->in[2]);
}

#else

static bool shape(saw_shape *s)
{
    double rate = ((const dropout_attr *)s->attr)->rate;
    if (s->in[0].n < 1 || !(rate >= 0 && rate < 1))
        return saw_refuse(s, "a rate of %g; needs one from 0 to below 1", rate);
    s->out[0] = s->in[0];
    return true;
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)want, (void)n_in;
    return 0;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 20 * (double)saw_dims_count(out);
}

static void list(const void *attr, saw_buffer *out)
{
    saw_buffer_printf(out, " rate %g", ((const dropout_attr *)attr)->rate);
}

static void cpu_drop(const saw_call *c, const saw_tensor *from)
{
    const saw_tensor *t[] = {from, &c->out[0]};
    float scale = (float)(1 / (1 - ((const dropout_attr *)c->attr)->rate));
    int64_t row = 0;
    bool stays[PIECE];
    saw_walk w = saw_walk_start(from->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++, row++)
            for (int64_t first = 0; first < saw_last(from); first += PIECE) {
                int64_t n = saw_last(from) - first < PIECE ? saw_last(from) - first : PIECE;
                const float *x = SAW_ROW(const float, w, 0, r) + first;
                float *y = SAW_ROW(float, w, 1, r) + first;
                draw(c, number_of(c, from, row) + first, n, stays);
                for (int64_t i = 0; i < n; i++) {
                    float v = stays[i] ? scale * x[i] : 0;
                    y[i] = saw_adds(c, 0) ? y[i] + v : v;
                }
            }
}

static void cpu_forward(const saw_call *c)
{
    cpu_drop(c, &c->in[0]);
}

static void cpu_backward(const saw_call *c)
{
    cpu_drop(c, &c->in[2]);
}

const saw_op saw_op_dropout = {
    .name = "dropout",
    .attr_bytes = sizeof(dropout_attr),
    .shape = shape,
    .axes = saw_axes_rows,
    .keep = keep,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_forward,
    .cpu_backward = cpu_backward,
    .in_place = true,
    .differentiable = true,
    .tolerance_db = 130,
};

saw_val saw_dropout(saw_graph *g, saw_val x, double rate)
{
    dropout_attr a = {.rate = rate};
    saw_dims d = saw_dims_val(g, x);
    saw_dense_strides(d.n, d.d, a.stride);
    return SAW_RECORD(g, &saw_op_dropout, &a, x);
}

#endif
