/*
 * test_trainer.c - runs of training, on a model of some ten thousand parameters and songs of two
 * seconds. A run that was stopped, by a signal at any moment or by kill -9 in a step, a validation
 * or a save, and went on is to the bit the run that was not: its state, its log, its checkpoints.
 */
#include "run/run_folder.h"
#include "run/separator.h"
#include "run/trainer.h"
#include "support/songs.h"
#include "support/test.h"
#include "support/tiny_model.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RATE = 8000, SONGS = 4, SETTINGS = 24 };

static char *temp;

/* ---- a run ----------------------------------------------------------------------------------- */

static const char *const common[] = {
    "data=songs",       "stems=vocals,drums", "chunk_s=0.5", "batch=2",         "steps=9",
    "validate_every=4", "save_every=2",       "warmup=2",    "valid_seconds=1", "loss=l1 + l2 * 3"};

typedef enum trap_kind { NO_TRAP, IN_VALIDATION, IN_A_SAVE, AFTER_CALLS } trap_kind;

/* What befalls a run. */
typedef struct trap {
    trap_kind kind;
    int64_t step; /* at which it is killed: in its validation, or in the next save */
    int calls;    /* AFTER_CALLS of progress it is cancelled */
    int made;     /* calls so far */
    saw_context *ctx;
    saw_train_progress last;
    double base_sdr_db;
} trap;

static void on_progress(void *user, const saw_train_progress *p)
{
    trap *t = user;
    t->last = *p;
    t->base_sdr_db = p->base_sdr_db;
    t->made++;
    if (t->kind == AFTER_CALLS && t->made == t->calls)
        saw_context_cancel(t->ctx);
    if (t->kind == IN_VALIDATION && p->doing && p->step >= t->step && p->share > 0.3)
        kill(getpid(), SIGKILL);
    if (t->kind == IN_A_SAVE && p->step >= t->step) { /* the state is larger than that */
        struct rlimit none = {0, 0}, r = {100000, 100000};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGXFSZ, SIG_DFL);
        setrlimit(RLIMIT_FSIZE, &r);
    }
}

static saw_context *volatile running;
static void on_alarm(int number)
{
    (void)number;
    if (running)
        saw_context_cancel(running);
}

static void set(saw_recipe *r, const char *setting)
{
    char key[64];
    const char *equals = strchr(setting, '=');
    snprintf(key, sizeof key, "%.*s", (int)(equals - setting), setting);
    if (saw_recipe_set(r, "test", key, equals + 1))
        fail_msg("%s", saw_context_error(r->pool.ctx));
}

static bool exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

static const char *in_folder(const char *folder, const char *name)
{
    static char path[4][256];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Open the recipe of a new run in a folder, or of the run that is there. */
static void make_recipe(saw_context *ctx, saw_recipe *r, const char *folder,
                        const char *const *settings)
{
    assert_int_equal(saw_recipe_open(ctx, r), SAW_OK);
    const char *saved = in_folder(folder, "recipe.yaml");
    if (exists(saved)) {
        r->resume = folder;
        if (saw_recipe_load(r, saved))
            fail_msg("%s", saw_context_error(ctx));
    }
    for (size_t i = 0; i < sizeof common / sizeof *common && !r->resume; i++)
        set(r, common[i]);
    for (; *settings && !r->resume; settings++)
        set(r, *settings);
    assert_int_equal(saw_recipe_set(r, "test", "output", folder), SAW_OK);
}

/* Begin the run or go on with it; us: after so long it is cancelled by a signal, 0: not. */
static saw_status train(const char *folder, const char *const *settings, int threads, trap *t,
                        int us)
{
    saw_recipe r;
    saw_trainer *trainer = NULL;
    assert_int_equal(saw_context_open(&t->ctx, &(saw_options){.threads = threads}), SAW_OK);
    make_recipe(t->ctx, &r, folder, settings);
    running = t->ctx;
    if (us)
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {us / 1000000, us % 1000000}}, NULL);
    saw_status status = saw_trainer_open(t->ctx, &r, &trainer);
    if (!status)
        status = saw_trainer_run(trainer, on_progress, t);
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    running = NULL;
    if (status && status != SAW_ERR_CANCELLED)
        fail_msg("%s", saw_context_error(t->ctx));
    saw_trainer_close(trainer);
    saw_recipe_free(&r);
    saw_context_close(t->ctx);
    return status;
}

/* The same in a process of its own, which dies after us microseconds (0: of its trap, or not). */
static bool train_and_die(const char *folder, const char *const *settings, trap t, int us)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(train(folder, settings, 1, &t, 0) ? 1 : 0);
    int status;
    if (us) {
        usleep((useconds_t)us);
        kill(pid, SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGXFSZ)
        fail_msg("the run died of signal %d", WTERMSIG(status));
    if (WIFEXITED(status))
        assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status);
}

static void remove_runs(void)
{
    assert_int_equal(system("rm -rf whole stopped killed"), 0);
}

/* ---- two runs -------------------------------------------------------------------------------- */

static void assert_same_states(const char *a, const char *b)
{
    saw_context *ctx;
    saw_checkpoint *x, *y;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_checkpoint_open(ctx, in_folder(a, "state.safetensors"), &x), SAW_OK);
    assert_int_equal(saw_checkpoint_open(ctx, in_folder(b, "state.safetensors"), &y), SAW_OK);
    assert_int_equal(saw_checkpoint_count(x), saw_checkpoint_count(y));
    assert_non_null(saw_checkpoint_find(x, "params"));
    for (int i = 0; i < saw_checkpoint_count(x); i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(x, i), *u = saw_checkpoint_at(y, i);
        assert_string_equal(t->name, u->name);
        assert_int_equal(t->count, u->count);
        int64_t n = t->count;
        if (!strcmp(t->name, "run.figures"))
            n--; /* the last one is the time that was spent */
        size_t bytes = (size_t)n * saw_dtype_bytes(t->dtype);
        void *v = malloc(bytes + 1), *w = malloc(bytes + 1);
        assert_int_equal(saw_checkpoint_read_raw(x, t, 0, n, v), SAW_OK);
        assert_int_equal(saw_checkpoint_read_raw(y, u, 0, n, w), SAW_OK);
        if (memcmp(v, w, bytes))
            fail_msg("%s of the state differs", t->name);
        free(v);
        free(w);
    }
    saw_checkpoint_close(x);
    saw_checkpoint_close(y);
    saw_context_close(ctx);
}

/* A log without what time says, one array. */
static json_t *read_log(const char *folder)
{
    json_t *all = json_array();
    FILE *f = fopen(in_folder(folder, "log.jsonl"), "r");
    char *line = NULL;
    size_t room = 0;
    assert_non_null(f);
    while (getline(&line, &room, f) > 0) {
        json_t *record = json_loads(line, 0, NULL);
        assert_non_null(record);
        json_object_del(record, "seconds");
        json_array_append_new(all, record);
    }
    free(line);
    fclose(f);
    return all;
}

static void assert_same_logs(const char *a, const char *b)
{
    json_t *x = read_log(a), *y = read_log(b);
    assert_true(json_array_size(x) >= 9 + 4);
    assert_int_equal(json_array_size(x), json_array_size(y));
    for (size_t i = 0; i < json_array_size(x); i++)
        if (!json_equal(json_array_get(x, i), json_array_get(y, i)))
            fail_msg("record %zu: %s is not %s", i, json_dumps(json_array_get(x, i), 0),
                     json_dumps(json_array_get(y, i), 0));
    json_decref(x);
    json_decref(y);
}

static bool same_bytes(const char *a, const char *b)
{
    FILE *f = fopen(a, "rb"), *g = fopen(b, "rb");
    int64_t n = 0;
    bool same = f && g;
    for (int c = 0, d = 0; same && c != EOF; n++) {
        c = getc(f);
        d = getc(g);
        same = c == d;
    }
    if (f)
        fclose(f);
    if (g)
        fclose(g);
    return same && n > 1000;
}

static void assert_same_runs(const char *a, const char *b, bool adapter, bool ema)
{
    static const char *const folders[] = {"last", "best", "ema"};
    assert_same_states(a, b);
    assert_same_logs(a, b);
    for (int i = 0; i < (ema ? 3 : 2); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%smodel.safetensors", folders[i],
                 adapter ? "adapter_" : "");
        if (!same_bytes(in_folder(a, name), in_folder(b, name)))
            fail_msg("%s differs", name);
    }
}

/* ---- stopped in every way -------------------------------------------------------------------- */

static uint32_t dice = 1;
static int throw_up_to(int n)
{
    dice = dice * 1664525u + 1013904223u;
    return (int)((dice >> 8) % (uint32_t)n);
}

static int cancels, kills, kills_in_validation, kills_in_saves;

/* A whole run; the same stopped by signals, by other numbers of threads; the same killed. */
static void check(const char *const *settings, bool adapter, bool ema)
{
    trap whole = {0};
    remove_runs();
    double start = saw_seconds();
    assert_int_equal(train("whole", settings, 2, &whole, 0), SAW_OK);
    int us = (int)((saw_seconds() - start) * 1e6);

    for (int i = 0;; i++) {
        trap t = {.kind = i == 1 ? AFTER_CALLS : NO_TRAP, .calls = 1 + throw_up_to(8)};
        if (!train("stopped", settings, 1 + i % 2, &t, i < 4 && i != 1 ? 1 + throw_up_to(us) : 0))
            break;
        cancels++;
        assert_true(i < 5);
    }
    assert_same_runs("whole", "stopped", adapter, ema);

    trap validation = {.kind = IN_VALIDATION, .step = 4}, save = {.kind = IN_A_SAVE, .step = 5};
    kills += train_and_die("killed", settings, (trap){0}, 1 + throw_up_to(us));
    kills_in_validation += train_and_die("killed", settings, validation, 0);
    kills_in_saves += train_and_die("killed", settings, save, 0);
    kills += train_and_die("killed", settings, (trap){0}, 1 + throw_up_to(us));
    assert_false(train_and_die("killed", settings, (trap){0}, 0));
    assert_same_runs("whole", "killed", adapter, ema);
    assert_int_not_equal(system("find killed | grep -q '[.]part'"), 0); /* nothing half-written */
    remove_runs();
}

static void check_optimizer(const char *optimizer)
{
    char name[64];
    snprintf(name, sizeof name, "optimizer=%s", optimizer);
    check((const char *const[]){"model=model.safetensors", name, "method=full", "ema=0.9",
                                "accumulate=2", "augment=gain,swap,polarity", "clip_mode=tensor",
                                "l2sp=0.01", "schedule=plateau", NULL},
          false, true);
    check((const char *const[]){"model=model.safetensors", name, "method=lora", "rank=2",
                                "rehearsal=on", "augment=eq,pitch=-2..2@0.3", "lora_plus=4", NULL},
          true, false);
}

static void test_adamw(void **state)
{
    (void)state;
    check_optimizer("adamw");
}
static void test_adam(void **state)
{
    (void)state;
    check_optimizer("adam");
}
static void test_radam(void **state)
{
    (void)state;
    check_optimizer("radam");
}
static void test_sgd(void **state)
{
    (void)state;
    check_optimizer("sgd");
}
static void test_muon(void **state)
{
    (void)state;
    check_optimizer("muon");
}
static void test_prodigy(void **state)
{
    (void)state;
    check_optimizer("prodigy");
}

/* What a net has beside weights: statistics of batches, and dice. */
static void test_batch_norm_and_dropout(void **state)
{
    (void)state;
    check((const char *const[]){"model=unet.safetensors", "method=full", "ema=0.9", "accumulate=3",
                                "batch_norm=batch", "dropout=on", "chunk_s=auto", NULL},
          false, true);
}

static void test_there_were_enough(void **state)
{
    (void)state;
    printf("stopped %d times; killed %d times at random, %d in validation, %d in a save\n", cancels,
           kills, kills_in_validation, kills_in_saves);
    assert_true(cancels >= 10);
    assert_true(kills + kills_in_validation + kills_in_saves >= 10);
    assert_true(kills_in_validation > 0 && kills_in_saves > 0);
}

/* ---- the base -------------------------------------------------------------------------------- */

/* SDR of the model itself on the songs that validate. */
static double base_sdr(const char *const *settings)
{
    static const char *const stems[] = {"vocals", "drums"};
    saw_context *ctx;
    saw_recipe r;
    saw_separator *base;
    saw_dataset *d;
    saw_song_score scores[SONGS];
    int n;
    double sdr;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 2}), SAW_OK);
    make_recipe(ctx, &r, "none", settings);
    assert_int_equal(saw_separator_open(ctx, r.model, NULL, &base), SAW_OK);
    assert_int_equal(
        saw_dataset_open(
            ctx, r.data,
            &(saw_dataset_options){.stems = stems, .n_stems = 2, .rate_hz = RATE, .channels = 2},
            &d),
        SAW_OK);
    assert_int_equal(saw_run_split(ctx, &r, d), SAW_OK);
    assert_int_equal(saw_score_songs(ctx, base, d,
                                     &(saw_score_options){.part = SAW_SONG_VALID,
                                                          .outputs = stems,
                                                          .n_outputs = 2,
                                                          .song_seconds = r.valid_seconds},
                                     scores, &n, &sdr),
                     SAW_OK);
    saw_dataset_close(d);
    saw_separator_close(base);
    saw_recipe_free(&r);
    saw_context_close(ctx);
    return sdr;
}

/* A LoRA whose B is zero is the model itself: in the file that is validated, and in the first step,
 * whose loss is that of a run that trains the model's own weights. */
static void test_lora_begins_as_the_base(void **state)
{
    (void)state;
    static const char *const methods[] = {"method=full", "method=lora", "method=rslora",
                                          "method=lora-attn"};
    double first = 0, sdr = 0;
    for (int i = 0; i < 4; i++) {
        const char *const settings[] = {"model=model.safetensors",
                                        methods[i],
                                        "optimizer=sgd",
                                        "steps=1",
                                        "augment=gain",
                                        NULL};
        remove_runs();
        trap t = {0};
        if (i == 0)
            sdr = base_sdr(settings);
        assert_int_equal(train("whole", settings, 2, &t, 0), SAW_OK);
        json_t *log = read_log("whole");
        double loss = 0;
        for (size_t k = 0; k < json_array_size(log); k++) {
            const json_t *record = json_array_get(log, k);
            if (!strcmp(json_string_value(json_object_get(record, "type")), "step"))
                loss = json_real_value(json_object_get(record, "loss"));
        }
        json_decref(log);
        first = i ? first : loss;
        if (t.base_sdr_db != sdr || loss != first)
            fail_msg("%s: SDR %.17g, the base's %.17g; loss %.17g, the base's %.17g", methods[i],
                     t.base_sdr_db, sdr, loss, first);
        assert_true(isfinite(sdr) && loss > 0);
    }
    remove_runs();
}

/* ---- from nothing ---------------------------------------------------------------------------- */

/* Mean loss of the steps (first, last] of a run. */
static double mean_loss(const char *folder, int64_t first, int64_t last)
{
    json_t *log = read_log(folder);
    double sum = 0;
    for (size_t i = 0; i < json_array_size(log); i++) {
        const json_t *record = json_array_get(log, i);
        int64_t step = json_integer_value(json_object_get(record, "step"));
        if (!strcmp(json_string_value(json_object_get(record, "type")), "step") && step > first &&
            step <= last)
            sum += json_real_value(json_object_get(record, "loss"));
    }
    json_decref(log);
    return sum / (double)(last - first);
}

static void test_from_nothing(void **state)
{
    (void)state;
    check((const char *const[]){"config=model.yaml", "method=full", "ema=0.9", NULL}, false, true);
    const char *const settings[] = {
        "config=model.yaml", "method=full", "steps=150", "validate_every=75",
        "lr=0.003",          "loss=l1",     NULL};
    trap t = {0};
    saw_context *ctx;
    saw_separator *trained;
    assert_int_equal(train("whole", settings, 2, &t, 0), SAW_OK);
    double before = mean_loss("whole", 0, 5), after = mean_loss("whole", 145, 150);
    if (!(after < 0.6 * before) || !(t.last.best_sdr_db > t.base_sdr_db + 1))
        fail_msg("loss from %g to %g, SDR from %g to %g dB", before, after, t.base_sdr_db,
                 t.last.best_sdr_db);
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_separator_open(ctx, "whole/best/model.safetensors", NULL, &trained),
                     SAW_OK);
    assert_string_equal(saw_separator_get_info(trained)->stem_names[1], "drums");
    saw_separator_close(trained);
    saw_context_close(ctx);
    remove_runs();
}

/* ---- memory ---------------------------------------------------------------------------------- */

static double status_bytes(const char *what)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kilobytes = 0;
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, what, strlen(what)))
            kilobytes = atof(line + strlen(what) + 1);
    if (f)
        fclose(f);
    return kilobytes * 1024;
}

/* Beside what is planned: threads, libraries, songs' names, the tape. */
static const double CONSTANT_BYTES = 32e6;

/* Whether a run takes what it said that it would. */
static bool takes_what_was_planned(const char *const *settings)
{
    trap t = {0};
    saw_recipe r;
    saw_trainer *trainer;
    double before = status_bytes("VmRSS");
    assert_int_equal(saw_context_open(&t.ctx, &(saw_options){.threads = 2}), SAW_OK);
    make_recipe(t.ctx, &r, "whole", settings);
    if (saw_trainer_open(t.ctx, &r, &trainer) || saw_trainer_run(trainer, on_progress, &t))
        fail_msg("%s", saw_context_error(t.ctx));
    const saw_train_plan *plan = saw_trainer_plan(trainer);
    double planned = (double)plan->memory_bytes, measured = status_bytes("VmHWM") - before;
    for (; *settings; settings++)
        printf("%s ", *settings);
    printf("(%s): planned %.1f MB, measured %.1f MB\n", plan->checkpointing, planned * 1e-6,
           measured * 1e-6);
    bool good = fabs(measured - planned) <= 0.05 * planned + CONSTANT_BYTES;
    saw_trainer_close(trainer);
    saw_recipe_free(&r);
    saw_context_close(t.ctx);
    fflush(stdout);
    return good;
}

static void test_planned_memory(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* shadows and red zones are not planned */
#endif
    static const char *const runs[][8] = {
        {"method=full", "checkpointing=off"},
        {"method=full", "checkpointing=on", "optimizer=muon", "ema=0.9"},
        {"method=lora", "checkpointing=off"},
        {"method=lora", "checkpointing=on"},
        {"method=lora", "checkpointing=off", "rehearsal=on"},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        const char *settings[SETTINGS] = {"model=model.safetensors", "steps=2", "batch=32",
                                          "chunk_s=8"};
        for (int k = 0; k < 8 && runs[i][k]; k++)
            settings[4 + k] = runs[i][k];
        remove_runs();
        pid_t pid = fork();
        if (pid == 0) {
            bool good = takes_what_was_planned(settings);
            _exit(good ? 0 : 1);
        }
        int status;
        waitpid(pid, &status, 0);
        assert_int_equal(status, 0);
    }
    remove_runs();
}

static int enter(void **state)
{
    (void)state;
    temp = test_enter_folder();
    signal(SIGALRM, on_alarm);
    tiny_model_write("model.safetensors", &(tiny_model){.rate_hz = RATE,
                                                        .stems = "\"vocals\",\"drums\",\"other\"",
                                                        .chunk_samples = 4096});
    tiny_unet_write("unet.safetensors");
    test_write_text("model.yaml",
                    tiny_model_config(&(tiny_model){
                        .rate_hz = RATE, .stems = "\"vocals\",\"drums\"", .chunk_samples = 4096}));
    for (int i = 0; i < SONGS; i++) {
        char path[64];
        snprintf(path, sizeof path, "songs/song %d/vocals.wav", i);
        test_write_sound(path, RATE, 2, 2 * RATE,
                         (test_sound){.hz = 220 + 100 * (i % 2), .gain = 0.3});
        snprintf(path, sizeof path, "songs/song %d/drums.wav", i);
        test_write_sound(path, RATE, 2, 2 * RATE,
                         (test_sound){.noise = (uint64_t)i + 1, .gain = 0.2});
    }
    return 0;
}

static int leave(void **state)
{
    (void)state;
    test_leave_folder(temp);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_radam),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_muon),
        cmocka_unit_test(test_prodigy),
        cmocka_unit_test(test_batch_norm_and_dropout),
        cmocka_unit_test(test_lora_begins_as_the_base),
        cmocka_unit_test(test_from_nothing),
        cmocka_unit_test(test_there_were_enough),
        cmocka_unit_test(test_planned_memory),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
