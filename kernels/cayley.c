/*
 * cayley.c - orthogonal matrices from skew ones: v holds the numbers above the diagonal of U, row
 * by row, Q = U - U^T,
 *
 *     terms == 0: R = (I - Q) (I + Q)^-1
 *     else:       R = I + 2 Q + 2 Q^2 + ... + 2 Q^(T-2) + Q^(T-1), the series of (I + Q) (I - Q)^-1
 *                 cut off after T terms: its sense is the opposite.
 *
 * With T = 2 the series is I + 2 Q and with T = 3 I + 2 Q + 2 Q^2 + Q^3, as T = 4 (PEFT's OFT).
 */
#include "kernels/kernel.h"
#include "kernels/ops.h"

typedef struct cayley_attr {
    int64_t block;
    int terms;
} cayley_attr;

enum { MATRICES = 6, MAX_TERMS = 32 };

#ifdef SAW_REF

#include <string.h>

/* y (+)= a b, or with a or b transposed. */
static void multiply(int64_t n, const double *a, bool ta, const double *b, bool tb, bool add,
                     double *y)
{
    if (!add)
        memset(y, 0, (size_t)(n * n) * sizeof *y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < n; k++) {
            double f = ta ? a[k * n + i] : a[i * n + k];
            for (int64_t j = 0; j < n; j++)
                y[i * n + j] += f * (tb ? b[j * n + k] : b[k * n + j]);
        }
}

static void skew(const saw_tensor *v, int64_t block, int64_t n, double *q)
{
    const real *x = (const real *)v->data + block * v->strides[0];
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        q[i * n + i] = 0;
        for (int64_t j = i + 1; j < n; j++, at++) {
            q[i * n + j] = x[at * v->strides[1]];
            q[j * n + i] = -q[i * n + j];
        }
    }
}

/* (I + Q)^-1 by Gauss and Jordan; x^T (I + Q) x = |x|^2, so no pivot is small. */
static void invert(int64_t n, const double *q, double *a, double *inverse)
{
    memcpy(a, q, (size_t)(n * n) * sizeof *a);
    memset(inverse, 0, (size_t)(n * n) * sizeof *inverse);
    for (int64_t i = 0; i < n; i++)
        a[i * n + i] = inverse[i * n + i] = 1;
    for (int64_t p = 0; p < n; p++) {
        double f = 1 / a[p * n + p];
        for (int64_t j = 0; j < n; j++) {
            a[p * n + j] *= f;
            inverse[p * n + j] *= f;
        }
        for (int64_t i = 0; i < n; i++) {
            double factor = i == p ? 0 : a[i * n + p];
            for (int64_t j = 0; j < n && factor != 0; j++) {
                a[i * n + j] -= factor * a[p * n + j];
                inverse[i * n + j] -= factor * inverse[p * n + j];
            }
        }
    }
}

/* The highest power, and the factor of power j. */
static int degree(int terms)
{
    return terms == 2 ? 1 : terms == 3 ? 3 : terms - 1;
}

static double factor(int terms, int j)
{
    return j == 0 || (j == degree(terms) && terms > 2) ? 1 : 2;
}

/* r = sum over i >= j of factor i Q^(i - j), by Horner. */
static void horner(int64_t n, int terms, int j, const double *q, double *r, double *t)
{
    memset(r, 0, (size_t)(n * n) * sizeof *r);
    for (int i = degree(terms); i >= j; i--) {
        multiply(n, r, false, q, false, false, t);
        memcpy(r, t, (size_t)(n * n) * sizeof *r);
        for (int64_t k = 0; k < n; k++)
            r[k * n + k] += factor(terms, i);
    }
}

/* R = 2 (I + Q)^-1 - I, or the series. */
static void orthogonal(int64_t n, int terms, const double *q, double *r, double *t)
{
    if (terms) {
        horner(n, terms, 0, q, r, t);
        return;
    }
    invert(n, q, t, r);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            r[i * n + j] = 2 * r[i * n + j] - (i == j);
}

SAW_REF_KERNEL(cayley_forward)
{
    const cayley_attr *a = c->attr;
    const saw_tensor *y = &c->out[0];
    int64_t n = a->block;
    double *q = c->scratch, *r = q + n * n, *t = r + n * n;
    for (int64_t b = 0; b < y->dims[0]; b++) {
        skew(&c->in[0], b, n, q);
        orthogonal(n, a->terms, q, r, t);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                put((real *)y->data + b * y->strides[0] + i * y->strides[1] + j * y->strides[2],
                    saw_adds(c, 0), r[i * n + j]);
    }
}

SAW_REF_KERNEL(cayley_backward)
{
    const cayley_attr *a = c->attr;
    const saw_tensor *dy = &c->in[2], *dv = &c->out[0];
    int64_t n = a->block;
    double *q = c->scratch, *r = q + n * n, *t = r + n * n, *d = t + n * n, *dq = d + n * n,
           *u = dq + n * n;
    for (int64_t b = 0; b < dy->dims[0] && dv->data; b++) {
        skew(&c->in[0], b, n, q);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                d[i * n + j] =
                    ((const real *)
                         dy->data)[b * dy->strides[0] + i * dy->strides[1] + j * dy->strides[2]];
        memset(dq, 0, (size_t)(n * n) * sizeof *dq);
        if (a->terms) {
            for (int j = 0; j < degree(a->terms); j++) { /* R_j = factor j + R_(j+1) Q */
                horner(n, a->terms, j + 1, q, r, t);
                multiply(n, r, true, d, false, true, dq);
                multiply(n, d, false, q, true, false, t);
                memcpy(d, t, (size_t)(n * n) * sizeof *d);
            }
        } else { /* dR = -2 (I + Q)^-1 dQ (I + Q)^-1 */
            invert(n, q, t, r);
            multiply(n, r, true, d, false, false, u);
            multiply(n, u, false, r, true, false, dq);
            for (int64_t i = 0; i < n * n; i++)
                dq[i] *= -2;
        }
        real *to = (real *)dv->data + b * dv->strides[0];
        int64_t at = 0;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = i + 1; j < n; j++, at++)
                put(to + at * dv->strides[1], saw_adds(c, 0), dq[i * n + j] - dq[j * n + i]);
    }
}

#else

static bool shape(saw_shape *s)
{
    const cayley_attr *a = s->attr;
    int64_t n = a->block;
    if (n < 2 || a->terms < 0 || a->terms == 1 || a->terms > MAX_TERMS)
        return saw_refuse(s, "blocks of %lld and %d terms are not possible", (long long)n,
                          a->terms);
    if (s->in[0].n != 2 || s->in[0].d[1] != n * (n - 1) / 2)
        return saw_refuse(s, "needs [blocks, %lld] for blocks of %lld",
                          (long long)(n * (n - 1) / 2), (long long)n);
    s->out[0] = SAW_DIMS(s->in[0].d[0], n, n);
    return true;
}

static uint32_t axes(const void *attr, int n_in, const saw_dims *in, int operand)
{
    (void)attr, (void)n_in, (void)in, (void)operand;
    return 0;
}

static size_t scratch(const saw_call *c)
{
    const cayley_attr *a = c->attr;
    return MATRICES * (size_t)(a->block * a->block) * sizeof(double);
}

const saw_op saw_op_cayley = {.name = "cayley",
                              .attr_bytes = sizeof(cayley_attr),
                              .shape = shape,
                              .axes = axes,
                              .scratch = scratch,
                              .differentiable = true,
                              .tolerance_db = 110};

saw_val saw_cayley(saw_graph *g, saw_val v, int64_t block, int terms)
{
    cayley_attr a = {block, terms};
    return SAW_RECORD(g, &saw_op_cayley, &a, v);
}

#endif
