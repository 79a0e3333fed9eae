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

bool saw_model_file_is_extra(const char *name)
{
    size_t n = strlen(name);
    return n > 6 && !strcmp(name + n - 6, ".scale");
}
