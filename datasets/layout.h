/*
 * layout.h - what a row of the table of layouts is, what it finds, and what rows share.
 *
 * To add a layout: datasets/<name>.c with the struct saw_layout_<name>, and a line in datasets.def.
 */
#ifndef SAW_LAYOUT_H
#define SAW_LAYOUT_H

#include "base/base.h"

/** A file that was found: all files of one song and one stem are added up. The stem "mixture" is
 * the whole song. */
typedef struct saw_finding {
    char *song, *stem, *path;
} saw_finding;

typedef struct saw_findings {
    saw_context *ctx;
    saw_finding *items;
    int count, room;
    const char *prefix;       /* put before names of songs: "", "train/" */
    const char *target;       /* what a pair's target is called */
    const char *const *stems; /* names that are stems for sure */
    int n_stems;
} saw_findings;

/** Strings are copied; song_length bytes of song. */
saw_status saw_findings_add(saw_findings *f, const char *song, size_t song_length, const char *stem,
                            size_t stem_length, const char *path);
void saw_findings_free(saw_findings *f);

typedef struct saw_layout {
    const char *name, *help;
    /** Does it look like that? Reads no audio. */
    bool (*recognise)(const saw_findings *hints, const char *path);
    saw_status (*find)(saw_findings *f, const char *path);
} saw_layout;

/** What is in a folder, by name: audio files or folders (true), without hidden ones. */
typedef struct saw_listing {
    saw_context *ctx;
    char **names;
    int count;
} saw_listing;
saw_status saw_list_folder(saw_context *ctx, const char *path, bool folders, saw_listing *out);
void saw_listing_free(saw_listing *l);

/** Length of a file's name without its ending. */
size_t saw_name_length(const char *name);
/** Is this, up to its length, the name of a stem or of a mixture, in any case? */
bool saw_is_stem_name(const saw_findings *hints, const char *name, size_t length);
/** "mix", "mixture", "full_mix": a mixture's usual names. */
bool saw_is_mixture_name(const char *name, size_t length);

#endif
