/*
 * test_arrays.c - numpy arrays in a pickle, TensorFlow bundles, folders of checkpoints. The small
 * files were written by numpy (protocols 2 and 4) and, for the bundle, by a writer of its own; the
 * numbers are formulas.
 */
#include "io/checkpoint.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FORMATS SAW_TEST_GOLDEN "/formats/"

static saw_context *ctx;
static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = test_temp_folder();
    return saw_context_open(&ctx, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    saw_context_close(ctx);
    test_remove_folder(folder);
    return 0;
}

static char *load(const char *path, size_t *n)
{
    char *bytes;
    assert_int_equal(saw_read_all(ctx, path, 1 << 20, &bytes, n), SAW_OK);
    return bytes;
}

static void save(const char *name, const char *bytes, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void copy_format(const char *file, const char *to)
{
    char path[512];
    size_t n;
    snprintf(path, sizeof path, FORMATS "%s", file);
    char *bytes = load(path, &n);
    save(to, bytes, n);
    saw_free(ctx, bytes);
}

static saw_checkpoint *opened(const char *path)
{
    saw_checkpoint *ck;
    if (saw_checkpoint_open(ctx, path, &ck))
        fail_msg("%s", saw_context_error(ctx));
    return ck;
}

static void refused(const char *path, saw_status status, const char *words)
{
    saw_checkpoint *ck;
    saw_status got = saw_checkpoint_open(ctx, path, &ck);
    assert_null(ck);
    if (got != status || !strstr(saw_context_error(ctx), words))
        fail_msg("status %d, '%s'; wanted %d, '%s'", got, saw_context_error(ctx), status, words);
}

/* All elements, and the last one alone. */
static void check(saw_checkpoint *ck, const char *name, int n, const double *want)
{
    double got[64], last;
    const saw_ckpt_tensor *t = saw_checkpoint_find(ck, name);
    if (!t)
        fail_msg("%s is not there", name);
    assert_int_equal(t->count, n);
    assert_int_equal(saw_checkpoint_read_f64(ck, t, 0, n, got), SAW_OK);
    for (int i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("%s[%d] is %.17g, not %.17g", name, i, got[i], want[i]);
    if (n) {
        assert_int_equal(saw_checkpoint_read_f64(ck, t, n - 1, 1, &last), SAW_OK);
        assert_true(last == want[n - 1]);
    }
}

static bool noted(const saw_checkpoint *ck, const char *words)
{
    for (int i = 0; i < saw_checkpoint_note_count(ck); i++)
        if (strstr(saw_checkpoint_note(ck, i), words))
            return true;
    return false;
}

static void numpy_arrays(void **state)
{
    (void)state;
    static const char *const files[] = {FORMATS "numpy_protocol2.ckpt",
                                        FORMATS "numpy_protocol4.ckpt"};
    for (int k = 0; k < 2; k++) {
        saw_checkpoint *ck = opened(files[k]);
        double f4[6], fortran[24];
        for (int i = 0; i < 6; i++)
            f4[i] = (i - 2.5) * 1.25;
        for (int i = 0; i < 24; i++)
            fortran[i] = i / 7.0;
        assert_int_equal(saw_checkpoint_count(ck), 7);
        check(ck, "f4", 6, f4);
        check(ck, "fortran", 24, fortran);
        check(ck, "i8", 3, (double[]){-1, 1099511627776.0, 5});
        check(ck, "f2", 3, (double[]){0.5, -2, 65504});
        check(ck, "b1", 3, (double[]){1, 0, 1});
        check(ck, "scalar", 1, (double[]){3.5});
        check(ck, "empty", 0, NULL);
        const saw_ckpt_tensor *t = saw_checkpoint_find(ck, "fortran");
        assert_true(t->ndim == 3 && t->dims[0] == 2 && t->dims[1] == 3 && t->dims[2] == 4 &&
                    t->dtype == SAW_F64);
        assert_true(noted(ck, "big_endian was skipped"));
        assert_true(noted(ck, "objects was skipped"));
        saw_checkpoint_close(ck);
    }
}

static void bundle(void **state)
{
    (void)state;
    saw_checkpoint *ck = opened(FORMATS "bundle.index");
    double kernel[24], turned[24];
    for (int i = 0; i < 24; i++) {
        kernel[i] = (float)((float)i / 5);
        int a = i / 12, b = i / 6 % 2, h = i / 3 % 2, w = i % 3; /* [2,3,2,2] read as [b,a,h,w] */
        turned[i] = (float)((float)(((h * 3 + w) * 2 + b) * 2 + a) / 5);
    }
    assert_string_equal(saw_checkpoint_container(ck), "TensorFlow bundle");
    assert_int_equal(saw_checkpoint_count(ck), 5);
    check(ck, "conv2d/kernel", 24, kernel);
    check(ck, "conv2d/bias", 2, (double[]){1.5, -2});
    check(ck, "double", 1, (double[]){1.0 / 3});
    check(ck, "global_step", 1, (double[]){7});
    check(ck, "half", 2, (double[]){0.25, 4});
    for (int i = 0; i < 5; i++)
        if (!strcmp(saw_checkpoint_at(ck, i)->name, "conv2d/kernel"))
            assert_int_equal(saw_checkpoint_rename(ck, i, "0.weight", (int[]){3, 2, 0, 1}), SAW_OK);
    assert_null(saw_checkpoint_find(ck, "conv2d/kernel"));
    check(ck, "0.weight", 24, turned);
    saw_checkpoint_close(ck);
}

static void broken_bundles(void **state)
{
    (void)state;
    char path[512];
    size_t n, data_bytes;
    char *index = load(FORMATS "bundle.index", &n),
         *data = load(FORMATS "bundle.data-00000-of-00001", &data_bytes);
    snprintf(path, sizeof path, "%s/m.index", folder);
    save("m.index", index, n);
    refused(path, SAW_ERR_IO, "m.data-00000-of-00001");
    save("m.data-00000-of-00001", data, data_bytes - 1);
    refused(path, SAW_ERR_FORMAT, "lies outside of the data file");
    save("m.data-00000-of-00001", data, data_bytes);
    saw_checkpoint_close(opened(path));
    index[20] ^= 1;
    save("m.index", index, n);
    refused(path, SAW_ERR_FORMAT, "checksum of a block");
    index[20] ^= 1;
    save("m.index", index + 9, n - 9);
    refused(path, SAW_ERR_FORMAT, "is damaged");
    save("m.index", index + n - 48, 48);
    refused(path, SAW_ERR_FORMAT, "lies outside of it");
    saw_free(ctx, index);
    saw_free(ctx, data);
}

static void folders(void **state)
{
    (void)state;
    char path[512];
    test_remove_folder(folder);
    folder = test_temp_folder();
    refused(folder, SAW_ERR_FORMAT, "a folder without a checkpoint");
    save("notes.txt", "hello", 5);
    copy_format("numpy_protocol4.ckpt", "b.ckpt");
    saw_checkpoint *ck = opened(folder); /* one file: itself */
    check(ck, "scalar", 1, (double[]){3.5});
    saw_checkpoint_close(ck);
    copy_format("bundle.index", "a.index");
    copy_format("bundle.data-00000-of-00001", "a.data-00000-of-00001");
    ck = opened(folder);
    assert_int_equal(saw_checkpoint_count(ck), 12);
    check(ck, "0.half", 2, (double[]){0.25, 4});
    check(ck, "1.scalar", 1, (double[]){3.5});
    check(ck, "1.f2", 3, (double[]){0.5, -2, 65504});
    assert_true(noted(ck, "names 1.* are from b.ckpt"));
    saw_checkpoint_close(ck);
    save("c.ckpt", "no", 2);
    snprintf(path, sizeof path, "%s/c.ckpt", folder);
    refused(folder, SAW_ERR_FORMAT, path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numpy_arrays),
        cmocka_unit_test(bundle),
        cmocka_unit_test(broken_bundles),
        cmocka_unit_test(folders),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
