/*
 * test_finetune.c - `bandsaw finetune` and `bandsaw train` as a person types them, on a tiny model
 * and songs of two seconds: what is refused and how, what a run leaves, and that a run that was
 * killed and resumed is the run that was not.
 */
#include "support/shell.h"
#include "support/test.h"
#include "support/tiny_model.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FINETUNE                                                                                   \
    "exec $B finetune --model model.safetensors --data songs --chunk 0.25 --set "                  \
    "valid_seconds=0.5 "

static char *folder;

static void write_stem(const char *song, const char *stem, double hz)
{
    enum { N = 88200 };
    char path[256];
    float *x = malloc(2 * N * sizeof *x);
    uint32_t noise = (uint32_t)hz * 2654435761u;
    for (int i = 0; i < N; i++) {
        noise = noise * 1664525u + 1013904223u;
        x[2 * i] = (float)(0.2 * sin(6.283185307 * hz * i / 44100) + (noise >> 8) * 2e-9);
        x[2 * i + 1] = 0.5f * x[2 * i];
    }
    snprintf(path, sizeof path, "%s/%s.wav", song, stem);
    SF_INFO info = {.samplerate = 44100, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_FLOAT};
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    assert_non_null(f);
    assert_int_equal(sf_writef_float(f, x, N), N);
    sf_close(f);
    free(x);
}

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    setenv("HOME", folder, 1);
    setenv("B", BANDSAW_PROGRAM, 1);
    tiny_model_write("model.safetensors", &(tiny_model){0});
    mkdir("songs", 0777);
    mkdir("one", 0777);
    mkdir("one/song", 0777);
    write_stem("one/song", "vocals", 200);
    write_stem("one/song", "drums", 300);
    for (int i = 0; i < 4; i++) {
        char song[64];
        snprintf(song, sizeof song, "songs/song %d", i);
        mkdir(song, 0777);
        write_stem(song, "vocals", 220 * (i + 1));
        write_stem(song, "drums", 1500 + 100 * i);
    }
    return 0;
}

static int leave(void **state)
{
    (void)state;
    test_leave_folder(folder);
    return 0;
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    shell_refuse("$B finetune --modle x", 2, "unknown flag --modle: did you mean --model?");
    shell_refuse("$B finetune --data songs", 2,
                 "a checkpoint to start from is wanted: --model FILE");
    shell_refuse("$B finetune --model model.safetensors", 2, "songs are wanted: --data DIR");
    shell_refuse("$B train --data songs", 2, "a model is wanted: --config FILE");
    shell_refuse("$B train --model model.safetensors --data songs", 2,
                 "training begins with nothing");
    shell_refuse(FINETUNE "--set stpes=3", 2,
                 "--set: there is no key 'stpes': did you mean run.steps?");
    shell_refuse(FINETUNE "--set steps", 2, "KEY=VALUE is wanted");
    shell_refuse(FINETUNE "--lr fast", 2, "--lr: lr 'fast' makes no sense");
    shell_refuse(FINETUNE "--preset quik", 2, "one of quick|careful|full is wanted");
    shell_refuse("echo 'run: {stpes: 1}' > r.yaml; " FINETUNE "--recipe r.yaml", 2,
                 "r.yaml, line 1: there is no key 'run.stpes': did you mean run.steps?");
    shell_refuse(FINETUNE "--recipe none.yaml", 2, "none.yaml");
    shell_refuse(FINETUNE "--loss l3", 1, "l3");
    shell_refuse(FINETUNE "--optimizer adamx", 1, "there is no optimizer 'adamx'");
    shell_refuse(FINETUNE "--method lorra", 1, "lorra");
    shell_refuse(FINETUNE "--stem harp", 1, "harp");
    shell_refuse(FINETUNE "--augment gian", 1, "gian");
    shell_refuse(FINETUNE "--data nowhere", 1, "nowhere");
    shell_refuse(FINETUNE "--memory 1M", 1, "this run needs");
    shell_refuse(FINETUNE "--data one", 1, "one song");
    shell_refuse("$B finetune --model none.ckpt --data songs", 1, "none.ckpt");
    shell_refuse("$B finetune --resume nothing", 2, "nothing: has no run to resume");
    shell_refuse("$B finetune --resume nothing --lr 1", 2,
                 "--lr cannot change in a run that goes on");
    shell_refuse("$B report songs", 1, "songs: has no run");
    struct stat s;
    assert_int_not_equal(stat("run-vocals", &s), 0); /* nothing was written for any of them */
    assert_int_not_equal(stat("run-model", &s), 0);
}

static void test_help(void **state)
{
    (void)state;
    shell_run("$B finetune --help", 0, "--resume DIR");
    shell_run("$B train --help", 0, "bandsaw train --config model.yaml");
}

/* docs/finetuning.md has the tables that the program prints. */
static void test_docs_have_the_table(void **state)
{
    (void)state;
    shell_run("exec $B finetune --help-recipe", 0,
              "| `data.valid_fraction` | `--valid-fraction` | SHARE | 0.15 |");
    char *docs = shell_read(SAW_TEST_GOLDEN "/../../docs/finetuning.md", NULL),
         *tables = shell_read("stdout.txt", NULL);
    if (!strstr(docs, tables))
        fail_msg("docs/finetuning.md is not what --help-recipe prints");
    free(docs);
    free(tables);
}

/* ---- runs ------------------------------------------------------------------------------------ */

static void test_a_plan_writes_nothing(void **state)
{
    (void)state;
    struct stat s;
    shell_run(FINETUNE "--stem vocals --steps 3 --dry-run", 0, "folder  run-vocals");
    shell_run(FINETUNE "--stem vocals --steps 3 --dry-run", 0,
              "3 to train with, 1 to validate with");
    assert_int_not_equal(stat("run-vocals", &s), 0);
}

static void test_a_run_leaves(void **state)
{
    (void)state;
    static const char *const files[] = {"recipe.yaml",
                                        "split.json",
                                        "log.jsonl",
                                        "state.safetensors",
                                        "report.html",
                                        "audio/best/excerpt.json",
                                        "audio/best/mixture.ogg",
                                        "audio/best/after-0.ogg"};
    shell_run(FINETUNE "--stem vocals --steps 4 --validate-every 2 -o r --json", 0,
              "\"type\":\"plan\"");
    char *out = shell_read("stdout.txt", NULL), *line = strtok(out, "\n");
    int steps = 0, valid = 0, ends = 0;
    for (; line; line = strtok(NULL, "\n")) {
        json_t *j = json_loads(line, 0, NULL);
        const char *type = json_string_value(json_object_get(j, "type"));
        assert_non_null(type);
        steps += !strcmp(type, "step");
        valid += !strcmp(type, "valid");
        ends += !strcmp(type, "end");
        json_decref(j);
    }
    free(out);
    assert_int_equal(steps, 4);
    assert_int_equal(valid, 3);
    assert_int_equal(ends, 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        struct stat s;
        snprintf(path, sizeof path, "r/%s", files[i]);
        if (stat(path, &s) || !s.st_size)
            fail_msg("%s is missing", path);
    }
    shell_refuse(FINETUNE "--stem vocals -o r", 1, "r: has a run already");
    shell_run("rm r/report.html; $B report r", 0, "r/report.html");
    char *html = shell_read("r/report.html", NULL);
    assert_non_null(strstr(html, "src=\"data:audio/ogg;base64,"));
    assert_non_null(strstr(html, "src=\"data:image/bmp;base64,"));
    free(html);
}

/* ---- interrupted ----------------------------------------------------------------------------- */

static int steps_logged(const char *path)
{
    char *text = shell_read(path, NULL);
    int n = 0;
    for (const char *p = text; (p = strstr(p, "\"type\":\"step\"")); p++)
        n++;
    free(text);
    return n;
}

static void assert_same_files(const char *a, const char *b)
{
    size_t na, nb;
    char *x = shell_read(a, &na), *y = shell_read(b, &nb);
    assert_true(na > 100);
    if (na != nb || memcmp(x, y, na))
        fail_msg("%s is not %s", a, b);
    free(x);
    free(y);
}

#define LONG_RUN                                                                                   \
    FINETUNE "--stem vocals --steps 14 --validate-every 5 --set save_every=2 --set ema=0.9 "       \
             "--set accumulate=2 --augment gain,swap "

static void test_killed_and_resumed(void **state)
{
    (void)state;
    static const int kills[] = {1, 3, 4, 9, 12};
    shell_run(LONG_RUN "-o whole", 0, "whole/report.html");
    pid_t pid = shell_start(LONG_RUN "-o parts");
    for (size_t i = 0; i < sizeof kills / sizeof *kills; i++) {
        while (steps_logged("parts/log.jsonl") < kills[i])
            usleep(1000);
        kill(pid, SIGKILL);
        assert_int_equal(shell_finish(pid), 128 + SIGKILL);
        pid = shell_start("exec $B finetune --resume parts");
    }
    assert_int_equal(shell_finish(pid), 0);
    assert_same_files("whole/last/adapter_model.safetensors",
                      "parts/last/adapter_model.safetensors");
    assert_same_files("whole/best/adapter_model.safetensors",
                      "parts/best/adapter_model.safetensors");
    assert_int_equal(steps_logged("parts/log.jsonl"), 14);
}

static void test_ctrl_c_saves(void **state)
{
    (void)state;
    pid_t pid = shell_start(LONG_RUN "-o stopped --steps 100000");
    while (steps_logged("stopped/log.jsonl") < 3)
        usleep(1000);
    kill(pid, SIGINT);
    assert_int_equal(shell_finish(pid), 130);
    char *err = shell_read("stderr.txt", NULL);
    assert_non_null(strstr(err, "go on with: bandsaw finetune --resume stopped"));
    free(err);
    int steps = steps_logged("stopped/log.jsonl");
    char line[128];
    snprintf(line, sizeof line, "exec $B finetune --resume stopped --steps %d", steps + 2);
    shell_run(line, 0, "stopped/report.html");
    assert_int_equal(steps_logged("stopped/log.jsonl"), steps + 2);
}

static void test_a_full_disk(void **state)
{
    (void)state;
    shell_run(FINETUNE "--stem vocals --steps 4 --validate-every 100 --set save_every=2 -o full", 0,
              "full/report.html");
    assert_int_equal(system("cp -r full before"), 0);
    struct stat s;
    char line[256];
    assert_int_equal(stat("full/state.safetensors", &s), 0);
    snprintf(line, sizeof line,
             "trap '' XFSZ; ulimit -f %ld; exec $B finetune --resume full --steps 8",
             (long)(s.st_size / 512 / 2));
    shell_refuse(line, 1, "full/state.safetensors: cannot be written");
    assert_same_files("full/state.safetensors", "before/state.safetensors");
    assert_same_files("full/last/adapter_model.safetensors",
                      "before/last/adapter_model.safetensors");
    shell_run("exec $B finetune --resume full --steps 8", 0, "full/report.html");
    assert_int_equal(steps_logged("full/log.jsonl"), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_docs_have_the_table),
        cmocka_unit_test(test_a_plan_writes_nothing),
        cmocka_unit_test(test_a_run_leaves),
        cmocka_unit_test(test_killed_and_resumed),
        cmocka_unit_test(test_ctrl_c_saves),
        cmocka_unit_test(test_a_full_disk),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
