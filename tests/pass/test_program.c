/*
 * test_program.c - the passes change no bit: grouping, tiles, threads, batches, dropping, pinning,
 * hoisting; what a run promises; what the recorder refuses.
 */
#include "kernels/ops.h"
#include "support/formula.h"
#include "support/golden.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const golden_case cases[] = {
    {"bs_roformer_stereo2", "bs_roformer", "model"},
    {"bs_roformer_mono_skip", "bs_roformer", "model"},
    {"bs_roformer_pope", "bs_roformer", "model"},
    {"mel_band_roformer_stereo1", "mel_band_roformer", "model"},
    {"mel_band_roformer_mono2", "mel_band_roformer", "model"},
};
enum { CASES = sizeof cases / sizeof *cases, SHORT_SAMPLES = 6000 };

/* ---- a model, once --------------------------------------------------------------------------- */

/* A batch of items first_item, first_item + 1, ...; all outputs one after another. */
typedef struct result {
    float *data;
    int64_t count; /* of one item */
    double flops;
    size_t bytes;
} result;

static result run_once(golden_model *m, const saw_program_options *o, int batch, int first_item)
{
    saw_graph *g;
    saw_program *p;
    saw_run *run;
    assert_int_equal(saw_graph_open(m->ctx, &g), SAW_OK);
    m->spec.model->record(g, m->spec.options,
                          saw_input(g, "mix", SAW_DIMS(batch, m->channels, SHORT_SAMPLES)));
    if (saw_program_build(g, o, &p) || saw_run_open(p, m->weights, &run))
        fail_msg("%s", saw_context_error(m->ctx));
    saw_tensor mix = saw_run_named(run, "mix");
    for (int b = 0; b < batch; b++)
        for (int64_t i = 0; i < m->channels * SHORT_SAMPLES; i++) {
            char name[32];
            snprintf(name, sizeof name, "item %d", first_item + b);
            ((float *)mix.data)[b * m->channels * SHORT_SAMPLES + i] = (float)test_value(name, i);
        }
    assert_int_equal(saw_run_execute(run), SAW_OK);
    result r = {.flops = saw_program_flops(p), .bytes = saw_program_weight_bytes(p)};
    for (int b = 0; b < batch; b++)
        for (int s = 0; s < m->stems; s++) {
            char name[16];
            snprintf(name, sizeof name, "stem%d", s);
            saw_tensor y = saw_run_named(run, name);
            if (!y.data)
                continue;
            int64_t n = y.dims[1] * y.dims[2];
            r.data = realloc(r.data, (size_t)(r.count + n) * sizeof *r.data);
            memcpy(r.data + r.count, (const float *)y.data + b * n, (size_t)n * sizeof *r.data);
            r.count += n;
        }
    r.count /= batch;
    saw_run_close(run);
    saw_program_close(p);
    return r;
}

static void assert_same_bits(const char *what, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a))
            fail_msg("%s: number %lld of %lld is %.9g and should be %.9g", what, (long long)i,
                     (long long)n, (double)b[i], (double)a[i]);
}

static void assert_same(const char *what, const result *want, result got)
{
    assert_int_equal(want->count, got.count);
    assert_same_bits(what, want->data, got.data, want->count);
    free(got.data);
}

/* ---- passes on = off ------------------------------------------------------------------------- */

static void any_grouping(void **state)
{
    (void)state;
    static const size_t tiles[] = {0, 1, 3000, 40000, 1 << 20};
    for (int i = 0; i < CASES; i++) {
        golden_model *m = golden_open(&cases[i], 1);
        result want = run_once(m, &(saw_program_options){.ungrouped = true}, 1, 0);
        for (size_t k = 0; k < sizeof tiles / sizeof *tiles; k++)
            for (int threads = 1; threads <= 8; threads += 7)
                assert_same(
                    cases[i].name, &want,
                    run_once(m, &(saw_program_options){.tile_bytes = tiles[k], .threads = threads},
                             1, 0));
        assert_same("all taps pinned", &want,
                    run_once(m, &(saw_program_options){.all_taps = true}, 1, 0));
        golden_close(m);
        for (int threads = 2; threads <= 3; threads++) {
            m = golden_open(&cases[i], threads);
            assert_same("threads", &want, run_once(m, NULL, 1, 0));
            golden_close(m);
        }
        free(want.data);
    }
}

typedef struct training {
    int threads;
    bool ungrouped;
    saw_checkpointing checkpoint;
    int times; /* executions that add up */
    size_t bytes;
} training;

/* Every number that a training step makes, in the order of the parameters. */
static float *gradients(const golden_case *c, training *how, int64_t *count)
{
    golden_model *m = golden_open(c, how->threads);
    saw_graph *g;
    assert_int_equal(saw_graph_open(m->ctx, &g), SAW_OK);
    saw_graph_checkpoint(g, how->checkpoint);
    golden_record_on(m, g, true);
    saw_program *p;
    saw_run *run;
    assert_true(saw_graph_train(g, "*") > 0);
    if (saw_graph_differentiate(g, saw_graph_find(g, "loss")) ||
        saw_program_build(g, &(saw_program_options){.ungrouped = how->ungrouped}, &p) ||
        saw_run_open(p, m->weights, &run))
        fail_msg("%s", saw_context_error(m->ctx));
    how->bytes = saw_program_run_bytes(p);
    golden_fill(m, run);
    *(float *)saw_run_named(run, "gradient of the loss").data = 1;
    for (int i = 0; i <= how->times; i++) {
        saw_run_accumulate(run, i > 1); /* the first is forgotten */
        assert_int_equal(saw_run_execute(run), SAW_OK);
    }
    float *out = NULL;
    *count = 0;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        saw_val d = saw_graph_value(g, v)->kind == SAW_VALUE_PARAM ? saw_grad(g, v) : 0;
        saw_tensor t = saw_run_value(run, d);
        if (!t.data)
            continue;
        int64_t n = saw_tensor_count(&t);
        out = realloc(out, (size_t)(*count + n) * sizeof *out);
        memcpy(out + *count, t.data, (size_t)n * sizeof *out);
        *count += n;
    }
    saw_run_close(run);
    saw_program_close(p);
    golden_close(m);
    return out;
}

static void training_in_any_grouping(void **state)
{
    (void)state;
    int64_t n, n_got;
    float *want = gradients(&cases[2], &(training){.threads = 1, .ungrouped = true}, &n);
    assert_true(n > 10000);
    for (int threads = 1; threads <= 3; threads++) {
        float *got = gradients(&cases[2], &(training){.threads = threads}, &n_got);
        assert_int_equal(n, n_got);
        assert_same_bits("gradients", want, got, n);
        free(got);
    }
    free(want);
}

static void checkpoints_change_memory_only(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t n, n_got;
        training kept = {.threads = 2};
        float *want = gradients(&cases[i], &kept, &n);
        for (int how = SAW_CHECKPOINT_PLAIN; how <= SAW_CHECKPOINT_NESTED; how++) {
            training again = {.threads = 2, .checkpoint = (saw_checkpointing)how};
            float *got = gradients(&cases[i], &again, &n_got);
            assert_int_equal(n, n_got);
            assert_same_bits("gradients", want, got, n);
            assert_true(again.bytes < kept.bytes);
            free(got);
        }
        free(want);
    }
}

static void executions_add_up(void **state)
{
    (void)state;
    int64_t n;
    float *once = gradients(&cases[0], &(training){.threads = 2}, &n),
          *twice = gradients(&cases[0], &(training){.threads = 2, .times = 2}, &n);
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        error += pow((double)twice[i] - 2.0 * once[i], 2);
        norm += pow(2.0 * once[i], 2);
    }
    assert_true(norm > 0 && error < 1e-12 * norm);
    free(once);
    free(twice);
}

static void batch_of_three(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        golden_model *m = golden_open(&cases[i], 2);
        result three = run_once(m, NULL, 3, 0);
        for (int b = 0; b < 3; b++) {
            result one = {.data = three.data + b * three.count, .count = three.count};
            assert_same(cases[i].name, &one, run_once(m, NULL, 1, b));
        }
        free(three.data);
        golden_close(m);
    }
}

static void dead_stems_are_dropped(void **state)
{
    (void)state;
    static const char *const wanted[] = {"stem1"}, *const none[] = {"stem7"};
    golden_model *m = golden_open(&cases[0], 2);
    result both = run_once(m, NULL, 1, 0);
    result one = run_once(m, &(saw_program_options){.outputs = wanted, .n_outputs = 1}, 1, 0);
    assert_int_equal(both.count, 2 * one.count);
    assert_same_bits("stem 1", both.data + one.count, one.data, one.count);
    assert_true(one.flops < 0.95 * both.flops);
    assert_true(one.bytes < both.bytes);
    free(both.data);
    free(one.data);
    saw_program *p;
    assert_int_equal(saw_program_build(golden_record(m, false),
                                       &(saw_program_options){.outputs = none, .n_outputs = 1}, &p),
                     SAW_ERR_ARGUMENT);
    assert_null(p);
    golden_close(m);
}

/* ---- listing, hoisting ----------------------------------------------------------------------- */

static void listing_names_everything(void **state)
{
    (void)state;
    golden_model *m = golden_open(&cases[0], 2);
    saw_graph *g = golden_record(m, false);
    saw_program *p;
    saw_buffer text = {.ctx = m->ctx};
    assert_int_equal(saw_program_build(g, NULL, &p), SAW_OK);
    saw_program_list(p, &text);
    int lines = 0;
    for (const char *at = text.data; (at = strstr(at, "\n    ")); at++)
        lines++;
    assert_int_equal(lines, saw_graph_entries(g)); /* nothing of this graph is dropped */
    for (int i = 0; i < saw_graph_entries(g); i++) {
        char line[256];
        const saw_entry *e = saw_graph_entry(g, i);
        snprintf(line, sizeof line, "    %-28s %s", e->scope, e->op->name);
        assert_non_null(strstr(text.data, line));
    }
    /* one table a rotary layer, all made when weights are bound */
    char *groups = strstr(text.data, "\ngroup 0");
    assert_non_null(groups);
    *groups = 0;
    int tables = 0;
    for (const char *at = text.data; (at = strstr(at, " rope_table")); at++)
        tables++;
    assert_int_equal(tables, 4);
    assert_null(strstr(groups + 1, " rope_table"));
    saw_buffer_free(&text);
    saw_program_close(p);
    golden_close(m);
}

/* ---- what a run promises --------------------------------------------------------------------- */

static void execution_allocates_nothing(void **state)
{
    (void)state;
    golden_model *m = golden_open(&cases[0], 2);
    saw_program *p;
    saw_run *run;
    assert_int_equal(saw_program_build(golden_record(m, false), NULL, &p), SAW_OK);
    assert_int_equal(saw_run_open(p, m->weights, &run), SAW_OK);
    golden_fill(m, run);
    uint64_t calls = saw_context_memory(m->ctx).calls;
    for (int i = 0; i < 2; i++)
        assert_int_equal(saw_run_execute(run), SAW_OK);
    saw_run_reset(run);
    assert_int_equal(saw_context_memory(m->ctx).calls, calls);
    saw_run_close(run);
    saw_program_close(p);
    golden_close(m);
}

/* An op that asks for a stop in the second of eight parts. */
typedef struct stopper {
    saw_context *ctx;
    int *calls;
} stopper;

static bool stopper_shape(saw_shape *s)
{
    s->out[0] = s->in[0];
    return true;
}

static int64_t stopper_parts(const void *attr, int n_in, const saw_dims *in, const saw_dims *out)
{
    (void)attr, (void)n_in, (void)in, (void)out;
    return 8;
}

static void stopper_run(const saw_call *c)
{
    const stopper *s = c->attr;
    ++*s->calls;
    if (c->part == 1)
        saw_context_cancel(s->ctx);
}

static void cancel_stops_between_tiles(void **state)
{
    (void)state;
    static const saw_op op = {.name = "stopper",
                              .attr_bytes = sizeof(stopper),
                              .shape = stopper_shape,
                              .parts = stopper_parts,
                              .cpu_forward = stopper_run};
    saw_context *ctx;
    saw_graph *g;
    saw_program *p;
    saw_weights *w;
    saw_run *run;
    int calls = 0;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    assert_int_equal(saw_weights_open(ctx, NULL, &w), SAW_OK);
    saw_output(g, "y",
               SAW_RECORD(g, &op, (&(stopper){ctx, &calls}), saw_input(g, "x", SAW_DIMS(8, 4))));
    assert_int_equal(saw_program_build(g, NULL, &p), SAW_OK);
    assert_int_equal(saw_run_open(p, w, &run), SAW_OK);
    assert_int_equal(saw_run_execute(run), SAW_ERR_CANCELLED);
    assert_int_equal(calls, 2);
    assert_int_equal(saw_run_execute(run), SAW_ERR_CANCELLED); /* until it is taken back */
    assert_int_equal(calls, 2);
    saw_context_resume(ctx);
    assert_int_equal(saw_run_execute(run), SAW_ERR_CANCELLED);
    assert_int_equal(calls, 4);
    saw_run_close(run);
    saw_program_close(p);
    saw_weights_close(w);
    saw_context_close(ctx);
}

/* ---- small graphs ---------------------------------------------------------------------------- */

typedef struct small {
    saw_context *ctx;
    saw_graph *g;
    saw_weights *w;
    saw_program *p;
    saw_run *run;
} small;

static small small_open(void)
{
    small s = {0};
    assert_int_equal(saw_context_open(&s.ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_graph_open(s.ctx, &s.g), SAW_OK);
    assert_int_equal(saw_weights_open(s.ctx, NULL, &s.w), SAW_OK);
    return s;
}

static void small_set(small *s, const char *name, saw_dims dims)
{
    float data[256];
    for (int64_t i = 0; i < saw_dims_count(&dims); i++)
        data[i] = (float)test_value(name, i);
    assert_int_equal(saw_weights_set(s->w, name, dims, data), SAW_OK);
}

static void small_run(small *s, saw_device device)
{
    if (saw_program_build(s->g, &(saw_program_options){.device = device}, &s->p) ||
        saw_run_open(s->p, s->w, &s->run))
        fail_msg("%s", saw_context_error(s->ctx));
}

static void small_close(small *s)
{
    saw_run_close(s->run);
    if (s->p)
        saw_program_close(s->p);
    else
        saw_graph_close(s->g);
    saw_weights_close(s->w);
    saw_context_close(s->ctx);
}

/* An output that nobody wants is written all the same: it must not lie on another value. */
static void unwanted_outputs_have_a_place(void **state)
{
    (void)state;
    small s = small_open();
    saw_val statistics;
    saw_val x = saw_input(s.g, "x", SAW_DIMS(1, 64, 4));
    saw_output(s.g, "y", saw_standardize(s.g, x, 1, 1e-5, &statistics));
    small_run(&s, SAW_DEVICE_CPU);
    saw_tensor in = saw_run_named(s.run, "x"), y = saw_run_named(s.run, "y");
    double sum = 0, squares = 0;
    for (int i = 0; i < 256; i++)
        ((float *)in.data)[i] = (float)test_value("x", i);
    assert_int_equal(saw_run_execute(s.run), SAW_OK);
    for (int i = 0; i < 256; i++) {
        double v = ((const float *)y.data)[i];
        sum += v;
        squares += v * v;
        assert_true(((const float *)in.data)[i] == (float)test_value("x", i));
    }
    assert_true(fabs(sum) < 1e-3);
    assert_true(fabs(squares - 255) < 0.1);
    assert_null(saw_run_value(s.run, statistics).data);
    small_close(&s);
}

/* Products whose weights are made in the run, or are a part of a tensor, on the CPU: held against
 * float64. */
static void products_with_unpacked_weights(void **state)
{
    (void)state;
    double got[2][24];
    for (int device = 0; device < 2; device++) {
        small s = small_open();
        small_set(&s, "w", SAW_DIMS(6, 8));
        saw_val x = saw_input(s.g, "x", SAW_DIMS(1, 3, 4)), w = saw_param(s.g, "w", SAW_DIMS(6, 8));
        saw_val made = saw_input(s.g, "made", SAW_DIMS(2, 6));
        saw_val h = saw_linear(s.g, x, saw_slice_last(s.g, w, 3, 4), 0); /* [1,3,6] */
        saw_output(s.g, "h", h);
        saw_output(s.g, "y", saw_linear(s.g, h, saw_scale(s.g, made, 2), 0));
        small_run(&s, device ? SAW_DEVICE_REF64 : SAW_DEVICE_CPU);
        for (int k = 0; k < 2; k++) {
            saw_tensor t = saw_run_named(s.run, k ? "x" : "made");
            for (int i = 0; i < 12; i++) {
                if (device)
                    ((double *)t.data)[i] = (float)test_value("in", i);
                else
                    ((float *)t.data)[i] = (float)test_value("in", i);
            }
        }
        assert_int_equal(saw_run_execute(s.run), SAW_OK);
        for (int k = 0; k < 24; k++) {
            saw_tensor t = saw_run_named(s.run, k < 18 ? "h" : "y");
            int i = k < 18 ? k : k - 18;
            got[device][k] = device ? ((double *)t.data)[i] : (double)((float *)t.data)[i];
        }
        small_close(&s);
    }
    for (int k = 0; k < 24; k++)
        assert_true(fabs(got[0][k] - got[1][k]) < 1e-6);
    assert_true(fabs(got[1][0]) > 1e-3 && fabs(got[1][20]) > 1e-3);
}

/* A value can be a tap and an output: both names lead to it. */
static void tap_that_is_an_output(void **state)
{
    (void)state;
    small s = small_open();
    saw_val x = saw_input(s.g, "x", SAW_DIMS(2, 4));
    saw_output(s.g, "y", saw_tap(s.g, "stage", saw_scale(s.g, x, 3)));
    small_run(&s, SAW_DEVICE_CPU);
    saw_tensor in = saw_run_named(s.run, "x");
    for (int i = 0; i < 8; i++)
        ((float *)in.data)[i] = (float)i;
    assert_int_equal(saw_run_execute(s.run), SAW_OK);
    const float *y = saw_run_named(s.run, "y").data;
    assert_non_null(y);
    assert_ptr_equal(y, saw_run_named(s.run, "stage").data);
    assert_true(y[5] == 15);
    small_close(&s);
}

static void globs(void **state)
{
    (void)state;
    static const struct {
        const char *glob, *text;
        bool match;
    } rows[] = {
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "anything", true},
        {"a*c", "abc", true},
        {"a*c", "abcd", false},
        {"a*c", "ac", true},
        {"*.weight", "to_qkv.weight", true},
        {"?", "", false},
        {"a?c", "abc", true},
        {"a?c", "ac", false},
        {"*a*b*", "xxaxxbxx", true},
        {"*a*b*", "xxbxxa", false},
        {"*ab", "aab", true},
        {"a**", "a", true},
        {"layers.*.net.1", "layers.0.1.net.1", true},
        {"aa*aa", "aaa", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (saw_glob_match(rows[i].glob, rows[i].text) != rows[i].match)
            fail_msg("%s and %s", rows[i].glob, rows[i].text);
    /* hostile: many stars on a long text end at once */
    char text[20001], glob[101];
    memset(text, 'a', 20000);
    text[20000] = 0;
    for (int i = 0; i < 50; i++)
        memcpy(glob + 2 * i, "*a", 2);
    glob[99] = 'b';
    glob[100] = 0;
    assert_false(saw_glob_match(glob, text));
}

static void errors_are_sticky(void **state)
{
    (void)state;
    small s = small_open();
    saw_scope(s.g, 0, "block.%d", 3);
    saw_val x = saw_input(s.g, "x", SAW_DIMS(1, 2, 10));
    assert_int_equal(saw_slice_last(s.g, x, 8, 3), 0);
    assert_int_equal(saw_graph_status(s.g), SAW_ERR_SHAPE);
    assert_non_null(strstr(saw_context_error(s.ctx), "block.3"));
    char first[256];
    snprintf(first, sizeof first, "%s", saw_context_error(s.ctx));
    assert_int_equal(saw_split_last(s.g, x, 3), 0); /* a second mistake changes nothing */
    assert_int_equal(saw_gelu(s.g, x), 0);
    assert_int_equal(saw_add(s.g, 0, x), 0);
    saw_output(s.g, "y", 0);
    assert_string_equal(saw_context_error(s.ctx), first);
    saw_program *p;
    assert_int_equal(saw_program_build(s.g, NULL, &p), SAW_ERR_SHAPE);
    assert_null(p);
    assert_int_equal(saw_graph_open(s.ctx, &s.g), SAW_OK);
    small_close(&s);
}

/* Each wrong recording in a graph of its own: it gives 0, a status and a sentence. */
static saw_val wrong(saw_graph *g, int which)
{
    saw_val x = saw_input(g, "x", SAW_DIMS(1, 2, 12));
    switch (which) {
    case 0:
        return saw_slice_last(g, x, -1, 3);
    case 1:
        return saw_slice_last(g, x, 1, 12);
    case 2:
        return saw_split_last(g, x, 5);
    case 3:
        return saw_split_last(g, x, 0);
    case 4:
        return saw_merge_last(g,
                              saw_slice_last(g, x, 0, 6)); /* the rows do not follow each other */
    case 5:
        return saw_reshape(g, x, SAW_DIMS(5, 5));
    case 6:
        return saw_reshape(g, saw_slice_last(g, x, 0, 6), SAW_DIMS(12));
    case 7:
        return saw_permute(g, x, (const int[]){0, 1, 1});
    case 8:
        return saw_permute(g, x, (const int[]){0, 1, 3});
    case 9:
        return saw_merge_last(g, saw_input(g, "one axis", SAW_DIMS(4)));
    case 10:
        saw_param(g, "w", SAW_DIMS(3));
        return saw_param(g, "w", SAW_DIMS(3));
    case 11:
        saw_scope(g, SAW_SCOPE_SHARED, "s");
        saw_param(g, "w", SAW_DIMS(3));
        return saw_param(g, "w", SAW_DIMS(4));
    case 12:
        return saw_input(g, "big", SAW_DIMS(INT64_MAX / 2, 16));
    case 13:
        return saw_input(g, "negative", SAW_DIMS(2, -1));
    case 14:
        return saw_linear(g, x, saw_param(g, "w", SAW_DIMS(3, 11)), 0);
    default:
        for (int i = 0; i < 70; i++)
            saw_scope(g, 0, "deep");
        return saw_gelu(g, x);
    }
}

static void recorder_refuses(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        small s = small_open();
        if (wrong(s.g, i) || !saw_graph_status(s.g) || !*saw_context_error(s.ctx))
            fail_msg("recording %d was taken", i);
        small_close(&s);
    }
}

static void shared_scope(void **state)
{
    (void)state;
    small s = small_open();
    saw_scope(s.g, SAW_SCOPE_SHARED, "embed");
    saw_scope(s.g, 0, "inner");
    saw_val a = saw_param(s.g, "freqs", SAW_DIMS(3)), b = saw_param(s.g, "freqs", SAW_DIMS(3));
    saw_scope_end(s.g);
    saw_scope_end(s.g);
    assert_true(a > 0);
    assert_int_equal(a, b);
    assert_int_equal(saw_graph_find(s.g, "embed.inner.freqs"), a);
    assert_int_equal(saw_graph_find(s.g, "freqs"), 0);
    small_close(&s);
}

static void losses_must_be_numbers(void **state)
{
    (void)state;
    small s = small_open();
    saw_val w = saw_param(s.g, "w", SAW_DIMS(4, 4));
    saw_val y = saw_linear(s.g, saw_input(s.g, "x", SAW_DIMS(1, 4)), w, 0);
    assert_int_equal(saw_graph_train(s.g, "*"), 1);
    assert_int_equal(saw_graph_differentiate(s.g, y), SAW_ERR_SHAPE);
    small_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_grouping),
        cmocka_unit_test(training_in_any_grouping),
        cmocka_unit_test(checkpoints_change_memory_only),
        cmocka_unit_test(executions_add_up),
        cmocka_unit_test(batch_of_three),
        cmocka_unit_test(dead_stems_are_dropped),
        cmocka_unit_test(listing_names_everything),
        cmocka_unit_test(execution_allocates_nothing),
        cmocka_unit_test(cancel_stops_between_tiles),
        cmocka_unit_test(unwanted_outputs_have_a_place),
        cmocka_unit_test(products_with_unpacked_weights),
        cmocka_unit_test(tap_that_is_an_output),
        cmocka_unit_test(globs),
        cmocka_unit_test(errors_are_sticky),
        cmocka_unit_test(recorder_refuses),
        cmocka_unit_test(shared_scope),
        cmocka_unit_test(losses_must_be_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
