/*
 * musdb.c - MUSDB18-HQ and its like: a folder that holds audio files is a song, at any depth, and
 * each file a stem.
 */
#include "datasets/layout.h"

#include <string.h>

enum { MAX_DEPTH = 8 };

static int stem_names(const saw_findings *hints, const saw_listing *files)
{
    int count = 0;
    for (int i = 0; i < files->count; i++)
        count += saw_is_stem_name(hints, files->names[i], saw_name_length(files->names[i]));
    return count;
}

/* Are there files with names of stems, in this folder or in one below whose own name is none? */
static bool looks_so(const saw_findings *hints, const char *path, int depth)
{
    saw_listing files, folders = {.ctx = hints->ctx};
    bool found = false;
    if (saw_list_folder(hints->ctx, path, false, &files))
        return false;
    found = stem_names(hints, &files) > 0;
    if (!found && depth < MAX_DEPTH && !saw_list_folder(hints->ctx, path, true, &folders))
        for (int i = 0; !found && i < folders.count; i++) {
            const char *name = folders.names[i];
            char *below = saw_format(hints->ctx, "%s/%s", path, name);
            found = below && !saw_is_stem_name(hints, name, strlen(name)) &&
                    looks_so(hints, below, depth + 1);
            saw_free(hints->ctx, below);
        }
    saw_listing_free(&files);
    saw_listing_free(&folders);
    return found;
}

static bool recognise(const saw_findings *hints, const char *path)
{
    return looks_so(hints, path, 0);
}

static saw_status add_folder(saw_findings *f, const char *path, const char *song, int depth)
{
    saw_listing files, folders = {.ctx = f->ctx};
    saw_status status = saw_list_folder(f->ctx, path, false, &files);
    for (int i = 0; !status && i < files.count; i++) {
        const char *name = files.names[i];
        char *file = saw_format(f->ctx, "%s/%s", path, name);
        status = file ? saw_findings_add(f, song, strlen(song), name, saw_name_length(name), file)
                      : SAW_ERR_MEMORY;
        saw_free(f->ctx, file);
    }
    if (!status && depth < MAX_DEPTH)
        status = saw_list_folder(f->ctx, path, true, &folders);
    for (int i = 0; !status && i < folders.count; i++) {
        char *below = saw_format(f->ctx, "%s/%s", path, folders.names[i]);
        char *name = depth ? saw_format(f->ctx, "%s/%s", song, folders.names[i])
                           : saw_strdup(f->ctx, folders.names[i]);
        status = below && name ? add_folder(f, below, name, depth + 1) : SAW_ERR_MEMORY;
        saw_free(f->ctx, below);
        saw_free(f->ctx, name);
    }
    saw_listing_free(&files);
    saw_listing_free(&folders);
    return status;
}

static saw_status find(saw_findings *f, const char *path)
{
    const char *end = path + strlen(path);
    while (end > path + 1 && end[-1] == '/')
        end--;
    const char *name = end;
    while (name > path && name[-1] != '/')
        name--;
    char *song = saw_strndup(f->ctx, name, (size_t)(end - name));
    saw_status status = song ? add_folder(f, path, song, 0) : SAW_ERR_MEMORY;
    saw_free(f->ctx, song);
    return status;
}

const saw_layout saw_layout_musdb = {
    "musdb", "a folder for each song: vocals.wav, drums.wav, ..., and mixture.wav or not",
    recognise, find};
