/*
 * oft.h - options of OFT.
 */
#ifndef SAW_OFT_H
#define SAW_OFT_H

#include "nn/adapter.h"

typedef struct saw_oft_options {
    int block;   /* order of the rotations; where it does not divide, the nearest that does */
    int terms;   /* of the series; 0: Cayley's transform itself, which turns the other way */
    bool shared; /* one rotation for all blocks */
} saw_oft_options;

/** The order that is used for so many inputs. */
int64_t saw_oft_block(const saw_oft_options *o, int64_t in);

#endif
