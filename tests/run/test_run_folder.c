/*
 * test_run_folder.c - the folder of a run: what it refuses, what survives a full disk, what a run
 * that is resumed finds, and the report that is made of it.
 */
#include "support/test.h"

#include "run/report.h"
#include "run/run_folder.h"
#include "run/run_log.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static saw_context *ctx;
static char *folder;

static int enter(void **state)
{
    (void)state;
    folder = test_enter_folder();
    return saw_context_open(&ctx, NULL) ? -1 : 0;
}

static int leave(void **state)
{
    (void)state;
    saw_context_close(ctx);
    test_leave_folder(folder);
    return 0;
}

static char *read_text(const char *path)
{
    char *text;
    size_t n;
    if (saw_read_all(ctx, path, 1 << 26, &text, &n))
        fail_msg("%s", saw_context_error(ctx));
    return text;
}

static void open_recipe(saw_recipe *r, const char *output)
{
    assert_int_equal(saw_recipe_open(ctx, r), SAW_OK);
    assert_int_equal(saw_recipe_set(r, "test", "stems", "vocals"), SAW_OK);
    if (output)
        assert_int_equal(saw_recipe_set(r, "test", "output", output), SAW_OK);
}

static saw_run_folder *open_run(saw_recipe *r, const char *output)
{
    saw_run_folder *f;
    open_recipe(r, output);
    if (saw_run_folder_open(ctx, r, &f))
        fail_msg("%s", saw_context_error(ctx));
    return f;
}

/* ---- opening --------------------------------------------------------------------------------- */

static void test_names(void **state)
{
    (void)state;
    saw_recipe r;
    open_recipe(&r, NULL);
    assert_int_equal(saw_run_folder_choose(&r), SAW_OK);
    assert_string_equal(r.output, "run-vocals");
    saw_recipe_free(&r);
    assert_int_equal(mkdir("run-keys", 0777), 0);
    assert_int_equal(mkdir("run-keys-2", 0777), 0);
    open_recipe(&r, NULL);
    assert_int_equal(saw_recipe_set(&r, "test", "stems", "keys=piano+organ"), SAW_OK);
    assert_int_equal(saw_run_folder_choose(&r), SAW_OK);
    assert_string_equal(r.output, "run-keys-3");
    r.resume = "elsewhere";
    assert_int_equal(saw_run_folder_choose(&r), SAW_OK);
    assert_string_equal(r.output, "elsewhere");
    saw_recipe_free(&r);
}

static void refuse(const char *output, const char *resume, const char *says)
{
    saw_recipe r;
    saw_run_folder *f;
    open_recipe(&r, output);
    r.resume = resume;
    assert_int_not_equal(saw_run_folder_open(ctx, &r, &f), SAW_OK);
    assert_null(f);
    if (!strstr(saw_context_error(ctx), says))
        fail_msg("%s", saw_context_error(ctx));
    saw_recipe_free(&r);
}

static void test_one_run_one_folder(void **state)
{
    (void)state;
    saw_recipe r;
    saw_run_folder *f = open_run(&r, "one/");
    assert_string_equal(saw_run_folder_path(f), "one");
    refuse("one", NULL, "one: has a run already");
    refuse("one", "one", "one: another process is training in this folder");
    refuse("two", "two", "two: has no run to resume");
    refuse(NULL, NULL, "names no run folder");
    FILE *file = fopen("file", "wb");
    fclose(file);
    refuse("file", NULL, "file");
    assert_string_equal(saw_run_folder_file(f, "best/model.safetensors"),
                        "one/best/model.safetensors");
    struct stat s;
    assert_int_equal(stat("one/best", &s), 0);
    saw_checkpoint *none;
    assert_int_equal(saw_run_folder_load_state(f, &none), SAW_OK);
    assert_null(none);
    saw_run_folder_close(f);
    r.resume = "one"; /* the lock was given back */
    assert_int_equal(saw_run_folder_open(ctx, &r, &f), SAW_OK);
    saw_run_folder_close(f);
    saw_recipe_free(&r);
}

/* ---- a full disk ----------------------------------------------------------------------------- */

static void limit_files(rlim_t bytes)
{
    struct rlimit r;
    getrlimit(RLIMIT_FSIZE, &r);
    r.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &r), 0);
}

static saw_status save(saw_run_folder *f, int64_t step, float value)
{
    enum { N = 100000 };
    float *params = malloc(N * sizeof *params);
    for (int i = 0; i < N; i++)
        params[i] = value;
    nn_optim_array arrays[] = {{"run.counts", SAW_I64, 1, &step}, {"params", SAW_F32, N, params}};
    saw_status status = saw_run_folder_save_state(f, arrays, 2);
    free(params);
    return status;
}

static void check_state(saw_run_folder *f, int64_t step, float value)
{
    saw_checkpoint *ck;
    int64_t got_step = 0;
    float got = 0;
    assert_int_equal(saw_run_folder_load_state(f, &ck), SAW_OK);
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, "run.counts");
    assert_int_equal(saw_checkpoint_read_raw(ck, t, 0, 1, &got_step), SAW_OK);
    t = saw_checkpoint_find(ck, "params");
    assert_int_equal(t->count, 100000);
    assert_int_equal(saw_checkpoint_read_f32(ck, t, t->count - 1, 1, &got), SAW_OK);
    assert_int_equal(got_step, step);
    assert_true(got == value);
    saw_checkpoint_close(ck);
}

static int count_files(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_a_full_disk_costs_nothing_that_was_there(void **state)
{
    (void)state;
    saw_recipe r;
    saw_run_folder *f = open_run(&r, "full");
    assert_int_equal(save(f, 10, 1.5f), SAW_OK);
    assert_int_equal(saw_run_log_event(f, "start", 0, "go", 0, NULL, NULL), SAW_OK);
    int files = count_files("full");
    char *recipe = read_text("full/recipe.yaml"), *log = read_text("full/log.jsonl");
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t rooms[] = {0, 1, 4096, 65536, 399999};
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++) {
        limit_files(rooms[i]);
        saw_status saved = save(f, 20, 2.5f);
        limit_files(RLIM_INFINITY);
        assert_int_equal(saved, SAW_ERR_IO);
        assert_non_null(strstr(saw_context_error(ctx), "full/state.safetensors"));
        check_state(f, 10, 1.5f);
        assert_int_equal(count_files("full"), files); /* and nothing is left behind */
    }
    limit_files(strlen(log) + 10);
    saw_status logged =
        saw_run_log_event(f, "start", 1, "more than there is room for", 0, NULL, NULL);
    limit_files(0);
    saw_status reported = saw_report_write(ctx, "full"), cut = saw_run_log_cut(f, 0);
    limit_files(RLIM_INFINITY);
    assert_int_equal(logged, SAW_ERR_IO);
    assert_int_equal(reported, SAW_ERR_IO);
    assert_int_equal(cut, SAW_ERR_IO);
    assert_int_equal(saw_run_log_cut(f, 0), SAW_OK);
    char *after = read_text("full/log.jsonl"), *same = read_text("full/recipe.yaml");
    assert_string_equal(after, log);
    assert_string_equal(same, recipe);
    assert_int_equal(save(f, 30, 3.5f), SAW_OK);
    check_state(f, 30, 3.5f);
    saw_free(ctx, after);
    saw_free(ctx, same);
    saw_free(ctx, recipe);
    saw_free(ctx, log);
    saw_run_folder_close(f);
    saw_recipe_free(&r);
}

/* ---- log ------------------------------------------------------------------------------------- */

static void log_steps(saw_run_folder *f, int64_t first, int64_t last)
{
    for (int64_t s = first; s <= last; s++)
        assert_int_equal(saw_run_log_step(f, &(saw_run_step){.step = s,
                                                             .loss = 1.0 / (double)s,
                                                             .grad_norm = s == 3 ? NAN : 2,
                                                             .lr = 1e-3,
                                                             .seconds = (double)s}),
                         SAW_OK);
}

static void test_a_log_is_cut_back(void **state)
{
    (void)state;
    saw_recipe r;
    saw_run_folder *f = open_run(&r, "log");
    assert_int_equal(saw_run_log_cut(f, 0), SAW_OK); /* nothing there yet */
    log_steps(f, 1, 7);
    char *whole = read_text("log/log.jsonl");
    log_steps(f, 8, 12);
    FILE *file = fopen("log/log.jsonl", "ab");
    fputs("{\"type\":\"step\",\"step\":2,\"lo", file); /* killed while it was written */
    fclose(file);
    assert_int_equal(saw_run_log_cut(f, 7), SAW_OK);
    char *cut = read_text("log/log.jsonl");
    assert_string_equal(cut, whole);
    log_steps(f, 8, 9);
    saw_run_log log;
    assert_int_equal(saw_run_log_read(ctx, "log", &log), SAW_OK);
    assert_int_equal(log.step, 9);
    assert_int_equal(log.loss.count, 9);
    for (int i = 0; i < 9; i++)
        assert_true(log.loss.step[i] == i + 1 && log.loss.value[i] == 1.0 / (i + 1));
    assert_true(isnan(log.grad_norm.value[2]));
    assert_true(log.seconds == 9);
    saw_run_log_free(&log);
    saw_free(ctx, cut);
    saw_free(ctx, whole);
    saw_run_folder_close(f);
    saw_recipe_free(&r);
}

/* ---- split ----------------------------------------------------------------------------------- */

static void write_song(const char *name)
{
    char path[256];
    float silence[2000] = {0};
    static const char *const stems[] = {"vocals", "drums"};
    snprintf(path, sizeof path, "songs/%s", name);
    mkdir("songs", 0777);
    assert_int_equal(mkdir(path, 0777), 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "songs/%s/%s.wav", name, stems[i]);
        SF_INFO info = {
            .samplerate = 44100, .channels = 2, .format = SF_FORMAT_WAV | SF_FORMAT_PCM_16};
        SNDFILE *f = sf_open(path, SFM_WRITE, &info);
        assert_non_null(f);
        assert_int_equal(sf_writef_float(f, silence, 1000), 1000);
        sf_close(f);
    }
}

static saw_dataset *open_songs(void)
{
    saw_dataset *d;
    if (saw_dataset_open(ctx, "songs", &(saw_dataset_options){0}, &d))
        fail_msg("%s", saw_context_error(ctx));
    return d;
}

static void test_a_split_stays(void **state)
{
    (void)state;
    saw_recipe r;
    saw_song_part parts[6];
    char name[32];
    int valid = 0;
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "song %d", i);
        write_song(name);
    }
    saw_run_folder *f = open_run(&r, "split");
    saw_dataset *d = open_songs();
    r.valid_fraction = 0.34;
    assert_int_equal(saw_run_folder_split(f, d), SAW_OK);
    for (int i = 0; i < 6; i++) {
        parts[i] = saw_dataset_song(d, i)->part;
        valid += parts[i] == SAW_SONG_VALID;
    }
    assert_int_equal(valid, 2);
    saw_dataset_close(d);
    char *text = read_text("split/split.json");
    saw_run_folder_close(f);

    write_song("a song that comes later");
    r.resume = "split";
    r.valid_fraction = 0.7; /* has no say any more */
    assert_int_equal(saw_run_folder_open(ctx, &r, &f), SAW_OK);
    d = open_songs();
    assert_int_equal(saw_run_folder_split(f, d), SAW_OK);
    assert_int_equal(saw_dataset_song(d, 0)->part, SAW_SONG_UNUSED);
    for (int i = 0; i < 6; i++)
        assert_int_equal(saw_dataset_song(d, i + 1)->part, parts[i]);
    saw_dataset_close(d);
    char *same = read_text("split/split.json");
    assert_string_equal(same, text);
    saw_free(ctx, text);
    saw_free(ctx, same);
    saw_run_folder_close(f);
    saw_recipe_free(&r);
}

/* ---- report ---------------------------------------------------------------------------------- */

/* Every element that opens closes, in order; the few that never close are known. */
static void check_balance(const char *html)
{
    static const char *const open_ended[] = {"meta", "img"};
    char stack[64][16];
    int depth = 0;
    for (const char *p = html; (p = strchr(p, '<'));) {
        char tag[16] = "";
        const char *end = strchr(p, '>');
        bool closing = p[1] == '/';
        assert_non_null(end);
        sscanf(p + 1 + closing, "%15[a-z0-9]", tag);
        bool none = p[1] == '!' || end[-1] == '/';
        for (int i = 0; i < 2; i++)
            none = none || !strcmp(tag, open_ended[i]);
        if (closing) {
            if (!depth || strcmp(stack[depth - 1], tag))
                fail_msg("</%s> closes <%s> at %.40s", tag, depth ? stack[depth - 1] : "", p);
            depth--;
        } else if (!none) {
            assert_true(depth < 64 && *tag);
            strcpy(stack[depth++], tag);
        }
        p = end;
    }
    assert_int_equal(depth, 0);
}

static void check_has(const char *html, const char *text)
{
    if (!strstr(html, text))
        fail_msg("the report lacks: %s", text);
}

static void test_a_report_has_all_numbers(void **state)
{
    (void)state;
    static const char *const outputs[] = {"vocals", "<other>"};
    saw_recipe r;
    saw_song_score scores[7];
    saw_run_folder *f = open_run(&r, "a <b> & \"c\"");
    saw_dataset *d = open_songs();
    assert_int_equal(saw_run_folder_split(f, d), SAW_OK);
    saw_run_valid v = {.songs = scores, .n_songs = 7, .outputs = outputs, .n_outputs = 2};
    for (int64_t step = 0; step <= 20; step += 10) {
        if (step)
            log_steps(f, step - 9, step);
        for (int i = 0; i < 7; i++)
            scores[i] = (saw_song_score){
                .song = i, .sdr_db = {i + 0.01 * (double)step, i == 3 ? NAN : -(double)i}};
        v.step = step;
        v.sdr_db = 3 + 0.013 * (double)step;
        v.forgetting_db = 8 - 0.027 * (double)step;
        v.best = step == 10;
        v.seconds = 60.0 * (double)step;
        assert_int_equal(saw_run_log_valid(f, d, &v), SAW_OK);
    }
    if (saw_report_write(ctx, saw_run_folder_path(f)))
        fail_msg("%s", saw_context_error(ctx));
    char *html = read_text("a <b> & \"c\"/report.html");
    check_balance(html);
    assert_null(strstr(html, "http"));
    assert_null(strstr(html, "<b> &"));
    check_has(html, "<title>a &lt;b&gt; &amp; &quot;c&quot;</title>");
    check_has(html, "before<b>3.00 dB</b>");
    check_has(html, "best<b>3.13 dB</b><span class=\"up\">+0.13</span> at step 10");
    check_has(html, "general songs<b>7.73 dB</b><span class=\"down\">-0.27</span>");
    check_has(html, "steps<b>20</b>of 1000");
    check_has(html, "time<b>20 min</b>");
    check_has(html, "validation songs, step 20: 3.26 dB");
    check_has(html, "general songs, step 20: 7.46 dB");
    for (int i = 0; i < 7; i++) { /* scores at the best step, not at the last */
        char row[512];
        snprintf(row, sizeof row,
                 "<tr><td>%s</td><td>vocals</td><td class=\"n\">%.2f</td><td class=\"n\">%.2f</td>"
                 "<td class=\"n\"><span class=\"up\">+0.10</span></td></tr>",
                 saw_dataset_song(d, i)->name, (double)i, i + 0.1);
        check_has(html, row);
    }
    check_has(html, "<td>song 3</td><td>&lt;other&gt;</td><td class=\"n\">-4.00</td>");
    assert_null(strstr(html, "<td>song 2</td><td>&lt;other&gt;</td>")); /* silent there */
    check_has(html, "<figcaption>Learning rate");
    check_has(html, "<figcaption>Gradient norm");
    check_has(html, "<path class=\"c0 faint\"");
    check_has(html, "6 to train with:");
    check_has(html, "1 to validate with:");
    for (int i = 0; saw_recipe_key_at(i); i++) {
        char cell[128];
        snprintf(cell, sizeof cell, "<td>%s.%s</td>", saw_recipe_key_at(i)->section,
                 saw_recipe_key_at(i)->name);
        check_has(html, cell);
    }
    check_has(html, "<td class=\"set\"><code>[vocals]</code></td>");
    saw_free(ctx, html);
    saw_dataset_close(d);
    saw_run_folder_close(f);
    saw_recipe_free(&r);
}

static void test_a_report_of_a_run_that_has_just_begun(void **state)
{
    (void)state;
    saw_recipe r;
    saw_run_folder *f = open_run(&r, "new");
    saw_run_folder_close(f);
    FILE *log = fopen("new/log.jsonl", "wb");
    fputs("no record\n[]\n{}\n{\"type\":\"step\"}\n{\"type\":\"valid\",\"step\":0,\"songs\":7}\n"
          "{\"type\":\"valid\",\"step\":0,\"songs\":[1,{\"song\":1},{\"song\":\"x\",\"sdr_db\":[]},"
          "{\"song\":\"x\",\"sdr_db\":{\"y\":\"z\"}}]}\n",
          log);
    fclose(log);
    assert_int_equal(saw_report_write(ctx, "new"), SAW_OK);
    char *html = read_text("new/report.html");
    check_balance(html);
    check_has(html, "before<b>- dB</b>");
    check_has(html, "<td>x</td><td>y</td>");
    assert_null(strstr(html, "<svg"));
    saw_free(ctx, html);
    assert_int_equal(saw_report_write(ctx, "songs"), SAW_ERR_IO);
    assert_non_null(strstr(saw_context_error(ctx), "songs: has no run"));
    saw_recipe_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_one_run_one_folder),
        cmocka_unit_test(test_a_full_disk_costs_nothing_that_was_there),
        cmocka_unit_test(test_a_log_is_cut_back),
        cmocka_unit_test(test_a_split_stays),
        cmocka_unit_test(test_a_report_has_all_numbers),
        cmocka_unit_test(test_a_report_of_a_run_that_has_just_begun),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
