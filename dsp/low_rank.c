/*
 * low_rank.c - subspace iteration with Rayleigh-Ritz: X <- orth(G X), H = X^T G X = Z L Z^T by
 * Jacobi, X <- X Z. G is the Gram matrix of the shorter side, in double; a few more vectors than
 * asked for (as in Halko et al., arXiv 0909.4061) let those asked for converge quickly.
 */
#include "dsp/low_rank.h"

#include <math.h>
#include <string.h>

typedef struct work {
    int64_t n, k;               /* order of G; vectors */
    double *g, *x, *gx, *h, *z; /* [n, n], [k, n], [k, n], [k, k], [k, k] */
} work;

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void axpy(double f, const double *x, double *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += f * x[i];
}

static double uniform(int64_t i)
{
    uint32_t words[4];
    saw_philox(0, 0, (uint64_t)i / 4, words);
    return (double)words[i % 4] * 0x1p-31 - 1;
}

/* Gram-Schmidt, twice for safety; a vector that vanishes becomes zeros. */
static void orthonormalise(work *w)
{
    for (int64_t i = 0; i < w->k; i++) {
        double *xi = w->x + i * w->n, before = sqrt(dot(xi, xi, w->n));
        for (int pass = 0; pass < 2; pass++)
            for (int64_t j = 0; j < i; j++)
                axpy(-dot(xi, w->x + j * w->n, w->n), w->x + j * w->n, xi, w->n);
        double norm = sqrt(dot(xi, xi, w->n)), f = norm > 1e-12 * before ? 1 / norm : 0;
        for (int64_t c = 0; c < w->n; c++)
            xi[c] *= f;
    }
}

static void multiply(work *w)
{
    memset(w->gx, 0, (size_t)(w->k * w->n) * sizeof *w->gx);
    for (int64_t i = 0; i < w->k; i++)
        for (int64_t c = 0; c < w->n; c++)
            axpy(w->x[i * w->n + c], w->g + c * w->n, w->gx + i * w->n, w->n);
}

/* Eigenvectors of the symmetric h into the rows of z, largest eigenvalue first; h becomes diagonal.
 */
static void jacobi(work *w)
{
    int64_t k = w->k;
    memset(w->z, 0, (size_t)(k * k) * sizeof *w->z);
    for (int64_t i = 0; i < k; i++)
        w->z[i * k + i] = 1;
    for (int sweep = 0; sweep < 60; sweep++) {
        double off = 0, all = 0;
        for (int64_t i = 0; i < k * k; i++) {
            all += w->h[i] * w->h[i];
            off += i / k == i % k ? 0 : w->h[i] * w->h[i];
        }
        if (off <= 1e-32 * all)
            break;
        for (int64_t p = 0; p < k; p++)
            for (int64_t q = p + 1; q < k; q++) {
                double hpq = w->h[p * k + q];
                if (hpq == 0)
                    continue;
                double theta = (w->h[q * k + q] - w->h[p * k + p]) / (2 * hpq);
                double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
                double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int64_t i = 0; i < k; i++) {
                    double a = w->h[i * k + p], b = w->h[i * k + q];
                    w->h[i * k + p] = c * a - s * b;
                    w->h[i * k + q] = s * a + c * b;
                }
                for (int64_t i = 0; i < k; i++) {
                    double a = w->h[p * k + i], b = w->h[q * k + i];
                    w->h[p * k + i] = c * a - s * b;
                    w->h[q * k + i] = s * a + c * b;
                    a = w->z[p * k + i], b = w->z[q * k + i];
                    w->z[p * k + i] = c * a - s * b;
                    w->z[q * k + i] = s * a + c * b;
                }
            }
    }
    for (int64_t i = 0; i < k; i++) { /* in order */
        int64_t most = i;
        for (int64_t j = i + 1; j < k; j++)
            if (w->h[j * k + j] > w->h[most * k + most])
                most = j;
        if (most == i)
            continue;
        double d = w->h[i * k + i];
        w->h[i * k + i] = w->h[most * k + most];
        w->h[most * k + most] = d;
        for (int64_t c = 0; c < k; c++) {
            d = w->z[i * k + c];
            w->z[i * k + c] = w->z[most * k + c];
            w->z[most * k + c] = d;
        }
    }
}

/* rows <- z rows, through one column at a time. */
static void rotate(const work *w, double *rows, double *column)
{
    for (int64_t c = 0; c < w->n; c++) {
        for (int64_t i = 0; i < w->k; i++)
            column[i] = rows[i * w->n + c];
        for (int64_t i = 0; i < w->k; i++)
            rows[i * w->n + c] = dot(w->z + i * w->k, column, w->k);
    }
}

static void iterate(work *w, int rank, int sweeps, double *column)
{
    for (int64_t i = 0; i < w->k * w->n; i++)
        w->x[i] = w->k == w->n ? i / w->n == i % w->n : uniform(i);
    orthonormalise(w);
    for (int sweep = 0;; sweep++) {
        multiply(w);
        for (int64_t i = 0; i < w->k; i++)
            for (int64_t j = 0; j < w->k; j++)
                w->h[i * w->k + j] = dot(w->x + i * w->n, w->gx + j * w->n, w->n);
        jacobi(w);
        rotate(w, w->x, column);
        rotate(w, w->gx, column);
        double worst = 0;
        for (int64_t i = 0; i < rank && i < w->k; i++) {
            double sum = 0;
            for (int64_t c = 0; c < w->n; c++) {
                double d = w->gx[i * w->n + c] - w->h[i * w->k + i] * w->x[i * w->n + c];
                sum += d * d;
            }
            worst = sum > worst ? sum : worst;
        }
        if (sweep >= sweeps || sqrt(worst) <= 1e-13 * w->h[0])
            return;
        memcpy(w->x, w->gx, (size_t)(w->k * w->n) * sizeof *w->x);
        orthonormalise(w);
    }
}

saw_status saw_low_rank(saw_context *ctx, const float *w, int64_t rows, int64_t columns, int rank,
                        int sweeps, double *s, double *u, double *v)
{
    bool tall = rows >= columns;
    int64_t n = tall ? columns : rows, m = tall ? rows : columns;
    int64_t k = rank + (rank > 16 ? rank : 16) < n ? rank + (rank > 16 ? rank : 16) : n;
    size_t most = (size_t)(n > k ? n : k);
    work a = {.n = n, .k = k};
    double *memory = saw_calloc(ctx, most, (most + 2 * (size_t)k + 2) * sizeof *memory);
    double *small = saw_calloc(ctx, 2 * (size_t)k + 1, (size_t)k * sizeof *small);
    double *row = saw_calloc(ctx, (size_t)n + (size_t)k, sizeof *row);
    if (memory && small && row) {
        a.g = memory;
        a.x = a.g + n * n;
        a.gx = a.x + k * n;
        a.h = small;
        a.z = a.h + k * k;
        for (int64_t r = 0; r < m; r++) {
            for (int64_t i = 0; i < n; i++)
                row[i] = (double)w[tall ? r * columns + i : i * columns + r];
            for (int64_t i = 0; i < n; i++)
                axpy(row[i], row, a.g + i * n, n);
        }
        iterate(&a, rank, sweeps, row);
        double *near = tall ? v : u, *far = tall ? u : v; /* the shorter vectors, the longer ones */
        for (int64_t i = 0; i < rank; i++) {
            double lambda = i < k ? a.h[i * k + i] : 0;
            bool there = lambda > 1e-24 * a.h[0] && lambda > 0;
            s[i] = there ? sqrt(lambda) : 0;
            for (int64_t c = 0; c < n; c++)
                near[i * n + c] = there ? a.x[i * n + c] : 0;
            for (int64_t r = 0; r < m; r++) {
                double sum = 0;
                for (int64_t c = 0; c < n && there; c++)
                    sum += near[i * n + c] * (double)w[tall ? r * columns + c : c * columns + r];
                far[i * m + r] = there ? sum / s[i] : 0;
            }
        }
    }
    saw_status status = memory && small && row ? SAW_OK : SAW_ERR_MEMORY;
    saw_free(ctx, row);
    saw_free(ctx, small);
    saw_free(ctx, memory);
    return status;
}
