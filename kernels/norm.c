/*
 * norm.c - normalisation with statistics over any axes:
 *
 *     y = h weight + bias,   h = (x - mean) / sqrt(var + eps)
 *
 * LayerNorm, GroupNorm and their relatives differ in which elements share mean and variance (the
 * axes in `over`) and in how weight and bias lie (the axes in `affine`, slowest first). With g =
 * weight dy and means over the same elements:
 *
 *     dx = (g - mean(g) - h mean(g h)) / sqrt(var + eps),   dweight = sum dy h,   dbias = sum dy
 *
 * `norm` has one weight for all, `band_norm` one a band of x [B,T,F,D] or ragged [B,T,R].
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

#include <string.h>

typedef struct norm_attr {
    saw_norm_form form;
    int bands; /* of band_norm, else 0 */
    bool affine, ragged;
    const int64_t *start;       /* bands + 1, of ragged x */
    int64_t size[SAW_MAX_DIMS]; /* of x before any cut */
} norm_attr;

/* What one weight serves: views of x (or the like) and where an element's weight is, sum of index *
 * affine. */
typedef struct piece {
    int first, count, rank;
    int64_t affine[SAW_MAX_DIMS], origin;
} piece;

/* The pieces of a call: its bands, or the one that is all. */
static inline piece pieces_of(const saw_call *c)
{
    const norm_attr *a = c->attr;
    if (!a->bands || a->ragged)
        return (piece){.count = a->bands ? a->bands : 1, .rank = c->in[0].ndim};
    return (piece){
        .first = (int)c->origin[2], .count = (int)c->in[0].dims[2], .rank = c->in[0].ndim};
}

static inline saw_tensor piece_of(const saw_call *c, const saw_tensor *t, const piece *p, int i)
{
    const norm_attr *a = c->attr;
    saw_tensor v = *t;
    if (!a->bands)
        return v;
    int64_t offset = a->ragged ? a->start[i] * t->strides[2] : i * t->strides[2];
    if (v.data)
        v.data = (char *)v.data + offset * (int64_t)saw_dtype_bytes(t->dtype);
    v.dims[2] = a->ragged ? a->start[p->first + i + 1] - a->start[p->first + i] : 1;
    return v;
}

/* Strides of the weight of piece i, and where in it this call begins. */
static inline void set_affine(const saw_call *c, piece *p, int i)
{
    const norm_attr *a = c->attr;
    int64_t stride = 1;
    memset(p->affine, 0, sizeof p->affine);
    p->origin = 0;
    for (int k = SAW_NORM_AXES; k-- > 0;) {
        int axis = a->form.affine[k];
        if (!axis)
            continue;
        p->affine[axis] = stride;
        p->origin += stride * (axis == p->rank - 1 ? 0 : c->origin[axis]);
        stride *= a->ragged && axis == 2 ? a->start[i + 1] - a->start[i] : a->size[axis];
    }
}

static inline const saw_tensor *weight_of(const saw_call *c, const saw_tensor *operands, int i,
                                          bool bias)
{
    const norm_attr *a = c->attr;
    int sets = a->bands ? a->bands : 1;
    return &operands[1 + (bias ? sets : 0) + i];
}

/* To the next index over the axes in the mask, row-major; false (and all of them 0) after the last.
 */
static inline bool step_index(const saw_tensor *t, uint32_t axes, int64_t *index)
{
    for (int i = t->ndim; i-- > 0;)
        if (axes >> i & 1) {
            if (++index[i] < t->dims[i])
                return true;
            index[i] = 0;
        }
    return false;
}

static inline int64_t offset_of(int n, const int64_t *strides, const int64_t *index)
{
    int64_t at = 0;
    for (int i = 0; i < n; i++)
        at += index[i] * strides[i];
    return at;
}

#ifdef SAW_REF

static real *element(const saw_tensor *t, const int64_t *index)
{
    return (real *)t->data + offset_of(t->ndim, t->strides, index);
}

/* Number `flat` of a weight, in C order. */
static real *flat_element(const saw_tensor *t, int64_t flat)
{
    int64_t at = 0;
    for (int i = t->ndim; i-- > 0; flat /= t->dims[i])
        at += flat % t->dims[i] * t->strides[i];
    return (real *)t->data + at;
}

typedef struct moments {
    double mean, rate; /* rate = 1 / sqrt(var + eps) */
    int64_t count;
} moments;

static moments measure(const saw_tensor *x, const saw_norm_form *form, int64_t *index)
{
    double sum = 0, squares = 0;
    moments m = {0};
    do {
        sum += (double)*element(x, index);
        m.count++;
    } while (step_index(x, form->over, index));
    m.mean = sum / (double)m.count;
    do {
        double d = (double)*element(x, index) - m.mean;
        squares += d * d;
    } while (step_index(x, form->over, index));
    m.rate = 1 / sqrt(squares / (double)m.count + form->eps);
    return m;
}

static void forward(const saw_call *c)
{
    const norm_attr *a = c->attr;
    piece p = pieces_of(c);
    for (int i = 0; i < p.count; i++) {
        saw_tensor x = piece_of(c, &c->in[0], &p, i), y = piece_of(c, &c->out[0], &p, i);
        const saw_tensor *w = weight_of(c, c->in, p.first + i, false),
                         *b = weight_of(c, c->in, p.first + i, true);
        int64_t index[SAW_MAX_DIMS] = {0};
        set_affine(c, &p, p.first + i);
        do {
            moments m = measure(&x, &a->form, index);
            do {
                double h = ((double)*element(&x, index) - m.mean) * m.rate;
                int64_t at = p.origin + offset_of(x.ndim, p.affine, index);
                if (a->affine)
                    h = h * (double)*flat_element(w, at) + (double)*flat_element(b, at);
                put(element(&y, index), saw_adds(c, 0), h);
            } while (step_index(&x, a->form.over, index));
        } while (step_index(&x, ~a->form.over, index));
    }
}

static void backward(const saw_call *c)
{
    const norm_attr *a = c->attr;
    piece p = pieces_of(c);
    for (int j = 1; j < c->n_out; j++)
        start_sum(c, j);
    for (int i = 0; i < p.count; i++) {
        saw_tensor x = piece_of(c, &c->in[0], &p, i), dx = piece_of(c, &c->out[0], &p, i);
        saw_tensor dy = piece_of(c, &c->in[c->n_out + 1], &p, i);
        const saw_tensor *w = weight_of(c, c->in, p.first + i, false);
        const saw_tensor *dw = weight_of(c, c->out, p.first + i, false),
                         *db = weight_of(c, c->out, p.first + i, true);
        int64_t index[SAW_MAX_DIMS] = {0};
        set_affine(c, &p, p.first + i);
        do {
            moments m = measure(&x, &a->form, index);
            double sum_g = 0, sum_gh = 0;
            do {
                double d = (double)*element(&dy, index),
                       h = ((double)*element(&x, index) - m.mean) * m.rate;
                int64_t at = p.origin + offset_of(x.ndim, p.affine, index);
                double g = a->affine ? d * (double)*flat_element(w, at) : d;
                sum_g += g;
                sum_gh += g * h;
                if (a->affine && dw->data)
                    *flat_element(dw, at) += (real)(d * h);
                if (a->affine && db->data)
                    *flat_element(db, at) += (real)d;
            } while (step_index(&x, a->form.over, index));
            if (!dx.data)
                continue;
            do {
                double h = ((double)*element(&x, index) - m.mean) * m.rate,
                       g = (double)*element(&dy, index);
                int64_t at = p.origin + offset_of(x.ndim, p.affine, index);
                g *= a->affine ? (double)*flat_element(w, at) : 1;
                double v = (g - (sum_g + h * sum_gh) / (double)m.count) * m.rate;
                put(element(&dx, index), saw_adds(c, 0), v);
            } while (step_index(&x, a->form.over, index));
        } while (step_index(&x, ~a->form.over, index));
    }
}

SAW_REF_KERNEL(norm_forward)
{
    forward(c);
}

SAW_REF_KERNEL(norm_backward)
{
    backward(c);
}

SAW_REF_KERNEL(band_norm_forward)
{
    forward(c);
}

SAW_REF_KERNEL(band_norm_backward)
{
    backward(c);
}

#else

#include "kernels/simd/simd.h"

enum { LANES = 8 }; /* sums run in so many interleaved parts, in double */

/* Does a weight of these dims hold the affine axes in order: as they are, or merged into one, with
 * axes of 1 anywhere? */
static bool affine_fits(const saw_dims *w, const int64_t *sizes, int n)
{
    int64_t have[SAW_MAX_DIMS], want[SAW_NORM_AXES], count = 1;
    int n_have = 0, n_want = 0;
    for (int i = 0; i < w->n; i++)
        if (w->d[i] != 1)
            have[n_have++] = w->d[i];
    for (int i = 0; i < n; i++) {
        count *= sizes[i];
        if (sizes[i] != 1)
            want[n_want++] = sizes[i];
    }
    if (n_have == n_want && !memcmp(have, want, (size_t)n_have * sizeof *have))
        return true;
    return n_have == 1 && have[0] == count;
}

static bool shape(saw_shape *s)
{
    const norm_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    int sets = a->bands ? a->bands : 1;
    uint32_t over = a->form.over;
    if (x->n < 2 || !over || over >> x->n || over & 1)
        return saw_refuse(s, "needs x [B, ...] and the axes after the first to normalise over");
    if (a->ragged ? x->n != 3 || x->d[2] != a->start[a->bands] || !(over >> 2 & 1)
                  : a->bands && (x->n != 4 || x->d[2] != a->bands || over >> 2 & 1))
        return saw_refuse(s, "x does not hold %d bands of the widths that the weights have",
                          a->bands);
    for (int i = 0; i < sets && a->affine; i++) {
        int64_t sizes[SAW_NORM_AXES];
        int n = 0;
        for (int k = 0; k < SAW_NORM_AXES; k++) {
            int axis = a->form.affine[k];
            if (axis < 0 || axis >= x->n)
                return saw_refuse(s, "the weight lies along an axis that x does not have");
            if (axis)
                sizes[n++] = a->ragged && axis == 2 ? a->start[i + 1] - a->start[i] : x->d[axis];
        }
        if (!affine_fits(&s->in[1 + i], sizes, n) || !affine_fits(&s->in[1 + sets + i], sizes, n))
            return saw_refuse(s, "weight or bias %d does not fit x", i);
    }
    s->out[0] = *x;
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    const norm_attr *a = attr;
    return operand == 0 || operand >= n_in ? saw_all_but_last(&in[0]) & ~a->form.over : 0;
}

static double flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in;
    return 8 * (double)saw_dims_count(out);
}

static void list(const void *attr, saw_buffer *out)
{
    const norm_attr *a = attr;
    saw_buffer_printf(out, " over");
    for (int i = 0; i < SAW_MAX_DIMS; i++)
        if (a->form.over >> i & 1)
            saw_buffer_printf(out, " %d", i);
    if (a->bands)
        saw_buffer_printf(out, " bands %d", a->bands);
}

static size_t scratch(const saw_call *c)
{
    size_t d = (size_t)saw_last(&c->in[0]) + LANES;
    return d * (2 * sizeof(double) + 2 * sizeof(float));
}

/* Sum and sum of squares of a group into sums[0 .. n) and squares[0 .. n): n = LANES, or a pair a
 * feature. */
static void add_row(const float *x, int64_t d, bool joined, double *sums, double *squares)
{
    int64_t i = 0;
    for (; joined && i + LANES <= d; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double v = x[i + j];
            sums[j] += v;
            squares[j] += v * v;
        }
    for (int64_t j = joined ? 0 : i; i < d; i++, j++) {
        double v = x[i];
        sums[j] += v;
        squares[j] += v * v;
    }
}

/* y = (x - mean) rate w + b, element i of w and b at i * stride; w NULL: no weights. */
static void write_row(const float *x, float *y, int64_t d, const float *mean, const float *rate,
                      const float *w, const float *b, int64_t stride, bool add)
{
    if (w && stride == 1 && !add)
        for (int64_t i = 0; i < d; i++)
            y[i] = (x[i] - mean[i]) * rate[i] * w[i] + b[i];
    else
        for (int64_t i = 0; i < d; i++) {
            float h = (x[i] - mean[i]) * rate[i];
            h = w ? h * w[i * stride] + b[i * stride] : h;
            y[i] = add ? y[i] + h : h;
        }
}

static void cpu_norm(const saw_call *c)
{
    const norm_attr *a = c->attr;
    piece p = pieces_of(c);
    const int last = p.rank - 1;
    const uint32_t features = SAW_AXIS(last), over = a->form.over & ~features,
                   apart = ~a->form.over & ~features;
    const bool joined = a->form.over & features;
    for (int i = 0; i < p.count; i++) {
        saw_tensor x = piece_of(c, &c->in[0], &p, i), y = piece_of(c, &c->out[0], &p, i);
        const float *w = a->affine ? weight_of(c, c->in, p.first + i, false)->data : NULL;
        const float *b = a->affine ? weight_of(c, c->in, p.first + i, true)->data : NULL;
        int64_t d = x.dims[last], n = joined ? LANES : d, index[SAW_MAX_DIMS] = {0};
        double *sums = c->scratch, *squares = sums + n;
        float *mean = (float *)(squares + n), *rate = mean + d;
        double count = joined ? (double)d : 1;
        for (int axis = 0; axis < last; axis++)
            count *= over >> axis & 1 ? (double)x.dims[axis] : 1;
        set_affine(c, &p, p.first + i);
        do {
            memset(sums, 0, 2 * (size_t)n * sizeof *sums);
            do
                add_row((const float *)x.data + offset_of(last, x.strides, index), d, joined, sums,
                        squares);
            while (step_index(&x, over, index));
            for (int64_t j = 1; joined && j < n; j++) {
                sums[0] += sums[j];
                squares[0] += squares[j];
            }
            for (int64_t j = 0; j < (joined ? 1 : d); j++) {
                double m = sums[j] / count, var = squares[j] / count - m * m;
                mean[j] = (float)m;
                rate[j] = (float)(1 / sqrt((var > 0 ? var : 0) + a->form.eps));
            }
            for (int64_t j = 1; joined && j < d; j++) {
                mean[j] = mean[0];
                rate[j] = rate[0];
            }
            do {
                int64_t at = p.origin + offset_of(last, p.affine, index);
                write_row((const float *)x.data + offset_of(last, x.strides, index),
                          (float *)y.data + offset_of(last, y.strides, index), d, mean, rate,
                          w ? w + at : NULL, b ? b + at : NULL, p.affine[last], saw_adds(c, 0));
            } while (step_index(&x, over, index));
        } while (step_index(&x, apart, index));
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

enum { SUM_X, SUM_XX, SUM_G, SUM_GX, SUMS };

/* The sums of a row, in LANES parts when it is joined, else of every feature. */
static void add_products(const float *x, const float *g, int64_t d, bool joined, double *const *sum)
{
    int64_t i = 0;
    for (; joined && i + LANES <= d; i += LANES)
        for (int j = 0; j < LANES; j++) {
            double v = x[i + j], u = g[i + j];
            sum[SUM_X][j] += v;
            sum[SUM_XX][j] += v * v;
            sum[SUM_G][j] += u;
            sum[SUM_GX][j] += u * v;
        }
    for (int64_t j = joined ? 0 : i; i < d; i++, j++) {
        double v = x[i], u = g[i];
        sum[SUM_X][j] += v;
        sum[SUM_XX][j] += v * v;
        sum[SUM_G][j] += u;
        sum[SUM_GX][j] += u * v;
    }
}

/* What dx is made of, for every feature: dx = rate (g - shift - (x - mean) pull). */
typedef struct slopes {
    float *mean, *rate, *shift, *pull;
} slopes;

static void set_slopes(const slopes *s, double *const *sum, int64_t d, bool joined, double count,
                       double eps)
{
    for (int j = 1; joined && j < LANES; j++)
        for (int k = 0; k < SUMS; k++)
            sum[k][0] += sum[k][j];
    for (int64_t i = 0; i < (joined ? 1 : d); i++) {
        double mean = sum[SUM_X][i] / count, var = sum[SUM_XX][i] / count - mean * mean;
        double rate = 1 / sqrt((var > 0 ? var : 0) + eps);
        s->mean[i] = (float)mean;
        s->rate[i] = (float)rate;
        s->shift[i] = (float)(sum[SUM_G][i] / count);
        s->pull[i] = (float)((sum[SUM_GX][i] - mean * sum[SUM_G][i]) * rate * rate / count);
    }
    for (int64_t i = 1; joined && i < d; i++) {
        s->mean[i] = s->mean[0];
        s->rate[i] = s->rate[0];
        s->shift[i] = s->shift[0];
        s->pull[i] = s->pull[0];
    }
}

/* g = w dy, element i of w at i * stride. */
static const float *weighted(const saw_call *c, const float *dy, const float *w, int64_t stride,
                             int64_t d, float *g)
{
    if (!w)
        return dy;
    if (stride == 1)
        c->simd->mul(dy, w, g, d);
    else
        for (int64_t i = 0; i < d; i++)
            g[i] = dy[i] * w[i * stride];
    return g;
}

/* Elements of the weight of piece i before any cut. */
static int64_t affine_count(const norm_attr *a, int i)
{
    int64_t n = 1;
    for (int k = 0; k < SAW_NORM_AXES && a->affine; k++) {
        int axis = a->form.affine[k];
        if (axis)
            n *= a->ragged && axis == 2 ? a->start[i + 1] - a->start[i] : a->size[axis];
    }
    return n;
}

/* Add sums in double to a gradient, or set it. */
static void put_sums(float *to, const double *sum, int64_t n, bool add)
{
    for (int64_t i = 0; to && i < n; i++)
        to[i] = (add ? to[i] : 0) + (float)sum[i];
}

static void write_gradient(const float *restrict x, const float *restrict g, const slopes *s,
                           float *restrict dx, int64_t d, bool add)
{
    const float *restrict mean = s->mean, *restrict rate = s->rate, *restrict shift = s->shift,
                          *restrict pull = s->pull;
    if (add)
        for (int64_t k = 0; k < d; k++)
            dx[k] += rate[k] * (g[k] - shift[k] - (x[k] - mean[k]) * pull[k]);
    else
        for (int64_t k = 0; k < d; k++)
            dx[k] = rate[k] * (g[k] - shift[k] - (x[k] - mean[k]) * pull[k]);
}

/* The sums of dy h and of dy, element i at i * step; h is made in a row aside. */
static void add_weight_sums(const saw_call *c, const float *restrict x, const float *dy,
                            const slopes *s, int64_t d, int64_t step, float *restrict h,
                            double *sum_w, double *sum_b)
{
    const float *restrict mean = s->mean, *restrict rate = s->rate;
    for (int64_t k = 0; k < d; k++)
        h[k] = (x[k] - mean[k]) * rate[k];
    if (step == 1)
        c->simd->column_sums(h, d, dy, d, 1, d, sum_b, sum_w);
    else
        for (int64_t k = 0; k < d; k++) {
            sum_w[k * step] += (double)dy[k] * (double)h[k];
            sum_b[k * step] += (double)dy[k];
        }
}

static void cpu_norm_backward(const saw_call *c)
{
    const norm_attr *a = c->attr;
    piece p = pieces_of(c);
    const int last = p.rank - 1, sets = a->bands ? a->bands : 1;
    const uint32_t features = SAW_AXIS(last), over = a->form.over & ~features,
                   apart = ~a->form.over & ~features;
    const bool joined = a->form.over & features;
    for (int i = 0; i < p.count; i++) {
        const int set = p.first + i;
        saw_tensor x = piece_of(c, &c->in[0], &p, i), dx = piece_of(c, &c->out[0], &p, i);
        saw_tensor dy = piece_of(c, &c->in[c->n_out + 1], &p, i);
        const float *w = a->affine ? weight_of(c, c->in, set, false)->data : NULL;
        float *dw = a->affine ? weight_of(c, c->out, set, false)->data : NULL;
        float *db = a->affine ? weight_of(c, c->out, set, true)->data : NULL;
        if (!dx.data && ((!dw && !db) || set * c->parts / sets != c->part))
            continue;
        int64_t d = x.dims[last], n = joined ? LANES : d, weights = affine_count(a, set);
        int64_t index[SAW_MAX_DIMS] = {0};
        double *block = c->scratch, *sum[SUMS], count = joined ? (double)d : 1;
        for (int k = 0; k < SUMS; k++)
            sum[k] = block + k * n;
        double *sum_w = block + SUMS * n, *sum_b = sum_w + weights;
        slopes s = {.mean = (float *)(sum_b + weights)};
        s.rate = s.mean + d, s.shift = s.rate + d, s.pull = s.shift + d;
        float *g = s.pull + d;
        for (int axis = 0; axis < last; axis++)
            count *= over >> axis & 1 ? (double)x.dims[axis] : 1;
        set_affine(c, &p, set);
        memset(sum_w, 0, 2 * (size_t)weights * sizeof *sum_w);
        const int64_t step = p.affine[last];
        do {
            memset(block, 0, SUMS * (size_t)n * sizeof *block);
            do
                add_products((const float *)x.data + offset_of(last, x.strides, index),
                             weighted(c,
                                      (const float *)dy.data + offset_of(last, dy.strides, index),
                                      w ? w + p.origin + offset_of(last, p.affine, index) : NULL,
                                      step, d, g),
                             d, joined, sum);
            while (step_index(&x, over, index));
            set_slopes(&s, sum, d, joined, count, a->form.eps);
            do {
                const float *xr = (const float *)x.data + offset_of(last, x.strides, index);
                const float *dr = (const float *)dy.data + offset_of(last, dy.strides, index);
                int64_t at = p.origin + offset_of(last, p.affine, index);
                if (dx.data)
                    write_gradient(xr, weighted(c, dr, w ? w + at : NULL, step, d, g), &s,
                                   (float *)dx.data + offset_of(last, dx.strides, index), d,
                                   saw_adds(c, 0));
                if (dw || db)
                    add_weight_sums(c, xr, dr, &s, d, step, g, sum_w + at, sum_b + at);
            } while (step_index(&x, over, index));
        } while (step_index(&x, apart, index));
        put_sums(dw, sum_w, weights, saw_adds(c, 1 + set));
        put_sums(db, sum_b, weights, saw_adds(c, 1 + sets + set));
    }
}

static size_t backward_scratch(const saw_call *c)
{
    const norm_attr *a = c->attr;
    int64_t d = saw_last(&c->in[0]), weights = 0;
    for (int i = 0; i < (a->bands ? a->bands : 1); i++)
        weights = affine_count(a, i) > weights ? affine_count(a, i) : weights;
    return (size_t)(SUMS * (d + LANES) + 2 * weights) * sizeof(double) +
           5 * (size_t)d * sizeof(float);
}

static int64_t band_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)n_in, (void)in, (void)out;
    enum { PARTS = 16 };
    int bands = ((const norm_attr *)attr)->bands;
    return bands < PARTS ? bands : PARTS;
}

const saw_op saw_op_norm = {
    .name = "norm",
    .attr_bytes = sizeof(norm_attr),
    .shape = shape,
    .axes = axes,
    .scratch = scratch,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_norm,
    .cpu_backward = cpu_norm_backward,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 115,
};

const saw_op saw_op_band_norm = {
    .name = "band_norm",
    .attr_bytes = sizeof(norm_attr),
    .shape = shape,
    .axes = axes,
    .scratch = scratch,
    .dealt_axis = 2,
    .flops = flops,
    .list = list,
    .cpu_forward = cpu_norm,
    .cpu_backward = cpu_norm_backward,
    .backward_parts = band_parts,
    .backward_scratch = backward_scratch,
    .differentiable = true,
    .tolerance_db = 115,
};

static void set_sizes(saw_graph *g, saw_val x, norm_attr *a)
{
    saw_dims d = saw_dims_val(g, x);
    memcpy(a->size, d.d, sizeof a->size);
}

saw_val saw_norm(saw_graph *g, saw_val x, saw_val weight, saw_val bias, const saw_norm_form *form)
{
    norm_attr a = {.form = *form, .affine = weight != 0};
    set_sizes(g, x, &a);
    return SAW_RECORD(g, &saw_op_norm, &a, x, weight, bias);
}

saw_val saw_band_norm(saw_graph *g, saw_val x, int bands, const int64_t *widths,
                      const saw_val *weight, const saw_val *bias, const saw_norm_form *form)
{
    if (bands < 1)
        return saw_graph_fail(g, SAW_ERR_SHAPE, "band_norm: there are no bands");
    norm_attr a = {.form = *form, .bands = bands, .affine = true, .ragged = widths != NULL};
    set_sizes(g, x, &a);
    if (widths && !(a.start = saw_band_starts(g, bands, widths)))
        return 0;
    saw_context *ctx = saw_graph_context(g);
    saw_val *in = saw_calloc(ctx, 2 * (size_t)bands + 1, sizeof *in);
    if (!in)
        return saw_graph_fail(g, SAW_ERR_MEMORY, "band_norm: no memory for %d bands", bands);
    in[0] = x;
    memcpy(in + 1, weight, (size_t)bands * sizeof *in);
    memcpy(in + 1 + bands, bias, (size_t)bands * sizeof *in);
    saw_val y = saw_record(g, &saw_op_band_norm, &a, 1 + 2 * bands, in, 1);
    saw_free(ctx, in);
    return y;
}

#endif
