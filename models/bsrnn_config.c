/*
 * bsrnn_config.c - the options of the BSRNN implementations: from their own configurations, or from
 * names and shapes.
 *
 * Shapes tell widths, depths, cells, bands, channels and stems. They do not tell the hop, the
 * sample rate, the names of the stems, the groups of the norms, nor how crlandsc's fork of
 * amanteur's code reads its masks: these are assumed and said.
 */
#include "models/bsrnn.h"

#include <string.h>

#define AT(member)          offsetof(bsrnn_options, member)
#define AMANTEUR_AT(member) offsetof(bsrnn_amanteur_options, member)

/* a / b where it is a whole number that an int holds, else 0. */
static int whole(int64_t a, int64_t b)
{
    return b > 0 && a % b == 0 && a / b <= 1 << 20 ? (int)(a / b) : 0;
}

/* One of two words at a path; the value stays when nothing is there. */
static saw_status read_choice(saw_context *ctx, const saw_config *config, const char *path,
                              const char *no, const char *yes, bool *value)
{
    const saw_config *node = saw_config_find(config, path);
    const char *text = saw_config_as_string(node);
    if (!node || saw_config_kind_of(node) == SAW_CONFIG_NULL)
        return SAW_OK;
    if (!text || (strcmp(text, no) && strcmp(text, yes)))
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED, "line %d: %s is %s; this program knows %s and %s",
                        saw_config_line(node), path, text ? text : "no single word", no, yes);
    *value = !strcmp(text, yes);
    return SAW_OK;
}

static saw_status read_cell(saw_context *ctx, const saw_config *config, const char *path,
                            const char *lstm, const char *gru, saw_rnn_kind *kind)
{
    bool is_gru = *kind == SAW_RNN_GRU;
    saw_status status = read_choice(ctx, config, path, lstm, gru, &is_gru);
    *kind = is_gru ? SAW_RNN_GRU : SAW_RNN_LSTM;
    return status;
}

/* Kind, size and directions of the recurrent layer of that name; false when it is not one. */
static bool infer_cell(const saw_checkpoint *ck, const char *name, saw_rnn_kind *kind,
                       int64_t *hidden, bool *bidirectional)
{
    *hidden = saw_shape_dim(ck, 1, "%s.weight_hh_l0", name);
    int gates = whole(saw_shape_dim(ck, 0, "%s.weight_hh_l0", name), *hidden);
    *kind = gates == 3 ? SAW_RNN_GRU : SAW_RNN_LSTM;
    *bidirectional = saw_shape_dim(ck, 0, "%s.weight_hh_l0_reverse", name) > 0;
    return gates == 3 || gates == 4;
}

/* Bands one after another from widths in bins. */
static void stack_bands(saw_band *band, int bands, const int64_t *widths)
{
    int first = 0;
    for (int b = 0; b < bands; b++) {
        band[b] = (saw_band){first, (int)widths[b]};
        first += (int)widths[b];
    }
}

/* What the two families share: the plan and the bands fit together. */
static saw_status check_spectrum(saw_context *ctx, int n_fft, int hop, int win,
                                 const saw_band *band, int bands)
{
    int bins = 0;
    for (int b = 0; b < bands; b++)
        bins += band[b].width;
    if (n_fft % 2 || win > n_fft || hop > win)
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "hop %d, window %d and n_fft %d do not fit together (hop <= window <= n_fft, even)",
            hop, win, n_fft);
    if (bins != n_fft / 2 + 1)
        return saw_fail(ctx, SAW_ERR_SHAPE, "the bands hold %d bins and n_fft %d has %d", bins,
                        n_fft, n_fft / 2 + 1);
    return SAW_OK;
}

/* ---- magronp --------------------------------------------------------------------------------- */

/* Every number is capped far above any real model, so that a hostile configuration is refused, not
 * tried. */
static const saw_option options_table[] = {
    {"n_fft", SAW_OPTION_INT, AT(n_fft), 16, 65536, 0},
    {"n_hop", SAW_OPTION_INT, AT(hop), 1, 65536, 0},
    {"nb_channels", SAW_OPTION_INT, AT(common.channels), 1, SAW_MAX_CHANNELS, 0},
    {"sample_rate", SAW_OPTION_INT, AT(common.rate_hz), 1000, 768000, 0},
    {"feature_dim", SAW_OPTION_INT, AT(dim), 1, 8192, 0},
    {"num_repeat", SAW_OPTION_INT, AT(repeats), 1, 128, 0},
    {"fac_sep", SAW_OPTION_INT, AT(fac_sep), 1, 64, 0},
    {"fac_mask", SAW_OPTION_INT, AT(fac_mask), 1, 64, 0},
    {"n_heads", SAW_OPTION_INT, AT(heads), 1, BSRNN_MAX_PARTS, 0},
    {"group_num", SAW_OPTION_INT, AT(groups), 1, 8192, 0},
    {"n_att_head", SAW_OPTION_INT, AT(attention_heads), 0, BSRNN_MAX_PARTS, 0},
    {"attn_enc_dim", SAW_OPTION_INT, AT(attention_dim), 0, 1024, 0},
    {"fac_tac", SAW_OPTION_INT, AT(fac_tac), 1, 64, 0},
    {"bidirectional", SAW_OPTION_BOOL, AT(bidirectional), 0, 0, 0},
    {"joint_bandsplit", SAW_OPTION_BOOL, AT(joint_bands), 0, 0, 0},
    {"subtract_last_trgt", SAW_OPTION_BOOL, AT(subtract_last), 0, 0, 0},
    {"mask_ctxt", SAW_OPTION_INT, AT(mask_context), 0, 0, 0}, /* no public checkpoint has another */
    {"eps", SAW_OPTION_DOUBLE, AT(eps), 1e-12, 1, 0},
    {"targets", SAW_OPTION_IGNORED, 0, 0, 0, 0}, /* read in finish, as the next four */
    {"time_layer", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"band_layer", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"stereo", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"act_tac", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"model_type", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"name", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"name_out_dir", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"name_tblog_dir", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {0},
};

static void defaults(void *options)
{
    bsrnn_options *o = options;
    *o = (bsrnn_options){.common = {.rate_hz = 44100, .channels = 2, .stems = 1, .overlap = 2},
                         .n_fft = 2048,
                         .hop = 512,
                         .dim = 128,
                         .repeats = 12,
                         .fac_sep = 2,
                         .fac_mask = 4,
                         .heads = 1,
                         .groups = 1,
                         .attention_dim = 16,
                         .fac_tac = 3,
                         .bidirectional = true,
                         .eps = 1e-7};
}

static bool recognise(const saw_checkpoint *ck)
{
    return saw_shape_has(ck, "BN.0.0.weight") &&
           saw_shape_has(ck, "separator.0.time_net.norm.weight") &&
           saw_shape_has(ck, "maskers.0.mask.0.5.weight");
}

static bool claims(const saw_config *config)
{
    return saw_config_get(config, "num_repeat") && saw_config_get(config, "fac_sep");
}

static saw_status infer(saw_context *ctx, const saw_checkpoint *ck, void *options,
                        saw_assumed *assumed)
{
    bsrnn_options *o = options;
    int64_t widths[SAW_MAX_BANDS], total = 0, hidden, hidden_band;
    bool both;
    o->bands = saw_shape_count(ck, SAW_MAX_BANDS, "BN.", ".0.weight");
    for (int b = 0; b < o->bands; b++)
        total += widths[b] = saw_shape_dim(ck, 0, "BN.%d.0.weight", b);
    o->dim = (int)saw_shape_dim(ck, 0, "BN.0.1.weight");
    o->repeats = saw_shape_count(ck, 128, "separator.", ".time_net.norm.weight");
    int64_t width = saw_shape_dim(ck, 0, "separator.0.time_net.norm.weight");
    if (!infer_cell(ck, "separator.0.time_net.main_layer", &o->time_layer, &hidden,
                    &o->bidirectional) ||
        !infer_cell(ck, "separator.0.band_net.main_layer", &o->band_layer, &hidden_band, &both) ||
        hidden != hidden_band || both != o->bidirectional)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "the layers of this BSRNN are not the LSTM or GRU that are known");
    o->fac_sep = whole(hidden, width);
    o->heads = whole(o->dim, width);
    o->fac_mask = whole(saw_shape_dim(ck, 0, "maskers.0.mask.0.1.weight"), o->dim);
    o->attention_heads =
        saw_shape_count(ck, BSRNN_MAX_PARTS, "separator.0.attn_block.attn_conv_Q_", ".0.weight");
    o->attention_dim = (int)saw_shape_dim(ck, 0, "separator.0.attn_block.attn_conv_Q_0.0.weight");
    int64_t inner = saw_shape_dim(ck, 0, "separator.0.tac_module.transform.0.weight");
    o->tac = inner > 0;
    o->tac_prelu = saw_shape_has(ck, "separator.0.tac_module.transform.1.weight");
    o->fac_tac = o->tac ? whole(inner, o->dim) : 1;
    o->common.stems = saw_shape_count(ck, SAW_MAX_STEMS, "maskers.", ".mask.0.5.weight");
    /* The number of bins, n_fft / 2 + 1, is odd; both channels in one double it. */
    o->naive = total / 2 % 2 == 0;
    int64_t per_bin = o->naive ? 4 : 2, bins = total / per_bin;
    for (int b = 0; b < o->bands; b++)
        if (!(widths[b] = whole(widths[b], per_bin)))
            bins = 0;
    if (bins < 9 || bins > 32769 || o->dim < 1 || !o->fac_sep || !o->heads || !o->fac_mask ||
        !o->fac_tac)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "the tensors look like a BSRNN but its sizes cannot be told from them");
    o->n_fft = (int)(2 * (bins - 1));
    o->hop = o->n_fft / 4;
    stack_bands(o->band, o->bands, widths);
    saw_assume(assumed, "hop %d, sample rate %d Hz, one group in the norms (the usual values)",
               o->hop, o->common.rate_hz);
    saw_assume(assumed, "stem names (no names are in the file)");
    return SAW_OK;
}

/* The zones that the paper gives for each instrument; everything else gets those of all together.
 */
static saw_status find_bands(saw_context *ctx, bsrnn_options *o)
{
    static const saw_band_zone vocals[] = {
        {1000, 100}, {4000, 250}, {8000, 500}, {16000, 1000}, {20000, 2000}};
    static const saw_band_zone bass[] = {
        {500, 50}, {1000, 100}, {4000, 500}, {8000, 1000}, {16000, 2000}};
    static const saw_band_zone joint[] = {{1000, 50},  {2000, 100},   {4000, 250},
                                          {8000, 500}, {16000, 1000}, {20000, 2000}};
    const char *stem = o->common.stems > 1 || o->joint_bands ? "" : o->common.stem_names[0];
    const saw_band_zone *zones = joint;
    int count = !strcmp(stem, "drums") ? 5 : 6;
    if (!strcmp(stem, "vocals") || !strcmp(stem, "other") || !strcmp(stem, "bass")) {
        zones = strcmp(stem, "bass") ? vocals : bass;
        count = 5;
    }
    return saw_bands_zones(ctx, SAW_ZONES_WIDTHS, o->common.rate_hz, o->n_fft, zones, count,
                           o->band, SAW_MAX_BANDS, &o->bands);
}

static saw_status read_words(saw_context *ctx, const saw_config *config, bsrnn_options *o)
{
    const saw_config *targets = saw_config_get(config, "targets"),
                     *groups = saw_config_get(config, "group_num");
    const char *names[SAW_MAX_STEMS], *only = saw_config_as_string(targets);
    int n = only ? 1 : saw_config_size(targets);
    if (n < 1 || n > SAW_MAX_STEMS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "the configuration must name 1 to %d targets",
                        (int)SAW_MAX_STEMS);
    for (int i = 0; i < n; i++)
        if (!(names[i] = only ? only : saw_config_as_string(saw_config_at(targets, i))))
            return saw_fail(ctx, SAW_ERR_ARGUMENT, "line %d: targets is no list of names",
                            saw_config_line(targets));
    o->common.stems = n;
    saw_model_name_stems(&o->common, n, names);
    if (groups && saw_config_kind_of(groups) == SAW_CONFIG_NULL)
        o->groups = 0;
    bool tac = false;
    saw_status status = read_choice(ctx, config, "stereo", "naive", "tac", &tac);
    o->tac = tac;
    o->naive = !tac && saw_config_as_string(saw_config_get(config, "stereo"));
    if (!status)
        status = read_choice(ctx, config, "act_tac", "tanh", "prelu", &o->tac_prelu);
    if (!status)
        status = read_cell(ctx, config, "time_layer", "lstm", "gru", &o->time_layer);
    return status ? status : read_cell(ctx, config, "band_layer", "lstm", "gru", &o->band_layer);
}

static saw_status finish(saw_context *ctx, const saw_config *config, const saw_checkpoint *ck,
                         void *options)
{
    (void)ck;
    bsrnn_options *o = options;
    saw_model_common *c = &o->common;
    saw_status status = config ? read_words(ctx, config, o) : SAW_OK;
    if (!status && config)
        status = find_bands(ctx, o);
    if (!status)
        status = check_spectrum(ctx, o->n_fft, o->hop, o->n_fft, o->band, o->bands);
    if (status)
        return status;
    saw_model_name_stems(c, 0, NULL);
    if (c->stems == 1)
        o->subtract_last = false;
    int width = o->dim / o->heads, groups = o->groups ? o->groups : 1;
    if (o->dim % o->heads || width % groups || (o->attention_heads && o->dim % o->attention_heads))
        return saw_fail(
            ctx, SAW_ERR_ARGUMENT,
            "%d features do not divide among %d heads, %d groups and %d attention heads", o->dim,
            o->heads, groups, o->attention_heads);
    if (o->attention_heads && o->attention_dim < 1)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "attn_enc_dim must be at least 1 where there are attention heads");
    c->hop_samples = o->hop;
    c->min_samples = o->n_fft / 2 + 1;
    c->output_trim = 1;
    c->chunk_samples = 10 * (int64_t)c->rate_hz / o->hop * o->hop;
    return SAW_OK;
}

/* Buffers, and the slope of TAC's PReLU under its second and third name. */
static bool surplus(const char *name)
{
    return saw_glob_match("*stft.transf.window", name) ||
           saw_glob_match("*.tac_module.average.1.weight", name) ||
           saw_glob_match("*.tac_module.concat.1.weight", name);
}

static const char *cell_name(saw_rnn_kind kind)
{
    return kind == SAW_RNN_LSTM ? "LSTM" : "GRU";
}

static void describe(const void *options, saw_buffer *out)
{
    const bsrnn_options *o = options;
    saw_buffer_printf(out,
                      " dim %d, repeats %d, %s and %s of %d hidden units%s, bands %d, n_fft %d, "
                      "hop %d, mask x %d%s%s%s",
                      o->dim, o->repeats, cell_name(o->time_layer), cell_name(o->band_layer),
                      o->fac_sep * o->dim / o->heads, o->bidirectional ? " in each direction" : "",
                      o->bands, o->n_fft, o->hop, o->fac_mask,
                      o->tac     ? ", TAC"
                      : o->naive ? ", both channels in one"
                                 : "",
                      o->attention_heads ? ", attention" : "",
                      o->subtract_last ? ", last stem by subtraction" : "");
}

const saw_model saw_model_bsrnn = {.name = "bsrnn",
                                   .title = "BSRNN",
                                   .options_bytes = sizeof(bsrnn_options),
                                   .section = "",
                                   .options = options_table,
                                   .recognise = recognise,
                                   .claims = claims,
                                   .defaults = defaults,
                                   .infer = infer,
                                   .finish = finish,
                                   .record = bsrnn_record,
                                   .surplus = surplus,
                                   .describe = describe};

/* ---- amanteur -------------------------------------------------------------------------------- */

static const saw_option amanteur_table[] = {
    {"sr", SAW_OPTION_INT, AMANTEUR_AT(common.rate_hz), 1000, 768000, 0},
    {"n_fft", SAW_OPTION_INT, AMANTEUR_AT(n_fft), 16, 65536, 0},
    {"hop_length", SAW_OPTION_INT, AMANTEUR_AT(hop), 1, 65536, 0},
    {"win_length", SAW_OPTION_INT, AMANTEUR_AT(win), 16, 65536, 0},
    {"t_timesteps", SAW_OPTION_INT, AMANTEUR_AT(frames), 2, 1 << 20, 0},
    {"fc_dim", SAW_OPTION_INT, AMANTEUR_AT(dim), 1, 8192, 0},
    {"rnn_dim", SAW_OPTION_INT, AMANTEUR_AT(hidden), 1, 8192, 0},
    {"num_layers", SAW_OPTION_INT, AMANTEUR_AT(layers), 1, 128, 0},
    {"mlp_dim", SAW_OPTION_INT, AMANTEUR_AT(mask_dim), 1, 65536, 0},
    {"bidirectional", SAW_OPTION_BOOL, AMANTEUR_AT(bidirectional), 0, 0, 0},
    {"is_mono", SAW_OPTION_BOOL, AMANTEUR_AT(mono), 0, 0, 0},
    {"complex_as_channel", SAW_OPTION_BOOL, AMANTEUR_AT(complex_as_channel), 0, 0, 0},
    {"return_mask", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"bandsplits", SAW_OPTION_IGNORED, 0, 0, 0, 0}, /* read in finish, as the next two */
    {"rnn_type", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {"bottleneck_layer", SAW_OPTION_IGNORED, 0, 0, 0, 0},
    {0},
};

static void amanteur_defaults(void *options)
{
    bsrnn_amanteur_options *o = options;
    *o = (bsrnn_amanteur_options){
        .common = {.rate_hz = 44100, .stems = 1, .overlap = 2, .chunk_fixed = true},
        .n_fft = 2048,
        .hop = 512,
        .frames = 263,
        .dim = 128,
        .hidden = 256,
        .layers = 12,
        .mask_dim = 512,
        .bidirectional = true,
        .complex_as_channel = true};
}

static void crlandsc_defaults(void *options)
{
    bsrnn_amanteur_options *o = options;
    amanteur_defaults(o);
    o->raw_mask = true;
}

static bool amanteur_recognise(const saw_checkpoint *ck)
{
    return saw_shape_has(ck, "bandsplit.layernorms.0.weight") &&
           saw_shape_has(ck, "bandsequence.bsrnn.0.0.groupnorm.weight") &&
           saw_shape_has(ck, "maskest.layernorms.0.weight");
}

static bool amanteur_claims(const saw_config *config)
{
    return saw_config_find(config, "model.bandsplits") != NULL;
}

static saw_status amanteur_infer(saw_context *ctx, const saw_checkpoint *ck, void *options,
                                 saw_assumed *assumed)
{
    bsrnn_amanteur_options *o = options;
    int64_t widths[SAW_MAX_BANDS], total = 0, hidden;
    o->bands = saw_shape_count(ck, SAW_MAX_BANDS, "bandsplit.layernorms.", ".weight");
    for (int b = 0; b < o->bands; b++)
        total += widths[b] = saw_shape_dim(ck, 0, "bandsplit.layernorms.%d.weight", b);
    o->mono = total / 2 % 2 != 0; /* the number of bins is odd */
    int64_t per_bin = o->mono ? 2 : 4, bins = total / per_bin;
    for (int b = 0; b < o->bands; b++)
        if (!(widths[b] = whole(widths[b], per_bin)))
            bins = 0;
    o->frames = whole(saw_shape_dim(ck, 1, "bandsplit.layernorms.0.weight"), 1);
    o->dim = whole(saw_shape_dim(ck, 0, "bandsplit.fcs.0.weight"), 1);
    o->layers = saw_shape_count(ck, 128, "bandsequence.bsrnn.", ".0.groupnorm.weight");
    o->mask_dim = whole(saw_shape_dim(ck, 0, "maskest.mlp.0.mlp.0.weight"), 1);
    if (!infer_cell(ck, "bandsequence.bsrnn.0.0.rnn", &o->rnn, &hidden, &o->bidirectional) ||
        !(o->hidden = whole(hidden, 1)) || bins < 9 || bins > 32769 || o->frames < 2 || !o->dim ||
        !o->mask_dim)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "the tensors look like a BSRNN but its sizes cannot be told from them");
    o->n_fft = (int)(2 * (bins - 1));
    o->hop = o->n_fft / 4;
    o->win = o->n_fft;
    stack_bands(o->band, o->bands, widths);
    saw_assume(assumed, "hop %d, window %d, sample rate %d Hz (the usual values)", o->hop, o->win,
               o->common.rate_hz);
    saw_assume(assumed, "the stem's name (none is in the file)");
    return SAW_OK;
}

static saw_status amanteur_read(saw_context *ctx, const saw_config *config,
                                bsrnn_amanteur_options *o)
{
    const saw_config *list = saw_config_find(config, "model.bandsplits");
    saw_band_zone zones[64];
    int n = saw_config_size(list);
    if (n < 1 || n > 64)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "model.bandsplits must be a list of 1 to 64 pairs [end, step] in Hz");
    for (int i = 0; i < n; i++) {
        const saw_config *pair = saw_config_at(list, i);
        if (!saw_config_as_double(saw_config_at(pair, 0), &zones[i].end_hz) ||
            !saw_config_as_double(saw_config_at(pair, 1), &zones[i].step_hz))
            return saw_fail(ctx, SAW_ERR_ARGUMENT,
                            "line %d: model.bandsplits has an entry that is no pair [end, step]",
                            saw_config_line(list));
    }
    int64_t hop, win;
    bool unused = false;
    saw_status status = read_cell(ctx, config, "model.rnn_type", "LSTM", "GRU", &o->rnn);
    if (!status) /* "att" needs layers that this program does not have */
        status = read_choice(ctx, config, "model.bottleneck_layer", "rnn", "rnn", &unused);
    if (!status)
        status =
            saw_config_int(ctx, config, "featurizer.direct_transform.hop_length", o->hop, &hop);
    if (!status)
        status =
            saw_config_int(ctx, config, "featurizer.direct_transform.win_length", o->win, &win);
    if (!status && (hop < 1 || hop > 65536 || win < 0 || win > 65536))
        status = saw_fail(ctx, SAW_ERR_ARGUMENT,
                          "the featurizer's hop_length or win_length makes no sense");
    if (status)
        return status;
    o->hop = (int)hop;
    o->win = (int)win;
    const char *target = saw_config_as_string(saw_config_find(config, "audio_params.target"));
    if (target)
        saw_model_name_stems(&o->common, 1, &target);
    return saw_bands_zones(ctx, SAW_ZONES_BELOW, o->common.rate_hz, o->n_fft, zones, n, o->band,
                           SAW_MAX_BANDS, &o->bands);
}

static saw_status amanteur_finish(saw_context *ctx, const saw_config *config,
                                  const saw_checkpoint *ck, void *options)
{
    (void)ck;
    bsrnn_amanteur_options *o = options;
    saw_model_common *c = &o->common;
    saw_status status = config ? amanteur_read(ctx, config, o) : SAW_OK;
    if (!o->win)
        o->win = o->n_fft;
    if (!status)
        status = check_spectrum(ctx, o->n_fft, o->hop, o->win, o->band, o->bands);
    if (status)
        return status;
    if (!o->complex_as_channel)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "complex_as_channel: false is not finished in the reference either");
    c->channels = o->mono ? 1 : 2;
    saw_model_name_stems(c, 0, NULL);
    c->hop_samples = o->hop;
    c->chunk_samples = c->min_samples = (int64_t)o->hop * (o->frames - 1);
    c->output_trim = o->hop;
    return SAW_OK;
}

static void amanteur_describe(const void *options, saw_buffer *out)
{
    const bsrnn_amanteur_options *o = options;
    saw_buffer_printf(out,
                      " dim %d, layers %d, %s of %d hidden units%s, bands %d, frames %d, n_fft %d, "
                      "hop %d, mask %d%s",
                      o->dim, o->layers, cell_name(o->rnn), o->hidden,
                      o->bidirectional ? " in each direction" : "", o->bands, o->frames, o->n_fft,
                      o->hop, o->mask_dim, o->raw_mask ? ", raw mask layout" : "");
}

const saw_model saw_model_bsrnn_amanteur = {
    .name = "bsrnn_amanteur",
    .title = "BSRNN (amanteur)",
    .options_bytes = sizeof(bsrnn_amanteur_options),
    .section = "model",
    .options = amanteur_table,
    .recognise = amanteur_recognise,
    .claims = amanteur_claims,
    .defaults = amanteur_defaults,
    .infer = amanteur_infer,
    .alike = "masks as amanteur's code lays them out (crlandsc's "
             "need model_type bsrnn_crlandsc)",
    .finish = amanteur_finish,
    .record = bsrnn_amanteur_record,
    .describe = amanteur_describe};

/* The fork has the same tensors and options: only a configuration's model_type tells it. */
const saw_model saw_model_bsrnn_crlandsc = {.name = "bsrnn_crlandsc",
                                            .title = "BSRNN (crlandsc)",
                                            .options_bytes = sizeof(bsrnn_amanteur_options),
                                            .section = "model",
                                            .options = amanteur_table,
                                            .recognise = amanteur_recognise,
                                            .claims = amanteur_claims,
                                            .defaults = crlandsc_defaults,
                                            .infer = amanteur_infer,
                                            .finish = amanteur_finish,
                                            .record = bsrnn_amanteur_record,
                                            .describe = amanteur_describe};
