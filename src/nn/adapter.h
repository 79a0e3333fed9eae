/*
 * adapter.h - adapters: small trainable tensors that change the layers of a model that is otherwise
 * frozen.
 *
 * An adapter acts on a site, the weights of one layer (one matrix, or one a band), by recording
 * ops: `weight` gives W_eff from W, `apply` the same change on the layer's output, which is cheaper
 * while the adapter is trained. Both are recorded from one set of tensors, and a test holds one
 * against the other. With frozen tensors, what `weight` records is computed once, when weights are
 * bound: that is merging. An adapter has no backward and no device code of its own.
 *
 * Which layers are adapted is a table of globs, looked up by the name of a matrix's module; it
 * belongs to the graph.
 */
#ifndef SAW_ADAPTER_H
#define SAW_ADAPTER_H

#include "core/graph.h"

typedef struct saw_site {
    const char
        *module; /* name in the present scope; of bands with one %d, which stands for the band */
    int bands;   /* 0: one matrix, x [..., in] -> [..., out] */
    bool ragged; /* bands give different numbers of features: [B,T,R] */
} saw_site;

typedef struct saw_adapter {
    const char *name; /* "lora" */
    size_t options_bytes;
    /** How many tensors a matrix has. */
    int tensors;
    /** Declare them for a matrix [out, in] whose module is named in the present scope. */
    void (*declare)(saw_graph *g, const void *options, const char *module, int64_t out, int64_t in,
                    saw_val *tensors);
    /** W_eff [out, in] from W. */
    saw_val (*weight)(saw_graph *g, const void *options, const saw_val *tensors, saw_val w);
    /** y [...] plus what the adapter adds to it for x; tensors[i] of matrix m is tensors[m *
     * adapter->tensors + i]. NULL: `weight` only. */
    saw_val (*apply)(saw_graph *g, const void *options, const saw_site *site,
                     const saw_val *tensors, saw_val x, saw_val y);
} saw_adapter;

/** Row of the table by name (adapters.def), or NULL. */
const saw_adapter *saw_adapter_named(const char *name);

typedef struct saw_adapted {
    const char *glob; /* of modules, by full name; the first row that matches counts */
    const saw_adapter *adapter;
    const void *options;
    bool attached; /* by `apply` where it can be; else by `weight` */
} saw_adapted;

typedef struct saw_adapters {
    int count;
    const saw_adapted *rows;
} saw_adapters;

/** Adapt the layers that are recorded from now on; borrows the set while recording. NULL: none. */
void nn_adapt(saw_graph *g, const saw_adapters *set);

/** For layers: y = x w^T + bias with whatever adapts the site. w and bias: one a band, or one; bias
 * NULL or 0: none. What `weight` gives is the tap module + ".weight.merged". */
saw_val nn_site(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                const saw_val *bias);
/** For adapters: the plain product at a site. */
saw_val nn_site_product(saw_graph *g, const saw_site *site, saw_val x, const saw_val *w,
                        const saw_val *bias);

/** Module name of matrix m of a site into out. */
void nn_site_module(const saw_site *site, int m, char out[256]);

#endif
