/*
 * moisesdb.c - MoisesDB and its like: in a song's folder, one folder for each stem with as many
 * files as the stem has tracks. A song's data.json, where there is one, says which tracks these
 * are: "stems": [{"stemName": "bass", "tracks": [{"id": "...", "extension": "wav"}]}].
 */
#include "datasets/layout.h"
#include "io/config.h"

#include <string.h>
#include <unistd.h>

static saw_status add_listed(saw_findings *f, const char *folder, const char *song,
                             const char *json)
{
    saw_config *root;
    saw_status status = saw_config_load(f->ctx, json, &root);
    if (status)
        return status;
    const saw_config *stems = saw_config_get(root, "stems");
    for (int s = 0; !status && s < saw_config_size(stems); s++) {
        const saw_config *stem = saw_config_at(stems, s), *tracks = saw_config_get(stem, "tracks");
        const char *name = saw_config_as_string(saw_config_get(stem, "stemName"));
        for (int t = 0; !status && t < saw_config_size(tracks); t++) {
            const saw_config *track = saw_config_at(tracks, t);
            const char *id = saw_config_as_string(saw_config_get(track, "id"));
            const char *ending = saw_config_as_string(saw_config_get(track, "extension"));
            /* names from the file must not lead out of the song's folder */
            if (!name || !id || strchr(name, '/') || strchr(id, '/') || *name == '.' ||
                *id == '.' || (ending && strchr(ending, '/'))) {
                status = saw_fail(f->ctx, SAW_ERR_FORMAT,
                                  "%s: track %d of stem %d has no stemName or id that could be a "
                                  "file's name",
                                  json, t + 1, s + 1);
                break;
            }
            char *file =
                saw_format(f->ctx, "%s/%s/%s.%s", folder, name, id, ending ? ending : "wav");
            status = file ? saw_findings_add(f, song, strlen(song), name, strlen(name), file)
                          : SAW_ERR_MEMORY;
            saw_free(f->ctx, file);
        }
    }
    saw_config_free(root);
    return status;
}

static saw_status add_found(saw_findings *f, const char *folder, const char *song)
{
    saw_listing stems, files = {.ctx = f->ctx};
    saw_status status = saw_list_folder(f->ctx, folder, true, &stems);
    for (int s = 0; !status && s < stems.count; s++) {
        const char *stem = stems.names[s];
        char *below = saw_format(f->ctx, "%s/%s", folder, stem);
        status = below ? saw_list_folder(f->ctx, below, false, &files) : SAW_ERR_MEMORY;
        for (int i = 0; !status && i < files.count; i++) {
            char *file = saw_format(f->ctx, "%s/%s", below, files.names[i]);
            status = file ? saw_findings_add(f, song, strlen(song), stem, strlen(stem), file)
                          : SAW_ERR_MEMORY;
            saw_free(f->ctx, file);
        }
        saw_listing_free(&files);
        saw_free(f->ctx, below);
    }
    saw_listing_free(&stems);
    return status;
}

static saw_status find(saw_findings *f, const char *path)
{
    saw_listing songs, files = {.ctx = f->ctx};
    saw_status status = saw_list_folder(f->ctx, path, true, &songs);
    for (int i = 0; !status && i < songs.count; i++) {
        const char *song = songs.names[i];
        char *folder = saw_format(f->ctx, "%s/%s", path, song);
        char *json = saw_format(f->ctx, "%s/%s/data.json", path, song);
        if (!folder || !json)
            status = SAW_ERR_MEMORY;
        else if (!access(json, F_OK))
            status = add_listed(f, folder, song, json);
        else
            status = add_found(f, folder, song);
        if (!status) /* a mixture may lie beside the stems' folders */
            status = saw_list_folder(f->ctx, folder, false, &files);
        for (int k = 0; !status && k < files.count; k++) {
            const char *name = files.names[k];
            char *file = saw_format(f->ctx, "%s/%s", folder, name);
            if (!file)
                status = SAW_ERR_MEMORY;
            else if (saw_is_mixture_name(name, saw_name_length(name)))
                status = saw_findings_add(f, song, strlen(song), name, saw_name_length(name), file);
            saw_free(f->ctx, file);
        }
        saw_listing_free(&files);
        saw_free(f->ctx, json);
        saw_free(f->ctx, folder);
    }
    saw_listing_free(&songs);
    return status;
}

/* A folder with a data.json, or one in which folders with names of stems hold audio. */
static bool is_song(const saw_findings *hints, const char *folder)
{
    saw_listing stems, files;
    bool found = false;
    char *json = saw_format(hints->ctx, "%s/data.json", folder);
    found = json && !access(json, F_OK);
    saw_free(hints->ctx, json);
    if (found || saw_list_folder(hints->ctx, folder, true, &stems))
        return found;
    for (int i = 0; !found && i < stems.count; i++) {
        char *below = saw_format(hints->ctx, "%s/%s", folder, stems.names[i]);
        if (below && saw_is_stem_name(hints, stems.names[i], strlen(stems.names[i])) &&
            !saw_list_folder(hints->ctx, below, false, &files)) {
            found = files.count > 0;
            saw_listing_free(&files);
        }
        saw_free(hints->ctx, below);
    }
    saw_listing_free(&stems);
    return found;
}

static bool recognise(const saw_findings *hints, const char *path)
{
    saw_listing songs;
    bool found = false;
    if (saw_list_folder(hints->ctx, path, true, &songs))
        return false;
    for (int i = 0; !found && i < songs.count; i++) {
        char *folder = saw_format(hints->ctx, "%s/%s", path, songs.names[i]);
        found = folder && is_song(hints, folder);
        saw_free(hints->ctx, folder);
    }
    saw_listing_free(&songs);
    return found;
}

const saw_layout saw_layout_moisesdb = {
    "moisesdb", "a folder for each song, in it a folder for each stem, whose files are added up",
    recognise, find};
