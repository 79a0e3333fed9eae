#include "datasets/layout.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

/* ---- names ----------------------------------------------------------------------------------- */

size_t saw_name_length(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && dot > name ? (size_t)(dot - name) : strlen(name);
}

static bool is_word(const char *name, size_t length, const char *word)
{
    return strlen(word) == length && !strncasecmp(name, word, length);
}

bool saw_is_mixture_name(const char *name, size_t length)
{
    return is_word(name, length, "mixture") || is_word(name, length, "mix");
}

bool saw_is_stem_name(const saw_findings *hints, const char *name, size_t length)
{
    static const char *const known[] = {
        "vocals",  "voice",   "drums",       "bass",           "other",        "guitar",   "piano",
        "keys",    "synth",   "strings",     "brass",          "instrumental", "speech",   "music",
        "effects", "target",  "residual",    "rest",           "percussion",   "dialogue", "sfx",
        "wind",    "guitars", "lead_vocals", "backing_vocals", "accompaniment"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (is_word(name, length, known[i]))
            return true;
    for (int i = 0; i < hints->n_stems; i++)
        if (is_word(name, length, hints->stems[i]))
            return true;
    return saw_is_mixture_name(name, length);
}

static bool is_audio(const char *name)
{
    static const char *const endings[] = {
        "wav",  "wave", "w64", "rf64", "flac", "ogg", "oga", "opus", "mp3", "mp2", "aif", "aiff",
        "aifc", "au",   "snd", "caf",  "m4a",  "m4b", "aac", "alac", "ape", "wma", "wv",  "mka"};
    const char *ending = name + saw_name_length(name);
    for (size_t i = 0; *ending && i < sizeof endings / sizeof *endings; i++)
        if (!strcasecmp(ending + 1, endings[i]))
            return true;
    return false;
}

/* ---- folders --------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

saw_status saw_list_folder(saw_context *ctx, const char *path, bool folders, saw_listing *out)
{
    *out = (saw_listing){.ctx = ctx};
    DIR *d = opendir(path);
    if (!d)
        return saw_fail(ctx, SAW_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
    saw_status status = SAW_OK;
    int room = 0;
    for (struct dirent *e; !status && (e = readdir(d));) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) ||
            !(folders ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode) && is_audio(e->d_name)))
            continue;
        if (out->count == room) {
            room = room ? 2 * room : 32;
            char **grown = saw_realloc(ctx, out->names, (size_t)room * sizeof *grown);
            out->names = grown ? grown : out->names;
            status = grown ? SAW_OK : SAW_ERR_MEMORY;
        }
        if (!status && (out->names[out->count] = saw_strdup(ctx, e->d_name)))
            out->count++;
        else
            status = SAW_ERR_MEMORY;
    }
    closedir(d);
    if (out->count)
        qsort(out->names, (size_t)out->count, sizeof *out->names, by_name);
    if (status)
        saw_listing_free(out);
    return status;
}

void saw_listing_free(saw_listing *l)
{
    for (int i = 0; i < l->count; i++)
        saw_free(l->ctx, l->names[i]);
    saw_free(l->ctx, l->names);
    *l = (saw_listing){.ctx = l->ctx};
}

/* ---- findings -------------------------------------------------------------------------------- */

saw_status saw_findings_add(saw_findings *f, const char *song, size_t song_length, const char *stem,
                            size_t stem_length, const char *path)
{
    if (f->count == f->room) {
        int room = f->room ? 2 * f->room : 64;
        saw_finding *grown = saw_realloc(f->ctx, f->items, (size_t)room * sizeof *grown);
        if (!grown)
            return SAW_ERR_MEMORY;
        f->items = grown;
        f->room = room;
    }
    saw_finding *n = &f->items[f->count++];
    *n = (saw_finding){.song = saw_format(f->ctx, "%s%.*s", f->prefix, (int)song_length, song),
                       .stem = saw_is_mixture_name(stem, stem_length)
                                   ? saw_strdup(f->ctx, "mixture")
                                   : saw_strndup(f->ctx, stem, stem_length),
                       .path = saw_strdup(f->ctx, path)};
    for (char *c = n->stem; c && *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    return n->song && n->stem && n->path ? SAW_OK : SAW_ERR_MEMORY;
}

void saw_findings_free(saw_findings *f)
{
    for (int i = 0; i < f->count; i++) {
        saw_free(f->ctx, f->items[i].song);
        saw_free(f->ctx, f->items[i].stem);
        saw_free(f->ctx, f->items[i].path);
    }
    saw_free(f->ctx, f->items);
    f->items = NULL;
    f->count = f->room = 0;
}
