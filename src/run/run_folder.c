#include "run/run_folder.h"

#include "io/config.h"
#include "run/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

struct saw_run_folder {
    saw_context *ctx;
    const saw_recipe *recipe;
    saw_pool paths;
    const char *path;
    int lock;  /* -1: not held */
    FILE *log; /* NULL: nothing was written yet */
};

enum { POOL_BYTES = 4 << 20, MAX_RUNS = 10000 };

/* ---- the folder ------------------------------------------------------------------------------ */

const char *saw_run_folder_path(const saw_run_folder *f)
{
    return f->path;
}

static const char *path_of(saw_run_folder *f, const char *name)
{
    char *path = saw_format(f->ctx, "%s/%s", f->path, name);
    const char *kept = path ? saw_pool_strndup(&f->paths, path, strlen(path)) : NULL;
    saw_free(f->ctx, path);
    return kept;
}

const char *saw_run_folder_file(saw_run_folder *f, const char *name)
{
    const char *path = path_of(f, name);
    if (access(f->path, F_OK) != 0) { /* a disk that was pulled out: no run begins in its place */
        saw_fail(f->ctx, SAW_ERR_IO, "%s: the run folder is no longer there", f->path);
        return NULL;
    }
    char *around = path ? saw_strndup(f->ctx, path, (size_t)(strrchr(path, '/') - path)) : NULL;
    saw_status status = around ? saw_make_folders(f->ctx, around) : SAW_ERR_MEMORY;
    saw_free(f->ctx, around);
    return status ? NULL : path;
}

static bool is_run(const char *path)
{
    char file[4200];
    snprintf(file, sizeof file, "%s/recipe.yaml", path);
    return access(file, F_OK) == 0;
}

saw_status saw_run_folder_choose(saw_recipe *r)
{
    saw_context *ctx = r->pool.ctx;
    char stem[64] = "model";
    if (r->resume)
        return saw_recipe_set(r, "--resume", "output", r->resume);
    if (r->output)
        return SAW_OK;
    if (r->stems.count)
        snprintf(stem, sizeof stem, "%.*s", (int)strcspn(r->stems.items[0], "=/"),
                 r->stems.items[0]);
    for (int i = 1; i <= MAX_RUNS; i++) {
        char *name =
            i == 1 ? saw_format(ctx, "run-%s", stem) : saw_format(ctx, "run-%s-%d", stem, i);
        bool free = name && access(name, F_OK) != 0;
        saw_status status = !name  ? SAW_ERR_MEMORY
                            : free ? saw_recipe_set(r, "output", "output", name)
                                   : SAW_OK;
        saw_free(ctx, name);
        if (status || free)
            return status;
    }
    return saw_fail(ctx, SAW_ERR_IO, "run-%s: too many runs lie here; name a folder with --output",
                    stem);
}

/* The kernel gives the lock back when the process ends, however it ends. */
static saw_status take_lock(saw_run_folder *f)
{
    const char *path = path_of(f, "lock");
    if (!path)
        return SAW_ERR_MEMORY;
    f->lock = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0666);
    if (f->lock < 0)
        return saw_fail(f->ctx, SAW_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    if (flock(f->lock, LOCK_EX | LOCK_NB) != 0)
        return saw_fail(f->ctx, SAW_ERR_IO, "%s: another process is training in this folder",
                        f->path);
    return SAW_OK;
}

static saw_status check_path(saw_run_folder *f)
{
    const saw_recipe *r = f->recipe;
    size_t n = r->output ? strlen(r->output) : 0;
    if (!n)
        return saw_fail(f->ctx, SAW_ERR_ARGUMENT, "the recipe names no run folder (output)");
    while (n > 1 && r->output[n - 1] == '/')
        n--;
    f->path = saw_pool_strndup(&f->paths, r->output, n);
    if (!f->path)
        return SAW_ERR_MEMORY;
    if (r->resume && !is_run(f->path))
        return saw_fail(f->ctx, SAW_ERR_IO,
                        "%s: has no run to resume: there is no recipe.yaml in it", f->path);
    if (!r->resume && is_run(f->path))
        return saw_fail(f->ctx, SAW_ERR_IO,
                        "%s: has a run already: go on with --resume, or name another folder",
                        f->path);
    return SAW_OK;
}

/* Remove what a process that was killed had begun to write. */
static void sweep(saw_run_folder *f)
{
    static const char *const files[] = {"recipe.yaml", "split.json", "log.jsonl",
                                        "state.safetensors", "report.html"},
                             *const folders[] = {"last", "best", "ema"},
                             *const models[] = {"model.safetensors", "adapter_model.safetensors",
                                                "adapter_config.json"};
    const char *path;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if ((path = path_of(f, files[i])))
            saw_remove_leftovers(f->ctx, path);
    for (int i = 0; i < 9; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%s", folders[i / 3], models[i % 3]);
        if ((path = path_of(f, name)))
            saw_remove_leftovers(f->ctx, path);
    }
}

saw_status saw_run_folder_open(saw_context *ctx, const saw_recipe *recipe, saw_run_folder **out)
{
    *out = NULL;
    saw_run_folder *f = saw_calloc(ctx, 1, sizeof *f);
    if (!f)
        return SAW_ERR_MEMORY;
    f->ctx = ctx;
    f->recipe = recipe;
    f->lock = -1;
    saw_pool_init(&f->paths, ctx, POOL_BYTES);
    saw_status status = check_path(f);
    if (!status)
        status = saw_make_folders(ctx, f->path);
    if (!status)
        status = take_lock(f);
    if (!status)
        sweep(f);
    const char *recipe_path = status ? NULL : path_of(f, "recipe.yaml");
    if (!status)
        status = recipe_path ? saw_recipe_save(recipe, recipe_path) : SAW_ERR_MEMORY;
    if (status)
        saw_run_folder_close(f);
    else
        *out = f;
    return status;
}

void saw_run_folder_close(saw_run_folder *f)
{
    if (!f)
        return;
    if (f->log)
        fclose(f->log);
    if (f->lock >= 0)
        close(f->lock);
    saw_pool_free(&f->paths);
    saw_free(f->ctx, f);
}

/* ---- split ----------------------------------------------------------------------------------- */

static saw_status write_split(saw_run_folder *f, const saw_dataset *d, const char *path)
{
    saw_config *root = saw_config_new(f->ctx);
    bool bad = !root || saw_config_put_string(root, "data", saw_dataset_path(d)) ||
               saw_config_put_string(root, "layout", saw_dataset_layout(d)) ||
               saw_config_put_int(root, "seed", f->recipe->seed);
    saw_config *lists[2] = {bad ? NULL : saw_config_put_list(root, "train"),
                            bad ? NULL : saw_config_put_list(root, "valid")};
    bad = bad || !lists[0] || !lists[1];
    for (int i = 0; i < saw_dataset_songs(d) && !bad; i++) {
        const saw_song *song = saw_dataset_song(d, i);
        if (song->part != SAW_SONG_UNUSED)
            bad = saw_config_put_string(lists[song->part == SAW_SONG_VALID], NULL, song->name);
    }
    saw_buffer b = {.ctx = f->ctx};
    saw_atomic_file file = {0};
    saw_status status = bad ? SAW_ERR_MEMORY : saw_config_write_json(root, &b);
    if (!status)
        status = saw_atomic_open(f->ctx, path, &file);
    if (!status) {
        fprintf(file.file, "%s\n", b.data);
        status = saw_atomic_commit(&file);
    }
    saw_buffer_free(&b);
    saw_config_free(root);
    return status;
}

static int names_of(saw_pool *pool, const saw_config *list, const char *const **out)
{
    int n = saw_config_size(list), used = 0;
    const char **names = saw_pool_alloc(pool, (size_t)n * sizeof *names);
    for (int i = 0; names && i < n; i++)
        if (saw_config_as_string(saw_config_at(list, i)))
            names[used++] = saw_config_as_string(saw_config_at(list, i));
    *out = names;
    return names ? used : -1;
}

saw_status saw_run_split(saw_context *ctx, const saw_recipe *r, saw_dataset *d)
{
    saw_config *root = NULL;
    saw_pool pool;
    saw_split_options o = {.fraction = r->valid_fraction,
                           .seed = (uint64_t)r->seed,
                           .valid = r->valid.items,
                           .n_valid = r->valid.count,
                           .train = r->train.items,
                           .n_train = r->train.count};
    saw_pool_init(&pool, ctx, POOL_BYTES);
    char *path = r->resume ? saw_format(ctx, "%s/split.json", r->resume) : NULL;
    saw_status status = r->resume && !path ? SAW_ERR_MEMORY : SAW_OK;
    if (path && access(path, F_OK) == 0)
        status = saw_config_load(ctx, path, &root);
    if (root) {
        o.fraction = 0;
        o.n_train = names_of(&pool, saw_config_get(root, "train"), &o.train);
        o.n_valid = names_of(&pool, saw_config_get(root, "valid"), &o.valid);
        status = o.n_train < 0 || o.n_valid < 0 ? SAW_ERR_MEMORY : SAW_OK;
    }
    if (!status)
        status = saw_dataset_split(d, &o);
    saw_config_free(root);
    saw_pool_free(&pool);
    saw_free(ctx, path);
    return status;
}

saw_status saw_run_folder_split(saw_run_folder *f, saw_dataset *d)
{
    const char *path = path_of(f, "split.json");
    saw_status status = path ? saw_run_split(f->ctx, f->recipe, d) : SAW_ERR_MEMORY;
    if (!status && (!f->recipe->resume || access(path, F_OK) != 0))
        status = write_split(f, d, path);
    return status;
}

/* ---- state ----------------------------------------------------------------------------------- */

static const char STATE[] = "state.safetensors";

saw_status saw_run_folder_save_state(saw_run_folder *f, const nn_optim_array *arrays, int n)
{
    const char *path = path_of(f, STATE);
    saw_safetensors_entry *entries = saw_calloc(f->ctx, (size_t)n, sizeof *entries);
    saw_safetensors *w = NULL;
    saw_status status = path && entries ? SAW_OK : SAW_ERR_MEMORY;
    for (int i = 0; i < n && !status; i++)
        entries[i] = (saw_safetensors_entry){
            .name = arrays[i].name, .dtype = arrays[i].dtype, .ndim = 1, .dims = {arrays[i].count}};
    if (!status)
        status = saw_safetensors_create(f->ctx, path, entries, n, NULL, 0, &w);
    for (int i = 0; i < n && !status; i++)
        status = saw_safetensors_write(w, arrays[i].data,
                                       (size_t)arrays[i].count * saw_dtype_bytes(arrays[i].dtype));
    if (!status)
        status = saw_safetensors_commit(w);
    else
        saw_safetensors_abort(w);
    saw_free(f->ctx, entries);
    return status;
}

saw_status saw_run_folder_load_state(saw_run_folder *f, saw_checkpoint **out)
{
    const char *path = path_of(f, STATE);
    *out = NULL;
    if (!path)
        return SAW_ERR_MEMORY;
    if (access(path, F_OK) != 0)
        return SAW_OK;
    return saw_checkpoint_open(f->ctx, path, out);
}

/* ---- log ------------------------------------------------------------------------------------- */

static saw_status bad_log(saw_run_folder *f)
{
    return saw_fail(f->ctx, SAW_ERR_IO, "%s/log.jsonl: cannot be written: %s", f->path,
                    strerror(errno));
}

/* Whether a line is a whole record of at most this step. */
static bool keeps(const char *line, ssize_t n, int64_t step)
{
    json_t *record = n > 0 && line[n - 1] == '\n' ? json_loads(line, 0, NULL) : NULL;
    json_t *at = json_object_get(record, "step");
    bool good = json_is_integer(at) && json_integer_value(at) <= step;
    json_decref(record);
    return good;
}

saw_status saw_run_log_cut(saw_run_folder *f, int64_t step)
{
    const char *path = path_of(f, "log.jsonl");
    if (!path)
        return SAW_ERR_MEMORY;
    if (f->log)
        fclose(f->log);
    f->log = NULL;
    FILE *in = fopen(path, "re");
    if (!in)
        return errno == ENOENT ? SAW_OK : bad_log(f);
    saw_atomic_file out;
    saw_status status = saw_atomic_open(f->ctx, path, &out);
    char *line = NULL;
    size_t room = 0;
    for (ssize_t n; !status && (n = getline(&line, &room, in)) > 0;)
        if (keeps(line, n, step))
            fwrite(line, 1, (size_t)n, out.file);
    if (!status)
        status = saw_atomic_commit(&out);
    free(line);
    fclose(in);
    return status;
}

/* One line out of a record, which is freed; bad: it could not be made. */
static saw_status append(saw_run_folder *f, saw_config *record, bool bad)
{
    saw_buffer b = {.ctx = f->ctx};
    saw_status status = bad ? SAW_ERR_MEMORY : saw_config_write_json(record, &b);
    if (!status && !f->log) {
        const char *path = path_of(f, "log.jsonl");
        f->log = path ? fopen(path, "ae") : NULL;
        status = f->log ? SAW_OK : bad_log(f);
    }
    if (!status) {
        saw_buffer_add(&b, "\n", 1);
        errno = 0;
        if (fwrite(b.data, 1, b.size, f->log) != b.size || fflush(f->log))
            status = bad_log(f);
    }
    saw_buffer_free(&b);
    saw_config_free(record);
    return status;
}

static saw_config *new_record(saw_run_folder *f, const char *type, int64_t step)
{
    saw_config *record = saw_config_new(f->ctx);
    if (record &&
        (saw_config_put_string(record, "type", type) || saw_config_put_int(record, "step", step))) {
        saw_config_free(record);
        record = NULL;
    }
    return record;
}

static bool put_number(saw_config *record, const char *name, double v)
{
    return isfinite(v) && saw_config_put_double(record, name, v) != SAW_OK;
}

saw_status saw_run_log_step(saw_run_folder *f, const saw_run_step *s)
{
    saw_config *record = new_record(f, "step", s->step);
    bool bad = !record || put_number(record, "loss", s->loss) ||
               put_number(record, "grad_norm", s->grad_norm) || put_number(record, "lr", s->lr) ||
               put_number(record, "seconds", s->seconds);
    return append(f, record, bad);
}

static bool put_song(saw_config *songs, const saw_dataset *d, const saw_run_valid *v,
                     const saw_song_score *score)
{
    saw_config *row = saw_config_put_map(songs, NULL);
    bool bad = !row || saw_config_put_string(row, "song", saw_dataset_song(d, score->song)->name);
    saw_config *figures = bad ? NULL : saw_config_put_map(row, "sdr_db");
    bad = bad || !figures;
    for (int k = 0; k < v->n_outputs && !bad; k++)
        bad = put_number(figures, v->outputs[k], score->sdr_db[k]);
    return bad;
}

saw_status saw_run_log_valid(saw_run_folder *f, const saw_dataset *d, const saw_run_valid *v)
{
    saw_config *record = new_record(f, "valid", v->step);
    bool bad = !record || put_number(record, "sdr_db", v->sdr_db) ||
               put_number(record, "general_sdr_db", v->forgetting_db) ||
               put_number(record, "seconds", v->seconds) ||
               saw_config_put_bool(record, "best", v->best);
    saw_config *songs = bad ? NULL : saw_config_put_list(record, "songs");
    bad = bad || !songs;
    for (int i = 0; i < v->n_songs && !bad; i++)
        bad = put_song(songs, d, v, &v->songs[i]);
    return append(f, record, bad);
}

saw_status saw_run_log_event(saw_run_folder *f, const char *type, int64_t step, const char *what,
                             int n, const char *const *names, const double *numbers)
{
    saw_config *record = new_record(f, type, step);
    bool bad = !record || saw_config_put_string(record, "what", what);
    for (int i = 0; i < n && !bad; i++)
        bad = put_number(record, names[i], numbers[i]);
    return append(f, record, bad);
}
