/*
 * weights.c - names to numbers: dense copies and packed matrices, each made once and shared by all
 * runs.
 */
#include "core/program_private.h"
#include "kernels/simd/simd.h"

#include <math.h>
#include <string.h>

typedef struct weight {
    char *name;
    float *dense;
    bool own_values;       /* dense came from saw_weights_set */
    saw_dims dims;         /* of own values */
    saw_packed *packed[3]; /* per saw_precision */
} weight;

struct saw_weights {
    saw_context *ctx;
    saw_weight_source source;
    weight *items;
    int count, room;
    int *table; /* open addressing: index + 1 */
    int table_room;
    size_t bytes;
};

saw_status saw_weights_open(saw_context *ctx, const saw_weight_source *source, saw_weights **out)
{
    saw_weights *w = saw_calloc(ctx, 1, sizeof *w);
    *out = w;
    if (!w)
        return SAW_ERR_MEMORY;
    w->ctx = ctx;
    if (source)
        w->source = *source;
    return SAW_OK;
}

void saw_weights_close(saw_weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->count; i++) {
        saw_free(w->ctx, w->items[i].name);
        saw_free(w->ctx, w->items[i].dense);
        for (int k = 0; k < 3; k++)
            saw_free(w->ctx, w->items[i].packed[k]);
    }
    saw_free(w->ctx, w->items);
    saw_free(w->ctx, w->table);
    saw_free(w->ctx, w);
}

size_t saw_weights_bytes(const saw_weights *w)
{
    return w->bytes;
}

static int *table_slot(const saw_weights *w, const char *name)
{
    for (uint64_t i = saw_fnv1a(name, strlen(name));; i++) {
        int *slot = &w->table[i & (uint64_t)(w->table_room - 1)];
        if (!*slot || !strcmp(w->items[*slot - 1].name, name))
            return slot;
    }
}

static weight *find_or_add(saw_weights *w, const char *name)
{
    if (2 * (w->count + 1) > w->table_room) {
        int room = w->table_room ? 2 * w->table_room : 512;
        int *fresh = saw_calloc(w->ctx, (size_t)room, sizeof *fresh);
        weight *items = fresh ? saw_realloc(w->ctx, w->items, (size_t)room * sizeof *items) : NULL;
        if (!items) {
            saw_free(w->ctx, fresh);
            return NULL;
        }
        saw_free(w->ctx, w->table);
        w->items = items;
        w->table = fresh;
        w->table_room = room;
        for (int i = 0; i < w->count; i++)
            *table_slot(w, w->items[i].name) = i + 1;
    }
    int *slot = table_slot(w, name);
    if (!*slot) {
        weight fresh = {.name = saw_strdup(w->ctx, name)};
        if (!fresh.name)
            return NULL;
        w->items[w->count] = fresh;
        *slot = ++w->count;
    }
    return &w->items[*slot - 1];
}

saw_status saw_weights_set(saw_weights *w, const char *name, saw_dims dims, const float *data)
{
    weight *x = find_or_add(w, name);
    size_t bytes = (size_t)saw_dims_count(&dims) * sizeof(float);
    float *copy = x ? saw_alloc(w->ctx, bytes) : NULL;
    if (!copy)
        return SAW_ERR_MEMORY;
    memcpy(copy, data, bytes);
    saw_free(w->ctx, x->dense);
    x->dense = copy;
    x->own_values = true;
    x->dims = dims;
    w->bytes += bytes;
    return SAW_OK;
}

static saw_status check_dims(saw_weights *w, const weight *x, const saw_dims *want)
{
    saw_dims have = x->dims;
    if (!x->own_values) {
        if (!w->source.dims || w->source.dims(w->source.user, x->name, &have))
            return saw_fail(w->ctx, SAW_ERR_SHAPE, "there is no tensor %s", x->name);
    }
    if (saw_dims_equal(&have, want))
        return SAW_OK;
    saw_buffer text = {.ctx = w->ctx};
    for (int i = 0; i < have.n; i++)
        saw_buffer_printf(&text, "%s%lld", i ? " x " : "", (long long)have.d[i]);
    saw_buffer_printf(&text, ", the model wants ");
    for (int i = 0; i < want->n; i++)
        saw_buffer_printf(&text, "%s%lld", i ? " x " : "", (long long)want->d[i]);
    saw_status status =
        saw_fail(w->ctx, SAW_ERR_SHAPE, "the tensor %s is %s", x->name, text.data ? text.data : "");
    saw_buffer_free(&text);
    return status;
}

static saw_status read_checked(saw_weights *w, const weight *x, int64_t first, int64_t n,
                               float *out)
{
    if (x->own_values) {
        memcpy(out, x->dense + first, (size_t)n * sizeof *out);
        return SAW_OK;
    }
    saw_status status = w->source.read(w->source.user, x->name, first, n, out);
    if (status)
        return status;
    float sum = 0; /* an infinite or undefined number makes the sum of x * 0 undefined */
    for (int64_t i = 0; i < n; i++)
        sum += out[i] * 0.0f;
    if (sum != 0 || isnan(sum))
        return saw_fail(w->ctx, SAW_ERR_FORMAT, "the tensor %s holds numbers that are not finite",
                        x->name);
    return SAW_OK;
}

saw_status saw_weights_dense(saw_weights *w, const char *name, const saw_dims *dims,
                             const float **out)
{
    weight *x = find_or_add(w, name);
    if (!x)
        return SAW_ERR_MEMORY;
    saw_status status = check_dims(w, x, dims);
    if (!status && !x->dense) {
        int64_t n = saw_dims_count(dims);
        float *data = saw_alloc(w->ctx, (size_t)n * sizeof *data);
        status = data ? read_checked(w, x, 0, n, data) : SAW_ERR_MEMORY;
        if (status) {
            saw_free(w->ctx, data);
            return status;
        }
        x->dense = data;
        w->bytes += (size_t)n * sizeof *data;
    }
    *out = x->dense;
    return status;
}

/* ---- packing --------------------------------------------------------------------------------- */

saw_dtype saw_precision_dtype(int precision)
{
    static const saw_dtype dtypes[] = {SAW_F32, SAW_BF16, SAW_I8};
    return dtypes[precision];
}

/* Matrix i of a weight that is packed for this entry (NULL: of any product); false when there is
 * none. */
static bool matrix_at(const saw_entry *packer, const saw_dims *dims, int64_t i, saw_pack_matrix *m)
{
    if (packer)
        return packer->op->matrix(packer->attr, i, m);
    int64_t inner = saw_dims_count(dims) / (dims->d[0] ? dims->d[0] : 1);
    *m = (saw_pack_matrix){.rows = {1, dims->d[0]},
                           .row_stride = {0, inner},
                           .inner = {1, 1, inner},
                           .inner_stride = {0, 0, 1}};
    return i == 0;
}

static int64_t matrix_inner(const saw_pack_matrix *m)
{
    return m->inner[0] * m->inner[1] * m->inner[2];
}

static size_t matrix_bytes(const saw_simd *simd, const saw_pack_matrix *m, int precision)
{
    return simd->pack_bytes(saw_precision_dtype(precision), m->rows[0] * m->rows[1],
                            matrix_inner(m));
}

size_t saw_pack_bytes(const saw_dims *dims, int precision, const saw_entry *packer)
{
    const saw_simd *simd = saw_simd_best();
    size_t bytes = 0;
    saw_pack_matrix m;
    for (int64_t i = 0; matrix_at(packer, dims, i, &m); i++)
        bytes += matrix_bytes(simd, &m, precision);
    return bytes;
}

/* Row n of a matrix, dense. */
static void copy_row(const saw_pack_matrix *m, const float *data, int64_t n, float *to)
{
    const float *row =
        data + m->first + n / m->rows[1] * m->row_stride[0] + n % m->rows[1] * m->row_stride[1];
    for (int64_t i = 0; i < m->inner[0]; i++)
        for (int64_t j = 0; j < m->inner[1]; j++)
            for (int64_t k = 0; k < m->inner[2]; k++)
                *to++ =
                    row[i * m->inner_stride[0] + j * m->inner_stride[1] + k * m->inner_stride[2]];
}

saw_packed *saw_pack_new(saw_context *ctx, const saw_dims *dims, int precision,
                         const saw_entry *packer)
{
    /* the struct and its data in one block */
    size_t bytes = saw_pack_bytes(dims, precision, packer),
           head = (sizeof(saw_packed) + 63) & ~(size_t)63;
    char *block = saw_alloc(ctx, head + bytes);
    if (!block)
        return NULL;
    saw_packed *p = (saw_packed *)(void *)block;
    *p = (saw_packed){
        .precision = precision, .rows = dims->d[0], .data = block + head, .bytes = bytes};
    p->inner = saw_dims_count(dims) / (dims->d[0] ? dims->d[0] : 1);
    return p;
}

int64_t saw_pack_panel(const saw_dims *dims, const saw_entry *packer)
{
    int64_t most = 0;
    saw_pack_matrix m;
    for (int64_t i = 0; matrix_at(packer, dims, i, &m); i++)
        most = matrix_inner(&m) > most ? matrix_inner(&m) : most;
    return most * saw_simd_best()->panel;
}

void saw_pack_fill(const saw_simd *simd, saw_packed *p, const float *data, const saw_dims *dims,
                   const saw_entry *packer, float *panel)
{
    char *to = (char *)p->data;
    saw_pack_matrix m;
    for (int64_t i = 0; matrix_at(packer, dims, i, &m); i++) {
        int64_t rows = m.rows[0] * m.rows[1], inner = matrix_inner(&m);
        for (int64_t n0 = 0; n0 < rows; n0 += simd->panel) {
            int64_t n1 = n0 + simd->panel < rows ? n0 + simd->panel : rows;
            for (int64_t n = n0; n < n1; n++)
                copy_row(&m, data, n, panel + (n - n0) * inner);
            simd->pack(saw_precision_dtype(p->precision), panel, inner, 1, n0, n1, inner, to);
        }
        to += matrix_bytes(simd, &m, p->precision);
    }
}

saw_status saw_weights_read(saw_weights *w, const char *name, const saw_dims *dims, float *out)
{
    weight *x = find_or_add(w, name);
    if (!x)
        return SAW_ERR_MEMORY;
    saw_status status = check_dims(w, x, dims);
    return status ? status : read_checked(w, x, 0, saw_dims_count(dims), out);
}

/* Matrices that are no rows of the tensor are packed from a dense copy of it. */
static saw_status pack_whole(saw_weights *w, const weight *x, const saw_dims *dims, int precision,
                             const saw_entry *packer, saw_packed **out)
{
    int64_t n = saw_dims_count(dims);
    float *dense = saw_alloc(w->ctx, (size_t)(n + saw_pack_panel(dims, packer)) * sizeof *dense);
    saw_packed *p = dense ? saw_pack_new(w->ctx, dims, precision, packer) : NULL;
    saw_status status = p ? read_checked(w, x, 0, n, dense) : SAW_ERR_MEMORY;
    if (!status)
        saw_pack_fill(saw_simd_best(), p, dense, dims, packer, dense + n);
    saw_free(w->ctx, dense);
    if (status)
        saw_free(w->ctx, p);
    else
        *out = p;
    return status;
}

saw_status saw_weights_packed(saw_weights *w, const char *name, const saw_dims *dims, int precision,
                              const saw_entry *packer, const saw_packed **out)
{
    weight *x = find_or_add(w, name);
    if (!x)
        return SAW_ERR_MEMORY;
    saw_status status = check_dims(w, x, dims);
    if (status || x->packed[precision]) {
        *out = x->packed[precision];
        return status;
    }
    saw_packed *p = NULL;
    if (packer) {
        status = pack_whole(w, x, dims, precision, packer, &p);
        if (status)
            return status;
        w->bytes += p->bytes;
        *out = x->packed[precision] = p;
        return SAW_OK;
    }
    const saw_simd *simd = saw_simd_best();
    p = saw_pack_new(w->ctx, dims, precision, NULL);
    if (!p)
        return SAW_ERR_MEMORY;
    /* A band of rows at a time, so that no whole float32 copy is ever held. */
    int64_t step = ((int64_t)1 << 18) / (p->inner ? p->inner : 1) / simd->panel * simd->panel;
    step = step < simd->panel ? simd->panel : step;
    float *rows = saw_alloc(w->ctx, (size_t)(step * p->inner) * sizeof *rows);
    status = rows ? SAW_OK : SAW_ERR_MEMORY;
    for (int64_t n0 = 0; n0 < p->rows && !status; n0 += step) {
        int64_t n1 = n0 + step < p->rows ? n0 + step : p->rows;
        status = read_checked(w, x, n0 * p->inner, (n1 - n0) * p->inner, rows);
        if (!status)
            simd->pack(saw_precision_dtype(precision), rows, p->inner, 1, n0, n1, p->inner,
                       (void *)p->data);
    }
    saw_free(w->ctx, rows);
    if (status) {
        saw_free(w->ctx, p);
        return status;
    }
    w->bytes += p->bytes;
    *out = x->packed[precision] = p;
    return SAW_OK;
}
