/* test_base.c - floor 0: small floats, Philox, parsing, allocation counters, threads, atomic files.
 */
#include "base/base.h"
#include "support/test.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static void small_floats(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = saw_f16_to_f32((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(saw_f32_to_f16(f), h);
        f = saw_bf16_to_f32((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(saw_f32_to_bf16(f), h);
    }
    assert_int_equal(saw_f32_to_f16(65520.0f),
                     0x7c00); /* the first value that rounds to infinity */
    assert_int_equal(saw_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(saw_f32_to_f16(0x1p-25f), 0); /* a tie goes to even */
    assert_int_equal(saw_f32_to_f16(0x1.8p-24f), 2);
    assert_int_equal(saw_f32_to_bf16(1.00390625f), 0x3f80); /* tie to even */
    assert_int_equal(saw_f32_to_bf16(1.01171875f), 0x3f82);
}

static void philox_known_answers(void **state)
{
    (void)state;
    uint32_t out[4]; /* known answers of Random123 */
    saw_philox(0, 0, 0, out);
    assert_int_equal(out[0], 0x6627e8d5);
    assert_int_equal(out[3], 0x9b00dbd8);
    saw_philox(UINT64_MAX, UINT64_MAX, UINT64_MAX, out);
    assert_int_equal(out[0], 0x408f276d);
    assert_int_equal(out[3], 0x6d5451fd);
}

static void numbers(void **state)
{
    (void)state;
    double d;
    int64_t i;
    assert_true(saw_parse_double("1e-3", &d) && d == 1e-3);
    assert_false(saw_parse_double("1,5", &d));
    assert_false(saw_parse_double("", &d));
    assert_false(saw_parse_double("1e999", &d));
    assert_true(saw_parse_int64("-12", &i) && i == -12);
    assert_false(saw_parse_int64("12x", &i));
    assert_false(saw_parse_int64("99999999999999999999", &i));
    size_t n;
    assert_false(saw_mul_size(SIZE_MAX, 2, &n));
    assert_true(saw_fnv1a("input.0", 7) == 0x81088e2d5961494du);
}

static void memory_is_counted(void **state)
{
    (void)state;
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    saw_memory_stats before = saw_context_memory(ctx);
    char *p = saw_alloc(ctx, 100);
    assert_true(((uintptr_t)p & 63) == 0);
    memset(p, 7, 100);
    p = saw_realloc(ctx, p, 1000);
    assert_int_equal(p[99], 7);
    assert_true(saw_context_memory(ctx).now_bytes > before.now_bytes);
    saw_free(ctx, p);
    assert_true(saw_context_memory(ctx).now_bytes == before.now_bytes);
    assert_true(saw_context_memory(ctx).calls == before.calls + 2);
    assert_null(saw_calloc(ctx, SIZE_MAX, 2));
    assert_true(strstr(saw_context_error(ctx), "more than") != NULL);
    saw_context_close(ctx);
}

static void add_item(void *arg, int64_t item, int thread)
{
    (void)thread;
    atomic_fetch_add((atomic_long *)arg, (long)item + 1);
}

static void every_item_runs_once(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        saw_context *ctx;
        saw_options o = {.threads = threads};
        assert_int_equal(saw_context_open(&ctx, &o), SAW_OK);
        for (long items = 0; items < 300; items += 37) {
            atomic_long sum = 0;
            saw_parallel(ctx, items, add_item, &sum);
            assert_int_equal(sum, items * (items + 1) / 2);
        }
        saw_context_close(ctx);
    }
}

static void a_file_appears_whole_or_not(void **state)
{
    (void)state;
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    char *dir = test_temp_folder();
    char *path = saw_format(ctx, "%s/a/b/file", dir);
    char *folder = saw_format(ctx, "%s/a/b", dir);
    saw_atomic_file f;
    assert_int_equal(saw_atomic_open(ctx, path, &f), SAW_ERR_IO);
    assert_int_equal(saw_make_folders(ctx, folder), SAW_OK);
    assert_int_equal(saw_atomic_open(ctx, path, &f), SAW_OK);
    fputs("half", f.file);
    assert_int_not_equal(access(path, F_OK), 0);
    saw_atomic_abort(&f);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_equal(saw_atomic_open(ctx, path, &f), SAW_OK);
    fputs("whole", f.file);
    assert_int_equal(saw_atomic_commit(&f), SAW_OK);
    char *text;
    size_t n;
    assert_int_equal(saw_read_all(ctx, path, 100, &text, &n), SAW_OK);
    assert_string_equal(text, "whole");
    saw_free(ctx, text);
    assert_int_equal(saw_read_all(ctx, path, 3, &text, &n), SAW_ERR_FORMAT);
    assert_int_equal(saw_read_all(ctx, folder, 3, &text, &n), SAW_ERR_IO);
    saw_free(ctx, folder);
    saw_free(ctx, path);
    test_remove_folder(dir);
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_floats),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(numbers),
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(every_item_runs_once),
        cmocka_unit_test(a_file_appears_whole_or_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
