/*
 * safetensors.c - u64 header length, a JSON header {name: {dtype, shape, data_offsets}}, the data.
 *
 * Read strictly: the tensors must cover the data without a gap or an overlap, as the format
 * demands.
 */
#include "io/checkpoint_file.h"

#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t MAX_HEADER_BYTES = 16u << 20; /* 2000 tensors need 0.3 MB */

/* The dtypes that the format has and this library has not: bytes of an element. */
static const struct {
    const char *name;
    uint64_t bytes;
} FOREIGN[] = {{"U16", 2},     {"U32", 4},     {"U64", 8}, {"F8_E4M3", 1},
               {"F8_E5M2", 1}, {"F8_E8M0", 1}, {"C64", 8}};

static void upper_name(saw_dtype dtype, char out[8])
{
    size_t i = 0;
    for (const char *p = saw_dtype_name(dtype); *p; p++)
        out[i++] = (char)toupper((unsigned char)*p);
    out[i] = 0;
}

static bool find_dtype(const char *name, saw_dtype *dtype)
{
    char known[8];
    for (int i = 0; i < SAW_DTYPE_COUNT; i++) {
        upper_name((saw_dtype)i, known);
        if (!strcmp(known, name)) {
            *dtype = (saw_dtype)i;
            return true;
        }
    }
    return false;
}

static saw_status damaged(saw_checkpoint *ck, const char *name, const char *what)
{
    return saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: is damaged: tensor '%.200s' %s",
                    saw_file_path(ck->file), name, what);
}

static saw_status read_meta(saw_checkpoint *ck, json_t *object)
{
    const char *key;
    json_t *value;
    ck->meta = saw_pool_alloc(&ck->pool, 2 * json_object_size(object) * sizeof *ck->meta);
    if (!ck->meta)
        return SAW_ERR_MEMORY;
    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value))
            return saw_fail(ck->ctx, SAW_ERR_FORMAT,
                            "%s: is damaged: metadata '%.200s' is not a string",
                            saw_file_path(ck->file), key);
        const char *k = saw_pool_strndup(&ck->pool, key, strlen(key));
        const char *v =
            saw_pool_strndup(&ck->pool, json_string_value(value), json_string_length(value));
        if (!k || !v)
            return SAW_ERR_MEMORY;
        ck->meta[2 * ck->meta_count] = k;
        ck->meta[2 * ck->meta_count++ + 1] = v;
        saw_ckpt_note(ck, "metadata %s: %s", k, v);
    }
    return SAW_OK;
}

static saw_status read_entry(saw_checkpoint *ck, const char *name, json_t *object,
                             uint64_t data_start, uint64_t data_bytes, saw_byte_range *range)
{
    const char *dtype_name = json_string_value(json_object_get(object, "dtype"));
    json_t *shape = json_object_get(object, "shape"),
           *offsets = json_object_get(object, "data_offsets");
    if (!dtype_name || !json_is_array(shape) || !json_is_array(offsets) ||
        json_array_size(offsets) != 2)
        return damaged(ck, name, "has no dtype, shape or data_offsets");
    if (json_array_size(shape) > SAW_MAX_DIMS)
        return damaged(ck, name, "has more than 8 dimensions");
    json_t *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    json_int_t begin = json_integer_value(b), end = json_integer_value(e);
    if (!json_is_integer(b) || !json_is_integer(e) || begin < 0 || end < begin ||
        (uint64_t)end > data_bytes)
        return damaged(ck, name, "lies outside the file (is the file cut short?)");
    *range = (saw_byte_range){(uint64_t)begin, (uint64_t)(end - begin)};

    saw_ckpt_tensor t = {.ndim = (int)json_array_size(shape)};
    size_t count = 1, bytes, size = 0;
    for (int d = t.ndim - 1; d >= 0; d--) {
        json_t *dim = json_array_get(shape, (size_t)d);
        t.dims[d] = json_integer_value(dim);
        t.strides[d] = (int64_t)count;
        if (!json_is_integer(dim) || t.dims[d] < 0 ||
            !saw_mul_size(count, (size_t)t.dims[d], &count) || count > INT64_MAX / 8)
            return damaged(ck, name, "has an impossible shape");
    }
    bool known = find_dtype(dtype_name, &t.dtype);
    for (size_t i = 0; i < sizeof FOREIGN / sizeof *FOREIGN && !known; i++)
        if (!strcmp(dtype_name, FOREIGN[i].name))
            size = FOREIGN[i].bytes;
    if (known)
        size = saw_dtype_bytes(t.dtype);
    if (!size)
        return damaged(ck, name, "has an unknown dtype");
    if (!saw_mul_size(count, size, &bytes) || bytes != range->bytes)
        return damaged(ck, name, "has a shape that does not fit its bytes");
    if (!known) {
        saw_ckpt_note(ck, "tensor %s was skipped: dtype %s is not supported", name, dtype_name);
        return SAW_OK;
    }
    return saw_ckpt_add(ck, name, strlen(name), &t,
                        (saw_byte_range){data_start + range->offset, range->bytes}, 0);
}

static int by_offset(const void *a, const void *b)
{
    const saw_byte_range *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first */
}

static saw_status read_header(saw_checkpoint *ck, json_t *root, uint64_t data_start)
{
    uint64_t data_bytes = saw_file_size(ck->file) - data_start, at = 0;
    size_t n = 0, entries = json_object_size(root);
    saw_byte_range *ranges = saw_calloc(ck->ctx, entries, sizeof *ranges);
    saw_status status = ranges ? SAW_OK : SAW_ERR_MEMORY;
    const char *name;
    json_t *object;
    json_object_foreach(root, name, object)
    {
        if (status)
            break;
        if (!json_is_object(object))
            status = damaged(ck, name, "is not described by an object");
        else if (!strcmp(name, "__metadata__"))
            status = read_meta(ck, object);
        else
            status = read_entry(ck, name, object, data_start, data_bytes, &ranges[n++]);
    }
    if (!status)
        qsort(ranges, n, sizeof *ranges, by_offset);
    for (size_t i = 0; i < n && !status; i++) {
        if (ranges[i].offset != at)
            status = saw_fail(
                ck->ctx, SAW_ERR_FORMAT, "%s: is damaged: tensors %s at byte %llu of the data",
                saw_file_path(ck->file), ranges[i].offset < at ? "overlap" : "leave a gap",
                (unsigned long long)at);
        at = ranges[i].offset + ranges[i].bytes;
    }
    if (!status && at != data_bytes)
        status = saw_fail(ck->ctx, SAW_ERR_FORMAT,
                          "%s: is damaged: %llu bytes at its end belong to no tensor",
                          saw_file_path(ck->file), (unsigned long long)(data_bytes - at));
    saw_free(ck->ctx, ranges);
    return status;
}

saw_status saw_read_safetensors(saw_checkpoint *ck)
{
    uint64_t size = saw_file_size(ck->file), header_bytes;
    const char *path = saw_file_path(ck->file);
    ck->container = "safetensors";
    saw_status status = saw_file_read(ck->file, 0, &header_bytes, 8);
    if (status)
        return status;
    if (header_bytes > size - 8 || header_bytes > MAX_HEADER_BYTES)
        return saw_fail(
            ck->ctx, SAW_ERR_FORMAT,
            "%s: its safetensors header has %llu bytes, the file %llu: it is cut short or damaged",
            path, (unsigned long long)header_bytes, (unsigned long long)size);
    char *text = saw_alloc(ck->ctx, (size_t)header_bytes);
    if (!text)
        return SAW_ERR_MEMORY;
    status = saw_file_read(ck->file, 8, text, (size_t)header_bytes);
    json_error_t error;
    json_t *root = NULL;
    if (!status) {
        root = json_loadb(text, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &error);
        if (!json_is_object(root))
            status = saw_fail(ck->ctx, SAW_ERR_FORMAT, "%s: its safetensors header is damaged: %s",
                              path, root ? "it is no object" : error.text);
    }
    saw_free(ck->ctx, text);
    if (!status)
        status = read_header(ck, root, 8 + header_bytes);
    json_decref(root);
    return status;
}

/* ---- writer ------------------------------------------------------------------------------------ ---- */

struct saw_safetensors {
    saw_context *ctx;
    saw_atomic_file file;
    uint64_t left_bytes;
};

static saw_status write_header(saw_safetensors *w, saw_buffer *b,
                               const saw_safetensors_entry *entries, int n, const char *const *meta,
                               int n_meta)
{
    saw_status bad = SAW_OK;
    size_t at = 0, count;
    char dtype[8];
    saw_name_map names = {.ctx = w->ctx};
    saw_buffer_printf(b, "{");
    if (n_meta) {
        saw_buffer_printf(b, "\"__metadata__\":{");
        for (int i = 0; i < 2 * n_meta && !bad; i++) {
            saw_buffer_printf(b, "%s", i == 0 ? "" : i % 2 ? ":" : ",");
            if (!saw_json_add_string(b, meta[i]))
                bad =
                    saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: metadata must be UTF-8", w->file.path);
        }
        saw_buffer_printf(b, "}");
    }
    for (int i = 0; i < n && !bad; i++) {
        const saw_safetensors_entry *e = &entries[i];
        if (saw_name_map_get(&names, e->name, strlen(e->name)) || !strcmp(e->name, "__metadata__"))
            bad = saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: tensor '%.200s' is named twice",
                           w->file.path, e->name);
        else
            bad = saw_name_map_put(&names, e->name, strlen(e->name), 0);
        saw_buffer_printf(b, "%s", i || n_meta ? "," : "");
        if (!bad && !saw_json_add_string(b, e->name))
            bad = saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: the name of tensor %d is not UTF-8",
                           w->file.path, i);
        upper_name(e->dtype, dtype);
        saw_buffer_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
        count = saw_dtype_bytes(e->dtype);
        for (int d = 0; d < e->ndim; d++) {
            saw_buffer_printf(b, "%s%lld", d ? "," : "", (long long)e->dims[d]);
            if (!bad && (e->dims[d] < 0 || !saw_mul_size(count, (size_t)e->dims[d], &count)))
                bad =
                    saw_fail(w->ctx, SAW_ERR_ARGUMENT,
                             "%s: tensor '%.200s' has an impossible shape", w->file.path, e->name);
        }
        saw_buffer_printf(b, "],\"data_offsets\":[%zu,", at);
        if (!bad && !saw_add_size(at, count, &at))
            bad = saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: the tensors are too large together",
                           w->file.path);
        saw_buffer_printf(b, "%zu]}", at);
    }
    saw_buffer_printf(b, "}");
    while (b->size % 8 && !b->failed)
        saw_buffer_add(b, " ", 1);
    saw_name_map_free(&names);
    w->left_bytes = at;
    return b->failed ? SAW_ERR_MEMORY : bad;
}

static saw_status put(saw_safetensors *w, const void *data, size_t bytes)
{
    if (bytes && fwrite(data, 1, bytes, w->file.file) != bytes)
        return saw_fail(w->ctx, SAW_ERR_IO, "%s: cannot be written (is the disk full?)",
                        w->file.path);
    return SAW_OK;
}

saw_status saw_safetensors_create(saw_context *ctx, const char *path,
                                  const saw_safetensors_entry *entries, int n,
                                  const char *const *meta, int n_meta, saw_safetensors **out)
{
    *out = NULL;
    saw_safetensors *w = saw_calloc(ctx, 1, sizeof *w);
    if (!w)
        return SAW_ERR_MEMORY;
    w->ctx = ctx;
    saw_buffer header = {.ctx = ctx};
    saw_status status = saw_atomic_open(ctx, path, &w->file);
    if (!status)
        status = write_header(w, &header, entries, n, meta, n_meta);
    uint64_t header_bytes = header.size;
    if (!status)
        status = put(w, &header_bytes, 8);
    if (!status)
        status = put(w, header.data, header.size);
    saw_buffer_free(&header);
    if (status) {
        saw_safetensors_abort(w);
        return status;
    }
    *out = w;
    return SAW_OK;
}

saw_status saw_safetensors_write(saw_safetensors *w, const void *data, size_t bytes)
{
    if (bytes > w->left_bytes)
        return saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: more data than its tensors have",
                        w->file.path);
    w->left_bytes -= bytes;
    return put(w, data, bytes);
}

saw_status saw_safetensors_commit(saw_safetensors *w)
{
    saw_status status = SAW_OK;
    if (w->left_bytes)
        status =
            saw_fail(w->ctx, SAW_ERR_ARGUMENT, "%s: %llu bytes of its tensors were not written",
                     w->file.path, (unsigned long long)w->left_bytes);
    else
        status = saw_atomic_commit(&w->file);
    saw_safetensors_abort(w);
    return status;
}

void saw_safetensors_abort(saw_safetensors *w)
{
    if (!w)
        return;
    saw_atomic_abort(&w->file);
    saw_free(w->ctx, w);
}
