/*
 * test_merge.c - adapters merged into checkpoints, checkpoints averaged, a part of the way: held
 * against the adapter in `separate`'s place, against sums in double; what is refused.
 */
#include "run/merge.h"

#include "models/adapters/methods.h"
#include "run/peft_file.h"
#include "run/separator.h"
#include "support/formula.h"
#include "support/test.h"
#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 16384, CHANNELS = 2 };

typedef struct place {
    saw_context *ctx;
    char *folder;
    char base[300], adapter[300], merged[300];
} place;

static place open_place(void)
{
    place p;
    assert_int_equal(saw_context_open(&p.ctx, &(saw_options){.threads = 2}), SAW_OK);
    p.folder = test_temp_folder();
    snprintf(p.base, sizeof p.base, "%s/base.safetensors", p.folder);
    snprintf(p.adapter, sizeof p.adapter, "%s/adapter", p.folder);
    snprintf(p.merged, sizeof p.merged, "%s/merged.safetensors", p.folder);
    tiny_model_write(p.base, &(tiny_model){0});
    return p;
}

static void close_place(place *p)
{
    test_remove_folder(p->folder);
    saw_context_close(p->ctx);
}

/* ---- adapters from formulas ------------------------------------------------------------------ */

typedef struct values {
    const saw_graph *g;
    saw_weights *weights;
    bool moved; /* away from the start */
} values;

static saw_status read_value(void *user, const char *name, const saw_dims *dims, float *out)
{
    const values *v = user;
    saw_status status = saw_weights_read(v->weights, name, dims, out);
    for (int64_t i = 0;
         i < saw_dims_count(dims) && v->moved && !strstr(name, "A0") && !strstr(name, "B0"); i++)
        out[i] += (float)(0.1 * test_value(name, i));
    return status;
}

/* The adapter that a method starts with, written as a file; moved away from its start or not. */
static void write_adapter(const place *p, const char *method, const char *rules, bool moved,
                          const char *folder)
{
    saw_separator *s;
    saw_adapters *set;
    saw_graph *g;
    nn_trained trained;
    values v = {.moved = moved};
    char fingerprint[17];
    assert_int_equal(saw_separator_open(p->ctx, p->base, NULL, &s), SAW_OK);
    const saw_checkpoint *ck = saw_separator_checkpoint(s);
    if (saw_method_table(p->ctx, method, &(saw_method_options){.rank = 3, .rules = rules}, ck,
                         &set))
        fail_msg("%s", saw_context_error(p->ctx));
    assert_int_equal(saw_graph_open(p->ctx, &g), SAW_OK);
    nn_adapt(g, set);
    saw_separator_spec(s)->model->record(g, saw_separator_spec(s)->options,
                                         saw_input(g, "mix", SAW_DIMS(1, CHANNELS, SAMPLES)));
    if (saw_graph_status(g) || nn_trainability(g, set, &trained))
        fail_msg("%s: %s", method, saw_context_error(p->ctx));
    saw_weight_source source = saw_separator_source(s);
    assert_int_equal(saw_weights_open(p->ctx, &source, &v.weights), SAW_OK);
    assert_int_equal(nn_adapters_start(g, v.weights, 7), SAW_OK);
    assert_int_equal(saw_model_fingerprint(source.user, fingerprint), SAW_OK);
    v.g = g;
    if (saw_peft_write(p->ctx, folder,
                       &(saw_peft_save){.graph = g,
                                        .base = "base.safetensors",
                                        .fingerprint = fingerprint,
                                        .read = read_value,
                                        .user = &v}))
        fail_msg("%s: %s", method, saw_context_error(p->ctx));
    saw_weights_close(v.weights);
    saw_graph_close(g);
    saw_adapters_free(p->ctx, set);
    saw_separator_close(s);
}

/* One chunk of noise separated; the caller frees it. */
static float *separate(const place *p, const char *model, const char *adapter, double strength)
{
    saw_separator *s;
    saw_stream *t;
    float *in[CHANNELS], *out = calloc(CHANNELS * SAMPLES, sizeof *out);
    if (saw_separator_open(p->ctx, model,
                           &(saw_separator_options){.precision = SAW_PRECISION_F32,
                                                    .adapter = adapter,
                                                    .adapter_strength = strength},
                           &s) ||
        saw_stream_open(s, &(saw_stream_options){.whole_samples = SAMPLES}, &t))
        fail_msg("%s", saw_context_error(p->ctx));
    for (int c = 0; c < CHANNELS; c++) {
        in[c] = calloc(SAMPLES, sizeof **in);
        for (int i = 0; i < SAMPLES; i++)
            in[c][i] = (float)test_value(c ? "right" : "left", i);
    }
    assert_int_equal(saw_stream_push(t, (const float *const *)in, SAMPLES), SAW_OK);
    assert_int_equal(saw_stream_finish(t), SAW_OK);
    assert_int_equal(saw_stream_ready(t), SAMPLES);
    float *to[CHANNELS] = {out, out + SAMPLES};
    assert_int_equal(saw_stream_pull(t, to, SAMPLES), SAW_OK);
    for (int c = 0; c < CHANNELS; c++)
        free(in[c]);
    saw_stream_close(t);
    saw_separator_close(s);
    return out;
}

/* ---- methods --------------------------------------------------------------------------------- */

static const struct {
    const char *method, *rules;
} mergeable[] = {{"lora", NULL},
                 {"rslora", NULL},
                 {"dora", NULL},
                 {"pissa", NULL},
                 {"oft", NULL},
                 {"ia3", NULL},
                 {"road", "* road group=8 variant=road_2"},
                 {"lora-attn", "{head} bias; * norm"},
                 {"spafit", NULL},
                 {"bitfit", NULL},
                 {"norms", NULL},
                 {"head", NULL},
                 {"last-k", NULL},
                 {"full", NULL}};

/* The merged checkpoint gives what the model with the adapter gives; an adapter at its start gives
 * what the model gives; half of an adapter is half of its change. */
static void every_method(void **state)
{
    (void)state;
    place p = open_place();
    float *base = separate(&p, p.base, NULL, 0);
    for (size_t i = 0; i < sizeof mergeable / sizeof *mergeable; i++) {
        char start[400];
        snprintf(start, sizeof start, "%s/start%d", p.folder, (int)i);
        write_adapter(&p, mergeable[i].method, mergeable[i].rules, false, start);
        snprintf(p.adapter, sizeof p.adapter, "%s/moved%d", p.folder, (int)i);
        write_adapter(&p, mergeable[i].method, mergeable[i].rules, true, p.adapter);
        float *first = separate(&p, p.base, start, 0);
        float *with = separate(&p, p.base, p.adapter, 0);
        float *half = separate(&p, p.base, p.adapter, 0.5);
        saw_merge_report r, r_half;
        double one = 1, part = 0.5;
        saw_merge_options o = {.model = p.base,
                               .adapter = p.adapter,
                               .alphas = &one,
                               .n_alphas = 1,
                               .output = p.merged};
        if (saw_merge(p.ctx, &o, &r))
            fail_msg("%s: %s", mergeable[i].method, saw_context_error(p.ctx));
        float *merged = separate(&p, p.merged, NULL, 0);
        o.alphas = &part;
        assert_int_equal(saw_merge(p.ctx, &o, &r_half), SAW_OK);
        float *merged_half = separate(&p, p.merged, NULL, 0);
        size_t n = CHANNELS * SAMPLES;
        double change = test_relative_l2(with, base, n), db = test_snr_db(merged, with, n),
               db_half = test_snr_db(merged_half, half, n);
        print_message("%-10s %3d of %d tensors, change %.2g, merged %.0f dB, half %.0f dB, start "
                      "%.0f dB\n",
                      mergeable[i].method, r.changed, r.tensors, change, db, db_half,
                      test_snr_db(first, base, n));
        assert_true(change > 1e-4);
        assert_true(db >= 100 && db_half >= 100);
        assert_true(r.changed > 0 && r.tensors >= r.changed);
        assert_true(test_snr_db(first, base, n) >= 100);
        if (!strcmp(mergeable[i].method, "lora"))
            assert_memory_equal(first, base, n * sizeof *base);
        free(first);
        free(with);
        free(half);
        free(merged);
        free(merged_half);
    }
    free(base);
    close_place(&p);
}

/* Bottlenecks stay layers of their own. */
static void inserts(void **state)
{
    (void)state;
    place p = open_place();
    double one = 1;
    saw_merge_report r;
    char start[400];
    snprintf(start, sizeof start, "%s/start", p.folder);
    write_adapter(&p, "houlsby", NULL, false, start);
    write_adapter(&p, "houlsby", NULL, true, p.adapter);
    float *base = separate(&p, p.base, NULL, 0), *first = separate(&p, p.base, start, 0),
          *with = separate(&p, p.base, p.adapter, 0);
    size_t n = CHANNELS * SAMPLES;
    assert_memory_equal(first, base, n * sizeof *base);
    assert_true(test_relative_l2(with, base, n) > 1e-3);
    assert_int_equal(saw_merge(p.ctx,
                               &(saw_merge_options){.model = p.base,
                                                    .adapter = p.adapter,
                                                    .alphas = &one,
                                                    .n_alphas = 1,
                                                    .output = p.merged},
                               &r),
                     SAW_ERR_UNSUPPORTED);
    free(base);
    free(first);
    free(with);
    close_place(&p);
}

/* ---- averages -------------------------------------------------------------------------------- */

static void averages(void **state)
{
    (void)state;
    place p = open_place();
    char others[3][300];
    const char *paths[3];
    for (int i = 0; i < 3; i++) {
        snprintf(others[i], sizeof others[i], "%s/run%d.safetensors", p.folder, i);
        tiny_model_write(others[i], &(tiny_model){.salt = (const char *[]){"a", "b", "c"}[i]});
        paths[i] = others[i];
    }
    double alpha = 0.25;
    saw_merge_report r;
    saw_merge_options o = {.model = p.base,
                           .others = paths,
                           .n_others = 3,
                           .alphas = &alpha,
                           .n_alphas = 1,
                           .output = p.merged};
    if (saw_merge(p.ctx, &o, &r))
        fail_msg("%s", saw_context_error(p.ctx));
    saw_checkpoint *base, *merged, *each[3];
    assert_int_equal(saw_checkpoint_open(p.ctx, p.base, &base), SAW_OK);
    assert_int_equal(saw_checkpoint_open(p.ctx, p.merged, &merged), SAW_OK);
    for (int k = 0; k < 3; k++)
        assert_int_equal(saw_checkpoint_open(p.ctx, paths[k], &each[k]), SAW_OK);
    assert_int_equal(saw_checkpoint_count(merged), r.tensors);
    for (int i = 0; i < r.tensors; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_at(merged, i);
        for (int64_t at = 0; at < t->count; at += 97) {
            float y, b, x;
            double sum = 0;
            saw_checkpoint_read_f32(merged, t, at, 1, &y);
            saw_checkpoint_read_f32(base, saw_checkpoint_find(base, t->name), at, 1, &b);
            for (int k = 0; k < 3; k++) {
                saw_checkpoint_read_f32(each[k], saw_checkpoint_find(each[k], t->name), at, 1, &x);
                sum += (double)x / 3;
            }
            assert_float_equal(y, 0.75 * (double)b + 0.25 * sum, 1e-6);
        }
    }
    for (int k = 0; k < 3; k++)
        saw_checkpoint_close(each[k]);
    saw_checkpoint_close(base);
    saw_checkpoint_close(merged);
    tiny_model_write(others[1], &(tiny_model){.mono = true});
    assert_int_equal(saw_merge(p.ctx, &o, &r), SAW_ERR_SHAPE);
    close_place(&p);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void refused(void **state)
{
    (void)state;
    static const struct {
        const char *method, *rules, *word;
    } bad[] = {{"lorra", NULL, "did you mean lora?"},
               {"lora", "* lorra", "did you mean lora?"},
               {"lora", "* lora rnk=4", "did you mean rank?"},
               {"lora", "* lora rank=0", "from 1 to 4096"},
               {"lora", "* lora rank=2.5", "a whole number"},
               {"lora", "* lora start=pisa", "did you mean pissa?"},
               {"lora", "* lora rslora=maybe", "true or false"},
               {"lora", "* freeze rank=3", "takes no option rank"},
               {"lora", "*", "does not say"},
               {"lora", "* lora rank", "not key=value"},
               {"lora", "{heads} train", "did you mean head"},
               {"lora", "* train lr=fast", "not a factor"}};
    place p = open_place();
    saw_checkpoint *ck;
    saw_adapters *set;
    assert_int_equal(saw_checkpoint_open(p.ctx, p.base, &ck), SAW_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(saw_method_table(p.ctx, bad[i].method,
                                          &(saw_method_options){.rules = bad[i].rules}, ck, &set),
                         SAW_ERR_ARGUMENT);
        if (!strstr(saw_context_error(p.ctx), bad[i].word))
            fail_msg("%s", saw_context_error(p.ctx));
    }
    saw_checkpoint_close(ck);
    /* an adapter for a model of the same shape, and for one of another */
    write_adapter(&p, "lora", NULL, true, p.adapter);
    saw_separator *s;
    for (int i = 0; i < 2; i++) {
        tiny_model_write(p.base, &(tiny_model){.salt = "other", .mono = i == 1});
        assert_true(saw_separator_open(p.ctx, p.base,
                                       &(saw_separator_options){.adapter = p.adapter,
                                                                .precision = SAW_PRECISION_F32},
                                       &s) < 0);
        assert_non_null(strstr(saw_context_error(p.ctx), "another model, base.safetensors"));
    }
    close_place(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_method), cmocka_unit_test(inserts),
                                       cmocka_unit_test(averages), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
