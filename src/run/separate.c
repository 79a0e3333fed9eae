#include "run/separate.h"

#include "dsp/resample.h"
#include "dsp/ring.h"
#include "run/paths.h"
#include "run/separator.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 4096, SLACK = 1 << 16, MAX_OUTPUTS = SAW_JOB_OUTPUTS };

/* One model, fed at the file's rate and with the file's channels. */
typedef struct voice {
    saw_separator *separator;
    const saw_separator_info *info;
    int groups, passes;   /* of channels; of test-time augmentation */
    saw_stream **streams; /* [groups][passes] */
    size_t memory_bytes;  /* planned for them, the weights once */
    double mean[SAW_AUDIO_MAX_CHANNELS],
        scale[SAW_AUDIO_MAX_CHANNELS];     /* of each group; 0 and 1 unless normalised */
    saw_resample *in, *out[SAW_MAX_STEMS]; /* to and from the model's rate */
    saw_ring *ready;                       /* ensembles: what came out, [stems * channels] */
} voice;

struct saw_job {
    saw_context *ctx;
    saw_job_options options;
    const char *stems[SAW_MAX_STEMS];
    int n_stems, n_outputs;
    voice *voices; /* [options.n_models] */
    saw_ensemble *ensemble;

    /* One file. Buffers are [planes][samples]. */
    saw_audio_reader *reader;
    int channels, rate_hz;
    int64_t frames, emitted; /* read so far, written so far */
    saw_audio_writer *writers[MAX_OUTPUTS];
    saw_ring *mix;  /* what was read and not written yet, for the residual */
    float **block;  /* [channels][BLOCK] from the file */
    float **model;  /* [channels] at the model's rate */
    float **group;  /* [model channels] */
    float **pulled; /* [stems * model channels] of one pass */
    float **sum;    /* [stems * model channels] mean of all passes */
    float **spread; /* [stems * channels] at the model's rate */
    float **back;   /* [stems * channels] at the file's rate */
    float **rest;   /* [channels] the residual */
    float **window; /* ensembles: [models * stems * channels][SAW_ENSEMBLE_BLOCK + 2 context] */
    float **joined; /* [stems * channels][SAW_ENSEMBLE_BLOCK] */
};

/* ---- buffers --------------------------------------------------------------------------------- */

static saw_status open_planes(saw_context *ctx, int count, int64_t samples, float ***out)
{
    size_t pointers = ((size_t)count * sizeof(float *) + 63) / 64 * 64;
    char *block = saw_calloc(ctx, 1, pointers + (size_t)count * (size_t)samples * sizeof(float));
    *out = (float **)block;
    for (int i = 0; block && i < count; i++)
        (*out)[i] = (float *)(block + pointers) + i * samples;
    return block ? SAW_OK : SAW_ERR_MEMORY;
}

/* The planes from sample `at` on; to[] has room for them. */
static float *const *shift(float *const *planes, int count, int64_t at, float **to)
{
    for (int i = 0; i < count; i++)
        to[i] = planes[i] + at;
    return to;
}

/* ---- output ---------------------------------------------------------------------------------- */

/* Write n finished samples, planes [stems * channels]; n is at most SAW_ENSEMBLE_BLOCK. */
static saw_status emit(saw_job *job, float *const *planes, int64_t n)
{
    saw_status status = SAW_OK;
    for (int s = 0; s < job->n_stems && !status; s++)
        status =
            saw_audio_write(job->writers[s], (const float *const *)planes + s * job->channels, n);
    if (job->mix && !status) {
        saw_ring_peek(job->mix, 0, job->rest, n);
        saw_ring_drop(job->mix, n);
        for (int c = 0; c < job->channels; c++)
            for (int64_t i = 0; i < n; i++) {
                double rest = job->rest[c][i];
                for (int s = 0; s < job->n_stems; s++)
                    rest -= planes[s * job->channels + c][i];
                job->rest[c][i] = (float)rest;
            }
        status = saw_audio_write(job->writers[job->n_stems], (const float *const *)job->rest, n);
    }
    job->emitted += n;
    return status;
}

/* Join what all models have ready; at the end of the file, all there is. */
static saw_status join_models(saw_job *job, bool end)
{
    int models = job->options.n_models, planes = job->n_stems * job->channels;
    int64_t length = SAW_ENSEMBLE_BLOCK + 2 * saw_ensemble_context(job->ensemble);
    const float *in[SAW_ENSEMBLE_MODELS];
    for (saw_status status; end ? job->emitted < job->frames : true;) {
        for (int m = 0; m < models; m++) {
            int64_t short_of = length - saw_ring_size(job->voices[m].ready);
            if (short_of > 0 && !end)
                return SAW_OK;
            if (short_of > 0)
                saw_ring_write(job->voices[m].ready, NULL, short_of);
        }
        for (int m = 0; m < models; m++) {
            saw_ring_peek(job->voices[m].ready, 0, job->window + m * planes, length);
            saw_ring_drop(job->voices[m].ready, SAW_ENSEMBLE_BLOCK);
        }
        for (int p = 0; p < planes; p++) {
            for (int m = 0; m < models; m++)
                in[m] = job->window[m * planes + p];
            saw_ensemble_run(job->ensemble, in, job->joined[p]);
        }
        int64_t left = end ? job->frames - job->emitted : SAW_ENSEMBLE_BLOCK;
        status = emit(job, job->joined, left < SAW_ENSEMBLE_BLOCK ? left : SAW_ENSEMBLE_BLOCK);
        if (status)
            return status;
    }
    return SAW_OK;
}

/* Samples of one model at the file's rate, [stems * channels]. */
static saw_status deliver(saw_job *job, voice *v, float *const *planes, int64_t n)
{
    if (!job->ensemble)
        return emit(job, planes, n);
    if (saw_ring_write(v->ready, (const float *const *)planes, n) < n)
        return saw_fail(job->ctx, SAW_ERR_MEMORY,
                        "%s: holds back less than the other models allow for", v->info->path);
    return SAW_OK;
}

/* ---- one model ------------------------------------------------------------------------------- */

static int streams_of(const voice *v)
{
    return v->groups * v->passes;
}

/* Passes: the mix; with two channels the mix with channels swapped; the mix with its sign turned.
 */
static bool is_swapped(const voice *v, int pass)
{
    return pass == 1 && v->passes == 3;
}

static bool is_turned(const voice *v, int pass)
{
    return pass > 0 && pass == v->passes - 1;
}

/* Bring samples at the model's rate, in job->spread, to the file's rate and deliver them; n 0: what
 * is left. */
static saw_status bring_back(saw_job *job, voice *v, int64_t n)
{
    float *from[SAW_AUDIO_MAX_CHANNELS];
    for (int64_t done = 0, used = 0, got = BLOCK; done < n || got == BLOCK; done += used) {
        for (int s = 0; s < job->n_stems; s++) {
            float *const *in = shift(job->spread + s * job->channels, job->channels, done, from);
            saw_status status = saw_resample_run(v->out[s], (const float *const *)in, n - done,
                                                 &used, job->back + s * job->channels, BLOCK, &got);
            if (status)
                return status;
        }
        saw_status status = got ? deliver(job, v, job->back, got) : SAW_OK;
        if (status)
            return status;
    }
    return SAW_OK;
}

/* Take what all streams of a model have ready. */
static saw_status drain(saw_job *job, voice *v)
{
    int channels = v->info->channels, planes = job->n_stems * channels;
    for (;;) {
        int64_t n = BLOCK;
        for (int i = 0; i < streams_of(v); i++) {
            int64_t ready = saw_stream_ready(v->streams[i]);
            n = ready < n ? ready : n;
        }
        if (n == 0)
            return SAW_OK;
        for (int g = 0; g < v->groups; g++) {
            for (int pass = 0; pass < v->passes; pass++) {
                saw_stream *t = v->streams[g * v->passes + pass];
                saw_status status = saw_stream_pull(t, pass ? job->pulled : job->sum, n);
                if (status)
                    return status;
                float sign = is_turned(v, pass) ? -1 : 1;
                for (int p = 0; pass && p < planes; p++) {
                    const float *x = job->pulled[is_swapped(v, pass) ? p ^ 1 : p];
                    for (int64_t i = 0; i < n; i++)
                        job->sum[p][i] += sign * x[i];
                }
            }
            double scale = v->scale[g] / v->passes, mean = v->mean[g];
            for (int p = 0; (scale != 1 || mean != 0) && p < planes; p++)
                for (int64_t i = 0; i < n; i++)
                    job->sum[p][i] = (float)(job->sum[p][i] * scale + mean);
            for (int s = 0; s < job->n_stems; s++)
                saw_channel_out((const float *const *)job->sum + s * channels, channels, n,
                                job->spread + s * job->channels, job->channels, g);
        }
        saw_status status = bring_back(job, v, n);
        if (status)
            return status;
    }
}

/* Give the streams n samples at the model's rate, [channels]. */
static saw_status push(saw_job *job, voice *v, float *const *x, int64_t n)
{
    float *at[SAW_AUDIO_MAX_CHANNELS];
    for (int64_t done = 0, take; done < n; done += take) {
        take = n - done;
        for (int i = 0; i < streams_of(v); i++) {
            int64_t room = saw_stream_room(v->streams[i]);
            take = room < take ? room : take;
        }
        shift(x, job->channels, done, at);
        for (int g = 0; g < v->groups && take; g++) {
            saw_channel_in((const float *const *)at, job->channels, g, take, job->group,
                           v->info->channels);
            for (int c = 0; c < v->info->channels && v->info->normalize; c++)
                for (int64_t i = 0; i < take; i++)
                    job->group[c][i] = (float)((job->group[c][i] - v->mean[g]) / v->scale[g]);
            for (int pass = 0; pass < v->passes; pass++) {
                for (int c = 0; c < v->info->channels && is_turned(v, pass); c++)
                    for (int64_t i = 0; i < take; i++)
                        job->group[c][i] = -job->group[c][i];
                const float *swapped[] = {job->group[v->info->channels - 1], job->group[0]};
                saw_status status = saw_stream_push(
                    v->streams[g * v->passes + pass],
                    is_swapped(v, pass) ? swapped : (const float *const *)job->group, take);
                if (status)
                    return status;
            }
        }
        saw_status status = drain(job, v);
        if (status)
            return status;
    }
    return SAW_OK;
}

/* Give a model n samples of the file, or (block NULL) what the resampler still holds. */
static saw_status feed(saw_job *job, voice *v, float *const *block, int64_t n)
{
    float *at[SAW_AUDIO_MAX_CHANNELS];
    for (int64_t done = 0, used = 0, got = BLOCK; done < n || got == BLOCK; done += used) {
        saw_status status = saw_resample_run(
            v->in, block ? (const float *const *)shift(block, job->channels, done, at) : NULL,
            n - done, &used, job->model, BLOCK, &got);
        if (!status)
            status = push(job, v, job->model, got);
        if (status)
            return status;
    }
    return SAW_OK;
}

/* The file is complete: everything comes out. */
static saw_status finish(saw_job *job, voice *v)
{
    saw_resample_end(v->in, saw_resample_frames(job->frames, job->rate_hz, v->info->rate_hz));
    saw_status status = feed(job, v, NULL, 0);
    for (int i = 0; i < streams_of(v) && !status; i++)
        status = saw_stream_finish(v->streams[i]);
    if (!status)
        status = drain(job, v);
    for (int s = 0; s < job->n_stems; s++)
        saw_resample_end(v->out[s], job->frames);
    return status ? status : bring_back(job, v, 0);
}

static void close_streams(saw_job *job, voice *v)
{
    for (int i = 0; v->streams && i < streams_of(v); i++)
        saw_stream_close(v->streams[i]);
    saw_free(job->ctx, v->streams);
    v->streams = NULL;
    v->memory_bytes = 0;
}

/* Streams for `groups` groups of channels; whole: for one forward of so many samples. limit 0:
 * none. */
static saw_status open_streams(saw_job *job, voice *v, int groups, int64_t whole, size_t limit)
{
    const saw_job_options *o = &job->options;
    v->groups = groups;
    v->passes = !o->tta ? 1 : v->info->channels == 2 ? 3 : 2;
    saw_stream_options options = {.chunk_samples = llround(o->chunk_s * v->info->rate_hz),
                                  .whole_samples = whole,
                                  .overlap = o->overlap,
                                  .stitch = o->stitch,
                                  .batch = o->batch,
                                  .stems = job->stems,
                                  .n_stems = job->n_stems};
    size_t weights = 0; /* that the streams share */
    if (streams_of(v) > 1) {
        saw_program *plan;
        saw_status status = saw_separator_plan(v->separator, &options, &plan);
        if (status)
            return status;
        weights = saw_program_weight_bytes(plan);
        saw_program_close(plan);
    }
    v->streams = saw_calloc(job->ctx, (size_t)streams_of(v), sizeof(saw_stream *));
    if (!v->streams)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < streams_of(v); i++) {
        if (limit)
            options.memory_bytes = limit + (i ? weights : 0) > v->memory_bytes
                                       ? limit + (i ? weights : 0) - v->memory_bytes
                                       : 1;
        saw_status status = saw_stream_open(v->separator, &options, &v->streams[i]);
        if (status)
            return status;
        v->memory_bytes += saw_stream_get_info(v->streams[i])->memory_bytes - (i ? weights : 0);
    }
    return SAW_OK;
}

/* ---- a job ----------------------------------------------------------------------------------- */

static bool has_stem(const saw_separator_info *info, const char *name)
{
    for (int i = 0; i < info->stems; i++)
        if (!strcmp(info->stem_names[i], name))
            return true;
    return false;
}

static saw_status no_stem(saw_job *job, const saw_separator_info *info, const char *name)
{
    saw_buffer names = {.ctx = job->ctx};
    for (int i = 0; i < info->stems; i++)
        saw_buffer_printf(&names, "%s%s", i ? ", " : "", info->stem_names[i]);
    saw_status status = saw_fail(job->ctx, SAW_ERR_ARGUMENT, "%s: has no stem %s: there are %s",
                                 info->path, name, names.data ? names.data : "none");
    saw_buffer_free(&names);
    return status;
}

static saw_status choose_stems(saw_job *job)
{
    const saw_job_options *o = &job->options;
    const saw_separator_info *first = job->voices[0].info;
    int count = o->n_stems ? o->n_stems : first->stems;
    const char *const *names = o->n_stems ? o->stems : first->stem_names;
    for (int i = 0; i < count; i++) {
        bool all = true;
        for (int m = 0; m < o->n_models && all; m++) {
            all = has_stem(job->voices[m].info, names[i]);
            if (!all && o->n_stems)
                return no_stem(job, job->voices[m].info, names[i]);
        }
        for (int k = 0; k < job->n_stems && all; k++)
            if (!strcmp(job->stems[k], names[i]))
                return saw_fail(job->ctx, SAW_ERR_ARGUMENT, "the stem %s is asked for twice",
                                names[i]);
        if (all)
            job->stems[job->n_stems++] = names[i];
    }
    if (job->n_stems == 0)
        return saw_fail(job->ctx, SAW_ERR_ARGUMENT, "the models have no stem in common");
    for (int i = 0; o->residual && i < job->n_stems; i++)
        if (!strcmp(job->stems[i], o->residual))
            return saw_fail(job->ctx, SAW_ERR_ARGUMENT,
                            "the residual cannot be called %s: that is a stem", o->residual);
    job->n_outputs = job->n_stems + (o->residual != NULL);
    return SAW_OK;
}

saw_status saw_job_open(saw_context *ctx, const saw_job_options *options, saw_job **out)
{
    *out = NULL;
    if (options->n_models < 1 || options->n_models > SAW_ENSEMBLE_MODELS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "1 to %d models are wanted, not %d",
                        SAW_ENSEMBLE_MODELS, options->n_models);
    saw_job *job = saw_calloc(ctx, 1, sizeof *job);
    if (!job)
        return SAW_ERR_MEMORY;
    job->ctx = ctx;
    job->options = *options;
    job->voices = saw_calloc(ctx, (size_t)options->n_models, sizeof *job->voices);
    saw_status status = job->voices ? SAW_OK : SAW_ERR_MEMORY;
    for (int m = 0; m < options->n_models && !status; m++) {
        voice *v = &job->voices[m];
        saw_separator_options o = {.config = options->configs ? options->configs[m] : NULL,
                                   .settings = options->settings,
                                   .n_settings = options->n_settings,
                                   .precision = options->precision,
                                   .device = options->device,
                                   .adapter = options->adapter,
                                   .adapter_strength = options->adapter_strength};
        status = saw_separator_open(ctx, options->models[m], &o, &v->separator);
        v->info = status ? NULL : saw_separator_get_info(v->separator);
    }
    if (!status)
        status = choose_stems(job);
    if (!status && options->n_models > 1)
        status = saw_ensemble_open(ctx, options->ensemble, options->n_models, options->weights,
                                   &job->ensemble);
    if (status) {
        saw_job_close(job);
        return status;
    }
    *out = job;
    return SAW_OK;
}

void saw_job_close(saw_job *job)
{
    if (!job)
        return;
    for (int m = 0; job->voices && m < job->options.n_models; m++)
        saw_separator_close(job->voices[m].separator);
    saw_ensemble_close(job->ensemble);
    saw_free(job->ctx, job->voices);
    saw_free(job->ctx, job);
}

int saw_job_outputs(const saw_job *job)
{
    return job->n_outputs;
}

const char *saw_job_output(const saw_job *job, int i)
{
    return i < job->n_stems ? job->stems[i] : job->options.residual;
}

const saw_separator_info *saw_job_model(const saw_job *job, int i)
{
    return job->voices[i].info;
}

/* ---- one file -------------------------------------------------------------------------------- */

/* Open the input at the start of the section that is wanted; *total: its samples, -1 when unknown.
 */
static saw_status open_section(saw_job *job, const char *input, int64_t *total)
{
    saw_status status = saw_audio_open(job->ctx, input, &job->reader);
    if (status)
        return status;
    const saw_audio_info *info = saw_audio_reader_info(job->reader);
    int64_t start = llround(job->options.start_s * info->rate_hz);
    int64_t most = llround(job->options.duration_s * info->rate_hz);
    job->channels = info->channels;
    job->rate_hz = info->rate_hz;
    *total = info->frames >= 0 ? info->frames - start : -1;
    if (most > 0 && *total > most)
        *total = most;
    return start ? saw_audio_seek(job->reader, start) : SAW_OK;
}

static void close_section(saw_job *job)
{
    saw_audio_close(job->reader);
    job->reader = NULL;
}

/* The next block of the section; *got 0 at its end. `done` samples of it were read before. */
static saw_status read_block(saw_job *job, int64_t done, int64_t *got)
{
    int64_t most = llround(job->options.duration_s * job->rate_hz), n = BLOCK;
    if (saw_cancelled(job->ctx))
        return saw_fail(job->ctx, SAW_ERR_CANCELLED, "interrupted");
    if (most > 0 && n > most - done)
        n = most - done;
    *got = 0;
    return n > 0 ? saw_audio_read(job->reader, job->block, n, got) : SAW_OK;
}

/* A first pass over the input for what must be known before: its length (`whole`), and the mean and
 * standard deviation of every group's mono mix (models that are fed normalised audio). */
static saw_status survey(saw_job *job, const char *input, int64_t *total)
{
    const saw_job_options *o = &job->options;
    int64_t got = 1, done = 0;
    double sum[SAW_ENSEMBLE_MODELS][SAW_AUDIO_MAX_CHANNELS] = {{0}};
    double squares[SAW_ENSEMBLE_MODELS][SAW_AUDIO_MAX_CHANNELS] = {{0}};
    saw_status status = open_section(job, input, total);
    while (!status && got > 0) {
        status = read_block(job, done, &got);
        done += got;
        for (int m = 0; m < o->n_models; m++) {
            int width = job->voices[m].info->channels,
                groups = saw_channel_groups(job->channels, width);
            for (int g = 0; g < groups && job->voices[m].info->normalize; g++)
                for (int64_t i = 0; i < got; i++) {
                    double mono = 0;
                    int last = (g + 1) * width < job->channels ? (g + 1) * width : job->channels;
                    for (int c = g * width; c < last; c++)
                        mono += job->block[c][i];
                    mono /= last - g * width;
                    sum[m][g] += mono;
                    squares[m][g] += mono * mono;
                }
        }
    }
    close_section(job);
    *total = done;
    for (int m = 0; m < o->n_models && done; m++)
        for (int g = 0; g < SAW_AUDIO_MAX_CHANNELS && job->voices[m].info->normalize; g++) {
            double mean = sum[m][g] / (double)done,
                   var = squares[m][g] / (double)done - mean * mean;
            job->voices[m].mean[g] = mean;
            job->voices[m].scale[g] = var > 0 ? sqrt(var) : 1;
        }
    return status;
}

/* Everything that one file needs, after its rate and channels are known. */
static saw_status open_buffers(saw_job *job)
{
    saw_context *ctx = job->ctx;
    int n = job->channels, stems = job->n_stems, width = 1;
    int64_t held = 0; /* most samples that a model holds back, at the file's rate */
    saw_status status = SAW_OK;
    for (int m = 0; m < job->options.n_models && !status; m++) {
        voice *v = &job->voices[m];
        int64_t latency = saw_stream_get_info(v->streams[0])->latency_samples + 4 * BLOCK;
        latency = saw_resample_frames(latency, v->info->rate_hz, job->rate_hz);
        held = latency > held ? latency : held;
        width = v->info->channels > width ? v->info->channels : width;
        status =
            saw_resample_open(ctx, job->rate_hz, v->info->rate_hz, n, SAW_RESAMPLE_BEST, &v->in);
        for (int s = 0; s < stems && !status; s++)
            status = saw_resample_open(ctx, v->info->rate_hz, job->rate_hz, n, SAW_RESAMPLE_BEST,
                                       &v->out[s]);
    }
    int64_t window = BLOCK;
    if (job->ensemble) {
        window = SAW_ENSEMBLE_BLOCK + 2 * saw_ensemble_context(job->ensemble);
        for (int m = 0; m < job->options.n_models && !status; m++) {
            status = saw_ring_open(ctx, stems * n, held + window + SLACK, &job->voices[m].ready);
            if (!status)
                saw_ring_write(job->voices[m].ready, NULL, saw_ensemble_context(job->ensemble));
        }
    }
    const struct {
        float ***planes;
        int count;
        int64_t samples;
    } buffers[] = {{&job->model, n, BLOCK},
                   {&job->group, width, BLOCK},
                   {&job->pulled, stems * width, BLOCK},
                   {&job->sum, stems * width, BLOCK},
                   {&job->spread, stems * n, BLOCK},
                   {&job->back, stems * n, BLOCK},
                   {&job->rest, n, window},
                   {&job->window, job->options.n_models * stems * n, window},
                   {&job->joined, stems * n, window}};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers && !status; i++)
        if (buffers[i].samples == BLOCK || job->ensemble)
            status = open_planes(ctx, buffers[i].count, buffers[i].samples, buffers[i].planes);
    if (!status && job->options.residual)
        status = saw_ring_open(ctx, n, held + window + SLACK, &job->mix);
    return status;
}

static void close_buffers(saw_job *job)
{
    for (int m = 0; m < job->options.n_models; m++) {
        voice *v = &job->voices[m];
        close_streams(job, v);
        saw_resample_close(v->in);
        v->in = NULL;
        for (int s = 0; s < job->n_stems; s++) {
            saw_resample_close(v->out[s]);
            v->out[s] = NULL;
        }
        saw_ring_close(v->ready);
        v->ready = NULL;
    }
    saw_ring_close(job->mix);
    job->mix = NULL;
    float ***planes[] = {&job->block,  &job->model, &job->group, &job->pulled, &job->sum,
                         &job->spread, &job->back,  &job->rest,  &job->window, &job->joined};
    for (size_t i = 0; i < sizeof planes / sizeof *planes; i++) {
        saw_free(job->ctx, *planes[i]);
        *planes[i] = NULL;
    }
}

/* Folders of this path that are not there yet. */
static int missing_folders(saw_context *ctx, const char *path)
{
    int missing = 0;
    char *p = saw_strdup(ctx, path);
    for (char *slash; p && (slash = strrchr(p, '/')) && slash > p && (*slash = 0, access(p, F_OK));)
        missing++;
    saw_free(ctx, p);
    return missing;
}

/* Remove that many empty folders above a path. */
static void remove_folders(saw_context *ctx, const char *path, int count)
{
    char *p = saw_strdup(ctx, path);
    for (char *slash; p && count-- > 0 && (slash = strrchr(p, '/'));) {
        *slash = 0;
        rmdir(p);
    }
    saw_free(ctx, p);
}

static saw_status make_folder_of(saw_context *ctx, const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash && slash > path ? saw_strndup(ctx, path, (size_t)(slash - path)) : NULL;
    saw_status status = folder ? saw_make_folders(ctx, folder) : SAW_OK;
    saw_free(ctx, folder);
    return status;
}

/* Create all outputs and their folders; made[i]: how many of those of output i were not there. */
static saw_status open_writers(saw_job *job, const char *const *paths, int *made)
{
    const saw_audio_tags *tags = saw_audio_reader_tags(job->reader);
    saw_status status = SAW_OK;
    for (int i = 0; i < job->n_outputs && !status; i++) {
        made[i] = missing_folders(job->ctx, paths[i]);
        status = make_folder_of(job->ctx, paths[i]);
        if (status)
            break;
        saw_remove_leftovers(job->ctx, paths[i]);
        status = saw_audio_create(job->ctx, paths[i], &job->options.format, job->channels,
                                  job->rate_hz, tags, &job->writers[i]);
    }
    return status;
}

/* Let all outputs appear, or after a failure none. */
static saw_status close_writers(saw_job *job, const char *const *paths, const int *made,
                                saw_status status, saw_job_report *report)
{
    for (int i = 0; i < job->n_outputs && !status; i++) {
        status = saw_audio_commit(job->writers[i], &report->outputs[i]);
        job->writers[i] = NULL;
        for (int k = 0; status && k < i; k++)
            unlink(paths[k]);
    }
    for (int i = 0; i < job->n_outputs; i++) {
        saw_audio_abort(job->writers[i]);
        job->writers[i] = NULL;
    }
    for (int i = job->n_outputs - 1; i >= 0 && status; i--)
        remove_folders(job->ctx, paths[i], made[i]);
    return status;
}

static saw_status prepare(saw_job *job, const char *input, int64_t *total)
{
    const saw_job_options *o = &job->options;
    bool normalize = false;
    size_t used = 0;
    for (int m = 0; m < o->n_models; m++) {
        normalize |= job->voices[m].info->normalize;
        for (int g = 0; g < SAW_AUDIO_MAX_CHANNELS; g++) {
            job->voices[m].mean[g] = 0;
            job->voices[m].scale[g] = 1;
        }
    }
    if ((o->whole || normalize) && !strcmp(input, "-"))
        return saw_fail(
            job->ctx, SAW_ERR_UNSUPPORTED,
            "standard input can be read only once, and %s needs a first pass: give a file",
            o->whole ? "--chunk whole" : "the whole-file normalisation of this model");
    int64_t length = 0;
    saw_status status = open_planes(job->ctx, SAW_AUDIO_MAX_CHANNELS, BLOCK, &job->block);
    if (!status && (o->whole || normalize))
        status = survey(job, input, &length);
    if (!status)
        status = open_section(job, input, total);
    if (!status && o->whole && length == 0)
        status = saw_fail(job->ctx, SAW_ERR_ARGUMENT,
                          "there is no audio in the section that was asked for");
    for (int m = 0; m < o->n_models && !status; m++) {
        voice *v = &job->voices[m];
        size_t limit = o->memory_bytes ? (o->memory_bytes > used ? o->memory_bytes - used : 1) : 0;
        int64_t whole = o->whole ? saw_resample_frames(length, job->rate_hz, v->info->rate_hz) : 0;
        status = open_streams(job, v, saw_channel_groups(job->channels, v->info->channels), whole,
                              limit);
        used += v->memory_bytes;
    }
    return status ? status : open_buffers(job);
}

static saw_status run_file(saw_job *job, int64_t total)
{
    const saw_job_options *o = &job->options;
    saw_status status = SAW_OK;
    for (int64_t got = 1; got > 0 && !status;) {
        status = read_block(job, job->frames, &got);
        job->frames += got;
        if (!status && job->mix &&
            saw_ring_write(job->mix, (const float *const *)job->block, got) < got)
            status = saw_fail(job->ctx, SAW_ERR_MEMORY, "a model holds back more than it states");
        for (int m = 0; m < o->n_models && !status && got; m++)
            status = feed(job, &job->voices[m], job->block, got);
        if (!status && job->ensemble)
            status = join_models(job, false);
        if (!status && o->progress)
            o->progress(o->user, job->frames, total, job->rate_hz);
    }
    if (!status && job->frames == 0)
        status = saw_fail(job->ctx, SAW_ERR_ARGUMENT,
                          "there is no audio in the section that was asked for");
    for (int m = 0; m < o->n_models && !status; m++)
        status = finish(job, &job->voices[m]);
    if (!status && job->ensemble)
        status = join_models(job, true);
    return status;
}

saw_status saw_job_run(saw_job *job, const char *input, const char *const *paths,
                       saw_job_report *report)
{
    double start = saw_seconds();
    saw_job_report r = {0};
    int made[MAX_OUTPUTS] = {0};
    int64_t total = -1;
    job->frames = job->emitted = 0;
    saw_status status = prepare(job, input, &total);
    if (!status)
        status = open_writers(job, paths, made);
    if (!status)
        status = run_file(job, total);
    status = close_writers(job, paths, made, status, &r);
    for (int m = 0; m < job->options.n_models; m++)
        r.memory_bytes += job->voices[m].memory_bytes;
    close_section(job);
    close_buffers(job);
    r.rate_hz = job->rate_hz;
    r.channels = job->channels;
    r.frames = job->frames;
    r.seconds = saw_seconds() - start;
    if (report)
        *report = r;
    return status;
}
