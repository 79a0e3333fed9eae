/*
 * adapter.h - adapters: small trainable tensors that change the layers of a model that is otherwise
 * frozen; and the table that says what of a model trains.
 *
 * An adapter acts on a site, the weights of one layer, matrix by matrix: one, or one a band, or
 * those of a recurrent layer. It records ops: `weight` gives W_eff from W, `apply` the same change
 * on what goes into and comes out of the layer, which is cheaper while the adapter is trained.
 * Both are recorded from one set of tensors, and a test holds one against the other. With frozen
 * tensors, what `weight` records is computed once, when weights are bound: that is merging. An
 * adapter has no backward and no device code of its own. An insert is a small module behind a part
 * of a layer instead, and cannot be merged.
 *
 * Every weight is a matrix [out, in] to an adapter: that of a convolution [out, C, k, k] has
 * in = C k k, that of a transposed one [C, out, k, k] the same.
 */
#ifndef SAW_ADAPTER_H
#define SAW_ADAPTER_H

#include "core/program.h"

typedef enum saw_site_kind {
    SAW_SITE_LINEAR,
    SAW_SITE_CONV,
    SAW_SITE_TRANSPOSED,
    SAW_SITE_MATRIX /* a weight alone (of a recurrent layer): the module's name is its own */
} saw_site_kind;

typedef struct saw_site {
    const char *module; /* name in the present scope; of bands with one %d, which stands for the
                           band. Its tensors are module + ".weight", ".bias" */
    int bands;          /* 0: one matrix, x [..., in] -> [..., out] */
    bool ragged;        /* bands give different numbers of features: [B,T,R] */
    saw_site_kind kind;
} saw_site;

/** One matrix of a site. */
typedef struct saw_matrix {
    const char *module; /* in the present scope */
    int64_t out, in;
    saw_dims kernel; /* axes of a convolution's kernel: in = channels * their product; n 0: none */
} saw_matrix;

enum { SAW_ADAPTER_TENSORS = 8 };

typedef enum saw_adapter_option_kind {
    SAW_ADAPTER_INT,
    SAW_ADAPTER_BOOL,
    SAW_ADAPTER_DOUBLE,
    SAW_ADAPTER_WORD /* as its number; the key holds the words: "start:zero,pissa" */
} saw_adapter_option_kind;

typedef struct saw_adapter_option {
    const char *key;
    saw_adapter_option_kind kind;
    size_t offset;      /* of an int, bool, double or int */
    double least, most; /* of numbers */
} saw_adapter_option;

/** Random numbers of one tensor, uniform in [-1, 1): a function of seed, name and index. */
typedef struct saw_adapter_random {
    uint64_t seed, name;
} saw_adapter_random;
double saw_adapter_uniform(const saw_adapter_random *r, int64_t i);

typedef struct saw_adapter {
    const char *name; /* "lora" */
    const char *title;
    size_t options_bytes;
    const void *defaults;
    const saw_adapter_option *keys; /* ends with key NULL */
    /** Whether it works on such a matrix; a row of the table is passed over where it does not.
     * NULL: on all. */
    bool (*fits)(const void *options, const saw_matrix *m);
    /** Declare its tensors (nn_adapter_tensor); returns how many. */
    int (*declare)(saw_graph *g, const void *options, const saw_matrix *m, saw_val *tensors);
    /** W_eff [out, in] from W. *bias (0: the layer has none) may be replaced; bias NULL: there can
     * be none. */
    saw_val (*weight)(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val w, saw_val *bias);
    /** The whole layer: y for x (nn_site_product and what changes it). Tensor i of matrix m is
     * tensors[m * SAW_ADAPTER_TENSORS + i]; bias NULL: none. NULL: `weight` only. */
    saw_val (*apply)(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, const saw_val *w, const saw_val *bias);
    /** Whether `start` reads W. NULL: no. */
    bool (*start_reads)(const void *options);
    /** Start values: out[i] for tensor i, zeros at first. w [out, in] or NULL. */
    saw_status (*start)(saw_context *ctx, const void *options, const saw_matrix *m, const float *w,
                        const saw_adapter_random *random, float *const *out);
    /** Of an insert, instead of fits .. apply: x [..., D] -> [..., D]. */
    saw_val (*insert)(saw_graph *g, const void *options, const saw_matrix *m,
                      const saw_val *tensors, saw_val x);
} saw_adapter;

/** Row of the table by name (adapters.def), or NULL; row i, NULL at the end. */
const saw_adapter *saw_adapter_named(const char *name);
const saw_adapter *saw_adapter_at(int i);

/* ---- the table of what trains ---------------------------------------------------------------- */

typedef enum saw_adapted_what {
    SAW_ADAPTED_ADAPTER, /* the module stays as it is, the adapter's tensors train */
    SAW_ADAPTED_TRAIN,   /* its own tensors train */
    SAW_ADAPTED_FREEZE,
    SAW_ADAPTED_BIAS, /* its bias trains */
    SAW_ADAPTED_NORM  /* its tensors train if a norm uses them */
} saw_adapted_what;

/** A row. For a module's adapter the first row counts that names an adapter that fits, `train` or
 * `freeze`; for a tensor the first that says `train`, `freeze`, or `bias` or `norm` where it is
 * one. No row: frozen. */
typedef struct saw_adapted {
    const char *glob; /* of modules, by full name: a tensor's name without its last part */
    saw_adapted_what what;
    const saw_adapter *adapter;
    const void *options; /* of the adapter */
    bool attached;       /* by `apply` where it can be; else by `weight` */
    double lr;           /* factor of the learning rate; 0: 1 */
} saw_adapted;

typedef struct saw_adapters {
    int count;
    const saw_adapted *rows;
    double strength; /* share of the change that an adapter makes to weights; 0: all of it */
} saw_adapters;

/** Adapt the layers that are recorded from now on; borrows the set while recording. NULL: none. */
void nn_adapt(saw_graph *g, const saw_adapters *set);

/** A matrix, or an insert, that was adapted. Lives as long as the graph; names are full. */
typedef struct nn_adapted {
    const struct nn_adapted *next;
    const saw_adapted *row;
    const char *module;
    const char *weight, *bias; /* the checkpoint's tensors; bias also where there is none. Of an
                                  insert: NULL */
    saw_site_kind kind;
    saw_matrix matrix; /* its module is the full name too */
    saw_dims dims;     /* of the weight */
    int tensors;
    saw_val tensor[SAW_ADAPTER_TENSORS];
} nn_adapted;
/** The first that was adapted on this graph, NULL: none. */
const nn_adapted *nn_adapted_first(const saw_graph *g);

typedef struct nn_trained {
    int tensors, adapted;          /* that train; matrices with an adapter */
    int64_t numbers, base_numbers; /* in what trains; in the whole model without adapters */
} nn_trained;
/** After recording: mark what the rows say as trainable. SAW_ERR_ARGUMENT when nothing trains. */
saw_status nn_trainability(saw_graph *g, const saw_adapters *set, nn_trained *out);
/** The learning rate's factor of a tensor that trains. */
double nn_lr_factor(const saw_graph *g, const saw_adapters *set, const char *name);
/** Put start values of all tensors of adapters among the weights, which hold the base: a function
 * of seed, names and the base's weights. */
saw_status nn_adapters_start(const saw_graph *g, saw_weights *w, uint64_t seed);

/** Rows from text, one a line or between semicolons: "GLOB WHAT [key=value ...]", WHAT being
 * train, freeze, bias, norm or an adapter with its options, each with lr=FACTOR:
 *
 *     layers.0.* freeze
 *     *.to_qkv lora rank=16 alpha=32 lr=2
 *     * bias
 *
 * Adapters are attached. The set is freed by saw_adapters_free. */
saw_status saw_adapters_parse(saw_context *ctx, const char *text, saw_adapters **out);
void saw_adapters_free(saw_context *ctx, saw_adapters *set);

/* ---- for layers ------------------------------------------------------------------------------ */

/** y = x w^T + bias with whatever adapts the site. w and bias: one a band, or one; bias NULL or 0:
 * none. What `weight` gives is the tap of the tensor's name + ".merged". */
saw_val nn_site(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                const saw_val *bias);
/** For layers with an op of their own: W_eff in the dims of w; *bias may be replaced (NULL: there
 * is none). */
saw_val nn_site_weight(saw_graph *g, const saw_site *site, saw_val w, saw_val *bias);

/* ---- for adapters ---------------------------------------------------------------------------- */

/** The plain product at a site. */
saw_val nn_site_product(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                        const saw_val *bias);
/** Module name of matrix m of a site into out. */
void nn_site_module(const saw_site *site, int m, char out[256]);
/** Vectors, one a matrix of a site, as one factor of what comes out of it (or goes in):
 * [1, ..., features] for v [...], each the count of elements of its own. */
saw_val nn_site_features(saw_graph *g, const saw_site *site, const saw_val *vectors, saw_val v);
/** The tensor module + "." + name. */
saw_val nn_adapter_tensor(saw_graph *g, const saw_matrix *m, const char *name, saw_dims dims,
                          bool frozen);

#endif
