/*
 * test_optim.c - optimizers against implementations in double written from the papers' formulas;
 * clip, EMA, schedules and groups by closed form; equal bits for any number of threads and after
 * save and load.
 */
#include "nn/optim.h"

#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- a set of trainables --------------------------------------------------------------------- */

/* Longer than a slice, vectors, standing and lying matrices, a kernel, a scalar. */
static const saw_range ranges[] = {
    {"band_split.0.weight", {2, {24, 40}}, 0, 960},
    {"layers.0.norm.gamma", {1, {40}}, 960, 40},
    {"layers.0.to_qkv.weight", {2, {200, 90}}, 1000, 18000},
    {"layers.1.conv.weight", {3, {6, 5, 7}}, 19000, 210},
    {"layers.1.row.weight", {2, {1, 33}}, 19210, 33},
    {"layers.10.lora_A.weight", {2, {4, 40}}, 19243, 160},
    {"layers.10.lora_B.weight", {2, {40, 4}}, 19403, 160},
    {"final.temperature", {0, {0}}, 19563, 1},
};
enum { RANGES = sizeof ranges / sizeof *ranges, ALL = 19564, STEPS = 8 };

static const nn_param_group groups[RANGES] = {{1, 0.01f}, {1, 0}, {0.5f, 0.02f}, {2, 0.01f},
                                              {1, 0.1f},  {1, 0}, {16, 0},       {1, 0}};

static float *start_values(void)
{
    float *p = malloc(ALL * sizeof *p);
    for (int i = 0; i < ALL; i++)
        p[i] = (float)test_value("start", i);
    return p;
}

/* Gradients of step t: some numbers are always zero, some tiny. */
static void gradients_of(int t, float *g)
{
    char name[32];
    snprintf(name, sizeof name, "gradient.%d", t);
    for (int i = 0; i < ALL; i++) {
        double size = i % 97 == 0 ? 0 : i % 89 == 0 ? 1e-9 : 0.01;
        g[i] = (float)(size * (test_value(name, i) + 0.3 * test_value("steady", i)));
    }
}

static nn_optim_options options_of(const char *name)
{
    nn_optim_options o;
    assert_int_equal(nn_optim_defaults(NULL, name, &o), SAW_OK);
    return o;
}

static saw_context *context_of(int threads)
{
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = threads}), SAW_OK);
    return ctx;
}

static nn_optim *open_of(saw_context *ctx, const nn_optim_options *options, const float *p)
{
    nn_optim *o;
    if (nn_optim_open(ctx, options, RANGES, ranges, groups, p, &o))
        fail_msg("%s", saw_context_error(ctx));
    return o;
}

/* ---- the rules in double --------------------------------------------------------------------- */

typedef struct rules {
    const nn_optim_options *o;
    double *p, *g, *m, *v, *s, *start;
    double r, d;
    int t;
} rules;

static void double_adam(rules *k, int i, double lr, double wd, bool decoupled, bool rectify)
{
    double b1 = k->o->beta1, b2 = k->o->beta2, g = k->g[i];
    if (decoupled)
        k->p[i] *= 1 - lr * wd;
    else
        g += wd * k->p[i];
    k->m[i] = b1 * k->m[i] + (1 - b1) * g;
    k->v[i] = b2 * k->v[i] + (1 - b2) * g * g;
    double mh = k->m[i] / (1 - pow(b1, k->t)), c2 = 1 - pow(b2, k->t);
    if (!rectify) {
        k->p[i] -= lr * mh / (sqrt(k->v[i] / c2) + k->o->eps);
        return;
    }
    double inf = 2 / (1 - b2) - 1, rho = inf - 2 * k->t * pow(b2, k->t) / c2;
    double correction = rho > 5
                            ? sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho)) *
                                  sqrt(c2) / (sqrt(k->v[i]) + k->o->eps)
                            : 1;
    k->p[i] -= lr * mh * correction;
}

static void double_sgd(rules *k, int i, double lr, double wd)
{
    double g = k->g[i] + wd * k->p[i];
    k->m[i] = k->o->momentum * k->m[i] + g;
    k->p[i] -= lr * (k->o->nesterov ? g + k->o->momentum * k->m[i] : k->m[i]);
}

/* c [m, n] = a [m, k] b [k, n], b^T with transposed [n, k] */
static void multiply(int m, int n, int k, const double *a, const double *b, bool transposed,
                     double *c)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            c[i * n + j] = 0;
            for (int l = 0; l < k; l++)
                c[i * n + j] += a[i * k + l] * (transposed ? b[j * k + l] : b[l * n + j]);
        }
}

static void double_muon(rules *k, int first, int rows, int columns, double lr, double wd)
{
    double mu = k->o->momentum, norm = 0;
    int r = rows < columns ? rows : columns, c = rows < columns ? columns : rows;
    double *x = calloc((size_t)(rows * columns), 8), *y = calloc((size_t)(rows * columns), 8);
    double *a = calloc((size_t)(r * r), 8), *aa = calloc((size_t)(r * r), 8);
    for (int i = 0; i < rows * columns; i++) {
        double *b = &k->m[first + i], g = k->g[first + i];
        *b = mu * *b + (1 - mu) * g;
        double u = k->o->nesterov ? (1 - mu) * g + mu * *b : *b;
        x[rows > columns ? i % columns * rows + i / columns : i] = u;
        norm += u * u;
    }
    for (int i = 0; i < rows * columns; i++)
        x[i] /= fmax(sqrt(norm), 1e-7);
    for (int n = 0; n < 5; n++) {
        multiply(r, r, c, x, x, true, a);
        multiply(r, r, r, a, a, false, aa);
        for (int i = 0; i < r * r; i++)
            a[i] = -4.7750 * a[i] + 2.0315 * aa[i];
        multiply(r, c, r, a, x, false, y);
        for (int i = 0; i < r * c; i++)
            x[i] = 3.4445 * x[i] + y[i];
    }
    for (int i = 0; i < rows * columns; i++)
        k->p[first + i] = (1 - lr * wd) * k->p[first + i] -
                          lr * sqrt(fmax(1, (double)rows / columns)) *
                              x[rows > columns ? i % columns * rows + i / columns : i];
    free(x);
    free(y);
    free(a);
    free(aa);
}

static void double_step(rules *k)
{
    const char *name = k->o->name;
    double lr = k->o->schedule.lr, b3 = sqrt(k->o->beta2), inner = 0, ones = 0, d = k->d;
    k->t++;
    for (int i = 0; i < ALL; i++) {
        inner += k->g[i] * (k->start[i] - k->p[i]);
        k->s[i] = b3 * k->s[i] + (1 - b3) * lr * d * d * k->g[i];
        ones += fabs(k->s[i]);
    }
    k->r = b3 * k->r + (1 - b3) * lr * d * d * inner;
    for (int n = 0; n < RANGES; n++) {
        const saw_range *range = &ranges[n];
        double own = lr * groups[n].lr_factor, wd = groups[n].weight_decay;
        int rows = range->dims.n ? (int)range->dims.d[0] : 1, columns = (int)range->count / rows;
        bool kernel = range->dims.n > 2 && k->o->conv_matrices;
        if (!strcmp(name, "muon") && (range->dims.n == 2 || kernel) && rows > 1 && columns > 1) {
            double_muon(k, (int)range->first, rows, columns, own, wd);
            continue;
        }
        for (int i = (int)range->first; i < range->first + range->count; i++) {
            if (!strcmp(name, "sgd")) {
                double_sgd(k, i, own, wd);
            } else if (!strcmp(name, "prodigy")) {
                k->m[i] = k->o->beta1 * k->m[i] + (1 - k->o->beta1) * d * k->g[i];
                k->v[i] = k->o->beta2 * k->v[i] + (1 - k->o->beta2) * d * d * k->g[i] * k->g[i];
                k->p[i] = (1 - own * d * wd) * k->p[i] -
                          own * d * k->m[i] / (sqrt(k->v[i]) + d * k->o->eps);
            } else {
                double_adam(k, i, own, wd, !strcmp(name, "adamw") || !strcmp(name, "muon"),
                            !strcmp(name, "radam"));
            }
        }
    }
    k->d = fmax(d, fmin(k->r / ones, k->o->growth * d));
}

static void check_rule(const nn_optim_options *options, double tolerance)
{
    saw_context *ctx = context_of(2);
    float *p = start_values(), *g = malloc(ALL * sizeof *g);
    double *all = calloc(6 * ALL, sizeof *all);
    rules k = {.o = options, .d = options->d0};
    k.p = all, k.g = all + ALL, k.m = all + 2 * ALL, k.v = all + 3 * ALL, k.s = all + 4 * ALL;
    k.start = all + 5 * ALL;
    for (int i = 0; i < ALL; i++)
        k.start[i] = k.p[i] = p[i];
    nn_optim *o = open_of(ctx, options, p);
    for (int t = 0; t < STEPS; t++) {
        gradients_of(t, g);
        for (int i = 0; i < ALL; i++)
            k.g[i] = 0.25 * (double)g[i];
        double d = k.d;
        double_step(&k);
        nn_optim_report report = nn_optim_step(o, 0.25f, p, g);
        assert_null(report.where);
        if (options->d0 > 0)
            assert_true(fabs(report.lr / (options->schedule.lr * d) - 1) < 1e-5);
    }
    double worst = 0;
    for (int n = 0; n < RANGES; n++) {
        double error = 0, change = 0;
        for (int64_t i = ranges[n].first; i < ranges[n].first + ranges[n].count; i++) {
            error += pow(p[i] - k.p[i], 2);
            change += pow(k.p[i] - k.start[i], 2);
        }
        worst = fmax(worst, sqrt(error / change));
    }
    print_message("%-8s worst tensor: %.1e of its change\n", options->name, worst);
    assert_true(worst < tolerance);
    nn_optim_close(o);
    free(p);
    free(g);
    free(all);
    saw_context_close(ctx);
}

static void rules_in_double(void **state)
{
    (void)state;
    for (int i = 0; nn_optim_name(i); i++) {
        nn_optim_options o = options_of(nn_optim_name(i));
        if (o.d0 > 0) {
            o.d0 = 1e-3; /* a step that float32 can hold beside values around 1 */
            check_rule(&o, 2e-4);
            o.growth = 1.02;
        } else {
            o.schedule.lr = strcmp(o.name, "sgd") ? 0.01 : 1;
        }
        check_rule(&o, 2e-4);
        if (o.momentum > 0) {
            o.nesterov = !o.nesterov;
            o.conv_matrices = true;
            check_rule(&o, 2e-4);
        }
    }
}

/* A lower bound of the distance, and close to it: |x - c| over four numbers, from 0. */
static void prodigy_finds_the_distance(void **state)
{
    (void)state;
    saw_context *ctx = context_of(1);
    nn_optim_options options = options_of("prodigy");
    saw_range one = {"x", {1, {4}}, 0, 4};
    float x[4] = {0}, g[4], c[4] = {3, -3, 3, -3};
    nn_optim *o;
    nn_optim_report report = {0};
    assert_int_equal(nn_optim_open(ctx, &options, 1, &one, NULL, x, &o), SAW_OK);
    for (int t = 0; t < 300; t++) {
        for (int i = 0; i < 4; i++)
            g[i] = x[i] > c[i] ? 1 : -1;
        report = nn_optim_step(o, 1, x, g);
    }
    print_message("distance 3: found %.3f\n", report.lr);
    assert_true(report.lr > 0.3 && report.lr <= 3);
    for (int i = 0; i < 4; i++)
        assert_true(fabs(x[i] - c[i]) < 1);
    nn_optim_close(o);
    saw_context_close(ctx);
}

/* ---- clip, scale, what is not finite --------------------------------------------------------- */

static void clipping(void **state)
{
    (void)state;
    saw_context *ctx = context_of(2);
    saw_range two[] = {{"a", {1, {2}}, 0, 2}, {"b", {1, {1}}, 2, 1}};
    const float g[] = {6, 8, 0.5f};
    const struct {
        nn_clip clip;
        double a, b; /* factors */
    } want[] = {{NN_CLIP_NONE, 1, 1},
                {NN_CLIP_GLOBAL, 2 / (sqrt(25 + 0.0625) + 1e-6), 2 / (sqrt(25 + 0.0625) + 1e-6)},
                {NN_CLIP_TENSOR, 2 / (5 + 1e-6), 1}};
    for (int i = 0; i < 3; i++) {
        nn_optim_options options = options_of("sgd");
        options.schedule.lr = 1;
        options.clip = want[i].clip;
        options.clip_norm = 2;
        float p[] = {0, 0, 0};
        nn_optim *o;
        assert_int_equal(nn_optim_open(ctx, &options, 2, two, NULL, p, &o), SAW_OK);
        nn_optim_report report = nn_optim_step(o, 0.5f, p, g);
        assert_true(fabs(report.norm - sqrt(25 + 0.0625)) < 1e-12);
        assert_true(fabs(p[0] + 3 * want[i].a) < 1e-6 && fabs(p[1] + 4 * want[i].a) < 1e-6);
        assert_true(fabs(p[2] + 0.25 * want[i].b) < 1e-6);
        nn_optim_close(o);
    }
    saw_context_close(ctx);
}

static void not_finite(void **state)
{
    (void)state;
    saw_context *ctx = context_of(2);
    float *p = start_values(), *q = start_values(), *g = malloc(ALL * sizeof *g);
    nn_optim_options options = options_of("adamw");
    options.ema_decay = 0.9;
    nn_optim *a = open_of(ctx, &options, p), *b = open_of(ctx, &options, q);
    for (int t = 0; t < 3; t++) {
        gradients_of(t, g);
        nn_optim_step(a, 1, p, g);
        nn_optim_step(b, 1, q, g);
        g[19211] = t ? NAN : -INFINITY;
        g[19562] = NAN;
        assert_string_equal(nn_optim_step(b, 1, q, g).where, "layers.1.row.weight");
    }
    assert_memory_equal(p, q, ALL * sizeof *p);
    assert_memory_equal(nn_optim_ema(a), nn_optim_ema(b), ALL * sizeof *p);
    assert_int_equal(nn_optim_steps(a), 3);
    assert_int_equal(nn_optim_steps(b), 6);
    nn_optim_close(a);
    nn_optim_close(b);
    free(p);
    free(q);
    free(g);
    saw_context_close(ctx);
}

/* ---- EMA ------------------------------------------------------------------------------------- */

static void ema(void **state)
{
    (void)state;
    saw_context *ctx = context_of(2);
    for (int warm = 0; warm < 2; warm++) {
        nn_optim_options options = options_of("sgd");
        options.ema_decay = 0.6;
        options.ema_warmup = warm;
        float *p = start_values(), *g = malloc(ALL * sizeof *g), *kept = malloc(ALL * sizeof *kept);
        double *e = malloc(ALL * sizeof *e);
        for (int i = 0; i < ALL; i++)
            e[i] = p[i];
        nn_optim *o = open_of(ctx, &options, p);
        for (int t = 1; t <= STEPS; t++) {
            gradients_of(t, g);
            nn_optim_step(o, 1, p, g);
            double decay = warm ? fmin(0.6, (1 + t) / (10.0 + t)) : 0.6;
            for (int i = 0; i < ALL; i++)
                e[i] = decay * e[i] + (1 - decay) * p[i];
        }
        memcpy(kept, p, ALL * sizeof *p);
        nn_optim_swap_ema(o, p);
        for (int i = 0; i < ALL; i++)
            assert_true(fabs(p[i] - e[i]) < 1e-6);
        assert_memory_equal(nn_optim_ema(o), kept, ALL * sizeof *p);
        nn_optim_swap_ema(o, p);
        assert_memory_equal(p, kept, ALL * sizeof *p);
        nn_optim_close(o);
        free(p);
        free(g);
        free(kept);
        free(e);
    }
    saw_context_close(ctx);
}

/* ---- equal bits ------------------------------------------------------------------------------ */

static nn_optim_options all_options(const char *name)
{
    nn_optim_options o = options_of(name);
    o.ema_decay = 0.9;
    o.clip = NN_CLIP_TENSOR;
    o.clip_norm = 0.1;
    o.schedule.name = "plateau";
    o.schedule.factor = 0.5;
    o.schedule.warmup_steps = 3;
    if (o.d0 > 0)
        o.d0 = 1e-3;
    return o;
}

static void steps_of(nn_optim *o, float *p, int from, int to)
{
    float *g = malloc(ALL * sizeof *g);
    for (int t = from; t < to; t++) {
        gradients_of(t, g);
        if (t == 2)
            g[7] = NAN;
        nn_optim_step(o, 0.5f, p, g);
        nn_optim_validated(o, t % 3 ? 1 : 2); /* falls after the third and every further one */
    }
    free(g);
}

static void assert_same(const nn_optim *a, const nn_optim *b, const float *p, const float *q)
{
    nn_optim_array x[NN_OPTIM_ARRAYS], y[NN_OPTIM_ARRAYS];
    int n = nn_optim_arrays(a, x);
    assert_int_equal(nn_optim_arrays(b, y), n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(x[i].count, y[i].count);
        assert_memory_equal(x[i].data, y[i].data, (size_t)x[i].count * saw_dtype_bytes(x[i].dtype));
    }
    assert_memory_equal(p, q, ALL * sizeof *p);
    assert_true(nn_optim_lr(a) == nn_optim_lr(b));
}

/* Also when the team is told to stop in the middle. */
static void threads_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; nn_optim_name(i); i++) {
        nn_optim_options options = all_options(nn_optim_name(i));
        saw_context *ctx[4];
        nn_optim *o[4];
        float *p[4];
        for (int k = 0; k < 4; k++) {
            ctx[k] = context_of(k < 3 ? k + 1 : 2);
            p[k] = start_values();
            o[k] = open_of(ctx[k], &options, p[k]);
            if (k == 3)
                saw_context_cancel(ctx[k]);
            steps_of(o[k], p[k], 0, STEPS);
            if (k)
                assert_same(o[0], o[k], p[0], p[k]);
        }
        for (int k = 0; k < 4; k++) {
            nn_optim_close(o[k]);
            free(p[k]);
            saw_context_close(ctx[k]);
        }
    }
}

static void save(saw_context *ctx, const nn_optim *o, const char *path)
{
    nn_optim_array arrays[NN_OPTIM_ARRAYS];
    saw_safetensors_entry entries[NN_OPTIM_ARRAYS];
    saw_safetensors *file;
    int n = nn_optim_arrays(o, arrays);
    for (int i = 0; i < n; i++)
        entries[i] = (saw_safetensors_entry){arrays[i].name, arrays[i].dtype, 1, {arrays[i].count}};
    assert_int_equal(saw_safetensors_create(ctx, path, entries, n, NULL, 0, &file), SAW_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(
            saw_safetensors_write(file, arrays[i].data,
                                  (size_t)arrays[i].count * saw_dtype_bytes(arrays[i].dtype)),
            SAW_OK);
    assert_int_equal(saw_safetensors_commit(file), SAW_OK);
}

static void resume_changes_no_bit(void **state)
{
    (void)state;
    char *folder = test_temp_folder(), path[512];
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    saw_context *ctx = context_of(2);
    for (int i = 0; nn_optim_name(i); i++)
        for (int cut = 0; cut <= STEPS; cut += 3) {
            nn_optim_options options = all_options(nn_optim_name(i));
            float *p = start_values(), *q = start_values();
            nn_optim *whole = open_of(ctx, &options, p), *first = open_of(ctx, &options, q), *next;
            steps_of(whole, p, 0, STEPS);
            steps_of(first, q, 0, cut);
            save(ctx, first, path);
            nn_optim_close(first);
            next = open_of(ctx, &options, p); /* from other values than those of the file */
            saw_checkpoint *file;
            assert_int_equal(saw_checkpoint_open(ctx, path, &file), SAW_OK);
            assert_int_equal(nn_optim_load(next, file), SAW_OK);
            saw_checkpoint_close(file);
            steps_of(next, q, cut, STEPS);
            assert_same(whole, next, p, q);
            nn_optim_close(whole);
            nn_optim_close(next);
            free(p);
            free(q);
        }
    saw_context_close(ctx);
    test_remove_folder(folder);
}

static void foreign_states_are_refused(void **state)
{
    (void)state;
    char *folder = test_temp_folder(), path[512];
    snprintf(path, sizeof path, "%s/state.safetensors", folder);
    saw_context *ctx = context_of(2);
    float *p = start_values(), *q = start_values();
    nn_optim_options adamw = all_options("adamw"), adam = all_options("adam");
    nn_optim *saved = open_of(ctx, &adamw, p), *other = open_of(ctx, &adam, q);
    steps_of(saved, p, 0, 4);
    save(ctx, saved, path);
    saw_checkpoint *file;
    assert_int_equal(saw_checkpoint_open(ctx, path, &file), SAW_OK);
    assert_int_equal(nn_optim_load(other, file), SAW_ERR_SHAPE);
    assert_non_null(strstr(saw_context_error(ctx), "adam"));
    nn_optim_close(other);

    saw_range renamed[RANGES];
    memcpy(renamed, ranges, sizeof ranges);
    renamed[3].name = "layers.2.conv.weight";
    assert_int_equal(nn_optim_open(ctx, &adamw, RANGES, renamed, groups, q, &other), SAW_OK);
    assert_int_equal(nn_optim_load(other, file), SAW_ERR_SHAPE);
    nn_optim_close(other);
    assert_int_equal(nn_optim_open(ctx, &adamw, RANGES - 1, ranges, groups, q, &other), SAW_OK);
    assert_int_equal(nn_optim_load(other, file), SAW_ERR_SHAPE);
    nn_optim_close(other);
    saw_checkpoint_close(file);

    /* Nothing of it was taken over: the numbers of steps of a damaged file neither. */
    nn_optim_array arrays[NN_OPTIM_ARRAYS];
    nn_optim_arrays(saved, arrays);
    int64_t counts[3];
    memcpy(counts, arrays[1].data, sizeof counts);
    memcpy((void *)arrays[1].data, (int64_t[]){4, -5, 0}, sizeof counts);
    save(ctx, saved, path);
    memcpy((void *)arrays[1].data, counts, sizeof counts);
    other = open_of(ctx, &adamw, q);
    assert_int_equal(saw_checkpoint_open(ctx, path, &file), SAW_OK);
    assert_int_equal(nn_optim_load(other, file), SAW_ERR_SHAPE);
    saw_checkpoint_close(file);
    steps_of(other, q, 0, 4);
    assert_same(saved, other, p, q);
    nn_optim_close(saved);
    nn_optim_close(other);
    free(p);
    free(q);
    saw_context_close(ctx);
    test_remove_folder(folder);
}

/* ---- memory, options ------------------------------------------------------------------------- */

static void nothing(void *arg, int64_t item, int thread)
{
    (void)arg, (void)item, (void)thread;
}

static void memory_is_taken_at_open(void **state)
{
    (void)state;
    for (int i = 0; nn_optim_name(i); i++) {
        saw_context *ctx = context_of(2);
        nn_optim_options options = all_options(nn_optim_name(i));
        float *p = start_values();
        saw_parallel(ctx, 2, nothing, NULL); /* the threads themselves */
        saw_memory_stats before = saw_context_memory(ctx);
        nn_optim *o = open_of(ctx, &options, p);
        saw_memory_stats opened = saw_context_memory(ctx);
        steps_of(o, p, 0, STEPS);
        nn_optim_swap_ema(o, p);
        saw_memory_stats stepped = saw_context_memory(ctx);
        assert_int_equal(stepped.calls, opened.calls);
        assert_int_equal(stepped.peak_bytes, opened.peak_bytes);
        size_t planned = nn_optim_bytes(ctx, &options, RANGES, ranges), own = 256; /* allocator */
        assert_in_range(opened.now_bytes - before.now_bytes, planned, planned + own);
        nn_optim_close(o);
        assert_int_equal(saw_context_memory(ctx).now_bytes, before.now_bytes);
        free(p);
        saw_context_close(ctx);
    }
}

static void options_are_checked(void **state)
{
    (void)state;
    saw_context *ctx = context_of(1);
    nn_optim_options good = options_of("adamw"), bad[12];
    nn_optim *o;
    float p[ALL] = {0};
    assert_int_equal(nn_optim_defaults(ctx, "adamwx", &good), SAW_ERR_ARGUMENT);
    assert_non_null(strstr(saw_context_error(ctx), "'adamwx'"));
    assert_non_null(strstr(saw_context_error(ctx), "adamw, adam, "));
    for (int i = 0; i < 12; i++)
        bad[i] = good;
    bad[0].name = "none";
    bad[1].beta1 = 1;
    bad[2].beta2 = -0.1;
    bad[3].eps = 0;
    bad[4].weight_decay = NAN;
    bad[5].clip = NN_CLIP_GLOBAL;
    bad[6].ema_decay = 1;
    bad[7].schedule.lr = INFINITY;
    bad[8].schedule.name = "step";
    bad[9].schedule.name = "cosine"; /* of no steps */
    bad[10].schedule.name = "plateau";
    bad[11].schedule.floor = 2;
    for (int i = 0; i < 12; i++) {
        assert_int_equal(nn_optim_open(ctx, &bad[i], RANGES, ranges, NULL, p, &o),
                         SAW_ERR_ARGUMENT);
        assert_null(o);
    }
    saw_context_close(ctx);
}

/* ---- schedules ------------------------------------------------------------------------------- */

static void schedules(void **state)
{
    (void)state;
    nn_plateau p = nn_plateau_start();
    nn_schedule s = {
        .lr = 2, .warmup_steps = 4, .total_steps = 12, .floor = 0.1, .factor = 0.5, .patience = 1};
    const struct {
        const char *name;
        double at[5]; /* steps 0, 3, 6, 8, 12 and, the same, 1000 */
    } want[] = {
        {"constant", {0.5, 2, 2, 2, 2}},
        {"linear", {0.5, 2, 2 * (1 - 0.9 * 0.25), 2 * (1 - 0.9 * 0.5), 0.2}},
        {"cosine", {0.5, 2, 2 * (0.1 + 0.9 * (1 + sqrt(0.5)) / 2), 2 * (0.1 + 0.9 / 2), 0.2}},
        {"plateau", {0.5, 2, 2, 2, 2}},
    };
    const int64_t steps[] = {0, 3, 6, 8, 12};
    for (int i = 0; i < 4; i++) {
        s.name = want[i].name;
        assert_int_equal(nn_schedule_check(NULL, &s), SAW_OK);
        for (int k = 0; k < 5; k++)
            assert_true(fabs(nn_schedule_lr(&s, &p, steps[k]) - want[i].at[k]) < 1e-12);
        assert_true(fabs(nn_schedule_lr(&s, &p, 1000) - want[i].at[4]) < 1e-12);
    }
    /* best 3, then one is forgiven, the second halves; a new best starts again; down to the floor
     */
    const double figures[] = {1, 3, 3, 2.5, NAN, 4, 4, 4, 0, 0, 0, 0, 0, 0};
    const double scales[] = {1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.1, 0.1, 0.1};
    for (int i = 0; i < 14; i++) {
        nn_schedule_validated(&s, &p, figures[i]);
        assert_true(fabs(nn_schedule_lr(&s, &p, 50) - 2 * scales[i]) < 1e-12);
    }
}

/* ---- groups ---------------------------------------------------------------------------------- */

static void group_rules(void **state)
{
    (void)state;
    nn_param_group got[RANGES];
    nn_param_options o = {.weight_decay = 0.5f};
    nn_param_groups(&o, RANGES, ranges, got);
    for (int i = 0; i < RANGES; i++)
        assert_true(got[i].lr_factor == 1 && got[i].weight_decay == 0.5f);

    o.decay_matrices_only = true;
    o.layer_decay = 0.5f; /* layers 0 to 10; before them 11 powers, after them none */
    o.lora_plus_ratio = 16;
    nn_param_groups(&o, RANGES, ranges, got);
    const double power[RANGES] = {11, 10, 10, 9, 9, 0, 0, 0};
    const double ratio[RANGES] = {1, 16, 1, 1, 1, 1, 16, 16};
    for (int i = 0; i < RANGES; i++) {
        assert_true(got[i].lr_factor == (float)(ratio[i] * pow(0.5, power[i])));
        assert_true(got[i].weight_decay == (ratio[i] > 1 && i != 6 ? 0 : 0.5f));
    }

    const nn_param_rule by_name[] = {{"layers.1.*", 3, -1}, {"layers.*", 0, 0.25f}};
    o = (nn_param_options){.weight_decay = 0.5f, .rules = by_name, .n_rules = 2};
    nn_param_groups(&o, RANGES, ranges, got);
    const float factor[RANGES] = {1, 0, 0, 3, 3, 0, 0, 1};
    for (int i = 0; i < RANGES; i++) {
        assert_true(got[i].lr_factor == factor[i]);
        assert_true(got[i].weight_decay == (factor[i] == 0 ? 0.25f : 0.5f));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_in_double),
        cmocka_unit_test(prodigy_finds_the_distance),
        cmocka_unit_test(clipping),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(ema),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(resume_changes_no_bit),
        cmocka_unit_test(foreign_states_are_refused),
        cmocka_unit_test(memory_is_taken_at_open),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(schedules),
        cmocka_unit_test(group_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
