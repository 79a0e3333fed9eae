#include "support/op_case.h"

#include "kernels/simd/simd.h"
#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPERANDS = 3 * OP_CASE_INPUTS, GUARD_BYTES = 256 };
static const unsigned char GUARD = 0xA5;

/* ---- a recorded case ------------------------------------------------------------------------- */

typedef struct subject {
    const op_case *k;
    saw_context *ctx;
    saw_graph *g;
    const saw_entry *e;
    const saw_kernels *kernels;
    int n_in, n_out;
    saw_dims dims[OPERANDS];  /* of inputs, then outputs */
    double *values[OPERANDS]; /* of inputs, then the gradients that flow in at the outputs */
} subject;

static double *values_of(const char *name, int number, int64_t n, double gain, double offset)
{
    char key[160];
    snprintf(key, sizeof key, "%s %d", name, number);
    double *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(offset +
                       gain * test_value(key, i)); /* the same number in float and in double */
    return v;
}

static subject open_subject(const op_case *k)
{
    subject s = {.k = k};
    assert_int_equal(saw_context_open(&s.ctx, NULL), SAW_OK);
    assert_int_equal(saw_graph_open(s.ctx, &s.g), SAW_OK);
    saw_val in[OP_CASE_INPUTS] = {0};
    for (int i = 0; i < OP_CASE_INPUTS; i++) {
        char name[16];
        snprintf(name, sizeof name, "in%d", i);
        if (k->in[i].n)
            in[i] = saw_input(s.g, name, k->in[i]);
    }
    if (!k->record(s.g, in))
        fail_msg("%s: not recorded: %s", k->name, saw_context_error(s.ctx));
    s.e = saw_graph_entry(s.g, saw_graph_entries(s.g) - 1);
    s.kernels = saw_kernels_of(s.e->op);
    if (!s.kernels)
        fail_msg("%s: the op %s is not in ops.def", k->name, s.e->op->name);
    s.n_in = s.e->n_in;
    s.n_out = s.e->n_out;
    for (int i = 0; i < s.n_in + s.n_out; i++) {
        s.dims[i] = saw_dims_val(s.g, i < s.n_in ? s.e->in[i] : s.e->out[i - s.n_in]);
        int64_t n = s.dims[i].n ? saw_dims_count(&s.dims[i]) : 0;
        bool input = i < s.n_in;
        double gain = !input ? !(k->fixed >> i & 1) : k->gain != 0 ? k->gain : 1;
        s.values[i] = values_of(k->name, i, n, gain, input ? k->offset : 0);
    }
    return s;
}

static void close_subject(subject *s)
{
    for (int i = 0; i < s->n_in + s->n_out; i++)
        free(s->values[i]);
    saw_graph_close(s->g);
    saw_context_close(s->ctx);
}

const saw_op *op_case_op(const op_case *k)
{
    subject s = open_subject(k);
    const saw_op *op = s.e->op;
    close_subject(&s);
    return op;
}

/* ---- operands in memory ---------------------------------------------------------------------- */

typedef enum layout {
    DENSE,
    APART, /* gaps between rows, the last axis contiguous */
    SPARSE /* gaps between all elements */
} layout;

typedef struct operand {
    saw_tensor t;
    unsigned char *block; /* guard, elements and gaps, guard */
    size_t bytes;
} operand;

static double load(const saw_tensor *t, int64_t offset)
{
    return t->dtype == SAW_F64 ? ((double *)t->data)[offset] : (double)((float *)t->data)[offset];
}

static void store(const saw_tensor *t, int64_t offset, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[offset] = v;
    else
        ((float *)t->data)[offset] = (float)v;
}

/* Offset of element i in row-major order. */
static int64_t offset_of(const saw_tensor *t, int64_t i)
{
    int64_t offset = 0;
    for (int a = t->ndim - 1; a >= 0; a--) {
        offset += i % t->dims[a] * t->strides[a];
        i /= t->dims[a];
    }
    return offset;
}

/* values NULL: left as guard bytes, which no kernel may read as numbers and none may leave in an
 * output. */
static operand make_operand(const saw_dims *d, saw_dtype dtype, layout how, const double *values)
{
    operand o = {.t = {.dtype = dtype, .ndim = d->n}};
    if (!d->n)
        return o;
    int64_t step = how == SPARSE ? 3 : 1;
    for (int a = d->n - 1; a >= 0; a--) {
        o.t.dims[a] = d->d[a];
        o.t.strides[a] = step;
        step = step * d->d[a] + (how == DENSE ? 0 : 2 + a);
    }
    o.bytes = 2 * GUARD_BYTES + (size_t)step * saw_dtype_bytes(dtype);
    o.bytes = (o.bytes + 63) / 64 * 64;
    o.block = aligned_alloc(64, o.bytes);
    memset(o.block, GUARD, o.bytes);
    o.t.data = o.block + GUARD_BYTES;
    for (int64_t i = 0; values && i < saw_tensor_count(&o.t); i++)
        store(&o.t, offset_of(&o.t, i), values[i]);
    return o;
}

static double *read_operand(const operand *o)
{
    int64_t n = o->t.data ? saw_tensor_count(&o->t) : 0;
    double *v = malloc((size_t)(n ? n : 1) * sizeof *v);
    for (int64_t i = 0; i < n; i++)
        v[i] = load(&o->t, offset_of(&o->t, i));
    return v;
}

/* Is every byte that belongs to no element still a guard byte? Spoils the elements. */
static bool guards_whole(operand *o)
{
    if (!o->t.data)
        return true;
    size_t size = saw_dtype_bytes(o->t.dtype);
    for (int64_t i = 0; i < saw_tensor_count(&o->t); i++)
        memset((char *)o->t.data + offset_of(&o->t, i) * (int64_t)size, GUARD, size);
    for (size_t i = 0; i < o->bytes; i++)
        if (o->block[i] != GUARD)
            return false;
    return true;
}

/* ---- calls ----------------------------------------------------------------------------------- */

typedef enum machine { CPU, REF32, REF64 } machine;

/* What is run, and how. Zero: forward on the CPU, whole, dense. */
typedef struct order {
    machine on;
    const saw_simd *simd; /* NULL: the best */
    int precision;
    bool backward;
    uint32_t want; /* backward: bits of the inputs whose gradient is wanted */
    layout how;
    bool add;              /* to outputs filled with `before` */
    int axis;              /* cut along it when `piece` is not 0 */
    int64_t piece;         /* size of a piece; 0: whole */
    int64_t parts;         /* 0: 1 */
    int on_input;          /* output 0 lies on input number on_input - 1; 0: apart from all */
    double *const *values; /* NULL: the subject's own */
} order;

/* Outputs of a forward order; gradients of the inputs (NULL where not wanted) of a backward one. */
typedef struct result {
    int n;
    double *out[OPERANDS];
    int64_t count[OPERANDS];
} result;

static void free_result(result *r)
{
    for (int i = 0; i < r->n; i++)
        free(r->out[i]);
}

static double before(int64_t i)
{
    return 0.25 * (double)(i % 7) - 0.5;
}

static uint32_t forward_axes(const subject *s, int i)
{
    if (i < s->n_in && (s->k->params >> i & 1 || !s->dims[i].n))
        return 0;
    return s->e->op->axes ? s->e->op->axes(s->e->attr, s->n_in, s->dims, i)
                          : SAW_LEADING(s->dims[i].n - 1);
}

/* Axes of forward operand i in this order. */
static uint32_t order_axes(const subject *s, const order *o, int i)
{
    const saw_op *op = s->e->op;
    if (!o->backward || o->on != CPU || !op->backward_axes)
        return forward_axes(s, i);
    bool whole = i < s->n_in && (s->k->params >> i & 1 || !s->dims[i].n);
    return whole ? 0 : op->backward_axes(s->e->attr, s->n_in, s->dims, i);
}

/* The forward operand that operand i of this order stands for. */
static int stands_for(const subject *s, const order *o, int i)
{
    if (!o->backward || i < s->n_in + s->n_out)
        return i;
    return i < s->n_in + 2 * s->n_out ? i - s->n_out : i - s->n_in - 2 * s->n_out;
}

/* Axes along which the order may be cut. */
static uint32_t cut_axes(const subject *s, const order *o)
{
    uint32_t axes = SAW_ALL_AXES;
    for (int i = 0; i < (o->backward ? s->n_in : s->n_out); i++)
        if (!o->backward)
            axes &= order_axes(s, o, s->n_in + i);
        else if (o->want >> i & 1)
            axes &= order_axes(s, o, i);
    if (!o->backward && s->e->op->disjoint)
        axes |= s->e->op->disjoint(s->e->attr, s->n_in, s->dims);
    return axes;
}

/* Extent of a cut axis: of any operand that is cut along it. */
static int64_t extent_of(const subject *s, const order *o, int axis)
{
    int64_t n = 0;
    for (int i = 0; i < s->n_in + s->n_out; i++)
        if (order_axes(s, o, i) & SAW_AXIS(axis) && s->dims[i].d[axis] > n)
            n = s->dims[i].d[axis];
    return n;
}

/* The matrices that the op packs its weight as, one after another; *block is what to free. */
static saw_packed pack(const subject *s, const order *o, const saw_simd *simd, int i, void **block)
{
    const saw_op *op = s->e->op;
    const double *w = (o->values ? o->values : s->values)[i];
    saw_dtype dtype = o->precision == SAW_PRECISION_BF16   ? SAW_BF16
                      : o->precision == SAW_PRECISION_INT8 ? SAW_I8
                                                           : SAW_F32;
    saw_packed p = {.precision = o->precision, .rows = s->dims[i].d[0]};
    p.inner = saw_dims_count(&s->dims[i]) / p.rows;
    saw_pack_matrix m = {.rows = {1, p.rows},
                         .row_stride = {0, p.inner},
                         .inner = {1, 1, p.inner},
                         .inner_stride = {0, 0, 1}};
    *block = NULL;
    for (int64_t number = 0; op->matrix ? op->matrix(s->e->attr, number, &m) : number == 0;
         number++) {
        int64_t rows = m.rows[0] * m.rows[1], inner = m.inner[0] * m.inner[1] * m.inner[2];
        float *dense = malloc((size_t)(rows * inner) * sizeof *dense);
        for (int64_t j = 0; j < rows * inner; j++) {
            int64_t n = j / inner, k = j % inner;
            dense[j] = (float)
                w[m.first + n / m.rows[1] * m.row_stride[0] + n % m.rows[1] * m.row_stride[1] +
                  k / (m.inner[1] * m.inner[2]) * m.inner_stride[0] +
                  k / m.inner[2] % m.inner[1] * m.inner_stride[1] +
                  k % m.inner[2] * m.inner_stride[2]];
        }
        size_t bytes = simd->pack_bytes(dtype, rows, inner);
        char *more = aligned_alloc(64, (p.bytes + bytes + 63) / 64 * 64);
        if (p.bytes)
            memcpy(more, *block, p.bytes);
        free(*block);
        *block = more;
        simd->pack(dtype, dense, inner, 1, 0, rows, inner, more + p.bytes);
        p.bytes += bytes;
        free(dense);
    }
    p.data = *block;
    return p;
}

static saw_kernel *kernel_of(const subject *s, const order *o)
{
    const saw_kernels *k = s->kernels;
    saw_kernel *fast = o->backward ? s->e->op->cpu_backward : s->e->op->cpu_forward;
    if (o->on == CPU && fast)
        return fast;
    if (o->on == REF64)
        return o->backward ? k->ref64_backward : k->ref64_forward;
    return o->backward ? k->ref32_backward : k->ref32_forward;
}

/* Does the kernel take input i packed? */
static bool takes_packed(const subject *s, const order *o, int i)
{
    const saw_op *op = s->e->op;
    if (o->on != CPU || i >= s->n_in || !op->pack || op->pack(s->e->attr, i) != SAW_PACK_GEMM)
        return false;
    return o->backward ? op->cpu_backward && op->backward_packed : op->cpu_forward != NULL;
}

static result run(const subject *s, const order *o)
{
    const saw_op *op = s->e->op;
    const saw_simd *simd = o->simd ? o->simd : saw_simd_best();
    saw_dtype dtype = o->on == REF64 ? SAW_F64 : SAW_F32;
    int n_in = o->backward ? s->n_in + 2 * s->n_out : s->n_in,
        n_out = o->backward ? s->n_in : s->n_out;
    uint32_t keep = !o->backward ? UINT32_MAX
                    : op->keep   ? op->keep(s->e->attr, o->want, s->n_in)
                                 : SAW_LEADING(s->n_in);
    size_t (*scratch_of)(const saw_call *) =
        o->on == CPU && o->backward && op->cpu_backward ? op->backward_scratch : op->scratch;
    operand x[OPERANDS];
    memset(x, 0, sizeof x);
    saw_packed packed[OPERANDS];
    const saw_packed *packs[OPERANDS] = {0};
    void *blocks[OPERANDS] = {0};
    double *const *values = o->values ? o->values : s->values;
    result forward = {0};
    if (o->backward && keep >> s->n_in) { /* outputs are kept */
        order f = *o;
        f.backward = f.add = false;
        f.piece = f.parts = 0;
        forward = run(s, &f);
    }
    for (int i = 0; i < n_in + n_out; i++) {
        int f = stands_for(s, o, i);
        bool param = f < s->n_in && s->k->params >> f & 1;
        layout how = param && o->on == CPU ? DENSE : o->how;
        if (i < n_in && o->backward && i < s->n_in + s->n_out && !(keep >> i & 1))
            continue;
        if (o->backward && i >= n_in && !(o->want >> f & 1))
            continue;
        const double *v = i >= n_in ? NULL
                          : o->backward && i >= s->n_in && i < s->n_in + s->n_out
                              ? forward.out[i - s->n_in]
                              : values[f];
        x[i] = make_operand(&s->dims[f], dtype, how, v);
        if (i >= n_in && o->add)
            for (int64_t j = 0; j < saw_tensor_count(&x[i].t); j++)
                store(&x[i].t, offset_of(&x[i].t, j), before(j));
        if (takes_packed(s, o, i) && x[i].t.data) {
            packed[i] = pack(s, o, simd, i, &blocks[i]);
            packs[i] = &packed[i];
            free(x[i].block); /* a packed weight is not there as a tensor */
            x[i].block = NULL;
            x[i].t.data = NULL;
        }
    }
    if (o->on_input) {
        free(x[n_in].block);
        x[n_in] = x[o->on_input - 1];
    }
    size_t state_bytes = op->state ? op->state(s->e->attr, s->n_in, s->dims) : 0;
    void *state = calloc(1, state_bytes + 1);
    int64_t extent = o->piece ? extent_of(s, o, o->axis) : 1, piece = o->piece ? o->piece : 1;
    int64_t parts = o->parts ? o->parts : 1;
    for (int64_t lo = 0; lo < extent; lo += piece)
        for (int64_t part = 0; part < parts; part++) {
            saw_tensor t[OPERANDS];
            saw_call c = {.attr = s->e->attr,
                          .in = t,
                          .out = t + n_in,
                          .n_in = n_in,
                          .n_out = n_out,
                          .packed = packs,
                          .part = part,
                          .parts = parts,
                          .add = o->add ? UINT32_MAX : 0,
                          .precision = o->precision,
                          .state = state,
                          .simd = simd,
                          .seed = 20,
                          .entry = 3};
            void *data[OPERANDS];
            for (int i = 0; i < n_in + n_out; i++) {
                t[i] = x[i].t;
                data[i] = x[i].t.data;
                if (o->piece && x[i].t.ndim && t[i].dims[o->axis] > 1 &&
                    order_axes(s, o, stands_for(s, o, i)) & SAW_AXIS(o->axis)) {
                    t[i].dims[o->axis] = lo + piece < extent ? piece : extent - lo;
                    if (data[i])
                        data[i] = (char *)data[i] +
                                  lo * t[i].strides[o->axis] * (int64_t)saw_dtype_bytes(dtype);
                }
                t[i].data = NULL;
            }
            if (o->piece)
                c.origin[o->axis] = lo;
            size_t scratch_bytes = scratch_of ? scratch_of(&c) : 0,
                   room = scratch_bytes + GUARD_BYTES;
            unsigned char *scratch = aligned_alloc(64, (room + 63) / 64 * 64);
            memset(scratch, GUARD, room);
            for (int i = 0; i < n_in + n_out; i++)
                t[i].data = data[i];
            c.scratch = scratch;
            kernel_of(s, o)(&c);
            for (size_t i = scratch_bytes; i < room; i++)
                if (scratch[i] != GUARD)
                    fail_msg("%s: writes %zu bytes behind its scratch", s->k->name,
                             i - scratch_bytes);
            free(scratch);
        }
    result r = {.n = n_out};
    for (int i = 0; i < n_out; i++) {
        operand *out = &x[n_in + i];
        r.out[i] = out->t.data ? read_operand(out) : NULL;
        r.count[i] = out->t.data ? saw_tensor_count(&out->t) : 0;
        if (!guards_whole(out))
            fail_msg("%s: writes beside output %d", s->k->name, i);
    }
    for (int i = 0; i < n_in + n_out; i++) {
        if (i != n_in || !o->on_input)
            free(x[i].block);
        free(blocks[i]);
    }
    free(state);
    free_result(&forward);
    return r;
}

/* ---- comparisons ----------------------------------------------------------------------------- */

static double snr_db(const double *got, const double *want, int64_t n)
{
    double error = 0, signal = 0;
    for (int64_t i = 0; i < n; i++) {
        error += (got[i] - want[i]) * (got[i] - want[i]);
        signal += want[i] * want[i];
    }
    return error == 0 ? 999 : isfinite(error) ? 10 * log10(signal / error) : -999;
}

static void expect_db(const subject *s, const char *what, const result *got, const result *want,
                      double least)
{
    for (int i = 0; i < got->n; i++) {
        double db = got->out[i] ? snr_db(got->out[i], want->out[i], want->count[i]) : 999;
        if (!(db >= least))
            fail_msg("%s: %s: output %d has %.1f dB, needs %.1f", s->k->name, what, i, db, least);
    }
}

static void expect_bits(const subject *s, const char *what, const result *got, const result *want)
{
    for (int i = 0; i < got->n; i++)
        for (int64_t j = 0; j < got->count[i]; j++)
            if (memcmp(&got->out[i][j], &want->out[i][j], sizeof(double)))
                fail_msg("%s: %s: element %lld of output %d is %.17g, not %.17g", s->k->name, what,
                         (long long)j, i, got->out[i][j], want->out[i][j]);
}

static bool has_backward(const subject *s)
{
    return s->e->op->differentiable;
}

/* Bits of the inputs that are there and have a gradient. */
static uint32_t differentiable(const subject *s)
{
    uint32_t want = 0;
    for (int i = 0; i < s->n_in; i++)
        if (s->dims[i].n && !(s->k->fixed >> i & 1))
            want |= SAW_AXIS(i);
    return want;
}

/* ---- checks ---------------------------------------------------------------------------------- */

void op_case_check_accuracy(const op_case *k)
{
    subject s = open_subject(k);
    const saw_op *op = s.e->op;
    result want = run(&s, &(order){.on = REF64});
    result ref32 = run(&s, &(order){.on = REF32});
    expect_db(&s, "float reference", &ref32, &want, op->tolerance_db);
    free_result(&ref32);
    for (int i = 0; saw_simd_at(i); i++) {
        static const double loss_db[] = {0, 75, 85}; /* what bf16 and int8 products may lose */
        for (int precision = SAW_PRECISION_F32; precision <= SAW_PRECISION_INT8; precision++) {
            char what[64];
            snprintf(what, sizeof what, "%s, precision %d", saw_simd_at(i)->name, precision);
            result got =
                run(&s, &(order){.on = CPU, .simd = saw_simd_at(i), .precision = precision});
            expect_db(&s, what, &got, &want, op->tolerance_db - loss_db[precision]);
            free_result(&got);
        }
    }
    free_result(&want);
    close_subject(&s);
}

/* The loss whose gradient at the outputs is what flows in: sum of outputs times these values. */
static double loss(const subject *s, double *const *values)
{
    result r = run(s, &(order){.on = REF64, .values = values});
    double sum = 0;
    for (int i = 0; i < s->n_out; i++)
        for (int64_t j = 0; j < r.count[i]; j++)
            sum += r.out[i][j] * s->values[s->n_in + i][j];
    free_result(&r);
    return sum;
}

static void check_against_differences(const subject *s, int input, const double *gradient,
                                      int64_t n)
{
    double *direction = values_of("direction", input, n, 1, 0), *moved[OPERANDS], got = 0,
           size_g = 0, size_d = 0;
    memcpy(moved, s->values, sizeof moved);
    moved[input] = malloc((size_t)n * sizeof(double));
    const double h = 1e-5;
    double ends[2];
    for (int end = 0; end < 2; end++) {
        for (int64_t i = 0; i < n; i++)
            moved[input][i] = s->values[input][i] + (end ? h : -h) * direction[i];
        ends[end] = loss(s, moved);
    }
    for (int64_t i = 0; i < n; i++) {
        got += gradient[i] * direction[i];
        size_g += gradient[i] * gradient[i];
        size_d += direction[i] * direction[i];
    }
    double want = (ends[1] - ends[0]) / (2 * h);
    if (!(fabs(got - want) <= 1e-7 * (fabs(want) + sqrt(size_g * size_d / (double)n)) + 1e-10))
        fail_msg("%s: the gradient of input %d is %.12g along a direction, differences say %.12g",
                 s->k->name, input, got, want);
    free(moved[input]);
    free(direction);
}

void op_case_check_gradients(const op_case *k)
{
    subject s = open_subject(k);
    uint32_t want = differentiable(&s);
    if (!has_backward(&s) || !want) {
        close_subject(&s);
        return;
    }
    result all = run(&s, &(order){.on = REF64, .backward = true, .want = want});
    for (int i = 0; i < s.n_in; i++) {
        if (!(want >> i & 1))
            continue;
        check_against_differences(&s, i, all.out[i], all.count[i]);
        result one = run(&s, &(order){.on = REF64, .backward = true, .want = SAW_AXIS(i)});
        for (int64_t j = 0; j < one.count[i]; j++)
            if (one.out[i][j] != all.out[i][j])
                fail_msg("%s: the gradient of input %d alone differs", k->name, i);
        free_result(&one);
    }
    result added = run(&s, &(order){.on = REF64, .backward = true, .want = want, .add = true});
    for (int i = 0; i < added.n; i++)
        for (int64_t j = 0; j < added.count[i]; j++)
            added.out[i][j] -= before(j);
    expect_db(&s, "added gradients", &added, &all, 200);
    result apart = run(&s, &(order){.on = REF64,
                                    .backward = true,
                                    .want = want,
                                    .how = k->dense_last ? APART : SPARSE});
    expect_bits(&s, "gradients of values that lie apart", &apart, &all);
    result ref32 = run(&s, &(order){.on = REF32, .backward = true, .want = want});
    expect_db(&s, "gradients of the float reference", &ref32, &all, 100);
    free_result(&ref32);
    free_result(&apart);
    free_result(&added);
    free_result(&all);
    close_subject(&s);
}

static void check_cuts(const subject *s, order o)
{
    uint32_t axes = cut_axes(s, &o);
    result whole = run(s, &o);
    for (int a = 0; a < SAW_MAX_DIMS; a++) {
        int64_t extent = axes & SAW_AXIS(a) ? extent_of(s, &o, a) : 0;
        if (extent < 2)
            continue;
        int64_t pieces[] = {1, 2, extent - 1};
        for (int i = 0; i < 3; i++) {
            char what[96];
            snprintf(what, sizeof what, "%s in pieces of %lld along axis %d",
                     o.backward ? "gradients" : "outputs", (long long)pieces[i], a);
            o.axis = a;
            o.piece = pieces[i];
            result cut = run(s, &o);
            expect_bits(s, what, &cut, &whole);
            free_result(&cut);
        }
    }
    o.piece = 0;
    bool parts = o.backward ? s->e->op->backward_parts && !axes : s->e->op->parts != NULL;
    for (o.parts = 2; parts && o.parts < 5; o.parts++) {
        result cut = run(s, &o);
        expect_bits(s, o.backward ? "gradients in parts" : "in parts", &cut, &whole);
        free_result(&cut);
    }
    free_result(&whole);
}

void op_case_check_cuts(const op_case *k)
{
    subject s = open_subject(k);
    for (int i = 0; i < s.n_in; i++)
        if (k->params >> i & 1 && s.dims[i].n && s.e->op->axes &&
            s.e->op->axes(s.e->attr, s.n_in, s.dims, i) != 0)
            fail_msg("%s: the op wants its weight %d cut", k->name, i);
    for (int i = 0; saw_simd_at(i); i++)
        check_cuts(&s, (order){.on = CPU, .simd = saw_simd_at(i)});
    check_cuts(&s, (order){.on = REF32});
    for (int i = 0; has_backward(&s) && i < s.n_in; i++)
        if (differentiable(&s) >> i & 1 && !(k->params >> i & 1))
            check_cuts(&s, (order){.on = REF32, .backward = true, .want = SAW_AXIS(i)});
    close_subject(&s);
}

/* One call of cpu_backward: on every instruction set against the double reference, cut, added, on
 * values that lie apart. */
static void check_cpu_backward(const subject *s, uint32_t want)
{
    const double gradient_margin_db = 10;
    result exact = run(s, &(order){.on = REF64, .backward = true, .want = want});
    for (int i = 0; saw_simd_at(i); i++) {
        char what[96];
        snprintf(what, sizeof what, "%s, gradients of inputs 0x%x", saw_simd_at(i)->name, want);
        order o = {.on = CPU, .simd = saw_simd_at(i), .backward = true, .want = want};
        result got = run(s, &o);
        expect_db(s, what, &got, &exact, s->e->op->tolerance_db - gradient_margin_db);
        check_cuts(s, o);
        o.how = APART;
        result apart = run(s, &o);
        expect_bits(s, "gradients of values that lie apart", &apart, &got);
        o.add = true;
        check_cuts(s, o);
        result added = run(s, &o);
        for (int j = 0; j < added.n; j++)
            for (int64_t e = 0; e < added.count[j]; e++)
                added.out[j][e] -= before(e);
        expect_db(s, "added gradients", &added, &exact, 90);
        free_result(&added);
        free_result(&apart);
        free_result(&got);
    }
    free_result(&exact);
}

void op_case_check_backward(const op_case *k)
{
    subject s = open_subject(k);
    uint32_t all = differentiable(&s), data = all & ~k->params, weights = all & k->params;
    if (s.e->op->cpu_backward) {
        if (s.e->op->joint_backward && data && weights)
            check_cpu_backward(&s, all);
        if (data)
            check_cpu_backward(&s, data);
        if (weights)
            check_cpu_backward(&s, weights);
        for (int i = 0; i < s.n_in; i++) /* the others are frozen */
            if (all >> i & 1 && SAW_AXIS(i) != data && SAW_AXIS(i) != weights)
                check_cpu_backward(&s, SAW_AXIS(i));
    }
    close_subject(&s);
}

void op_case_check_views(const op_case *k)
{
    subject s = open_subject(k);
    for (machine on = CPU; on <= REF64; on++) {
        result dense = run(&s, &(order){.on = on});
        layout how = on == CPU || k->dense_last ? APART : SPARSE;
        result apart = run(&s, &(order){.on = on, .how = how});
        expect_bits(&s, "values that lie apart", &apart, &dense);
        for (layout l = DENSE; l <= how; l++) {
            result added = run(&s, &(order){.on = on, .how = l, .add = true});
            for (int i = 0; i < added.n; i++)
                for (int64_t j = 0; j < added.count[i]; j++)
                    added.out[i][j] -= before(j);
            expect_db(&s, "added outputs", &added, &dense, on == REF64 ? 200 : 100);
            free_result(&added);
        }
        free_result(&apart);
        free_result(&dense);
    }
    close_subject(&s);
}

void op_case_check_in_place(const op_case *k)
{
    subject s = open_subject(k);
    for (int i = 0; s.e->op->in_place && i < s.n_in; i++) {
        if (!saw_dims_equal(&s.dims[i], &s.dims[s.n_in]))
            continue;
        for (machine on = CPU; on <= REF64; on++)
            for (layout how = DENSE; how <= APART; how++) {
                result apart = run(&s, &(order){.on = on, .how = how});
                result on_input = run(&s, &(order){.on = on, .how = how, .on_input = i + 1});
                expect_bits(&s, "output on an input", &on_input, &apart);
                free_result(&on_input);
                free_result(&apart);
            }
    }
    close_subject(&s);
}

double *op_forward64(saw_val (*record)(saw_graph *g, const saw_val *in), int n_in,
                     const saw_dims *dims, const double *const *in)
{
    op_case k = {.name = "given values", .record = record};
    memcpy(k.in, dims, (size_t)n_in * sizeof *dims);
    subject s = open_subject(&k);
    double *values[OPERANDS];
    memcpy(values, in, (size_t)n_in * sizeof *values);
    result r = run(&s, &(order){.on = REF64, .values = values});
    double *out = r.out[0];
    for (int i = 1; i < r.n; i++)
        free(r.out[i]);
    close_subject(&s);
    return out;
}
