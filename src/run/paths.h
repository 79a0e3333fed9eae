/*
 * paths.h - which files go in, what the files that come out are called, where models lie.
 */
#ifndef SAW_PATHS_H
#define SAW_PATHS_H

#include "base/base.h"

/** One input file. `folder` is where it lay below the folder that was asked for: "" or "a/b/". */
typedef struct saw_input_file {
    char *path, *folder;
} saw_input_file;

typedef struct saw_input_list {
    saw_context *ctx;
    saw_input_file *files;
    int count, room;
} saw_input_list;

/**
 * Add a path: a file or "-" as it is; of a folder all audio files in it and below (by their name's
 * ending, in alphabetical order), but not what lies in the folder `except` (may be NULL).
 * SAW_ERR_IO: there is no such path, a folder without audio.
 */
saw_status saw_inputs_add(saw_input_list *list, const char *path, const char *except);
void saw_inputs_free(saw_input_list *list);

/**
 * The name of an output below `out_dir`: the template, with {track} (name of the input without its
 * ending; "stdin" for
 * "-"), {stem} and {model} replaced, behind the input's folder, and ".extension". What replaces a
 * field never leaves the folder: `/` and control characters become `_`, and so do names of dots
 * only. SAW_ERR_ARGUMENT: unknown field, a template that is empty, absolute or climbs with `..`.
 */
saw_status saw_output_path(saw_context *ctx, const char *out_dir, const char *template_text,
                           const saw_input_file *input, const char *stem, const char *model,
                           const char *extension, char **out);

/** Name of a file without folders and ending; owned by the caller. */
char *saw_path_stem(saw_context *ctx, const char *path);

/** Remove what a killed run left beside `path`: path.part<number> of processes that are gone. */
void saw_remove_leftovers(saw_context *ctx, const char *path);

/** A model of the folders where models are kept. */
typedef struct saw_known_model {
    char *name, *path;
} saw_known_model;
typedef struct saw_known_models {
    saw_context *ctx;
    saw_known_model *models;
    int count, room;
    char *folders[3]; /* $XDG_DATA_HOME/bandsaw/models (~/.local/share/...), what `bandsaw model
                         get` fetched: $XDG_CACHE_HOME/bandsaw/models (~/.cache/...), and
                         share/bandsaw/models of this program */
} saw_known_models;
/** List them in alphabetical order; a name in an earlier folder hides the same in a later one. */
saw_status saw_known_models_list(saw_context *ctx, saw_known_models *out);
void saw_known_models_free(saw_known_models *known);
/** A path as it is if there is such a file, else a name of the list. SAW_ERR_ARGUMENT: neither.
 * *path borrows. */
saw_status saw_known_models_find(const saw_known_models *known, const char *name,
                                 const char **path);

#endif
