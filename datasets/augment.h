/*
 * augment.h - what is done to chunks on their way into a batch, so that few songs look like many.
 *
 * Each kind is a row of one table, with a chance and the range of its amount. What happens to a
 * chunk depends on (seed, step, item, source, kind) and nothing else: adding a kind changes no
 * other. The mixture is made afterwards, from what the sources became.
 *
 *   kind        amount               what it does to a source
 *   layer       dB      -6..0        a second chunk of the same stem, from anywhere, is added
 *   mixup       dB      -6..0        a second, aligned song is added to the whole item
 *   time        factor  0.9..1.1     as long again, in tune (Rubber Band)
 *   pitch       steps   -2..2        semitones, at the same tempo (Rubber Band)
 *   polarity                         x -> -x
 *   swap                             the channels in reverse order
 *   eq          dB      -6..6        gains of a low shelf, a bell and a high shelf somewhere
 *   saturation  dB      0..12        x -> tanh(g x) / g
 *   reverb      dB      -20..-8      level of a tail, 0.3 to 1.5 s long, beside the chunk's own
 *   codec       quality 0..0.6       through Vorbis or MP3 and back
 *   gain        dB      -6..6        x -> g x
 *   mute                             silence
 *   bleed       dB      -40..-20     another source of the item leaks in
 *
 * In an aligned item time and pitch are the same for all sources, so that it stays music. Without
 * Rubber Band these two are SAW_ERR_UNSUPPORTED.
 */
#ifndef SAW_AUGMENT_H
#define SAW_AUGMENT_H

#include "datasets/dice.h"

typedef enum saw_augment_kind {
    SAW_AUGMENT_LAYER,
    SAW_AUGMENT_MIXUP,
    SAW_AUGMENT_TIME,
    SAW_AUGMENT_PITCH,
    SAW_AUGMENT_POLARITY,
    SAW_AUGMENT_SWAP,
    SAW_AUGMENT_EQ,
    SAW_AUGMENT_SATURATION,
    SAW_AUGMENT_REVERB,
    SAW_AUGMENT_CODEC,
    SAW_AUGMENT_GAIN,
    SAW_AUGMENT_MUTE,
    SAW_AUGMENT_BLEED,
    SAW_AUGMENT_COUNT
} saw_augment_kind;

/** An entry of a chain. Of several for one kind and stem the last counts, so that "all stems" goes
 * first. The order of kinds is that of the table. */
typedef struct saw_augment {
    saw_augment_kind kind;
    double chance, low, high;
    char stem[32]; /* only of this stem; "": of every source, the rest as well */
} saw_augment;

/** From `[stem/]kind[=low..high][@chance]`: "gain", "vocals/pitch=-3..3@0.2". What is not said is
 * the kind's own. SAW_ERR_ARGUMENT says what is possible. */
saw_status saw_augment_parse(saw_context *ctx, const char *text, saw_augment *out);
/** Name, unit of the amount ("" for none) and one line of help of a kind. */
const char *saw_augment_name(saw_augment_kind kind);
const char *saw_augment_unit(saw_augment_kind kind);
const char *saw_augment_help(saw_augment_kind kind);

/* ---- for the sampler ------------------------------------------------------------------------- */

enum { SAW_AUGMENT_MAX_CHANNELS = 64 };

typedef struct saw_augment_chain {
    const saw_augment *entries;
    int count;
    int rate_hz, channels;
} saw_augment_chain;

/** Does it happen here? at: seed, step, item and source (its purpose is set here, and returned
 * ready for more throws). stem: name of the source, NULL for the rest. */
bool saw_augment_happens(const saw_augment_chain *chain, saw_augment_kind kind, const char *stem,
                         saw_dice *at, double *amount);
/** All kinds from polarity to mute, on x[channels][n]. */
saw_status saw_augment_source(saw_context *ctx, const saw_augment_chain *chain, const char *stem,
                              saw_dice at, float *x, int64_t n);
/** Stretch in[channels][n_in] to out[channels][n] and shift it by so many semitones. */
saw_status saw_augment_stretch(saw_context *ctx, const saw_augment_chain *chain, const float *in,
                               int64_t n_in, double semitones, float *out, int64_t n);

#endif
