/*
 * audio.h - audio files as people have them, read and written block by block in constant memory.
 *
 * Reading: libsndfile knows WAV, RF64, W64, AIFF, AU, CAF, FLAC, Ogg Vorbis, Opus, MP3 and more;
 * for everything else (m4a, video, ...) the program `ffmpeg` is started when it is installed, on
 * the first audio stream of the file. Samples are floats with full scale 1; integers are divided by
 * a power of two, so 8 to 24 bits survive exactly.
 *
 * Writing: a file appears under its name only when it is whole. Integer samples are x * 2^(bits-1)
 * rounded to nearest, ties to even, no dither: what was read from 16 bits and is written as 16 bits
 * is the same bit for bit. Clipping: unless the subtype is float, a sample beyond full scale is
 * clamped to it, and the commit reports how many were and the largest magnitude. Nothing is scaled,
 * so no second pass is needed and stems still add up; float keeps such samples as they are.
 *
 *   format  subtypes           channels  length and rate
 *   wav     float* pcm16 pcm24  1 to 64  exact; beyond 4 GB the file becomes RF64 by itself
 *   flac    pcm24* pcm16        1 to 8   exact, up to 655350 Hz
 *   ogg     (Vorbis, lossy)     1 to 64  exact, up to 200 kHz
 *   opus    (Opus, lossy)       1 to 8   llround(frames * file rate / rate); 8, 12, 16, 24 and
 *                                        48 kHz are kept, others are resampled to 48 kHz
 *   mp3     (Layer III, lossy)  1 to 2   the same; the nine MPEG rates are kept, others resampled
 *                                        to 44.1 (multiples of 11025 Hz) or 48 kHz. Decoders that
 *                                        ignore the delay tag add silence before and behind
 *
 * Channels are in the order of WAV (left, right, centre, low-frequency, ...), whatever the format.
 * (* the default.) Only wav can hold no samples at all; the others refuse that. All seven tags of
 * saw_audio_tag are kept by every format; standard output gets none.
 */
#ifndef SAW_AUDIO_H
#define SAW_AUDIO_H

#include "base/base.h"

enum { SAW_AUDIO_MAX_CHANNELS = 64, SAW_AUDIO_MIN_HZ = 1000, SAW_AUDIO_MAX_HZ = 768000 };

typedef enum saw_audio_tag {
    SAW_TAG_TITLE,
    SAW_TAG_ARTIST,
    SAW_TAG_ALBUM,
    SAW_TAG_TRACK,
    SAW_TAG_DATE,
    SAW_TAG_GENRE,
    SAW_TAG_COMMENT,
    SAW_TAG_COUNT
} saw_audio_tag;

/** UTF-8 texts by saw_audio_tag; NULL: not there. */
typedef struct saw_audio_tags {
    char *text[SAW_TAG_COUNT];
} saw_audio_tags;

/* ---- reading --------------------------------------------------------------------------------- */

/** How a reader gets to another time. */
typedef enum saw_audio_way {
    SAW_AUDIO_READS,      /* by reading up to it; back is not possible */
    SAW_AUDIO_JUMPS_NEAR, /* Ogg, MP3: exactly by reading from the start, or see saw_audio_jump */
    SAW_AUDIO_JUMPS       /* at once */
} saw_audio_way;

typedef struct saw_audio_info {
    int channels, rate_hz;
    int64_t
        frames; /* -1: not known beforehand. Exact, but for MPEG files that state a wrong length */
    const char *container; /* for people, as "WAV (Microsoft)"; live as long as the reader */
    const char *subtype;   /* as "Signed 16 bit PCM" */
    saw_audio_way way;
} saw_audio_info;

typedef struct saw_audio_reader saw_audio_reader;

/**
 * Open path; "-" is standard input. WAV from a pipe is read as it comes (also with the sizes that
 * streaming programs write: 0 or about 2 or 4 GB); any other format from a pipe is first copied to
 * an unnamed file in $TMPDIR or /tmp, because it needs seeking.
 *
 * A WAV or AIFF file whose header promises more than the file holds is refused here, other formats
 * when the end comes too early; MPEG, cut Ogg files and pipes only log a warning, their lengths are
 * not to be trusted. SAW_ERR_IO: cannot be opened, a folder, a device. SAW_ERR_FORMAT: empty, cut
 * short, no audio. SAW_ERR_UNSUPPORTED: needs ffmpeg and that is not installed, more than 64
 * channels, a rate outside 1 to 768 kHz.
 */
saw_status saw_audio_open(saw_context *ctx, const char *path, saw_audio_reader **out);
void saw_audio_close(saw_audio_reader *r);
const saw_audio_info *saw_audio_reader_info(const saw_audio_reader *r);
const saw_audio_tags *saw_audio_reader_tags(const saw_audio_reader *r);

/**
 * Read up to frames frames into planar[channels][frames]. *got < frames only at the end of the
 * audio. A sample that is not a finite number is SAW_ERR_FORMAT with its time. Allocates nothing.
 */
saw_status saw_audio_read(saw_audio_reader *r, float *const *planar, int64_t frames, int64_t *got);

/**
 * Let the next read start at this frame, exactly. Formats and pipes that cannot jump are read and
 * thrown away up to there; backwards they fail with SAW_ERR_UNSUPPORTED. Beyond the end is
 * SAW_ERR_ARGUMENT.
 */
saw_status saw_audio_seek(saw_audio_reader *r, int64_t frame);

/**
 * The same at once where the way is SAW_AUDIO_JUMPS_NEAR, but in Ogg about one jump in a hundred
 * lands some hundred frames beside, and nothing tells: for callers that can. The next
 * saw_audio_seek is exact again.
 */
saw_status saw_audio_jump(saw_audio_reader *r, int64_t frame);

/* ---- writing --------------------------------------------------------------------------------- */

typedef enum saw_audio_kind {
    SAW_AUDIO_WAV,
    SAW_AUDIO_FLAC,
    SAW_AUDIO_OGG,
    SAW_AUDIO_OPUS,
    SAW_AUDIO_MP3
} saw_audio_kind;

typedef enum saw_audio_subtype {
    SAW_AUDIO_DEFAULT,
    SAW_AUDIO_PCM_16,
    SAW_AUDIO_PCM_24,
    SAW_AUDIO_FLOAT
} saw_audio_subtype;

typedef struct saw_audio_format {
    saw_audio_kind kind;
    saw_audio_subtype subtype;
    double quality; /* lossy formats: above 0 (small) to 1 (best), 0: the default of the format */
} saw_audio_format;

/**
 * From what a person types: format wav|flac|ogg|opus|mp3 and subtype pcm_16|16|pcm_24|24|float|f32,
 * in any case; NULL or "" for the default (wav). SAW_ERR_ARGUMENT names what is wrong, also for
 * pairs that do not exist (flac and float).
 */
saw_status saw_audio_format_parse(saw_context *ctx, const char *format, const char *subtype,
                                  saw_audio_format *out);
/** The usual file name ending without the dot: "wav", "flac", "ogg", "opus", "mp3". */
const char *saw_audio_extension(saw_audio_kind kind);

typedef struct saw_audio_report {
    int64_t frames;  /* written, at rate_hz of the file */
    int64_t clipped; /* samples beyond full scale that were clamped; 0 for float */
    float peak;      /* largest magnitude before clamping, full scale is 1 */
    int rate_hz;     /* of the file: differs from the caller's only for opus and mp3 */
} saw_audio_report;

typedef struct saw_audio_writer saw_audio_writer;

/**
 * Create path; "-" is standard output, for wav only, as a stream without length in its header and
 * without tags. tags may be NULL. The samples come at rate_hz. Nothing appears under path before
 * commit.
 */
saw_status saw_audio_create(saw_context *ctx, const char *path, const saw_audio_format *format,
                            int channels, int rate_hz, const saw_audio_tags *tags,
                            saw_audio_writer **out);
/** Append planar[channels][frames]. A sample that is no finite number is SAW_ERR_FORMAT. Allocates
 * nothing. */
saw_status saw_audio_write(saw_audio_writer *w, const float *const *planar, int64_t frames);
/**
 * Finish the file and let it appear, closing w in any case. report may be NULL. After a failure
 * here or in an earlier write (a full disk, ...) nothing appears, and what was there under this
 * name is untouched.
 */
saw_status saw_audio_commit(saw_audio_writer *w, saw_audio_report *report);
/** Close w and leave nothing behind. NULL is fine. */
void saw_audio_abort(saw_audio_writer *w);

/* ---- files and models with different channel counts ------------------------------------------ */

/*
 * The rule: the channels of a file are separated in groups of as many as the model takes, in their
 * order, each group on its own; so a stereo model takes a file of n channels as the pairs (0,1),
 * (2,3), ... The output has n channels again. A group with too few channels (mono into a stereo
 * model, an odd last channel) fills the model by repeating its channels, and of the outputs that
 * belong to one channel the mean is taken.
 */
int saw_channel_groups(int file_channels, int model_channels);
/** model[model_channels][frames] of one group, from file[file_channels][frames]. */
void saw_channel_in(const float *const *file, int file_channels, int group, int64_t frames,
                    float *const *model, int model_channels);
/** The way back: writes only the channels of this group in file. */
void saw_channel_out(const float *const *model, int model_channels, int64_t frames,
                     float *const *file, int file_channels, int group);

#endif
