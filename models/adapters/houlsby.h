/*
 * houlsby.h - options of bottleneck adapters.
 */
#ifndef SAW_HOULSBY_H
#define SAW_HOULSBY_H

#include "nn/adapter.h"

typedef struct saw_houlsby_options {
    int width; /* of the bottleneck */
} saw_houlsby_options;

#endif
