/*
 * cmd_finetune.c - `bandsaw finetune` and `bandsaw train`: a recipe out of presets, files and
 * flags, the plan before the first step, and how it goes.
 */
#include "cli.h"

#include "models/adapters/methods.h"
#include "run/report.h"
#include "run/run_folder.h"
#include "run/trainer.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

typedef struct options {
#define SAW_FLAG(section, name, ...) const char *name;
#define SAW_KEY(...)
#define SAW_SECTION(...)
    struct {
#include "run/recipe.def"
    } keys; /* values as they were typed, NULL where none was */
#undef SAW_FLAG
#undef SAW_SECTION
    const char *preset, *resume;
    texts recipes, settings;
    int64_t threads;
    bool dry_run, json, help_recipe;
} options;

#define AT(member)                  offsetof(options, member)
#define SAW_SECTION(section, title) {NULL, 0, FLAG_HEADING, 0, NULL, title, 0, 0},
#define SAW_FLAG(section, name, letter, flag, kind, value, fallback, least, most, help)            \
    {flag, letter, FLAG_TEXT, AT(keys.name), value, help, 0, 0},

static const flag flags[] = {
    {NULL, 0, FLAG_HEADING, 0, NULL, "The recipe", 0, 0},
    {"preset", 'p', FLAG_TEXT, AT(preset), "quick|careful|full",
     "values to begin with; --help-recipe shows them", 0, 0},
    {"recipe", 'r', FLAG_TEXTS, AT(recipes), "FILE",
     "a YAML file of keys; goes over the preset, and flags go over it", 0, 0},
    {"set", 0, FLAG_TEXTS, AT(settings), "KEY=VALUE", "any key of a recipe; goes over all else", 0,
     0},
    {"resume", 0, FLAG_TEXT, AT(resume), "DIR",
     "go on with the run in this folder, as if it had never been stopped; of the other flags only "
     "--steps and --patience go with it",
     0, 0},
    {"dry-run", 'n', FLAG_SWITCH, AT(dry_run), NULL, "show the plan and stop", 0, 0},
    {"json", 0, FLAG_SWITCH, AT(json), NULL, "one JSON object a line on standard output", 0, 0},
    {"threads", 0, FLAG_INT, AT(threads), "N",
     "default one per processor; changes no bit of the result", 1, 1024},
    {"help-recipe", 0, FLAG_SWITCH, AT(help_recipe), NULL,
     "show every key of a recipe and what the presets say", 0, 0},
#include "run/recipe.def"
    {NULL, 0, FLAG_SWITCH, 0, NULL, NULL, 0, 0}};

static const example finetune_examples[] = {
    {"bandsaw finetune --model base.ckpt --data my_songs --stem santoor --preset quick",
     "an adapter for a stem of one's own, in run-santoor/"},
    {"bandsaw finetune -m base.ckpt -d my_songs -s vocals --dry-run", "what it would take"},
    {"bandsaw finetune --resume run-santoor", "go on after a break"},
    {"bandsaw finetune --recipe mine.yaml --steps 4000 --set clip_mode=tensor",
     "a recipe with two changes"},
    {NULL, NULL}};

static const example train_examples[] = {
    {"bandsaw train --config model.yaml --data musdb18hq/train -o run1 --steps 200000",
     "a model from nothing"},
    {"bandsaw train --resume run1", "go on after a break"},
    {NULL, NULL}};

static int run_finetune(int argc, char **argv);
static int run_train(int argc, char **argv);

#define RUN_FOLDER                                                                                 \
    "The run folder keeps the recipe, the split of the songs, a log, the last and the best "       \
    "checkpoint and report.html. Ctrl-C saves and stops; --resume goes on to the bit."

const command command_finetune = {
    .name = "finetune",
    .operands = "",
    .summary = "teach a model a stem from songs of one's own",
    .description = "Trains an adapter of a few megabytes, or the model itself, on songs with "
                   "their stems, and validates by separating songs that it was not shown. Says "
                   "beforehand what trains, how much memory it needs and how long. " RUN_FOLDER,
    .flags = flags,
    .examples = finetune_examples,
    .run = run_finetune};

const command command_train = {.name = "train",
                               .operands = "",
                               .summary = "train a model from nothing",
                               .description =
                                   "The same as finetune, over the same recipes, but from the "
                                   "configuration of a model and random weights. " RUN_FOLDER,
                               .flags = flags,
                               .examples = train_examples,
                               .run = run_train};

/* ---- the recipe ------------------------------------------------------------------------------ */

static void print_markdown_cell(const char *text)
{
    for (; *text; text++)
        if (*text == '|')
            printf("\\|");
        else
            putchar(*text);
}

static void print_row(const char *const *cells, int n)
{
    putchar('|');
    for (int i = 0; i < n; i++) {
        putchar(' ');
        print_markdown_cell(cells[i]);
        printf(cells[i][0] ? " |" : "|");
    }
    putchar('\n');
}

static void print_head(const char *const *cells, int n)
{
    print_row(cells, n);
    for (int i = 0; i < n; i++)
        printf("|---");
    printf("|\n");
}

/* Keys, presets and methods, as tables in Markdown. */
static void print_recipe_help(void)
{
    static const char *const key_head[] = {"key", "flag", "value", "default", "what it is"},
                             *const preset_head[] = {"preset", "what it is for", "values"},
                             *const method_head[] = {"method", "what it is", "rows"};
    const saw_recipe_key *key;
    const saw_method *m;
    char name[64], flag_name[64];
    print_head(key_head, 5);
    for (int i = 0; (key = saw_recipe_key_at(i)); i++) {
        snprintf(name, sizeof name, "`%s.%s`", key->section, key->name);
        snprintf(flag_name, sizeof flag_name, key->flag ? "`--%s`" : "%s",
                 key->flag ? key->flag : "");
        print_row((const char *[]){name, flag_name, key->value, key->fallback ? key->fallback : "",
                                   key->help},
                  5);
    }
    putchar('\n');
    print_head(preset_head, 3);
    for (int p = 0; saw_recipe_preset_name(p); p++) {
        printf("| `%s` | %s |", saw_recipe_preset_name(p), saw_recipe_preset_help(p));
        for (int i = 0, n = 0; (key = saw_recipe_key_at(i)); i++) {
            const char *value = saw_recipe_preset_value(p, key->name);
            if (value)
                printf("%s %s=%s", n++ ? ";" : "", key->name, value);
        }
        printf(" |\n");
    }
    putchar('\n');
    print_head(method_head, 3);
    for (int i = 0; (m = saw_method_at(i)); i++) {
        char rows[256];
        snprintf(name, sizeof name, "`%s`", m->name);
        snprintf(rows, sizeof rows, "`%s`", m->rows);
        print_row((const char *[]){name, m->help, rows}, 3);
    }
}

static saw_status set_flags(saw_recipe *r, const options *o)
{
    saw_status status = SAW_OK;
    for (const flag *f = flags; (f->name || f->kind == FLAG_HEADING) && !status; f++) {
        const char *value = NULL;
        const saw_recipe_key *key = NULL;
        for (int i = 0; f->name && (key = saw_recipe_key_at(i)); i++)
            if (key->flag && !strcmp(key->flag, f->name))
                break;
        if (key)
            value = *(const char *const *)((const char *)o + f->offset);
        if (value) {
            char source[64];
            snprintf(source, sizeof source, "--%s", f->name);
            status = saw_recipe_set(r, source, key->name, value);
        }
    }
    for (int i = 0; i < o->settings.count && !status; i++) {
        char key[128];
        const char *equals = strchr(o->settings.item[i], '=');
        if (!equals || (size_t)(equals - o->settings.item[i]) >= sizeof key)
            return saw_fail(r->pool.ctx, SAW_ERR_ARGUMENT,
                            "--set %s makes no sense: KEY=VALUE is wanted", o->settings.item[i]);
        snprintf(key, sizeof key, "%.*s", (int)(equals - o->settings.item[i]), o->settings.item[i]);
        status = saw_recipe_set(r, "--set", key, equals + 1);
    }
    return status;
}

/* Defaults, the preset, files, flags; of a run that goes on its own recipe and a few flags. */
static saw_status make_recipe(saw_context *ctx, const options *o, bool scratch, saw_recipe *r)
{
    saw_status status = saw_recipe_open(ctx, r);
    if (!status && o->resume) {
        char path[4200];
        r->resume = o->resume;
        snprintf(path, sizeof path, "%s/recipe.yaml", o->resume);
        status =
            access(path, F_OK)
                ? saw_fail(ctx, SAW_ERR_IO,
                           "%s: has no run to resume: there is no recipe.yaml in it", o->resume)
                : saw_recipe_load(r, path);
    }
    if (!status && o->preset)
        status = saw_recipe_set_preset(r, o->preset);
    static const char *const nothing[][2] = {
        {"method", "full"}, {"batch_norm", "batch"}, {"dropout", "on"}};
    for (int i = 0; i < 3 && scratch && !o->resume && !status; i++)
        status = saw_recipe_set(r, "train", nothing[i][0], nothing[i][1]);
    for (int i = 0; i < o->recipes.count && !status; i++)
        status = saw_recipe_load(r, o->recipes.item[i]);
    if (!status)
        status = set_flags(r, o);
    return status ? status : saw_run_folder_choose(r);
}

/* What cannot change in a run that goes on. */
static int check_resume(const command *c, const options *o)
{
    static const char *const may[] = {"resume", "steps", "patience"};
    if (!o->resume)
        return 0;
    for (const flag *f = flags; f->name || f->kind == FLAG_HEADING; f++) {
        const char *at = (const char *)o + f->offset;
        bool given = f->kind == FLAG_TEXT    ? *(const char *const *)at != NULL
                     : f->kind == FLAG_TEXTS ? ((const texts *)at)->count > 0
                                             : false;
        for (size_t i = 0; i < sizeof may / sizeof *may; i++)
            given = given && strcmp(f->name, may[i]);
        if (given)
            return usage_error(c->name,
                               "--%s cannot change in a run that goes on: start a new one, with "
                               "--recipe %s/recipe.yaml",
                               f->name, o->resume);
    }
    return 0;
}

static int check_recipe(const command *c, const saw_recipe *r)
{
    bool scratch = c == &command_train;
    if (scratch && r->model)
        return usage_error("train",
                           "--model %s: training begins with nothing; `bandsaw finetune` "
                           "goes on from a checkpoint",
                           r->model);
    if (scratch && !r->config)
        return usage_error("train", "a model is wanted: --config FILE");
    if (!scratch && !r->model)
        return usage_error("finetune", "a checkpoint to start from is wanted: --model FILE");
    if (!r->data)
        return usage_error(c->name, "songs are wanted: --data DIR");
    return 0;
}

/* ---- what is said ---------------------------------------------------------------------------- */

typedef struct teller {
    saw_context *ctx;
    saw_recipe *recipe;
    const options *o;
    const char *name; /* of the command */
    bool terminal, bar_visible;
    saw_train_progress last;
} teller;

static teller *bar_of; /* for cli_before_line, which has no argument */

static void clear_bar(void)
{
    if (bar_of && bar_of->bar_visible)
        fprintf(stderr, "\r\033[K");
    if (bar_of)
        bar_of->bar_visible = false;
}

static const char *duration(double seconds, char out[48])
{
    if (!(seconds >= 0 && seconds < 1e9))
        snprintf(out, 48, "?");
    else if (seconds < 10)
        snprintf(out, 48, "%.2g s", seconds);
    else if (seconds < 90)
        snprintf(out, 48, "%.0f s", seconds);
    else if (seconds < 5400)
        snprintf(out, 48, "%.0f min", seconds / 60);
    else
        snprintf(out, 48, "%.1f h", seconds / 3600);
    return out;
}

static const char *count_of(double n, char out[48])
{
    if (n >= 1e6)
        snprintf(out, 48, "%.2f M", n / 1e6);
    else if (n >= 1e4)
        snprintf(out, 48, "%.1f k", n / 1e3);
    else
        snprintf(out, 48, "%.0f", n);
    return out;
}

static void print_plan(const teller *t, const saw_train_plan *p)
{
    const saw_recipe *r = t->recipe;
    char a[48], b[48];
    saw_buffer stems = {.ctx = t->ctx};
    for (int i = 0; i < r->stems.count; i++)
        saw_buffer_printf(&stems, "%s%s", i ? ", " : "", r->stems.items[i]);
    printf("model   %s, %s parameters\n", r->model ? r->model : r->config,
           count_of((double)p->parameters, a));
    printf("trains  %s: %s parameters in %d tensors, %.3g %% of all\n", r->method,
           count_of((double)p->trainable, a), p->tensors,
           100.0 * (double)p->trainable / (double)(p->parameters ? p->parameters : 1));
    printf("songs   %d to train with, %d to validate with, of %s: %s\n", p->train_songs,
           p->valid_songs, r->data, stems.size ? stems.data : "all stems of the model");
    printf("a step  %d x %d chunk%s of %.2f s, %.1f GFLOP, %s in backward\n", p->accumulate,
           p->batch, p->accumulate * p->batch == 1 ? "" : "s",
           (double)p->chunk_samples / (p->rate_hz ? p->rate_hz : 1), p->flops_per_step / 1e9,
           strcmp(p->checkpointing, "none") ? "layers made again" : "nothing made again");
    printf("memory  %.2f GB", (double)p->memory_bytes / 1e9);
    if (p->memory_limit)
        printf(" of %.2f GB that may be used", (double)p->memory_limit / 1e9);
    printf("\ntime    at least %s a step, %s for %lld steps, and validation\n",
           duration(p->seconds_per_step, a), duration(p->seconds_per_step * (double)p->steps, b),
           (long long)p->steps);
    printf("folder  %s\n", r->output);
    fflush(stdout);
    saw_buffer_free(&stems);
}

static json_t *number(double v)
{
    return isfinite(v) ? json_real(v) : json_null();
}

static void print_plan_json(const teller *t, const saw_train_plan *p)
{
    cli_print_json(json_pack(
        "{s:s,s:o,s:o,s:I,s:I,s:i,s:i,s:i,s:I,s:i,s:i,s:i,s:s,s:I,s:I,s:o,s:o,s:I}", "type", "plan",
        "folder", cli_json_text(t->recipe->output), "method", cli_json_text(t->recipe->method),
        "parameters", (json_int_t)p->parameters, "trainable", (json_int_t)p->trainable, "tensors",
        p->tensors, "train_songs", p->train_songs, "valid_songs", p->valid_songs, "chunk_samples",
        (json_int_t)p->chunk_samples, "rate_hz", p->rate_hz, "batch", p->batch, "accumulate",
        p->accumulate, "checkpointing", p->checkpointing, "memory_bytes",
        (json_int_t)p->memory_bytes, "memory_limit", (json_int_t)p->memory_limit, "flops_per_step",
        number(p->flops_per_step), "least_seconds_per_step", number(p->seconds_per_step), "steps",
        (json_int_t)p->steps));
}

static void print_json_progress(const saw_train_progress *p)
{
    json_t *line =
        json_pack("{s:s,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", "type", p->validated ? "valid" : "step",
                  "step", (json_int_t)p->step, "steps", (json_int_t)p->steps, "loss",
                  number(p->loss), "grad_norm", number(p->grad_norm), "lr", number(p->lr),
                  "steps_per_s", number(p->steps_per_s), "seconds_left", number(p->seconds_left));
    if (p->validated) {
        json_object_set_new(line, "sdr_db", number(p->sdr_db));
        json_object_set_new(line, "best_sdr_db", number(p->best_sdr_db));
        json_object_set_new(line, "base_sdr_db", number(p->base_sdr_db));
        json_object_set_new(line, "general_sdr_db", number(p->forgetting_db));
        json_object_set_new(line, "forgetting_db",
                            number(p->forgetting_db - p->base_forgetting_db));
    }
    cli_print_json(line);
}

static void print_valid(const saw_train_progress *p)
{
    printf("step %*lld", snprintf(NULL, 0, "%lld", (long long)p->steps), (long long)p->step);
    if (p->step > 0)
        printf("  loss %.5g", p->loss);
    printf("  SDR %.2f dB", p->sdr_db);
    if (p->step > 0)
        printf(" (%+.2f)", p->sdr_db - p->base_sdr_db);
    if (isfinite(p->forgetting_db))
        printf("  general songs %.2f dB", p->forgetting_db);
    if (isfinite(p->forgetting_db) && p->step > 0)
        printf(" (%+.2f)", p->forgetting_db - p->base_forgetting_db);
    printf("%s\n", p->step > 0 && p->sdr_db >= p->best_sdr_db ? "  best" : "");
    fflush(stdout);
}

static void show_bar(teller *t, const saw_train_progress *p)
{
    char left[48], rate[48];
    snprintf(rate, sizeof rate, p->steps_per_s >= 1 ? "%.1f steps/s" : "%.3g s/step",
             p->steps_per_s >= 1 ? p->steps_per_s : 1 / p->steps_per_s);
    fprintf(stderr, "\r\033[Kstep %lld of %lld", (long long)p->step, (long long)p->steps);
    if (isfinite(p->loss) && p->step > 0)
        fprintf(stderr, "  loss %.5g", p->loss);
    if (isfinite(p->best_sdr_db))
        fprintf(stderr, "  best SDR %.2f dB", p->best_sdr_db);
    if (p->steps_per_s > 0)
        fprintf(stderr, "  %s  %s left", rate, duration(p->seconds_left, left));
    if (p->doing)
        fprintf(stderr, "  %s, %.0f %%", p->doing, 100 * p->share);
    fflush(stderr);
    t->bar_visible = true;
}

static void tell(void *user, const saw_train_progress *p)
{
    teller *t = user;
    t->last = *p;
    if (t->o->json && !p->doing)
        print_json_progress(p);
    if (!t->o->json && p->validated) {
        clear_bar();
        print_valid(p);
    }
    if (p->validated && saw_report_write(t->ctx, t->recipe->output))
        saw_log(t->ctx, SAW_LOG_WARN, "%s", saw_context_error(t->ctx));
    if (t->terminal)
        show_bar(t, p);
}

/* How it ended, and what comes next. */
static void print_end(const teller *t, saw_status status)
{
    const saw_recipe *r = t->recipe;
    const saw_train_progress *p = &t->last;
    if (t->o->json) {
        cli_print_json(json_pack("{s:s,s:b,s:I,s:o,s:o,s:o}", "type", "end", "stopped",
                                 status == SAW_ERR_CANCELLED, "step", (json_int_t)p->step, "folder",
                                 cli_json_text(r->output), "best_sdr_db", number(p->best_sdr_db),
                                 "base_sdr_db", number(p->base_sdr_db)));
    } else if (status) {
        fprintf(stderr, "stopped after step %lld and saved; go on with: bandsaw %s --resume %s\n",
                (long long)p->step, t->name, r->output);
    } else {
        if (p->best_sdr_db <= p->base_sdr_db)
            printf("no step was better than what it began with: SDR %.2f dB, now %.2f dB at best\n",
                   p->base_sdr_db, p->best_sdr_db);
        else if (isfinite(p->best_sdr_db))
            printf("SDR %.2f dB, before it was %.2f dB\n", p->best_sdr_db, p->base_sdr_db);
        printf("look at %s/report.html\n", r->output);
    }
}

/* ---- the command ----------------------------------------------------------------------------- */

static int train(teller *t)
{
    saw_trainer *trainer;
    saw_status status = saw_trainer_open(t->ctx, t->recipe, &trainer);
    if (status)
        return cli_failed(t->ctx);
    const saw_train_plan *plan = saw_trainer_plan(trainer);
    if (t->o->json)
        print_plan_json(t, plan);
    else
        print_plan(t, plan);
    if (!t->o->dry_run) {
        status = saw_trainer_run(trainer, tell, t);
        clear_bar();
    }
    saw_trainer_close(trainer);
    if (t->o->dry_run)
        return 0;
    if (status && status != SAW_ERR_CANCELLED)
        return cli_failed(t->ctx);
    saw_context_resume(t->ctx);
    if (saw_report_write(t->ctx, t->recipe->output))
        return cli_failed(t->ctx);
    print_end(t, status);
    return status ? EXIT_INTERRUPTED : 0;
}

static int run(const command *c, int argc, char **argv)
{
    options o = {0};
    int operands, code;
    if (!flags_parse(c, argc, argv, &o, &operands, &code))
        return code;
    if (o.help_recipe) {
        print_recipe_help();
        return 0;
    }
    if ((code = check_resume(c, &o)))
        return code;
    saw_context *ctx = cli_open(o.threads);
    if (!ctx)
        return EXIT_FAILED;
    saw_recipe recipe;
    teller t = {.ctx = ctx,
                .recipe = &recipe,
                .o = &o,
                .name = c->name,
                .terminal = isatty(STDERR_FILENO),
                .last = {.best_sdr_db = NAN}};
    bar_of = &t;
    cli_before_line = clear_bar;
    if (make_recipe(ctx, &o, c == &command_train, &recipe)) {
        fprintf(stderr, "bandsaw %s: %s\n", c->name, saw_context_error(ctx));
        code = EXIT_USAGE;
    } else {
        code = check_recipe(c, &recipe);
    }
    if (!code)
        code = train(&t);
    saw_recipe_free(&recipe);
    cli_close(ctx);
    bar_of = NULL;
    return code;
}

static int run_finetune(int argc, char **argv)
{
    return run(&command_finetune, argc, argv);
}

static int run_train(int argc, char **argv)
{
    return run(&command_train, argc, argv);
}
