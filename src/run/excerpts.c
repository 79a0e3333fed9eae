/*
 * excerpts.c - the audio of a report: which songs, which seconds of them, and what models make of
 * these.
 */
#include "io/audio.h"
#include "io/config.h"
#include "models/model.h"
#include "run/paths.h"
#include "run/report.h"
#include "run/run_log.h"

#include <math.h>
#include <string.h>

enum { SECONDS = 8, NAME_ROOM = 4096 };

/* A stretch of a song: what is heard is samples [lead, lead + heard) of it, around which models see
 * what they see in a whole song. */
typedef struct stretch {
    saw_context *ctx;
    const saw_dataset *d;
    const saw_excerpt_options *o;
    saw_dataset_reader *reader;
    int song, channels, rate_hz;
    int64_t start, n, lead, heard;
    float *mix;  /* [channels][n] */
    float *stem; /* [outputs][channels][n] */
    char folder[NAME_ROOM];
} stretch;

/* ---- where ----------------------------------------------------------------------------------- */

/* First second of the loudest SECONDS of the wanted stems. */
static saw_status find_loudest(stretch *s, int64_t *start)
{
    int64_t rate = s->rate_hz, samples = saw_dataset_song(s->d, s->song)->samples;
    int64_t seconds = samples / rate;
    double window = 0, loudest = -1, last[SECONDS] = {0};
    float *block = saw_alloc(s->ctx, (size_t)(rate * s->channels) * sizeof *block);
    saw_status status = block ? SAW_OK : SAW_ERR_MEMORY;
    *start = 0;
    for (int64_t at = 0; at < seconds && !status; at++) {
        double energy = 0;
        for (int k = 0; k < s->o->n_outputs && !status; k++) {
            float *rows[SAW_MAX_CHANNELS];
            for (int c = 0; c < s->channels; c++)
                rows[c] = block + c * rate;
            status = saw_dataset_read(s->reader, s->song, k, at * rate, rate, rows);
            for (int64_t i = 0; i < rate * s->channels && !status; i++)
                energy += (double)block[i] * block[i];
        }
        window += energy - last[at % SECONDS];
        last[at % SECONDS] = energy;
        if (at + 1 >= SECONDS && window > loudest) {
            loudest = window;
            *start = (at + 1 - SECONDS) * rate;
        }
    }
    saw_free(s->ctx, block);
    return status;
}

/* ---- what ------------------------------------------------------------------------------------ */

static saw_status write_audio(stretch *s, const char *name, const float *x)
{
    char path[NAME_ROOM + 64];
    const float *rows[SAW_MAX_CHANNELS];
    saw_audio_writer *w;
    snprintf(path, sizeof path, "%s/%s", s->folder, name);
    for (int c = 0; c < s->channels; c++)
        rows[c] = x + c * s->n + s->lead;
    saw_remove_leftovers(s->ctx, path);
    saw_status status = saw_audio_create(s->ctx, path, &(saw_audio_format){.kind = SAW_AUDIO_OGG},
                                         s->channels, s->rate_hz, NULL, &w);
    if (status)
        return status;
    status = saw_audio_write(w, rows, s->heard);
    if (!status)
        return saw_audio_commit(w, NULL);
    saw_audio_abort(w);
    return status;
}

static saw_status separate(stretch *s, saw_separator *model)
{
    saw_stream *stream;
    int rows = s->o->n_outputs * s->channels;
    float *out[SAW_MAX_STEMS * SAW_MAX_CHANNELS];
    const float *in[SAW_MAX_CHANNELS];
    int64_t pushed = 0, pulled = 0;
    saw_status status = saw_stream_open(
        model, &(saw_stream_options){.stems = s->o->outputs, .n_stems = s->o->n_outputs}, &stream);
    while (!status && pulled < s->n) {
        int64_t room = saw_stream_room(stream), left = s->n - pushed, n = room < left ? room : left,
                ready;
        for (int c = 0; c < s->channels; c++)
            in[c] = s->mix + c * s->n + pushed;
        if (left)
            status = saw_stream_push(stream, in, n);
        pushed += n;
        if (!status && left && pushed == s->n)
            status = saw_stream_finish(stream);
        while (!status && (ready = saw_stream_ready(stream)) > 0) {
            for (int r = 0; r < rows; r++)
                out[r] = s->stem + r * s->n + pulled;
            status = saw_stream_pull(stream, out, ready);
            pulled += ready;
        }
    }
    saw_stream_close(stream);
    return status;
}

/* The rows of one kind, under names that are listed for the report. */
static saw_status write_stems(stretch *s, saw_config *tracks, const char *kind, const char *what)
{
    saw_status status = SAW_OK;
    for (int k = 0; k < s->o->n_outputs && !status; k++) {
        char file[64], name[320];
        saw_config *row = saw_config_put_map(tracks, NULL);
        snprintf(file, sizeof file, "%s-%d.ogg", kind, k);
        snprintf(name, sizeof name, "%s, %s", s->o->outputs[k], what);
        bool bad = !row || saw_config_put_string(row, "name", name) ||
                   saw_config_put_string(row, "file", file);
        status =
            bad ? SAW_ERR_MEMORY : write_audio(s, file, s->stem + (int64_t)k * s->channels * s->n);
    }
    return status;
}

static saw_status write_tracks(stretch *s, saw_config *tracks)
{
    float *rows[SAW_MAX_CHANNELS];
    saw_config *row = saw_config_put_map(tracks, NULL);
    if (!row || saw_config_put_string(row, "name", "mixture") ||
        saw_config_put_string(row, "file", "mixture.ogg"))
        return SAW_ERR_MEMORY;
    for (int c = 0; c < s->channels; c++)
        rows[c] = s->mix + c * s->n;
    saw_status status =
        saw_dataset_read(s->reader, s->song, SAW_DATASET_MIXTURE, s->start, s->n, rows);
    if (!status)
        status = write_audio(s, "mixture.ogg", s->mix);
    for (int k = 0; k < s->o->n_outputs && !status; k++) {
        for (int c = 0; c < s->channels; c++)
            rows[c] = s->stem + ((int64_t)k * s->channels + c) * s->n;
        status = saw_dataset_read(s->reader, s->song, k, s->start, s->n, rows);
    }
    if (!status)
        status = write_stems(s, tracks, "true", "as it is");
    if (!status && s->o->before)
        status = separate(s, s->o->before);
    if (!status && s->o->before)
        status = write_stems(s, tracks, "before", "before");
    if (!status)
        status = separate(s, s->o->after);
    return status ? status : write_stems(s, tracks, "after", "after");
}

/* The list of what is there comes last, so that the report never names what is not. */
static saw_status write_list(stretch *s, const saw_config *list)
{
    char path[NAME_ROOM + 64];
    saw_buffer b = {.ctx = s->ctx};
    saw_atomic_file file = {0};
    snprintf(path, sizeof path, "%s/excerpt.json", s->folder);
    saw_remove_leftovers(s->ctx, path);
    saw_status status = saw_config_write_json(list, &b);
    if (!status)
        status = saw_atomic_open(s->ctx, path, &file);
    if (!status) {
        fprintf(file.file, "%s\n", b.data);
        status = saw_atomic_commit(&file);
    }
    saw_buffer_free(&b);
    return status;
}

static saw_status write_excerpt(stretch *s, double gain_db)
{
    int64_t around = saw_separator_get_info(s->o->after)->chunk_samples, loudest;
    int64_t samples = saw_dataset_song(s->d, s->song)->samples;
    saw_status status = saw_make_folders(s->ctx, s->folder);
    if (!status)
        status = find_loudest(s, &loudest);
    if (status)
        return status;
    s->start = loudest > around ? loudest - around : 0;
    s->lead = loudest - s->start;
    s->heard = SECONDS * s->rate_hz < samples - loudest ? SECONDS * s->rate_hz : samples - loudest;
    s->n = s->lead + s->heard + around;
    s->n = s->n < samples - s->start ? s->n : samples - s->start;
    size_t row = (size_t)(s->n * s->channels) * sizeof(float);
    s->mix = saw_alloc(s->ctx, row);
    s->stem = saw_alloc(s->ctx, row * (size_t)s->o->n_outputs);
    saw_config *list = saw_config_new(s->ctx);
    saw_config *tracks = list ? saw_config_put_list(list, "tracks") : NULL;
    bool bad = !s->mix || !s->stem || !tracks ||
               saw_config_put_string(list, "song", saw_dataset_song(s->d, s->song)->name) ||
               saw_config_put_double(list, "start_s", (double)loudest / s->rate_hz) ||
               saw_config_put_double(list, "gain_db", gain_db);
    status = bad ? SAW_ERR_MEMORY : write_tracks(s, tracks);
    if (!status)
        status = write_list(s, list);
    saw_config_free(list);
    saw_free(s->ctx, s->mix);
    saw_free(s->ctx, s->stem);
    return status;
}

/* ---- which ----------------------------------------------------------------------------------- */

/* Mean gain of a song's stems; NaN: not known. */
static double gain_of(const saw_run_log *log, const char *song)
{
    double sum = 0;
    int n = 0;
    for (int i = 0; i < log->n_scores; i++) {
        double gain = log->scores[i].after_db - log->scores[i].before_db;
        if (!strcmp(log->scores[i].song, song) && isfinite(gain)) {
            sum += gain;
            n++;
        }
    }
    return n ? sum / n : NAN;
}

saw_status saw_report_excerpts(saw_context *ctx, const char *folder, const saw_dataset *d,
                               const saw_excerpt_options *o)
{
    saw_run_log log;
    int which[2] = {-1, -1}; /* most, least */
    double gains[2] = {-INFINITY, INFINITY};
    stretch s = {.ctx = ctx,
                 .d = d,
                 .o = o,
                 .channels = saw_dataset_channels(d),
                 .rate_hz = saw_dataset_rate_hz(d)};
    saw_status status = saw_run_log_read(ctx, folder, &log);
    for (int i = 0; i < saw_dataset_songs(d) && !status; i++) {
        double gain = gain_of(&log, saw_dataset_song(d, i)->name);
        if (gain > gains[0]) {
            gains[0] = gain;
            which[0] = i;
        }
        if (gain < gains[1]) {
            gains[1] = gain;
            which[1] = i;
        }
    }
    saw_run_log_free(&log);
    if (!status)
        status = saw_dataset_reader_open(ctx, d, 0, &s.reader);
    for (int i = 0; i < 2 && !status; i++) {
        if (which[i] < 0 || (i == 1 && which[1] == which[0]))
            continue;
        s.song = which[i];
        int n = snprintf(s.folder, sizeof s.folder, "%s/audio/%s", folder, i ? "worst" : "best");
        status = n < NAME_ROOM ? write_excerpt(&s, gains[i])
                               : saw_fail(ctx, SAW_ERR_ARGUMENT, "%s: too long a name", folder);
    }
    saw_dataset_reader_close(s.reader);
    return status;
}
