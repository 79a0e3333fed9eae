/*
 * spleeter.c - Spleeter (Hennequin et al., JOSS 2020): one U-net a stem on magnitudes, and a ratio
 * mask.
 *
 * B batch, C audio channels, N samples, T frames, K bins of the transform, F bins that the nets
 * see, S segments of `segment` frames.
 *
 * Every net halves frames and bins six times by 5x5 convolutions, doubles them again by transposed
 * ones, and gets the raw output of each convolution beside the upward path. Its last layer gives a
 * mask for the stem's magnitude. The masks that are applied to the spectrum are shares of the
 * estimates' powers, so that the stems sum to the mixture below bin F.
 *
 * The frames of the input are cut into segments; an input of the model's chunk length is one
 * segment. Tensors are named as PyTorch ports name them, below the number of the stem's net; the
 * names of TensorFlow's own checkpoints are imported.
 */
#include "models/model.h"
#include "nn/nn.h"

#include <stdlib.h>
#include <string.h>

enum { LEVELS = 6, DROPPED = 3, ZEROS = 0, AVERAGE = 1, LEAKY = 0, ELU = 1 };

typedef struct spleeter_options {
    saw_model_common common;
    int n_fft, hop, segment, bins;
    int extension;  /* of the masks above `bins`: ZEROS or AVERAGE */
    int activation; /* LEAKY (and ReLU on the way up) or ELU */
    bool softmax;   /* the masks of the nets are a softmax over the stems */
    double power;
    int filters[LEVELS];
} spleeter_options;

#define AT(member) offsetof(spleeter_options, member)

/* The keys of Spleeter's own configurations. */
static const saw_option options_table[] = {
    {"frame_length", SAW_OPTION_INT, AT(n_fft), 64, 65536, 0},
    {"frame_step", SAW_OPTION_INT, AT(hop), 1, 65536, 0},
    {"T", SAW_OPTION_INT, AT(segment), 64, 8192, 0},
    {"F", SAW_OPTION_INT, AT(bins), 64, 32768, 0},
    {"n_channels", SAW_OPTION_INT, AT(common.channels), 1, SAW_MAX_CHANNELS, 0},
    {"sample_rate", SAW_OPTION_INT, AT(common.rate_hz), 1000, 768000, 0},
    {"separation_exponent", SAW_OPTION_DOUBLE, AT(power), 0.1, 16, 0},
    {"mask_extension:zeros,average", SAW_OPTION_CHOICE, AT(extension), 0, 0, 0},
    {"instrument_list", SAW_OPTION_IGNORED, 0, 0, 0, 0}, /* these two are read by finish */
    {"model", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"mix_name", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"train_csv", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"validation_csv", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"model_dir", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"learning_rate", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"batch_size", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"training_cache", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"validation_cache", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"train_max_steps", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"throttle_secs", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"random_seed", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"save_checkpoints_steps", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"save_summary_steps", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {0},
};

/* ---- names ----------------------------------------------------------------------------------- */

static bool recognise(const saw_checkpoint *ck)
{
    return saw_checkpoint_find(ck, "0.down1_conv.1.weight") ||
           saw_checkpoint_find(ck, "down1_conv.1.weight");
}

static bool claims(const saw_config *config)
{
    return saw_config_get(config, "frame_length") && saw_config_get(config, "instrument_list");
}

static bool surplus(const char *name)
{
    return !strcmp(name, "global_step") ||
           strchr(name, '/'); /* what TensorFlow's optimizers keep */
}

/* "conv2d_9/kernel" -> layer "conv2d", number 9, part "kernel". */
static bool split_name(const char *name, char *layer, size_t room, int *number, const char **part)
{
    const char *slash = strchr(name, '/');
    size_t n = slash ? (size_t)(slash - name) : 0, end = n;
    while (end && name[end - 1] >= '0' && name[end - 1] <= '9')
        end--;
    bool numbered = end < n && n - end < 6 && end > 1 && name[end - 1] == '_';
    *number = numbered ? atoi(name + end) : 0;
    end = numbered ? end - 1 : n;
    if (!n || end >= room)
        return false;
    memcpy(layer, name, end);
    layer[end] = 0;
    *part = slash + 1;
    return true;
}

/* TensorFlow counts the layers of a kind through all nets: of every net 7 convolutions, 6
 * transposed, 12 norms. */
static bool import_name(const char *name, char *to, size_t room, bool *kernel)
{
    static const char *const parts[][2] = {{"kernel", "weight"},
                                           {"gamma", "weight"},
                                           {"bias", "bias"},
                                           {"beta", "bias"},
                                           {"moving_mean", "running_mean"},
                                           {"moving_variance", "running_var"}};
    char layer[32];
    const char *part, *ours = NULL;
    int number;
    if (!split_name(name, layer, sizeof layer, &number, &part))
        return false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strcmp(part, parts[i][0]))
            ours = parts[i][1];
    *kernel = !strcmp(part, "kernel");
    if (!ours)
        return false;
    if (!strcmp(layer, "conv2d") && number % 7 == LEVELS)
        snprintf(to, room, "%d.up7.0.%s", number / 7, ours);
    else if (!strcmp(layer, "conv2d"))
        snprintf(to, room, "%d.down%d_conv.1.%s", number / 7, number % 7 + 1, ours);
    else if (!strcmp(layer, "conv2d_transpose"))
        snprintf(to, room, "%d.up%d.0.%s", number / 6, number % 6 + 1, ours);
    else if (!strcmp(layer, "batch_normalization") && number % 12 < LEVELS)
        snprintf(to, room, "%d.down%d_act.0.%s", number / 12, number % 12 + 1, ours);
    else if (!strcmp(layer, "batch_normalization"))
        snprintf(to, room, "%d.up%d.3.%s", number / 12, number % 12 - LEVELS + 1, ours);
    else
        return false;
    return true;
}

static saw_status import(saw_checkpoint *ck)
{
    if (!saw_checkpoint_find(ck, "conv2d_transpose/kernel") ||
        !saw_checkpoint_find(ck, "batch_normalization/gamma"))
        return SAW_OK;
    saw_status status = SAW_OK;
    for (int i = 0; i < saw_checkpoint_count(ck) && !status; i++) {
        char name[64];
        bool kernel;
        const saw_ckpt_tensor *t = saw_checkpoint_at(ck, i);
        if (import_name(t->name, name, sizeof name, &kernel)) /* [kh, kw, a, b] -> [b, a, kh, kw] */
            status = saw_checkpoint_rename(ck, i, name,
                                           kernel && t->ndim == 4 ? (int[]){3, 2, 0, 1} : NULL);
    }
    return status;
}

/* ---- options --------------------------------------------------------------------------------- */

static void defaults(void *options)
{
    spleeter_options *o = options;
    o->common.rate_hz = 44100;
    o->common.channels = 2;
    o->n_fft = 4096;
    o->hop = 1024;
    o->segment = 512;
    o->bins = 1024;
    o->power = 2;
}

static int count_nets(const saw_checkpoint *ck)
{
    int n = 0;
    for (char name[64]; n < SAW_MAX_STEMS; n++) {
        snprintf(name, sizeof name, "%d.down1_conv.1.weight", n);
        if (!saw_checkpoint_find(ck, name))
            break;
    }
    return n;
}

static saw_status infer(saw_context *ctx, const saw_checkpoint *ck, void *options,
                        saw_assumed *assumed)
{
    static const char *const names[][5] = {{"vocals", "accompaniment"},
                                           {"vocals", "drums", "bass", "other"},
                                           {"vocals", "piano", "drums", "bass", "other"}};
    spleeter_options *o = options;
    saw_model_common *c = &o->common;
    c->stems = count_nets(ck);
    if (c->stems < 2)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "this is the net of one stem, and Spleeter's masks need those of all "
                        "stems: give the folder that "
                        "holds their files, and nothing else, as the model");
    int row = c->stems == 2 ? 0 : c->stems == 4 ? 1 : c->stems == 5 ? 2 : -1;
    o->activation = c->stems == 2 ? LEAKY : ELU;
    o->softmax = c->stems == 5;
    saw_model_name_stems(c, row < 0 ? 0 : c->stems, row < 0 ? NULL : names[row]);
    saw_assume(assumed, "the stems are %s, ... in the order of Spleeter's configurations",
               c->stem_names[0]);
    saw_assume(assumed, "n_fft %d, hop %d, segments of %d frames, %d Hz", o->n_fft, o->hop,
               o->segment, c->rate_hz);
    saw_assume(assumed, "%s, masks above bin %d are zeros, power %g",
               o->activation == ELU ? "ELU" : "leaky ReLU", o->bins, o->power);
    return SAW_OK;
}

static saw_status read_config(saw_context *ctx, const saw_config *config, spleeter_options *o)
{
    const saw_config *list = saw_config_get(config, "instrument_list");
    const char *names[SAW_MAX_STEMS];
    o->common.stems = saw_config_size(list);
    if (saw_config_kind_of(list) != SAW_CONFIG_LIST || o->common.stems < 2 ||
        o->common.stems > SAW_MAX_STEMS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "instrument_list must name 2 to %d stems",
                        (int)SAW_MAX_STEMS);
    for (int i = 0; i < o->common.stems; i++) {
        names[i] = saw_config_as_string(saw_config_at(list, i));
        if (!names[i])
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "line %d: instrument_list must be a list of names",
                            saw_config_line(list));
    }
    saw_model_name_stems(&o->common, o->common.stems, names);
    const char *type = saw_config_as_string(saw_config_find(config, "model.type"));
    const char *down =
        saw_config_as_string(saw_config_find(config, "model.params.conv_activation"));
    const char *up =
        saw_config_as_string(saw_config_find(config, "model.params.deconv_activation"));
    o->softmax = type && !strcmp(type, "unet.softmax_unet");
    o->activation = down && !strcmp(down, "ELU") ? ELU : LEAKY;
    bool same = o->activation == ELU ? up && !strcmp(up, "ELU") : !up || !strcmp(up, "ReLU");
    if ((type && !o->softmax && strcmp(type, "unet.unet") != 0) || !same ||
        (down && o->activation == LEAKY && strcmp(down, "LeakyReLU") != 0))
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "the model %s with %s and %s is none that Spleeter was published with",
                        type ? type : "", down ? down : "LeakyReLU", up ? up : "ReLU");
    return SAW_OK;
}

static saw_status finish(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                         void *options)
{
    spleeter_options *o = options;
    saw_model_common *c = &o->common;
    saw_status status = config ? read_config(ctx, config, o) : SAW_OK;
    if (status)
        return status;
    if (o->hop > o->n_fft || o->n_fft % 2 || o->bins > o->n_fft / 2 + 1 || o->bins % 64 ||
        o->segment % 64)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "frame_length %d, frame_step %d, T %d and F %d do not fit together: T and "
                        "F are multiples of 64",
                        o->n_fft, o->hop, o->segment, o->bins);
    if (ck && count_nets(ck) != c->stems)
        return saw_fail(ctx, SAW_ERR_SHAPE, "%d stems are named and the nets of %d are there",
                        c->stems, count_nets(ck));
    for (int i = 0; i < LEVELS; i++) {
        char name[64];
        snprintf(name, sizeof name, "0.down%d_conv.1.weight", i + 1);
        const saw_ckpt_tensor *t = ck ? saw_checkpoint_find(ck, name) : NULL;
        o->filters[i] =
            t && t->ndim == 4 && t->dims[0] > 0 && t->dims[0] <= 8192 ? (int)t->dims[0] : 16 << i;
    }
    c->hop_samples = c->min_samples = o->hop;
    c->output_trim = 1;
    c->overlap = 2;
    c->stitch = "fade";
    c->chunk_samples = (int64_t)(o->segment - 1) * o->hop; /* centred frames: one segment of them */
    c->spleeter_frame_samples = o->n_fft;
    c->spleeter_chunk_samples = c->chunk_samples + o->n_fft;
    return SAW_OK;
}

static void describe(const void *options, saw_buffer *out)
{
    const spleeter_options *o = options;
    saw_buffer_printf(
        out, " n_fft %d hop %d segment %d frames bins %d power %g extension %s activation %s%s",
        o->n_fft, o->hop, o->segment, o->bins, o->power,
        o->extension == AVERAGE ? "average" : "zeros", o->activation == ELU ? "ELU" : "leaky ReLU",
        o->softmax ? " softmax" : "");
}

/* ---- the model ------------------------------------------------------------------------------- */

static saw_val down_activation(saw_graph *g, saw_val x, const spleeter_options *o)
{
    return o->activation == ELU ? saw_elu(g, x) : saw_leaky_relu(g, x, 0.2);
}

static saw_val up_activation(saw_graph *g, saw_val x, const spleeter_options *o)
{
    return o->activation == ELU ? saw_elu(g, x) : saw_relu(g, x);
}

/* Mask of one stem before its last function: x [S,T,F,C] -> the same. */
static saw_val net(saw_graph *g, saw_val x, const spleeter_options *o)
{
    static const saw_conv_form halve = {.stride = {2, 2}, .before = {1, 1}, .after = {2, 2}};
    static const saw_conv_form last = {.dilation = {2, 2}, .before = {3, 3}, .after = {3, 3}};
    saw_val skip[LEVELS];
    char name[32];
    for (int i = 0; i < LEVELS;
         i++) { /* the sixth norm and activation are there but lead nowhere */
        snprintf(name, sizeof name, "down%d_conv.1", i + 1);
        skip[i] = nn_conv(g, name, x, o->filters[i], 5, &halve, false);
        snprintf(name, sizeof name, "down%d_conv", i + 1);
        saw_tap(g, name, skip[i]);
        snprintf(name, sizeof name, "down%d_act.0", i + 1);
        x = down_activation(g, nn_batch_norm(g, name, skip[i], 1e-3), o);
        snprintf(name, sizeof name, "down%d_act", i + 1);
        saw_tap(g, name, x);
    }
    x = skip[LEVELS - 1];
    for (int i = 0; i < LEVELS; i++) {
        int level = LEVELS - 1 - i; /* skips from here on are as large as the output */
        snprintf(name, sizeof name, "up%d.0", i + 1);
        x = nn_conv(g, name, x, level ? o->filters[level - 1] : 1, 5, &halve, true);
        snprintf(name, sizeof name, "up%d.3", i + 1);
        x = nn_batch_norm(g, name, up_activation(g, x, o), 1e-3);
        if (i < DROPPED)
            x = nn_dropout(g, x, 0.5);
        snprintf(name, sizeof name, "up%d", i + 1);
        saw_tap(g, name, x);
        if (level)
            x = saw_concat(g, 2, (saw_val[]){skip[level - 1], x});
    }
    return nn_conv(g, "up7.0", x, o->common.channels, 4, &last, false);
}

/* Estimates of all stems' magnitudes. */
static void estimate(saw_graph *g, saw_val x, const spleeter_options *o, saw_val *out)
{
    int stems = o->common.stems;
    for (int s = 0; s < stems; s++) {
        saw_scope(g, 0, "%d", s);
        out[s] = net(g, x, o);
        if (o->softmax)
            out[s] = saw_exp(g, out[s]);
        else
            out[s] = saw_tap(g, "up7", saw_sigmoid(g, out[s]));
        saw_scope_end(g);
    }
    saw_val mask[SAW_MAX_STEMS];
    for (int s = 0; s < stems; s++)
        mask[s] = o->softmax ? saw_ratio_mask(g, stems, out, s, 1, 0) : out[s];
    for (int s = 0; s < stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "estimate%d", s);
        out[s] = saw_tap(g, name, saw_mul(g, mask[s], x));
    }
}

/* Mask of stem s for every number of the spectrum: [B,T,2 K C]. */
static saw_val spread_mask(saw_graph *g, const spleeter_options *o, const saw_val *estimates, int s,
                           int64_t batch, int64_t frames, const int32_t *table, int64_t features)
{
    saw_val m = saw_ratio_mask(g, o->common.stems, estimates, s, o->power, 1e-10); /* [S,T,F,C] */
    int64_t whole = saw_dim(g, m, 0) / batch * o->segment;
    saw_val flat = saw_merge_last(g, m);
    if (o->extension == AVERAGE)
        flat = saw_concat(g, 2, (saw_val[]){flat, saw_merge_last(g, saw_mean(g, m, 2, o->bins))});
    if (whole != o->segment)
        flat = saw_reshape(g, flat, SAW_DIMS(batch, whole, saw_dim(g, flat, -1)));
    if (whole != frames)
        flat = saw_pad(g, flat, 1, 0, frames - whole);
    return saw_gather(g, flat, table, features);
}

static void record(saw_graph *g, const void *options, saw_val mix)
{
    const spleeter_options *o = options;
    const saw_model_common *c = &o->common;
    int64_t bins = o->n_fft / 2 + 1, channels = c->channels, batch = saw_dim(g, mix, 0),
            samples = saw_dim(g, mix, -1);
    const saw_stft *plan = nn_stft_plan(g, &(saw_stft_options){.n_fft = o->n_fft,
                                                               .hop = o->hop,
                                                               .center = !c->inner_frames,
                                                               .pad = SAW_STFT_ZEROS});
    int64_t features = 2 * bins * channels, seen = o->bins * channels;
    int32_t *table = saw_calloc(saw_graph_context(g), (size_t)features, sizeof *table);
    if (!plan || !table) {
        if (plan)
            saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for the table of bins");
        saw_free(saw_graph_context(g), table);
        return;
    }
    for (int64_t i = 0; i < features; i++) {
        int64_t at = i / 2;
        bool above = at >= seen;
        table[i] = (int32_t)(!above ? at : o->extension == AVERAGE ? seen + at % channels : -1);
    }
    saw_val spectrum = saw_tap(g, "stft", saw_stft_op(g, mix, plan)); /* [B,T,K,C,2] */
    saw_val frame = saw_merge_last(g, saw_merge_last(g, spectrum));   /* [B,T,2 K C] */
    int64_t frames = saw_dim(g, spectrum, 1), segments = (frames + o->segment - 1) / o->segment;
    if (c->inner_frames)
        frame = saw_mul(g, frame, saw_input(g, "present", SAW_DIMS(batch, frames, 1)));
    saw_val x = saw_magnitude(g, saw_slice_last(g, frame, 0, 2 * seen)); /* [B,T,F C] */
    if (frames != segments * o->segment)
        x = saw_pad(g, x, 1, 0, segments * o->segment - frames);
    x = segments > 1 ? saw_reshape(g, x, SAW_DIMS(batch * segments, o->segment, o->bins, channels))
                     : saw_split_last(g, x, o->bins); /* [S,T,F,C] */
    saw_val estimates[SAW_MAX_STEMS];
    estimate(g, x, o, estimates);
    for (int s = 0; s < c->stems; s++) {
        char name[32];
        saw_val m = spread_mask(g, o, estimates, s, batch, frames, table, features);
        saw_val y = saw_split_last(g, saw_split_last(g, saw_mul(g, frame, m), bins), channels);
        snprintf(name, sizeof name, "stem%d", s);
        saw_output(g, name, saw_istft_op(g, y, plan, samples)); /* [B,C,N] */
    }
    saw_free(saw_graph_context(g), table);
}

const saw_model saw_model_spleeter = {
    .name = "spleeter",
    .title = "Spleeter",
    .options_bytes = sizeof(spleeter_options),
    .section = "",
    .options = options_table,
    .import = import,
    .recognise = recognise,
    .claims = claims,
    .defaults = defaults,
    .infer = infer,
    .finish = finish,
    .record = record,
    .surplus = surplus,
    .describe = describe,
};
