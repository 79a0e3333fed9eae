#include "run/score.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 16384 };
static const double EPSILON = 1e-8, SILENCE = 1e-7; /* of the mean square of a reference */

/* One song on its way through the model. */
typedef struct scorer {
    saw_dataset_reader *reader;
    const saw_dataset *d;
    const saw_score_options *o;
    saw_stream *stream;
    int song, channels;
    int64_t first, n; /* samples that count */
    int64_t pushed, pulled;
    float *memory, *rows[SAW_MAX_STEMS * SAW_MAX_CHANNELS];
    double reference[SAW_MAX_STEMS], error[SAW_MAX_STEMS];
} scorer;

/* Hold what the model has ready against the references. */
static saw_status pull(scorer *p)
{
    saw_status status = SAW_OK;
    while (!status && saw_stream_ready(p->stream) > 0) {
        int64_t ready = saw_stream_ready(p->stream), n = ready < BLOCK ? ready : BLOCK;
        status = saw_stream_pull(p->stream, p->rows, n);
        for (int s = 0; s < p->o->n_outputs && !status; s++) {
            float *want[SAW_MAX_CHANNELS];
            for (int c = 0; c < p->channels; c++)
                want[c] = p->memory + c * BLOCK;
            status = saw_dataset_read(p->reader, p->song, s, p->first + p->pulled, n, want);
            for (int c = 0; c < p->channels && !status; c++) {
                const float *got = p->rows[s * p->channels + c];
                for (int64_t i = 0; i < n; i++) {
                    double r = want[c][i], e = r - got[i];
                    p->reference[s] += r * r;
                    p->error[s] += e * e;
                }
            }
        }
        p->pulled += n;
    }
    return status;
}

static saw_status push(scorer *p)
{
    int64_t room = saw_stream_room(p->stream), left = p->n - p->pushed,
            n = room < left ? room : left;
    n = n < BLOCK ? n : BLOCK;
    float *in[SAW_MAX_CHANNELS];
    for (int c = 0; c < p->channels; c++)
        in[c] = p->memory + c * BLOCK;
    saw_status status =
        saw_dataset_read(p->reader, p->song, SAW_DATASET_MIXTURE, p->first + p->pushed, n, in);
    if (!status)
        status = saw_stream_push(p->stream, (const float *const *)in, n);
    p->pushed += n;
    return status;
}

static saw_status score_song(saw_context *ctx, saw_separator *s, scorer *p, int number, int songs)
{
    const saw_score_options *o = p->o;
    int64_t samples = saw_dataset_song(p->d, p->song)->samples, least = 1;
    int64_t most = (int64_t)(o->song_seconds * saw_dataset_rate_hz(p->d));
    p->n = most > 0 && most < samples ? most : samples;
    p->n = p->n > least ? p->n : least;
    p->first = (samples - p->n) / 2;
    p->pushed = p->pulled = 0;
    memset(p->reference, 0, sizeof p->reference);
    memset(p->error, 0, sizeof p->error);
    saw_status status = saw_stream_open(s,
                                        &(saw_stream_options){.stems = o->outputs,
                                                              .n_stems = o->n_outputs,
                                                              .memory_bytes = o->memory_bytes},
                                        &p->stream);
    while (!status && p->pushed < p->n) {
        status = push(p);
        if (!status)
            status = pull(p);
        if (!status && o->progress)
            o->progress(o->user, number, songs, p->pulled < p->n ? p->pulled : p->n - 1, p->n);
        if (!status && saw_cancelled(ctx))
            status = saw_fail(ctx, SAW_ERR_CANCELLED, "stopped on request");
    }
    if (!status)
        status = saw_stream_finish(p->stream);
    if (!status)
        status = pull(p);
    saw_stream_close(p->stream);
    p->stream = NULL;
    if (!status && o->progress)
        o->progress(o->user, number, songs, p->n, p->n);
    return status;
}

static void take_scores(const scorer *p, saw_song_score *out)
{
    double sum = 0;
    int n = 0;
    *out = (saw_song_score){.song = p->song};
    for (int s = 0; s < p->o->n_outputs; s++) {
        bool silent = p->reference[s] <= SILENCE * (double)(p->n * p->channels);
        out->sdr_db[s] =
            silent ? NAN : 10 * log10((p->reference[s] + EPSILON) / (p->error[s] + EPSILON));
        sum += silent ? 0 : out->sdr_db[s];
        n += !silent;
    }
    out->mean_db = n ? sum / n : NAN;
}

saw_status saw_score_songs(saw_context *ctx, saw_separator *s, const saw_dataset *d,
                           const saw_score_options *o, saw_song_score *out, int *count,
                           double *mean_db)
{
    scorer p = {.d = d, .o = o, .channels = saw_dataset_channels(d)};
    size_t rows = (size_t)(o->n_outputs * p.channels);
    int songs = 0, counted = 0;
    double sum = 0;
    *count = 0;
    for (int i = 0; i < saw_dataset_songs(d); i++)
        songs += saw_dataset_song(d, i)->part == o->part;
    p.memory = saw_alloc(ctx, (rows + (size_t)p.channels) * BLOCK * sizeof *p.memory);
    saw_status status = p.memory ? saw_dataset_reader_open(ctx, d, 0, &p.reader) : SAW_ERR_MEMORY;
    for (size_t i = 0; i < rows && p.memory; i++)
        p.rows[i] = p.memory + ((size_t)p.channels + i) * BLOCK;
    for (int i = 0; i < saw_dataset_songs(d) && !status; i++) {
        if (saw_dataset_song(d, i)->part != o->part)
            continue;
        p.song = i;
        status = score_song(ctx, s, &p, *count, songs);
        if (status)
            break;
        take_scores(&p, &out[*count]);
        if (!isnan(out[*count].mean_db)) {
            sum += out[*count].mean_db;
            counted++;
        }
        ++*count;
    }
    *mean_db = counted ? sum / counted : NAN;
    saw_dataset_reader_close(p.reader);
    saw_free(ctx, p.memory);
    return status;
}
