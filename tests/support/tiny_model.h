/*
 * tiny_model.h - a BS-RoFormer of some ten thousand parameters as a single safetensors file, for
 * tests that need a model but not a good one. Weights are formulas of their names (formula.h).
 */
#ifndef SAW_TEST_TINY_MODEL_H
#define SAW_TEST_TINY_MODEL_H

#include "base/base.h"

typedef struct tiny_model {
    int rate_hz;         /* 0: 44100 */
    bool mono;           /* one audio channel */
    const char *stems;   /* as in JSON, "\"vocals\",\"other\""; NULL: "\"vocals\"" */
    bool identity;       /* every mask is exactly one: every stem is the mix */
    bool nan;            /* one weight is not a number */
    bool normalize;      /* wants whole-file normalisation */
    int chunk_samples;   /* 0: 16384 */
    const char *salt;    /* other weights for other salts; NULL: "" */
    bool without_config; /* leave the configuration out of the file */
} tiny_model;

/** Write it; fails the test when that does not work. */
void tiny_model_write(const char *path, const tiny_model *options);
/** The configuration as JSON, as it is in the file; static storage, valid until the next call. */
const char *tiny_model_config(const tiny_model *options);

/** A Spleeter of a few filters, 8000 Hz, stems vocals and drums: with batch norms and dropout. */
void tiny_unet_write(const char *path);

#endif
