#include "run/model_file.h"

#include <string.h>
#include <unistd.h>

/* Names tried beside folder/stem.ext; %s is the stem. "config.yaml" is what the public projects call theirs. */
static const char *const beside[] = {"%s.yaml", "%s.yml", "%s.json", "config_%s.yaml", "%s_config.yaml",
                                     "%s.ckpt.yaml", "config.yaml"};

static char *find_beside(saw_context *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    const char *dot = strrchr(path + folder, '.');
    size_t stem = dot ? (size_t)(dot - path) - folder : strlen(path + folder);
    for (size_t i = 0; i < sizeof beside / sizeof *beside; i++) {
        const char *at = strstr(beside[i], "%s");
        char *name = at ? saw_format(ctx, "%.*s%.*s%.*s%s", (int)folder, path, (int)(at - beside[i]), beside[i],
                                     (int)stem, path + folder, at + 2)
                        : saw_format(ctx, "%.*s%s", (int)folder, path, beside[i]);
        if (name && strcmp(name, path) && access(name, R_OK) == 0)
            return name;
        saw_free(ctx, name);
    }
    return NULL;
}

saw_status saw_model_file_config(saw_context *ctx, const saw_checkpoint *ck, const char *path, const char *named,
                                 saw_config **out, char **config_path)
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
static saw_status copy_with(saw_context *ctx, saw_config *to, const saw_config *from, const char *path,
                            const saw_config *value)
{
    size_t head = strcspn(path, ".");
    char *key = saw_strndup(ctx, path, head);
    saw_status status = key ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < saw_config_size(from) && !status; i++)
        if (strcmp(saw_config_key(from, i), key))
            status = saw_config_put_copy(to, saw_config_key(from, i), saw_config_at(from, i));
    if (!status && path[head]) {
        saw_config *inner = saw_config_put_map(to, key);
        status = inner ? copy_with(ctx, inner, saw_config_get(from, key), path + head + 1, value) : SAW_ERR_MEMORY;
    } else if (!status) {
        status = saw_config_put_copy(to, key, value);
    }
    saw_free(ctx, key);
    return status;
}

saw_status saw_model_file_merge(saw_context *ctx, const saw_config *base, const char *const *settings, int n,
                                saw_config **out)
{
    *out = NULL;
    for (int i = 0; i < n; i++) {
        const char *equals = strchr(settings[i], '=');
        if (!equals || equals == settings[i])
            return saw_fail(ctx, SAW_ERR_ARGUMENT, "the setting %s is not of the form KEY=VALUE, as model.stft_hop_length=512",
                            settings[i]);
        saw_config *value = NULL, *next = saw_config_new(ctx);
        char *path = saw_strndup(ctx, settings[i], (size_t)(equals - settings[i]));
        saw_status status = next && path ? SAW_OK : SAW_ERR_MEMORY;
        if (!status)
            status = saw_config_parse_yaml(ctx, settings[i], equals + 1, strlen(equals + 1), &value);
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

bool saw_model_file_is_extra(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && !strcmp(name + n - 6, ".scale");
}
