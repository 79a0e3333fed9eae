/*
 * roformer_config.c - the options of BS-RoFormer and Mel-Band RoFormer: from the configurations of
 * the MSST project, or from names and shapes alone.
 *
 * Shapes tell width, depths, heads, bands, channels, stems and the mask network. They do not tell
 * the hop, the window, zero_dc, skip connections and stem names: for checkpoints whose shapes are
 * known from public configurations these come from the table below, else they are the constructor's
 * defaults; either way they are said to be assumed.
 */
#include "models/roformer.h"

#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(roformer_options, member)

/* Every number is capped far above any real model, so that a hostile configuration is refused, not
 * tried. */
static const saw_option options_table[] = {
    {"dim", SAW_OPTION_INT, AT(dim), 1, 8192, 0},
    {"depth", SAW_OPTION_INT, AT(depth), 1, 128, 0},
    {"stereo", SAW_OPTION_BOOL, AT(stereo), 0, 0, 0},
    {"num_stems", SAW_OPTION_INT, AT(common.stems), 1, SAW_MAX_STEMS, 0},
    {"time_transformer_depth", SAW_OPTION_INT, AT(time_depth), 1, 32, 0},
    {"freq_transformer_depth", SAW_OPTION_INT, AT(freq_depth), 1, 32, 0},
    {"linear_transformer_depth", SAW_OPTION_INT, AT(linear_depth), 0, 32, 0},
    {"freqs_per_bands", SAW_OPTION_INTS, AT(freqs_per_bands), 1, 65536, AT(bands)},
    {"num_bands", SAW_OPTION_INT, AT(bands), 1, SAW_MAX_BANDS, 0},
    {"sample_rate", SAW_OPTION_INT, AT(mel_rate_hz), 1000, 768000, 0},
    {"dim_head", SAW_OPTION_INT, AT(dim_head), 2, 1024, 0},
    {"heads", SAW_OPTION_INT, AT(heads), 1, 256, 0},
    {"stft_n_fft", SAW_OPTION_INT, AT(n_fft), 16, 65536, 0},
    {"stft_hop_length", SAW_OPTION_INT, AT(hop), 1, 65536, 0},
    {"stft_win_length", SAW_OPTION_INT, AT(win), 16, 65536, 0},
    {"stft_normalized", SAW_OPTION_BOOL, AT(stft_normalized), 0, 0, 0},
    {"zero_dc", SAW_OPTION_BOOL, AT(zero_dc), 0, 0, 0},
    {"mask_estimator_depth", SAW_OPTION_INT, AT(mask_depth), 1, 16, 0},
    {"mlp_expansion_factor", SAW_OPTION_INT, AT(mlp_expansion), 1, 64, 0},
    {"skip_connection", SAW_OPTION_BOOL, AT(skip), 0, 0, 0},
    {"use_pope", SAW_OPTION_BOOL, AT(pope), 0, 0, 0},
    {"match_input_audio_length", SAW_OPTION_BOOL, AT(match_length), 0, 0, 0},
    {"use_shared_bias", SAW_OPTION_IGNORED, 0, 0, 0, 0}, /* the tensors themselves tell */
    {"attn_dropout", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"ff_dropout", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"flash_attn", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"sage_attention", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"use_torch_checkpoint", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"dim_freqs_in", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"multi_stft_resolution_loss_weight", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"multi_stft_resolutions_window_sizes", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"multi_stft_hop_size", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"multi_stft_normalized", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {0},
};

/* 24 bands of 2 bins, 12 of 4, 8 each of 12, 24 and 48, then 128 and 129: the 1025 bins of n_fft
 * 2048. */
static void default_bands(roformer_options *o)
{
    static const struct {
        int count, width;
    } runs[] = {{24, 2}, {12, 4}, {8, 12}, {8, 24}, {8, 48}, {1, 128}, {1, 129}};
    o->bands = 0;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++)
        for (int k = 0; k < runs[i].count; k++)
            o->freqs_per_bands[o->bands++] = runs[i].width;
}

/* The defaults of the constructors in the MSST project. */
static void common_defaults(roformer_options *o)
{
    o->common.stems = 1;
    o->common.rate_hz = 44100;
    o->common.overlap = 2;
    o->time_depth = o->freq_depth = 2;
    o->dim_head = 64;
    o->heads = 8;
    o->n_fft = 2048;
    o->hop = 512;
    o->win = 2048;
    o->zero_dc = true;
    o->mlp_expansion = 4;
    o->mel_rate_hz = 44100;
}

static void bs_defaults(void *options)
{
    roformer_options *o = options;
    common_defaults(o);
    o->mask_depth = 2;
    default_bands(o);
}

static void mel_defaults(void *options)
{
    roformer_options *o = options;
    common_defaults(o);
    o->mel = true;
    o->mask_depth = 1;
    o->bands = 60;
}

static bool is_roformer(const saw_checkpoint *ck)
{
    return saw_shape_has(ck, "band_split.to_features.0.0.gamma") &&
           saw_shape_has(ck, "mask_estimators.0.to_freqs.0.0.0.weight");
}

static bool bs_recognise(const saw_checkpoint *ck)
{
    return is_roformer(ck) && saw_shape_has(ck, "final_norm.gamma");
}

static bool mel_recognise(const saw_checkpoint *ck)
{
    return is_roformer(ck) && !saw_shape_has(ck, "final_norm.gamma");
}

static bool bs_claims(const saw_config *config)
{
    return saw_config_find(config, "model.freqs_per_bands") != NULL;
}

static bool mel_claims(const saw_config *config)
{
    return saw_config_find(config, "model.num_bands") != NULL;
}

/* ---- inference from shapes ------------------------------------------------------------------- */

typedef struct known {
    const char *what; /* public checkpoints of these shapes */
    bool mel;
    int dim, depth, stems, n_fft, mask_depth, expansion;
    int hop;
    int64_t chunk;
    bool skip;
    const char *stem_names; /* comma-separated */
} known;

/* Public configurations by shape (docs/models.md lists their sources). */
static const known known_table[] = {
    {"viperx ep_317 and ep_368", false, 512, 12, 1, 2048, 2, 4, 441, 352800, false, "vocals"},
    {"viperx ep_937", false, 384, 12, 1, 2048, 2, 4, 512, 131584, false, "other"},
    {"MSST MUSDB18 ep_17", false, 384, 8, 4, 2048, 2, 2, 441, 485100, false,
     "vocals,bass,drums,other"},
    {"BS-Roformer-SW", false, 256, 12, 6, 2048, 2, 4, 512, 588800, false,
     "bass,drums,other,vocals,guitar,piano"},
    {"resurrection", false, 256, 12, 1, 2048, 2, 4, 512, 785920, false, "vocals"},
    {"LargeV1", false, 512, 16, 1, 2048, 2, 4, 441, 352800, false, "vocals"},
    {"chorus", false, 384, 8, 2, 2048, 2, 4, 441, 352800, false, "male,female"},
    {"deverb", false, 256, 8, 1, 2048, 2, 4, 512, 352768, false, "noreverb"},
    {"Kim's vocal model and its finetunes", true, 384, 6, 1, 2048, 2, 4, 441, 352800, false,
     "vocals"},
    {"becruily's two-stem models", true, 384, 6, 2, 2048, 2, 4, 441, 485100, false,
     "vocals,instrumental"},
    {"viperx ep_3005", true, 384, 12, 1, 2048, 2, 4, 441, 352800, false, "vocals"},
    {"big_beta5e", true, 384, 6, 1, 2048, 3, 4, 441, 485100, false, "vocals"},
    {"aspiration", true, 256, 8, 2, 2048, 2, 4, 441, 352800, false, "aspiration,other"},
    {"aname 4-stem large", true, 384, 8, 4, 4096, 2, 4, 882, 661500, true,
     "drums,bass,other,vocals"},
    {"aname 4-stem xl", true, 512, 12, 4, 4096, 2, 4, 882, 661500, true, "drums,bass,other,vocals"},
};

/* Mel tables are tried until one gives the widths that the checkpoint has. */
static bool find_mel_table(saw_context *ctx, roformer_options *o, const int64_t *din)
{
    static const int rates[] = {44100, 48000, 32000, 24000, 22050, 16000};
    static const int ffts[] = {2048, 4096, 1024, 8192, 512, 1536, 3072, 6144};
    for (size_t r = 0; r < sizeof rates / sizeof *rates; r++)
        for (size_t f = 0; f < sizeof ffts / sizeof *ffts; f++)
            for (int channels = 2; channels >= 1; channels--) {
                if (saw_bands_mel(ctx, rates[r], ffts[f], o->bands, o->band))
                    continue;
                int b = 0;
                while (b < o->bands && din[b] == 2 * channels * (int64_t)o->band[b].width)
                    b++;
                if (b < o->bands)
                    continue;
                o->mel_rate_hz = o->common.rate_hz = rates[r];
                o->n_fft = ffts[f];
                o->stereo = channels == 2;
                return true;
            }
    return false;
}

/* Split by widths: an odd number of bins (n_fft / 2 + 1) tells mono from stereo. */
static bool find_split_table(roformer_options *o, const int64_t *din)
{
    int64_t total = 0;
    for (int b = 0; b < o->bands; b++)
        total += din[b];
    int64_t channels = total / 2 % 2 ? 1 : 2, bins = total / (2 * channels);
    if (total % (2 * channels) || bins < 9 || bins > 32769)
        return false;
    o->stereo = channels == 2;
    o->n_fft = (int)(2 * (bins - 1));
    for (int b = 0; b < o->bands; b++) {
        if (din[b] % (2 * channels))
            return false;
        o->freqs_per_bands[b] = din[b] / (2 * channels);
    }
    return true;
}

static const known *find_known(const roformer_options *o)
{
    for (size_t i = 0; i < sizeof known_table / sizeof *known_table; i++) {
        const known *k = &known_table[i];
        if (k->mel == o->mel && k->dim == o->dim && k->depth == o->depth &&
            k->stems == o->common.stems && k->n_fft == o->n_fft && k->mask_depth == o->mask_depth &&
            k->expansion == o->mlp_expansion && o->stereo && !o->linear_depth && !o->pope)
            return k;
    }
    return NULL;
}

static void assume_rest(roformer_options *o, saw_assumed *assumed)
{
    const known *k = find_known(o);
    int bins_hop = o->n_fft == 2048 ? 441 : o->n_fft == 4096 ? 882 : o->n_fft / 4;
    o->hop = k ? k->hop : bins_hop;
    o->win = o->n_fft;
    o->skip = k && k->skip;
    o->common.chunk_samples = k ? k->chunk : 8 * (int64_t)o->common.rate_hz / o->hop * o->hop;
    char why[96];
    snprintf(why, sizeof why, k ? "as in %s" : "the usual value", k ? k->what : "");
    saw_assume(assumed, "hop %d (%s)", o->hop, why);
    saw_assume(assumed, "window %d, not normalised, skip connections %s, zero_dc true (%s)", o->win,
               o->skip ? "on" : "off", why);
    if (!o->mel)
        saw_assume(assumed, "sample rate %d Hz", o->common.rate_hz);
    if (k) {
        const char *at = k->stem_names;
        for (int i = 0; i < o->common.stems; i++) {
            size_t n = strcspn(at, ",");
            snprintf(o->common.stem_names[i], SAW_STEM_NAME_ROOM, "%.*s", (int)n, at);
            at += n + (at[n] == ',');
        }
    }
    saw_model_name_stems(&o->common, 0, NULL);
    char text[128] = "";
    for (int i = 0; i < o->common.stems; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", i ? ", " : "",
                 o->common.stem_names[i]);
    saw_assume(assumed, "stems %s (%s)", text, k ? why : "no names are in the file");
}

static saw_status infer(saw_context *ctx, const saw_checkpoint *ck, void *options,
                        saw_assumed *assumed)
{
    roformer_options *o = options;
    int64_t din[SAW_MAX_BANDS];
    o->bands = saw_shape_count(ck, SAW_MAX_BANDS, "band_split.to_features.", ".0.gamma");
    for (int b = 0; b < o->bands; b++)
        din[b] = saw_shape_dim(ck, 0, "band_split.to_features.%d.0.gamma", b);
    o->dim = (int)saw_shape_dim(ck, 0, "band_split.to_features.0.1.weight");
    int first = saw_shape_has(ck, "layers.0.0.layers.0.0.norm.gamma") ? 0 : 1;
    o->depth = first ? saw_shape_count(ck, 128, "layers.", ".1.layers.0.0.norm.gamma")
                     : saw_shape_count(ck, 128, "layers.", ".0.layers.0.0.norm.gamma");
    bool linear = saw_shape_has(ck, "layers.0.0.layers.0.0.temperature");
    int time = linear ? 1 : first, freq = time + 1;
    char before[64];
    snprintf(before, sizeof before, "layers.0.%d.layers.", time);
    o->time_depth = saw_shape_count(ck, 32, before, ".0.norm.gamma");
    snprintf(before, sizeof before, "layers.0.%d.layers.", freq);
    o->freq_depth = saw_shape_count(ck, 32, before, ".0.norm.gamma");
    o->linear_depth = linear ? saw_shape_count(ck, 32, "layers.0.0.layers.", ".0.norm.gamma") : 0;
    o->heads = (int)saw_shape_dim(ck, 0, "layers.0.%d.layers.0.0.to_gates.weight", time);
    o->dim_head = o->heads
                      ? (int)(saw_shape_dim(ck, 0, "layers.0.%d.layers.0.0.to_qkv.weight", time) /
                              3 / o->heads)
                      : 0;
    o->pope = saw_shape_dim(ck, 0, "layers.0.%d.layers.0.0.pope_embed.bias", time) > 0;
    o->common.stems =
        saw_shape_count(ck, SAW_MAX_STEMS, "mask_estimators.", ".to_freqs.0.0.0.weight");
    int layers = 0;
    while (layers < 16 &&
           saw_shape_dim(ck, 0, "mask_estimators.0.to_freqs.0.0.%d.weight", 2 * layers))
        layers++;
    o->mask_depth = o->mel ? layers - 1 : layers;
    o->mlp_expansion =
        layers > 1 && o->dim
            ? (int)(saw_shape_dim(ck, 0, "mask_estimators.0.to_freqs.0.0.0.weight") / o->dim)
            : 1;
    if (o->dim < 1 || o->depth < 1 || o->heads < 1 || o->dim_head < 2 || o->time_depth < 1 ||
        o->freq_depth < 1 || o->mask_depth < 1 || o->mlp_expansion < 1 || o->common.stems < 1 ||
        o->bands < 1)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "the tensors look like a RoFormer but its sizes cannot be told from them");
    if (o->mel ? !find_mel_table(ctx, o, din) : !find_split_table(o, din))
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "the widths of its %d bands follow no known table; give its configuration "
                        "with --config",
                        o->bands);
    assume_rest(o, assumed);
    return SAW_OK;
}

/* ---- checks and what follows from the options ------------------------------------------------ */

static saw_status finish(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                         void *options)
{
    roformer_options *o = options;
    saw_model_common *c = &o->common;
    c->channels = o->stereo ? 2 : 1;
    if (config) {
        saw_status status = saw_model_read_msst(ctx, config, c);
        if (status)
            return status;
    }
    saw_model_name_stems(c, 0, NULL);
    if (o->dim < 1 || o->depth < 1)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "the configuration does not say %s",
                        o->dim < 1 ? "dim" : "depth");
    if (o->win > o->n_fft || o->hop > o->win || (o->mel && o->win != o->n_fft))
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "hop %d, window %d and n_fft %d do not fit together (hop <= window %s n_fft)", o->hop,
            o->win, o->n_fft, o->mel ? "=" : "<=");
    if (o->n_fft % 2 || o->dim_head % 2)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "n_fft and dim_head must be even numbers");
    int64_t bins = o->n_fft / 2 + 1, sum = 0;
    if (o->mel) {
        saw_status status = saw_bands_mel(ctx, o->mel_rate_hz, o->n_fft, o->bands, o->band);
        if (status)
            return status;
    } else {
        for (int b = 0; b < o->bands; b++) {
            o->band[b] = (saw_band){(int)sum, (int)o->freqs_per_bands[b]};
            sum += o->freqs_per_bands[b];
        }
        if (sum != bins)
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "freqs_per_bands adds up to %lld bins and n_fft %d has %lld",
                            (long long)sum, o->n_fft, (long long)bins);
    }
    if (ck) {
        bool at0 = saw_shape_has(ck, "layers.0.0.layers.0.0.norm.gamma");
        o->module_shift =
            !o->linear_depth && !at0 && saw_shape_has(ck, "layers.0.2.layers.0.0.norm.gamma");
        char name[64];
        int time = (o->linear_depth ? 1 : 0) + o->module_shift;
        snprintf(name, sizeof name, "layers.0.%d.layers.0.0.to_qkv.bias", time);
        o->qkv_bias = saw_shape_has(ck, name);
        snprintf(name, sizeof name, "layers.0.%d.layers.0.0.to_out.0.bias", time);
        o->out_bias = saw_shape_has(ck, name);
    }
    c->hop_samples = o->hop;
    c->min_samples = o->n_fft / 2 + 1 > o->hop ? o->n_fft / 2 + 1 : o->hop;
    c->output_trim = o->mel && !o->match_length ? o->hop : 1;
    if (c->chunk_samples < c->min_samples)
        c->chunk_samples =
            c->chunk_samples ? c->min_samples : 8 * (int64_t)c->rate_hz / o->hop * o->hop;
    return SAW_OK;
}

/* Copies that some files keep at the top beside the layers' own names. */
static bool surplus(const char *name)
{
    return saw_glob_match("linear_6?_bias_0", name);
}

static void describe(const void *options, saw_buffer *out)
{
    const roformer_options *o = options;
    saw_buffer_printf(
        out,
        " dim %d, depth %d (time %d, freq %d, linear %d), heads %d x %d, bands %d, n_fft %d, hop "
        "%d, window %d%s,"
        " mask depth %d x %d%s%s%s%s",
        o->dim, o->depth, o->time_depth, o->freq_depth, o->linear_depth, o->heads, o->dim_head,
        o->bands, o->n_fft, o->hop, o->win, o->stft_normalized ? " normalised" : "", o->mask_depth,
        o->mlp_expansion, o->skip ? ", skip connections" : "", o->pope ? ", PoPE" : "",
        o->zero_dc ? ", zero_dc" : "", o->qkv_bias || o->out_bias ? ", shared bias" : "");
}

const saw_model saw_model_bs_roformer = {.name = "bs_roformer",
                                         .title = "BS-RoFormer",
                                         .options_bytes = sizeof(roformer_options),
                                         .section = "model",
                                         .options = options_table,
                                         .recognise = bs_recognise,
                                         .claims = bs_claims,
                                         .defaults = bs_defaults,
                                         .infer = infer,
                                         .finish = finish,
                                         .record = roformer_record,
                                         .surplus = surplus,
                                         .describe = describe};

const saw_model saw_model_mel_band_roformer = {.name = "mel_band_roformer",
                                               .title = "Mel-Band RoFormer",
                                               .options_bytes = sizeof(roformer_options),
                                               .section = "model",
                                               .options = options_table,
                                               .recognise = mel_recognise,
                                               .claims = mel_claims,
                                               .defaults = mel_defaults,
                                               .infer = infer,
                                               .finish = finish,
                                               .record = roformer_record,
                                               .surplus = surplus,
                                               .describe = describe};
