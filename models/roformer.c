/*
 * roformer.c - BS-RoFormer (Lu et al., arXiv 2309.02612) and Mel-Band RoFormer (Wang et al., arXiv
 * 2310.01809).
 *
 * B batch, C audio channels, N samples, T frames, K bins, F bands, R features of all bands of a
 * frame (re and im of every bin and channel), D width, H heads, d width of a head.
 *
 * The spectrum is cut into bands; every band of every frame becomes a vector of D numbers. Blocks
 * of two transformers follow each other, one along time for every band, one along the bands of
 * every frame. A small network a band then gives a complex mask, which multiplies the spectrum.
 *
 * The two families differ in the band table (given widths; overlapping mel bands whose masks are
 * averaged), in where the norms at the end stand and in how the depth of the mask network is
 * counted.
 */
#include "models/roformer.h"
#include "nn/nn.h"

#include <math.h>

/* x [B,T,F,D] + attention along one axis + feed-forward. */
static saw_val transformer_layer(saw_graph *g, saw_val x, const roformer_options *o, int along)
{
    int64_t inner = (int64_t)o->heads * o->dim_head;
    saw_val h = nn_rmsnorm(g, "0.norm", x);
    saw_val qkv = nn_linear(g, "0.to_qkv", h, 3 * inner, o->qkv_bias); /* [B,T,F,3 H d] */
    saw_val q = nn_heads(g, qkv, 0, 3, o->heads);                      /* [B,T,F,H,d] */
    saw_val k = nn_heads(g, qkv, 1, 3, o->heads);
    saw_val v = nn_heads(g, qkv, 2, 3, o->heads);
    if (o->pope) {
        saw_val turn = nn_rotations(g, "0.pope_embed", "inv_freqs", o->dim_head, q, along);
        saw_val bias = saw_param(g, "0.pope_embed.bias", SAW_DIMS(o->heads, o->dim_head));
        q = saw_pope(g, q, turn, 0, along); /* [B,T,F,H,2d] */
        k = saw_pope(g, k, turn, saw_pope_phase(g, bias), along);
    } else {
        saw_val turn = nn_rotations(g, "0.rotary_embed", "freqs", o->dim_head / 2, q, along);
        q = saw_rope(g, q, turn, along);
        k = saw_rope(g, k, turn, along);
    }
    saw_val a = saw_attention(g, q, k, v, along, 1 / sqrt((double)o->dim_head));
    a = saw_mul_heads(g, a, saw_sigmoid(g, nn_linear(g, "0.to_gates", h, o->heads, true)));
    a = nn_linear(g, "0.to_out.0", saw_merge_last(g, a), o->dim, o->out_bias);
    return saw_add(g, x, nn_insert(g, "0", saw_tap(g, "0", a)));
}

/* The same for the linear attention block: the sequence is all frames and bands. */
static saw_val linear_layer(saw_graph *g, saw_val x, const roformer_options *o)
{
    int64_t inner = (int64_t)o->heads * o->dim_head;
    saw_val h = nn_rmsnorm(g, "0.norm", x);
    saw_val qkv = nn_linear(g, "0.to_qkv.0", h, 3 * inner, false);
    saw_val temperature = saw_param(g, "0.temperature", SAW_DIMS(o->heads, 1, 1));
    saw_val a =
        saw_linear_attention(g, nn_heads(g, qkv, 0, 3, o->heads), nn_heads(g, qkv, 1, 3, o->heads),
                             nn_heads(g, qkv, 2, 3, o->heads), temperature, 8);
    a = saw_tap(g, "0", nn_linear(g, "0.to_out.1", saw_merge_last(g, a), o->dim, false));
    return saw_add(g, x, nn_insert(g, "0", a));
}

static saw_val feed_forward(saw_graph *g, saw_val x, const roformer_options *o)
{
    saw_val h = nn_linear(g, "1.net.1", nn_rmsnorm(g, "1.net.0", x), 4 * (int64_t)o->dim, true);
    h = saw_tap(g, "1", nn_linear(g, "1.net.4", saw_gelu(g, h), o->dim, true));
    return saw_add(g, x, nn_insert(g, "1", h));
}

/* `depth` layers in the scope layers.<block>.<module>; along 0 is the linear block. */
static saw_val transformer(saw_graph *g, saw_val x, const roformer_options *o, int block,
                           int module, int depth, int along)
{
    saw_scope(g, 0, "layers.%d.%d", block, module + o->module_shift);
    for (int i = 0; i < depth; i++) {
        saw_scope(g, SAW_SCOPE_CHECKPOINT, "layers.%d", i);
        saw_scope(g, SAW_SCOPE_CHECKPOINT_FINE, "%s", "");
        x = along ? transformer_layer(g, x, o, along) : linear_layer(g, x, o);
        saw_scope_end(g);
        saw_scope(g, SAW_SCOPE_CHECKPOINT_FINE, "%s", "");
        x = feed_forward(g, x, o);
        saw_scope_end(g);
        saw_scope_end(g);
    }
    if (o->mel)
        x = nn_rmsnorm(g, "norm", x);
    saw_scope_end(g);
    return x;
}

static saw_val tap_block(saw_graph *g, int block, const char *kind, saw_val x)
{
    char name[64];
    snprintf(name, sizeof name, "layer%d.%s", block, kind);
    return saw_tap(g, name, x);
}

/* All blocks: x [B,T,F,D] -> the same. */
static saw_val trunk(saw_graph *g, saw_val x, const roformer_options *o)
{
    saw_val skip = 0; /* sum of the outputs of all earlier blocks */
    for (int i = 0; i < o->depth; i++) {
        int module = 0;
        saw_scope(g, SAW_SCOPE_CHECKPOINT_FINE, "%s", "");
        if (o->linear_depth)
            x = tap_block(g, i, "linear", transformer(g, x, o, i, module++, o->linear_depth, 0));
        if (o->skip && skip)
            x = saw_add(g, x, skip);
        x = tap_block(g, i, "time", transformer(g, x, o, i, module++, o->time_depth, 1));
        x = tap_block(g, i, "freq", transformer(g, x, o, i, module, o->freq_depth, 2));
        saw_scope_end(g);
        if (o->skip && i + 1 < o->depth)
            skip = skip ? saw_add(g, skip, x) : x;
    }
    return o->mel ? x : saw_tap(g, "final_norm", nn_rmsnorm(g, "final_norm", x));
}

/* Mask of one stem, x [B,T,F,D] -> ragged [B,T,R]. */
static saw_val mask(saw_graph *g, saw_val x, const roformer_options *o, int stem,
                    const int64_t *widths)
{
    int64_t twice[SAW_MAX_BANDS];
    for (int b = 0; b < o->bands; b++)
        twice[b] = 2 * widths[b];
    saw_scope(g, SAW_SCOPE_CHECKPOINT, "mask_estimators.%d.to_freqs", stem);
    int layers = o->mel ? o->mask_depth + 1 : o->mask_depth;
    for (int i = 0; i < layers; i++) {
        char scope[32];
        bool last = i == layers - 1;
        snprintf(scope, sizeof scope, "%%d.0.%d", 2 * i);
        x = nn_band_linear(g, scope, x, o->bands, NULL, last ? twice : NULL,
                           (int64_t)o->dim * o->mlp_expansion);
        x = last ? saw_glu(g, x, o->bands, widths) : saw_tanh(g, x);
    }
    saw_scope_end(g);
    return x;
}

void roformer_record(saw_graph *g, const void *options, saw_val mix)
{
    const roformer_options *o = options;
    const saw_stft *plan =
        nn_stft_plan(g, &(saw_stft_options){.n_fft = o->n_fft,
                                            .hop = o->hop,
                                            .win_length = o->win,
                                            .center = true,
                                            .norm = o->stft_normalized ? SAW_STFT_NORM_SQRT_NFFT
                                                                       : SAW_STFT_NORM_NONE});
    int channels = o->common.channels;
    int64_t bins = o->n_fft / 2 + 1, row = 2 * channels, widths[SAW_MAX_BANDS], features = 0;
    for (int b = 0; b < o->bands; b++) {
        widths[b] = row * o->band[b].width;
        features += widths[b];
    }
    if (!plan)
        return;
    /* Feature r of the bands is number table[r] of the frame; masks go back through the same table,
     * without bin 0 when the model clears it. */
    int32_t *table = saw_calloc(saw_graph_context(g), (size_t)features, sizeof *table);
    if (!table) {
        saw_graph_fail(g, SAW_ERR_MEMORY, "no memory for the band table");
        return;
    }
    int64_t r = 0;
    for (int b = 0; b < o->bands; b++)
        for (int64_t i = 0; i < widths[b]; i++)
            table[r++] = (int32_t)(o->band[b].first * row + i);

    saw_val spectrum = saw_tap(g, "stft", saw_stft_op(g, mix, plan));   /* [B,T,K,C,2] */
    saw_val frame = saw_merge_last(g, saw_merge_last(g, spectrum));     /* [B,T,2 K C] */
    saw_val x = o->mel ? saw_gather(g, frame, table, features) : frame; /* [B,T,R] */
    saw_scope(g, 0, "band_split.to_features");
    x = nn_band_rmsnorm(g, "%d.0", x, o->bands, widths);
    x = nn_band_linear(g, "%d.1", x, o->bands, widths, NULL, o->dim); /* [B,T,F,D] */
    saw_scope_end(g);
    x = trunk(g, saw_tap(g, "band_split", x), o);

    for (int64_t i = 0; o->zero_dc && i < features; i++)
        if (table[i] < row)
            table[i] = -1;
    for (int s = 0; s < o->common.stems; s++) {
        char name[32];
        snprintf(name, sizeof name, "mask%d", s);
        saw_val m = saw_tap(g, name, mask(g, x, o, s, widths)); /* [B,T,R] */
        m = saw_scatter(g, m, table, bins * row);               /* [B,T,2 K C] */
        saw_val y = saw_cmul(g, frame, m);
        y = saw_split_last(g, saw_split_last(g, y, bins), channels); /* [B,T,K,C,2] */
        snprintf(name, sizeof name, "masked_spec%d", s);
        y = saw_tap(g, name, y);
        int64_t samples = saw_dim(g, mix, -1);
        if (o->mel && !o->match_length)
            samples = samples / o->hop * o->hop;
        snprintf(name, sizeof name, "stem%d", s);
        saw_output(g, name, saw_istft_op(g, y, plan, samples)); /* [B,C,N] */
    }
    saw_free(saw_graph_context(g), table);
}
