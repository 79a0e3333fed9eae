/*
 * audio_read.c - one reader over three ways to get samples: libsndfile on a file, a WAV that comes
 * through a pipe, and a WAV that ffmpeg writes into a pipe. Each fills one interleaved block; the
 * rest is shared.
 */
#include "io/audio.h"
#include "io/ffmpeg.h"
#include "io/wav.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sndfile.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    BLOCK_FRAMES = 4096,
    MAX_HEAD_BYTES = 1 << 21,
    WARM_UP_FRAMES = 2 * BLOCK_FRAMES /* until a decoder's memory is what it would have been */
};

struct saw_audio_reader {
    saw_context *ctx;
    char *path; /* "standard input" for "-" */
    saw_audio_info info;
    saw_audio_tags tags;
    int64_t position;
    float *block; /* [BLOCK_FRAMES][channels] */
    int fd;       /* -1 when the pipe has it */
    SNDFILE *file;
    int format;                 /* libsndfile's container */
    bool vorbis_order;          /* of the channels, as in Vorbis and Opus */
    bool adrift;                /* position may be wrong, after saw_audio_jump */
    int64_t file_size, file_at; /* for libsndfile's callbacks */

    saw_pipe pipe; /* the rest is for a WAV that is read by hand, file == NULL */
    saw_wav wav;
    uint8_t *raw;     /* [BLOCK_FRAMES][frame_bytes] */
    saw_buffer head;  /* what of the pipe was read while its kind was found out */
    size_t head_used; /* bytes of head that are header, then samples handed out */
    saw_status head_status;
};

/* ---- where bytes come from ------------------------------------------------------------------- */

/* saw_wav_read on a file. */
static size_t read_file(void *user, uint64_t offset, void *out, size_t n)
{
    saw_audio_reader *r = user;
    size_t done = 0;
    while (done < n && offset + done <= INT64_MAX) {
        ssize_t got = pread(r->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    return done;
}

/* libsndfile's callbacks: given the descriptor itself it closes it when it does not know the
 * format. */
static sf_count_t virtual_length(void *user)
{
    return ((saw_audio_reader *)user)->file_size;
}

static sf_count_t virtual_tell(void *user)
{
    return ((saw_audio_reader *)user)->file_at;
}

static sf_count_t virtual_seek(sf_count_t offset, int whence, void *user)
{
    saw_audio_reader *r = user;
    int64_t from = whence == SEEK_CUR ? r->file_at : whence == SEEK_END ? r->file_size : 0, at;
    if (__builtin_add_overflow(from, offset, &at) || at < 0)
        return -1;
    return r->file_at = at;
}

static sf_count_t virtual_read(void *to, sf_count_t n, void *user)
{
    saw_audio_reader *r = user;
    size_t got = n > 0 ? read_file(r, (uint64_t)r->file_at, to, (size_t)n) : 0;
    r->file_at += (int64_t)got;
    return (sf_count_t)got;
}

static sf_count_t virtual_write(const void *from, sf_count_t n, void *user)
{
    (void)from, (void)n, (void)user;
    return 0;
}

/* saw_wav_read on a pipe: what was asked for is kept in head, so that it can be read again. */
static size_t read_head(void *user, uint64_t offset, void *out, size_t n)
{
    saw_audio_reader *r = user;
    uint8_t piece[4096];
    if (offset > MAX_HEAD_BYTES || n > MAX_HEAD_BYTES)
        return 0;
    while (r->head.size < offset + n && !r->head_status) {
        size_t want = (size_t)offset + n - r->head.size, got;
        want = want < sizeof piece ? want : sizeof piece;
        r->head_status = saw_pipe_read(r->ctx, &r->pipe, r->path, piece, want, &got);
        saw_buffer_add(&r->head, piece, got);
        if (r->head.failed)
            r->head_status = SAW_ERR_MEMORY;
        if (got < want)
            break;
    }
    size_t there = r->head.size > offset ? r->head.size - (size_t)offset : 0;
    there = there < n ? there : n;
    if (there)
        memcpy(out, r->head.data + offset, there);
    return there;
}

/* Copy the pipe to an unnamed file, which takes its place. */
static saw_status spool(saw_audio_reader *r)
{
    const char *folder = getenv("TMPDIR");
    folder = folder && *folder ? folder : "/tmp";
    char *name = saw_format(r->ctx, "%s/bandsaw-XXXXXX", folder);
    if (!name)
        return SAW_ERR_MEMORY;
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    saw_free(r->ctx, name);
    saw_status status = SAW_OK;
    const char *bytes = r->head.data;
    size_t n = r->head.size;
    char piece[16384];
    bool good = fd >= 0;
    while (good && n && !status) {
        ssize_t put = write(fd, bytes, n);
        if (put < 0 && errno == EINTR)
            continue;
        good = put > 0;
        bytes += put > 0 ? put : 0;
        n -= put > 0 ? (size_t)put : 0;
        if (good && !n) {
            bytes = piece;
            status = saw_pipe_read(r->ctx, &r->pipe, r->path, piece, sizeof piece, &n);
        }
    }
    if (!good)
        status = saw_fail(r->ctx, SAW_ERR_IO, "%s: cannot be copied to a temporary file in %s: %s",
                          r->path, folder, strerror(errno));
    saw_pipe_close(&r->pipe);
    saw_buffer_free(&r->head);
    r->fd = fd;
    return status;
}

/* ---- opening --------------------------------------------------------------------------------- */

static saw_status set_info(saw_audio_reader *r, int channels, int rate_hz, int64_t frames,
                           const char *container, const char *subtype)
{
    /* in MP3 and Ogg libsndfile lands near the frame or on it without the decoder's memory; only
     * the start is exact */
    bool near = r->format == SF_FORMAT_MPEG || r->format == SF_FORMAT_OGG;
    saw_audio_way way = !r->file ? SAW_AUDIO_READS : near ? SAW_AUDIO_JUMPS_NEAR : SAW_AUDIO_JUMPS;
    r->info = (saw_audio_info){channels, rate_hz, frames, container, subtype, way};
    if (channels < 1 || channels > SAW_AUDIO_MAX_CHANNELS)
        return saw_fail(r->ctx, SAW_ERR_UNSUPPORTED, "%s: has %d channels; 1 to %d can be read",
                        r->path, channels, SAW_AUDIO_MAX_CHANNELS);
    if (rate_hz < SAW_AUDIO_MIN_HZ || rate_hz > SAW_AUDIO_MAX_HZ)
        return saw_fail(r->ctx, SAW_ERR_UNSUPPORTED,
                        "%s: has a sample rate of %d Hz; %d to %d Hz can be read", r->path, rate_hz,
                        SAW_AUDIO_MIN_HZ, SAW_AUDIO_MAX_HZ);
    r->block = saw_calloc(r->ctx, (size_t)channels * BLOCK_FRAMES, sizeof *r->block);
    return r->block ? SAW_OK : SAW_ERR_MEMORY;
}

/* r->wav was parsed, and the next byte of the pipe or of head is the first of the samples. */
static saw_status open_by_hand(saw_audio_reader *r, int64_t frames, const char *container)
{
    static const char *const names[] = {"",
                                        "Unsigned 8 bit PCM",
                                        "Signed 16 bit PCM",
                                        "Signed 24 bit PCM",
                                        "Signed 32 bit PCM",
                                        "32 bit float",
                                        "64 bit float"};
    saw_status status =
        set_info(r, r->wav.channels, r->wav.rate_hz, frames, container, names[r->wav.coding]);
    if (status)
        return status;
    r->raw = saw_calloc(r->ctx, r->wav.frame_bytes, BLOCK_FRAMES);
    return r->raw ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status open_ffmpeg(saw_audio_reader *r)
{
    saw_status status = saw_ffmpeg_open(r->ctx, r->fd, r->path, &r->pipe);
    if (status)
        return status;
    bool wav = saw_wav_parse(r->ctx, read_head, r, &r->wav, &r->tags);
    if (r->head_status)
        return r->head_status;
    if (!wav || r->wav.coding != SAW_WAV_F32)
        return saw_fail(r->ctx, SAW_ERR_FORMAT, "%s: has no audio that ffmpeg can read", r->path);
    r->head_used = (size_t)r->wav.data_offset;
    return open_by_hand(r, -1, "read by ffmpeg");
}

static bool starts_with_frame_count(saw_audio_reader *r);

static saw_status open_sndfile(saw_audio_reader *r)
{
    static const int keys[SAW_TAG_COUNT] = {SF_STR_TITLE,       SF_STR_ARTIST, SF_STR_ALBUM,
                                            SF_STR_TRACKNUMBER, SF_STR_DATE,   SF_STR_GENRE,
                                            SF_STR_COMMENT};
    static SF_VIRTUAL_IO io = {virtual_length, virtual_seek, virtual_read, virtual_write,
                               virtual_tell};
    SF_INFO info = {0};
    r->file = sf_open_virtual(&io, SFM_READ, &info, r);
    if (!r->file) {
        char why[256];
        bool known = sf_error(NULL) != SF_ERR_UNRECOGNISED_FORMAT;
        snprintf(why, sizeof why, "%s", sf_strerror(NULL));
        saw_status status = open_ffmpeg(r);
        if (status == SAW_ERR_UNSUPPORTED && known)
            return saw_fail(r->ctx, SAW_ERR_FORMAT, "%s: cannot be read: %s", r->path, why);
        return status;
    }
    r->format = info.format & SF_FORMAT_TYPEMASK;
    int coding = info.format & SF_FORMAT_SUBMASK;
    r->vorbis_order = coding == SF_FORMAT_VORBIS || coding == SF_FORMAT_OPUS;
    if (r->format == SF_FORMAT_MPEG && !starts_with_frame_count(r)) {
        /* libsndfile guesses the length from the first frames and stops there, also in the middle
         * of the audio */
        SNDFILE *guess = r->file;
        r->file = NULL;
        saw_status status = open_ffmpeg(r);
        if (status != SAW_ERR_UNSUPPORTED) {
            sf_close(guess);
            return status;
        }
        r->file = guess;
        saw_log(r->ctx, SAW_LOG_WARN,
                "%s: does not state its length, so its end may be missing; install ffmpeg to read "
                "it whole",
                r->path);
    }
    for (int i = 0; i < SAW_TAG_COUNT; i++) {
        const char *text = sf_get_string(r->file, keys[i]);
        if (text && *text && !(r->tags.text[i] = saw_strdup(r->ctx, text)))
            return SAW_ERR_MEMORY;
    }
    SF_FORMAT_INFO container = {.format = r->format};
    SF_FORMAT_INFO subtype = {.format = coding};
    sf_command(NULL, SFC_GET_FORMAT_INFO, &container, sizeof container);
    sf_command(NULL, SFC_GET_FORMAT_INFO, &subtype, sizeof subtype);
    bool unknown = info.frames < 0 || info.frames == SF_COUNT_MAX;
    if (unknown)
        saw_log(r->ctx, SAW_LOG_WARN, "%s: does not say where it ends; it may be cut short",
                r->path);
    return set_info(r, info.channels, info.samplerate, unknown ? -1 : info.frames,
                    container.name ? container.name : "audio",
                    subtype.name ? subtype.name : "samples");
}

/* Does an MPEG file state its length? Then "Xing", "Info" or "VBRI" stands in its first frame,
 * behind an ID3v2 tag. */
static bool starts_with_frame_count(saw_audio_reader *r)
{
    uint8_t bytes[2048];
    uint64_t at = 0;
    while (read_file(r, at, bytes, 10) == 10 && !memcmp(bytes, "ID3", 3))
        at += 10 + ((uint64_t)(bytes[6] & 127) << 21 | (uint64_t)(bytes[7] & 127) << 14 |
                    (uint64_t)(bytes[8] & 127) << 7 | (bytes[9] & 127));
    size_t n = read_file(r, at, bytes, sizeof bytes);
    return memmem(bytes, n, "Xing", 4) || memmem(bytes, n, "Info", 4) ||
           memmem(bytes, n, "VBRI", 4);
}

static saw_status open_regular(saw_audio_reader *r)
{
    struct stat st;
    if (fstat(r->fd, &st))
        return saw_fail(r->ctx, SAW_ERR_IO, "%s: cannot be examined: %s", r->path, strerror(errno));
    uint64_t size = (uint64_t)st.st_size;
    r->file_size = st.st_size;
    if (size == 0)
        return saw_fail(r->ctx, SAW_ERR_FORMAT, "%s: is empty", r->path);
    saw_wav *w = &r->wav;
    if (!saw_wav_parse(r->ctx, read_file, r, w, NULL) || w->data_offset > size)
        return open_sndfile(r);
    uint64_t there = size - w->data_offset;
    if (w->data_unknown && w->coding) {
        saw_wav_parse(r->ctx, read_file, r, w, &r->tags);
        lseek(r->fd, (off_t)w->data_offset, SEEK_SET);
        r->pipe = (saw_pipe){.fd = r->fd, .error_fd = -1};
        r->fd = -1;
        return open_by_hand(r, (int64_t)(there / w->frame_bytes), "WAV (Microsoft)");
    }
    if (!w->data_unknown && w->data_bytes > there) {
        uint64_t unit = w->frame_bytes ? w->frame_bytes : 1;
        return saw_fail(r->ctx, SAW_ERR_FORMAT,
                        "%s: is cut short: its header promises %llu %s, %llu are there", r->path,
                        (unsigned long long)(w->data_bytes / unit),
                        unit > 1 ? "frames" : "bytes of audio", (unsigned long long)(there / unit));
    }
    return open_sndfile(r);
}

static saw_status open_pipe(saw_audio_reader *r)
{
    r->pipe = (saw_pipe){.fd = r->fd, .error_fd = -1};
    r->fd = -1;
    saw_wav *w = &r->wav;
    bool wav = saw_wav_parse(r->ctx, read_head, r, w, &r->tags);
    if (r->head_status)
        return r->head_status;
    if (!wav || !w->coding) {
        saw_audio_tags_free(r->ctx, &r->tags);
        saw_status status = spool(r);
        return status ? status : open_regular(r);
    }
    r->head_used = (size_t)w->data_offset;
    int64_t frames = w->data_unknown ? -1 : (int64_t)(w->data_bytes / w->frame_bytes);
    return open_by_hand(r, frames, "WAV (Microsoft)");
}

saw_status saw_audio_open(saw_context *ctx, const char *path, saw_audio_reader **out)
{
    *out = NULL;
    bool standard = !strcmp(path, "-");
    saw_audio_reader *r = saw_calloc(ctx, 1, sizeof *r);
    if (!r)
        return SAW_ERR_MEMORY;
    r->ctx = r->head.ctx = ctx;
    r->fd = r->pipe.fd = r->pipe.error_fd = -1;
    r->path = saw_strdup(ctx, standard ? "standard input" : path);
    saw_status status = r->path ? SAW_OK : SAW_ERR_MEMORY;
    struct stat st;
    if (!status) {
        r->fd = standard ? fcntl(0, F_DUPFD_CLOEXEC, 3) : open(path, O_RDONLY | O_CLOEXEC);
        if (r->fd < 0 || fstat(r->fd, &st))
            status =
                saw_fail(ctx, SAW_ERR_IO, "%s: cannot be opened: %s", r->path, strerror(errno));
        else if (S_ISREG(st.st_mode))
            status = open_regular(r);
        else if (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))
            status = open_pipe(r);
        else
            status = saw_fail(ctx, SAW_ERR_IO, "%s: is %s, and an audio file is needed here",
                              r->path, S_ISDIR(st.st_mode) ? "a folder" : "a device");
    }
    if (status) {
        saw_audio_close(r);
        return status;
    }
    *out = r;
    return SAW_OK;
}

void saw_audio_close(saw_audio_reader *r)
{
    if (!r)
        return;
    if (r->file)
        sf_close(r->file);
    saw_pipe_close(&r->pipe);
    if (r->fd >= 0)
        close(r->fd);
    saw_buffer_free(&r->head);
    saw_audio_tags_free(r->ctx, &r->tags);
    saw_free(r->ctx, r->raw);
    saw_free(r->ctx, r->block);
    saw_free(r->ctx, r->path);
    saw_free(r->ctx, r);
}

const saw_audio_info *saw_audio_reader_info(const saw_audio_reader *r)
{
    return &r->info;
}

const saw_audio_tags *saw_audio_reader_tags(const saw_audio_reader *r)
{
    return &r->tags;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* Bytes behind the header: first what is left in head, then the pipe. */
static saw_status read_samples(saw_audio_reader *r, size_t n, size_t *got)
{
    size_t kept = r->head.size - r->head_used, more = 0;
    kept = kept < n ? kept : n;
    if (kept)
        memcpy(r->raw, r->head.data + r->head_used, kept);
    r->head_used += kept;
    saw_status status = saw_pipe_read(r->ctx, &r->pipe, r->path, r->raw + kept, n - kept, &more);
    *got = kept + more;
    return status;
}

/* Fill r->block with up to n <= BLOCK_FRAMES frames; fewer only at the end. */
static saw_status read_block(saw_audio_reader *r, int64_t n, int64_t *got)
{
    int64_t frames = r->info.frames;
    *got = 0;
    if (r->file) {
        sf_count_t read = sf_readf_float(r->file, r->block, n);
        if (read < n && sf_error(r->file))
            return saw_fail(r->ctx, SAW_ERR_FORMAT, "%s: cannot be read beyond %.3f s: %s", r->path,
                            (double)(r->position + read) / r->info.rate_hz, sf_strerror(r->file));
        *got = read > 0 ? read : 0;
    } else {
        if (frames >= 0 && n > frames - r->position)
            n = frames > r->position ? frames - r->position : 0;
        size_t bytes;
        saw_status status = read_samples(r, (size_t)n * r->wav.frame_bytes, &bytes);
        if (status)
            return status;
        *got = (int64_t)(bytes / r->wav.frame_bytes);
        saw_wav_unpack(r->wav.coding, r->raw, r->block, (size_t)(*got * r->info.channels));
    }
    r->position += *got;
    if (*got < n && r->position < frames && !r->adrift) {
        if (r->file && r->format != SF_FORMAT_MPEG)
            return saw_fail(r->ctx, SAW_ERR_FORMAT,
                            "%s: is cut short: its header promises %lld frames, %lld are there",
                            r->path, (long long)frames, (long long)r->position);
        saw_log(r->ctx, SAW_LOG_WARN, "%s: ended after %lld frames; its header promises %lld",
                r->path, (long long)r->position, (long long)frames);
        r->info.frames = r->position;
    }
    return SAW_OK;
}

saw_status saw_audio_read(saw_audio_reader *r, float *const *planar, int64_t frames, int64_t *got)
{
    int channels = r->info.channels;
    *got = 0;
    while (*got < frames) {
        int64_t n = frames - *got < BLOCK_FRAMES ? frames - *got : BLOCK_FRAMES, read;
        saw_status status = read_block(r, n, &read);
        if (status)
            return status;
        for (int c = 0; c < channels; c++) {
            int place = r->vorbis_order ? saw_vorbis_place(c, channels) : c;
            float *to = planar[c] + *got;
            for (int64_t i = 0; i < read; i++) {
                to[i] = r->block[i * channels + place];
                if (!isfinite(to[i]))
                    return saw_fail(r->ctx, SAW_ERR_FORMAT,
                                    "%s: holds a sample that is not a finite number, at %.3f s in "
                                    "channel %d: the file is damaged",
                                    r->path, (double)(r->position - read + i) / r->info.rate_hz,
                                    c + 1);
            }
        }
        *got += read;
        if (read < n)
            break;
    }
    return SAW_OK;
}

/* Read and throw away; beyond: the audio ends before. */
static saw_status read_up_to(saw_audio_reader *r, int64_t frame, bool *beyond)
{
    *beyond = false;
    while (!*beyond && r->position < frame) {
        int64_t n = frame - r->position < BLOCK_FRAMES ? frame - r->position : BLOCK_FRAMES, got;
        saw_status status = read_block(r, n, &got);
        if (status)
            return status;
        *beyond = got < n;
    }
    return SAW_OK;
}

saw_status saw_audio_seek(saw_audio_reader *r, int64_t frame)
{
    int64_t frames = r->info.frames;
    bool beyond = frame < 0 || (frames >= 0 && frame > frames);
    bool near = r->info.way == SAW_AUDIO_JUMPS_NEAR;
    int64_t jump = !near ? frame : r->adrift || frame < r->position ? 0 : r->position;
    if (!beyond && r->file && jump != r->position && sf_seek(r->file, jump, SEEK_SET) == jump) {
        r->position = jump;
        r->adrift = false;
    }
    if (!beyond && frame < r->position)
        return saw_fail(r->ctx, SAW_ERR_UNSUPPORTED, "%s: cannot go back to an earlier time",
                        r->path);
    saw_status status = beyond ? SAW_OK : read_up_to(r, frame, &beyond);
    if (status)
        return status;
    if (beyond)
        return saw_fail(r->ctx, SAW_ERR_ARGUMENT,
                        "%s: a start at %.3f s was asked for, outside its %.3f s", r->path,
                        (double)frame / r->info.rate_hz,
                        (double)(frames >= 0 ? frames : r->position) / r->info.rate_hz);
    return SAW_OK;
}

saw_status saw_audio_jump(saw_audio_reader *r, int64_t frame)
{
    int64_t from = frame - WARM_UP_FRAMES;
    bool beyond = r->info.frames >= 0 && frame > r->info.frames;
    bool worth = from > 0 && (frame < r->position || from > r->position);
    if (r->info.way == SAW_AUDIO_JUMPS_NEAR && worth && !beyond &&
        sf_seek(r->file, from, SEEK_SET) == from) {
        r->position = from;
        r->adrift = true;
    }
    if (!r->adrift || beyond || frame < r->position)
        return saw_audio_seek(r, frame);
    saw_status status = read_up_to(r, frame, &beyond);
    return status || !beyond ? status : saw_audio_seek(r, frame);
}
