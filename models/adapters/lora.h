/*
 * lora.h - options of LoRA.
 */
#ifndef SAW_LORA_H
#define SAW_LORA_H

typedef struct saw_lora_options {
    int rank;
    double scale; /* s: alpha / rank, or alpha / sqrt(rank) (rsLoRA) */
} saw_lora_options;

#endif
