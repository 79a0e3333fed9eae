/*
 * test_dataset.c - `bandsaw dataset check` and `list` as a person types them.
 */
#include "support/songs.h"
#include "support/test.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HZ = 44100, FRAMES = 3 * HZ };

static char *folder;

static int enter(void **state)
{
    (void)state;
    folder = test_temp_folder();
    return chdir(folder);
}

static int leave(void **state)
{
    (void)state;
    test_leave_folder(folder);
    return 0;
}

/* What a command said, both outputs, and its exit code. */
typedef struct result {
    char text[8192];
    int code;
} result;

static result run(const char *arguments)
{
    result r = {.code = -1};
    char line[1024];
    snprintf(line, sizeof line, "%s dataset %s 2>&1", BANDSAW_PROGRAM, arguments);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    r.text[fread(r.text, 1, sizeof r.text - 1, f)] = 0;
    int code = pclose(f);
    r.code = WIFEXITED(code) ? WEXITSTATUS(code) : 128;
    return r;
}

static void says(const char *arguments, int code, const char *words)
{
    result r = run(arguments);
    if (r.code != code || !strstr(r.text, words))
        fail_msg("%s: code %d and '%s'; wanted %d and '%s'", arguments, r.code, r.text, code,
                 words);
}

static void write_songs(void)
{
    char path[64];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "my songs/song%d/vocals.wav", i);
        test_write_sound(path, HZ, 2, FRAMES, (test_sound){.noise = 1 + (uint64_t)i, .gain = 0.3});
        snprintf(path, sizeof path, "my songs/song%d/drums.wav", i);
        test_write_sound(path, HZ, 2, FRAMES, (test_sound){.noise = 11 + (uint64_t)i, .gain = 0.3});
    }
}

static void test_check(void **state)
{
    (void)state;
    write_songs();
    says("check 'my songs'", 0, "4 songs, 0.2 minutes, layout musdb: 0 faults, 0 notes\n");
    test_write_sound("my songs/song2/drums.wav", HZ, 2, FRAMES, (test_sound){0});
    test_write_sound("my songs/song3/mixture.wav", HZ, 2, FRAMES,
                     (test_sound){.noise = 99, .gain = 0.3});
    says("check 'my songs'", 1,
         "song2\n  silent     drums          drums is silent (-inf dB RMS)\n");
    says("check 'my songs'", 1,
         "song3\n  not_sum    -              the mixture is not the sum of the stems: ");
    says("check 'my songs'", 1, "layout musdb: 2 faults, 0 notes\n");
    says("check 'my songs' --rate 48000", 1, "drums.wav has 44100 Hz, wanted are 48000 Hz");
    result r = run("check 'my songs' --json");
    assert_int_equal(r.code, 1);
    int lines = 0, faults = 0;
    for (char *line = strtok(r.text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        const char *type = json_string_value(json_object_get(object, "type"));
        faults += !strcmp(type, "fault");
        if (!strcmp(type, "summary"))
            assert_int_equal(json_integer_value(json_object_get(object, "faults")), 2);
        else
            assert_true(json_is_string(json_object_get(object, "kind")));
        json_decref(object);
    }
    assert_int_equal(lines, 3);
    assert_int_equal(faults, 2);
}

static void test_list(void **state)
{
    (void)state;
    write_songs();
    says("list 'my songs'", 0, "train     0:03  song0: drums vocals\n");
    says("list 'my songs' --validation 25 --seed 3", 0, "valid     0:03  song");
    says("list 'my songs' --stems vocals", 0, "song1: vocals (the rest)\n");
    says("list 'my songs' --stems vocals,other --json", 0, "\"stems\":[\"vocals\",\"other\"]");
}

static void test_words(void **state)
{
    (void)state;
    write_songs();
    says("check", 2, "dataset");
    says("mend 'my songs'", 2, "unknown word mend: check or list is meant");
    says("check nowhere", 1, "nowhere: there is no such file or folder");
    says("check 'my songs' --layout csv", 1, "my songs");
    says("check 'my songs' --layout mosaic", 2, "mosaic");
    says("list 'my songs' --stems santoor", 1,
         "no song has the stem santoor; there are drums, vocals");
    says("list 'my songs/song0' --validation 10", 1, "has only one song to train with");
    says("--help", 0, "bandsaw dataset check my_songs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_check, enter, leave),
                                       cmocka_unit_test_setup_teardown(test_list, enter, leave),
                                       cmocka_unit_test_setup_teardown(test_words, enter, leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
