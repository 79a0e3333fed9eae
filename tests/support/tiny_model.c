#include "support/tiny_model.h"

#include "models/model.h"
#include "support/formula.h"
#include "support/test.h"

#include <math.h>
#include <stdlib.h>

const char *tiny_model_config(const tiny_model *o)
{
    static char text[1024];
    int stems = 1;
    for (const char *p = o->stems ? o->stems : ""; *p; p++)
        stems += *p == ',';
    snprintf(
        text, sizeof text,
        "{\"model_type\":\"bs_roformer\",\"audio\":{\"chunk_size\":%d,\"sample_rate\":%d,\"num_"
        "channels\":%d},"
        "\"model\":{\"dim\":8,\"depth\":1,\"stereo\":%s,\"num_stems\":%d,\"time_transformer_"
        "depth\":1,"
        "\"freq_transformer_depth\":1,\"linear_transformer_depth\":0,\"dim_head\":8,\"heads\":1,"
        "\"freqs_per_bands\":[8,24,32,64,129],\"stft_n_fft\":512,\"stft_hop_length\":256,\"stft_"
        "win_length\":512,"
        "\"mask_estimator_depth\":1,\"mlp_expansion_factor\":1,\"zero_dc\":false},"
        "\"training\":{\"instruments\":[%s]},\"inference\":{\"num_overlap\":2%s}}",
        o->chunk_samples ? o->chunk_samples : 16384, o->rate_hz ? o->rate_hz : 44100,
        o->mono ? 1 : 2, o->mono ? "false" : "true", stems, o->stems ? o->stems : "\"vocals\"",
        o->normalize ? ",\"normalize\":true" : "");
    return text;
}

static bool contains(const char *name, const char *part)
{
    return strstr(name, part) != NULL;
}

static float weight(const void *user, const char *name, const saw_dims *d, int64_t i)
{
    const tiny_model *o = user;
    char salted[256];
    snprintf(salted, sizeof salted, "%s%s", o->salt ? o->salt : "", name);
    if (o->nan && contains(name, "to_out") && i == 3)
        return NAN;
    if (contains(name, "freqs") && d->n == 1 && contains(name, "rotary"))
        return (float)pow(10000, -2.0 * (double)i / 8);
    if (o->identity && contains(name, "mask_estimators")) {
        /* The last layer gives [2 width]: values (re, im, ...), then gates; the mask is value *
         * sigmoid(gate). */
        int64_t half = d->d[0] / 2;
        return d->n > 1 ? 0 : i >= half ? 40 : i % 2 == 0 ? 1 : 0;
    }
    double v = test_value(salted, i), fan = 1;
    for (int k = 1; k < d->n; k++)
        fan *= (double)d->d[k];
    return (float)(contains(name, "gamma") ? 1 + 0.1 * v : d->n > 1 ? v / sqrt(fan) : 0.5 * v);
}

typedef float tiny_weight(const void *user, const char *name, const saw_dims *dims, int64_t i);

/* All parameters that the model has, by the formula, with the configuration's text in the file. */
static void write_model(saw_context *ctx, const char *path, const saw_model_spec *spec,
                        const char *text, tiny_weight *formula, const void *user)
{
    saw_graph *g;
    saw_safetensors *out;
    const saw_model_common *common = saw_model_common_of(spec);
    assert_int_equal(saw_graph_open(ctx, &g), SAW_OK);
    spec->model->record(g, spec->options,
                        saw_input(g, "mix", SAW_DIMS(1, common->channels, common->chunk_samples)));
    assert_int_equal(saw_graph_status(g), SAW_OK);
    saw_safetensors_entry *entries = calloc((size_t)saw_graph_values(g), sizeof *entries);
    int count = 0;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind != SAW_VALUE_PARAM)
            continue;
        entries[count] =
            (saw_safetensors_entry){.name = x->name, .dtype = SAW_F32, .ndim = x->dims.n};
        memcpy(entries[count++].dims, x->dims.d, sizeof x->dims.d);
    }
    const char *meta[] = {"bandsaw", text};
    assert_int_equal(saw_safetensors_create(ctx, path, entries, count, meta, text ? 1 : 0, &out),
                     SAW_OK);
    for (int e = 0; e < count; e++) {
        saw_dims d = saw_dims_of(entries[e].ndim, entries[e].dims);
        for (int64_t i = 0; i < saw_dims_count(&d); i++) {
            float x = formula(user, entries[e].name, &d, i);
            assert_int_equal(saw_safetensors_write(out, &x, sizeof x), SAW_OK);
        }
    }
    assert_int_equal(saw_safetensors_commit(out), SAW_OK);
    free(entries);
    saw_graph_close(g);
}

void tiny_model_write(const char *path, const tiny_model *o)
{
    saw_context *ctx;
    saw_config *config;
    saw_model_spec spec;
    const char *text = tiny_model_config(o);
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    assert_int_equal(saw_config_parse_json(ctx, "tiny", text, strlen(text), &config), SAW_OK);
    if (saw_model_configure(ctx, config, NULL, &spec))
        fail_msg("the tiny model: %s", saw_context_error(ctx));
    write_model(ctx, path, &spec, o->without_config ? NULL : text, weight, o);
    saw_model_spec_close(ctx, &spec);
    saw_config_free(config);
    saw_context_close(ctx);
}

/* ---- a net of convolutions ------------------------------------------------------------------- */

static const char unet_text[] =
    "{\"frame_length\":128,\"frame_step\":32,\"T\":64,\"F\":64,\"n_channels\":2,"
    "\"sample_rate\":8000,\"instrument_list\":[\"vocals\",\"drums\"],\"model\":{\"type\":"
    "\"unet.unet\",\"params\":{\"conv_activation\":\"ELU\",\"deconv_activation\":\"ELU\"}}}";

static float unet_weight(const void *user, const char *name, const saw_dims *d, int64_t i)
{
    (void)user;
    double v = test_value(name, i), fan = (double)(saw_dims_count(d) / d->d[0]);
    bool around_one = contains(name, "_var") || (contains(name, "weight") && d->n == 1);
    return (float)(around_one ? 1 + 0.3 * v : d->n > 1 ? 1.5 * v / sqrt(fan) : 0.2 * v);
}

void tiny_unet_write(const char *path)
{
    enum { LEVELS = 6, STEMS = 2 };
    static const int filters[LEVELS] = {4, 3, 5, 4, 6, 5};
    saw_context *ctx;
    saw_config *config;
    saw_model_spec spec;
    saw_checkpoint *ck;
    saw_safetensors *out;
    char names[STEMS * LEVELS][32];
    saw_safetensors_entry e[STEMS * LEVELS] = {0};
    assert_int_equal(saw_context_open(&ctx, &(saw_options){.threads = 1}), SAW_OK);
    /* a file with as many filters as wanted: its shapes are all that is read of it */
    for (int i = 0; i < STEMS * LEVELS; i++) {
        snprintf(names[i], sizeof names[i], "%d.down%d_conv.1.weight", i / LEVELS, i % LEVELS + 1);
        e[i] = (saw_safetensors_entry){
            .name = names[i], .dtype = SAW_F32, .ndim = 4, .dims = {filters[i % LEVELS], 1, 1, 1}};
    }
    assert_int_equal(saw_safetensors_create(ctx, path, e, STEMS * LEVELS, NULL, 0, &out), SAW_OK);
    for (int i = 0; i < STEMS * LEVELS; i++)
        for (int k = 0; k < filters[i % LEVELS]; k++)
            assert_int_equal(saw_safetensors_write(out, &(float){0}, sizeof(float)), SAW_OK);
    assert_int_equal(saw_safetensors_commit(out), SAW_OK);
    assert_int_equal(saw_checkpoint_open(ctx, path, &ck), SAW_OK);
    assert_int_equal(saw_config_parse_json(ctx, "unet", unet_text, strlen(unet_text), &config),
                     SAW_OK);
    if (saw_model_configure(ctx, config, ck, &spec))
        fail_msg("the tiny net: %s", saw_context_error(ctx));
    saw_checkpoint_close(ck);
    write_model(ctx, path, &spec, unet_text, unet_weight, NULL);
    saw_model_spec_close(ctx, &spec);
    saw_config_free(config);
    saw_context_close(ctx);
}
