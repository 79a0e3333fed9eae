/*
 * conv.c - convolution and transposed convolution along frames, bands or both.
 *
 *     y[o] = bias + sum_i w[:, :, i] x[o stride - before + i dilation]         convolution
 *     y[t stride - before + i dilation] += w[:, :, i]^T x[t], plus bias        transposed
 *
 * On the CPU both are matrix products on rows of x. A transposed convolution is cut into phases:
 * the outputs o with the same remainder modulo the stride read the same taps, so that each phase is
 * a convolution of stride 1. Features come last in memory, hence the taps along axis 2 of one
 * output are one run of x (unless dilated), and a product takes it by a pointer; the taps along
 * axis 1 are added up, one product each. Runs that leave the input, and all of a small patch
 * together, go through a buffer. A transposed convolution to few features would waste the columns
 * of a panel: there one product gives all taps of an input, which are then added to the outputs.
 *
 * Each of the two is the other's adjoint, with the same weight: the gradient of x is the other one
 * of the gradient of y. The gradient of w is a sum of outer products of the same rows.
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct conv_attr {
    int64_t stride[2], dilation[2], before[2], after[2], kernel[2];
    int64_t groups, in, out; /* features of a group */
    bool transposed;
} conv_attr;

/* [B,T,F,C]; the value without axis 2 gets one of size 1. */
static inline saw_tensor with_bands(const saw_tensor *t)
{
    saw_tensor x = *t;
    if (t->ndim == 3) {
        x.ndim = 4;
        x.dims[3] = t->dims[2];
        x.strides[3] = t->strides[2];
        x.dims[2] = 1;
        x.strides[2] = 0;
    }
    return x;
}

#ifdef SAW_REF

/* Input that output o reads through this tap along axis 1 + a; -1 when there is none. */
static int64_t source(const conv_attr *c, int a, int64_t size, int64_t o, int64_t tap)
{
    int64_t at = o * c->stride[a] - c->before[a] + tap * c->dilation[a];
    if (c->transposed) {
        int64_t scaled = o + c->before[a] - tap * c->dilation[a];
        at = scaled % c->stride[a] ? -1 : scaled / c->stride[a];
    }
    return at >= 0 && at < size ? at : -1;
}

/* One product of the sum: offsets, in elements, of x, w and y. */
typedef void term_fn(const saw_call *c, int64_t x, int64_t w, int64_t y);

static void every_term(const saw_call *c, const saw_tensor *xt, const saw_tensor *w,
                       const saw_tensor *yt, term_fn *fn)
{
    const conv_attr *a = c->attr;
    saw_tensor x = with_bands(xt), y = with_bands(yt);
    int kf = w->ndim == 4 || a->kernel[0] == 1 ? w->ndim - 1 : -1; /* axes of w; -1: of size 1 */
    int kt = w->ndim == 4 ? 2 : a->kernel[0] == 1 ? -1 : 2;
    for (int64_t b = 0; b < y.dims[0]; b++)
        for (int64_t t = 0; t < y.dims[1]; t++)
            for (int64_t f = 0; f < y.dims[2]; f++)
                for (int64_t i = 0; i < a->kernel[0]; i++)
                    for (int64_t j = 0; j < a->kernel[1]; j++) {
                        int64_t u = source(a, 0, x.dims[1], c->origin[1] + t, i);
                        int64_t v = source(a, 1, x.dims[2], f, j);
                        if (u < 0 || v < 0)
                            continue;
                        for (int64_t o = 0; o < a->groups * a->out; o++)
                            for (int64_t k = 0; k < a->in; k++) {
                                int64_t n = o / a->out * a->in + k; /* feature of x */
                                int64_t first = a->transposed ? n : o;
                                int64_t second = a->transposed ? o % a->out : k;
                                fn(c,
                                   b * x.strides[0] + u * x.strides[1] + v * x.strides[2] +
                                       n * x.strides[3],
                                   first * w->strides[0] + second * w->strides[1] +
                                       (kt < 0 ? 0 : i * w->strides[kt]) +
                                       (kf < 0 ? 0 : j * w->strides[kf]),
                                   b * y.strides[0] + t * y.strides[1] + f * y.strides[2] +
                                       o * y.strides[3]);
                            }
                    }
}

static void add_output(const saw_call *c, int64_t x, int64_t w, int64_t y)
{
    ((real *)c->out[0].data)[y] +=
        ((const real *)c->in[0].data)[x] * ((const real *)c->in[1].data)[w];
}

static void add_dx(const saw_call *c, int64_t x, int64_t w, int64_t y)
{
    ((real *)c->out[0].data)[x] +=
        ((const real *)c->in[4].data)[y] * ((const real *)c->in[1].data)[w];
}

static void add_dw(const saw_call *c, int64_t x, int64_t w, int64_t y)
{
    ((real *)c->out[1].data)[w] +=
        ((const real *)c->in[4].data)[y] * ((const real *)c->in[0].data)[x];
}

SAW_REF_KERNEL(conv_forward)
{
    const saw_tensor *y = &c->out[0], *bias = &c->in[2];
    start_sum(c, 0);
    const saw_tensor *t[] = {y};
    saw_walk rows = saw_walk_start(y->ndim - 1, 1, t);
    while (bias->data && saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t i = 0; i < saw_last(y); i++)
                SAW_ROW(real, rows, 0, r)
    [i * saw_last_stride(y)] += ((const real *)bias->data)[i * bias->strides[0]];
    every_term(c, &c->in[0], &c->in[1], y, add_output);
}

SAW_REF_KERNEL(conv_backward)
{
    const saw_tensor *dy = &c->in[4], *dbias = &c->out[2];
    for (int j = 0; j < 3; j++)
        start_sum(c, j);
    if (c->out[0].data)
        every_term(c, &c->out[0], &c->in[1], dy, add_dx);
    if (c->out[1].data)
        every_term(c, &c->in[0], &c->out[1], dy, add_dw);
    const saw_tensor *t[] = {dy};
    saw_walk rows = saw_walk_start(dy->ndim - 1, 1, t);
    while (dbias->data && saw_walk_next(&rows))
        for (int64_t r = 0; r < rows.rows; r++)
            for (int64_t i = 0; i < saw_last(dy); i++)
                ((real *)dbias->data)[i * dbias->strides[0]] +=
                    SAW_ROW(real, rows, 0, r)[i * saw_last_stride(dy)];
}

#else

#include "kernels/product.h"

#include <string.h>

enum { BLOCK = 120, PATCH_DEPTH = 256, FEW_FEATURES = 8, FEWEST_FEATURES = 4 };

static bool shape(saw_shape *s)
{
    const conv_attr *a = s->attr;
    const saw_dims *x = &s->in[0], *w = &s->in[1], *bias = &s->in[2];
    int64_t out = a->groups * a->out;
    if ((x->n != 3 && x->n != 4) || a->in < 1)
        return saw_refuse(s, "needs x [B,T,F,C] or [B,T,C] and w [C',C,k] or [C',C,k,k]");
    if (a->groups * a->in != x->d[x->n - 1])
        return saw_refuse(s, "x has %lld features and w takes %lld", (long long)x->d[x->n - 1],
                          (long long)(a->groups * a->in));
    if (w->d[0] % a->groups || (bias->n && (bias->n != 1 || bias->d[0] != out)))
        return saw_refuse(s, "%lld features in %lld groups, and a bias that is not [%lld]",
                          (long long)w->d[0], (long long)a->groups, (long long)out);
    s->out[0] = *x;
    s->out[0].d[x->n - 1] = out;
    for (int i = 0; i < 2; i++) {
        if (x->n == 3 && i)
            return a->kernel[1] == 1 || saw_refuse(s, "there is no axis 2 to go along");
        int64_t reach = a->dilation[i] * (a->kernel[i] - 1) + 1, n = x->d[1 + i];
        int64_t pad = a->before[i] + a->after[i], size;
        if (a->transposed)
            size = (n - 1) * a->stride[i] + reach - pad;
        else
            size = n + pad < reach ? 0 : (n + pad - reach) / a->stride[i] + 1;
        if (size < 1)
            return saw_refuse(s, "%lld along axis %d are too few for %lld taps", (long long)n,
                              1 + i, (long long)a->kernel[i]);
        s->out[0].d[1 + i] = size;
    }
    return true;
}

/* Frames of the output can be cut; the input, of which neighbours are needed, is whole. */
static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)in;
    return operand == 0 ? SAW_AXIS(0) : operand >= n_in ? SAW_AXIS(0) | SAW_AXIS(1) : 0;
}

/* The adjoint: the gradient of x is cut as the output is, that of the output as x. */
static uint32_t backward_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    return axes(attr, n_in, in, operand == 0 ? n_in : operand >= n_in ? 0 : operand);
}

static uint32_t keep(const void *attr, uint32_t want, int n_in)
{
    (void)attr, (void)n_in;
    return (want & 1 ? 2u : 0) | (want & 2 ? 1u : 0);
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    const conv_attr *a = attr;
    (void)n_in;
    double taps = (double)(a->kernel[0] * a->kernel[1]);
    return 2 * taps *
           (a->transposed ? (double)saw_dims_count(in) * (double)a->out
                          : (double)saw_dims_count(out) * (double)a->in);
}

static void list(const void *attr, saw_buffer *out)
{
    const conv_attr *a = attr;
    saw_buffer_printf(out, "%s %lldx%lld", a->transposed ? " transposed" : "",
                      (long long)a->kernel[0], (long long)a->kernel[1]);
    if (a->stride[0] * a->stride[1] > 1)
        saw_buffer_printf(out, " stride %lld,%lld", (long long)a->stride[0],
                          (long long)a->stride[1]);
    if (a->dilation[0] * a->dilation[1] > 1)
        saw_buffer_printf(out, " dilation %lld,%lld", (long long)a->dilation[0],
                          (long long)a->dilation[1]);
    if (a->groups > 1)
        saw_buffer_printf(out, " groups %lld", (long long)a->groups);
}

/* ---- phases and matrices --------------------------------------------------------------------- */

/* Along one axis: output first + m step reads input base + m in_step + q tap_step through tap
 * w_first + q w_step of the kernel, for q = 0 .. taps - 1. */
typedef struct phase {
    int64_t first, step, base, in_step, taps, tap_step, w_first, w_step;
} phase;

static int64_t phase_count(const conv_attr *a, int axis)
{
    return a->transposed ? a->stride[axis] : 1;
}

static phase phase_of(const conv_attr *a, int axis, int64_t p)
{
    int64_t s = a->stride[axis], d = a->dilation[axis], k = a->kernel[axis];
    if (!a->transposed)
        return (phase){0, 1, -a->before[axis], s, k, d, 0, 1};
    int64_t g = s, r = d, shift = p + a->before[axis], tap = 0;
    while (r) {
        int64_t rest = g % r;
        g = r;
        r = rest;
    }
    while (tap < k && (shift - tap * d) % s)
        tap++;
    if (tap == k)
        return (phase){.first = p, .step = s, .in_step = 1};
    int64_t taps = (k - 1 - tap) / (s / g) + 1, last = tap + (taps - 1) * (s / g);
    return (phase){p, s, (shift - last * d) / s, 1, taps, d / g, last, -(s / g)};
}

/* Products that make a phase: one for the whole patch when it is small, else one for each tap along
 * axis 1. */
static int64_t run_count(const conv_attr *a, const phase *t, const phase *f)
{
    bool patch = t->taps * f->taps * a->in <= PATCH_DEPTH;
    return f->taps == 0 || t->taps == 0 ? 0 : patch ? 1 : t->taps;
}

static bool by_inputs(const conv_attr *a)
{
    return a->transposed && a->out <= FEW_FEATURES;
}

/* So few that every tap is better multiplied with a whole row. */
static bool by_taps(const conv_attr *a)
{
    return !a->transposed && a->groups == 1 && a->stride[1] == 1 &&
           a->in * a->out <= FEWEST_FEATURES;
}

static bool matrix(const void *attr, int64_t i, saw_pack_matrix *m)
{
    const conv_attr *a = attr;
    int64_t taps = a->kernel[0] * a->kernel[1];
    int64_t in_stride = a->transposed ? a->out * taps : taps;
    int64_t out_stride = a->transposed ? taps : a->in * taps;
    if (by_inputs(a)) {
        *m = (saw_pack_matrix){.first = i * a->in * in_stride,
                               .rows = {taps, a->out},
                               .row_stride = {1, out_stride},
                               .inner = {1, 1, a->in},
                               .inner_stride = {0, 0, in_stride}};
        return i < a->groups;
    }
    for (int64_t g = 0; g < a->groups; g++)
        for (int64_t p = 0; p < phase_count(a, 0); p++)
            for (int64_t q = 0; q < phase_count(a, 1); q++) {
                phase t = phase_of(a, 0, p), f = phase_of(a, 1, q);
                int64_t runs = run_count(a, &t, &f);
                if (i >= runs) {
                    i -= runs;
                    continue;
                }
                *m = (saw_pack_matrix){
                    .first = g * (a->transposed ? a->in * in_stride : a->out * out_stride) +
                             (t.w_first + i * t.w_step) * a->kernel[1] + f.w_first,
                    .rows = {1, a->out},
                    .row_stride = {0, out_stride},
                    .inner = {runs == 1 ? t.taps : 1, f.taps, a->in},
                    .inner_stride = {t.w_step * a->kernel[1], f.w_step, in_stride}};
                return true;
            }
    return false;
}

static saw_pack pack(const void *attr, int operand)
{
    return operand == 1 && !by_taps(attr) ? SAW_PACK_GEMM : SAW_PACK_NONE;
}

/* ---- the CPU kernel -------------------------------------------------------------------------- */

/* Longest row that a product takes, and how many numbers a row gives. */
static int64_t depth_of(const conv_attr *a)
{
    int64_t run = a->kernel[1] * a->in;
    return by_inputs(a) ? a->in : run > PATCH_DEPTH ? run : PATCH_DEPTH;
}

static int64_t width_of(const conv_attr *a)
{
    return by_inputs(a) ? a->kernel[0] * a->kernel[1] * a->out : a->out;
}

/* Numbers of one feature in a row of the input with its padding, and of the output. */
static int64_t row_length(const conv_attr *a, const saw_tensor *x, const saw_tensor *y)
{
    int64_t in = x->dims[2] + a->before[1] + a->after[1], out = y->dims[2];
    return in > out ? in : out;
}

static size_t scratch_of(const conv_attr *a, const saw_tensor *from, const saw_tensor *to)
{
    if (by_taps(a)) {
        saw_tensor x = with_bands(from), y = with_bands(to);
        return sizeof(float) * (size_t)((a->in + a->out) * row_length(a, &x, &y));
    }
    return SAW_GEMM_SCRATCH_BYTES + BLOCK * sizeof(float *) +
           sizeof(float) *
               ((size_t)(BLOCK + 1) * (size_t)depth_of(a) + BLOCK * (size_t)width_of(a));
}

static size_t scratch(const saw_call *c)
{
    return scratch_of(c->attr, &c->in[0], &c->out[0]);
}

typedef struct work {
    const saw_call *c;
    const conv_attr *a;
    saw_tensor x, y; /* of one item: [1,T,F,C] */
    const float *bias;
    const float **rows;
    float *zeros, *gathered, *result;
    const char *packed; /* the next matrix */
    int64_t group;
} work;

static void product(work *w, int64_t m, int64_t n, int64_t k, const float *bias, bool accumulate,
                    const char *packed)
{
    w->c->simd->gemm(&(saw_gemm){.dtype = product_dtype(w->c->precision),
                                 .m = m,
                                 .n = n,
                                 .k = k,
                                 .a_rows = w->rows,
                                 .b = packed,
                                 .c = w->result,
                                 .c_stride = n,
                                 .bias = bias,
                                 .accumulate = accumulate,
                                 .scratch = w->c->scratch});
}

/* One row of the taps along axis 2, from input (t, v) on, to `to`; zeros outside. */
static void gather(const work *w, const phase *f, int64_t t, int64_t v, float *to)
{
    int64_t in = w->a->in, last = v + (f->taps - 1) * f->tap_step, sf = w->x.strides[2];
    const float *x = (const float *)w->x.data + t * w->x.strides[1] + w->group * in;
    if (t < 0 || t >= w->x.dims[1]) {
        memset(to, 0, (size_t)(f->taps * in) * sizeof *to);
    } else if (v >= 0 && last < w->x.dims[2] && f->tap_step == 1 && sf == in) {
        memcpy(to, x + v * sf, (size_t)(f->taps * in) * sizeof *to);
    } else {
        for (int64_t q = 0; q < f->taps; q++, v += f->tap_step, to += in)
            for (int64_t k = 0; k < in; k++)
                to[k] = v >= 0 && v < w->x.dims[2] ? x[v * sf + k] : 0;
    }
}

/* Rows of x for outputs m .. m + count - 1 of a phase, of which a frame has `wide`. */
static void find_rows(work *w, const phase *t, const phase *f, int64_t t_first, int64_t wide,
                      int64_t m, int64_t count, int64_t run, int64_t runs)
{
    const conv_attr *a = w->a;
    int64_t k = f->taps * a->in * (runs == 1 ? t->taps : 1), sf = w->x.strides[2];
    bool joined = f->taps == 1 || (f->tap_step == 1 && sf == a->in);
    for (int64_t i = 0; i < count; i++) {
        int64_t u = t->base + (t_first + (m + i) / wide) * t->in_step + run * t->tap_step;
        int64_t v = f->base + (m + i) % wide * f->in_step;
        bool inside = v >= 0 && v + (f->taps - 1) * f->tap_step < w->x.dims[2];
        float *row = w->gathered + i * k;
        w->rows[i] = row;
        if (runs == 1) {
            for (int64_t q = 0; q < t->taps; q++, row += f->taps * a->in)
                gather(w, f, u + q * t->tap_step, v, row);
        } else if (u < 0 || u >= w->x.dims[1]) {
            w->rows[i] = w->zeros;
        } else if (inside && joined) {
            w->rows[i] = (const float *)w->x.data + u * w->x.strides[1] + v * sf + w->group * a->in;
        } else {
            gather(w, f, u, v, row);
        }
    }
}

/* Write a row of results, or add it. */
static void put_row(const work *w, int64_t t, int64_t f, const float *from)
{
    int64_t n = w->a->out;
    float *y = (float *)w->y.data + t * w->y.strides[1] + f * w->y.strides[2] + w->group * n;
    if (saw_adds(w->c, 0))
        w->c->simd->add(y, from, y, n);
    else
        memcpy(y, from, (size_t)n * sizeof *y);
}

/* The outputs of one pair of phases, in blocks of rows of nearly the same size. */
static void run_phase(work *w, const phase *t, const phase *f)
{
    const conv_attr *a = w->a;
    int64_t origin = w->c->origin[1], runs = run_count(a, t, f);
    int64_t t_first = (origin - t->first + t->step - 1) / t->step; /* of the phase, in this range */
    if (origin <= t->first)
        t_first = 0;
    int64_t end = origin + w->y.dims[1];
    int64_t high = end <= t->first ? 0 : (end - t->first + t->step - 1) / t->step - t_first;
    int64_t wide = (w->y.dims[2] - f->first + f->step - 1) / f->step;
    int64_t count = w->y.dims[2] <= f->first || high < 0 ? 0 : high * wide;
    int64_t parts = (count + BLOCK - 1) / BLOCK, k = f->taps * a->in * (runs == 1 ? t->taps : 1);
    size_t bytes = w->c->simd->pack_bytes(product_dtype(w->c->precision), a->out, k);
    for (int64_t part = 0; part < parts; part++) {
        int64_t m = count * part / parts, n = count * (part + 1) / parts - m;
        for (int64_t r = 0; r < runs; r++) {
            find_rows(w, t, f, t_first, wide, m, n, r, runs);
            product(w, n, a->out, k, r ? NULL : w->bias, r > 0, w->packed + (size_t)r * bytes);
        }
        for (int64_t i = 0; i < n; i++) {
            float *row = w->result + i * a->out;
            for (int64_t o = 0; runs == 0 && o < a->out; o++)
                row[o] = w->bias ? w->bias[o] : 0;
            put_row(w, t->first + (t_first + (m + i) / wide) * t->step - origin,
                    f->first + (m + i) % wide * f->step, row);
        }
    }
    w->packed += (size_t)runs * bytes;
}

/* Add what row i of the kernel gives for inputs v0 .. v0 + n - 1 to a row of outputs. */
static void add_taps(const work *w, int64_t i, int64_t v0, int64_t n, float *to)
{
    const conv_attr *a = w->a;
    int64_t width = width_of(a), step = a->stride[1], sf = w->y.strides[2];
    for (int64_t j = 0; j < a->kernel[1]; j++) {
        int64_t f = v0 * step - a->before[1] + j * a->dilation[1];
        int64_t low = f < 0 ? (-f + step - 1) / step : 0;
        int64_t high = w->y.dims[2] <= f ? 0 : (w->y.dims[2] - f + step - 1) / step;
        const float *from = w->result + (i * a->kernel[1] + j) * a->out;
        for (int64_t r = low; r < (high < n ? high : n); r++)
            for (int64_t o = 0; o < a->out; o++)
                to[(f + r * step) * sf + o] += from[r * width + o];
    }
}

/* A transposed convolution to few features: products of inputs, then their taps are added up, input
 * by input in rising order. */
static void run_inputs(work *w)
{
    const conv_attr *a = w->a;
    const saw_tensor *x = &w->x, *y = &w->y;
    int64_t origin = w->c->origin[1], width = width_of(a), sf = y->strides[2];
    float *first = (float *)y->data + w->group * a->out;
    for (int64_t t = 0; t < y->dims[1]; t++)
        for (int64_t f = 0; f < y->dims[2]; f++)
            for (int64_t o = 0; o < a->out; o++) {
                float *at = first + t * y->strides[1] + f * sf + o, b = w->bias ? w->bias[o] : 0;
                *at = saw_adds(w->c, 0) ? *at + b : b;
            }
    int64_t reach = a->dilation[0] * (a->kernel[0] - 1);
    for (int64_t u = 0; u < x->dims[1]; u++) {
        int64_t low = u * a->stride[0] - a->before[0] - origin;
        if (low + reach < 0 || low >= y->dims[1])
            continue;
        for (int64_t v0 = 0; v0 < x->dims[2]; v0 += BLOCK) {
            int64_t n = x->dims[2] - v0 < BLOCK ? x->dims[2] - v0 : BLOCK;
            for (int64_t i = 0; i < n; i++)
                w->rows[i] = (const float *)x->data + u * x->strides[1] + (v0 + i) * x->strides[2] +
                             w->group * a->in;
            product(w, n, width, a->in, NULL, false, w->packed);
            for (int64_t i = 0; i < a->kernel[0]; i++) {
                int64_t t = low + i * a->dilation[0];
                if (t < 0 || t >= y->dims[1])
                    continue;
                add_taps(w, i, v0, n, first + t * y->strides[1]);
            }
        }
    }
    w->packed += w->c->simd->pack_bytes(product_dtype(w->c->precision), width, a->in);
}

/* One feature of a row of x to `to`, with its padding; zeros when there is no such row. */
static void take_feature(const work *w, int64_t t, int64_t k, float *to)
{
    int64_t n = w->x.dims[2] + w->a->before[1] + w->a->after[1];
    const float *x = (const float *)w->x.data + t * w->x.strides[1] + k * w->x.strides[3];
    for (int64_t i = 0; i < n; i++) {
        int64_t v = i - w->a->before[1];
        bool inside = t >= 0 && t < w->x.dims[1] && v >= 0 && v < w->x.dims[2];
        to[i] = inside ? x[v * w->x.strides[2]] : 0;
    }
}

/* Sums over rows of single features, tap by tap. */
static void run_taps(work *w)
{
    const conv_attr *a = w->a;
    const saw_tensor *x = &w->x, *y = &w->y, *weight = &w->c->in[1];
    int64_t length = row_length(a, x, y), n = y->dims[2], taps = a->kernel[0] * a->kernel[1];
    float *in = w->c->scratch, *out = in + a->in * length;
    for (int64_t t = 0; t < y->dims[1]; t++) {
        for (int64_t o = 0; o < a->out; o++)
            for (int64_t f = 0; f < n; f++)
                out[o * length + f] = w->bias ? w->bias[o] : 0;
        for (int64_t i = 0; i < a->kernel[0]; i++) {
            int64_t u = (w->c->origin[1] + t) * a->stride[0] - a->before[0] + i * a->dilation[0];
            for (int64_t k = 0; k < a->in; k++)
                take_feature(w, u, k, in + k * length);
            for (int64_t o = 0; o < a->out; o++)
                for (int64_t k = 0; k < a->in; k++)
                    for (int64_t j = 0; j < a->kernel[1]; j++)
                        w->c->simd->axpy(
                            ((const float *)
                                 weight->data)[(o * a->in + k) * taps + i * a->kernel[1] + j],
                            in + k * length + j * a->dilation[1], out + o * length, n);
        }
        for (int64_t f = 0; f < n; f++)
            for (int64_t o = 0; o < a->out; o++) {
                float *to = (float *)y->data + t * y->strides[1] + f * y->strides[2] + o;
                *to = saw_adds(w->c, 0) ? *to + out[o * length + f] : out[o * length + f];
            }
    }
}

static void cpu_conv(const saw_call *c)
{
    const conv_attr *a = c->attr;
    work w = {.c = c, .a = a, .x = with_bands(&c->in[0]), .y = with_bands(&c->out[0])};
    w.rows = (const float **)(void *)((char *)c->scratch + SAW_GEMM_SCRATCH_BYTES);
    w.zeros = (float *)(w.rows + BLOCK);
    w.gathered = w.zeros + depth_of(a);
    w.result = w.gathered + BLOCK * depth_of(a);
    if (!by_taps(a))
        memset(w.zeros, 0, (size_t)depth_of(a) * sizeof(float));
    int64_t items = w.y.dims[0];
    for (int64_t b = 0; b < items; b++) {
        w.packed = by_taps(a) ? NULL : c->packed[1]->data;
        for (w.group = 0; w.group < a->groups; w.group++) {
            w.bias = c->in[2].data ? (const float *)c->in[2].data + w.group * a->out : NULL;
            if (by_taps(a))
                run_taps(&w);
            else if (by_inputs(a))
                run_inputs(&w);
            for (int64_t p = 0; p < phase_count(a, 0) && !by_inputs(a) && !by_taps(a); p++)
                for (int64_t q = 0; q < phase_count(a, 1); q++) {
                    phase t = phase_of(a, 0, p), f = phase_of(a, 1, q);
                    run_phase(&w, &t, &f);
                }
        }
        w.x.data = (float *)w.x.data + w.x.strides[0];
        w.y.data = (float *)w.y.data + w.y.strides[0];
    }
}

/* ---- gradients ------------------------------------------------------------------------------- */

/* What leads from y back to x. */
static conv_attr adjoint(const conv_attr *a)
{
    conv_attr b = *a;
    b.transposed = !a->transposed;
    b.in = a->out;
    b.out = a->in;
    return b;
}

/* The one of both that is a convolution. */
static conv_attr convolution(const conv_attr *a)
{
    return a->transposed ? adjoint(a) : *a;
}

static size_t packed_bytes(const conv_attr *a, const saw_simd *simd)
{
    size_t bytes = 0;
    saw_pack_matrix m;
    for (int64_t i = 0; !by_taps(a) && matrix(a, i, &m); i++)
        bytes +=
            simd->pack_bytes(SAW_F32, m.rows[0] * m.rows[1], m.inner[0] * m.inner[1] * m.inner[2]);
    return bytes;
}

/* All matrices of a dense weight, a part of them at a time that stays in the cache: each reads
 * other elements of the same lines. */
static void pack_dense(const conv_attr *a, const saw_simd *simd, const float *weight, char *packed)
{
    enum { DEEP = 64 };
    saw_pack_matrix m;
    int64_t rows = matrix(a, 0, &m) ? m.rows[0] * m.rows[1] : 0, wide = simd->panel;
    for (int64_t n0 = 0; n0 < rows; n0 += wide)
        for (int64_t k0 = 0; k0 < a->in; k0 += DEEP) {
            int64_t k1 = k0 + DEEP < a->in ? k0 + DEEP : a->in;
            char *at = packed;
            for (int64_t i = 0; matrix(a, i, &m); i++) {
                int64_t taps = m.inner[0] * m.inner[1], depth = taps * m.inner[2];
                float *to = (float *)(void *)(at + simd->pack_offset(SAW_F32, n0, depth));
                for (int64_t n = 0; n < wide; n++) {
                    int64_t row = n0 + n < rows ? n0 + n : rows - 1;
                    const float *from = weight + m.first + row / m.rows[1] * m.row_stride[0] +
                                        row % m.rows[1] * m.row_stride[1];
                    for (int64_t tap = 0; tap < taps; tap++) {
                        const float *x = from + tap / m.inner[1] * m.inner_stride[0] +
                                         tap % m.inner[1] * m.inner_stride[1];
                        float *y = to + tap * m.inner[2] * wide + n;
                        for (int64_t k = k0; k < k1; k++)
                            y[k * wide] = x[k * m.inner_stride[2]];
                    }
                }
                at += simd->pack_bytes(SAW_F32, rows, depth);
            }
        }
}

/* The gradient of w in blocks: features of the convolution's output and, where these are few, the
 * runs that make a patch. */
typedef struct weight_blocks {
    phase t, f;
    int64_t runs, run; /* of a patch; numbers of a run */
    int64_t high, apart;
} weight_blocks;

static weight_blocks weight_blocks_of(const conv_attr *a)
{
    enum { LARGE = 128, ENOUGH = 4 };
    weight_blocks b = {.t = phase_of(a, 0, 0), .f = phase_of(a, 1, 0)};
    b.runs = run_count(a, &b.t, &b.f);
    b.run = a->kernel[1] * a->in * (b.runs == 1 ? a->kernel[0] : 1);
    b.high = (a->out + LARGE - 1) / LARGE;
    b.apart = a->groups * b.high < ENOUGH ? b.runs : 1;
    return b;
}

static int64_t backward_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    const conv_attr a = convolution(attr);
    weight_blocks b = weight_blocks_of(&a);
    (void)n_in, (void)in, (void)out;
    return a.groups * b.high * b.apart;
}

/* Memory of a part of the gradient of w. */
typedef struct weight_memory {
    const float **ours, **rows;
    float *zeros, *gathered, *sums;
    void *outer;
    size_t bytes;
} weight_memory;

static weight_memory weight_memory_of(const conv_attr *a, const saw_simd *simd, char *base)
{
    weight_blocks b = weight_blocks_of(a);
    int64_t most = a->out / b.high + 1;
    size_t sizes[] = {BLOCK * sizeof(float *),
                      BLOCK * sizeof(float *),
                      (size_t)depth_of(a) * sizeof(float),
                      (size_t)(BLOCK * depth_of(a)) * sizeof(float),
                      (size_t)(most * b.run * (b.runs / b.apart)) * sizeof(float),
                      simd->outer_bytes(most, b.run)};
    char *at[6];
    weight_memory m = {0};
    for (int i = 0; i < 6; i++) {
        at[i] = base ? base + m.bytes : NULL;
        m.bytes += (sizes[i] + 63) / 64 * 64;
    }
    m.ours = (const float **)(void *)at[0];
    m.rows = (const float **)(void *)at[1];
    m.zeros = (float *)(void *)at[2];
    m.gathered = (float *)(void *)at[3];
    m.sums = (float *)(void *)at[4];
    m.outer = at[5];
    return m;
}

static size_t backward_scratch(const saw_call *c)
{
    const conv_attr *a = c->attr;
    const conv_attr back = adjoint(a), forth = convolution(a);
    if (c->out[0].ndim)
        return packed_bytes(&back, c->simd) + scratch_of(&back, &c->in[4], &c->out[0]);
    size_t sums = (size_t)(a->groups * a->out) * sizeof(float);
    return (c->out[1].ndim ? weight_memory_of(&forth, c->simd, NULL).bytes : 0) +
           (c->out[2].ndim ? sums : 0);
}

/* Block i of dw. x and y are what the convolution reads and gives. */
static void weight_block(const saw_call *c, const conv_attr *a, const saw_tensor *x,
                         const saw_tensor *y, int64_t i)
{
    const weight_blocks b = weight_blocks_of(a);
    const weight_memory m = weight_memory_of(a, c->simd, c->scratch);
    int64_t group = i / (b.high * b.apart), block = i / b.apart % b.high, run0 = i % b.apart;
    int64_t first = a->out * block / b.high, n = a->out * (block + 1) / b.high - first;
    int64_t runs = b.runs / b.apart, stride = runs * b.run, taps = a->kernel[0] * a->kernel[1];
    work w = {.a = a, .rows = m.rows, .zeros = m.zeros, .gathered = m.gathered, .group = group};
    memset(m.zeros, 0, (size_t)depth_of(a) * sizeof *m.zeros);
    saw_outer o = {
        .m = n, .n = b.run, .a = m.ours, .b = m.rows, .c_stride = stride, .scratch = m.outer};
    for (int64_t item = 0; item < y->dims[0]; item++) {
        w.x = saw_item_of(x, item);
        w.y = saw_item_of(y, item);
        int64_t wide = y->dims[2], count = y->dims[1] * wide;
        for (int64_t at = 0; at < count; at += BLOCK) {
            o.rows = count - at < BLOCK ? count - at : BLOCK;
            for (int64_t r = 0; r < o.rows; r++)
                m.ours[r] = (const float *)w.y.data + (at + r) / wide * y->strides[1] +
                            (at + r) % wide * y->strides[2] + group * a->out + first;
            for (int64_t r = 0; r < runs; r++) {
                find_rows(&w, &b.t, &b.f, 0, wide, at, o.rows, run0 + r, b.runs);
                o.c = m.sums + r * b.run;
                c->simd->outer(&o);
            }
            o.accumulate = true;
        }
    }
    int64_t width = stride / a->in, tap0 = run0 * a->kernel[1];
    for (int64_t j = 0; j < n; j++) {
        float *dw = (float *)c->out[1].data + (group * a->out + first + j) * a->in * taps + tap0;
        for (int64_t k = 0; k < a->in; k++, dw += taps)
            for (int64_t tap = 0; tap < width; tap++) {
                float v = m.sums[j * stride + tap * a->in + k];
                dw[tap] = saw_adds(c, 1) ? dw[tap] + v : v;
            }
    }
}

static void bias_gradient(const saw_call *c)
{
    const float *rows[BLOCK];
    int64_t n = saw_last(&c->in[4]), count = 0;
    bool add = saw_adds(c, 2);
    const saw_tensor *t[] = {&c->in[4]};
    saw_walk w = saw_walk_start(t[0]->ndim - 1, 1, t);
    bool more = saw_walk_next(&w);
    for (int64_t r = 0; more;) {
        rows[count++] = SAW_ROW(const float, w, 0, r);
        if (++r == w.rows) {
            more = saw_walk_next(&w);
            r = 0;
        }
        if (more && count < BLOCK)
            continue;
        product_sum_rows(c->simd, rows, count, n, c->scratch, c->out[2].data, add);
        add = true;
        count = 0;
    }
}

static void cpu_conv_backward(const saw_call *c)
{
    const conv_attr *a = c->attr;
    if (c->out[0].data) {
        const conv_attr back = adjoint(a);
        saw_tensor in[] = {c->in[4], c->in[1], {0}};
        const saw_packed packed = {.data = c->scratch}, *packs[] = {NULL, &packed, NULL};
        saw_call call = *c;
        call.attr = &back;
        call.in = in;
        call.n_in = 3;
        call.n_out = 1;
        call.packed = packs;
        call.precision = SAW_PRECISION_F32;
        call.scratch = (char *)c->scratch + packed_bytes(&back, c->simd);
        if (!by_taps(&back))
            pack_dense(&back, c->simd, c->in[1].data, c->scratch);
        cpu_conv(&call);
        return;
    }
    if (c->out[2].data && c->part == 0)
        bias_gradient(c);
    if (!c->out[1].data)
        return;
    const conv_attr forth = convolution(a);
    const saw_tensor x = with_bands(&c->in[a->transposed ? 4 : 0]);
    const saw_tensor y = with_bands(&c->in[a->transposed ? 0 : 4]);
    int64_t blocks = backward_parts(a, 0, NULL, NULL);
    for (int64_t i = blocks * c->part / c->parts; i < blocks * (c->part + 1) / c->parts; i++)
        weight_block(c, &forth, &x, &y, i);
}

const saw_op saw_op_conv = {
    .name = "conv",
    .attr_bytes = sizeof(conv_attr),
    .shape = shape,
    .axes = axes,
    .keep = keep,
    .scratch = scratch,
    .pack = pack,
    .matrix = matrix,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_conv,
    .cpu_backward = cpu_conv_backward,
    .backward_axes = backward_axes,
    .backward_parts = backward_parts,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 110,
};

static saw_val record(saw_graph *g, saw_val x, saw_val weight, saw_val bias,
                      const saw_conv_form *form, bool transposed)
{
    saw_dims w = saw_dims_val(g, weight);
    conv_attr a = {.groups = form->groups ? form->groups : 1, .transposed = transposed};
    bool two = w.n == 4;
    for (int i = 0; i < 2; i++) {
        bool along = two || form->axis == 1 + i;
        a.stride[i] = form->stride[i] ? form->stride[i] : 1;
        a.dilation[i] = form->dilation[i] ? form->dilation[i] : 1;
        a.before[i] = form->before[i];
        a.after[i] = form->after[i];
        a.kernel[i] = along && (two || w.n == 3) ? w.d[two ? 2 + i : 2] : 1;
    }
    if (w.n == 3 || two) {
        a.in = transposed ? w.d[0] / a.groups : w.d[1];
        a.out = transposed ? w.d[1] : w.d[0] / a.groups;
    }
    return SAW_RECORD(g, &saw_op_conv, &a, x, weight, bias);
}

saw_val saw_conv(saw_graph *g, saw_val x, saw_val weight, saw_val bias, const saw_conv_form *form)
{
    return record(g, x, weight, bias, form, false);
}

saw_val saw_conv_transpose(saw_graph *g, saw_val x, saw_val weight, saw_val bias,
                           const saw_conv_form *form)
{
    return record(g, x, weight, bias, form, true);
}

#endif
