/*
 * lora.h - options of LoRA and DoRA.
 */
#ifndef SAW_LORA_H
#define SAW_LORA_H

#include "nn/adapter.h"

typedef enum saw_lora_start { SAW_LORA_ZERO, SAW_LORA_PISSA } saw_lora_start;

typedef struct saw_lora_options {
    int rank;
    double alpha;
    bool rslora; /* s = alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732) */
    bool bias;   /* B has a bias, which is trained too */
    /* saw_lora_start: B = 0, or A and B the largest part of W, which W loses (arXiv 2404.02948). */
    int start;
} saw_lora_options;

double saw_lora_scale(const saw_lora_options *o);

enum { SAW_LORA_A, SAW_LORA_B };
/** For both: A [rank, in] and B [out, rank], with the axes of a convolution; their product. */
void saw_lora_declare(saw_graph *g, const saw_lora_options *o, const saw_matrix *m,
                      saw_val *tensors);
saw_val saw_lora_product(saw_graph *g, const saw_matrix *m, int rank, saw_val a, saw_val b);
/** x A^T B^T at a site, `first` being the tensor A of a matrix and first + 1 its B. */
saw_val saw_lora_apply(saw_graph *g, const saw_site *site, const saw_val *tensors, int first,
                       saw_val x);
/** Kaiming-uniform A, B zero. */
void saw_lora_start_values(const saw_lora_options *o, const saw_matrix *m,
                           const saw_adapter_random *random, float *a);

/** A and B [out, rank] whose s B A is the largest part of w; see saw_low_rank for the sweeps. */
saw_status saw_lora_pissa(saw_context *ctx, const saw_lora_options *o, const saw_matrix *m,
                          const float *w, int sweeps, float *a, float *b);

#endif
