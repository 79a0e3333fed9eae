/*
 * dataset.h - songs with stems, as people have them on disk, seen as one thing: songs, and for each
 * a few sources of equal rate, channels and length whose sum is the mixture.
 *
 * Where files lie is the matter of a layout, a row of the table in datasets.def:
 *
 *   musdb     a folder a song: mixture.wav (optional), vocals.wav, drums.wav, ...
 *   moisesdb  song/data.json, song/stem/track.wav: a stem is the sum of the files in its folder
 *   folder    a folder a stem: stem/name.wav; equal names are stems of one song
 *   csv       a table with the columns path, stem (or instrum) and song (optional)
 *   pairs     a mixture and a target: song.mix.wav and song.target.wav, or the folders mixture and
 *             target with files of equal names
 *
 * A folder train/ beside test/ or valid/ is the training part, valid/ (or validation/) is what it
 * is validated with, and test/ is left alone. Audio is whatever io/audio.h opens, at any rate, mono
 * or stereo; it is brought to the rate and channels of the data set while it is read.
 *
 * Sources: the wanted stems in their order, and behind them, where these leave anything of a
 * mixture out, one source without a name that holds the rest. The rest of a song is the sum of its
 * stems that no wanted one takes; where a song has none of those but a mixture, it is the mixture
 * less the wanted stems. So a pair is a song of two sources that add up to its mixture, as in every
 * other layout.
 */
#ifndef SAW_DATASET_H
#define SAW_DATASET_H

#include "base/base.h"

enum { SAW_DATASET_MAX_STEMS = 63, SAW_DATASET_MAX_CHANNELS = 64 };

typedef struct saw_dataset_options {
    const char *layout; /* name of a row; NULL: recognised */
    /* Wanted stems: "vocals" is a file or folder of that name (in any case), "keys=piano+organ" a
     * sum. "other" and "residual" are the rest, and so are "instrumental", "accompaniment" and
     * "rest" where nothing has that name. NULL: every stem there is, by name. */
    const char *const *stems;
    int n_stems;
    bool complete;         /* leave songs out that lack a wanted stem; else it is silent in them */
    int rate_hz, channels; /* 0: 44100, 2 */
} saw_dataset_options;

typedef enum saw_song_part { SAW_SONG_TRAIN, SAW_SONG_VALID, SAW_SONG_UNUSED } saw_song_part;

typedef struct saw_song {
    const char *name; /* unique; as its path below the data set, without an ending */
    int64_t samples;  /* at the data set's rate, of its longest file */
    uint64_t has;     /* bit s: source s is there (it may be silent all the same) */
    saw_song_part part;
} saw_song;

typedef struct saw_dataset saw_dataset;

/**
 * Find the songs and read the headers of their files (files that do not state a length are read
 * through once). What is left out or silent is logged, one sentence each kind. SAW_ERR_ARGUMENT:
 * an unknown layout, one that cannot be told, a stem that no song has. SAW_ERR_IO and
 * SAW_ERR_FORMAT: nothing there, or a file that cannot be read, by its name.
 */
saw_status saw_dataset_open(saw_context *ctx, const char *path, const saw_dataset_options *options,
                            saw_dataset **out);
void saw_dataset_close(saw_dataset *d);

const char *saw_dataset_path(const saw_dataset *d);
/** The layout's name. */
const char *saw_dataset_layout(const saw_dataset *d);
int saw_dataset_rate_hz(const saw_dataset *d);
int saw_dataset_channels(const saw_dataset *d);
/** Songs by name; their numbers never change. */
int saw_dataset_songs(const saw_dataset *d);
const saw_song *saw_dataset_song(const saw_dataset *d, int song);
/** Wanted stems, and sources: one more where there is a rest. */
int saw_dataset_stems(const saw_dataset *d);
const char *saw_dataset_stem(const saw_dataset *d, int stem);
int saw_dataset_sources(const saw_dataset *d);
/** Name and what it is of row i of the table of layouts; NULL behind the last. */
const char *saw_dataset_layout_name(int i);
const char *saw_dataset_layout_help(int i);

/* ---- train and validate ---------------------------------------------------------------------- */

typedef struct saw_split_options {
    double fraction; /* of the songs that validate, at least one; by a hash of seed and name, so
                        that a song that is added moves no other */
    uint64_t seed;
    const char *const *valid; /* or these songs, by name; */
    int n_valid;
    const char *const *train; /* and these train; NULL: all others */
    int n_train;
} saw_split_options;

/**
 * Set saw_song.part of every song. A set that came with a folder valid/ keeps its parts when no
 * lists are given. SAW_ERR_ARGUMENT: a name that no song has, a song in both lists, or nothing left
 * to train with.
 */
saw_status saw_dataset_split(saw_dataset *d, const saw_split_options *options);

/* ---- reading --------------------------------------------------------------------------------- */

/** Reads pieces of songs; open files and decoded audio are kept for a while. One thread at a time,
 * but any number of readers (each with a context of its own) on one data set. */
typedef struct saw_dataset_reader saw_dataset_reader;

/** cache_bytes: of decoded audio at most; 0: 256 MB. Borrows d. */
saw_status saw_dataset_reader_open(saw_context *ctx, const saw_dataset *d, size_t cache_bytes,
                                   saw_dataset_reader **out);
void saw_dataset_reader_close(saw_dataset_reader *r);

/**
 * Samples [start, start + n) of a source into planar[channels][n]; SAW_DATASET_MIXTURE: the sum of
 * all. What is before the start or behind the end is silence. The bits depend on nothing but the
 * arguments.
 */
enum { SAW_DATASET_MIXTURE = -1 };
saw_status saw_dataset_read(saw_dataset_reader *r, int song, int source, int64_t start, int64_t n,
                            float *const *planar);

#endif
