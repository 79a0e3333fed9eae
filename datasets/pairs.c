/*
 * pairs.c - a mixture and one target: X.mix.wav and X.target.wav, or mixture/X.wav and
 * target/X.wav.
 */
#include "datasets/layout.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Does the name, without its ending, end with this? */
static bool has_tail(const char *name, const char *tail)
{
    size_t n = saw_name_length(name), k = strlen(tail);
    return n > k && !strncasecmp(name + n - k, tail, k);
}

static saw_status add_named(saw_findings *f, const char *path, int *mixtures, int *targets)
{
    saw_listing files;
    saw_status status = saw_list_folder(f->ctx, path, false, &files);
    for (int i = 0; !status && i < files.count; i++) {
        const char *name = files.names[i];
        bool mix = has_tail(name, ".mix"), target = has_tail(name, ".target");
        if (!mix && !target)
            continue;
        *mixtures += mix;
        *targets += target;
        char *file = saw_format(f->ctx, "%s/%s", path, name);
        const char *stem = mix ? "mixture" : f->target;
        size_t length = saw_name_length(name) - (mix ? 4 : 7);
        status =
            file ? saw_findings_add(f, name, length, stem, strlen(stem), file) : SAW_ERR_MEMORY;
        saw_free(f->ctx, file);
    }
    saw_listing_free(&files);
    return status;
}

static saw_status add_folder(saw_findings *f, const char *path, const char *folder,
                             const char *stem, int *count)
{
    saw_listing files;
    char *below = saw_format(f->ctx, "%s/%s", path, folder);
    if (!below)
        return SAW_ERR_MEMORY;
    saw_status status = saw_list_folder(f->ctx, below, false, &files);
    for (int i = 0; !status && i < files.count; i++, ++*count) {
        const char *name = files.names[i];
        char *file = saw_format(f->ctx, "%s/%s", below, name);
        status = file ? saw_findings_add(f, name, saw_name_length(name), stem, strlen(stem), file)
                      : SAW_ERR_MEMORY;
        saw_free(f->ctx, file);
    }
    saw_listing_free(&files);
    saw_free(f->ctx, below);
    return status;
}

static saw_status find(saw_findings *f, const char *path)
{
    int mixtures = 0, targets = 0;
    saw_status status = add_named(f, path, &mixtures, &targets);
    if (!status && !mixtures && !targets) {
        status = add_folder(f, path, "mixture", "mixture", &mixtures);
        if (!status)
            status = add_folder(f, path, "target", f->target, &targets);
    }
    if (!status && (!mixtures || !targets))
        status = saw_fail(f->ctx, SAW_ERR_ARGUMENT,
                          "%s: has %d mixtures and %d targets; pairs are X.mix.wav and "
                          "X.target.wav, or files of equal names in mixture/ and target/",
                          path, mixtures, targets);
    return status;
}

static bool recognise(const saw_findings *hints, const char *path)
{
    saw_findings f = *hints;
    f.items = NULL;
    f.count = f.room = 0;
    bool found = !find(&f, path);
    saw_findings_free(&f);
    return found;
}

const saw_layout saw_layout_pairs = {
    "pairs", "mixture and target only: X.mix.wav and X.target.wav, or mixture/ and target/",
    recognise, find};
