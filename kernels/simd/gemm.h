/*
 * gemm.h - packed matrix products.
 *
 * B is packed once into panels of NR columns, [panel][k][column]; bfloat16 keeps 2 and int8 4
 * neighbouring k of a column in one lane. A call takes A in blocks of at most BLOCK_ROWS rows and
 * `depth` k: the block is copied, and converted where the type asks for it, to rows of BLOCK_BYTES,
 * so that far-apart rows cost nothing and all offsets inside the register tile are constants. A
 * panel's piece of that depth (24 KB with 16 columns) stays in L1 while the rows of the block pass
 * over it, MR at a time; the block stays in L2 while the panels pass.
 *
 * Every element is the sum over pieces of depth, in rising order, of a chain of multiply-adds in
 * rising k; nothing in it depends on m, n or the neighbours.
 */
#ifndef SAW_SIMD_GEMM_H
#define SAW_SIMD_GEMM_H

#include "kernels/simd/rows.h"
#include "kernels/simd/simd.h"

enum { BLOCK_ROWS = 120, BLOCK_BYTES = 1536, PANELS_AT_ONCE = 4 };

/** How one type is packed and multiplied. group: k in one lane of B; depth: k in one block. */
typedef struct kind {
    int group, depth, a_bytes; /* a_bytes: of one element of the block of A */
} kind;

INLINE kind kind_of(saw_dtype dtype)
{
    if (dtype == SAW_BF16)
        return DOT_PRODUCTS ? (kind){2, 768, 2} : (kind){2, 384, 4};
    if (dtype == SAW_I8)
        return (kind){4, SAW_S8_DEPTH, DOT_PRODUCTS ? 1 : 2};
    return (kind){1, 384, 4};
}

static int64_t up_to(int64_t x, int64_t multiple)
{
    return (x + multiple - 1) / multiple * multiple;
}

/** Where piece i of `parts` even pieces of [0, n) begins. */
static int64_t even_split(int64_t n, int64_t parts, int64_t i)
{
    return n * i / parts;
}

/* ---- packing --------------------------------------------------------------------------------- */

/* An int8 panel begins with NR scales and, for each piece of depth, NR first values of the sums:
 * with unsigned a + 128 in hardware dot products -128 times the column's sum, else 0. */
static size_t panel_head_bytes(saw_dtype dtype, int64_t k)
{
    return dtype == SAW_I8 ? (size_t)(1 + up_to(k, SAW_S8_DEPTH) / SAW_S8_DEPTH) * NR * 4 : 0;
}

static size_t panel_bytes(saw_dtype dtype, int64_t k)
{
    int group = kind_of(dtype).group;
    return panel_head_bytes(dtype, k) + (size_t)(up_to(k, group) / group) * NR * 4;
}

static size_t pack_offset(saw_dtype dtype, int64_t n0, int64_t k)
{
    return (size_t)(n0 / NR) * panel_bytes(dtype, k);
}

static size_t pack_bytes(saw_dtype dtype, int64_t n, int64_t k)
{
    return (size_t)up_to((int64_t)pack_offset(dtype, up_to(n, NR), k), 64);
}

/** Four k of four columns, column n at x[n], to y[k * NR + n]. */
INLINE void transpose4(const float *const x[4], int64_t k, float *y)
{
    v4 a = *(const v4_any *)(x[0] + k), b = *(const v4_any *)(x[1] + k);
    v4 c = *(const v4_any *)(x[2] + k), d = *(const v4_any *)(x[3] + k);
    v4 ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
       ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    v4 cd = __builtin_shufflevector(c, d, 0, 4, 1, 5),
       cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(v4_any *)y = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(v4_any *)(y + NR) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(v4_any *)(y + 2 * NR) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
    *(v4_any *)(y + 3 * NR) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
}

/** y[k][NR] = at most NR columns of depth k; where there are none, copies of the last, or zeros. */
static void load_panel(const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride, int64_t columns,
                       int64_t k, float *restrict y)
{
    if (n_stride == 1) {
        for (int64_t i = 0; i < k; i++, y += NR, w += k_stride)
            for (int j = 0; j < NR; j += W)
                store(y + j, columns > j ? load_up_to(w + j, columns - j) : (vf){0});
        return;
    }
    for (int64_t n = 0; n < NR; n += 4) {
        const float *x[4];
        for (int q = 0; q < 4; q++)
            x[q] = w + (n + q < columns ? n + q : columns - 1) * n_stride;
        int64_t i = 0;
        for (; k_stride == 1 && i + 4 <= k; i += 4)
            transpose4(x, i, y + i * NR + n);
        for (; i < k; i++)
            for (int q = 0; q < 4; q++)
                y[i * NR + n + q] = x[q][i * k_stride];
    }
}

static void pack_bf16(const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride, int64_t columns,
                      int64_t k, char *out)
{
    float piece[64 * NR];
    for (int64_t k0 = 0; k0 < k; k0 += 64) {
        int64_t count = k - k0 < 64 ? k - k0 : 64;
        load_panel(w + k0 * k_stride, n_stride, k_stride, columns, count, piece);
        if (count & 1)
            memset(piece + count * NR, 0, sizeof(float) * NR);
        for (int64_t i = 0; i < count; i += 2)
            for (int j = 0; j < NR; j += W, out += 4 * W) {
                vu lo = bf16_round(load(piece + i * NR + j)),
                   hi = bf16_round(load(piece + (i + 1) * NR + j));
                store_i(out, (vi)(hi | (lo >> 16)));
            }
    }
}

/** round(x) in the low bits, for |x| < 2^22. */
INLINE vi round_to_int(vf x)
{
    return (vi)(x + ROUNDER) - (vi)set1(ROUNDER);
}

/** 127 / largest, or 0 where that would overflow: such rows are zeros. */
static float s8_inverse(float largest)
{
    return largest < 1e-36f ? 0.0f : 127.0f / largest;
}

static void pack_s8(const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride, int64_t columns,
                    int64_t k, char *panel)
{
    float piece[64 * NR], inverse[NR] = {0}, *scale = (float *)panel;
    char *out = panel + panel_head_bytes(SAW_I8, k);
    for (int64_t k0 = 0; k0 < k; k0 += 64) {
        int64_t count = k - k0 < 64 ? k - k0 : 64;
        load_panel(w + k0 * k_stride, n_stride, k_stride, columns, count, piece);
        for (int j = 0; j < NR; j += W)
            for (int64_t i = 0; i < count; i++)
                store(inverse + j, max(load(inverse + j), absolute(load(piece + i * NR + j))));
    }
    for (int j = 0; j < NR; j++) {
        scale[j] = inverse[j] / 127.0f;
        inverse[j] = s8_inverse(inverse[j]);
    }
    memset(scale + NR, 0, panel_head_bytes(SAW_I8, k) - sizeof(float) * NR);
    for (int64_t k0 = 0; k0 < k; k0 += 64) {
        int64_t count = k - k0 < 64 ? k - k0 : 64;
        int32_t *first = (int32_t *)panel + (1 + k0 / SAW_S8_DEPTH) * NR;
        load_panel(w + k0 * k_stride, n_stride, k_stride, columns, count, piece);
        for (; count & 3; count++)
            memset(piece + count * NR, 0, sizeof(float) * NR);
        for (int64_t i = 0; i < count; i += 4)
            for (int j = 0; j < NR; j += W, out += 4 * W) {
                /* without dot products the kernel takes the even bytes first, then the odd ones */
                static const int byte_of[2][4] = {{0, 2, 1, 3}, {0, 1, 2, 3}};
                vi lane = {0}, sum = {0};
                for (int q = 0; q < 4; q++) {
                    vi b = round_to_int(load(piece + (i + q) * NR + j) * load(inverse + j));
                    lane |= (b & 255) << (8 * byte_of[DOT_PRODUCTS][q]);
                    sum += b;
                }
                store_i(out, lane);
                if (DOT_PRODUCTS)
                    store_i(first + j, load_i(first + j) - sum * 128);
            }
    }
}

static void pack(saw_dtype dtype, const float *w, ptrdiff_t n_stride, ptrdiff_t k_stride,
                 int64_t n0, int64_t n1, int64_t k, void *packed)
{
    for (int64_t n = n0; n < n1; n += NR, w += NR * n_stride) {
        int64_t columns = n1 - n < NR ? n1 - n : NR;
        char *panel = (char *)packed + pack_offset(dtype, n, k);
        if (dtype == SAW_I8)
            pack_s8(w, n_stride, k_stride, columns, k, panel);
        else if (dtype == SAW_BF16)
            pack_bf16(w, n_stride, k_stride, columns, k, panel);
        else
            load_panel(w, n_stride, k_stride, columns, k, (float *)panel);
    }
}

/* ---- register tiles -------------------------------------------------------------------------- */

/** One register tile: c = a . b [* row_scale] [+ add], rows at a + i * BLOCK_BYTES. */
typedef struct tile {
    const char *a, *b; /* b: the panel at this piece of depth */
    size_t b_stride;   /* bytes from a panel to the next */
    int64_t groups;    /* steps of the loop over k */
    const char *next;  /* a part of the panel that follows, to be fetched meanwhile */
    size_t next_step;  /* bytes of it for a step */
    float *c;
    ptrdiff_t c_stride;
    const float *add; /* NULL, or what is added: the bias (stride 0) or the sum so far */
    ptrdiff_t add_stride;
    const float *row_scale; /* NULL or a factor for each row */
    const char *head;       /* int8: the panel's scales */
    const int32_t *first;   /* int8: first values of the sums */
} tile;

/** c = acc [* scale of the row] [+ add] for m rows of v vectors. */
INLINE void tile_store(const tile *t, int m, int v, vf *acc, const float *scale)
{
    const float *add = t->add;
    const ptrdiff_t add_stride = t->add_stride, c_stride = t->c_stride;
    float *c = t->c;
    if (scale)
        foreach (i, m * v)
            acc[i] *= scale[i / v];
    if (add)
        foreach (i, m * v)
            acc[i] += load(add + i / v * add_stride + i % v * W);
    foreach (i, m * v)
        store(c + i / v * c_stride + i % v * W, acc[i]);
}

/* The steps of one k: row by row, with the vectors of B in registers, or, with several panels,
 * vector by vector, with the elements of A in registers. */
#define EACH_STEP(m, v, panels, i, j)                                                              \
    foreach (e_, (m) * (v))                                                                        \
        for (int i = (panels) > 1 ? e_ % (m) : e_ / (v), j = (panels) > 1 ? e_ / (m) : e_ % (v),   \
                 once_ = 1;                                                                        \
             once_; once_ = 0)

/** Vector j of the panels at b. */
INLINE vi panel_vector(const tile *t, const char *b, int j)
{
    return load_i(b + (size_t)(j / NV) * t->b_stride + j % NV * W * 4);
}

INLINE void tile_f32(const tile *t, int m, int panels)
{
    const int v = panels * NV;
    vf acc[MR * NV];
    foreach (i, m * v)
        acc[i] = (vf){0};
    const char *a = t->a, *b = t->b, *next = t->next;
    for (int64_t n = t->groups; n > 0; n--, a += 4, b += 4 * NR) {
        if (panels == 1) {
            __builtin_prefetch(next);
            next += t->next_step;
        }
        EACH_STEP(m, v, panels, i, j)
        acc[i * v + j] = fmadd(set1(*(const float *)(a + i * BLOCK_BYTES)),
                               (vf)panel_vector(t, b, j), acc[i * v + j]);
    }
    tile_store(t, m, v, acc, t->row_scale);
}

/** half 0 and 1: the even and the odd k as float32. Dot products take both at once. */
INLINE void step_bf16(vf *sum, vi a, vi b, int half)
{
    if (DOT_PRODUCTS)
        *sum = dot_bf16(*sum, a, b);
    else
        fmadd_here(sum, (vf)a, (vf)(half ? b & (int32_t)0xffff0000 : b << 16));
}

INLINE void tile_bf16(const tile *t, int m, int panels)
{
    const int v = panels * NV;
    vf acc[MR * NV];
    foreach (i, m * v)
        acc[i] = (vf){0};
    const char *a = t->a, *b = t->b;
    for (int64_t n = t->groups; n > 0; n--, a += DOT_PRODUCTS ? 4 : 8, b += 4 * NR)
        foreach (half, DOT_PRODUCTS ? 1 : 2)
            EACH_STEP(m, v, panels, i, j)
    step_bf16(&acc[i * v + j], set1_i(((const i32_any *)(a + i * BLOCK_BYTES))[half]),
              panel_vector(t, b, j), half);
    tile_store(t, m, v, acc, t->row_scale);
}

/** half 0 and 1: the even and the odd bytes as int16. Dot products take all four at once. */
INLINE void step_s8(vi *sum, vi a, vi b, int half)
{
    if (DOT_PRODUCTS)
        *sum = dot_u8s8(*sum, a, b);
    else
        madd_here(sum, (vi16)a, half ? (vi16)b >> 8 : ((vi16)b << 8) >> 8);
}

INLINE void tile_s8(const tile *t, int m, int panels)
{
    const int v = panels * NV;
    vi acc[MR * NV];
    foreach (i, m * v)
        acc[i] = panel_vector(t, (const char *)t->first, i % v);
    const char *a = t->a, *b = t->b;
    for (int64_t n = t->groups; n > 0; n--, a += DOT_PRODUCTS ? 4 : 8, b += 4 * NR)
        foreach (half, DOT_PRODUCTS ? 1 : 2)
            EACH_STEP(m, v, panels, i, j)
    step_s8(&acc[i * v + j], set1_i(((const i32_any *)(a + i * BLOCK_BYTES))[half]),
            panel_vector(t, b, j), half);
    vf sums[MR * NV];
    foreach (i, m * v)
        sums[i] = __builtin_convertvector(acc[i], vf) *
                  ((vf)panel_vector(t, t->head, i % v) * t->row_scale[i / v]);
    tile_store(t, m, v, sums, NULL);
}

/* Few rows take several panels at once, so that there are sums enough to hide the latency of a
 * multiply-add. */
INLINE int panels_for(int rows)
{
    return rows == 1 ? 4 : rows <= 3 ? 2 : 1;
}

typedef void tile_fn(const tile *t);

#define TILE(kind, m, panels)                                                                      \
    static void kind##_##m##_##panels(const tile *t)                                               \
    {                                                                                              \
        tile_##kind(t, m, panels);                                                                 \
    }
#define ONE_PANEL(kind, m)    TILE(kind, m, 1)
#define NAME(kind, m)         kind##_##m##_1,
#define EACH_UP_TO_6(F, kind) F(kind, 1) F(kind, 2) F(kind, 3) F(kind, 4) F(kind, 5) F(kind, 6)
#if W == 16
#define EACH_ROWS(F, kind)                                                                         \
    EACH_UP_TO_6(F, kind) F(kind, 7) F(kind, 8) F(kind, 9) F(kind, 10) F(kind, 11) F(kind, 12)
#else
#define EACH_ROWS(F, kind) EACH_UP_TO_6(F, kind)
#endif
#define TILES(kind)                                                                                \
    EACH_ROWS(ONE_PANEL, kind)                                                                     \
    TILE(kind, 1, 4)                                                                               \
    TILE(kind, 2, 2)                                                                               \
    TILE(kind, 3, 2)                                                                               \
    static tile_fn *const kind##_tiles[MR + 1] = {0, EACH_ROWS(NAME, kind)};                       \
    static tile_fn *const kind##_wide_tiles[] = {0, kind##_1_4, kind##_2_2, kind##_3_2};
TILES(f32)
TILES(bf16)
TILES(s8)

/* ---- a block of rows over all panels --------------------------------------------------------- */

/** c = act(c + bias) on a piece of C. */
INLINE void finish_with(vf (*f)(vf), const float *bias, float *c, ptrdiff_t stride, int rows,
                        int64_t columns)
{
    for (int i = 0; i < rows; i++, c += stride)
        for (int64_t j = 0; j < columns; j += W) {
            int64_t left = columns - j;
            if (left >= W) {
                vf x = load(c + j);
                store(c + j, f(bias ? x + load(bias + j) : x));
            } else {
                vf x = load_part(c + j, left);
                store_part(c + j, f(bias ? x + load_part(bias + j, left) : x), left);
            }
        }
}

INLINE vf same(vf x)
{
    return x;
}

static void finish(saw_act act, const float *bias, float *c, ptrdiff_t stride, int rows,
                   int64_t columns)
{
    switch (act) {
    case SAW_ACT_NONE:
        finish_with(same, bias, c, stride, rows, columns);
        break;
    case SAW_ACT_RELU:
        finish_with(relu_of, bias, c, stride, rows, columns);
        break;
    case SAW_ACT_GELU:
        finish_with(gelu_of, bias, c, stride, rows, columns);
        break;
    case SAW_ACT_TANH:
        finish_with(tanh_of, bias, c, stride, rows, columns);
        break;
    case SAW_ACT_SIGMOID:
        finish_with(sigmoid_of, bias, c, stride, rows, columns);
        break;
    case SAW_ACT_SILU:
        finish_with(silu_of, bias, c, stride, rows, columns);
        break;
    }
}

/** What follows a tile, once its last piece of depth is in. */
typedef struct ending {
    const float *bias; /* NULL, or still to be added */
    saw_act act;
} ending;

/** A tile whose last columns do not exist: by way of a whole one. */
static void run_edge(tile_fn *run, tile t, int rows, int64_t columns)
{
    float edge[MR * NR] = {0}, *c = t.c;
    if (t.add)
        for (int i = 0; i < rows; i++)
            memcpy(edge + i * NR, t.add + i * t.add_stride, (size_t)columns * 4);
    ptrdiff_t c_stride = t.c_stride;
    t.c = edge;
    t.c_stride = NR;
    if (t.add) {
        t.add = edge;
        t.add_stride = NR;
    }
    run(&t);
    for (int i = 0; i < rows; i++)
        memcpy(c + i * c_stride, edge + i * NR, (size_t)columns * 4);
}

/** c[m, n] from a block of A (t.a) and the panels from t.b on; t describes the first row and panel.
 */
static void sweep(saw_dtype dtype, tile t, int64_t m, int64_t n, ending end)
{
    tile_fn *const *tiles = dtype == SAW_F32    ? f32_tiles
                            : dtype == SAW_BF16 ? bf16_tiles
                                                : s8_tiles;
    tile_fn *const *wide_tiles = dtype == SAW_F32    ? f32_wide_tiles
                                 : dtype == SAW_BF16 ? bf16_wide_tiles
                                                     : s8_wide_tiles;
    const int64_t parts = up_to(m, MR) / MR, each = parts ? m / parts : 0,
                  larger = m - each * parts;
    for (int64_t j = 0, columns; j < n; j += columns) {
        int wide = m <= 3 ? panels_for((int)m) : 1;
        if (wide * NR > n - j)
            wide = 1;
        columns = n - j < wide * NR ? n - j : wide * NR;
        for (int64_t row = 0, rows, i = 0; i < parts; i++, row += rows) {
            rows = each + (i < larger);
            tile x = t;
            x.next_step = (4 * NR + (size_t)parts - 1) / (size_t)parts;
            x.a += row * BLOCK_BYTES;
            x.c += row * t.c_stride;
            x.add = t.add ? t.add + row * t.add_stride : NULL;
            x.next = t.b + wide * t.b_stride + (size_t)i * (size_t)t.groups * x.next_step;
            x.row_scale = t.row_scale ? t.row_scale + row : NULL;
            tile_fn *run = wide > 1 ? wide_tiles[rows] : tiles[rows];
            if (columns < NR)
                run_edge(run, x, (int)rows, columns);
            else
                run(&x);
            if (end.bias || end.act)
                finish(end.act, end.bias, x.c, x.c_stride, (int)rows, columns);
        }
        t.b += (size_t)wide * t.b_stride;
        t.c += columns;
        if (t.add)
            t.add += columns;
        if (end.bias)
            end.bias += columns;
        if (dtype == SAW_I8) {
            t.head += (size_t)wide * t.b_stride;
            t.first = (const int32_t *)((const char *)t.first + (size_t)wide * t.b_stride);
        }
    }
}

/** Elements i, i + 1, ... of a row of a block of A, in the form that the kernel of this type takes.
 */
INLINE void prepare_vector(saw_dtype dtype, vf v, int64_t i, char *row)
{
    if (dtype == SAW_F32)
        store((float *)row + i, v);
    else if (dtype == SAW_BF16 && DOT_PRODUCTS)
        *(half_u16_any *)(row + 2 * i) = __builtin_convertvector(bf16_round(v) >> 16, half_u16);
    else if (dtype == SAW_BF16)
        store((float *)row + i, (vf)bf16_round(v));
    else if (DOT_PRODUCTS)
        *(quarter_u8_any *)(row + i) =
            __builtin_convertvector((vu)round_to_int(v) + 128u, quarter_u8);
    else
        *(half_i16_any *)(row + 2 * i) = __builtin_convertvector(round_to_int(v), half_i16);
}

INLINE void prepare_row_as(saw_dtype dtype, const float *x, float factor, int64_t k, char *row)
{
    int64_t i = 0;
    for (; i + W <= k; i += W)
        prepare_vector(dtype, load(x + i) * factor, i, row);
    if (i < k)
        prepare_vector(dtype, load_part(x + i, k - i) * factor, i, row);
}

/** One row of a block of A: x * factor, zeros up to a whole vector. */
static void prepare_row(saw_dtype dtype, const float *x, float factor, int64_t k, char *row)
{
    if (dtype == SAW_F32)
        prepare_row_as(SAW_F32, x, factor, k, row);
    else if (dtype == SAW_BF16)
        prepare_row_as(SAW_BF16, x, factor, k, row);
    else
        prepare_row_as(SAW_I8, x, factor, k, row);
}

static void gemm(const saw_gemm *p)
{
    const kind how = kind_of(p->dtype);
    const size_t head_bytes = panel_head_bytes(p->dtype, p->k);
    char *block = p->scratch;
    float *row_scale = (float *)(block + BLOCK_ROWS * BLOCK_BYTES), factor[BLOCK_ROWS];
    int64_t parts = up_to(p->m, BLOCK_ROWS) / BLOCK_ROWS;
    for (int64_t part = 0; part < parts; part++) {
        int64_t row = even_split(p->m, parts, part), rows = even_split(p->m, parts, part + 1) - row;
        for (int64_t i = 0; i < rows; i++) {
            factor[i] = 1.0f;
            if (p->dtype == SAW_I8) {
                float largest =
                    max_abs(p->a_rows ? p->a_rows[row + i] : p->a + (row + i) * p->a_stride, p->k);
                row_scale[i] = largest / 127.0f;
                factor[i] = s8_inverse(largest);
            }
        }
        for (int64_t k0 = 0; k0 < p->k; k0 += how.depth) {
            int64_t depth = p->k - k0 < how.depth ? p->k - k0 : how.depth;
            bool last = k0 + depth == p->k, bias_first = k0 == 0 && !p->accumulate;
            for (int64_t i = 0; i < rows; i++)
                prepare_row(p->dtype,
                            (p->a_rows ? p->a_rows[row + i] : p->a + (row + i) * p->a_stride) + k0,
                            factor[i], depth, block + i * BLOCK_BYTES);
            tile t = {.a = block,
                      .b = (const char *)p->b + head_bytes + (size_t)(k0 / how.group) * NR * 4,
                      .b_stride = panel_bytes(p->dtype, p->k),
                      .groups = up_to(depth, how.group) / how.group,
                      .c = p->c + row * p->c_stride,
                      .c_stride = p->c_stride,
                      .add = bias_first ? p->bias : p->c + row * p->c_stride,
                      .add_stride = bias_first ? 0 : p->c_stride};
            if (p->dtype == SAW_I8) {
                t.row_scale = row_scale;
                t.head = p->b;
                t.first = (const int32_t *)p->b + (1 + k0 / SAW_S8_DEPTH) * NR;
            }
            ending end = {.bias = last && p->accumulate ? p->bias : NULL,
                          .act = last ? p->act : SAW_ACT_NONE};
            sweep(p->dtype, t, rows, p->n, end);
        }
    }
}

#endif
