#include "support/golden_large.h"

#include "kernels/ops.h"
#include "support/npy.h"
#include "support/test.h"

#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- files ----------------------------------------------------------------------------------- */

bool golden_large_there(int cases)
{
    if (*SAW_GOLDEN_DIR)
        return true;
    print_message("skipped: %d large cases\n", cases);
    return false;
}

char *golden_large_path(const char *folder, const char *file)
{
    char *path;
    assert_true(asprintf(&path, "%s/%s/%s", SAW_GOLDEN_DIR, folder, file) > 0);
    return path;
}

float *golden_large_input(const char *folder, int *channels, int64_t *samples)
{
    char *path = golden_large_path(folder, "input.wav");
    SF_INFO info = {0};
    SNDFILE *file = sf_open(path, SFM_READ, &info);
    if (!file)
        fail_msg("%s: %s", path, sf_strerror(NULL));
    *channels = info.channels;
    *samples = info.frames;
    size_t n = (size_t)(info.frames * info.channels);
    float *mixed = malloc(n * sizeof *mixed), *planar = malloc(n * sizeof *planar);
    assert_int_equal(sf_readf_float(file, mixed, info.frames), info.frames);
    for (int64_t i = 0; i < info.frames; i++)
        for (int c = 0; c < info.channels; c++)
            planar[c * info.frames + i] = mixed[i * info.channels + c];
    sf_close(file);
    free(mixed);
    free(path);
    return planar;
}

float golden_large_target(int s, int c, int64_t i)
{
    return (float)(0.2 * sin(0.013 * (s + 1) * (double)i + 0.7 * c) +
                   0.1 * sin(0.31 * (double)i * (c + 1) + s));
}

/* ---- a case that is open --------------------------------------------------------------------- */

typedef struct large {
    saw_context *ctx;
    saw_separator *separator;
    float *input;
    int channels;
    int64_t samples;
} large;

static large large_open(const large_case *c, const char *checkpoint)
{
    large l = {0};
    char *path = checkpoint ? strdup(checkpoint) : golden_large_path(c->name, "model.ckpt");
    assert_int_equal(saw_context_open(&l.ctx, &(saw_options){.threads = 2}), SAW_OK);
    if (saw_separator_open(l.ctx, path, NULL, &l.separator))
        fail_msg("%s", saw_context_error(l.ctx));
    assert_true(!saw_separator_get_info(l.separator)->config_path == (checkpoint != NULL));
    l.input = golden_large_input(c->name, &l.channels, &l.samples);
    assert_int_equal(saw_separator_get_info(l.separator)->channels, l.channels);
    free(path);
    return l;
}

static void large_close(large *l)
{
    saw_separator_close(l->separator);
    saw_context_close(l->ctx);
    free(l->input);
}

/* The whole input in one piece through a stream: [stems][channels][samples]. */
static float *large_separate(large *l, int *rows)
{
    saw_stream *t;
    if (saw_stream_open(l->separator, &(saw_stream_options){.whole_samples = l->samples}, &t))
        fail_msg("%s", saw_context_error(l->ctx));
    *rows = saw_stream_get_info(t)->stems * l->channels;
    float *out = calloc((size_t)(*rows * l->samples), sizeof *out),
          *to[SAW_MAX_STEMS * SAW_MAX_CHANNELS];
    const float *from[SAW_MAX_CHANNELS];
    for (int64_t pushed = 0; pushed < l->samples;) {
        int64_t n =
            saw_stream_room(t) < l->samples - pushed ? saw_stream_room(t) : l->samples - pushed;
        assert_true(n > 0);
        for (int c = 0; c < l->channels; c++)
            from[c] = l->input + c * l->samples + pushed;
        assert_int_equal(saw_stream_push(t, from, n), SAW_OK);
        pushed += n;
    }
    assert_int_equal(saw_stream_finish(t), SAW_OK);
    assert_int_equal(saw_stream_ready(t), l->samples);
    for (int r = 0; r < *rows; r++)
        to[r] = out + r * l->samples;
    assert_int_equal(saw_stream_pull(t, to, l->samples), SAW_OK);
    saw_stream_close(t);
    return out;
}

static saw_graph *large_record(large *l)
{
    saw_graph *g;
    const saw_model_spec *spec = saw_separator_spec(l->separator);
    assert_int_equal(saw_graph_open(l->ctx, &g), SAW_OK);
    spec->model->record(g, spec->options,
                        saw_input(g, "mix", SAW_DIMS(1, l->channels, l->samples)));
    return g;
}

typedef struct large_run {
    saw_weights *weights;
    saw_program *program;
    saw_run *run;
} large_run;

static large_run large_execute(large *l, saw_graph *g, bool all_taps)
{
    large_run r;
    saw_weight_source source =
        saw_checkpoint_source((saw_checkpoint *)saw_separator_checkpoint(l->separator));
    assert_int_equal(saw_weights_open(l->ctx, &source, &r.weights), SAW_OK);
    if (saw_program_build(g, &(saw_program_options){.all_taps = all_taps}, &r.program) ||
        saw_run_open(r.program, r.weights, &r.run))
        fail_msg("%s", saw_context_error(l->ctx));
    memcpy(saw_run_named(r.run, "mix").data, l->input,
           (size_t)(l->channels * l->samples) * sizeof *l->input);
    for (int s = 0; s < SAW_MAX_STEMS; s++) {
        char name[32];
        snprintf(name, sizeof name, "target%d", s);
        saw_tensor t = saw_run_named(r.run, name);
        for (int64_t i = 0; t.data && i < saw_tensor_count(&t); i++)
            ((float *)t.data)[i] = golden_large_target(s, (int)(i / t.dims[2]), i % t.dims[2]);
    }
    saw_tensor seed = saw_run_named(r.run, "gradient of the loss");
    if (seed.data)
        *(float *)seed.data = 1;
    assert_int_equal(saw_run_execute(r.run), SAW_OK);
    return r;
}

static void large_run_close(large_run *r)
{
    saw_run_close(r->run);
    saw_program_close(r->program);
    saw_weights_close(r->weights);
}

/* ---- outputs and stages ---------------------------------------------------------------------- */

/* Frame `frame` of a stage in the order of the set: [B, ...], of spectra [channel, bin, re/im].
 * Returns the count. */
static int64_t stage_frame(const saw_tensor *t, int64_t frame, float *out)
{
    const float *x = t->data;
    int64_t row = t->strides[1], n = 0;
    for (int64_t b = 0; b < t->dims[0]; b++) {
        const float *at = x + b * t->strides[0] + frame * row;
        if (t->ndim != 5 || t->dims[4] != 2) {
            memcpy(out + n, at, (size_t)row * sizeof *out);
            n += row;
            continue;
        }
        for (int64_t c = 0; c < t->dims[3]; c++)
            for (int64_t k = 0; k < t->dims[2]; k++)
                for (int r = 0; r < 2; r++)
                    out[n++] = at[(k * t->dims[3] + c) * 2 + r];
    }
    return n;
}

static double stage_error(saw_run *run, const saw_graph *g, const char *name, npy *want,
                          npy *frames)
{
    char full[128];
    float *got = calloc((size_t)want->count, sizeof *got);
    int64_t n = 0;
    bool one = saw_graph_find(g, name) != 0; /* else one for each stem */
    for (int64_t f = 0; f < frames->count; f++)
        for (int s = 0;; s++) {
            snprintf(full, sizeof full, one ? "%s" : "%s%d", name, s);
            saw_val v = s && one ? 0 : saw_graph_find(g, full);
            if (!v)
                break;
            saw_tensor t = saw_run_value(run, v);
            assert_non_null(t.data);
            int64_t frame = (int64_t)npy_f64(frames)[f], each = saw_tensor_count(&t) / t.dims[1];
            assert_true(frame < t.dims[1]);
            if (n + each > want->count)
                fail_msg("%s is larger than in the set", full);
            n += stage_frame(&t, frame, got + n);
        }
    if (n != want->count)
        fail_msg("the stage %s has %lld numbers of %lld", name, (long long)n,
                 (long long)want->count);
    double e = test_relative_l2(got, npy_f32(want), (size_t)n);
    free(got);
    return e;
}

void golden_large_check_outputs(const large_case *c)
{
    large l = large_open(c, NULL);
    int rows;
    float *out = large_separate(&l, &rows);
    char *path = golden_large_path(c->name, "output.npy");
    npy *want = npy_load(path);
    free(path);
    assert_non_null(want);
    int64_t n = want->dims[2]; /* some models give less than they take */
    assert_int_equal(want->dims[0] * want->dims[1], rows);
    float *cut = malloc((size_t)want->count * sizeof *cut);
    for (int r = 0; r < rows; r++)
        memcpy(cut + r * n, out + r * l.samples, (size_t)n * sizeof *cut);
    double error = test_relative_l2(cut, npy_f32(want), (size_t)want->count), worst = 0;

    large_run r = large_execute(&l, large_record(&l), true);
    for (int row = 0; row < rows; row++) {
        char name[32];
        snprintf(name, sizeof name, "stem%d", row / l.channels);
        saw_tensor y = saw_run_named(r.run, name);
        assert_int_equal(y.dims[2], n);
        assert_memory_equal(cut + row * n, (float *)y.data + row % l.channels * n,
                            (size_t)n * sizeof *cut);
    }
    path = golden_large_path(c->name, "intermediates.npz");
    npz *stages = npz_open(path);
    free(path);
    assert_non_null(stages);
    const char *where = "none";
    for (int i = 0; i < npz_count(stages); i++) {
        const char *name = npz_name(stages, i);
        if (!strcmp(name, "frames") || !strncmp(name, "mel.", 4))
            continue;
        double e = stage_error(r.run, saw_program_graph(r.program), name, npz_get(stages, name),
                               npz_get(stages, "frames"));
        if (!(e <= worst)) {
            worst = e;
            where = name;
        }
    }
    print_message("%-28s output %.1e, stage %.1e (%s)\n", c->name, error, worst, where);
    assert_true(error < 2e-5);
    assert_true(worst < 2e-5);
    npz_close(stages);
    npy_free(want);
    large_run_close(&r);
    large_close(&l);
    free(cut);
    free(out);
}

/* ---- gradients ------------------------------------------------------------------------------- */

double golden_large_worst(const char *path, large_find *find, void *user, char where[256])
{
    npz *all = npz_open(path);
    assert_non_null(all);
    double largest = 0, worst = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < npz_count(all); i++) {
            npy *want = npz_get(all, npz_name(all, i));
            double norm = 0, error = 0;
            for (int64_t k = 0; k < want->count; k++)
                norm += npy_f64(want)[k] * npy_f64(want)[k];
            norm = sqrt(norm);
            if (pass == 0) {
                largest = fmax(largest, norm);
                continue;
            }
            saw_tensor t = find(user, npz_name(all, i));
            if (t.data && saw_tensor_count(&t) != want->count)
                fail_msg("%s has another number of elements", npz_name(all, i));
            for (int64_t k = 0; k < want->count; k++) {
                double d = (t.data ? (double)((float *)t.data)[k] : 0) - npy_f64(want)[k];
                error += d * d;
            }
            error = sqrt(error) / fmax(norm, 1e-5 * largest);
            if (!(error <= worst)) {
                worst = error;
                snprintf(where, 256, "%s", npz_name(all, i));
            }
        }
    assert_true(largest > 0);
    npz_close(all);
    return worst;
}

typedef struct gradients {
    large_run *r;
    const char *tied;
} gradients;

/* Gradient by name; of a parameter that the model uses under several names, the sum. */
static saw_tensor find_gradient(void *user, const char *name)
{
    const gradients *f = user;
    const saw_graph *g = saw_program_graph(f->r->program);
    saw_val v = saw_graph_find(g, name);
    if (!v)
        fail_msg("there is no parameter %s", name);
    saw_tensor sum = saw_run_value(f->r->run, saw_grad(g, v));
    if (!f->tied || !saw_glob_match(f->tied, name))
        return sum;
    saw_dims dims = saw_dims_val(g, v);
    const float *values, *others;
    assert_int_equal(saw_weights_dense(f->r->weights, name, &dims, &values), SAW_OK);
    for (saw_val o = 1; o < saw_graph_values(g); o++) {
        const saw_value *x = saw_graph_value(g, o);
        if (o == v || x->kind != SAW_VALUE_PARAM || !saw_glob_match(f->tied, x->name) ||
            !saw_dims_equal(&x->dims, &dims))
            continue;
        assert_int_equal(saw_weights_dense(f->r->weights, x->name, &dims, &others), SAW_OK);
        if (memcmp(values, others, (size_t)saw_dims_count(&dims) * sizeof *values))
            continue;
        saw_tensor t = saw_run_value(f->r->run, saw_grad(g, o));
        for (int64_t i = 0; i < saw_tensor_count(&t); i++)
            ((float *)sum.data)[i] += ((float *)t.data)[i];
    }
    return sum;
}

void golden_large_check_gradients(const large_case *c)
{
    large l = large_open(c, NULL);
    saw_graph *g = large_record(&l);
    int stems = saw_separator_get_info(l.separator)->stems;
    saw_val loss = 0;
    for (int s = 0; s < stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "stem%d", s);
        saw_val y = saw_graph_find(g, name);
        snprintf(name, sizeof name, "target%d", s);
        saw_val part = saw_l1_loss(g, y, saw_input(g, name, saw_dims_val(g, y)), 1.0 / stems);
        loss = loss ? saw_add(g, loss, part) : part;
    }
    saw_output(g, "loss", loss);
    assert_true(saw_graph_train(g, "*") > 0);
    if (saw_graph_differentiate(g, loss))
        fail_msg("%s", saw_context_error(l.ctx));
    large_run r = large_execute(&l, g, false);
    char *path = golden_large_path(c->name, "grads_l1.npz"), where[256];
    double worst = golden_large_worst(path, find_gradient, &(gradients){&r, c->tied}, where);
    print_message("%-28s gradients %.1e (%s)\n", c->name, worst, where);
    assert_true(worst < 1e-3);
    free(path);
    large_run_close(&r);
    large_close(&l);
}

/* ---- without a configuration ----------------------------------------------------------------- */

void golden_large_check_inference(const large_case *c)
{
    char *folder = test_temp_folder(), *alone, *path = golden_large_path(c->name, "model.ckpt");
    assert_true(asprintf(&alone, "%s/model.ckpt", folder) > 0);
    assert_int_equal(symlink(path, alone), 0);
    large with = large_open(c, NULL), without = large_open(c, alone);
    const saw_model_spec *a = saw_separator_spec(with.separator),
                         *b = saw_separator_spec(without.separator);
    assert_ptr_equal(a->model, b->model);
    assert_true(b->assumed.count > 0);
    bool same = c->told(a->options, b->options);
    if (same) {
        int rows, rows_without;
        float *x = large_separate(&with, &rows), *y = large_separate(&without, &rows_without);
        assert_int_equal(rows, rows_without);
        assert_memory_equal(x, y, (size_t)(rows * with.samples) * sizeof *x);
        free(x);
        free(y);
    }
    print_message("%-28s without a configuration: %s\n", c->name,
                  same ? "the same output" : "other assumptions");
    large_close(&with);
    large_close(&without);
    free(alone);
    free(path);
    test_remove_folder(folder);
}
