/*
 * folder.c - one folder for each stem; files of equal names are stems of one song.
 */
#include "datasets/layout.h"

#include <string.h>

static bool recognise(const saw_findings *hints, const char *path)
{
    saw_listing folders, files;
    bool found = false;
    if (saw_list_folder(hints->ctx, path, true, &folders))
        return false;
    for (int i = 0; !found && i < folders.count; i++) {
        char *below = saw_format(hints->ctx, "%s/%s", path, folders.names[i]);
        if (below && saw_is_stem_name(hints, folders.names[i], strlen(folders.names[i])) &&
            !saw_list_folder(hints->ctx, below, false, &files)) {
            found = files.count > 0;
            saw_listing_free(&files);
        }
        saw_free(hints->ctx, below);
    }
    saw_listing_free(&folders);
    return found;
}

static saw_status find(saw_findings *f, const char *path)
{
    saw_listing folders, files = {.ctx = f->ctx};
    saw_status status = saw_list_folder(f->ctx, path, true, &folders);
    for (int i = 0; !status && i < folders.count; i++) {
        const char *stem = folders.names[i];
        char *below = saw_format(f->ctx, "%s/%s", path, stem);
        status = below ? saw_list_folder(f->ctx, below, false, &files) : SAW_ERR_MEMORY;
        for (int k = 0; !status && k < files.count; k++) {
            const char *name = files.names[k];
            char *file = saw_format(f->ctx, "%s/%s", below, name);
            status =
                file ? saw_findings_add(f, name, saw_name_length(name), stem, strlen(stem), file)
                     : SAW_ERR_MEMORY;
            saw_free(f->ctx, file);
        }
        saw_listing_free(&files);
        saw_free(f->ctx, below);
    }
    saw_listing_free(&folders);
    return status;
}

const saw_layout saw_layout_folder = {
    "folder", "a folder for each stem; files of equal names are stems of one song", recognise,
    find};
