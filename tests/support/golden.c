#include "support/golden.h"

#include "kernels/ops.h"
#include "support/formula.h"
#include "support/npy.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PATH_ROOM = 512 };

/* ---- building the case ----------------------------------------------------------------------- */

static void fill_weight(float *out, int64_t n, const char *key, const char *rule,
                        const json_t *shape)
{
    double fan = 1;
    for (size_t i = 1; i < json_array_size(shape); i++)
        fan *= (double)json_integer_value(json_array_get(shape, i));
    for (int64_t i = 0; i < n; i++) {
        double v = test_value(key, i);
        if (!strcmp(rule, "n"))
            v = 1 + 0.1 * v;
        else if (!strcmp(rule, "w"))
            v = v / sqrt(fan);
        else if (!strcmp(rule, "b"))
            v = 0.02 * v;
        else if (!strcmp(rule, "prelu"))
            v = 0.25 + 0.1 * v;
        else if (!strcmp(rule, "lscale"))
            v = 0.5 + 0.1 * v;
        else if (!strcmp(rule, "pope"))
            v = 8 * v;
        else if (!strcmp(rule, "hann"))
            v = 0.5 - 0.5 * cos(2 * M_PI * (double)i / (double)n);
        else
            fail_msg("unknown rule %s", rule);
        out[i] = (float)v;
    }
}

static void make_weights(golden_model *m)
{
    json_t *keys = json_object_get(m->meta, "keys");
    size_t n = json_array_size(keys), used = 0;
    float **data = calloc(n, sizeof *data);
    npy *buf = npz_get(m->npz, "buf");
    assert_int_equal(saw_weights_open(m->ctx, NULL, &m->weights), SAW_OK);
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(keys, i), *shape = json_array_get(row, 1);
        const char *key = json_string_value(json_array_get(row, 0)),
                   *rule = json_string_value(json_array_get(row, 2));
        saw_dims dims = {.n = (int)json_array_size(shape)};
        for (int k = 0; k < dims.n; k++)
            dims.d[k] = json_integer_value(json_array_get(shape, (size_t)k));
        int64_t count = saw_dims_count(&dims);
        data[i] = calloc((size_t)count + 1, sizeof **data);
        if (rule[0] == '=') {
            memcpy(data[i], data[atoi(rule + 1)], (size_t)count * sizeof **data);
        } else if (!strcmp(rule, "buf")) {
            memcpy(data[i], npy_f32(buf) + used, (size_t)count * sizeof **data);
            used += (size_t)count;
        } else {
            fill_weight(data[i], count, key, rule, shape);
        }
        assert_int_equal(saw_weights_set(m->weights, key, dims, data[i]), SAW_OK);
    }
    const char *key;
    json_t *values;
    json_object_foreach(json_object_get(m->meta, "weights_first4"), key, values)
    {
        size_t at = 0;
        while (strcmp(json_string_value(json_array_get(json_array_get(keys, at), 0)), key))
            at++;
        for (size_t k = 0; k < json_array_size(values); k++)
            assert_true(data[at][k] == (float)json_real_value(json_array_get(values, k)));
    }
    for (size_t i = 0; i < n; i++)
        free(data[i]);
    free(data);
}

golden_model *golden_open(const golden_case *c, int threads)
{
    char path[PATH_ROOM];
    golden_model *m = calloc(1, sizeof *m);
    saw_options options = {.threads = threads};
    assert_int_equal(saw_context_open(&m->ctx, &options), SAW_OK);
    snprintf(path, sizeof path, "%s/%s/meta.json", SAW_TEST_GOLDEN, c->name);
    json_error_t error;
    m->meta = json_load_file(path, 0, &error);
    assert_non_null(m->meta);
    snprintf(path, sizeof path, "%s/%s/golden.npz", SAW_TEST_GOLDEN, c->name);
    m->npz = npz_open(path);
    assert_non_null(m->npz);
    m->channels = (int)json_integer_value(json_object_get(m->meta, "channels"));
    m->samples = (int)json_integer_value(json_object_get(m->meta, "samples"));
    m->stems = (int)json_integer_value(json_array_get(json_object_get(m->meta, "output_shape"), 0));

    json_t *root = json_object(), *arch = json_object_get(m->meta, "arch");
    if (*c->section)
        json_object_set(root, c->section, arch);
    else
        json_object_update(root, arch);
    json_object_set_new(root, "model_type", json_string(c->model));
    char *text = json_dumps(root, 0);
    saw_config *config;
    assert_int_equal(saw_config_parse_json(m->ctx, c->name, text, strlen(text), &config), SAW_OK);
    if (saw_model_configure(m->ctx, config, NULL, &m->spec))
        fail_msg("%s: %s", c->name, saw_context_error(m->ctx));
    saw_config_free(config);
    free(text);
    json_decref(root);
    make_weights(m);
    return m;
}

void golden_close(golden_model *m)
{
    saw_weights_close(m->weights);
    saw_model_spec_close(m->ctx, &m->spec);
    npz_close(m->npz);
    json_decref(m->meta);
    saw_context_close(m->ctx);
    free(m);
}

void golden_record_on(golden_model *m, saw_graph *g, bool with_loss)
{
    saw_val mix = saw_input(g, "mix", SAW_DIMS(1, m->channels, m->samples));
    m->spec.model->record(g, m->spec.options, mix);
    if (saw_graph_status(g))
        fail_msg("%s", saw_context_error(m->ctx));
    saw_val loss = 0;
    for (int s = 0; s < m->stems && with_loss; s++) {
        char name[32];
        snprintf(name, sizeof name, "stem%d", s);
        saw_val y = saw_graph_find(g, name);
        snprintf(name, sizeof name, "target%d", s);
        saw_val part = saw_l1_loss(g, y, saw_input(g, name, saw_dims_val(g, y)), 1.0 / m->stems);
        loss = loss ? saw_add(g, loss, part) : part;
    }
    if (with_loss)
        saw_output(g, "loss", loss);
}

saw_graph *golden_record(golden_model *m, bool with_loss)
{
    saw_graph *g;
    assert_int_equal(saw_graph_open(m->ctx, &g), SAW_OK);
    golden_record_on(m, g, with_loss);
    return g;
}

static void put(saw_tensor *t, int64_t i, double v)
{
    if (t->dtype == SAW_F64)
        ((double *)t->data)[i] = v;
    else
        ((float *)t->data)[i] = (float)v;
}

static double get(const saw_tensor *t, int64_t i)
{
    return t->dtype == SAW_F64 ? ((double *)t->data)[i] : ((float *)t->data)[i];
}

void golden_fill(golden_model *m, saw_run *run)
{
    const char *prefix = json_string_value(json_object_get(m->meta, "key_prefix"));
    int rate = (int)json_integer_value(json_object_get(m->meta, "sample_rate"));
    saw_tensor mix = saw_run_named(run, "mix");
    npy *first = npz_get(m->npz, "input_first8");
    for (int c = 0; c < m->channels; c++)
        for (int64_t i = 0; i < m->samples; i++) {
            float v = test_input(prefix, c, i, rate);
            put(&mix, c * m->samples + i, v);
            if (i < 8)
                assert_float_equal(v, npy_f32(first)[c * 8 + i], 1e-7);
        }
    for (int s = 0; s < m->stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "target%d", s);
        saw_tensor t = saw_run_named(run, name);
        for (int c = 0; t.data && c < m->channels; c++)
            for (int64_t i = 0; i < t.dims[2]; i++)
                put(&t, c * t.dims[2] + i,
                    (float)(0.2 * sin(0.013 * (s + 1) * (double)i + 0.7 * c) +
                            0.1 * sin(0.31 * (double)i * (c + 1) + s)));
    }
}

/* ---- outputs and stages ---------------------------------------------------------------------- */

/* Values of a stage in the order of the golden layout. Spectra are [frame, bin, channel, re/im]
 * here and [frame, (stem,) channel, bin, re/im] there; everything else is laid out alike. */
static double *stage_values(saw_run *run, const saw_graph *g, const char *name, const char *layout,
                            int64_t size)
{
    double *out = calloc((size_t)size, sizeof *out);
    bool stems = strstr(layout, "stem") != NULL, spectrum = strstr(layout, "channel, bin") != NULL;
    char full[128];
    int64_t n_stems = 0;
    for (;; n_stems++) {
        snprintf(full, sizeof full, stems ? "%s%d" : "%s", name, (int)n_stems);
        saw_val v = saw_graph_find(g, full);
        if (!v)
            break;
        saw_tensor t = saw_run_value(run, v);
        assert_non_null(t.data);
        int64_t count = saw_tensor_count(&t);
        if (!spectrum) {
            assert_int_equal(count, size);
            bool channels =
                strstr(layout, "frame, channel") != NULL; /* [B,T,..] here, [T,B,..] there */
            int64_t B = channels ? t.dims[0] : 1, T = channels ? t.dims[1] : 1,
                    rest = count / (B * T);
            for (int64_t i = 0; i < count; i++)
                out[(i / rest % T * B + i / rest / T) * rest + i % rest] = get(&t, i);
            return out;
        }
        /* [B,T,K,C,2]; a model that takes channels as its batch has them in B */
        int64_t T = t.dims[1], K = t.dims[2], C = t.dims[0] * t.dims[3],
                all = stems ? size / (T * K * C * 2) : 1;
        for (int64_t f = 0; f < T; f++)
            for (int64_t k = 0; k < K; k++)
                for (int64_t c = 0; c < C; c++)
                    for (int r = 0; r < 2; r++) {
                        int64_t from = t.dims[0] > 1 ? ((c * T + f) * K + k) * 2 + r
                                                     : ((f * K + k) * C + c) * 2 + r;
                        int64_t to = (((f * all + n_stems) * C + c) * K + k) * 2 + r;
                        assert_true(to < size);
                        out[to] = get(&t, from);
                    }
        if (!stems)
            return out;
    }
    if (!n_stems)
        fail_msg("there is no tap %s", name);
    return out;
}

static double relative(double error, double scale)
{
    return scale > 0 ? error / scale : error;
}

static double compare(const double *got, const float *want, int64_t n)
{
    double e = 0, s = 0;
    for (int64_t i = 0; i < n; i++) {
        e += (got[i] - want[i]) * (got[i] - want[i]);
        s += (double)want[i] * want[i];
    }
    return relative(sqrt(e), sqrt(s));
}

static double worst_output(golden_model *m, saw_run *run)
{
    double worst = 0, whole = 0;
    int rows = m->stems * m->channels;
    npy *first = npz_get(m->npz, "out_first"), *last = npz_get(m->npz, "out_last");
    npy *stride = npz_get(m->npz, "out_stride97"), *l2 = npz_get(m->npz, "out_l2"),
        *probe = npz_get(m->npz, "out_probe");
    int64_t many = stride->dims[1];
    double *a = calloc((size_t)rows * 256, sizeof *a), *b = calloc((size_t)rows * 256, sizeof *b);
    double *c = calloc((size_t)(rows * many), sizeof *c);
    for (int r = 0; r < rows; r++) {
        char name[64];
        snprintf(name, sizeof name, "stem%d", r / m->channels);
        saw_tensor t = saw_run_named(run, name);
        int64_t n = t.dims[2], base = (int64_t)(r % m->channels) * n;
        assert_int_equal((n + 96) / 97, many);
        double energy = 0, p = 0;
        snprintf(name, sizeof name, "probe.output.%d", r);
        for (int64_t i = 0; i < n; i++) {
            double v = get(&t, base + i);
            energy += v * v;
            p += v * test_value(name, i);
            if (i < 256)
                a[r * 256 + i] = v;
            if (i >= n - 256)
                b[r * 256 + i - (n - 256)] = v;
            if (i % 97 == 0)
                c[r * many + i / 97] = v;
        }
        whole += energy;
        worst = fmax(worst, relative(fabs(sqrt(energy) - npy_f64(l2)[1 + r]), npy_f64(l2)[1 + r]));
        worst = fmax(worst, relative(fabs(p - npy_f64(probe)[r]), npy_f64(l2)[0]));
    }
    worst = fmax(worst, relative(fabs(sqrt(whole) - npy_f64(l2)[0]), npy_f64(l2)[0]));
    worst = fmax(worst, compare(a, npy_f32(first), rows * 256));
    worst = fmax(worst, compare(b, npy_f32(last), rows * 256));
    worst = fmax(worst, compare(c, npy_f32(stride), rows * many));
    free(a);
    free(b);
    free(c);
    return worst;
}

static double worst_stage(golden_model *m, saw_run *run, const saw_graph *g, const char **where)
{
    json_t *taps = json_object_get(m->meta, "taps");
    const double *values = npy_f64(npz_get(m->npz, "taps")),
                 *l2 = npy_f64(npz_get(m->npz, "taps_l2"));
    const double *probe = npy_f64(npz_get(m->npz, "taps_probe"));
    double worst = 0;
    *where = "none";
    for (size_t t = 0; t < json_array_size(taps); t++) {
        const json_t *tap = json_array_get(taps, t), *shape = json_object_get(tap, "shape");
        const char *name = json_string_value(json_object_get(tap, "name"));
        int64_t size = 1;
        for (size_t k = 0; k < json_array_size(shape); k++)
            size *= json_integer_value(json_array_get(shape, k));
        double *x =
            stage_values(run, g, name, json_string_value(json_object_get(tap, "layout")), size);
        char key[128];
        snprintf(key, sizeof key, "probe.tap.%s", name);
        double p = 0, e = 0, s = 0;
        for (int64_t i = 0; i < size; i++)
            p += x[i] * test_value(key, i);
        for (int j = 0; j < 64; j++) {
            double d = x[j * (size - 1) / 63] - values[t * 64 + (size_t)j];
            e += d * d;
            s += values[t * 64 + (size_t)j] * values[t * 64 + (size_t)j];
        }
        double error = fmax(relative(sqrt(e), sqrt(s)), relative(fabs(p - probe[t]), l2[t]));
        if (!(error <= worst)) {
            worst = error;
            *where = name;
        }
        free(x);
    }
    return worst;
}

static const char *const device_names[] = {"cpu", "ref32", "ref64"};

void golden_check_outputs(const golden_case *c, saw_device device)
{
    golden_model *m = golden_open(c, 2);
    for (int pinned = 0; pinned < 2;
         pinned++) { /* once as users run it, once with every stage kept */
        saw_program *p;
        saw_run *run;
        saw_program_options o = {.device = device, .all_taps = pinned};
        if (saw_program_build(golden_record(m, false), &o, &p) || saw_run_open(p, m->weights, &run))
            fail_msg("%s: %s", c->name, saw_context_error(m->ctx));
        golden_fill(m, run);
        assert_int_equal(saw_run_execute(run), SAW_OK);
        double error = worst_output(m, run), stage = 0;
        const char *where = "";
        if (pinned)
            stage = worst_stage(m, run, saw_program_graph(p), &where);
        if (pinned)
            printf("%-28s %-5s output %.1e, stage %.1e (%s)\n", c->name, device_names[device],
                   error, stage, where);
        assert_true(error < 1e-5);
        assert_true(stage < 1e-5);
        saw_run_close(run);
        saw_program_close(p);
    }
    golden_close(m);
}

/* ---- gradients ------------------------------------------------------------------------------- */

void golden_check_gradients(const golden_case *c, saw_device device)
{
    golden_model *m = golden_open(c, 2);
    saw_graph *g = golden_record(m, true);
    saw_program *p;
    saw_run *run;
    assert_true(saw_graph_train(g, "*") > 0);
    if (saw_graph_differentiate(g, saw_graph_find(g, "loss")) ||
        saw_program_build(g, &(saw_program_options){.device = device}, &p) ||
        saw_run_open(p, m->weights, &run))
        fail_msg("%s: %s", c->name, saw_context_error(m->ctx));
    golden_fill(m, run);
    saw_tensor seed = saw_run_named(run, "gradient of the loss");
    put(&seed, 0, 1);
    assert_int_equal(saw_run_execute(run), SAW_OK);
    saw_tensor loss = saw_run_named(run, "loss");
    double want_loss = npy_f64(npz_get(m->npz, "loss"))[0];
    assert_true(fabs(get(&loss, 0) - want_loss) < 1e-5 * want_loss);

    json_t *keys = json_object_get(m->meta, "keys"),
           *zero = json_object_get(m->meta, "zero_gradient_keys");
    size_t n = json_array_size(keys);
    const double *l2 = npy_f64(npz_get(m->npz, "grad_l2")),
                 *probe = npy_f64(npz_get(m->npz, "grad_probe"));
    double largest = 0, worst = 0;
    const char *where = "none";
    for (size_t i = 0; i < n; i++)
        if (!isnan(l2[i]))
            largest = fmax(largest, l2[i]);
    for (size_t i = 0; i < n; i++) {
        if (isnan(l2[i]))
            continue;
        const char *key = json_string_value(json_array_get(json_array_get(keys, i), 0));
        double *sum = NULL; /* a tensor of several names: the sum over all of them */
        int64_t count = 0;
        for (size_t j = i; j < n; j++) {
            const json_t *row = json_array_get(keys, j);
            const char *rule = json_string_value(json_array_get(row, 2));
            if (j != i && !(rule[0] == '=' && (size_t)atoi(rule + 1) == i))
                continue;
            saw_val v = saw_graph_find(g, json_string_value(json_array_get(row, 0)));
            if (j == i && !v)
                fail_msg("%s: the model has no parameter %s", c->name, key);
            saw_tensor t = saw_run_value(run, v ? saw_grad(g, v) : 0);
            if (!t.data)
                continue;
            count = saw_tensor_count(&t);
            sum = sum ? sum : calloc((size_t)count, sizeof *sum);
            for (int64_t k = 0; k < count; k++)
                sum[k] += get(&t, k);
        }
        char name[256];
        snprintf(name, sizeof name, "probe.%s", key);
        double norm = 0, pr = 0;
        for (int64_t k = 0; k < count; k++) {
            norm += sum[k] * sum[k];
            pr += sum[k] * test_value(name, k);
        }
        free(sum);
        double tolerance = 1e-7 * largest;
        bool is_zero = false;
        for (size_t k = 0; k < json_array_size(zero); k++)
            is_zero = is_zero || !strcmp(json_string_value(json_array_get(zero, k)), key);
        if (!is_zero)
            tolerance += 5e-4 * l2[i];
        double error = fmax(fabs(sqrt(norm) - l2[i]), fabs(pr - probe[i])) / tolerance;
        if (!(error <= worst)) {
            worst = error;
            where = key;
        }
    }
    printf("%-28s %-5s gradients: worst %.1e of the tolerance (%s)\n", c->name,
           device_names[device], worst, where);
    assert_true(worst < 1);
    saw_run_close(run);
    saw_program_close(p);
    golden_close(m);
}
