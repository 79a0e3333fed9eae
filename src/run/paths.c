#include "run/paths.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fts.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static const char *ending(const char *path)
{
    const char *name = base_name(path), *dot = strrchr(name, '.');
    return dot && dot > name ? dot + 1 : "";
}

static bool is_one_of(const char *word, const char *const *words)
{
    for (; *words; words++)
        if (!strcasecmp(word, *words))
            return true;
    return false;
}

char *saw_path_stem(saw_context *ctx, const char *path)
{
    const char *name = base_name(path), *end = ending(path);
    return saw_strndup(ctx, name, *end ? (size_t)(end - 1 - name) : strlen(name));
}

/* Room for one more element in a list; false when memory fails. */
static bool make_room(saw_context *ctx, void **items, int count, int *room, size_t size)
{
    if (count < *room)
        return true;
    int more = *room ? 2 * *room : 16;
    void *grown = saw_realloc(ctx, *items, (size_t)more * size);
    if (!grown)
        return false;
    *items = grown;
    *room = more;
    return true;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static saw_status add_file(saw_input_list *list, const char *path, const char *folder,
                           size_t folder_length)
{
    if (!make_room(list->ctx, (void **)&list->files, list->count, &list->room, sizeof *list->files))
        return SAW_ERR_MEMORY;
    saw_input_file *f = &list->files[list->count++];
    f->path = saw_strdup(list->ctx, path);
    f->folder = saw_strndup(list->ctx, folder, folder_length);
    return f->path && f->folder ? SAW_OK : SAW_ERR_MEMORY;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static saw_status add_folder(saw_input_list *list, const char *path, const struct stat *except)
{
    static const char *const audio[] = {"wav",  "wave", "w64", "rf64", "flac", "ogg", "oga", "opus",
                                        "mp3",  "mp2",  "aif", "aiff", "aifc", "au",  "snd", "caf",
                                        "m4a",  "m4b",  "aac", "alac", "ape",  "wma", "wv",  "mka",
                                        "weba", "amr",  "ac3", "dts",  NULL};
    int before = list->count;
    char *roots[] = {(char *)path, NULL};
    FTS *tree = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    if (!tree)
        return saw_fail(list->ctx, SAW_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    saw_status status = SAW_OK;
    size_t root = strlen(path);
    for (FTSENT *e; !status && (e = fts_read(tree));) {
        if (e->fts_info == FTS_D && e->fts_level > 0 &&
            (e->fts_name[0] == '.' || (except && e->fts_statp->st_dev == except->st_dev &&
                                       e->fts_statp->st_ino == except->st_ino))) {
            fts_set(tree, e, FTS_SKIP);
        } else if (e->fts_info == FTS_DNR) {
            status = saw_fail(list->ctx, SAW_ERR_IO, "%s: cannot be read: %s", e->fts_path,
                              strerror(e->fts_errno));
        } else if (e->fts_info == FTS_F && e->fts_name[0] != '.' &&
                   is_one_of(ending(e->fts_name), audio)) {
            const char *below = e->fts_path + root;
            while (*below == '/')
                below++;
            status = add_file(list, e->fts_path, below, (size_t)(base_name(below) - below));
        }
    }
    fts_close(tree);
    if (!status && list->count == before)
        status = saw_fail(list->ctx, SAW_ERR_IO, "%s: the folder holds no audio files", path);
    return status;
}

saw_status saw_inputs_add(saw_input_list *list, const char *path, const char *except)
{
    struct stat s, e;
    if (!strcmp(path, "-"))
        return add_file(list, path, "", 0);
    if (stat(path, &s))
        return saw_fail(list->ctx, SAW_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    if (S_ISDIR(s.st_mode))
        return add_folder(list, path, except && !stat(except, &e) ? &e : NULL);
    return add_file(list, path, "", 0);
}

void saw_inputs_free(saw_input_list *list)
{
    for (int i = 0; i < list->count; i++) {
        saw_free(list->ctx, list->files[i].path);
        saw_free(list->ctx, list->files[i].folder);
    }
    saw_free(list->ctx, list->files);
    *list = (saw_input_list){.ctx = list->ctx};
}

/* ---- outputs --------------------------------------------------------------------------------- */

static void add_safe(saw_buffer *b, const char *text)
{
    if (text[strspn(text, ".")] == 0)
        text = "_";
    for (; *text; text++) {
        char c = *text == '/' || (unsigned char)*text < 32 || *text == 127 ? '_' : *text;
        saw_buffer_add(b, &c, 1);
    }
}

static bool climbs(const char *path)
{
    for (const char *p = path; *p; p += strcspn(p, "/"), p += *p == '/')
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0))
            return true;
    return false;
}

saw_status saw_output_path(saw_context *ctx, const char *out_dir, const char *template_text,
                           const saw_input_file *input, const char *stem, const char *model,
                           const char *extension, char **out)
{
    *out = NULL;
    size_t n = strlen(template_text);
    if (n == 0 || template_text[0] == '/' || template_text[n - 1] == '/' || climbs(template_text))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the template %s makes no sense: it is a path below the output folder, as "
                        "{track}/{stem}",
                        template_text);
    char *track =
        strcmp(input->path, "-") ? saw_path_stem(ctx, input->path) : saw_strdup(ctx, "stdin");
    if (!track)
        return SAW_ERR_MEMORY;
    const struct {
        const char *name, *value;
    } fields[] = {{"{track}", track}, {"{stem}", stem}, {"{model}", model}};
    saw_buffer b = {.ctx = ctx};
    saw_status status = SAW_OK;
    saw_buffer_printf(&b, "%s/%s", *out_dir ? out_dir : ".", input->folder);
    for (const char *p = template_text; *p && !status;) {
        size_t i = 0, count = sizeof fields / sizeof *fields;
        while (i < count && strncmp(p, fields[i].name, strlen(fields[i].name)))
            i++;
        if (i < count) {
            add_safe(&b, fields[i].value);
            p += strlen(fields[i].name);
        } else if (*p == '{' || *p == '}') {
            status = saw_fail(ctx, SAW_ERR_ARGUMENT,
                              "the template %s has a field that is unknown: there are {track}, "
                              "{stem} and {model}",
                              template_text);
        } else {
            saw_buffer_add(&b, p++, 1);
        }
    }
    saw_buffer_printf(&b, ".%s", extension);
    saw_free(ctx, track);
    if (!status && b.failed)
        status = SAW_ERR_MEMORY;
    if (status)
        saw_buffer_free(&b);
    else
        *out = b.data;
    return status;
}

void saw_remove_leftovers(saw_context *ctx, const char *path)
{
    const char *name = base_name(path);
    size_t n = strlen(name);
    char *folder = saw_strndup(ctx, path, (size_t)(name - path));
    DIR *d = folder ? opendir(*folder ? folder : ".") : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        int64_t pid;
        if (strncmp(e->d_name, name, n) || strncmp(e->d_name + n, ".part", 5) ||
            !saw_parse_int64(e->d_name + n + 5, &pid) || pid <= 1 || pid > INT32_MAX)
            continue;
        if (kill((pid_t)pid, 0) && errno == ESRCH)
            unlinkat(dirfd(d), e->d_name, 0);
    }
    if (d)
        closedir(d);
    saw_free(ctx, folder);
}

/* ---- models ---------------------------------------------------------------------------------- */

static const char *const checkpoint_endings[] = {"safetensors", "ckpt", "pt", "pth",
                                                 "th",          "chpt", NULL};

static char *own_share_folder(saw_context *ctx)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return saw_strdup(ctx, "/usr/share/bandsaw/models");
    self[n] = 0;
    *strrchr(self, '/') = 0;
    return saw_format(ctx, "%s/../share/bandsaw/models", self);
}

static saw_status list_folder(saw_known_models *known, const char *folder)
{
    DIR *d = opendir(folder);
    if (!d)
        return SAW_OK;
    saw_status status = SAW_OK;
    for (struct dirent *e; !status && (e = readdir(d));) {
        if (e->d_name[0] == '.' || !is_one_of(ending(e->d_name), checkpoint_endings))
            continue;
        char *name = saw_path_stem(known->ctx, e->d_name);
        bool hidden = false;
        for (int i = 0; name && i < known->count; i++)
            hidden |= !strcmp(known->models[i].name, name);
        char *path = name && !hidden ? saw_format(known->ctx, "%s/%s", folder, e->d_name) : NULL;
        if (path && make_room(known->ctx, (void **)&known->models, known->count, &known->room,
                              sizeof *known->models)) {
            known->models[known->count++] = (saw_known_model){name, path};
            continue;
        }
        if (!hidden)
            status = SAW_ERR_MEMORY;
        saw_free(known->ctx, name);
        saw_free(known->ctx, path);
    }
    closedir(d);
    return status;
}

static int by_model_name(const void *a, const void *b)
{
    return strcmp(((const saw_known_model *)a)->name, ((const saw_known_model *)b)->name);
}

saw_status saw_known_models_list(saw_context *ctx, saw_known_models *out)
{
    *out = (saw_known_models){.ctx = ctx};
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    out->folders[0] = data && *data
                          ? saw_format(ctx, "%s/bandsaw/models", data)
                          : saw_format(ctx, "%s/.local/share/bandsaw/models", home ? home : "");
    const char *cache = getenv("XDG_CACHE_HOME");
    out->folders[1] = cache && *cache
                          ? saw_format(ctx, "%s/bandsaw/models", cache)
                          : saw_format(ctx, "%s/.cache/bandsaw/models", home ? home : "");
    out->folders[2] = own_share_folder(ctx);
    saw_status status = SAW_OK;
    for (int i = 0; i < 3 && !status; i++)
        status = out->folders[i] ? list_folder(out, out->folders[i]) : SAW_ERR_MEMORY;
    if (out->count)
        qsort(out->models, (size_t)out->count, sizeof *out->models, by_model_name);
    return status;
}

void saw_known_models_free(saw_known_models *known)
{
    for (int i = 0; i < known->count; i++) {
        saw_free(known->ctx, known->models[i].name);
        saw_free(known->ctx, known->models[i].path);
    }
    saw_free(known->ctx, known->models);
    for (int i = 0; i < 3; i++)
        saw_free(known->ctx, known->folders[i]);
    *known = (saw_known_models){.ctx = known->ctx};
}

saw_status saw_known_models_find(const saw_known_models *known, const char *name, const char **path)
{
    *path = NULL;
    if (!access(name, F_OK)) {
        *path = name;
        return SAW_OK;
    }
    for (int i = 0; i < known->count; i++)
        if (!strcmp(known->models[i].name, name)) {
            *path = known->models[i].path;
            return SAW_OK;
        }
    return saw_fail(known->ctx, SAW_ERR_ARGUMENT,
                    "%s: there is no such file, and no model of this name in %s (`bandsaw separate "
                    "--list-models` shows what there is, `bandsaw model list` what can be fetched)",
                    name, known->folders[0]);
}
