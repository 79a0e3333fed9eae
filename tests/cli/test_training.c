/*
 * test_training.c - what may go wrong with a training run: songs, files and recipes that are not
 * what they should be, things that vanish, disks that are full, two processes at one run. One
 * sentence each, an exit code, and what was saved before is still there. And a model from nothing.
 */
#include "support/shell.h"
#include "support/songs.h"
#include "support/test.h"
#include "support/tiny_model.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RATE = 8000, SONGS = 4 };

#define ON         "exec $B finetune --model model.safetensors --stem vocals --chunk 0.5 "
#define SMALL      "--set valid_seconds=1 --set save_every=2 --validate-every 4 "
#define FINETUNE   ON SMALL
#define RESUME     "exec $B finetune --resume "
#define MANY_STEPS "--steps 1000000 "

static char *folder;

static void sh(const char *line)
{
    assert_int_equal(system(line), 0);
}

static bool exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0;
}

static double broken(const void *user, int c, int64_t i)
{
    (void)user;
    (void)c;
    return i == 7000 ? NAN : 0.2 * sin(0.1 * (double)i);
}

static void write_songs(const char *set, int64_t frames)
{
    char path[128];
    for (int i = 0; i < SONGS; i++) {
        snprintf(path, sizeof path, "%s/song %d/vocals.wav", set, i);
        test_write_sound(path, RATE, 2, frames, (test_sound){.hz = 200 + 50 * i, .gain = 0.3});
        snprintf(path, sizeof path, "%s/song %d/drums.wav", set, i);
        test_write_sound(path, RATE, 2, frames,
                         (test_sound){.noise = (uint64_t)i + 1, .gain = 0.2});
    }
}

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    setenv("HOME", folder, 1);
    setenv("B", BANDSAW_PROGRAM, 1);
    setenv("GOLDEN", SAW_TEST_GOLDEN, 1);
    tiny_model two = {.rate_hz = RATE, .stems = "\"vocals\",\"other\"", .chunk_samples = 4096};
    tiny_model_write("model.safetensors", &two);
    test_write_text("model.yaml", tiny_model_config(&two));
    two.salt = "other";
    tiny_model_write("twin.safetensors", &two);
    tiny_model_write("mono.safetensors",
                     &(tiny_model){.rate_hz = RATE, .mono = true, .chunk_samples = 4096});
    write_songs("songs", 2 * RATE);
    shell_run(FINETUNE "--data songs --steps 4 -o done", 0, "done/report.html");
    return 0;
}

static int leave(void **state)
{
    (void)state;
    test_leave_folder(folder);
    return 0;
}

/* ---- songs ----------------------------------------------------------------------------------- */

static void test_songs(void **state)
{
    (void)state;
    write_songs("short", 300);
    shell_run(FINETUNE "--data short --steps 4 -o of-short", 0, "of-short/report.html");
    write_songs("empty", 0);
    shell_refuse(FINETUNE "--data empty --steps 4 -o of-empty", 1,
                 "empty: the songs to train with are all empty");
    assert_false(exists("of-empty"));
    write_songs("few", 2 * RATE);
    sh("rm few/*[12]/vocals.wav");
    shell_run(FINETUNE "--data few --steps 1 -o of-few", 0,
              "few: 2 of 4 songs lack a stem (song 1 and others) and have silence in its place");
    shell_run(FINETUNE "--data few --steps 1 -o of-fewer --set complete=on", 0,
              "1 to train with, 1 to validate with");
    sh("rm few/*[03]/vocals.wav");
    shell_refuse(FINETUNE "--data few --steps 1 -o of-none", 1,
                 "few: no song has the stem vocals; there are drums");
    assert_false(exists("of-none"));
}

/* The run stops at the song; when it is whole again the run goes on. */
static void test_samples_that_are_no_numbers(void **state)
{
    (void)state;
    write_songs("nan", 2 * RATE);
    sh("cp -r nan whole");
    for (int i = 0; i < SONGS; i++) {
        char path[64];
        snprintf(path, sizeof path, "nan/song %d/vocals.wav", i);
        test_write_file(path, RATE, 2, 2 * RATE, broken, NULL);
    }
    shell_refuse(FINETUNE "--data nan --steps 40 --chunk 2 -o of-nan", 1,
                 "vocals.wav: holds a sample that is not a finite number, at 0.875 s");
    sh("rm -r nan; mv whole nan");
    shell_run(RESUME "of-nan --steps 4", 0, "of-nan/report.html");
}

/* ---- other models ---------------------------------------------------------------------------- */

static void test_adapters_of_other_models(void **state)
{
    (void)state;
    static const char *const song = "'songs/song 0/vocals.wav' -o out";
    char line[256];
    snprintf(line, sizeof line, "$B separate -m model.safetensors --adapter done/best %s", song);
    shell_run(line, 0, "out");
    sh("rm -r out");
    snprintf(line, sizeof line, "$B separate -m twin.safetensors --adapter done/best %s", song);
    shell_refuse(line, 1, "done/best is an adapter for another model");
    snprintf(line, sizeof line, "$B separate -m mono.safetensors --adapter done/best %s", song);
    shell_refuse(line, 1, "model.safetensors, not for mono.safetensors");
    snprintf(line, sizeof line, "$B separate -m model.safetensors --adapter $GOLDEN/peft/lora %s",
             song); /* which tells no fingerprint */
    shell_refuse(line, 1, "model.safetensors");
    char *err = shell_read("stderr.txt", NULL);
    assert_non_null(strstr(err, "lora_A"));
    assert_non_null(strchr(err, '['));
    free(err);
    shell_run("cp -r done/best cut; head -c 500 done/best/adapter_model.safetensors > "
              "cut/adapter_model.safetensors",
              0, "");
    snprintf(line, sizeof line, "$B separate -m model.safetensors --adapter cut %s", song);
    shell_refuse(line, 1, "cut/adapter_model.safetensors: its safetensors header");
    assert_false(exists("out"));
}

/* A copy of the run, changed, is refused and stays as it was. */
static void refuse_changed(const char *change, const char *says)
{
    char line[256];
    snprintf(line, sizeof line, "rm -rf changed; cp -r done changed; cd changed; %s", change);
    sh(line);
    sh("cp -r changed before");
    shell_refuse(RESUME "changed --steps 8", 1, says);
    sh("rm before/recipe.yaml; cp changed/recipe.yaml before; diff -r changed before");
    sh("rm -r changed before");
}

static void test_runs_that_were_changed(void **state)
{
    (void)state;
    refuse_changed("sed -i 's/model[.]safe/twin.safe/' recipe.yaml",
                   "the run in changed began with another model than");
    refuse_changed("sed -i 's/model[.]safe/mono.safe/' recipe.yaml",
                   "the state in changed is not that of this recipe");
    refuse_changed("sed -i 's/rank: 16/rank: 3/' recipe.yaml",
                   "the state in changed is not that of this recipe");
    refuse_changed("sed -i 's/optimizer: adamw/optimizer: sgd/' recipe.yaml", "changed");
    refuse_changed("head -c 3000 ../done/state.safetensors > state.safetensors",
                   "changed/state.safetensors: is damaged");
    refuse_changed("sed -i 's/song [0-3]/song 9/' split.json", "songs: there is no song song 9");
    refuse_changed("sed -i 's,model: .*model[.]safe,model: gone.safe,' recipe.yaml",
                   "gone.safetensors: cannot be opened");
}

/* ---- while it runs --------------------------------------------------------------------------- */

static int steps_logged(const char *path)
{
    char *text = shell_read(path, NULL);
    int n = 0;
    for (const char *p = text; (p = strstr(p, "\"type\":\"step\"")); p++)
        n++;
    free(text);
    return n;
}

static pid_t start_and_wait(const char *line, const char *log)
{
    pid_t pid = shell_start(line);
    for (int i = 0; steps_logged(log) < 3; i++) {
        assert_true(i < 60000);
        usleep(1000);
    }
    return pid;
}

/* The run ends by itself, with this sentence alone. */
static void ends_with(pid_t pid, const char *says)
{
    assert_int_equal(shell_finish(pid), 1);
    char *err = shell_read("stderr.txt", NULL);
    if (!strstr(err, says) || strchr(err, '\n') != err + strlen(err) - 1)
        fail_msg("not \"%s\" alone: %s", says, err);
    free(err);
}

static void test_two_processes(void **state)
{
    (void)state;
    pid_t pid = start_and_wait(FINETUNE MANY_STEPS "--data songs -o busy", "busy/log.jsonl");
    shell_refuse(RESUME "busy", 1, "busy: another process is training in this folder");
    shell_refuse(FINETUNE "--data songs -o busy", 1, "busy: has a run already");
    kill(pid, SIGINT);
    assert_int_equal(shell_finish(pid), 130);
    int steps = steps_logged("busy/log.jsonl");
    char line[128];
    snprintf(line, sizeof line, RESUME "busy --steps %d", steps + 2);
    shell_run(line, 0, "busy/report.html"); /* what was refused has done no harm */
    assert_int_equal(steps_logged("busy/log.jsonl"), steps + 2);
}

static void test_things_vanish(void **state)
{
    (void)state;
    sh("cp -r songs removable");
    pid_t pid = start_and_wait(FINETUNE MANY_STEPS "--data removable -o lost", "lost/log.jsonl");
    sh("mv removable away");
    ends_with(pid, "cannot be opened: No such file or directory");
    sh("mv away removable");
    shell_run(RESUME "lost --steps 4", 0, "lost/report.html");

    pid = start_and_wait(FINETUNE MANY_STEPS "--data songs -o pulled", "pulled/log.jsonl");
    sh("mv pulled out-of-reach");
    ends_with(pid, "bandsaw: pulled");
    assert_false(exists("pulled"));
    shell_run("mv out-of-reach pulled; " RESUME "pulled --steps 4", 0, "pulled/report.html");

    sh("cp model.safetensors borrowed.safetensors");
    pid = start_and_wait("exec $B finetune --model borrowed.safetensors --stem vocals --chunk 0.5 "
                         "--data songs -o lent " SMALL MANY_STEPS,
                         "lent/log.jsonl");
    sh("rm borrowed.safetensors");
    ends_with(pid, "borrowed.safetensors: cannot be opened: No such file or directory");
}

/* No file may grow beyond so many blocks of 512 bytes: neither the adapter nor the state fits. */
static void test_a_full_disk(void **state)
{
    (void)state;
    static const char *const files[] = {"recipe.yaml", "state.safetensors",
                                        "last/adapter_model.safetensors",
                                        "best/adapter_model.safetensors"};
    sh("cp -r done full");
    for (int blocks = 20; blocks <= 1000; blocks *= 7) { /* adapter 360 kB, state 1.1 MB */
        char line[256];
        snprintf(line, sizeof line, "trap '' XFSZ; ulimit -f %d; " RESUME "full --steps 12",
                 blocks);
        shell_refuse(line, 1, "cannot be written");
        for (int i = 0; i < 4; i++) {
            snprintf(line, sizeof line, "cmp full/%s done/%s", files[i], files[i]);
            if (i) /* the recipe has the new steps */
                sh(line);
        }
        assert_int_not_equal(system("find full | grep -q '[.]part'"), 0);
    }
    shell_run(RESUME "full --steps 12", 0, "full/report.html");
}

/* ---- from nothing ---------------------------------------------------------------------------- */

static void test_from_nothing(void **state)
{
    (void)state;
    shell_run("$B train --config model.yaml --data songs --chunk 0.5 --steps 60 --lr 0.003 "
              "--validate-every 30 --set valid_seconds=1 -o new",
              0, "new/report.html");
    shell_run("$B separate -m new/last/model.safetensors 'songs/song 1/vocals.wav' -o stems", 0,
              "vocals.wav");
    assert_true(exists("stems"));
    shell_run("$B train --resume new --steps 62", 0, "new/report.html");
    shell_refuse("$B train --config model.yaml --method lora --data songs -o never", 1,
                 "the method lora adapts a model, and here is none yet");
    assert_false(exists("never"));
    shell_refuse("$B train --config none.yaml --data songs -o never", 1, "none.yaml");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_songs),
        cmocka_unit_test(test_samples_that_are_no_numbers),
        cmocka_unit_test(test_adapters_of_other_models),
        cmocka_unit_test(test_runs_that_were_changed),
        cmocka_unit_test(test_two_processes),
        cmocka_unit_test(test_things_vanish),
        cmocka_unit_test(test_a_full_disk),
        cmocka_unit_test(test_from_nothing),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
