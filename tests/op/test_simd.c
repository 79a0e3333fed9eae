/*
 * Every primitive of every instruction set that runs here, and of 16 lanes emulated, against sums
 * in double: values, odd sizes, guard bytes around outputs, the same bits for any split, exact
 * int8, NaN, infinities, denormals.
 */
#include "support/test.h"
#include "kernels/simd/simd.h"

#include <math.h>
#include <stdlib.h>

extern const saw_simd saw_simd_emulated; /* 16 lanes, with dot products in C: the code of AVX-512 */

static const saw_simd *set_at(int i)
{
    const saw_simd *set = saw_simd_at(i);
    return set ? set : i > 0 && saw_simd_at(i - 1) ? &saw_simd_emulated : NULL;
}

static uint64_t state = 1;

/** Uniform in [-1, 1). */
static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) / 8388608.0f - 1.0f;
}

static void *take(size_t bytes)
{
    void *block = aligned_alloc(64, (bytes + 127) / 64 * 64);
    assert_non_null(block);
    return block;
}

static float *floats(int64_t n, float size)
{
    float *x = take((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        x[i] = size * uniform();
    return x;
}

/* ---- outputs between guards ------------------------------------------------------------------ */

enum { GUARD = 40 };
static const float guard = 1234.5f;

typedef struct output {
    float *whole, *at;
    int64_t rows, columns, stride;
} output;

/** rows x columns at a stride 3 larger, everything else filled with the guard. */
static output output_of(int64_t rows, int64_t columns)
{
    output o = {.rows = rows, .columns = columns, .stride = columns + 3};
    int64_t n = rows * o.stride + 2 * GUARD;
    o.whole = take((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        o.whole[i] = guard;
    o.at = o.whole + GUARD + 1;
    return o;
}

static void output_check_guards(const output *o)
{
    for (int64_t i = 0; i < o->rows * o->stride + 2 * GUARD; i++) {
        int64_t at = i - GUARD - 1;
        if (at < 0 || at >= o->rows * o->stride || at % o->stride >= o->columns)
            assert_true(o->whole[i] == guard);
    }
}

static void output_check(const output *o, const double *want, double tolerance, const char *what)
{
    double error = 0.0, size = 0.0;
    output_check_guards(o);
    for (int64_t i = 0; i < o->rows; i++)
        for (int64_t j = 0; j < o->columns; j++) {
            double w = want[i * o->columns + j], d = o->at[i * o->stride + j] - w;
            error += d * d;
            size += w * w;
        }
    double relative = size > 0.0 ? sqrt(error / size) : sqrt(error);
    if (!(relative <= tolerance))
        print_error("%s: relative error %.3g, allowed %.3g\n", what, relative, tolerance);
    assert_true(relative <= tolerance);
}

/* ---- products -------------------------------------------------------------------------------- */

static float bf16(float x)
{
    return saw_bf16_to_f32(saw_f32_to_bf16(x));
}

static double act_of(saw_act act, double x)
{
    switch (act) {
    case SAW_ACT_RELU:
        return x > 0.0 ? x : 0.0;
    case SAW_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case SAW_ACT_TANH:
        return tanh(x);
    case SAW_ACT_SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case SAW_ACT_SILU:
        return x / (1.0 + exp(-x));
    default:
        return x;
    }
}

/** int8 as the contract defines it, to the bit. */
static void reference_s8(const saw_gemm *p, const float *w, float *c)
{
    int8_t *qa = take((size_t)p->k), *qw = take((size_t)p->k);
    for (int64_t i = 0; i < p->m; i++)
        for (int64_t j = 0; j < p->n; j++) {
            float scale[2];
            for (int side = 0; side < 2; side++) {
                const float *x = side ? w + j * p->k : p->a + i * p->a_stride;
                float largest = 0.0f;
                for (int64_t k = 0; k < p->k; k++)
                    largest = fmaxf(largest, fabsf(x[k]));
                float inverse = largest < 1e-36f ? 0.0f : 127.0f / largest;
                for (int64_t k = 0; k < p->k; k++)
                    (side ? qw : qa)[k] = (int8_t)nearbyintf(x[k] * inverse);
                scale[side] = largest / 127.0f;
            }
            float total = p->accumulate ? c[i * p->n + j] : p->bias ? p->bias[j] : 0.0f;
            for (int64_t k0 = 0; k0 < p->k; k0 += SAW_S8_DEPTH) {
                int32_t sum = 0;
                for (int64_t k = k0; k < p->k && k < k0 + SAW_S8_DEPTH; k++)
                    sum += qa[k] * qw[k];
                float piece = (float)sum * (scale[1] * scale[0]);
                total = k0 || p->accumulate || p->bias ? total + piece : piece;
            }
            c[i * p->n + j] = p->accumulate && p->bias ? total + p->bias[j] : total;
        }
    free(qa);
    free(qw);
}

static void check_gemm(const saw_simd *s, saw_dtype dtype, int64_t m, int64_t n, int64_t k,
                       bool transposed, bool bias, bool accumulate, saw_act act)
{
    int64_t a_stride = k + 5;
    float *a = floats(m * a_stride, 1.0f), *w = floats(n * k, 1.0f), *b = floats(n, 1.0f),
          *wt = take((size_t)(n * k) * 4);
    output o = output_of(m, n), split = output_of(m, n);
    double *want = take((size_t)(m * n) * 8);
    float *exact = take((size_t)(m * n) * 4);
    void *packed = take(s->pack_bytes(dtype, n, k)), *scratch = take(SAW_GEMM_SCRATCH_BYTES);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            wt[i * n + j] = w[j * k + i];
    /* packed in two slices */
    int64_t cut = n / 2 / s->panel * s->panel;
    for (int part = 0; part < 2; part++) {
        int64_t from = part ? cut : 0, to = part ? n : cut;
        s->pack(dtype, transposed ? wt + from : w + from * k, transposed ? 1 : k,
                transposed ? n : 1, from, to, k, packed);
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            if (accumulate)
                o.at[i * o.stride + j] = split.at[i * o.stride + j] = exact[i * n + j] = uniform();
            for (int64_t l = 0; l < k; l++)
                sum += dtype == SAW_BF16 ? (double)bf16(a[i * a_stride + l]) * bf16(w[j * k + l])
                                         : (double)a[i * a_stride + l] * w[j * k + l];
            want[i * n + j] = act_of(act, sum + (bias ? b[j] : 0.0) +
                                              (accumulate ? o.at[i * o.stride + j] : 0.0));
        }
    const float **rows = take((size_t)m * sizeof *rows);
    for (int64_t i = 0; i < m; i++)
        rows[i] = a + i * a_stride;
    saw_gemm p = {.dtype = dtype,
                  .m = m,
                  .n = n,
                  .k = k,
                  .a = a,
                  .a_stride = a_stride,
                  .b = packed,
                  .c = o.at,
                  .c_stride = o.stride,
                  .bias = bias ? b : NULL,
                  .accumulate = accumulate,
                  .act = act,
                  .scratch = scratch};
    s->gemm(&p);
    char what[100];
    snprintf(what, sizeof what, "%s gemm %s %dx%dx%d act %d", s->name, saw_dtype_name(dtype),
             (int)m, (int)n, (int)k, act);
    /* float32 sums of k terms drift as sqrt(k) half units in the last place; int8 has 127 steps on
     * each side */
    output_check(&o, want,
                 dtype == SAW_I8 ? 0.02 : 1e-7 * (3.0 + sqrt((double)(k < 400 ? k : 400))), what);
    if (dtype == SAW_I8 && act == SAW_ACT_NONE) {
        reference_s8(&p, w, exact);
        for (int64_t i = 0; i < m; i++)
            assert_memory_equal(o.at + i * o.stride, exact + i * n, (size_t)n * 4);
    }
    /* any cut of the rows, by pointers, and any cut of the columns at a panel */
    int64_t row_cut = (int64_t)(state >> 33) % (m + 1),
            column_cut = (int64_t)(state >> 40) % (n / s->panel + 1) * s->panel;
    for (int part = 0; part < 4; part++) {
        int64_t i0 = part & 1 ? row_cut : 0, j0 = part & 2 ? column_cut : 0;
        saw_gemm q = p;
        q.m = part & 1 ? m - row_cut : row_cut;
        q.n = part & 2 ? n - column_cut : column_cut;
        q.a_rows = rows + i0;
        q.b = (char *)packed + s->pack_offset(dtype, j0, k);
        q.c = split.at + i0 * split.stride + j0;
        q.bias = bias ? b + j0 : NULL;
        s->gemm(&q);
    }
    assert_memory_equal(o.whole, split.whole, (size_t)(m * o.stride + 2 * GUARD) * 4);
    void *blocks[] = {a, w, b, wt, o.whole, split.whole, want, exact, packed, scratch, rows};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

static void products(void **unused)
{
    (void)unused;
    static const saw_dtype types[] = {SAW_F32, SAW_BF16, SAW_I8};
    static const int64_t sizes[][2] = {{1, 1},    {16, 4},   {17, 3},   {33, 65},
                                       {70, 131}, {64, 384}, {31, 385}, {9, 1600}};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (int t = 0; t < 3; t++) {
            for (int64_t m = 1; m <= 26; m++)
                for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                    check_gemm(s, types[t], m, sizes[i][0], sizes[i][1], (m + (int64_t)i) % 3 == 0,
                               m % 2, m % 4 > 1, (saw_act)(i == 3 ? m % 6 : 0));
            check_gemm(s, types[t], 250, 70, 50, false, true, false, SAW_ACT_GELU);
        }
}

static void products_of_strange_numbers(void **unused)
{
    (void)unused;
    static const saw_dtype types[] = {SAW_F32, SAW_BF16, SAW_I8};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (int t = 0; t < 3; t++) {
            enum { M = 7, N = 40, K = 20 };
            float *a = floats(M * K, 1.0f), *w = floats(N * K, 1.0f), c[M * N];
            void *packed = take(s->pack_bytes(types[t], N, K)),
                 *scratch = take(SAW_GEMM_SCRATCH_BYTES);
            memset(a, 0, K * 4);
            a[1 * K + 3] = NAN;
            a[2 * K + 3] = INFINITY;
            for (int i = 0; i < K; i++)
                a[3 * K + i] = 1e-40f;
            memset(w, 0, K * 4);
            s->pack(types[t], w, K, 1, 0, N, K, packed);
            saw_gemm p = {.dtype = types[t],
                          .m = M,
                          .n = N,
                          .k = K,
                          .a = a,
                          .a_stride = K,
                          .b = packed,
                          .c = c,
                          .c_stride = N,
                          .scratch = scratch};
            s->gemm(&p);
            for (int j = 0; j < N; j++) {
                assert_true(c[j] == 0.0f);
                assert_true(isnan(c[N + j]));
                assert_true(!isfinite(c[2 * N + j]) || (j == 0 && types[t] == SAW_I8));
                assert_true(fabsf(c[3 * N + j]) < 1e-38f);
                for (int i = 4; i < M; i++)
                    assert_true(isfinite(c[i * N + j]) && (c[i * N + j] != 0.0f) == (j != 0));
            }
            free(a);
            free(w);
            free(packed);
            free(scratch);
        }
}

/* ---- attention ------------------------------------------------------------------------------- */

/** The transpose of a packed matrix, in two slices: its elements to the bit. */
static void check_pack_transposed(const saw_simd *s, int64_t n, int64_t k)
{
    float *w = floats(n * k, 1.0f), *packed = take(s->pack_bytes(SAW_F32, n, k));
    s->pack(SAW_F32, w, k, 1, 0, n, k, packed);
    int64_t cut = k / 2 / s->panel * s->panel;
    for (int part = 0; part < 2; part++) {
        int64_t from = part ? cut : 0, to = part ? k : cut;
        size_t bytes = s->pack_bytes(SAW_F32, to - from, n);
        float *out = take(bytes + 4);
        out[bytes / 4] = guard;
        s->pack_transposed(packed, n, k, from, to, out);
        assert_true(out[bytes / 4] == guard);
        for (int64_t j = 0; j < to - from; j++) {
            const float *panel = out + s->pack_offset(SAW_F32, j / s->panel * s->panel, n) / 4;
            for (int64_t i = 0; i < n; i++)
                assert_true(panel[i * s->panel + j % s->panel] == w[i * k + from + j]);
        }
        free(out);
    }
    free(w);
    free(packed);
}

/** Set and added to; in four pieces the same bits. */
static void check_outer(const saw_simd *s, int64_t rows, int64_t m, int64_t n)
{
    float *a = floats(rows * (m + 1), 1.0f), *b = floats(rows * (n + 2), 1.0f);
    const float *a_rows[SAW_OUTER_ROWS], *b_rows[SAW_OUTER_ROWS];
    double *want = take((size_t)(m * n) * 8);
    size_t bytes = s->outer_bytes(m, n);
    unsigned char *scratch = take(bytes + 1);
    memset(scratch, 0xff, bytes + 1); /* NaN: nothing is read before it is written */
    output o = output_of(m, n), cut = output_of(m, n);
    saw_outer p = {.rows = rows,
                   .m = m,
                   .n = n,
                   .a = a_rows,
                   .b = b_rows,
                   .c = o.at,
                   .c_stride = o.stride,
                   .scratch = scratch};
    for (int add = 0; add < 2; add++) {
        for (int64_t r = 0; r < rows; r++) {
            a_rows[r] = a + (rows - 1 - r) * (m + 1);
            b_rows[r] = b + r * (n + 2);
        }
        for (int64_t i = 0; i < m * n; i++) {
            want[i] = add ? o.at[i / n * o.stride + i % n] : 0.0;
            for (int64_t r = 0; r < rows; r++)
                want[i] += (double)a_rows[r][i / n] * b_rows[r][i % n];
        }
        p.accumulate = add;
        s->outer(&p);
        output_check(&o, want, 1e-6, s->name);
        for (int piece = 0; piece < 4; piece++) {
            int64_t i0 = piece & 1 ? m / 2 : 0, i1 = piece & 1 ? m : m / 2;
            int64_t j0 = piece & 2 ? n / 3 : 0, j1 = piece & 2 ? n : n / 3;
            const float *a_part[SAW_OUTER_ROWS], *b_part[SAW_OUTER_ROWS];
            for (int64_t r = 0; r < rows; r++) {
                a_part[r] = a_rows[r] + i0;
                b_part[r] = b_rows[r] + j0;
            }
            saw_outer q = p;
            q.m = i1 - i0;
            q.n = j1 - j0;
            q.a = a_part;
            q.b = b_part;
            q.c = cut.at + i0 * cut.stride + j0;
            s->outer(&q);
        }
        output_check_guards(&cut);
        for (int64_t i = 0; i < m; i++)
            assert_memory_equal(o.at + i * o.stride, cut.at + i * cut.stride, (size_t)n * 4);
    }
    assert_int_equal(scratch[bytes], 0xff);
    float *blocks[] = {a, b, o.whole, cut.whole};
    for (int i = 0; i < 4; i++)
        free(blocks[i]);
    free(want);
    free(scratch);
}

static void products_of_gradients(void **unused)
{
    (void)unused;
    static const int64_t sizes[][3] = {{1, 1, 1},    {3, 8, 384},  {192, 12, 32}, {191, 13, 33},
                                       {64, 97, 70}, {100, 7, 15}, {17, 200, 9}};
    for (int i = 0; set_at(i); i++)
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            check_outer(set_at(i), sizes[j][0], sizes[j][1], sizes[j][2]);
            check_pack_transposed(set_at(i), sizes[j][1], sizes[j][2]);
        }
}

static void check_attention(const saw_simd *s, saw_dtype dtype, int64_t n_q, int64_t n_k, int64_t d,
                            int64_t d_v, bool masked)
{
    int64_t stride = d + 7, v_stride = d_v + 2;
    float *q = floats(n_q * stride, 3.0f), *k = floats(n_k * stride, 3.0f),
          *v = floats(n_k * v_stride, 1.0f);
    float *mask = floats(n_q * n_k, 2.0f), scale = 1.0f / sqrtf((float)d);
    for (int64_t i = 0; i < n_q * n_k; i++)
        if (i % 5 == 0 || i / n_k == 3)
            mask[i] = -INFINITY;
    double *want = take((size_t)(n_q * d_v) * 8), *weight = take((size_t)n_k * 8);
    for (int64_t i = 0; i < n_q; i++) {
        double top = -INFINITY, sum = 0.0;
        for (int64_t j = 0; j < n_k; j++) {
            double x = 0.0;
            for (int64_t l = 0; l < d; l++)
                x += (double)q[i * stride + l] * k[j * stride + l];
            weight[j] = x * scale + (masked ? mask[i * n_k + j] : 0.0);
            top = weight[j] > top ? weight[j] : top;
        }
        for (int64_t j = 0; j < n_k; j++)
            sum += weight[j] = top == -INFINITY ? 0.0 : exp(weight[j] - top);
        for (int64_t l = 0; l < d_v; l++) {
            double x = 0.0;
            for (int64_t j = 0; j < n_k; j++)
                x += weight[j] * v[j * v_stride + l];
            want[i * d_v + l] = sum > 0.0 ? x / sum : 0.0;
        }
    }
    output o = output_of(n_q, d_v), split = output_of(n_q, d_v);
    void *packed = take(s->attention_pack_bytes(dtype, n_k, d, d_v)),
         *scratch = take(s->attention_scratch_bytes(d));
    saw_attend p = {.dtype = dtype,
                    .n_q = n_q,
                    .n_k = n_k,
                    .d = d,
                    .d_v = d_v,
                    .q = q,
                    .k = k,
                    .v = v,
                    .o = o.at,
                    .q_stride = stride,
                    .k_stride = stride,
                    .v_stride = v_stride,
                    .o_stride = o.stride,
                    .scale = scale,
                    .mask = masked ? mask : NULL,
                    .mask_stride = n_k,
                    .packed = packed,
                    .scratch = scratch};
    s->attention_pack(&p);
    s->attention(&p);
    char what[100];
    snprintf(what, sizeof what, "%s attention %s %dx%dx%d/%d", s->name, saw_dtype_name(dtype),
             (int)n_q, (int)n_k, (int)d, (int)d_v);
    /* scores reach about 10, where a bfloat16 input errs by 1/256 relative, twice, averaged over d
     */
    output_check(&o, want, dtype == SAW_BF16 ? 0.03 : 2e-6, what);
    int64_t cut = (int64_t)(state >> 33) % (n_q + 1);
    for (int part = 0; part < 2; part++) {
        int64_t i0 = part ? cut : 0;
        p.n_q = part ? n_q - cut : cut;
        p.q = q + i0 * stride;
        p.o = split.at + i0 * split.stride;
        p.mask = masked ? mask + i0 * n_k : NULL;
        s->attention(&p);
    }
    assert_memory_equal(o.whole, split.whole, (size_t)(n_q * o.stride + 2 * GUARD) * 4);
    if (d == d_v) { /* in place */
        p.n_q = n_q;
        p.q = p.o = q;
        p.o_stride = stride;
        p.mask = masked ? mask : NULL;
        s->attention(&p);
        for (int64_t i = 0; i < n_q; i++)
            assert_memory_equal(q + i * stride, o.at + i * o.stride, (size_t)d * 4);
    }
    void *blocks[] = {q, k, v, mask, want, weight, o.whole, split.whole, packed, scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

static void attention(void **unused)
{
    (void)unused;
    static const int64_t sizes[][4] = {
        {1, 1, 8, 8},     {3, 2, 16, 16},     {62, 62, 64, 64},  {5, 31, 32, 48}, {49, 33, 48, 48},
        {7, 385, 64, 64}, {101, 401, 64, 64}, {13, 801, 64, 64}, {9, 40, 128, 8}, {20, 70, 400, 33},
        {4, 1201, 5, 3},  {6, 16, 800, 1},    {2, 2000, 8, 8}};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int masked = 0; masked < 2; masked++) {
                check_attention(s, SAW_F32, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3],
                                masked);
                check_attention(s, SAW_BF16, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3],
                                masked);
            }
}

/** Scores of +-3000 and one NaN: no overflow, and the NaN stays in its row. */
static void attention_of_strange_numbers(void **unused)
{
    (void)unused;
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++) {
        enum { N = 50, D = 16 };
        float *q = floats(N * D, 300.0f), *k = floats(N * D, 10.0f), *v = floats(N * D, 1.0f),
              o[N * D];
        void *packed = take(s->attention_pack_bytes(SAW_F32, N, D, D)),
             *scratch = take(s->attention_scratch_bytes(D));
        q[7 * D] = NAN;
        saw_attend p = {.dtype = SAW_F32,
                        .n_q = N,
                        .n_k = N,
                        .d = D,
                        .d_v = D,
                        .q = q,
                        .k = k,
                        .v = v,
                        .o = o,
                        .q_stride = D,
                        .k_stride = D,
                        .v_stride = D,
                        .o_stride = D,
                        .scale = 1.0f,
                        .packed = packed,
                        .scratch = scratch};
        s->attention_pack(&p);
        s->attention(&p);
        for (int i = 0; i < N * D; i++)
            assert_true(i / D == 7 ? isnan(o[i]) : fabsf(o[i]) <= 1.0f);
        void *blocks[] = {q, k, v, packed, scratch};
        for (int i = 0; i < 5; i++)
            free(blocks[i]);
    }
}

/* Sums in double: gradients of q, k, v. */
static void exact_attention_gradient(const saw_attend_gradient *p, double *dq, double *dk,
                                     double *dv)
{
    double *w = take((size_t)p->n_k * 8), *t = take((size_t)p->n_k * 8);
    memset(dq, 0, (size_t)(p->n_q * p->d) * 8);
    memset(dk, 0, (size_t)(p->n_k * p->d) * 8);
    memset(dv, 0, (size_t)(p->n_k * p->d_v) * 8);
    for (int64_t i = 0; i < p->n_q; i++) {
        const float *q = p->q + i * p->q_stride, *grad = p->grad + i * p->grad_stride;
        double top = -INFINITY, sum = 0.0, mean = 0.0;
        for (int64_t j = 0; j < p->n_k; j++) {
            w[j] = t[j] = 0.0;
            for (int64_t l = 0; l < p->d; l++)
                w[j] += (double)p->scale * q[l] * p->k[j * p->k_stride + l];
            for (int64_t l = 0; l < p->d_v; l++)
                t[j] += (double)grad[l] * p->v[j * p->v_stride + l];
            top = w[j] > top ? w[j] : top;
        }
        for (int64_t j = 0; j < p->n_k; j++)
            sum += w[j] = exp(w[j] - top);
        for (int64_t j = 0; j < p->n_k; j++)
            mean += w[j] / sum * t[j];
        for (int64_t j = 0; j < p->n_k; j++) {
            double slope = (double)p->scale * w[j] / sum * (t[j] - mean);
            for (int64_t l = 0; l < p->d; l++) {
                dq[i * p->d + l] += slope * p->k[j * p->k_stride + l];
                dk[j * p->d + l] += slope * q[l];
            }
            for (int64_t l = 0; l < p->d_v; l++)
                dv[j * p->d_v + l] += w[j] / sum * grad[l];
        }
    }
    free(w);
    free(t);
}

/** Together, each alone, added to. */
static void check_attention_gradient(const saw_simd *s, int64_t n_q, int64_t n_k, int64_t d,
                                     int64_t d_v)
{
    int64_t stride = d + 7, v_stride = d_v + 2;
    float *x[] = {floats(n_q * stride, 3.0f), floats(n_k * stride, 3.0f),
                  floats(n_k * v_stride, 1.0f), floats(n_q * v_stride, 1.0f)};
    int64_t rows[] = {n_q, n_k, n_k}, columns[] = {d, d, d_v};
    size_t bytes = s->attention_gradient_bytes(n_k, d, d_v);
    unsigned char *scratch = take(bytes + 64);
    memset(scratch, 0xff, bytes + 64); /* NaN: nothing is read before it is written */
    saw_attend_gradient p = {.n_q = n_q,
                             .n_k = n_k,
                             .d = d,
                             .d_v = d_v,
                             .q = x[0],
                             .k = x[1],
                             .v = x[2],
                             .grad = x[3],
                             .q_stride = stride,
                             .k_stride = stride,
                             .v_stride = v_stride,
                             .grad_stride = v_stride,
                             .scale = 1.0f / sqrtf((float)d),
                             .scratch = scratch};
    double *want[3];
    output all[3], y[3];
    for (int i = 0; i < 3; i++)
        want[i] = take((size_t)(rows[i] * columns[i]) * 8);
    exact_attention_gradient(&p, want[0], want[1], want[2]);
    for (int run = 0; run < 5; run++) { /* all; dq, dk, dv alone; added */
        for (int i = 0; i < 3; i++)
            y[i] = output_of(rows[i], columns[i]);
        for (int i = 0; run == 4 && i < 3; i++)
            for (int64_t j = 0; j < rows[i] * columns[i]; j++)
                y[i].at[j / columns[i] * y[i].stride + j % columns[i]] = 0.5f;
        p.dq = run == 2 || run == 3 ? NULL : y[0].at;
        p.dk = run == 1 || run == 3 ? NULL : y[1].at;
        p.dv = run == 1 || run == 2 ? NULL : y[2].at;
        p.dq_stride = y[0].stride;
        p.dk_stride = y[1].stride;
        p.dv_stride = y[2].stride;
        p.add_dq = p.add_dk = p.add_dv = run == 4;
        s->attention_gradient(&p);
        for (int i = 0; i < 3; i++) {
            size_t whole = (size_t)(rows[i] * y[i].stride + 2 * GUARD) * 4;
            char what[100];
            snprintf(what, sizeof what, "%s attention gradient %d of %dx%dx%d/%d, run %d", s->name,
                     i, (int)n_q, (int)n_k, (int)d, (int)d_v, run);
            if (run == 0) {
                output_check(&y[i], want[i], n_k > 1 || i == 2 ? 4e-6 : 1, what);
                all[i] = y[i];
            } else if (run == i + 1) {
                assert_memory_equal(y[i].whole, all[i].whole, whole);
            } else if (run == 4) {
                for (int64_t j = 0; j < rows[i] * columns[i]; j++)
                    want[i][j] += 0.5;
                output_check(&y[i], want[i], 4e-6, what);
            }
            if (run)
                free(y[i].whole);
        }
        for (size_t i = bytes; i < bytes + 64; i++)
            assert_true(scratch[i] == 0xff);
    }
    for (int i = 0; i < 4; i++)
        free(x[i]);
    for (int i = 0; i < 3; i++) {
        free(want[i]);
        free(all[i].whole);
    }
    free(scratch);
}

static void attention_gradient(void **unused)
{
    (void)unused;
    static const int64_t sizes[][4] = {{1, 1, 1, 1},     {5, 7, 3, 2},       {62, 62, 64, 64},
                                       {49, 385, 16, 8}, {100, 801, 24, 40}, {3, 20, 390, 387}};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            check_attention_gradient(s, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3]);
}

/* ---- functions ------------------------------------------------------------------------------- */

static double d_relu(double x)
{
    return act_of(SAW_ACT_RELU, x);
}

static double d_gelu(double x)
{
    return act_of(SAW_ACT_GELU, x);
}

static double d_elu(double x)
{
    return x > 0.0 ? x : expm1(x);
}

static double d_sigmoid(double x)
{
    return act_of(SAW_ACT_SIGMOID, x);
}

static double d_silu(double x)
{
    return act_of(SAW_ACT_SILU, x);
}

static double d_softplus(double x)
{
    return (x > 0.0 ? x : 0.0) + log1p(exp(-fabs(x)));
}

static void functions(void **unused)
{
    (void)unused;
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++) {
        struct {
            const char *name;
            saw_map *fast;
            double (*exact)(double);
            double relative, absolute, from, to, at_minus_infinity, at_infinity;
        } maps[] = {{"exp", s->exp, exp, 2e-7, 1.2e-38, -100, 88.72, 0, INFINITY},
                    {"gelu", s->gelu, d_gelu, 3e-7, 3e-7, -12, 12, NAN, INFINITY},
                    {"tanh", s->tanh, tanh, 4e-7, 0, -12, 12, -1, 1},
                    {"sigmoid", s->sigmoid, d_sigmoid, 4e-7, 1.2e-38, -95, 95, 0, 1},
                    {"silu", s->silu, d_silu, 4e-7, 1e-36, -90, 90, NAN, INFINITY},
                    {"softplus", s->softplus, d_softplus, 4e-7, 1.2e-38, -90, 90, 0, INFINITY},
                    {"relu", s->relu, d_relu, 0, 0, -5, 5, 0, INFINITY},
                    {"elu", s->elu, d_elu, 4e-7, 0, -30, 5, -1, INFINITY}};
        enum { N = 200003 };
        for (size_t f = 0; f < sizeof maps / sizeof *maps; f++) {
            output x = output_of(1, N), y = output_of(1, N);
            for (int i = 0; i < N; i++)
                x.at[i] = i % 2 ? (float)(maps[f].from + (maps[f].to - maps[f].from) * i / N)
                                : uniform() * expf(10.0f * uniform() - 10.0f);
            maps[f].fast(x.at, y.at, N);
            output_check_guards(&y);
            double worst = 0.0;
            for (int i = 0; i < N; i++) {
                double want = maps[f].exact(x.at[i]),
                       error = fabs(y.at[i] - want) - maps[f].absolute;
                double relative = error > 0.0 ? error / fabs(want) : 0.0;
                worst = relative > worst ? relative : worst;
            }
            if (!(worst <= maps[f].relative))
                print_error("%s %s: relative error %.3g\n", s->name, maps[f].name, worst);
            assert_true(worst <= maps[f].relative);
            for (int n = 0; n < 70;
                 n++) { /* the same bits wherever an element lies, in place too */
                float z[70];
                memcpy(z, x.at + n, (size_t)n * 4);
                maps[f].fast(z, z, n);
                assert_memory_equal(z, y.at + n, (size_t)n * 4);
            }
            float strange[5] = {NAN, -INFINITY, INFINITY, 1e-42f, -0.0f}, z[5];
            maps[f].fast(strange, z, 5);
            assert_true(isnan(z[0]));
            assert_true(isnan(maps[f].at_minus_infinity) ||
                        z[1] == (float)maps[f].at_minus_infinity);
            assert_true(z[2] == (float)maps[f].at_infinity);
            assert_true(fabs(z[3] - maps[f].exact(1e-42)) <= 1e-40 + 1e-7 * fabs(z[3]));
            assert_true(z[4] == (float)maps[f].exact(-0.0));
            free(x.whole);
            free(y.whole);
        }
    }
}

static double slope_gelu(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0));
}

static double slope_sigmoid(double x)
{
    return d_sigmoid(x) * d_sigmoid(-x);
}

static double slope_tanh(double x)
{
    return 4.0 * slope_sigmoid(2.0 * x);
}

static double slope_silu(double x)
{
    return d_sigmoid(x) * (1.0 + x * d_sigmoid(-x));
}

static double slope_relu(double x)
{
    return x > 0.0;
}

static double slope_elu(double x)
{
    return x > 0.0 ? 1.0 : exp(x);
}

static void slopes(void **unused)
{
    (void)unused;
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++) {
        struct {
            const char *name;
            saw_map_gradient *fast;
            double (*exact)(double);
            double relative, absolute, from, to, at_minus_infinity, at_infinity;
        } maps[] = {{"exp", s->exp_gradient, exp, 3e-7, 1.2e-38, -100, 88, 0, INFINITY},
                    {"gelu", s->gelu_gradient, slope_gelu, 3e-7, 5e-7, -12, 12, 0, 1},
                    {"tanh", s->tanh_gradient, slope_tanh, 8e-7, 1e-36, -40, 40, 0, 0},
                    {"sigmoid", s->sigmoid_gradient, slope_sigmoid, 8e-7, 1e-36, -80, 80, 0, 0},
                    {"silu", s->silu_gradient, slope_silu, 8e-7, 3e-7, -80, 80, NAN, NAN},
                    {"softplus", s->softplus_gradient, d_sigmoid, 5e-7, 1.2e-38, -85, 85, 0, 1},
                    {"relu", s->relu_gradient, slope_relu, 0, 0, -5, 5, 0, 1},
                    {"elu", s->elu_gradient, slope_elu, 3e-7, 1.2e-38, -85, 85, 0, 1}};
        enum { N = 20003 };
        for (size_t f = 0; f < sizeof maps / sizeof *maps; f++) {
            output y = output_of(1, N);
            float *x = take(N * 4), *dy = floats(N, 2.0f), ones[4] = {1, 1, 1, 1};
            double worst = 0.0;
            for (int i = 0; i < N; i++) {
                x[i] = i % 2 ? (float)(maps[f].from + (maps[f].to - maps[f].from) * i / N)
                             : uniform() * expf(10.0f * uniform() - 10.0f);
                dy[i] = i % 3 ? dy[i] : 1.0f;
            }
            maps[f].fast(x, dy, y.at, false, N);
            output_check_guards(&y);
            for (int i = 0; i < N; i++) {
                double slope = maps[f].exact(x[i]), size = fabs(dy[i]),
                       error = fabs(y.at[i] - slope * dy[i]) - maps[f].absolute * size;
                double relative = error > 0.0 ? error / fabs(slope * dy[i]) : 0.0;
                worst = relative > worst ? relative : worst;
            }
            if (!(worst <= maps[f].relative))
                print_error("%s slope of %s: relative error %.3g\n", s->name, maps[f].name, worst);
            assert_true(worst <= maps[f].relative);
            for (int n = 0; n < 70; n++) { /* the same bits wherever an element lies, and added */
                float z[70];
                memcpy(z, dy + n, (size_t)n * 4);
                maps[f].fast(x + n, z, z, false, n);
                assert_memory_equal(z, y.at + n, (size_t)n * 4);
                memcpy(z, x, (size_t)n * 4);
                maps[f].fast(x + n, dy + n, z, true, n);
                for (int i = 0; i < n; i++)
                    assert_true(z[i] == x[i] + y.at[n + i]);
            }
            float strange[4] = {-INFINITY, INFINITY, -0.0f, NAN}, z[4];
            maps[f].fast(strange, ones, z, false, 4);
            assert_true(isnan(maps[f].at_minus_infinity) ||
                        fabs(z[0] - maps[f].at_minus_infinity) < 1e-20);
            assert_true(isnan(maps[f].at_infinity) || z[1] == maps[f].at_infinity);
            assert_true(fabs(z[2] - maps[f].exact(-0.0)) <= 1e-6);
            assert_true(isnan(z[3]) || maps[f].exact == slope_relu);
            free(x);
            free(dy);
            free(y.whole);
        }
    }
}

static void vectors(void **unused)
{
    (void)unused;
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (int64_t n = 0; n < 150; n = n < 70 ? n + 1 : n + 13) {
            float *a = floats(2 * n + 2, 2.0f), *b = floats(2 * n + 2, 2.0f),
                  *old = floats(2 * n + 2, 2.0f);
            double *want = take((size_t)(2 * n + 2) * 8), total = 0.0, squares = 0.0, product = 0.0,
                   most = 0.0;
            for (int what = 0; what < 7; what++) {
                int64_t count = what > 4 ? 2 * n : n;
                output y = output_of(1, count);
                memcpy(y.at, old, (size_t)count * 4);
                for (int64_t i = 0; i < count; i++) {
                    double re = a[i & ~1], im = a[i | 1], b_re = b[i & ~1],
                           b_im = what == 6 ? -b[i | 1] : b[i | 1];
                    double each[] = {(double)a[i] + b[i],
                                     (double)a[i] * b[i],
                                     a[i] * 1.5,
                                     old[i] + (double)a[i] * b[i],
                                     old[i] + 1.5 * a[i],
                                     i % 2 ? re * b_im + im * b_re : re * b_re - im * b_im,
                                     i % 2 ? re * b_im + im * b_re : re * b_re - im * b_im};
                    want[i] = each[what];
                }
                if (what == 0)
                    s->add(a, b, y.at, n);
                else if (what == 1)
                    s->mul(a, b, y.at, n);
                else if (what == 2)
                    s->scale(a, 1.5f, y.at, n);
                else if (what == 3)
                    s->mul_add(a, b, y.at, n);
                else if (what == 4)
                    s->axpy(1.5f, a, y.at, n);
                else
                    s->complex_mul(a, b, what == 6, y.at, n);
                output_check(&y, want, 2e-7, "vector");
                free(y.whole);
            }
            for (int64_t i = 0; i < n; i++) {
                total += a[i];
                squares += (double)a[i] * a[i];
                product += (double)a[i] * b[i];
                most = fabs(a[i]) > most ? fabs(a[i]) : most;
            }
            double room = 1e-6 * (1.0 + (double)n);
            assert_true(fabs(s->sum(a, n) - total) < room);
            assert_true(fabs(s->sum_squares(a, n) - squares) < room);
            assert_true(fabs(s->dot(a, b, n) - product) < room);
            assert_true(s->max_abs(a, n) == (float)most);
            if (n) {
                a[n - 1] = -INFINITY;
                assert_true(s->max_abs(a, n) == INFINITY);
                a[n / 2] = NAN;
                assert_true(isnan(s->max_abs(a, n)));
            }
            void *blocks[] = {a, b, old, want};
            for (int i = 0; i < 4; i++)
                free(blocks[i]);
        }
}

static void rows(void **unused)
{
    (void)unused;
    static const int64_t widths[] = {1, 2, 7, 8, 16, 31, 64, 100, 384, 401};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (int what = 0; what < 5; what++) {
                enum { ROWS = 5 };
                int64_t d = widths[w] + (what == 3 ? widths[w] % 2 : 0), stride = d + 9;
                float *x = floats(ROWS * stride, 4.0f), *gamma = floats(d, 1.0f),
                      *beta = floats(d, 1.0f);
                float *table = floats(ROWS * d, 1.0f);
                double *want = take((size_t)(ROWS * d) * 8);
                output y = output_of(ROWS, d), one = output_of(ROWS, d);
                if (what < 2)
                    memset(x + stride, 0, (size_t)d * 4);
                for (int i = 0; i < ROWS; i++) {
                    double sum = 0.0, squares = 0.0, variance = 0.0, weights = 0.0, top = -INFINITY;
                    const float *r = x + i * stride, *t = table + i * d;
                    for (int64_t j = 0; j < d; j++) {
                        sum += r[j];
                        squares += (double)r[j] * r[j];
                        top = r[j] > top ? r[j] : top;
                    }
                    for (int64_t j = 0; j < d; j++) {
                        variance += (r[j] - sum / (double)d) * (r[j] - sum / (double)d) / (double)d;
                        weights += exp(r[j] - top);
                    }
                    for (int64_t j = 0; j < d; j++) {
                        double norm = sqrt(squares) < 1e-12 ? 1e-12 : sqrt(squares);
                        double turned = j % 2 ? (double)r[j - 1] * t[j] + (double)r[j] * t[j - 1]
                                              : (double)r[j] * t[j] -
                                                    (j + 1 < d ? (double)r[j + 1] * t[j + 1] : 0.0);
                        double each[] = {
                            r[j] / norm * sqrt((double)d) * gamma[j],
                            (r[j] - sum / (double)d) / sqrt(variance + 1e-5) * gamma[j] + beta[j],
                            exp(r[j] - top) / weights, turned, r[j] / norm * sqrt((double)d)};
                        want[i * d + j] = each[what];
                    }
                }
                for (int part = 0; part < 2; part++) /* whole, then row by row */
                    for (int i = 0; i < (part ? ROWS : 1); i++) {
                        const float *from = x + i * stride;
                        float *to = (part ? one : y).at + i * y.stride;
                        int count = part ? 1 : ROWS;
                        if (what == 0 || what == 4)
                            s->rmsnorm(from, stride, to, y.stride, what ? NULL : gamma, count, d);
                        else if (what == 1)
                            s->layernorm(from, stride, to, y.stride, gamma, beta, 1e-5f, count, d);
                        else if (what == 2)
                            s->softmax(from, stride, to, y.stride, count, d);
                        else
                            s->rope(from, stride, to, y.stride, table + i * d, d, false, count, d);
                    }
                output_check(&y, want, 1e-6, "row");
                assert_memory_equal(y.whole, one.whole, (size_t)(ROWS * y.stride + 2 * GUARD) * 4);
                void *blocks[] = {x, gamma, beta, table, want, y.whole, one.whole};
                for (int i = 0; i < 7; i++)
                    free(blocks[i]);
            }
}

static void conversions(void **unused)
{
    (void)unused;
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++) {
        enum { N = 65536 };
        uint16_t *half = take(N * 2), *back = take(N * 2 + 2);
        float *x = take(N * 4 + 4);
        for (int i = 0; i < N; i++)
            half[i] = (uint16_t)i;
        for (int f16 = 0; f16 < 2; f16++) { /* all values there and back; NaN stays NaN */
            x[N] = guard;
            back[N] = 4711;
            (f16 ? s->f32_from_f16 : s->f32_from_bf16)(half, x, N);
            (f16 ? s->f16_from_f32 : s->bf16_from_f32)(x, back, N);
            assert_true(x[N] == guard && back[N] == 4711);
            for (int i = 0; i < N; i++) {
                float want = f16 ? saw_f16_to_f32(half[i]) : saw_bf16_to_f32(half[i]);
                assert_true(isnan(want) ? isnan(x[i]) : memcmp(&want, x + i, 4) == 0);
                assert_true(isnan(want)
                                ? isnan(f16 ? saw_f16_to_f32(back[i]) : saw_bf16_to_f32(back[i]))
                                : back[i] == half[i]);
            }
            for (int i = 0; i < N; i++) /* between values: the reference rounds too */
                x[i] = ldexpf(uniform(), i % 60 - 40);
            x[5] = 3e38f;
            (f16 ? s->f16_from_f32 : s->bf16_from_f32)(x, back, N - 3);
            for (int i = 0; i < N - 3; i++)
                assert_int_equal(back[i], f16 ? saw_f32_to_f16(x[i]) : saw_f32_to_bf16(x[i]));
        }
        free(half);
        free(back);
        free(x);
    }
}

static void cells(void **unused)
{
    (void)unused;
    static const int64_t widths[] = {3, 5, 16, 50, 256};
    const saw_simd *s;
    for (int set = 0; (s = set_at(set)); set++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            int64_t n = widths[w];
            float *gates = floats(4 * n, 4.0f), *from_h = floats(3 * n, 4.0f);
            output c = output_of(1, n), h = output_of(1, n), g = output_of(1, n);
            double *want = take((size_t)(3 * n) * 8), *want_h = want + n, *want_g = want + 2 * n;
            for (int64_t i = 0; i < n; i++) {
                c.at[i] = uniform();
                g.at[i] = uniform();
                want[i] = d_sigmoid(gates[n + i]) * c.at[i] +
                          d_sigmoid(gates[i]) * tanh(gates[2 * n + i]);
                want_h[i] = d_sigmoid(gates[3 * n + i]) * tanh(want[i]);
                double r = d_sigmoid((double)gates[i] + from_h[i]),
                       z = d_sigmoid((double)gates[n + i] + from_h[n + i]);
                want_g[i] =
                    (1.0 - z) * tanh(gates[2 * n + i] + r * from_h[2 * n + i]) + z * g.at[i];
            }
            s->lstm_gates(gates, c.at, h.at, n);
            s->gru_gates(gates, from_h, g.at, n);
            output_check(&c, want, 1e-6, "lstm c");
            output_check(&h, want_h, 1e-6, "lstm h");
            output_check(&g, want_g, 1e-6, "gru h");
            void *blocks[] = {gates, from_h, c.whole, h.whole, g.whole, want};
            for (int i = 0; i < 6; i++)
                free(blocks[i]);
        }
}

static void table(void **unused)
{
    (void)unused;
    assert_string_equal(saw_simd_at(0)->name, "plain");
    assert_null(saw_simd_at(-1));
    int count = 0;
    while (saw_simd_at(count)) {
        assert_true(saw_simd_at(count)->peak(SAW_F32, 0.0) > 0.0);
        count++;
    }
    assert_ptr_equal(saw_simd_best(), saw_simd_at(count - 1));
    assert_null(saw_simd_at(count + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(products),
        cmocka_unit_test(products_of_strange_numbers),
        cmocka_unit_test(products_of_gradients),
        cmocka_unit_test(attention),
        cmocka_unit_test(attention_of_strange_numbers),
        cmocka_unit_test(attention_gradient),
        cmocka_unit_test(slopes),
        cmocka_unit_test(functions),
        cmocka_unit_test(vectors),
        cmocka_unit_test(rows),
        cmocka_unit_test(conversions),
        cmocka_unit_test(cells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
