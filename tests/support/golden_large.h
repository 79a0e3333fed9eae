/*
 * golden_large.h - hold a checkpoint against a case of the large golden set: real checkpoint files,
 * whole outputs, stages at some frames, full gradients. The set lies in SAW_GOLDEN_DIR; without it
 * there are no cases.
 */
#ifndef SAW_TEST_GOLDEN_LARGE_H
#define SAW_TEST_GOLDEN_LARGE_H

#include "run/separator.h"

/** Holds the options found without a configuration against those of the configuration: fails where
 * shapes tell them, and returns whether what had to be assumed is the same. */
typedef bool large_told(const void *configured, const void *inferred);

typedef struct large_case {
    const char *name; /* folder */
    large_told *told;
    const char *tied; /* glob of parameters of which those with equal numbers are one; NULL: none */
} large_case;

/** Is the set there? Prints how many cases are skipped when not. */
bool golden_large_there(int cases);
/** The output of a stream over the whole input, and every stage. */
void golden_large_check_outputs(const large_case *c);
/** Loss and the gradient of every tensor, on the CPU. */
void golden_large_check_gradients(const large_case *c);
/** Open the checkpoint alone: options as `told` says, and the same output when they are the same.
 */
void golden_large_check_inference(const large_case *c);

/** The pieces, for tests with more to do. Paths are below the set; returned memory is the caller's.
 */
char *golden_large_path(const char *folder, const char *file);
/** Planar samples of input.wav. */
float *golden_large_input(const char *folder, int *channels, int64_t *samples);
/** Target of the loss: stem s, channel c, sample i. */
float golden_large_target(int s, int c, int64_t i);
/** Relative L2 error of every array of an .npz against the value that `find` gives by the array's
 * name; the worst is returned. Arrays below 1e-5 of the largest norm count relative to that. */
typedef saw_tensor large_find(void *user, const char *name);
double golden_large_worst(const char *path, large_find *find, void *user, char where[256]);

#endif
