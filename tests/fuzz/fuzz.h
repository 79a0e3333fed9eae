/*
 * fuzz.h - what a fuzzer has: LLVMFuzzerTestOneInput, called with any bytes, must return. It aborts
 * when the library breaks a promise; crashes and bad reads are for the sanitizers to find.
 */
#ifndef SAW_TEST_FUZZ_H
#define SAW_TEST_FUZZ_H

#include "base/base.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/** Abort with a line on stderr when the promise does not hold. */
#define FUZZ_PROMISE(what)                                                                         \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #what);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/** A context that all inputs share. */
static inline saw_context *fuzz_context(void)
{
    static saw_context *ctx;
    static const saw_options options = {.threads = 1};
    if (!ctx)
        FUZZ_PROMISE(saw_context_open(&ctx, &options) == SAW_OK);
    return ctx;
}

#endif
