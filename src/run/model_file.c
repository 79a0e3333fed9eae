#include "run/model_file.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

/* Names tried beside folder/stem.ext; %s is the stem. "config.yaml" is what the public projects
 * call theirs. */
static const char *const beside[] = {"%s.yaml",        "%s.yml",         "%s.json",
                                     "config_%s.yaml", "%s_config.yaml", "%s.ckpt.yaml",
                                     "config.yaml"};

static char *find_beside(saw_context *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    const char *dot = strrchr(path + folder, '.');
    size_t stem = dot ? (size_t)(dot - path) - folder : strlen(path + folder);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        const char *at = strstr(beside[i], "%s");
        char *name =
            at ? saw_format(ctx, "%.*s%.*s%.*s%s", (int)folder, path, (int)(at - beside[i]),
                            beside[i], (int)stem, path + folder, at + 2)
               : saw_format(ctx, "%.*s%s", (int)folder, path, beside[i]);
        if (name && strcmp(name, path) && access(name, R_OK) == 0)
            return name;
        saw_free(ctx, name);
    }
    return NULL;
}

saw_status saw_model_file_config(saw_context *ctx, const saw_checkpoint *ck, const char *path,
                                 const char *named, saw_config **out, char **config_path)
{
    *out = NULL;
    *config_path = NULL;
    const char *inside = saw_checkpoint_meta(ck, SAW_MODEL_FILE_KEY);
    if (inside && !named)
        return saw_config_parse_json(ctx, path, inside, strlen(inside), out);
    *config_path = named ? saw_strdup(ctx, named) : find_beside(ctx, path);
    if (named && !*config_path)
        return SAW_ERR_MEMORY;
    return *config_path ? saw_config_load(ctx, *config_path, out) : SAW_OK;
}

/* Copy the entries of a map, and put the value at a path of keys. */
static saw_status copy_with(saw_context *ctx, saw_config *to, const saw_config *from,
                            const char *path, const saw_config *value)
{
    size_t head = strcspn(path, ".");
    char *key = saw_strndup(ctx, path, head);
    saw_status status = key ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < saw_config_size(from) && !status; i++)
        if (strcmp(saw_config_key(from, i), key))
            status = saw_config_put_copy(to, saw_config_key(from, i), saw_config_at(from, i));
    if (!status && path[head]) {
        saw_config *inner = saw_config_put_map(to, key);
        status = inner ? copy_with(ctx, inner, saw_config_get(from, key), path + head + 1, value)
                       : SAW_ERR_MEMORY;
    } else if (!status) {
        status = saw_config_put_copy(to, key, value);
    }
    saw_free(ctx, key);
    return status;
}

saw_status saw_model_file_merge(saw_context *ctx, const saw_config *base,
                                const char *const *settings, int n, saw_config **out)
{
    *out = NULL;
    for (int i = 0; i < n; i++) {
        const char *equals = strchr(settings[i], '=');
        if (!equals || equals == settings[i])
            return saw_fail(
                ctx, SAW_ERR_ARGUMENT,
                "the setting %s is not of the form KEY=VALUE, as model.stft_hop_length=512",
                settings[i]);
        saw_config *value = NULL, *next = saw_config_new(ctx);
        char *path = saw_strndup(ctx, settings[i], (size_t)(equals - settings[i]));
        saw_status status = next && path ? SAW_OK : SAW_ERR_MEMORY;
        if (!status)
            status =
                saw_config_parse_yaml(ctx, settings[i], equals + 1, strlen(equals + 1), &value);
        if (!status)
            status = copy_with(ctx, next, *out ? *out : base, path, value);
        saw_free(ctx, path);
        saw_config_free(value);
        saw_config_free(*out);
        *out = status ? NULL : next;
        if (status) {
            saw_config_free(next);
            return status;
        }
    }
    return SAW_OK;
}

/* ---- int8 weights ---------------------------------------------------------------------------- */

enum { NAME_ROOM = 512 };

const saw_ckpt_tensor *saw_model_file_scale(const saw_checkpoint *ck, const saw_ckpt_tensor *t)
{
    char name[NAME_ROOM];
    if (t->dtype != SAW_I8 || t->ndim < 1 ||
        snprintf(name, sizeof name, "%s.scale", t->name) >= NAME_ROOM)
        return NULL;
    const saw_ckpt_tensor *scale = saw_checkpoint_find(ck, name);
    return scale && scale->dtype == SAW_F32 && scale->count == t->dims[0] ? scale : NULL;
}

bool saw_model_file_is_scale(const saw_checkpoint *ck, const saw_ckpt_tensor *t)
{
    char name[NAME_ROOM];
    size_t n = strlen(t->name);
    if (n < 7 || n >= NAME_ROOM || strcmp(t->name + n - 6, ".scale"))
        return false;
    memcpy(name, t->name, n - 6);
    name[n - 6] = 0;
    const saw_ckpt_tensor *of = saw_checkpoint_find(ck, name);
    return of && saw_model_file_scale(ck, of) == t;
}

bool saw_model_file_is_number(const saw_checkpoint *ck, const saw_ckpt_tensor *t)
{
    return t->dtype == SAW_F32 || t->dtype == SAW_F64 || t->dtype == SAW_F16 ||
           t->dtype == SAW_BF16 || saw_model_file_scale(ck, t);
}

saw_status saw_model_file_read_f32(saw_checkpoint *ck, const saw_ckpt_tensor *t, int64_t first,
                                   int64_t n, float *out)
{
    saw_status status = saw_checkpoint_read_f32(ck, t, first, n, out);
    const saw_ckpt_tensor *scale = status || n == 0 ? NULL : saw_model_file_scale(ck, t);
    if (!scale)
        return status;
    float scales[256];
    int64_t inner = t->count / t->dims[0], loaded = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = (first + i) / inner;
        if (loaded < 0 || row >= loaded + 256) {
            int64_t left = t->dims[0] - row;
            status = saw_checkpoint_read_f32(ck, scale, row, left < 256 ? left : 256, scales);
            if (status)
                return status;
            loaded = row;
        }
        out[i] *= scales[row - loaded];
    }
    return SAW_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

saw_status saw_model_file_tensors(saw_context *ctx, const saw_checkpoint *ck,
                                  saw_safetensors_entry **out, int *count)
{
    int n = saw_checkpoint_count(ck);
    *count = 0;
    *out = saw_calloc(ctx, (size_t)n + 1, sizeof **out);
    if (!*out)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        if (!saw_model_file_is_number(ck, t) || saw_model_file_is_scale(ck, t))
            continue;
        saw_safetensors_entry *e = &(*out)[(*count)++];
        *e = (saw_safetensors_entry){.name = t->name, .dtype = SAW_F32, .ndim = t->ndim};
        memcpy(e->dims, t->dims, sizeof t->dims);
    }
    return SAW_OK;
}

static saw_status write_tensor(saw_context *ctx, saw_safetensors *out, const saw_model_parts *parts,
                               const saw_safetensors_entry *e, float *block, int64_t room)
{
    int64_t count = 1;
    for (int i = 0; i < e->ndim; i++)
        count *= e->dims[i];
    saw_status status = SAW_OK;
    for (int64_t at = 0, n; at < count && !status; at += n) {
        n = count - at < room ? count - at : room;
        status = parts->read(parts->user, e->name, at, n, block);
        for (int64_t i = 0; i < n && !status; i++)
            if (!isfinite(block[i]))
                status = saw_fail(ctx, SAW_ERR_FORMAT,
                                  "the tensor %s has a value that is not a finite number", e->name);
        if (!status)
            status = saw_safetensors_write(out, block, (size_t)n * sizeof *block);
    }
    return status;
}

saw_status saw_model_file_write(saw_context *ctx, const char *path, const saw_model_parts *parts)
{
    enum { ROOM = 1 << 16 };
    saw_buffer json = {.ctx = ctx};
    saw_safetensors *out = NULL;
    float *block = saw_alloc(ctx, ROOM * sizeof *block);
    saw_status status = block ? SAW_OK : SAW_ERR_MEMORY;
    if (!status && parts->config)
        status = saw_config_write_json(parts->config, &json);
    const char *meta[] = {"bandsaw.architecture", parts->architecture, SAW_MODEL_FILE_KEY,
                          json.data};
    if (!status)
        status = saw_safetensors_create(ctx, path, parts->tensors, parts->count, meta,
                                        parts->config ? 2 : 1, &out);
    for (int i = 0; i < parts->count && !status; i++)
        status = write_tensor(ctx, out, parts, &parts->tensors[i], block, ROOM);
    if (status)
        saw_safetensors_abort(out);
    else
        status = saw_safetensors_commit(out);
    saw_buffer_free(&json);
    saw_free(ctx, block);
    return status;
}
