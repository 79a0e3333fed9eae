/*
 * test_oom.c - every allocation of a separation fails once: nothing crashes, nothing leaks, and the
 * caller is told that it was memory.
 */
#include "bandsaw.h"
#include "io/checkpoint.h"
#include "kernels/ops.h"
#include "run/separator.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- an allocator that fails once, at a chosen call ------------------------------------------ */

typedef struct failing {
    long left; /* calls until the one that fails */
    long held;
} failing;

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;
    if (f->left-- == 0)
        return NULL;
    void *p = malloc(bytes);
    f->held += p != NULL;
    return p;
}

static void failing_release(void *user, void *block)
{
    failing *f = user;
    f->held -= block != NULL;
    free(block);
}

/* ---- a small model as a file ----------------------------------------------------------------- */

static char *folder, *path;

/* A RoFormer of two bands, in our single-file format: few tensors. */
static const char config[] =
    "{\"model_type\": \"bs_roformer\", \"model\": {\"dim\": 4, \"depth\": 1, \"stereo\": false, "
    "\"num_stems\": 2, \"time_transformer_depth\": 1,"
    " \"freq_transformer_depth\": 1, \"freqs_per_bands\": [4, 5], \"dim_head\": 2, \"heads\": 2, "
    "\"stft_n_fft\": 16,"
    " \"stft_hop_length\": 4, \"stft_win_length\": 16, \"mask_estimator_depth\": 1}, \"audio\": "
    "{\"chunk_size\": 64}}";

static int write_model(void **state)
{
    (void)state;
    saw_context *ctx;
    saw_config *tree;
    saw_model_spec spec;
    saw_graph *g;
    saw_safetensors *file;
    folder = test_temp_folder();
    assert_true(asprintf(&path, "%s/small.safetensors", folder) > 0);
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    assert_int_equal(saw_config_parse_json(ctx, "small", config, strlen(config), &tree), SAW_OK);
    if (saw_model_configure(ctx, tree, NULL, &spec))
        fail_msg("%s", saw_context_error(ctx));
    saw_config_free(tree);
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    spec.model->record(g, spec.options, saw_input(g, "mix", SAW_DIMS(1, 1, 64)));
    assert_int_equal(saw_graph_status(g), SAW_OK);
    saw_safetensors_entry entries[128];
    int n = 0;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM)
            continue;
        assert_true(n < 128);
        entries[n] = (saw_safetensors_entry){.name = x->name, .dtype = SAW_F32, .ndim = x->dims.n};
        memcpy(entries[n++].dims, x->dims.d, sizeof x->dims.d);
    }
    const char *meta[] = {"bandsaw", config};
    assert_int_equal(saw_safetensors_create(ctx, path, entries, n, meta, 1, &file), SAW_OK);
    for (int i = 0; i < n; i++) {
        saw_dims d = saw_dims_of(entries[i].ndim, entries[i].dims);
        float data[1024];
        assert_true(saw_dims_count(&d) <= 1024);
        for (int64_t k = 0; k < saw_dims_count(&d); k++)
            data[k] = 0.1f * (float)((k * 7 + i) % 11 - 5);
        assert_int_equal(
            saw_safetensors_write(file, data, (size_t)saw_dims_count(&d) * sizeof *data), SAW_OK);
    }
    assert_int_equal(saw_safetensors_commit(file), SAW_OK);
    saw_graph_close(g);
    saw_model_spec_close(ctx, &spec);
    saw_context_close(ctx);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    free(path);
    test_remove_folder(folder);
    return 0;
}

/* ---- what fails ------------------------------------------------------------------------------ */

/* Separate 150 samples; sum[0] takes the sum of all outputs. */
static saw_status separate(saw_context *ctx, double *sum)
{
    saw_separator *s = NULL;
    saw_stream *t = NULL;
    float in[150], out[2][150];
    for (int i = 0; i < 150; i++)
        in[i] = (float)(i % 13) / 13;
    saw_status status = saw_separator_open(ctx, path, NULL, &s);
    assert_true(!status == (s != NULL));
    if (!status)
        status = saw_stream_open(s, &(saw_stream_options){.batch = 2}, &t);
    assert_true(!status == (t != NULL));
    int64_t pushed = 0, pulled = 0;
    *sum = 0;
    while (!status && pulled < 150) {
        int64_t n = saw_stream_room(t) < 150 - pushed ? saw_stream_room(t) : 150 - pushed;
        const float *from[] = {in + pushed};
        status = n                     ? saw_stream_push(t, from, n)
                 : saw_stream_ready(t) ? SAW_OK
                                       : saw_stream_finish(t);
        pushed += n;
        int64_t ready = status ? 0 : saw_stream_ready(t);
        float *to[] = {out[0] + pulled, out[1] + pulled};
        if (ready)
            status = saw_stream_pull(t, to, ready);
        pulled += ready;
    }
    for (int i = 0; i < 300 && !status; i++)
        *sum += (double)out[i / 150][i % 150];
    saw_stream_close(t);
    saw_separator_close(s);
    return status;
}

/* Loss and gradients of the same model. */
static saw_status train_step(saw_context *ctx, double *sum)
{
    saw_checkpoint *ck = NULL;
    saw_config *tree = NULL;
    saw_model_spec spec = {0};
    saw_weights *w = NULL;
    saw_graph *g = NULL;
    saw_program *p = NULL;
    saw_run *run = NULL;
    *sum = 0;
    saw_status status = saw_checkpoint_open(ctx, path, &ck);
    if (!status) {
        const char *text = saw_checkpoint_meta(ck, "bandsaw");
        status = saw_config_parse_json(ctx, path, text, strlen(text), &tree);
    }
    if (!status)
        status = saw_model_configure(ctx, tree, ck, &spec);
    saw_config_free(tree);
    saw_weight_source source = saw_checkpoint_source(ck);
    if (!status)
        status = saw_weights_open(ctx, &source, &w);
    if (!status)
        status = saw_graph_open(ctx, &g);
    if (!status) {
        spec.model->record(g, spec.options, saw_input(g, "mix", SAW_DIMS(1, 1, 64)));
        saw_val y = saw_graph_find(g, "stem1"), loss = 0;
        loss = y ? saw_l1_loss(g, y, saw_zero(g, saw_dims_val(g, y)), 1) : 0;
        saw_output(g, "loss", loss);
        saw_graph_train(g, "*");
        status = saw_graph_differentiate(g, loss);
        if (status)
            saw_graph_close(g);
        else
            status = saw_program_build(g, &(saw_program_options){.device = SAW_DEVICE_CPU}, &p);
    }
    if (!status)
        status = saw_run_open(p, w, &run);
    if (!status) {
        saw_tensor mix = saw_run_named(run, "mix");
        for (int i = 0; i < 64; i++)
            ((float *)mix.data)[i] = (float)(i % 13) / 13;
        *(float *)saw_run_named(run, "gradient of the loss").data = 1;
        status = saw_run_execute(run);
        *sum = (double)*(float *)saw_run_named(run, "loss").data;
    }
    saw_run_close(run);
    saw_program_close(p);
    saw_weights_close(w);
    saw_model_spec_close(ctx, &spec);
    saw_checkpoint_close(ck);
    return status;
}

static void every_allocation_fails_once(saw_status (*job)(saw_context *ctx, double *sum))
{
    double want = 0, sum;
    saw_status status = SAW_ERR_MEMORY;
    long n = -1; /* first without a failure */
    for (; status || n < 1; n++) {
        failing f = {.left = n < 0 ? -1 : n};
        saw_context *ctx;
        saw_options options = {
            .threads = 2, .alloc = failing_alloc, .release = failing_release, .user = &f};
        status = saw_context_open(&ctx, &options);
        if (!status) {
            status = job(ctx, &sum);
            if (status && status != SAW_ERR_MEMORY)
                fail_msg("allocation %ld: %s (%s)", n, saw_status_name(status),
                         saw_context_error(ctx));
            if (status && !*saw_context_error(ctx))
                fail_msg("allocation %ld: no sentence", n);
            saw_context_close(ctx);
        }
        if (f.held)
            fail_msg("allocation %ld: %ld blocks are left", n, f.held);
        if (n < 0) {
            assert_int_equal(status, SAW_OK);
            want = sum;
        } else if (!status) {
            assert_true(sum == want); /* also after a failure that could be done without */
            if (f.left < 0)           /* it failed, and more may come */
                status = SAW_ERR_MEMORY;
        }
    }
    print_message("%ld allocations\n", n);
    assert_true(want != 0);
    assert_true(n > 100);
}

static void separating(void **state)
{
    (void)state;
    every_allocation_fails_once(separate);
}

static void training(void **state)
{
    (void)state;
    every_allocation_fails_once(train_step);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(separating),
        cmocka_unit_test(training),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
