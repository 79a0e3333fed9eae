/*
 * test_peft.c - adapters that the `peft` package wrote: what they give attached and merged, merged
 * weights and gradients, on a compact model and on real checkpoints (large set); what is refused;
 * what is written is what was read.
 */
#include "io/pattern.h"
#include "kernels/ops.h"
#include "run/peft_file.h"
#include "support/formula.h"
#include "support/golden.h"
#include "support/golden_large.h"
#include "support/npy.h"
#include "support/test.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const golden_case stereo = {"bs_roformer_stereo2", "bs_roformer", "model"};

/* ---- a model with an adapter ----------------------------------------------------------------- */

typedef struct adapted {
    saw_context *ctx;
    saw_weights *weights;
    saw_peft *peft;
    saw_graph *g; /* of the program */
    saw_program *p;
    saw_run *run;
    int stems;
} adapted;

static void record_loss(saw_graph *g, int stems)
{
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
}

/* Attached: with the loss and the gradients of everything in the file. */
static void finish(adapted *a, bool attached)
{
    if (saw_graph_status(a->g) || saw_peft_bind(a->peft, a->g, a->weights, "the model"))
        fail_msg("%s", saw_context_error(a->ctx));
    if (attached) {
        record_loss(a->g, a->stems);
        const char *key, *name;
        for (int i = 0; saw_peft_tensor(a->peft, i, &key, &name); i++)
            assert_int_equal(saw_graph_train(a->g, name), 1);
        assert_int_equal(saw_graph_differentiate(a->g, saw_graph_find(a->g, "loss")), SAW_OK);
    }
    if (saw_program_build(a->g, &(saw_program_options){.all_taps = !attached}, &a->p) ||
        saw_run_open(a->p, a->weights, &a->run))
        fail_msg("%s", saw_context_error(a->ctx));
    if (attached)
        *(float *)saw_run_named(a->run, "gradient of the loss").data = 1;
}

static void adapted_close(adapted *a)
{
    saw_run_close(a->run);
    saw_program_close(a->p);
    saw_peft_close(a->peft);
}

/* Stems one after another. */
static float *outputs(const adapted *a, int64_t *count)
{
    float *out = NULL;
    *count = 0;
    for (int s = 0; s < a->stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "stem%d", s);
        saw_tensor y = saw_run_named(a->run, name);
        int64_t n = saw_tensor_count(&y);
        out = realloc(out, (size_t)(*count + n) * sizeof *out);
        memcpy(out + *count, y.data, (size_t)n * sizeof *out);
        *count += n;
    }
    return out;
}

/* ---- the compact set ------------------------------------------------------------------------- */

static const char *const here[] = {"lora",
                                   "rslora",
                                   "dora",
                                   "pissa",
                                   "lora_bias",
                                   "lora_bias_lora_only",
                                   "lora_modules_to_save",
                                   "lora_patterns",
                                   "oft_cayley_exact",
                                   "oft_cayley_neumann",
                                   "ia3",
                                   "road",
                                   "road_2",
                                   "road_4"};
enum { HERE = sizeof here / sizeof *here };

static char *compact_path(const char *folder, const char *file)
{
    char *path;
    assert_true(asprintf(&path, "%s/peft/%s/%s", SAW_TEST_GOLDEN, folder, file) > 0);
    return path;
}

static adapted compact_open(golden_model *m, const char *path, bool attached)
{
    adapted a = {.ctx = m->ctx, .weights = m->weights, .stems = m->stems};
    if (saw_peft_open(m->ctx, path, &a.peft))
        fail_msg("%s", saw_context_error(m->ctx));
    saw_peft_set(a.peft, attached, 1);
    assert_int_equal(saw_graph_open(m->ctx, &a.g), SAW_OK);
    nn_adapt(a.g, saw_peft_adapters(a.peft));
    golden_record_on(m, a.g, false);
    finish(&a, attached);
    golden_fill(m, a.run);
    assert_int_equal(saw_run_execute(a.run), SAW_OK);
    return a;
}

static double output_error(npz *z, const char *prefix, const float *y, int64_t n)
{
    char name[64];
    double worst = 0;
    static const char *const parts[] = {"first256", "last256", "stride97"};
    for (int k = 0; k < 3; k++) {
        snprintf(name, sizeof name, "%s_%s", prefix, parts[k]);
        npy *want = npz_get(z, name);
        assert_non_null(want);
        int64_t rows = want->dims[0], width = want->dims[1], samples = n / rows;
        float *got = calloc((size_t)want->count, sizeof *got);
        for (int64_t i = 0; i < want->count; i++) {
            int64_t at = i % width;
            got[i] = y[i / width * samples + (k == 0 ? at : k == 1 ? samples - 256 + at : 97 * at)];
        }
        worst = fmax(worst, test_relative_l2(got, npy_f32(want), (size_t)want->count));
        free(got);
    }
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)y[i] * y[i];
    snprintf(name, sizeof name, "%s_l2", prefix);
    double l2 = npy_f64(npz_get(z, name))[0];
    return fmax(worst, fabs(sqrt(sum) - l2) / l2);
}

static double number(const json_t *o, const char *key)
{
    assert_non_null(json_object_get(o, key));
    return json_number_value(json_object_get(o, key));
}

/* Norm and probe of every gradient, of some all numbers. */
static double gradient_error(const adapted *a, const json_t *meta, npz *z)
{
    const json_t *all = json_object_get(meta, "gradients");
    const char *key, *name;
    double worst = 0;
    int seen = 0;
    for (int i = 0; saw_peft_tensor(a->peft, i, &key, &name); i++, seen++) {
        const json_t *want = json_object_get(all, key);
        assert_non_null(want);
        saw_tensor d = saw_run_value(a->run, saw_grad(a->g, saw_graph_find(a->g, name)));
        char text[400];
        snprintf(text, sizeof text, "probe.%s", key);
        double l2 = 0, probe = 0, norm = number(want, "l2");
        for (int64_t k = 0; k < saw_tensor_count(&d); k++) {
            double v = ((float *)d.data)[k];
            l2 += v * v;
            probe += v * test_value(text, k);
        }
        worst = fmax(worst, fabs(sqrt(l2) - norm) / norm);
        worst = fmax(worst, fabs(probe - number(want, "probe")) / norm);
        snprintf(text, sizeof text, "grad.%s", key);
        npy *whole = npz_get(z, text);
        if (whole) {
            assert_int_equal(whole->count, saw_tensor_count(&d));
            worst = fmax(worst, test_relative_l2(d.data, npy_f32(whole), (size_t)whole->count));
        }
    }
    assert_int_equal(seen, json_object_size(all));
    return worst;
}

/* Of the change of every weight: norm and probe, relative to the merged weight. */
static double merged_error(adapted *a, golden_model *base, const json_t *meta)
{
    const char *key;
    json_t *want;
    double worst = 0;
    json_object_foreach(json_object_get(meta, "merged_weights"), key, want)
    {
        char text[400];
        snprintf(text, sizeof text, "%s.merged", key);
        saw_val tap = saw_graph_find(a->g, text), param = saw_graph_find(a->g, key);
        saw_dims dims = saw_dims_val(a->g, param);
        size_t n = (size_t)saw_dims_count(&dims);
        float *w = calloc(n, sizeof *w), *merged = calloc(n, sizeof *merged);
        assert_int_equal(saw_weights_read(base->weights, key, &dims, w), SAW_OK);
        if (tap)
            memcpy(merged, saw_run_value(a->run, tap).data, n * sizeof *merged);
        else /* replaced */
            assert_int_equal(saw_weights_read(a->weights, key, &dims, merged), SAW_OK);
        snprintf(text, sizeof text, "probe.%s", key);
        double change = 0, all = 0, probe = 0, norm = number(want, "l2_merged");
        for (size_t i = 0; i < n; i++) {
            double d = (double)merged[i] - w[i];
            change += d * d;
            all += (double)merged[i] * merged[i];
            probe += d * test_value(text, (int64_t)i);
        }
        worst = fmax(worst, fabs(sqrt(change) - number(want, "l2_of_change")) / norm);
        worst = fmax(worst, fabs(probe - number(want, "probe_of_change")) / norm);
        worst = fmax(worst, fabs(sqrt(all) - norm) / norm);
        free(w);
        free(merged);
    }
    return worst;
}

static void check_compact(const char *folder)
{
    char *path = compact_path(folder, "meta.json");
    json_t *meta = json_load_file(path, 0, NULL);
    assert_non_null(meta);
    free(path);
    path = compact_path(folder, "golden.npz");
    npz *z = npz_open(path);
    free(path);
    path = compact_path(folder, "");
    golden_model *m = golden_open(&stereo, 2), *other = golden_open(&stereo, 2),
                 *base = golden_open(&stereo, 2);
    adapted attached = compact_open(m, path, true), merged = compact_open(other, path, false);
    int64_t n;
    float *y = outputs(&attached, &n), *x = outputs(&merged, &n);
    double out = output_error(z, "out", y, n), out_merged = output_error(z, "merged", x, n);
    double gradients = gradient_error(&attached, meta, z),
           weights = merged_error(&merged, base, meta);
    double db = test_snr_db(x, y, (size_t)n);
    print_message("%-22s output %.1e, merged %.1e (%.0f dB), weights %.1e, gradients %.1e\n",
                  folder, out, out_merged, db, weights, gradients);
    assert_true(out < 1e-5 && out_merged < 1e-5);
    assert_true(weights < 2e-7 && gradients < 5e-4);
    assert_true(db >= 100);
    free(x);
    free(y);
    adapted_close(&attached);
    adapted_close(&merged);
    golden_close(m);
    golden_close(other);
    golden_close(base);
    npz_close(z);
    json_decref(meta);
    free(path);
}

static void compact(void **state)
{
    (void)state;
    for (int i = 0; i < HERE; i++)
        check_compact(here[i]);
}

/* PiSSA without its start values: by our own decomposition, as exact as peft's in float. */
static void own_decomposition(void **state)
{
    (void)state;
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors"};
    char *folder = test_temp_folder(), link[600];
    for (int i = 0; i < 2; i++) {
        char *file = compact_path("pissa", files[i]);
        snprintf(link, sizeof link, "%s/%s", folder, files[i]);
        assert_int_equal(symlink(file, link), 0);
        free(file);
    }
    char *path = compact_path("pissa", "golden.npz");
    npz *z = npz_open(path);
    golden_model *m = golden_open(&stereo, 2);
    adapted a = compact_open(m, folder, false);
    int64_t n;
    float *y = outputs(&a, &n);
    double error = output_error(z, "merged", y, n);
    print_message("pissa, own decomposition: %.1e\n", error);
    assert_true(error < 1e-5);
    free(y);
    adapted_close(&a);
    golden_close(m);
    npz_close(z);
    free(path);
    test_remove_folder(folder);
}

static void refused_by_name(void **state)
{
    (void)state;
    static const char *const others[][2] = {{"boft", "BOFT"},   {"boft_factor2", "BOFT"},
                                            {"loha", "LOHA"},   {"lokr", "LOKR"},
                                            {"shira", "SHIRA"}, {"vera", "VERA"}};
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char *path = compact_path(others[i][0], "");
        saw_peft *p;
        assert_int_equal(saw_peft_open(ctx, path, &p), SAW_ERR_UNSUPPORTED);
        assert_null(p);
        assert_non_null(strstr(saw_context_error(ctx), others[i][1]));
        free(path);
    }
    saw_context_close(ctx);
}

/* ---- other models, strange files ------------------------------------------------------------- */

static const golden_case mel = {"mel_band_roformer_mono2", "mel_band_roformer", "model"};

static void another_model(void **state)
{
    (void)state;
    golden_model *m = golden_open(&mel, 1);
    char *path = compact_path("lora", "");
    saw_peft *p;
    saw_graph *g;
    assert_int_equal(saw_peft_open(m->ctx, path, &p), SAW_OK);
    assert_int_equal(saw_graph_open(m->ctx, &g), SAW_OK);
    nn_adapt(g, saw_peft_adapters(p));
    golden_record_on(m, g, false);
    assert_int_equal(saw_peft_bind(p, g, m->weights, "mel.ckpt"), SAW_ERR_SHAPE);
    const char *error = saw_context_error(m->ctx);
    print_message("%s\n", error);
    assert_non_null(strstr(error, "mel.ckpt"));
    assert_non_null(strstr(error, "lora_A.weight ["));
    saw_graph_close(g);
    saw_peft_close(p);
    golden_close(m);
    free(path);
}

static void put_file(const char *folder, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    fclose(f);
}

/* The lora folder with another configuration. */
static void unknown_settings(void **state)
{
    (void)state;
    static const struct {
        const char *config, *word;
    } bad[] = {{"{\"peft_type\": \"LORA\", \"use_qalora\": true}", "use_qalora"},
               {"{\"peft_type\": \"LORA\", \"something_new\": 3}", "something_new"},
               {"{\"peft_type\": \"LORA\", \"fan_in_fan_out\": true}", "fan_in_fan_out"},
               {"{\"peft_type\": \"LORA\", \"init_lora_weights\": \"olora\"}", "olora"},
               {"{\"peft_type\": \"LORA\", \"alpha_pattern\": {\"(a\": 3}}", "pattern"},
               {"{\"peft_type\": \"LORA\", \"use_dora\": true, \"lora_bias\": true}", "lora_bias"},
               {"{}", "(none)"}};
    saw_context *ctx;
    saw_peft *p;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    char *folder = test_temp_folder(), link[600],
         *weights = compact_path("lora", "adapter_model.safetensors");
    snprintf(link, sizeof link, "%s/adapter_model.safetensors", folder);
    assert_int_equal(symlink(weights, link), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put_file(folder, "adapter_config.json", bad[i].config);
        assert_true(saw_peft_open(ctx, folder, &p) < 0);
        if (!strstr(saw_context_error(ctx), bad[i].word))
            fail_msg("%s", saw_context_error(ctx));
    }
    put_file(folder, "adapter_config.json",
             "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"lora_dropout\": 0.1}");
    assert_int_equal(saw_peft_open(ctx, link, &p), SAW_OK); /* by the weights' own name */
    saw_peft_close(p);
    unlink(link);
    put_file(folder, "adapter_model.safetensors", "not a checkpoint");
    assert_true(saw_peft_open(ctx, folder, &p) < 0);
    test_remove_folder(folder);
    free(weights);
    saw_context_close(ctx);
}

static void patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {{"to_qkv", "to_qkv", true},
                 {"to_qkv", "to_qkv.0", false},
                 {"layers\\.\\d+\\.0", "layers.12.0", true},
                 {"layers\\.\\d+\\.0", "layers.x.0", false},
                 {"(.*\\.)?(net.1)", "layers.0.net.1", true},
                 {"(.*\\.)?(net.1)", "layers.0.anet.1", false},
                 {"(.*\\.)?(^a\\.b)", "a.b", true},
                 {"(.*\\.)?(^a\\.b)", "x.a.b", false},
                 {"a|bc|d*", "bc", true},
                 {"a|bc|d*", "ddd", true},
                 {"a|bc|d*", "", true},
                 {"a|bc|d*", "ab", false},
                 {"(?:x(1|4)){2,3}", "x1x4", true},
                 {"(?:x(1|4)){2,3}", "x1", false},
                 {"(?:x(1|4)){2,3}", "x1x1x4x4", false},
                 {"a{0,2}b+?", "aabb", true},
                 {"a{0,2}b+", "aaab", false},
                 {"a{2,}", "a", false},
                 {"a{2,}", "aaaa", true},
                 {"a{0}b", "b", true},
                 {"a{0}b", "ab", false},
                 {"[^.]+\\.[a-c_]\\w$", "xyz.bQ", true},
                 {"[^.]+\\.[a-c_]\\w$", "x.y.bQ", false},
                 {"((a|b)*c|(d|e)+f)*g", "abcdefcg", true},
                 {"((a|b)*c|(d|e)+f)*g", "abcdecg", false},
                 {"(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaac", false}};
    static const char *const bad[] = {
        "(a", "a)", "[a", "*a", "\\1", "(?=a)", "a{x}", "a{9999}", "(((a{200}){200}){200})"};
    saw_context *ctx;
    saw_pattern *p;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(saw_pattern_open(ctx, cases[i].pattern, &p), SAW_OK);
        if (saw_pattern_matches(p, cases[i].text) != cases[i].matches)
            fail_msg("%s and %s", cases[i].pattern, cases[i].text);
        saw_pattern_close(p);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (saw_pattern_open(ctx, bad[i], &p) != SAW_ERR_FORMAT)
            fail_msg("%s", bad[i]);
    saw_context_close(ctx);
}

/* ---- writing --------------------------------------------------------------------------------- */

static saw_status read_weight(void *user, const char *name, const saw_dims *dims, float *out)
{
    return saw_weights_read(user, name, dims, out);
}

/* What was read, written, read again: the same output to the bit; of PiSSA, whose file then is
 * LoRA of twice the rank, to the accuracy of float. */
static void written_again(void **state)
{
    (void)state;
    for (int i = 0; i < HERE; i++) {
        golden_model *m = golden_open(&stereo, 2), *again = golden_open(&stereo, 2);
        char *path = compact_path(here[i], ""), *folder = test_temp_folder(), out[600];
        adapted a = compact_open(m, path, true);
        snprintf(out, sizeof out, "%s/a/b", folder);
        if (saw_peft_write(m->ctx, out,
                           &(saw_peft_save){.graph = a.g,
                                            .base = "base.ckpt",
                                            .fingerprint = "0123456789abcdef",
                                            .read = read_weight,
                                            .user = m->weights}))
            fail_msg("%s", saw_context_error(m->ctx));
        adapted b = compact_open(again, out, true);
        int64_t n;
        float *x = outputs(&a, &n), *y = outputs(&b, &n);
        if (!strcmp(here[i], "pissa"))
            assert_true(test_snr_db(y, x, (size_t)n) > 110);
        else
            assert_memory_equal(x, y, (size_t)n * sizeof *x);
        assert_string_equal(saw_peft_base(b.peft), "base.ckpt");
        assert_string_equal(saw_peft_fingerprint(b.peft), "0123456789abcdef");
        free(x);
        free(y);
        adapted_close(&a);
        adapted_close(&b);
        golden_close(m);
        golden_close(again);
        free(path);
        test_remove_folder(folder);
    }
}

/* ---- the large set --------------------------------------------------------------------------- */

enum { SAMPLES = 11025 };

static const struct {
    const char *folder;
    bool bsrnn, gradients;
} large[] = {{"lora", false, true},
             {"rslora", false, true},
             {"dora", false, true},
             {"lora_all_linear", false, true},
             {"lora_bias", false, true},
             {"lora_bsrnn", true, true},
             {"lora_rnn_parameters", true, true},
             {"lora_fa_like", false, true},
             {"lora_list_patterns", false, true},
             {"lora_modules_to_save", false, true},
             {"pissa", false, true},
             {"olora", false, true},
             {"pissa_converted", false, false},
             {"olora_converted", false, false},
             {"oft_cayley", false, true},
             {"oft_cayley_neumann", false, true},
             {"oft_shared_terms", false, true},
             {"coft", false, true},
             {"ia3", false, true},
             {"road_1", false, true},
             {"road_2", false, true},
             {"road_4", false, true}};
enum { LARGE = sizeof large / sizeof *large };

static saw_tensor find_merged(void *user, const char *name)
{
    const adapted *a = user;
    char full[300];
    snprintf(full, sizeof full, "%s.merged", name);
    saw_val v = saw_graph_find(a->g, full);
    saw_dims dims = saw_dims_val(a->g, saw_graph_find(a->g, name));
    const float *own;
    if (v)
        return saw_run_value(a->run, v);
    if (saw_weights_dense(a->weights, name, &dims, &own)) /* replaced */
        fail_msg("%s: %s", name, saw_context_error(a->ctx));
    saw_tensor t = {.data = (void *)own, .ndim = dims.n};
    memcpy(t.dims, dims.d, sizeof t.dims);
    return t;
}

static saw_tensor find_gradient(void *user, const char *wanted)
{
    const adapted *a = user;
    const char *key, *name;
    for (int i = 0; saw_peft_tensor(a->peft, i, &key, &name); i++)
        if (!strcmp(key, wanted))
            return saw_run_value(a->run, saw_grad(a->g, saw_graph_find(a->g, name)));
    fail_msg("there is no tensor %s", wanted);
    return (saw_tensor){0};
}

static double check_large(int k, bool attached, float **out)
{
    char folder[128], where[256] = "";
    const char *base = large[k].bsrnn ? "bsrnn_magron" : "bs_roformer_stereo2";
    snprintf(folder, sizeof folder, "peft_bs_roformer_stereo2/%s", large[k].folder);
    char *path = golden_large_path(base, "model.ckpt");
    adapted a = {0};
    saw_separator *s;
    assert_int_equal(saw_context_open(&a.ctx, &(saw_options){.threads = 2}), SAW_OK);
    assert_int_equal(saw_separator_open(a.ctx, path, NULL, &s), SAW_OK);
    free(path);
    path = golden_large_path(folder, "");
    if (saw_peft_open(a.ctx, path, &a.peft))
        fail_msg("%s", saw_context_error(a.ctx));
    free(path);
    saw_peft_set(a.peft, attached, 1);
    saw_weight_source source = saw_separator_source(s);
    assert_int_equal(saw_weights_open(a.ctx, &source, &a.weights), SAW_OK);
    assert_int_equal(saw_graph_open(a.ctx, &a.g), SAW_OK);
    nn_adapt(a.g, saw_peft_adapters(a.peft));
    const saw_model_common *common = saw_model_common_of(saw_separator_spec(s));
    a.stems = common->stems;
    saw_separator_spec(s)->model->record(
        a.g, saw_separator_spec(s)->options,
        saw_input(a.g, "mix", SAW_DIMS(1, common->channels, SAMPLES)));
    finish(&a, attached);
    int channels;
    int64_t samples, n;
    float *input = golden_large_input(base, &channels, &samples);
    for (int c = 0; c < channels; c++)
        memcpy((float *)saw_run_named(a.run, "mix").data + c * SAMPLES, input + c * samples,
               SAMPLES * sizeof *input);
    free(input);
    for (int i = 0; i < a.stems && attached; i++) {
        char name[32];
        snprintf(name, sizeof name, "target%d", i);
        for (int j = 0; j < channels * SAMPLES; j++)
            ((float *)saw_run_named(a.run, name).data)[j] =
                golden_large_target(i, j / SAMPLES, j % SAMPLES);
    }
    assert_int_equal(saw_run_execute(a.run), SAW_OK);
    *out = outputs(&a, &n);
    path = golden_large_path(folder, "output.npy");
    npy *want = npy_load(path);
    free(path);
    assert_int_equal(want->count, n);
    double error = test_relative_l2(*out, npy_f32(want), (size_t)n), worst = 0;
    npy_free(want);
    path = golden_large_path(folder, attached ? "grads_l1.npz" : "merged.npz");
    if (large[k].gradients)
        worst = golden_large_worst(path, attached ? find_gradient : find_merged, &a, where);
    free(path);
    print_message("%-22s %s: output %.1e, %s %.1e (%s)\n", large[k].folder,
                  attached ? "attached" : "merged", error, attached ? "gradients" : "weights",
                  worst, where);
    assert_true(error < 2e-5);
    assert_true(worst < (attached ? 1e-3 : 2e-6));
    adapted_close(&a);
    saw_weights_close(a.weights);
    saw_separator_close(s);
    saw_context_close(a.ctx);
    return (double)n;
}

static void large_set(void **state)
{
    (void)state;
    if (!golden_large_there(LARGE))
        skip();
    for (int k = 0; k < LARGE; k++) {
        float *x, *y;
        size_t n = (size_t)check_large(k, true, &x);
        check_large(k, false, &y);
        assert_true(test_relative_l2(x, y, n) < 2e-5);
        free(x);
        free(y);
    }
}

static void large_refused(void **state)
{
    (void)state;
    static const char *const others[][2] = {
        {"boft", "BOFT"}, {"hra", "HRA"},        {"ln_tuning", "LN_TUNING"},  {"loha", "LOHA"},
        {"lokr", "LOKR"}, {"miss", "MISS"},      {"shira", "SHIRA"},          {"vblora", "VBLORA"},
        {"vera", "VERA"}, {"lokr_both", "LOKR"}, {"boft_two_factors", "BOFT"}};
    if (!golden_large_there(sizeof others / sizeof *others))
        skip();
    saw_context *ctx;
    assert_int_equal(saw_context_open(&ctx, NULL), SAW_OK);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char folder[128];
        snprintf(folder, sizeof folder, "peft_bs_roformer_stereo2/%s", others[i][0]);
        char *path = golden_large_path(folder, "");
        saw_peft *p;
        assert_int_equal(saw_peft_open(ctx, path, &p), SAW_ERR_UNSUPPORTED);
        assert_non_null(strstr(saw_context_error(ctx), others[i][1]));
        free(path);
    }
    saw_context_close(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compact),          cmocka_unit_test(own_decomposition),
        cmocka_unit_test(refused_by_name),  cmocka_unit_test(another_model),
        cmocka_unit_test(unknown_settings), cmocka_unit_test(patterns),
        cmocka_unit_test(written_again),    cmocka_unit_test(large_set),
        cmocka_unit_test(large_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
