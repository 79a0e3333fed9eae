/*
 * audio_write.c - one writer: clamp, round, interleave one block, then either bytes of a WAV that
 * is written by hand or libsndfile for the compressed formats. libsndfile writes through callbacks,
 * so that a full disk is noticed wherever it happens, in its last flush too.
 */
#include "dsp/resample.h"
#include "io/audio.h"
#include "io/wav.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sndfile.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { BLOCK_FRAMES = 4096 };

struct saw_audio_writer {
    saw_context *ctx;
    char *path; /* "standard output" for "-" */
    saw_audio_format format;
    int channels, in_hz;
    saw_audio_report report;
    bool standard;
    FILE *out; /* atomic.file, or a copy of standard output */
    saw_atomic_file atomic;
    int error;           /* errno of the first write that failed */
    saw_buffer header;   /* wav */
    saw_audio_tags tags; /* wav: for the header that commit writes over the first one */
    SNDFILE *file;       /* the others */
    saw_resample *resample;
    float *planar[SAW_AUDIO_MAX_CHANNELS]; /* what the resampler gave, in one block */
    union {
        float *f;
        int *i;
        uint8_t *bytes;
    } block; /* [BLOCK_FRAMES][channels], four bytes a sample or fewer */
};

static const char *const kind_names[] = {"wav", "flac", "ogg", "opus", "mp3"};

/* ---- formats --------------------------------------------------------------------------------- */

const char *saw_audio_extension(saw_audio_kind kind)
{
    return kind_names[kind];
}

static saw_status check_format(saw_context *ctx, const saw_audio_format *f)
{
    static const char *const subtype_names[] = {"", "pcm_16", "pcm_24", "float"};
    if ((unsigned)f->kind > SAW_AUDIO_MP3 || (unsigned)f->subtype > SAW_AUDIO_FLOAT)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "an unknown audio format was asked for");
    if (!(f->quality >= 0 && f->quality <= 1))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "an audio quality of %g was asked for; it is above 0 "
                        "(small) and at most 1 (best)",
                        f->quality);
    if (f->kind >= SAW_AUDIO_OGG && f->subtype)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "%s has no subtype %s: it is lossy and has only a quality",
                        kind_names[f->kind], subtype_names[f->subtype]);
    if (f->kind == SAW_AUDIO_FLAC && f->subtype == SAW_AUDIO_FLOAT)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "flac has no subtype float: use pcm_24, or wav for float");
    return SAW_OK;
}

saw_status saw_audio_format_parse(saw_context *ctx, const char *format, const char *subtype,
                                  saw_audio_format *out)
{
    static const struct {
        const char *name;
        saw_audio_subtype subtype;
    } subtypes[] = {
        {"", SAW_AUDIO_DEFAULT},     {"default", SAW_AUDIO_DEFAULT}, {"pcm_16", SAW_AUDIO_PCM_16},
        {"pcm16", SAW_AUDIO_PCM_16}, {"16", SAW_AUDIO_PCM_16},       {"pcm_24", SAW_AUDIO_PCM_24},
        {"pcm24", SAW_AUDIO_PCM_24}, {"24", SAW_AUDIO_PCM_24},       {"float", SAW_AUDIO_FLOAT},
        {"f32", SAW_AUDIO_FLOAT},    {"float32", SAW_AUDIO_FLOAT},   {"32f", SAW_AUDIO_FLOAT}};
    size_t kind = 0, i = 0;
    memset(out, 0, sizeof *out);
    format = format && *format ? format : "wav";
    subtype = subtype ? subtype : "";
    while (kind < sizeof kind_names / sizeof *kind_names && strcasecmp(format, kind_names[kind]))
        kind++;
    if (kind == sizeof kind_names / sizeof *kind_names)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "audio format %s is unknown; there are wav, flac, ogg, opus and mp3",
                        format);
    while (i < sizeof subtypes / sizeof *subtypes && strcasecmp(subtype, subtypes[i].name))
        i++;
    if (i == sizeof subtypes / sizeof *subtypes)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "audio subtype %s is unknown; there are pcm_16, pcm_24 and float", subtype);
    out->kind = (saw_audio_kind)kind;
    out->subtype = subtypes[i].subtype;
    return check_format(ctx, out);
}

static bool one_of(int value, const int *list)
{
    while (*list && *list != value)
        list++;
    return *list != 0;
}

/* The rate that the file gets. */
static int file_rate(saw_audio_kind kind, int rate_hz)
{
    static const int opus[] = {8000, 12000, 16000, 24000, 48000, 0};
    static const int mpeg[] = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 0};
    if (kind == SAW_AUDIO_OPUS)
        return one_of(rate_hz, opus) ? rate_hz : 48000;
    if (kind == SAW_AUDIO_MP3 && !one_of(rate_hz, mpeg))
        return rate_hz % 11025 == 0 ? 44100 : 48000;
    return rate_hz;
}

/* ---- libsndfile's file ----------------------------------------------------------------------- */

static sf_count_t virtual_length(void *user)
{
    FILE *f = ((saw_audio_writer *)user)->out;
    off_t at = ftello(f);
    fseeko(f, 0, SEEK_END);
    off_t end = ftello(f);
    fseeko(f, at, SEEK_SET);
    return end;
}

static sf_count_t virtual_seek(sf_count_t offset, int whence, void *user)
{
    FILE *f = ((saw_audio_writer *)user)->out;
    return fseeko(f, offset, whence) ? -1 : ftello(f);
}

static sf_count_t virtual_tell(void *user)
{
    return ftello(((saw_audio_writer *)user)->out);
}

static sf_count_t virtual_read(void *to, sf_count_t n, void *user)
{
    return (sf_count_t)fread(to, 1, (size_t)n, ((saw_audio_writer *)user)->out);
}

static void put_bytes(saw_audio_writer *w, const void *bytes, size_t n)
{
    if (w->error)
        return;
    errno = 0;
    if (fwrite(bytes, 1, n, w->out) != n)
        w->error = errno ? errno : EIO;
}

static sf_count_t virtual_write(const void *from, sf_count_t n, void *user)
{
    saw_audio_writer *w = user;
    put_bytes(w, from, (size_t)n);
    return w->error ? 0 : n;
}

static saw_status write_failed(saw_audio_writer *w)
{
    return saw_fail(w->ctx, SAW_ERR_IO, "%s: cannot be written: %s", w->path, strerror(w->error));
}

static saw_status encoder_refused(saw_audio_writer *w)
{
    w->error = EIO; /* nothing may come after */
    return saw_fail(w->ctx, SAW_ERR_UNSUPPORTED,
                    "%s: %d channels at %d Hz cannot be written as %s (%s): use wav", w->path,
                    w->channels, w->report.rate_hz, kind_names[w->format.kind],
                    sf_strerror(w->file));
}

static saw_status open_sndfile(saw_audio_writer *w)
{
    static SF_VIRTUAL_IO io = {virtual_length, virtual_seek, virtual_read, virtual_write,
                               virtual_tell};
    static const int formats[] = {0, SF_FORMAT_FLAC, SF_FORMAT_OGG | SF_FORMAT_VORBIS,
                                  SF_FORMAT_OGG | SF_FORMAT_OPUS,
                                  SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III};
    static const double qualities[] = {0, 0, 0.6, 0.4, 0.8};
    static const int keys[SAW_TAG_COUNT] = {SF_STR_TITLE,       SF_STR_ARTIST, SF_STR_ALBUM,
                                            SF_STR_TRACKNUMBER, SF_STR_DATE,   SF_STR_GENRE,
                                            SF_STR_COMMENT};
    saw_audio_kind kind = w->format.kind;
    int depth = kind != SAW_AUDIO_FLAC                  ? 0
                : w->format.subtype == SAW_AUDIO_PCM_16 ? SF_FORMAT_PCM_16
                                                        : SF_FORMAT_PCM_24;
    SF_INFO info = {
        .samplerate = w->report.rate_hz, .channels = w->channels, .format = formats[kind] | depth};
    w->file = sf_open_virtual(&io, SFM_WRITE, &info, w);
    if (!w->file)
        return w->error ? write_failed(w) : encoder_refused(w);
    double quality = w->format.quality > 0 ? w->format.quality : qualities[kind];
    if (kind == SAW_AUDIO_MP3) {
        int mode = SF_BITRATE_MODE_VARIABLE;
        double level = 1 - quality;
        sf_command(w->file, SFC_SET_BITRATE_MODE, &mode, sizeof mode);
        sf_command(w->file, SFC_SET_COMPRESSION_LEVEL, &level, sizeof level);
    } else if (kind != SAW_AUDIO_FLAC) {
        sf_command(w->file, SFC_SET_VBR_ENCODING_QUALITY, &quality, sizeof quality);
    }
    for (int i = 0; i < SAW_TAG_COUNT; i++)
        if (w->tags.text[i])
            sf_set_string(w->file, keys[i], w->tags.text[i]);
    return SAW_OK;
}

/* ---- create ---------------------------------------------------------------------------------- */

static void put_header(saw_audio_writer *w, int64_t frames)
{
    w->header.size = 0;
    saw_wav_header(&w->header, w->format.subtype, w->channels, w->report.rate_hz, &w->tags, frames);
    if (w->header.failed)
        w->error = ENOMEM;
    else
        put_bytes(w, w->header.data, w->header.size);
}

static saw_status open_all(saw_audio_writer *w, const saw_audio_tags *tags)
{
    static const int most_channels[] = {SAW_AUDIO_MAX_CHANNELS, 8, SAW_AUDIO_MAX_CHANNELS, 8, 2};
    static const int most_hz[] = {SAW_AUDIO_MAX_HZ, 655350, 200000, SAW_AUDIO_MAX_HZ,
                                  SAW_AUDIO_MAX_HZ};
    saw_context *ctx = w->ctx;
    const char *name = kind_names[w->format.kind];
    if (w->channels < 1 || w->channels > most_channels[w->format.kind])
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "%s: %d channels cannot be written as %s, which takes 1 to %d: use wav",
                        w->path, w->channels, name, most_channels[w->format.kind]);
    if (w->in_hz < SAW_AUDIO_MIN_HZ || w->in_hz > most_hz[w->format.kind])
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "%s: %d Hz cannot be written as %s, which takes %d to %d Hz", w->path,
                        w->in_hz, name, SAW_AUDIO_MIN_HZ, most_hz[w->format.kind]);
    if (w->standard && w->format.kind != SAW_AUDIO_WAV)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "standard output takes only wav, not %s: write to a file", name);
    for (int i = 0; tags && !w->standard && i < SAW_TAG_COUNT; i++)
        if (tags->text[i] && !(w->tags.text[i] = saw_strdup(ctx, tags->text[i])))
            return SAW_ERR_MEMORY;
    size_t samples = (size_t)w->channels * BLOCK_FRAMES;
    w->block.f = saw_calloc(ctx, samples, sizeof(float));
    if (!w->block.f)
        return SAW_ERR_MEMORY;
    saw_status status = SAW_OK;
    if (w->report.rate_hz != w->in_hz) {
        w->planar[0] = saw_calloc(ctx, samples, sizeof(float));
        if (!w->planar[0])
            return SAW_ERR_MEMORY;
        for (int c = 1; c < w->channels; c++)
            w->planar[c] = w->planar[0] + c * BLOCK_FRAMES;
        status = saw_resample_open(ctx, w->in_hz, w->report.rate_hz, w->channels, SAW_RESAMPLE_BEST,
                                   &w->resample);
    }
    if (!status && w->standard) {
        int fd = fcntl(1, F_DUPFD_CLOEXEC, 3);
        w->out = fd < 0 ? NULL : fdopen(fd, "wb");
        if (!w->out)
            status =
                saw_fail(ctx, SAW_ERR_IO, "standard output cannot be written: %s", strerror(errno));
        if (!w->out && fd >= 0)
            close(fd);
    } else if (!status) {
        status = saw_atomic_open(ctx, w->path, &w->atomic);
        w->out = w->atomic.file;
    }
    if (!status && w->format.kind != SAW_AUDIO_WAV)
        status = open_sndfile(w);
    else if (!status)
        put_header(w, w->standard ? -1 : 0);
    return status;
}

saw_status saw_audio_create(saw_context *ctx, const char *path, const saw_audio_format *format,
                            int channels, int rate_hz, const saw_audio_tags *tags,
                            saw_audio_writer **out)
{
    *out = NULL;
    saw_status status = check_format(ctx, format);
    if (status)
        return status;
    saw_audio_writer *w = saw_calloc(ctx, 1, sizeof *w);
    if (!w)
        return SAW_ERR_MEMORY;
    w->ctx = w->header.ctx = ctx;
    w->standard = !strcmp(path, "-");
    w->path = saw_strdup(ctx, w->standard ? "standard output" : path);
    w->format = *format;
    if (format->kind == SAW_AUDIO_WAV && !format->subtype)
        w->format.subtype = SAW_AUDIO_FLOAT;
    w->channels = channels;
    w->in_hz = rate_hz;
    w->report.rate_hz = file_rate(format->kind, rate_hz);
    status = w->path ? open_all(w, tags) : SAW_ERR_MEMORY;
    if (status) {
        saw_audio_abort(w);
        return status;
    }
    *out = w;
    return SAW_OK;
}

/* ---- write ----------------------------------------------------------------------------------- */

/* Interleave, measure, clamp and code n <= BLOCK_FRAMES frames of planar, starting at frame `at`.
 */
static saw_status put_block(saw_audio_writer *w, const float *const *planar, int64_t at, int64_t n)
{
    int channels = w->channels;
    saw_audio_subtype subtype = w->format.subtype;
    saw_audio_kind kind = w->format.kind;
    bool clamp = subtype != SAW_AUDIO_FLOAT;
    float peak = w->report.peak;
    for (int c = 0; c < channels; c++) {
        int place =
            kind == SAW_AUDIO_OGG || kind == SAW_AUDIO_OPUS ? saw_vorbis_place(c, channels) : c;
        for (int64_t i = 0; i < n; i++) {
            float x = planar[c][at + i], size = fabsf(x);
            if (!isfinite(x))
                return saw_fail(w->ctx, SAW_ERR_FORMAT,
                                "%s: not written: the sample at %.3f s in channel %d is not a "
                                "finite number",
                                w->path, (double)(w->report.frames + i) / w->report.rate_hz, c + 1);
            peak = size > peak ? size : peak;
            if (clamp && size > 1) {
                w->report.clipped++;
                x = x > 0 ? 1.0f : -1.0f;
            }
            w->block.f[i * channels + place] = x;
        }
    }
    w->report.peak = peak;
    size_t samples = (size_t)(n * channels);
    if (kind == SAW_AUDIO_WAV || kind == SAW_AUDIO_FLAC) {
        /* in place, from the front: no sample grows */
        float scale = subtype == SAW_AUDIO_PCM_16 ? 0x1p15f : 0x1p23f;
        long most = (long)scale - 1;
        size_t bytes = subtype == SAW_AUDIO_PCM_16 ? 2 : subtype == SAW_AUDIO_PCM_24 ? 3 : 4;
        for (size_t i = 0; i < samples; i++) {
            uint32_t u;
            float x = w->block.f[i];
            memcpy(&u, &x, sizeof u);
            if (clamp) {
                long v = lrintf(x * scale);
                u = (uint32_t)(v < most ? v : most);
            }
            if (kind == SAW_AUDIO_FLAC)
                w->block.i[i] = (int)(u << (subtype == SAW_AUDIO_PCM_16 ? 16 : 8));
            else
                for (size_t k = 0; k < bytes; k++)
                    w->block.bytes[i * bytes + k] = (uint8_t)(u >> (8 * k));
        }
        if (kind == SAW_AUDIO_WAV)
            put_bytes(w, w->block.bytes, samples * bytes);
        else if (sf_writef_int(w->file, w->block.i, n) != n && !w->error)
            return encoder_refused(w);
    } else if (sf_writef_float(w->file, w->block.f, n) != n && !w->error) {
        return encoder_refused(w);
    }
    w->report.frames += n;
    return w->error ? write_failed(w) : SAW_OK;
}

/* Everything that the resampler can give for this input; at its end with planar NULL. */
static saw_status put_resampled(saw_audio_writer *w, const float *const *planar, int64_t frames)
{
    const float *at[SAW_AUDIO_MAX_CHANNELS];
    int64_t done = 0, used, got;
    do {
        for (int c = 0; planar && c < w->channels; c++)
            at[c] = planar[c] + done;
        saw_status status =
            saw_resample_run(w->resample, at, frames - done, &used, w->planar, BLOCK_FRAMES, &got);
        if (!status)
            status = put_block(w, (const float *const *)w->planar, 0, got);
        if (status)
            return status;
        done += used;
    } while (got == BLOCK_FRAMES || done < frames);
    return SAW_OK;
}

saw_status saw_audio_write(saw_audio_writer *w, const float *const *planar, int64_t frames)
{
    if (w->error)
        return write_failed(w);
    if (w->resample)
        return put_resampled(w, planar, frames);
    for (int64_t at = 0; at < frames;) {
        int64_t n = frames - at < BLOCK_FRAMES ? frames - at : BLOCK_FRAMES;
        saw_status status = put_block(w, planar, at, n);
        if (status)
            return status;
        at += n;
    }
    return SAW_OK;
}

/* ---- end ------------------------------------------------------------------------------------- */

static saw_status finish(saw_audio_writer *w)
{
    saw_status status = w->error ? write_failed(w) : SAW_OK;
    if (!status && w->resample) {
        saw_resample_end(w->resample, -1);
        status = put_resampled(w, NULL, 0);
    }
    if (!status && w->file && w->report.frames == 0)
        status =
            saw_fail(w->ctx, SAW_ERR_UNSUPPORTED,
                     "%s: not written: there are no samples, and only wav can hold none", w->path);
    if (w->file) {
        int error = sf_close(w->file);
        w->file = NULL;
        if (error && !w->error)
            w->error = EIO;
    } else if (!status && !w->standard) {
        uint64_t bytes = (uint64_t)w->report.frames * (uint64_t)w->channels *
                         (w->format.subtype == SAW_AUDIO_PCM_24 ? 3 : 1);
        put_bytes(w, "", bytes & 1); /* a chunk of odd size is padded */
        if (fseeko(w->out, 0, SEEK_SET) && !w->error)
            w->error = errno;
        put_header(w, w->report.frames);
    }
    if (!status && w->standard && !w->error && fflush(w->out))
        w->error = errno;
    if (!status && w->error)
        status = write_failed(w);
    if (!status && !w->standard) {
        w->out = NULL;
        status = saw_atomic_commit(&w->atomic);
    }
    return status;
}

saw_status saw_audio_commit(saw_audio_writer *w, saw_audio_report *report)
{
    saw_status status = finish(w);
    if (report)
        *report = w->report;
    saw_audio_abort(w);
    return status;
}

void saw_audio_abort(saw_audio_writer *w)
{
    if (!w)
        return;
    if (w->file)
        sf_close(w->file);
    if (w->standard && w->out)
        fclose(w->out);
    saw_atomic_abort(&w->atomic);
    saw_resample_close(w->resample);
    saw_buffer_free(&w->header);
    saw_audio_tags_free(w->ctx, &w->tags);
    saw_free(w->ctx, w->planar[0]);
    saw_free(w->ctx, w->block.f);
    saw_free(w->ctx, w->path);
    saw_free(w->ctx, w);
}
