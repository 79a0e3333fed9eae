/*
 * rnn.c - a recurrent layer (LSTM or GRU) along time or along bands.
 *
 * With s the logistic function and gates in torch's order:
 *
 *     LSTM (i, f, g, o):  c' = s(f) c + s(i) tanh(g)          h' = s(o) tanh(c')
 *     GRU  (r, z, n):     n' = tanh(Wn x + bn + s(r) (Un h + cn))
 *                         h' = (1 - s(z)) n' + s(z) h
 *
 * The sequences are all (batch, other axis); a call is cut along these two. The CPU kernel takes
 * BATCH_ROWS rows at a time: the input products of as many steps as fill them in one gemm, then
 * step by step the recurrent product of all sequences in one gemm, so that w_hh is read once a step
 * and not once a sequence.
 */
#include "kernels/ops.h"
#include "kernels/kernel.h"

#include <string.h>

enum {
    W_IH,
    W_HH,
    B_IH,
    B_HH,
    WEIGHTS
}; /* operands of one direction, from 1 + WEIGHTS * direction */

typedef struct rnn_attr {
    saw_rnn_kind kind;
    int axis, directions;
    bool stateful;
    int64_t others; /* size of the axis that is not `axis`, before any cut */
} rnn_attr;

/* One sequence: the rows of one tensor along `axis`. */
static inline int64_t sequence_offset(const saw_tensor *t, int axis, int64_t b, int64_t other)
{
    return b * t->strides[0] + other * t->strides[3 - axis];
}

static inline int64_t gates_of(const rnn_attr *a)
{
    return a->kind == SAW_RNN_LSTM ? 4 : 3;
}

/* Where the state of one sequence begins, in units of the hidden size: h, then c. */
static inline int64_t state_row(const saw_call *c, const rnn_attr *a, int64_t b, int64_t other)
{
    return 2 * ((c->origin[0] + b) * a->others + c->origin[3 - a->axis] + other);
}

#ifdef SAW_REF

/* What one step leaves for the way back: gates after their activations, Un h + cn of a GRU, c and
 * h. */
typedef struct step {
    double *gates, *from_h, *c, *h;
} step;

static step step_at(void *scratch, int64_t gates, int64_t hidden, int64_t s)
{
    double *p = (double *)scratch + s * (gates + 3) * hidden;
    return (step){p, p + gates * hidden, p + (gates + 1) * hidden, p + (gates + 2) * hidden};
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

static double element(const saw_tensor *t, int64_t i, int64_t j)
{
    return ((const real *)t->data)[i * t->strides[0] + j * (t->ndim > 1 ? t->strides[1] : 0)];
}

/* Step s of a sequence from the step before (step -1: the first one of the trace). */
static void run_step(const rnn_attr *a, const saw_tensor *w, const real *x, int64_t x_last,
                     step prev, step now)
{
    int64_t hidden = w[W_HH].dims[1], depth = w[W_IH].dims[1], gates = gates_of(a);
    for (int64_t j = 0; j < hidden; j++) {
        double act[4];
        for (int64_t q = 0; q < gates; q++) {
            int64_t r = q * hidden + j;
            double from_x = element(&w[B_IH], r, 0), from_h = element(&w[B_HH], r, 0);
            for (int64_t k = 0; k < depth; k++)
                from_x += element(&w[W_IH], r, k) * (double)x[k * x_last];
            for (int64_t k = 0; k < hidden; k++)
                from_h += element(&w[W_HH], r, k) * prev.h[k];
            if (q != 2)
                act[q] = sigmoid(from_x + from_h);
            else if (a->kind == SAW_RNN_LSTM)
                act[q] = tanh(from_x + from_h);
            else
                act[q] = tanh(from_x + act[0] * from_h);
            if (q == 2)
                now.from_h[j] = from_h;
            now.gates[r] = act[q];
        }
        if (a->kind == SAW_RNN_LSTM) {
            now.c[j] = act[1] * prev.c[j] + act[0] * act[2];
            now.h[j] = act[3] * tanh(now.c[j]);
        } else {
            now.h[j] = (1 - act[1]) * act[2] + act[1] * prev.h[j];
        }
    }
}

/* Run one direction of one sequence; trace step 0 is the state before it. */
static void run_sequence(const saw_call *c, const rnn_attr *a, int dir, int64_t b, int64_t other)
{
    const saw_tensor *x = &c->in[0], *w = &c->in[1 + WEIGHTS * dir];
    int64_t hidden = w[W_HH].dims[1], gates = gates_of(a), length = x->dims[a->axis];
    step first = step_at(c->scratch, gates, hidden, 0);
    memset(first.gates, 0, (size_t)((gates + 3) * hidden) * sizeof(double));
    for (int64_t s = 0; a->stateful && s < hidden; s++) {
        const double *kept = (const double *)c->state + state_row(c, a, b, other) * hidden;
        first.h[s] = kept[s];
        first.c[s] = kept[hidden + s];
    }
    const real *row = (const real *)x->data + sequence_offset(x, a->axis, b, other);
    for (int64_t s = 0; s < length; s++)
        run_step(a, w, row + (dir ? length - 1 - s : s) * x->strides[a->axis], saw_last_stride(x),
                 step_at(c->scratch, gates, hidden, s), step_at(c->scratch, gates, hidden, s + 1));
}

SAW_REF_KERNEL(rnn_forward)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *y = &c->out[0];
    int64_t hidden = c->in[1 + W_HH].dims[1], length = y->dims[a->axis], last = saw_last_stride(y);
    for (int64_t b = 0; b < y->dims[0]; b++)
        for (int64_t o = 0; o < y->dims[3 - a->axis]; o++)
            for (int dir = 0; dir < a->directions; dir++) {
                run_sequence(c, a, dir, b, o);
                real *out = (real *)y->data + sequence_offset(y, a->axis, b, o);
                for (int64_t s = 0; s < length; s++) {
                    const double *h = step_at(c->scratch, gates_of(a), hidden, s + 1).h;
                    int64_t at = (dir ? length - 1 - s : s) * y->strides[a->axis];
                    for (int64_t j = 0; j < hidden; j++)
                        put(&out[at + (dir * hidden + j) * last], saw_adds(c, 0), h[j]);
                }
                if (a->stateful) {
                    step end = step_at(c->scratch, gates_of(a), hidden, length);
                    double *kept = (double *)c->state + state_row(c, a, b, o) * hidden;
                    memcpy(kept, end.h, (size_t)hidden * sizeof *kept);
                    memcpy(kept + hidden, end.c, (size_t)hidden * sizeof *kept);
                }
            }
}

static void add_to(const saw_tensor *t, int64_t i, int64_t j, double v)
{
    if (t->data)
        ((real *)t->data)[i * t->strides[0] + j * (t->ndim > 1 ? t->strides[1] : 0)] += (real)v;
}

/* Gradients of the gates before their activations, as the input product (dx) and the recurrent one
 * (dh) see them, and of the state before the step; dh and dc come in as the gradients of the state
 * after it. */
static void gates_backward(const rnn_attr *a, int64_t hidden, step prev, step now, double *dh,
                           double *dc, double *from_x, double *from_h)
{
    for (int64_t j = 0; j < hidden; j++) {
        const double *act = now.gates + j;
        if (a->kind == SAW_RNN_LSTM) {
            double i = act[0], f = act[hidden], g = act[2 * hidden], o = act[3 * hidden],
                   tc = tanh(now.c[j]);
            double d = dc[j] + dh[j] * o * (1 - tc * tc);
            from_x[j] = d * g * i * (1 - i);
            from_x[hidden + j] = d * prev.c[j] * f * (1 - f);
            from_x[2 * hidden + j] = d * i * (1 - g * g);
            from_x[3 * hidden + j] = dh[j] * tc * o * (1 - o);
            for (int64_t q = 0; q < 4; q++)
                from_h[q * hidden + j] = from_x[q * hidden + j];
            dc[j] = d * f;
            dh[j] = 0;
        } else {
            double r = act[0], z = act[hidden], n = act[2 * hidden];
            double dn = dh[j] * (1 - z) * (1 - n * n);
            from_h[j] = from_x[j] = dn * now.from_h[j] * r * (1 - r);
            from_h[hidden + j] = from_x[hidden + j] = dh[j] * (prev.h[j] - n) * z * (1 - z);
            from_x[2 * hidden + j] = dn;
            from_h[2 * hidden + j] = dn * r;
            dh[j] *= z;
        }
    }
}

SAW_REF_KERNEL(rnn_backward)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *dy = &c->in[c->n_in - 1], *dx = &c->out[0];
    int64_t hidden = c->in[1 + W_HH].dims[1], depth = saw_last(x), gates = gates_of(a),
            length = x->dims[a->axis];
    double *from_x = step_at(c->scratch, gates, hidden, length + 1).gates,
           *from_h = from_x + gates * hidden;
    double *dh = from_h + gates * hidden, *dc = dh + hidden;
    for (int j = 0; j < c->n_out; j++)
        start_sum(c, j);
    for (int64_t b = 0; b < x->dims[0]; b++)
        for (int64_t o = 0; o < x->dims[3 - a->axis]; o++)
            for (int dir = 0; dir < a->directions; dir++) {
                const saw_tensor *w = &c->in[1 + WEIGHTS * dir], *dw = &c->out[1 + WEIGHTS * dir];
                run_sequence(c, a, dir, b, o);
                memset(dh, 0, 2 * (size_t)hidden * sizeof *dh);
                for (int64_t s = length; s-- > 0;) {
                    int64_t t = dir ? length - 1 - s : s;
                    step prev = step_at(c->scratch, gates, hidden, s);
                    const real *g = (const real *)dy->data + sequence_offset(dy, a->axis, b, o) +
                                    t * dy->strides[a->axis];
                    int64_t row = sequence_offset(x, a->axis, b, o) + t * x->strides[a->axis];
                    for (int64_t j = 0; j < hidden; j++)
                        dh[j] += (double)g[(dir * hidden + j) * saw_last_stride(dy)];
                    gates_backward(a, hidden, prev, step_at(c->scratch, gates, hidden, s + 1), dh,
                                   dc, from_x, from_h);
                    for (int64_t r = 0; r < gates * hidden; r++) {
                        add_to(&dw[B_IH], r, 0, from_x[r]);
                        add_to(&dw[B_HH], r, 0, from_h[r]);
                        for (int64_t k = 0; k < depth; k++)
                            add_to(
                                &dw[W_IH], r, k,
                                from_x[r] *
                                    (double)((const real *)x->data)[row + k * saw_last_stride(x)]);
                        for (int64_t k = 0; k < hidden; k++) {
                            add_to(&dw[W_HH], r, k, from_h[r] * prev.h[k]);
                            dh[k] += from_h[r] * element(&w[W_HH], r, k);
                        }
                    }
                    if (!dx->data)
                        continue;
                    real *out = (real *)dx->data + sequence_offset(dx, a->axis, b, o) +
                                t * dx->strides[a->axis];
                    for (int64_t k = 0; k < depth; k++) {
                        double sum = 0;
                        for (int64_t r = 0; r < gates * hidden; r++)
                            sum += from_x[r] * element(&w[W_IH], r, k);
                        out[k * saw_last_stride(dx)] += (real)sum;
                    }
                }
            }
}

#else

#include "kernels/product.h"

enum { BATCH_ROWS = 96, OUTER_COLUMNS = 256 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static bool rnn_shape(saw_shape *s)
{
    const rnn_attr *a = s->attr;
    const saw_dims *x = &s->in[0];
    if (x->n != 4)
        return saw_refuse(
            s, "the input of a recurrent layer has the axes [batch, frames, bands, features]");
    int64_t depth = x->d[3], hidden = s->in[1 + W_HH].n == 2 ? s->in[1 + W_HH].d[1] : 0,
            gates = gates_of(a);
    if (hidden < 1)
        return saw_refuse(s, "the recurrent weights are not a matrix");
    for (int dir = 0; dir < a->directions; dir++) {
        const saw_dims *w = &s->in[1 + WEIGHTS * dir];
        saw_dims w_ih = SAW_DIMS(gates * hidden, depth), w_hh = SAW_DIMS(gates * hidden, hidden);
        saw_dims bias = SAW_DIMS(gates * hidden);
        if (!saw_dims_equal(&w[W_IH], &w_ih) || !saw_dims_equal(&w[W_HH], &w_hh) ||
            !saw_dims_equal(&w[B_IH], &bias) || !saw_dims_equal(&w[B_HH], &bias))
            return saw_refuse(s, "the weights do not fit %lld features and %lld hidden units",
                              (long long)depth, (long long)hidden);
    }
    s->out[0] = *x;
    s->out[0].d[3] = hidden * a->directions;
    return true;
}

static uint32_t rnn_axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)in;
    const rnn_attr *a = attr;
    return operand == 0 || operand >= n_in ? SAW_AXIS(0) | SAW_AXIS(3 - a->axis) : 0;
}

static saw_pack rnn_pack(const void *attr, int operand)
{
    (void)attr;
    int kind = (operand - 1) % WEIGHTS;
    return operand > 0 && (kind == W_IH || kind == W_HH) ? SAW_PACK_GEMM : SAW_PACK_NONE;
}

static size_t rnn_state(const void *attr, int n_in, const saw_dims *in)
{
    (void)n_in;
    const rnn_attr *a = attr;
    int64_t rows = in[0].d[0] * a->others;
    return a->stateful ? 2 * (size_t)(rows * in[1 + W_HH].d[1]) * sizeof(double) : 0;
}

static double rnn_flops(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in;
    double tokens = (double)(in[0].d[0] * in[0].d[1] * in[0].d[2]);
    return 2 * tokens * (double)(out[0].d[3] / in[1 + W_HH].d[1]) * (double)in[1 + W_HH].d[0] *
           (double)(in[0].d[3] + in[1 + W_HH].d[1]);
}

static void rnn_list(const void *attr, saw_buffer *out)
{
    const rnn_attr *a = attr;
    saw_buffer_printf(out, " kind %s axis %d directions %d%s",
                      a->kind == SAW_RNN_LSTM ? "lstm" : "gru", a->axis, a->directions,
                      a->stateful ? " stateful" : "");
}

/* The blocks of a call's scratch, in bytes from its start. */
typedef struct layout {
    int64_t sequences, steps; /* that are taken together */
    size_t from_x, from_h, h, c, rows, gemm, end;
} layout;

static size_t take(size_t *end, int64_t count, size_t size)
{
    size_t at = *end;
    *end += ((size_t)count * size + 63) & ~(size_t)63;
    return at;
}

static layout lay_out(const rnn_attr *a, const saw_tensor *x, int64_t hidden)
{
    layout l = {.sequences = smaller(x->dims[0] * x->dims[3 - a->axis], BATCH_ROWS)};
    l.steps = l.sequences ? smaller(BATCH_ROWS / l.sequences, x->dims[a->axis]) : 0;
    int64_t gates = gates_of(a) * hidden;
    l.from_x = take(&l.end, l.sequences * l.steps * gates, sizeof(float));
    l.from_h = take(&l.end, a->kind == SAW_RNN_GRU ? l.sequences * gates : 0, sizeof(float));
    l.h = take(&l.end, l.sequences * hidden, sizeof(float));
    l.c = take(&l.end, l.sequences * hidden, sizeof(float));
    l.rows = take(&l.end, l.sequences * l.steps, sizeof(float *));
    l.gemm = take(&l.end, SAW_GEMM_SCRATCH_BYTES, 1);
    return l;
}

static size_t rnn_scratch(const saw_call *c)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *x = &c->in[0];
    int64_t hidden = c->in[1 + W_HH].dims[1], gates = gates_of(a);
    int64_t reference =
        (x->dims[a->axis] + 2) * (gates + 3) * hidden + 2 * (gates + 1) * hidden; /* doubles */
    size_t cpu = lay_out(a, x, hidden).end;
    return (size_t)reference * sizeof(double) > cpu ? (size_t)reference * sizeof(double) : cpu;
}

/* Row `step` of a sequence, counted over (batch, other axis). */
static float *row_at(const saw_tensor *t, int axis, int64_t sequence, int64_t step)
{
    int64_t others = t->dims[3 - axis];
    return (float *)t->data + sequence_offset(t, axis, sequence / others, sequence % others) +
           step * t->strides[axis];
}

/* h and c of sequences [first, first + n) from the state, or into it. */
static void move_state(const saw_call *c, int64_t first, int64_t n, int64_t hidden, float *h,
                       float *cell, bool store)
{
    const rnn_attr *a = c->attr;
    int64_t others = c->in[0].dims[3 - a->axis];
    size_t bytes = (size_t)hidden * sizeof(float);
    for (int64_t i = 0; i < n; i++) {
        float *kept = (float *)c->state +
                      state_row(c, a, (first + i) / others, (first + i) % others) * hidden;
        memcpy(store ? kept : h + i * hidden, store ? h + i * hidden : kept, bytes);
        memcpy(store ? kept + hidden : cell + i * hidden, store ? cell + i * hidden : kept + hidden,
               bytes);
    }
}

/* All steps of sequences [first, first + n) in one direction. */
static void run_batch(const saw_call *c, const layout *l, int dir, int64_t first, int64_t n)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *x = &c->in[0], *y = &c->out[0], *bias = &c->in[1 + WEIGHTS * dir];
    const saw_packed *w_ih = c->packed[1 + WEIGHTS * dir + W_IH],
                     *w_hh = c->packed[1 + WEIGHTS * dir + W_HH];
    const int64_t length = x->dims[a->axis], gates = w_hh->rows, hidden = w_hh->inner;
    const bool lstm = a->kind == SAW_RNN_LSTM;
    char *scratch = c->scratch;
    float *from_x = (float *)(scratch + l->from_x), *from_h = (float *)(scratch + l->from_h);
    float *h = (float *)(scratch + l->h), *cell = (float *)(scratch + l->c);
    const float **rows = (const float **)(scratch + l->rows);
    saw_gemm input = {.dtype = product_dtype(w_ih->precision),
                      .n = gates,
                      .k = w_ih->inner,
                      .a_rows = rows,
                      .b = w_ih->data,
                      .c = from_x,
                      .c_stride = gates,
                      .bias = bias[B_IH].data,
                      .scratch = scratch + l->gemm};
    saw_gemm recurrent = {.dtype = product_dtype(w_hh->precision),
                          .m = n,
                          .n = gates,
                          .k = hidden,
                          .a = h,
                          .a_stride = hidden,
                          .b = w_hh->data,
                          .c = from_h,
                          .c_stride = gates,
                          .bias = bias[B_HH].data,
                          .accumulate = lstm, /* onto the input product */
                          .scratch = scratch + l->gemm};
    if (a->stateful) {
        move_state(c, first, n, hidden, h, cell, false);
    } else {
        memset(h, 0, (size_t)(n * hidden) * sizeof *h);
        memset(cell, 0, (size_t)(n * hidden) * sizeof *cell);
    }
    for (int64_t s = 0; s < length; s++) {
        int64_t step = s % l->steps, t = dir ? length - 1 - s : s;
        if (step == 0) {
            int64_t steps = smaller(l->steps, length - s);
            for (int64_t i = 0; i < steps * n; i++)
                rows[i] = row_at(x, a->axis, first + i % n, dir ? t - i / n : t + i / n);
            input.m = steps * n;
            c->simd->gemm(&input);
        }
        float *gate = from_x + step * n * gates;
        if (lstm)
            recurrent.c = gate;
        c->simd->gemm(&recurrent);
        for (int64_t i = 0; i < n; i++) {
            float *hi = h + i * hidden, *out = row_at(y, a->axis, first + i, t) + dir * hidden;
            if (lstm)
                c->simd->lstm_gates(gate + i * gates, cell + i * hidden, hi, hidden);
            else
                c->simd->gru_gates(gate + i * gates, from_h + i * gates, hi, hidden);
            if (saw_adds(c, 0))
                c->simd->add(out, hi, out, hidden);
            else
                memcpy(out, hi, (size_t)hidden * sizeof *out);
        }
    }
    if (a->stateful)
        move_state(c, first, n, hidden, h, cell, true);
}

static void rnn_cpu(const saw_call *c)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *x = &c->in[0];
    layout l = lay_out(a, x, c->packed[1 + W_HH]->inner);
    int64_t sequences = x->dims[0] * x->dims[3 - a->axis];
    for (int64_t first = 0; first < sequences; first += l.sequences)
        for (int dir = 0; dir < a->directions; dir++)
            run_batch(c, &l, dir, first, smaller(l.sequences, sequences - first));
}

/* ---- backward -------------------------------------------------------------------------------- */

/* One direction of a batch of sequences at a time: forward again, keeping the gates before their
 * activations and the states, then back through the steps, which turns the gates into their
 * gradients; those of x and of the weights are large products of them. Keeping the gates from the
 * forward pass instead would be several times the layer's own output for every layer of a model, so
 * they are made again. The gradients of the weights need the sum over all sequences: a part of them
 * is a direction. */

enum { TRACE_BYTES = 48 << 20 }; /* that a batch of more than one sequence stays below */

/* The blocks of scratch, in bytes from its start. Rows are (step, sequence), steps in the order of
 * the direction; row 0 of h and c is before the first step. */
typedef struct trace {
    int64_t sequences, steps, depth, hidden, gates;
    size_t from_x, from_h, h, c, dh, dc, dx, sums, rows, gemm, outer;
    size_t w_ih, w_hh, w_ih_turned, w_hh_turned, end;
} trace;

static trace lay_out_trace(const saw_call *c)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *x = &c->in[0];
    trace l = {.steps = x->dims[a->axis], .depth = saw_last(x), .hidden = c->in[1 + W_HH].dims[1]};
    l.gates = gates_of(a) * l.hidden;
    const bool gru = a->kind == SAW_RNN_GRU;
    int64_t one = l.steps * ((1 + gru) * l.gates + 2 * l.hidden) * (int64_t)sizeof(float);
    l.sequences =
        smaller(x->dims[0] * x->dims[3 - a->axis], smaller(TRACE_BYTES / one, BATCH_ROWS));
    l.sequences = l.sequences > 0 ? l.sequences : 1;
    const int64_t rows = l.sequences * l.steps, state = l.sequences * l.hidden;
    const saw_simd *s = c->simd;
    l.from_x = take(&l.end, rows * l.gates, sizeof(float));
    l.from_h = gru ? take(&l.end, rows * l.gates, sizeof(float)) : l.from_x;
    l.h = take(&l.end, rows * l.hidden + state, sizeof(float));
    l.c = take(&l.end, gru ? 0 : rows * l.hidden + state, sizeof(float));
    l.dh = take(&l.end, state, sizeof(float));
    l.dc = take(&l.end, state, sizeof(float));
    l.dx = take(&l.end, BATCH_ROWS * l.depth, sizeof(float));
    l.sums = take(&l.end, 3 * l.gates, sizeof(double));
    l.rows = take(&l.end, 2 * SAW_OUTER_ROWS, sizeof(float *));
    l.gemm = take(&l.end, SAW_GEMM_SCRATCH_BYTES, 1);
    l.outer = take(
        &l.end, (int64_t)s->outer_bytes(OUTER_COLUMNS, l.depth > l.hidden ? l.depth : l.hidden), 1);
    l.w_ih = take(&l.end, (int64_t)s->pack_bytes(SAW_F32, l.gates, l.depth), 1);
    l.w_hh = take(&l.end, (int64_t)s->pack_bytes(SAW_F32, l.gates, l.hidden), 1);
    l.w_ih_turned = take(&l.end, (int64_t)s->pack_bytes(SAW_F32, l.depth, l.gates), 1);
    l.w_hh_turned = take(&l.end, (int64_t)s->pack_bytes(SAW_F32, l.hidden, l.gates), 1);
    return l;
}

static size_t rnn_backward_scratch(const saw_call *c)
{
    return lay_out_trace(c).end;
}

static float *floats_at(const saw_call *c, size_t at)
{
    return (float *)((char *)c->scratch + at);
}

/* The row of t (x, dy, dx) that row `row` of the trace stands for. */
static float *traced_row(const saw_call *c, const saw_tensor *t, const trace *l, int dir,
                         int64_t first, int64_t n, int64_t row)
{
    int64_t s = row / n;
    return row_at(t, ((const rnn_attr *)c->attr)->axis, first + row % n,
                  dir ? l->steps - 1 - s : s);
}

static void forward_again(const saw_call *c, const trace *l, int dir, int64_t first, int64_t n)
{
    const saw_tensor *bias = &c->in[1 + WEIGHTS * dir];
    const bool lstm = ((const rnn_attr *)c->attr)->kind == SAW_RNN_LSTM;
    float *from_x = floats_at(c, l->from_x), *from_h = floats_at(c, l->from_h);
    float *h = floats_at(c, l->h), *cell = floats_at(c, l->c);
    const float **rows = (const float **)((char *)c->scratch + l->rows);
    for (int64_t row = 0; row < n * l->steps; row += BATCH_ROWS) {
        int64_t m = smaller(BATCH_ROWS, n * l->steps - row);
        for (int64_t i = 0; i < m; i++)
            rows[i] = traced_row(c, &c->in[0], l, dir, first, n, row + i);
        c->simd->gemm(&(saw_gemm){.m = m,
                                  .n = l->gates,
                                  .k = l->depth,
                                  .a_rows = rows,
                                  .b = floats_at(c, l->w_ih),
                                  .c = from_x + row * l->gates,
                                  .c_stride = l->gates,
                                  .bias = bias[B_IH].data,
                                  .scratch = floats_at(c, l->gemm)});
    }
    const int64_t state = n * l->hidden;
    memset(h, 0, (size_t)state * sizeof *h);
    if (lstm)
        memset(cell, 0, (size_t)state * sizeof *cell);
    for (int64_t s = 0; s < l->steps; s++, h += state, cell += lstm ? state : 0) {
        float *x = from_x + s * n * l->gates, *u = from_h + s * n * l->gates;
        c->simd->gemm(&(saw_gemm){.m = n,
                                  .n = l->gates,
                                  .k = l->hidden,
                                  .a = h,
                                  .a_stride = l->hidden,
                                  .b = floats_at(c, l->w_hh),
                                  .c = u,
                                  .c_stride = l->gates,
                                  .bias = bias[B_HH].data,
                                  .accumulate = lstm,
                                  .scratch = floats_at(c, l->gemm)});
        memcpy(lstm ? cell + state : h + state, lstm ? cell : h, (size_t)state * sizeof *h);
        for (int64_t i = 0; i < n; i++) {
            float *next = h + state + i * l->hidden;
            if (lstm)
                c->simd->lstm_gates(x + i * l->gates, cell + state + i * l->hidden, next,
                                    l->hidden);
            else
                c->simd->gru_gates(x + i * l->gates, u + i * l->gates, next, l->hidden);
        }
    }
}

static void back_through_steps(const saw_call *c, const trace *l, int dir, int64_t first, int64_t n)
{
    const saw_tensor *dy = &c->in[c->n_in - 1];
    const bool lstm = ((const rnn_attr *)c->attr)->kind == SAW_RNN_LSTM;
    const int64_t state = n * l->hidden;
    float *dh = floats_at(c, l->dh), *dc = floats_at(c, l->dc);
    memset(dh, 0, (size_t)state * sizeof *dh);
    memset(dc, 0, (size_t)state * sizeof *dc);
    for (int64_t s = l->steps; s-- > 0;) {
        float *x = floats_at(c, l->from_x) + s * n * l->gates,
              *u = floats_at(c, l->from_h) + s * n * l->gates;
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = i * l->hidden;
            const float *d = traced_row(c, dy, l, dir, first, n, s * n + i) + dir * l->hidden;
            const float *h = floats_at(c, l->h) + s * state + at,
                        *cell = floats_at(c, l->c) + (lstm ? s * state + at : 0);
            c->simd->add(dh + at, d, dh + at, l->hidden);
            if (lstm)
                c->simd->lstm_gates_gradient(x + i * l->gates, cell, cell + state, dh + at, dc + at,
                                             l->hidden);
            else
                c->simd->gru_gates_gradient(x + i * l->gates, u + i * l->gates, h, dh + at,
                                            l->hidden);
        }
        c->simd->gemm(&(saw_gemm){.m = n,
                                  .n = l->hidden,
                                  .k = l->gates,
                                  .a = u,
                                  .a_stride = l->gates,
                                  .b = floats_at(c, l->w_hh_turned),
                                  .c = dh,
                                  .c_stride = l->hidden,
                                  .accumulate = !lstm,
                                  .scratch = floats_at(c, l->gemm)});
    }
}

static void input_gradient(const saw_call *c, const trace *l, int dir, int64_t first, int64_t n)
{
    float *buffer = floats_at(c, l->dx);
    for (int64_t row = 0; row < n * l->steps; row += BATCH_ROWS) {
        int64_t m = smaller(BATCH_ROWS, n * l->steps - row);
        c->simd->gemm(&(saw_gemm){.m = m,
                                  .n = l->depth,
                                  .k = l->gates,
                                  .a = floats_at(c, l->from_x) + row * l->gates,
                                  .a_stride = l->gates,
                                  .b = floats_at(c, l->w_ih_turned),
                                  .c = buffer,
                                  .c_stride = l->depth,
                                  .scratch = floats_at(c, l->gemm)});
        for (int64_t i = 0; i < m; i++) {
            float *dx = traced_row(c, &c->out[0], l, dir, first, n, row + i);
            if (dir > 0 || saw_adds(c, 0))
                c->simd->add(dx, buffer + i * l->depth, dx, l->depth);
            else
                memcpy(dx, buffer + i * l->depth, (size_t)l->depth * sizeof *dx);
        }
    }
}

/* dw += sum over rows of gate gradients times what they were a product of: rows of x, or of h. */
static void matrix_gradient(const saw_call *c, const trace *l, int dir, int64_t first, int64_t n,
                            bool recurrent)
{
    float *dw = c->out[1 + WEIGHTS * dir + (recurrent ? W_HH : W_IH)].data;
    const float *gates = floats_at(c, recurrent ? l->from_h : l->from_x);
    const float **a = (const float **)((char *)c->scratch + l->rows), **b = a + SAW_OUTER_ROWS;
    const int64_t width = recurrent ? l->hidden : l->depth;
    for (int64_t row = 0; dw && row < n * l->steps; row += SAW_OUTER_ROWS) {
        int64_t rows = smaller(SAW_OUTER_ROWS, n * l->steps - row);
        for (int64_t i = 0; i < rows; i++)
            b[i] = recurrent ? floats_at(c, l->h) + (row + i) * l->hidden
                             : traced_row(c, &c->in[0], l, dir, first, n, row + i);
        for (int64_t g = 0; g < l->gates; g += OUTER_COLUMNS) {
            for (int64_t i = 0; i < rows; i++)
                a[i] = gates + (row + i) * l->gates + g;
            c->simd->outer(&(saw_outer){.rows = rows,
                                        .m = smaller(OUTER_COLUMNS, l->gates - g),
                                        .n = width,
                                        .a = a,
                                        .b = b,
                                        .c = dw + g * width,
                                        .c_stride = width,
                                        .accumulate = true,
                                        .scratch = floats_at(c, l->outer)});
        }
    }
}

static void direction_backward(const saw_call *c, const trace *l, int dir)
{
    const rnn_attr *a = c->attr;
    const saw_tensor *w = &c->in[1 + WEIGHTS * dir], *dw = &c->out[1 + WEIGHTS * dir];
    const saw_simd *simd = c->simd;
    const int64_t sequences = c->in[0].dims[0] * c->in[0].dims[3 - a->axis], gates = l->gates;
    double *sums = (double *)((char *)c->scratch + l->sums), *unused = sums + 2 * gates;
    simd->pack(SAW_F32, w[W_IH].data, l->depth, 1, 0, gates, l->depth, floats_at(c, l->w_ih));
    simd->pack(SAW_F32, w[W_HH].data, l->hidden, 1, 0, gates, l->hidden, floats_at(c, l->w_hh));
    simd->pack(SAW_F32, w[W_IH].data, 1, l->depth, 0, l->depth, gates,
               floats_at(c, l->w_ih_turned));
    simd->pack(SAW_F32, w[W_HH].data, 1, l->hidden, 0, l->hidden, gates,
               floats_at(c, l->w_hh_turned));
    memset(sums, 0, 3 * (size_t)gates * sizeof *sums);
    for (int i = W_IH; i <= W_HH; i++)
        if (dw[i].data && !saw_adds(c, 1 + WEIGHTS * dir + i))
            memset(dw[i].data, 0, (size_t)saw_tensor_count(&dw[i]) * sizeof(float));
    for (int64_t first = 0; first < sequences; first += l->sequences) {
        int64_t n = smaller(l->sequences, sequences - first);
        forward_again(c, l, dir, first, n);
        back_through_steps(c, l, dir, first, n);
        if (c->out[0].data)
            input_gradient(c, l, dir, first, n);
        matrix_gradient(c, l, dir, first, n, false);
        matrix_gradient(c, l, dir, first, n, true);
        for (int i = B_IH; i <= B_HH; i++) {
            const float *g = floats_at(c, i == B_IH ? l->from_x : l->from_h);
            if (dw[i].data)
                simd->column_sums(g, gates, g, gates, n * l->steps, gates,
                                  sums + (i - B_IH) * gates, unused);
        }
    }
    for (int i = B_IH; i <= B_HH; i++) {
        float *to = dw[i].data;
        for (int64_t j = 0; to && j < gates; j++)
            to[j] = (saw_adds(c, 1 + WEIGHTS * dir + i) ? to[j] : 0) +
                    (float)sums[(i - B_IH) * gates + j];
    }
}

static void rnn_cpu_backward(const saw_call *c)
{
    const rnn_attr *a = c->attr;
    trace l = lay_out_trace(c);
    for (int dir = 0; dir < a->directions; dir++)
        if (dir * c->parts / a->directions == c->part)
            direction_backward(c, &l, dir);
}

static int64_t rnn_backward_parts(const void *attr, int n_in, const saw_dims *in,
                                  const saw_dims *out)
{
    (void)n_in, (void)in, (void)out;
    return ((const rnn_attr *)attr)->directions;
}

const saw_op saw_op_rnn = {
    .name = "rnn",
    .attr_bytes = sizeof(rnn_attr),
    .shape = rnn_shape,
    .axes = rnn_axes,
    .scratch = rnn_scratch,
    .state = rnn_state,
    .pack = rnn_pack,
    .flops = rnn_flops,
    .list = rnn_list,
    .cpu_forward = rnn_cpu,
    .cpu_backward = rnn_cpu_backward,
    .backward_parts = rnn_backward_parts,
    .backward_scratch = rnn_backward_scratch,
    .differentiable = true,
    .tolerance_db = 110,
};

saw_val saw_rnn(saw_graph *g, saw_val x, saw_rnn_kind kind, int axis, int directions,
                const saw_rnn_weights *weights, bool stateful)
{
    if (saw_graph_status(g))
        return 0;
    if ((axis != 1 && axis != 2) || directions < 1 || directions > 2 ||
        (stateful && (directions > 1 || axis != 1)))
        return saw_graph_fail(
            g, SAW_ERR_ARGUMENT,
            "rnn: it runs along axis 1 or 2, and with state along time in one direction");
    rnn_attr attr = {.kind = kind,
                     .axis = axis,
                     .directions = directions,
                     .stateful = stateful,
                     .others = saw_dim(g, x, 3 - axis)};
    saw_val in[1 + 2 * WEIGHTS] = {x};
    for (int dir = 0; dir < directions; dir++) {
        const saw_rnn_weights *w = &weights[dir];
        memcpy(in + 1 + WEIGHTS * dir, (saw_val[]){w->w_ih, w->w_hh, w->b_ih, w->b_hh},
               WEIGHTS * sizeof *in);
    }
    return saw_record(g, &saw_op_rnn, &attr, 1 + WEIGHTS * directions, in, 1);
}

#endif
