/*
 * test_curves.c - ten training steps of whole models against the golden training curves of the
 * reference implementations: loss, gradient norm, parameters and EMA, once per optimizer, in the
 * tolerances of the sets' READMEs (tests/golden/train_curve_*).
 */
#include "nn/loss.h"
#include "nn/optim.h"
#include "run/separator.h"
#include "support/formula.h"
#include "support/golden.h"
#include "support/golden_large.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 10, FIRST = 8, PATH_ROOM = 512 };

/* ---- a curve --------------------------------------------------------------------------------- */

typedef struct curve curve;
struct curve {
    const char *name;   /* folder */
    const char *losses; /* as in a recipe */
    int stems, channels;
    int64_t samples;
    double clip, tight_clip; /* 0: none. The second in the run of a name with "clip" */
    /* Tolerances: relative, and of single values in learning rates. */
    double loss, first_norm, norm, value, value_l2, change;
    double bf16_change; /* of muon_bf16, that this optimizer is not */
    void (*fill)(const curve *c, int step, float *mix, float *target);

    json_t *golden;
    saw_context *ctx;
    saw_program *program;
    saw_run *run;
    int n_ranges;
    const saw_range *ranges;
    int64_t count;
    float *start;       /* trainables before the first step */
    const float *input; /* of the large set, [channels][whole] */
    int64_t whole;
};

static double number(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    if (!json_is_number(v))
        fail_msg("there is no number %s", key);
    return json_number_value(v);
}

static void close_to(const char *what, double got, double want, double tolerance, double *worst)
{
    double error = fabs(got - want) / tolerance;
    if (!(error < 1))
        fail_msg("%s is %.10g, not %.10g: %.2g of the tolerance", what, got, want, error);
    *worst = fmax(*worst, error);
}

static const saw_range *range_of(const curve *c, const char *name)
{
    for (int i = 0; i < c->n_ranges; i++)
        if (!strcmp(c->ranges[i].name, name))
            return &c->ranges[i];
    fail_msg("the model trains no %s", name);
    return c->ranges;
}

static double l2(const float *p, const float *minus, int64_t n)
{
    double s = 0;
    for (int64_t i = 0; i < n; i++)
        s += pow((double)p[i] - (minus ? minus[i] : 0), 2);
    return sqrt(s);
}

/* {name: {"l2", "first8"}} of the compact sets, {name: [l2, (l2 of the change,) eight values]} of
 * the large ones. */
static void check_values(const curve *c, json_t *table, const float *flat, double lr, double value,
                         double value_l2, double *worst)
{
    const char *name;
    json_t *row;
    assert_int_equal(json_object_size(table), 3);
    json_object_foreach(table, name, row)
    {
        const saw_range *r = range_of(c, name);
        const float *p = flat + r->first;
        const json_t *first = json_is_array(row) ? row : json_object_get(row, "first8");
        size_t n = r->count < FIRST ? (size_t)r->count : FIRST, skip = json_array_size(first) - n;
        double norm =
            json_is_array(row) ? json_number_value(json_array_get(row, 0)) : number(row, "l2");
        assert_true(skip <= 2);
        close_to(name, l2(p, NULL, r->count), norm, value_l2 * norm, worst);
        for (size_t i = 0; i < n; i++)
            close_to(name, p[i], json_number_value(json_array_get(first, skip + i)), value * lr,
                     worst);
    }
}

/* ---- one run --------------------------------------------------------------------------------- */

static nn_optim *open_optim(const curve *c, const char *run)
{
    char name[32];
    nn_optim_options o;
    nn_optim *optim;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(run, "_"), run);
    assert_int_equal(nn_optim_defaults(c->ctx, name, &o), SAW_OK);
    assert_true(o.beta1 == 0.9 && o.beta2 == 0.999 && o.eps == 1e-8);
    o.schedule.lr = number(c->golden, "lr");
    o.weight_decay = number(json_object_get(c->golden, "weight_decay"), name);
    o.clip_norm = strstr(run, "clip") ? c->tight_clip : c->clip;
    o.clip = o.clip_norm > 0 ? NN_CLIP_GLOBAL : NN_CLIP_NONE;
    o.ema_decay = strcmp(run, "adamw") ? 0 : 0.99;
    assert_int_equal(nn_optim_open(c->ctx, &o, c->n_ranges, c->ranges, NULL, c->start, &optim),
                     SAW_OK);
    return optim;
}

/* What the compact sets tell of all parameters. */
static void check_all(const curve *c, const json_t *golden, const float *p, const float *ema,
                      bool bf16, double *worst)
{
    double probe = 0, tolerance = bf16 ? c->bf16_change : 1e-3;
    for (int i = 0; i < c->n_ranges; i++) {
        char name[256];
        snprintf(name, sizeof name, "probe.%s", c->ranges[i].name);
        for (int64_t k = 0; k < c->ranges[i].count; k++) {
            int64_t at = c->ranges[i].first + k;
            probe += ((double)p[at] - c->start[at]) * test_value(name, k);
        }
    }
    double change = number(golden, "l2_of_change_all"), all = number(golden, "l2_all_after");
    close_to("the change", l2(p, c->start, c->count), change, tolerance * change, worst);
    close_to("the norm", l2(p, NULL, c->count), all, tolerance * all, worst);
    close_to("the probe", probe, number(golden, "probe_of_change_all"), 2 * tolerance * change,
             worst);
    json_t *each = json_object_get(golden, "l2_after_per_parameter"), *value;
    const char *name;
    assert_true(!each || json_object_size(each) == (size_t)c->n_ranges);
    json_object_foreach(each, name, value)
    {
        const saw_range *r = range_of(c, name);
        const float *x = p + r->first;
        close_to(name, l2(x, NULL, r->count), json_number_value(value),
                 1e-3 * json_number_value(value), worst);
    }
    if (ema) {
        all = number(golden, "ema_l2_all_after");
        close_to("the EMA", l2(ema, NULL, c->count), all, c->value_l2 * all, worst);
    }
}

/* What the large sets tell of all parameters; the values themselves for adamw. */
static void check_large(const curve *c, const char *run, const json_t *golden, const float *p,
                        const float *ema, double lr, bool bf16, double *worst)
{
    double change = number(golden, "after10_change_l2_all");
    double tolerance = bf16 ? c->bf16_change : c->change;
    close_to("the change", l2(p, c->start, c->count), change, tolerance * change, worst);
    json_t *each = json_object_get(golden, "after10"), *value;
    const char *name;
    json_object_foreach(each, name, value)
    {
        const saw_range *r = range_of(c, name);
        const float *x = p + r->first;
        double norm = json_number_value(json_array_get(value, 0));
        close_to(name, l2(x, NULL, r->count), norm, 1e-3 * norm, worst);
    }
    if (ema)
        check_values(c, json_object_get(golden, "ema_after10"), ema, lr, c->value, 1e-4, worst);
    if (strcmp(run, "adamw"))
        return;
    saw_checkpoint *file;
    char *path = golden_large_path(c->name, "after10_adamw.safetensors");
    double squares = 0;
    if (saw_checkpoint_open(c->ctx, path, &file))
        fail_msg("%s", saw_context_error(c->ctx));
    assert_int_equal(saw_checkpoint_count(file), c->n_ranges);
    for (int i = 0; i < c->n_ranges; i++) {
        const saw_ckpt_tensor *t = saw_checkpoint_find(file, c->ranges[i].name);
        assert_true(t && t->count == c->ranges[i].count);
        float *want = malloc((size_t)t->count * sizeof *want);
        assert_int_equal(saw_checkpoint_read_f32(file, t, 0, t->count, want), SAW_OK);
        squares += pow(l2(p + c->ranges[i].first, want, t->count), 2);
        free(want);
    }
    close_to("the difference", sqrt(squares), 0, tolerance * change, worst);
    saw_checkpoint_close(file);
    free(path);
}

static void run_curve(curve *c, const char *run, const json_t *golden, bool large)
{
    bool bf16 = !strcmp(run, "muon_bf16");
    double lr = number(c->golden, "lr"), worst = 0;
    float *params = saw_run_params(c->run).data;
    const float *gradients = saw_run_gradients(c->run).data;
    memcpy(params, c->start, (size_t)c->count * sizeof *params);
    nn_optim *optim = open_optim(c, run);
    for (int k = 0; k < STEPS; k++) {
        const json_t *step = json_array_get(json_object_get(golden, "steps"), (size_t)k);
        c->fill(c, k, saw_run_named(c->run, "mix").data, saw_run_named(c->run, "target").data);
        if (saw_run_execute(c->run))
            fail_msg("%s", saw_context_error(c->ctx));
        double loss = *(float *)saw_run_named(c->run, "loss").data, want = number(step, "loss");
        char what[96];
        snprintf(what, sizeof what, "%s, %s, step %d: the loss", c->name, run, k);
        close_to(what, loss, want, (bf16 ? 1e-4 : c->loss) * want, &worst);
        nn_optim_report report = nn_optim_step(optim, 1, params, gradients);
        want = number(step, "grad_norm");
        snprintf(what, sizeof what, "%s, %s, step %d: the gradient norm", c->name, run, k);
        close_to(what, report.norm, want,
                 (bf16 ? 1e-2
                  : k  ? c->norm
                       : c->first_norm) *
                     want,
                 &worst);
        check_values(c, json_object_get(step, "params"), params, lr, bf16 ? 0.3 : c->value,
                     bf16 ? 1e-3 : c->value_l2, &worst);
        if (json_object_get(step, "ema_params"))
            check_values(c, json_object_get(step, "ema_params"), nn_optim_ema(optim), lr, c->value,
                         c->value_l2, &worst);
    }
    if (large)
        check_large(c, run, golden, params, nn_optim_ema(optim), lr, bf16, &worst);
    else
        check_all(c, golden, params, nn_optim_ema(optim), bf16, &worst);
    print_message("%-32s %-16s worst %.3f of the tolerance\n", c->name, run, worst);
    nn_optim_close(optim);
}

/* Loss on the recorded stems, gradients, program; then every run from the same start. */
static void check_curve(curve *c, saw_graph *g, saw_weights *weights, const char *folder)
{
    char path[PATH_ROOM];
    json_error_t error;
    nn_loss_term terms[NN_LOSS_TERMS];
    int n_terms;
    saw_val stems[SAW_MAX_STEMS];
    snprintf(path, sizeof path, "%s/%s/train.json", folder, c->name);
    c->golden = json_load_file(path, 0, &error);
    assert_non_null(c->golden);
    for (int s = 0; s < c->stems; s++) {
        snprintf(path, sizeof path, "stem%d", s);
        stems[s] = saw_graph_find(g, path);
    }
    if (nn_loss_parse(c->ctx, c->losses, terms, &n_terms))
        fail_msg("%s", saw_context_error(c->ctx));
    saw_val target = saw_input(g, "target", SAW_DIMS(1, c->stems, c->channels, c->samples));
    saw_val loss = nn_loss(g, terms, n_terms, c->stems, stems, target);
    assert_true(saw_graph_train(g, "*") > 0);
    if (saw_graph_differentiate(g, loss) ||
        saw_program_build(g, &(saw_program_options){0}, &c->program) ||
        saw_run_open(c->program, weights, &c->run))
        fail_msg("%s: %s", c->name, saw_context_error(c->ctx));
    *(float *)saw_run_named(c->run, "gradient of the loss").data = 1;
    c->n_ranges = saw_program_ranges(c->program, &c->ranges);
    c->count = saw_program_trainables(c->program);
    c->start = malloc((size_t)c->count * sizeof *c->start);
    memcpy(c->start, saw_run_params(c->run).data, (size_t)c->count * sizeof *c->start);

    json_t *runs = json_object_get(c->golden, "runs"), *golden;
    const char *run;
    assert_int_equal(json_object_size(runs), 6);
    json_object_foreach(runs, run, golden) run_curve(c, run, golden, c->input != NULL);
    saw_run_close(c->run);
    saw_program_close(c->program);
    json_decref(c->golden);
    free(c->start);
}

/* ---- the compact curves ---------------------------------------------------------------------- */

static void fill_formula(const curve *c, int k, float *mix, float *target)
{
    char name[64];
    for (int ch = 0; ch < c->channels; ch++) {
        snprintf(name, sizeof name, "train.%d.%d", k, ch);
        for (int64_t i = 0; i < c->samples; i++) {
            double t = (double)i / 44100;
            mix[ch * c->samples + i] = (float)(0.1 * test_value(name, i) +
                                               0.3 * sin(2 * M_PI * (220 + 13 * k) * (ch + 1) * t) +
                                               0.1 * sin(2 * M_PI * 3000 * t));
        }
        for (int s = 0; s < c->stems; s++) {
            snprintf(name, sizeof name, "target.%d.%d.%d", k, s, ch);
            for (int64_t i = 0; i < c->samples; i++)
                target[(s * c->channels + ch) * c->samples + i] =
                    (float)(0.2 * sin(0.013 * (s + 1) * (double)i + 0.7 * ch + 0.5 * k) +
                            0.1 * sin(0.31 * (double)i * (ch + 1) + s) +
                            0.05 * test_value(name, i));
        }
    }
}

static const curve compact[] = {
    {.name = "train_curve_bs_roformer",
     .losses = "l1 + mrstft_parts(windows=4096:2048:1024:512:256, n_fft=2048, hop=147)",
     .clip = 1,
     .tight_clip = 0.1,
     .loss = 5e-6,
     .first_norm = 1e-5,
     .norm = 2e-3,
     .value = 0.005,
     .value_l2 = 5e-6,
     .bf16_change = 2e-2,
     .fill = fill_formula},
    {.name = "train_curve_bsrnn",
     .losses = "l1",
     .clip = 1,
     .tight_clip = 0.001,
     .loss = 5e-6,
     .first_norm = 1e-5,
     .norm = 1e-5,
     .value = 0.005,
     .value_l2 = 5e-6,
     .bf16_change = 2e-2,
     .fill = fill_formula},
};

static void check_compact(const curve *row, const golden_case *base)
{
    curve c = *row;
    golden_model *m = golden_open(base, 2);
    c.ctx = m->ctx;
    c.stems = m->stems;
    c.channels = m->channels;
    c.samples = m->samples;
    check_curve(&c, golden_record(m, false), m->weights, SAW_TEST_GOLDEN);
    golden_close(m);
}

static void bs_roformer(void **state)
{
    (void)state;
    check_compact(&compact[0], &(golden_case){"bs_roformer_stereo2", "bs_roformer", "model"});
}

static void bsrnn(void **state)
{
    (void)state;
    check_compact(&compact[1], &(golden_case){"bsrnn_magron", "bsrnn", ""});
}

/* ---- the large twins: from a checkpoint, chunks of its input --------------------------------- */

static void fill_chunk(const curve *c, int k, float *mix, float *target)
{
    for (int ch = 0; ch < c->channels; ch++)
        for (int64_t i = 0; i < c->samples; i++) {
            mix[ch * c->samples + i] = c->input[ch * c->whole + 2205 * k + i];
            for (int s = 0; s < c->stems; s++)
                target[(s * c->channels + ch) * c->samples + i] =
                    golden_large_target(s, ch, 2205 * k + i);
        }
}

static const struct {
    curve curve;
    const char *base;
} large[] = {
    {{.name = "train_curve_bs_roformer_stereo2",
      .losses = "l1 + mrstft(windows=4096:2048:1024:512:256, n_fft=2048, hop=147)",
      .tight_clip = 0.3},
     "bs_roformer_stereo2"},
    {{.name = "train_curve_bsrnn_magron",
      .losses = "l1 + mrstft(windows=2048:1024:512, n_fft=1024, hop=160)",
      .tight_clip = 0.5},
     "bsrnn_magron"},
};
enum { LARGE = sizeof large / sizeof *large };

static void check_twin(int i)
{
    curve c = large[i].curve;
    c.samples = 22050;
    c.loss = c.first_norm = 1e-5;
    c.norm = c.change = 2e-3;
    c.value = 0.05;
    c.value_l2 = 1e-4;
    c.bf16_change = 2e-2;
    c.fill = fill_chunk;
    saw_separator *separator;
    saw_weights *weights;
    saw_graph *g;
    char *path = golden_large_path(large[i].base, "model.ckpt");
    assert_int_equal(saw_context_open(&c.ctx, &(saw_options){.threads = 2}), SAW_OK);
    if (saw_separator_open(c.ctx, path, NULL, &separator))
        fail_msg("%s", saw_context_error(c.ctx));
    float *input = golden_large_input(large[i].base, &c.channels, &c.whole);
    c.input = input;
    c.stems = saw_separator_get_info(separator)->stems;
    const saw_model_spec *spec = saw_separator_spec(separator);
    saw_weight_source source =
        saw_checkpoint_source((saw_checkpoint *)saw_separator_checkpoint(separator));
    assert_int_equal(saw_weights_open(c.ctx, &source, &weights), SAW_OK);
    assert_int_equal(saw_graph_open(c.ctx, &g), SAW_OK);
    spec->model->record(g, spec->options, saw_input(g, "mix", SAW_DIMS(1, c.channels, c.samples)));
    check_curve(&c, g, weights, SAW_GOLDEN_DIR);
    saw_weights_close(weights);
    saw_separator_close(separator);
    saw_context_close(c.ctx);
    free(input);
    free(path);
}

static void large_twins(void **state)
{
    (void)state;
    if (!golden_large_there(LARGE))
        skip();
    for (int i = 0; i < LARGE; i++)
        check_twin(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bs_roformer),
        cmocka_unit_test(bsrnn),
        cmocka_unit_test(large_twins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
