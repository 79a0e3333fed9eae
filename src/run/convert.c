#include "run/convert.h"

#include "run/model_file.h"
#include "run/separator.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 1 << 16, NAME_ROOM = 512 };

typedef struct converter {
    saw_context *ctx;
    saw_checkpoint *ck;
    saw_dtype dtype;
    saw_program *plan;
    saw_safetensors *out;
    float *x;      /* BLOCK or one row, whichever is more */
    void *y;       /* the same in the new dtype */
    float *scales; /* of one tensor */
} converter;

/* Whether the tensor is a weight of a product in the model's program. */
static bool is_product_weight(const converter *c, const char *name)
{
    const saw_graph *g = saw_program_graph(c->plan);
    saw_val v = saw_graph_find(g, name);
    for (int i = 0; v && i < saw_graph_entries(g); i++) {
        const saw_entry *e = saw_graph_entry(g, i);
        for (int k = 0; k < e->n_in && e->op->pack; k++)
            if (e->in[k] == v && e->op->pack(e->attr, k) == SAW_PACK_GEMM)
                return true;
    }
    return false;
}

static saw_dtype new_dtype(const converter *c, const saw_ckpt_tensor *t)
{
    if (!saw_model_file_is_number(c->ck, t))
        return t->dtype;
    return t->ndim >= 2 && t->count > 0 && is_product_weight(c, t->name) ? c->dtype : SAW_F32;
}

static saw_status read_finite(converter *c, const saw_ckpt_tensor *t, int64_t first, int64_t n)
{
    saw_status status = saw_model_file_read_f32(c->ck, t, first, n, c->x);
    for (int64_t i = 0; i < n && !status; i++)
        if (!isfinite(c->x[i]))
            status = saw_fail(c->ctx, SAW_ERR_FORMAT,
                              "the tensor %s has a value that is not a finite number", t->name);
    return status;
}

static saw_status write_raw(converter *c, const saw_ckpt_tensor *t)
{
    size_t bytes = saw_dtype_bytes(t->dtype);
    saw_status status = SAW_OK;
    for (int64_t at = 0, n; at < t->count && !status; at += n) {
        n = t->count - at < BLOCK / 2 ? t->count - at : BLOCK / 2; /* x holds BLOCK floats */
        status = saw_checkpoint_read_raw(c->ck, t, at, n, c->x);
        if (!status)
            status = saw_safetensors_write(c->out, c->x, (size_t)n * bytes);
    }
    return status;
}

static saw_status write_numbers(converter *c, const saw_ckpt_tensor *t, saw_dtype dtype)
{
    saw_status status = SAW_OK;
    for (int64_t at = 0, n; at < t->count && !status; at += n) {
        n = t->count - at < BLOCK ? t->count - at : BLOCK;
        status = read_finite(c, t, at, n);
        if (status)
            break;
        uint16_t *half = c->y;
        for (int64_t i = 0; i < n && dtype != SAW_F32; i++)
            half[i] = dtype == SAW_F16 ? saw_f32_to_f16(c->x[i]) : saw_f32_to_bf16(c->x[i]);
        status = saw_safetensors_write(c->out, dtype == SAW_F32 ? (void *)c->x : c->y,
                                       (size_t)n * saw_dtype_bytes(dtype));
    }
    return status;
}

static saw_status write_int8(converter *c, const saw_ckpt_tensor *t)
{
    int64_t inner = t->count / t->dims[0];
    saw_status status = SAW_OK;
    for (int64_t row = 0; row < t->dims[0] && !status; row++) {
        status = read_finite(c, t, row * inner, inner);
        if (status)
            break;
        float most = 0;
        for (int64_t i = 0; i < inner; i++)
            most = fmaxf(most, fabsf(c->x[i]));
        c->scales[row] = most / 127;
        int8_t *q = c->y;
        for (int64_t i = 0; i < inner; i++)
            q[i] = (int8_t)(most > 0 ? lrint((double)c->x[i] * 127 / most) : 0);
        status = saw_safetensors_write(c->out, q, (size_t)inner);
    }
    return status ? status
                  : saw_safetensors_write(c->out, c->scales, (size_t)t->dims[0] * sizeof(float));
}

/* The entries of the new file, with a scale behind every int8 weight; names [][NAME_ROOM] of the
 * scales. */
static saw_status list_entries(converter *c, saw_safetensors_entry *entries,
                               char (*names)[NAME_ROOM], int *count, int64_t *most_inner,
                               int64_t *most_rows, uint64_t *bytes)
{
    *count = 0;
    *most_inner = BLOCK;
    *most_rows = 1;
    *bytes = 0;
    for (int i = 0; i < saw_checkpoint_count(c->ck); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(c->ck, i);
        if (saw_model_file_is_scale(c->ck, t))
            continue;
        saw_safetensors_entry *e = &entries[(*count)++];
        *e = (saw_safetensors_entry){.name = t->name, .dtype = new_dtype(c, t), .ndim = t->ndim};
        memcpy(e->dims, t->dims, sizeof e->dims);
        *bytes += (uint64_t)t->count * saw_dtype_bytes(e->dtype);
        if (e->dtype != SAW_I8 || !saw_model_file_is_number(c->ck, t))
            continue;
        if (snprintf(names[*count], NAME_ROOM, "%s.scale", t->name) >= NAME_ROOM)
            return saw_fail(c->ctx, SAW_ERR_UNSUPPORTED, "the name %.60s... is too long", t->name);
        *bytes += (uint64_t)t->dims[0] * sizeof(float);
        *most_inner = t->count / t->dims[0] > *most_inner ? t->count / t->dims[0] : *most_inner;
        *most_rows = t->dims[0] > *most_rows ? t->dims[0] : *most_rows;
        entries[*count] = (saw_safetensors_entry){
            .name = names[*count], .dtype = SAW_F32, .ndim = 1, .dims = {t->dims[0]}};
        (*count)++;
    }
    return SAW_OK;
}

static saw_status write_file(converter *c, const char *path, const char *const *meta, int n_meta,
                             saw_convert_report *report)
{
    int most = 2 * saw_checkpoint_count(c->ck) + 1, count = 0;
    int64_t inner, rows;
    saw_safetensors_entry *entries = saw_calloc(c->ctx, (size_t)most, sizeof *entries);
    char(*names)[NAME_ROOM] = saw_calloc(c->ctx, (size_t)most, NAME_ROOM);
    saw_status status = entries && names ? SAW_OK : SAW_ERR_MEMORY;
    if (!status)
        status = list_entries(c, entries, names, &count, &inner, &rows, &report->bytes);
    if (!status) {
        c->x = saw_calloc(c->ctx, (size_t)inner, sizeof(float));
        c->y = saw_calloc(c->ctx, (size_t)inner, sizeof(uint16_t));
        c->scales = saw_calloc(c->ctx, (size_t)rows, sizeof(float));
        status = c->x && c->y && c->scales ? SAW_OK : SAW_ERR_MEMORY;
    }
    if (!status)
        status = saw_safetensors_create(c->ctx, path, entries, count, meta, n_meta, &c->out);
    for (int i = 0; i < count && !status; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_find(c->ck, entries[i].name);
        if (!t || saw_model_file_is_scale(c->ck, t))
            continue; /* written with the tensor before it */
        if (saw_cancelled(c->ctx))
            status = saw_fail(c->ctx, SAW_ERR_CANCELLED, "interrupted");
        else if (!saw_model_file_is_number(c->ck, t))
            status = write_raw(c, t);
        else if (entries[i].dtype == SAW_I8)
            status = write_int8(c, t);
        else
            status = write_numbers(c, t, entries[i].dtype);
    }
    if (!status) {
        status = saw_safetensors_commit(c->out);
        report->tensors = count;
    } else {
        saw_safetensors_abort(c->out);
    }
    saw_free(c->ctx, c->x);
    saw_free(c->ctx, c->y);
    saw_free(c->ctx, c->scales);
    saw_free(c->ctx, entries);
    saw_free(c->ctx, names);
    return status;
}

/* The model is opened as for separating: what does not fit is refused here, not after the
 * conversion. */
static saw_status check_model(converter *c, const char *in, const char *config,
                              const char **architecture, saw_convert_report *report)
{
    saw_separator *s;
    saw_status status = saw_separator_open(
        c->ctx, in, &(saw_separator_options){.config = config, .precision = SAW_PRECISION_F32}, &s);
    if (status)
        return status;
    const saw_separator_info *info = saw_separator_get_info(s);
    saw_buffer text = {.ctx = c->ctx};
    for (int i = 0; i < info->assumed_count; i++)
        saw_buffer_printf(&text, "%s%s", i ? "; " : "", info->assumed[i]);
    report->assumed = text.data;
    *architecture = saw_separator_spec(s)->model->name;
    status = saw_separator_plan(s, NULL, &c->plan);
    saw_separator_close(s);
    return status;
}

saw_status saw_convert(saw_context *ctx, const char *in, const char *config, const char *out,
                       saw_dtype dtype, saw_convert_report *report)
{
    converter c = {.ctx = ctx, .dtype = dtype};
    const char *architecture = NULL;
    saw_config *tree = NULL;
    char *config_path = NULL;
    saw_buffer json = {.ctx = ctx};
    *report = (saw_convert_report){0};
    saw_status status = check_model(&c, in, config, &architecture, report);
    if (!status)
        status = saw_checkpoint_open(ctx, in, &c.ck);
    if (!status)
        status = saw_model_import(c.ck);
    if (!status)
        status = saw_model_file_config(ctx, c.ck, in, config, &tree, &config_path);
    if (!status && tree)
        status = saw_config_write_json(tree, &json);
    const char *meta[] = {"bandsaw.architecture", architecture, SAW_MODEL_FILE_KEY, json.data};
    if (!status)
        status = write_file(&c, out, meta, tree ? 2 : 1, report);
    saw_buffer_free(&json);
    saw_config_free(tree);
    saw_free(ctx, config_path);
    saw_checkpoint_close(c.ck);
    saw_program_close(c.plan);
    if (status) {
        saw_free(ctx, report->assumed);
        report->assumed = NULL;
    }
    return status;
}
