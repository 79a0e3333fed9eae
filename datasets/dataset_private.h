/*
 * dataset_private.h - what a data set is made of, for the files of this folder.
 */
#ifndef SAW_DATASET_PRIVATE_H
#define SAW_DATASET_PRIVATE_H

#include "datasets/dataset.h"
#include "datasets/layout.h"

typedef struct saw_data_file {
    const char *path, *stem; /* borrow from the findings */
    int channels, rate_hz;
    int64_t frames; /* at its own rate */
} saw_data_file;

/** Files whose signed sum is a source. */
typedef struct saw_data_source {
    int first, count; /* of saw_dataset.terms */
} saw_data_source;

typedef struct saw_data_term {
    int file;
    float sign;
} saw_data_term;

typedef struct saw_data_song {
    saw_song song;
    int first_file, files;
} saw_data_song;

struct saw_dataset {
    saw_context *ctx;
    char *path;
    const saw_layout *layout;
    saw_findings found; /* sorted by song, stem, path; file i is finding i */
    saw_data_file *files;
    saw_data_song *songs;
    int song_count, stem_count, source_count;
    char *stem_names[SAW_DATASET_MAX_STEMS];
    int rate_hz, channels;
    bool parted;              /* songs came with their parts, in train/ and valid/ */
    saw_data_source *sources; /* [song_count][source_count] */
    saw_data_term *terms;
};

/** Find and sort the files, without opening them. `files` and `songs` are filled but for what only
 * opening the files tells. options as for saw_dataset_open. */
saw_status saw_dataset_find(saw_context *ctx, const char *path, const saw_dataset_options *options,
                            saw_dataset **out);

#endif
