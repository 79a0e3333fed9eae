/*
 * ia3.h - options of IA3.
 */
#ifndef SAW_IA3_H
#define SAW_IA3_H

#include "nn/adapter.h"

typedef struct saw_ia3_options {
    bool input; /* the factors are those of what goes in, as usual behind an activation */
} saw_ia3_options;

#endif
