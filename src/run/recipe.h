/*
 * recipe.h - everything that a training run is made of, as a flat struct, and the table of its keys
 * (recipe.def), which makes the YAML file, the flags, the help and the file that is saved.
 *
 *     model:
 *       model: base.ckpt
 *     data:
 *       data: my_songs
 *       stems: [santoor]
 *     run:
 *       steps: 2000
 *
 * Keys are known by their own names; the sections only group them. What is set later goes over what
 * was set before: defaults, then a preset, then files, then single values. A preset is rows of
 * values.
 */
#ifndef SAW_RECIPE_H
#define SAW_RECIPE_H

#include "io/pool.h"

typedef struct saw_recipe_list {
    const char *const *items;
    int count;
} saw_recipe_list;

/** Kind of a value, and its type in saw_recipe. */
typedef enum saw_recipe_kind {
    SAW_RECIPE_TEXT,   /* const char *; NULL where nothing was given and there is no default */
    SAW_RECIPE_PATH,   /* the same, made absolute where it exists */
    SAW_RECIPE_WORD,   /* const char *: one of a list */
    SAW_RECIPE_NAMES,  /* saw_recipe_list; in one text with commas between */
    SAW_RECIPE_LINES,  /* saw_recipe_list; in one text with semicolons between */
    SAW_RECIPE_INT,    /* int64_t */
    SAW_RECIPE_NUMBER, /* double; NaN: auto, where that is the default */
    SAW_RECIPE_SWITCH, /* bool */
    SAW_RECIPE_BYTES   /* size_t; 0: auto */
} saw_recipe_kind;

#define SAW_RECIPE_TYPE_TEXT   const char *
#define SAW_RECIPE_TYPE_PATH   const char *
#define SAW_RECIPE_TYPE_WORD   const char *
#define SAW_RECIPE_TYPE_NAMES  saw_recipe_list
#define SAW_RECIPE_TYPE_LINES  saw_recipe_list
#define SAW_RECIPE_TYPE_INT    int64_t
#define SAW_RECIPE_TYPE_NUMBER double
#define SAW_RECIPE_TYPE_SWITCH bool
#define SAW_RECIPE_TYPE_BYTES  size_t

#define SAW_FLAG(section, name, letter, flag, kind, ...) SAW_RECIPE_TYPE_##kind name;
#define SAW_KEY(section, name, kind, ...)                SAW_RECIPE_TYPE_##kind name;
#define SAW_SECTION(section, title)
/** A member for every key of recipe.def. Texts belong to the recipe. */
typedef struct saw_recipe {
#include "run/recipe.def"
    saw_pool pool;
    const char *preset; /* the last one that was set, or NULL */
    const char *resume; /* the folder of a run that goes on, whose recipe this is; or NULL. Not
                           owned */
} saw_recipe;
#undef SAW_FLAG
#undef SAW_KEY
#undef SAW_SECTION

/** A row of the table. */
typedef struct saw_recipe_key {
    const char *section, *name, *flag; /* flag NULL: only in files and --set */
    saw_recipe_kind kind;
    size_t offset; /* in saw_recipe */
    const char *value, *fallback, *help;
    double least, most;
} saw_recipe_key;

/** Key i in the order of the file; NULL behind the last. */
const saw_recipe_key *saw_recipe_key_at(int i);

/** Name of preset i and what it is for; NULL behind the last. */
const char *saw_recipe_preset_name(int i);
const char *saw_recipe_preset_help(int i);
/** What preset i says of a key; NULL: nothing. */
const char *saw_recipe_preset_value(int i, const char *key);

/** Set every key to its default. The recipe is freed by saw_recipe_free, also after a failure; a
 * zeroed one may be freed. */
saw_status saw_recipe_open(saw_context *ctx, saw_recipe *out);
void saw_recipe_free(saw_recipe *r);

/** Put a preset's values over what is there. SAW_ERR_ARGUMENT for an unknown name. */
saw_status saw_recipe_set_preset(saw_recipe *r, const char *name);
/** Set a key ("lr", or "optimizer.lr") from text. `source` begins the sentence of a failure: an
 * unknown key, with the nearest known one, or a value that makes no sense. */
saw_status saw_recipe_set(saw_recipe *r, const char *source, const char *key, const char *value);
/** Put a file's values over what is there. It may name a preset (`preset: careful`), which goes
 * first, unless one was set before. Refuses keys that are unknown or in a section of another, by
 * file and line. */
saw_status saw_recipe_load(saw_recipe *r, const char *path);
/** Write every key, with its help as comments: loaded again it gives the same recipe. The file
 * appears when it is whole. */
saw_status saw_recipe_save(const saw_recipe *r, const char *path);
/** A value as the file has it, appended to out: `auto`, `[a, b]`, `0.001`. */
void saw_recipe_print(const saw_recipe *r, const saw_recipe_key *key, saw_buffer *out);

#endif
