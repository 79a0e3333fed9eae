/*
 * graph.h - the tape: values and entries as a model records them.
 *
 * A model is one C function that touches no data: it takes values, records ops and names outputs.
 * Errors are sticky: value 0 is invalid and passes through every recorder; saw_graph_status tells
 * what was wrong and in which scope.
 */
#ifndef SAW_GRAPH_H
#define SAW_GRAPH_H

#include "core/op.h"

typedef int32_t saw_val; /* 0 is invalid or absent */
typedef struct saw_graph saw_graph;

typedef enum saw_value_kind {
    SAW_VALUE_NONE,
    SAW_VALUE_INPUT, /* given by the caller of the program */
    SAW_VALUE_PARAM, /* a tensor of the checkpoint, under the checkpoint's own name */
    SAW_VALUE_ENTRY, /* output of an entry */
    SAW_VALUE_VIEW   /* other dims and strides on a base */
} saw_value_kind;

typedef struct saw_value {
    saw_value_kind kind;
    saw_dims dims;
    const char *name; /* input, parameter, output or tap; else NULL. Owned by the graph */
    int entry;        /* of an entry's output: which entry; else -1 */
    /* A view keeps the first `lead` axes of its base and gives the rest own strides (elements of
     * the base). */
    saw_val base;
    int lead;
    int64_t offset, strides[SAW_MAX_DIMS];
    bool output, tap, trainable, frozen;
    saw_val grad; /* of a root value after differentiation */
    bool grad_started;
} saw_value;

typedef struct saw_entry {
    const saw_op *op;
    const void *attr;
    int n_in, n_out;
    saw_val *in, *out;
    const char *scope; /* full name */
    bool backward;
    uint32_t add;
    int forward;  /* of a backward entry: the entry it belongs to; else -1 */
    int original; /* number of a recomputed entry's original, of a backward entry's forward entry;
                     else its own */
    int segment;  /* innermost checkpoint scope that it was recorded in; 0: none */
} saw_entry;

saw_status saw_graph_open(saw_context *ctx, saw_graph **out);
void saw_graph_close(saw_graph *g);
saw_status saw_graph_status(const saw_graph *g);
saw_context *saw_graph_context(saw_graph *g);
/** Record an error (the first one stays); returns 0. */
saw_val saw_graph_fail(saw_graph *g, saw_status code, const char *fmt, ...) SAW_PRINTF(3, 4);
/** A copy of n bytes that lives as long as the graph; NULL (and the sticky error) when memory
 * fails. */
void *saw_graph_copy(saw_graph *g, const void *bytes, size_t n);

/** Let the graph own an object (an FFT plan that ops borrow): close(object) is called when the
 * graph is closed, or now when memory fails. */
void saw_graph_own(saw_graph *g, void *object, void (*close)(void *object));

/** One pointer for the floor above, that layers ask while they record. NULL at first. */
void saw_graph_set_user(saw_graph *g, const void *user);
const void *saw_graph_user(const saw_graph *g);

/* ---- scopes and names ------------------------------------------------------------------------ */

enum {
    SAW_SCOPE_SHARED = 1,     /* parameters may be named again in it */
    SAW_SCOPE_CHECKPOINT = 2, /* a checkpoint: what backward needs of it may be computed again */
    SAW_SCOPE_CHECKPOINT_FINE = 4 /* the same in a nested plan only */
};
typedef enum saw_checkpointing {
    SAW_CHECKPOINT_NONE,
    SAW_CHECKPOINT_PLAIN, /* the outermost scopes with SAW_SCOPE_CHECKPOINT: one more forward */
    SAW_CHECKPOINT_NESTED /* all flagged scopes, those in others too: about two more forwards */
} saw_checkpointing;
/** Whether backward computes the values inside of checkpoint scopes again instead of keeping them
 * (Chen et al., arXiv 1604.06174). Before recording; NONE at first. Changes no bit. */
void saw_graph_checkpoint(saw_graph *g, saw_checkpointing how);
/** Enter a scope; `name` may hold dots and printf directives. "" adds nothing to names. */
void saw_scope(saw_graph *g, int flags, const char *fmt, ...) SAW_PRINTF(3, 4);
void saw_scope_end(saw_graph *g);
/** The full name of `name` in the present scope; lives as long as the graph. */
const char *saw_scope_name(saw_graph *g, const char *name);

saw_val saw_input(saw_graph *g, const char *name, saw_dims dims);
/** Declare a parameter where it is used, under scope + name. Declared twice outside a SHARED scope:
 * an error. */
saw_val saw_param(saw_graph *g, const char *name, saw_dims dims);
/** The same for tensors that are never trained (buffers of the checkpoint, rotary frequencies). */
saw_val saw_param_frozen(saw_graph *g, const char *name, saw_dims dims);
/** Name a value as an output of the graph. */
void saw_output(saw_graph *g, const char *name, saw_val v);
/** Name a value as a tap under the present scope; returns the value. */
saw_val saw_tap(saw_graph *g, const char *name, saw_val v);

/* ---- recording ------------------------------------------------------------------------------- */

/** Record an op. Returns its first output; the others follow by number. attr is copied. */
saw_val saw_record(saw_graph *g, const saw_op *op, const void *attr, int n_in, const saw_val *in,
                   int n_out);
/** One output. */
#define SAW_RECORD(g, op, attr, ...)                                                               \
    saw_record(g, op, attr, (int)(sizeof((saw_val[]){__VA_ARGS__}) / sizeof(saw_val)),             \
               (saw_val[]){__VA_ARGS__}, 1)

saw_dims saw_dims_val(const saw_graph *g, saw_val v);     /* n == 0 for value 0 */
int64_t saw_dim(const saw_graph *g, saw_val v, int axis); /* negative axes count from the end */

/** Views: the last axis [.., n] cut to [.., count] from start; split to [.., a, n / a]; the last
 * two merged. */
saw_val saw_slice_last(saw_graph *g, saw_val v, int64_t start, int64_t count);
saw_val saw_split_last(saw_graph *g, saw_val v, int64_t a);
saw_val saw_merge_last(saw_graph *g, saw_val v);
/** Other dims on the same elements. The base is then kept whole (no tile of it stays in scratch).
 */
saw_val saw_reshape(saw_graph *g, saw_val v, saw_dims dims);
/** Axes in another order, the base kept whole. */
saw_val saw_permute(saw_graph *g, saw_val v, const int *order);

/* ---- reading the tape ------------------------------------------------------------------------ */

int saw_graph_values(const saw_graph *g); /* valid numbers are 1 .. this - 1 */
const saw_value *saw_graph_value(const saw_graph *g, saw_val v);
int saw_graph_entries(const saw_graph *g);
const saw_entry *saw_graph_entry(const saw_graph *g, int i);
/** Value of that name, or 0. Parameters by full name. */
saw_val saw_graph_find(const saw_graph *g, const char *name);
/** The root that a value's numbers live in: itself, or the base of a view. */
saw_val saw_root(const saw_graph *g, saw_val v);

/* ---- the differentiate pass ------------------------------------------------------------------ */

/** Mark the parameters whose full name matches the glob (`*` and `?`) as trainable; returns how
 * many. */
int saw_graph_train(saw_graph *g, const char *glob);
/** Append the backward entries of d loss / d trainable; loss is a single number. Its own gradient
 * is the input "gradient of the loss" [1]. The gradients of trainables add to a flat buffer. */
saw_status saw_graph_differentiate(saw_graph *g, saw_val loss);
/** The gradient value of v after it, or 0. */
saw_val saw_grad(const saw_graph *g, saw_val v);

bool saw_glob_match(const char *glob, const char *text);

#endif
