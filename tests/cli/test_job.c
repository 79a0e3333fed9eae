/*
 * test_job.c - a job without the program around it: no allocation between the first and the last
 * block, and every failure of memory is an error that leaves nothing behind.
 */
#include "support/test.h"
#include "support/tiny_model.h"

#include "run/separate.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct counts {
    saw_context *ctx;
    int64_t calls, fail_at; /* allocations so far; the one that fails, -1: none */
    int blocks;
    uint64_t first, last; /* allocations at the first and the last block */
} counts;

static void *take(void *user, size_t bytes)
{
    counts *c = user;
    return c->calls++ == c->fail_at ? NULL : malloc(bytes);
}

static void give(void *user, void *block)
{
    (void)user;
    free(block);
}

static void count_block(void *user, int64_t done, int64_t total, int rate_hz)
{
    (void)done, (void)total, (void)rate_hz;
    counts *c = user;
    c->last = saw_context_memory(c->ctx).calls;
    if (c->blocks++ == 0)
        c->first = c->last;
}

static void write_song(const char *path, int64_t frames)
{
    saw_context *ctx;
    saw_audio_writer *w;
    float *x = malloc((size_t)frames * sizeof *x);
    for (int64_t i = 0; i < frames; i++)
        x[i] = (float)(0.3 * sin(0.05 * (double)i));
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    assert_int_equal(saw_audio_create(ctx, path, &(saw_audio_format){0}, 2, 48000, NULL, &w),
                     SAW_OK);
    assert_int_equal(saw_audio_write(w, (const float *[]){x, x}, frames), SAW_OK);
    assert_int_equal(saw_audio_commit(w, NULL), SAW_OK);
    saw_context_close(ctx);
    free(x);
}

/* Separate song.wav with two models of an ensemble and test-time augmentation; c->fail_at as it
 * stands. */
static saw_status separate(counts *c, bool whole)
{
    static const char *const models[] = {"a.safetensors", "b.safetensors"};
    saw_options options = {.threads = 1, .alloc = take, .release = give, .user = c};
    saw_job_options job_options = {.models = models,
                                   .n_models = 2,
                                   .precision = SAW_PRECISION_F32,
                                   .ensemble = SAW_MEDIAN_MAG,
                                   .residual = "rest",
                                   .whole = whole,
                                   .tta = true,
                                   .progress = count_block,
                                   .user = c};
    saw_job *job;
    c->calls = 0;
    saw_status status = saw_context_open(&c->ctx, &options);
    if (status)
        return status;
    status = saw_job_open(c->ctx, &job_options, &job);
    if (!status) {
        assert_int_equal(saw_job_outputs(job), 2);
        status = saw_job_run(job, "song.wav",
                             (const char *const[]){"out/x/vocals.wav", "out/x/rest.wav"}, NULL);
    }
    if (status)
        assert_true(strlen(saw_context_error(c->ctx)) > 5 || status == SAW_ERR_MEMORY);
    saw_job_close(job);
    saw_context_close(c->ctx);
    return status;
}

static int enter(void **state)
{
    char *folder = test_temp_folder();
    *state = folder;
    assert_int_equal(chdir(folder), 0);
    tiny_model_write("a.safetensors", &(tiny_model){.stems = "\"vocals\"", .chunk_samples = 4096});
    tiny_model_write("b.safetensors",
                     &(tiny_model){.stems = "\"vocals\"", .salt = "b", .normalize = true});
    return 0;
}

static int leave(void **state)
{
    assert_int_equal(chdir("/"), 0);
    test_remove_folder(*state);
    return 0;
}

static void test_no_allocation(void **state)
{
    (void)state;
    write_song("song.wav", 48000 * 3);
    counts c = {.fail_at = -1};
    assert_int_equal(separate(&c, false), SAW_OK);
    assert_true(c.blocks > 30);
    assert_int_equal(c.last, c.first);
}

static void remove_outputs(void)
{
    assert_int_equal(unlink("out/x/vocals.wav"), 0);
    assert_int_equal(unlink("out/x/rest.wav"), 0);
    assert_int_equal(rmdir("out/x"), 0);
    assert_int_equal(rmdir("out"), 0);
}

static void test_failing_memory(void **state)
{
    (void)state;
    write_song("song.wav", 20000);
    for (int whole = 0; whole < 2; whole++) {
        counts c = {.fail_at = -1};
        assert_int_equal(separate(&c, whole), SAW_OK);
        int64_t all = c.calls, step = all / 97 + 1;
        remove_outputs();
        int errors = 0;
        for (c.fail_at = whole; c.fail_at < all; c.fail_at += step) {
            /* Looking for what a killed run left may fail without harm. */
            if (separate(&c, whole) == SAW_OK)
                remove_outputs();
            else
                errors++;
            assert_int_not_equal(access("out", F_OK), 0);
        }
        assert_true(errors > 90);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_allocation, enter, leave),
        cmocka_unit_test_setup_teardown(test_failing_memory, enter, leave)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
