#include "run/evaluate.h"

#include "dsp/bss_eval.h"
#include "dsp/metrics.h"
#include "io/audio.h"
#include "run/paths.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 16, MAX_SUMS = 16, READ_FRAMES = 65536 };

static const char *const names[SAW_METRIC_COUNT] = {
    "sdr", "chunk_sdr", "isr", "sir", "sar", "si_sdr", "snr", "l1_freq", "bleedless", "fullness"};

const char *saw_metric_name(saw_metric metric)
{
    return names[metric];
}

enum {
    FILTER_METRICS = 1 << SAW_METRIC_ISR | 1 << SAW_METRIC_SIR | 1 << SAW_METRIC_SAR,
    BSS_METRICS = FILTER_METRICS | 1 << SAW_METRIC_CHUNK_SDR
};

/* name=part+part */
typedef struct sum {
    char *name, *parts[MAX_PARTS];
    int count;
} sum;

/* One file of a list, by what it is paired by. */
typedef struct entry {
    const saw_input_file *file;
    char *stem; /* owned */
    bool used;
} entry;

typedef struct entry_list {
    saw_input_list inputs;
    entry *entries; /* by folder, then by stem */
    int count;
} entry_list;

/* The files whose sum is one stem's reference or estimate. */
typedef struct stem_files {
    const saw_input_file *file[MAX_PARTS];
    int count;
} stem_files;

typedef struct stem {
    const char *name;
    const sum *sum; /* NULL: a stem of its own */
    stem_files reference, estimate;
} stem;

typedef struct song {
    char *name;
    stem *stems;
    saw_stem_scores *rows;
    int stem_count, row_count;
} song;

struct saw_evaluation {
    saw_context *ctx;
    saw_evaluation_options o;
    entry_list references, estimates;
    sum sums[MAX_SUMS];
    song *songs;
    int song_count, problems;
    int song_now, steps_done, steps; /* for progress */
};

/* ---- pairs ----------------------------------------------------------------------------------- */

static saw_status parse_sum(saw_context *ctx, const char *text, sum *s)
{
    const char *equals = strchr(text, '='), *p = equals ? equals + 1 : NULL;
    bool good = equals && equals > text;
    if (good && !(s->name = saw_strndup(ctx, text, (size_t)(equals - text))))
        return SAW_ERR_MEMORY;
    for (; good && p; p = *p ? p + 1 : NULL) {
        size_t n = strcspn(p, "+");
        good = n && s->count < MAX_PARTS;
        if (good && !(s->parts[s->count++] = saw_strndup(ctx, p, n)))
            return SAW_ERR_MEMORY;
        p += n;
    }
    if (!good)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the sum %s makes no sense: a name and at most %d parts are wanted, as "
                        "accompaniment=drums+bass+other",
                        text, MAX_PARTS);
    return SAW_OK;
}

static int by_folder_and_stem(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = strcmp(x->file->folder, y->file->folder);
    return order ? order : strcmp(x->stem, y->stem);
}

static void problem(saw_evaluation *v, const char *sentence)
{
    saw_log(v->ctx, SAW_LOG_WARN, "%s", sentence);
    v->problems++;
}

static saw_status list_entries(saw_evaluation *v, const char *folder, entry_list *list)
{
    list->inputs.ctx = v->ctx;
    saw_status status = saw_inputs_add(&list->inputs, folder, NULL);
    if (status)
        return status;
    list->entries = saw_calloc(v->ctx, (size_t)list->inputs.count, sizeof *list->entries);
    if (!list->entries)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < list->inputs.count; i++) {
        entry *e = &list->entries[list->count++];
        e->file = &list->inputs.files[i];
        if (!(e->stem = saw_path_stem(v->ctx, e->file->path)))
            return SAW_ERR_MEMORY;
    }
    qsort(list->entries, (size_t)list->count, sizeof *list->entries, by_folder_and_stem);
    return SAW_OK;
}

static entry *find_entry(entry_list *list, const char *folder, const char *stem_name)
{
    const saw_input_file key_file = {.folder = (char *)folder};
    const entry key = {.file = &key_file, .stem = (char *)stem_name};
    return bsearch(&key, list->entries, (size_t)list->count, sizeof key, by_folder_and_stem);
}

/* The file of a stem in a song's folder or, for a sum, those of its parts; none when it is not
 * whole. */
static void find_files(entry_list *list, const char *folder, const char *name, const sum *s,
                       stem_files *out)
{
    entry *found = find_entry(list, folder, name);
    *out = (stem_files){0};
    if (found)
        out->file[out->count++] = found->file;
    for (int i = 0; !found && s && i < s->count; i++) {
        const entry *part = find_entry(list, folder, s->parts[i]);
        if (!part) {
            out->count = 0;
            return;
        }
        out->file[out->count++] = part->file;
    }
}

static void mark_used(entry_list *list, const char *folder, const stem_files *files)
{
    for (int i = 0; i < list->count; i++)
        for (int k = 0; k < files->count; k++)
            if (list->entries[i].file == files->file[k] &&
                !strcmp(list->entries[i].file->folder, folder))
                list->entries[i].used = true;
}

static const sum *find_sum(const saw_evaluation *v, const char *name)
{
    for (int i = 0; i < v->o.n_sums; i++)
        if (!strcmp(v->sums[i].name, name))
            return &v->sums[i];
    return NULL;
}

static void add_stem(saw_evaluation *v, song *g, const char *folder, const char *name)
{
    stem s = {.name = name, .sum = find_sum(v, name)};
    find_files(&v->references, folder, name, s.sum, &s.reference);
    find_files(&v->estimates, folder, name, s.sum, &s.estimate);
    if (!s.reference.count || !s.estimate.count || !strcmp(name, "mixture"))
        return;
    mark_used(&v->references, folder, &s.reference);
    mark_used(&v->estimates, folder, &s.estimate);
    g->stems[g->stem_count++] = s;
}

/* Length without slashes at the end. */
static int folder_length(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return (int)n;
}

/* "a/b/" is the song a/b, "" the folder itself. */
static char *song_name(saw_context *ctx, const char *folder, const char *root)
{
    int n = folder_length(*folder ? folder : root), first = *folder ? 0 : n;
    while (first && root[first - 1] != '/')
        first--;
    return saw_strndup(ctx, (*folder ? folder : root) + first, (size_t)(n - first));
}

/* The song of the references [first, end), which lie in one folder. */
static saw_status add_song(saw_evaluation *v, int first, int end)
{
    entry *e = v->references.entries;
    const char *folder = e[first].file->folder;
    song *g = &v->songs[v->song_count++];
    g->name = song_name(v->ctx, folder, v->o.reference);
    g->stems = saw_calloc(v->ctx, (size_t)(end - first + v->o.n_sums), sizeof *g->stems);
    g->rows = saw_calloc(v->ctx, (size_t)(end - first + v->o.n_sums), sizeof *g->rows);
    if (!g->name || !g->stems || !g->rows)
        return SAW_ERR_MEMORY;
    for (int i = first; i < end; i++)
        if (i == first || strcmp(e[i].stem, e[i - 1].stem))
            add_stem(v, g, folder, e[i].stem);
    for (int i = 0; i < v->o.n_sums; i++)
        if (!find_entry(&v->references, folder, v->sums[i].name))
            add_stem(v, g, folder, v->sums[i].name);
    return SAW_OK;
}

/* A sentence for every file of a list that nothing was paired with. */
static void report_unused(saw_evaluation *v, const entry_list *list, entry_list *others,
                          const char *root, const char *missing)
{
    char sentence[4608];
    for (int i = 0; i < list->count; i++) {
        const entry *e = &list->entries[i];
        if (e->used || !strcmp(e->stem, "mixture"))
            continue;
        bool twice = find_entry(others, e->file->folder, e->stem);
        if (twice)
            snprintf(sentence, sizeof sentence,
                     "%s: left out, another file of the folder is the same stem", e->file->path);
        else
            snprintf(sentence, sizeof sentence, "%s: left out, its %s %.*s/%s%s.* is missing",
                     e->file->path, missing, folder_length(root), root, e->file->folder, e->stem);
        problem(v, sentence);
    }
}

static saw_status find_pairs(saw_evaluation *v)
{
    const entry *e = v->references.entries;
    saw_status status = SAW_OK;
    int pairs = 0;
    v->songs = saw_calloc(v->ctx, (size_t)v->references.count, sizeof *v->songs);
    if (!v->songs)
        return SAW_ERR_MEMORY;
    for (int first = 0, end; first < v->references.count && !status; first = end) {
        for (end = first + 1;
             end < v->references.count && !strcmp(e[end].file->folder, e[first].file->folder);)
            end++;
        status = add_song(v, first, end);
        song *g = &v->songs[v->song_count - 1];
        pairs += g->stem_count;
        if (!status && !g->stem_count) { /* its files are reported */
            saw_free(v->ctx, g->name);
            saw_free(v->ctx, g->stems);
            saw_free(v->ctx, g->rows);
            *g = (song){0};
            v->song_count--;
        }
    }
    if (!status && !pairs)
        return saw_fail(v->ctx, SAW_ERR_IO,
                        "no file below %s has its partner below %s: the estimate of %s would be "
                        "%.*s/%s%s.wav",
                        v->o.reference, v->o.estimate, e[0].file->path,
                        folder_length(v->o.estimate), v->o.estimate, e[0].file->folder, e[0].stem);
    if (!status) {
        report_unused(v, &v->references, &v->estimates, v->o.estimate, "estimate");
        report_unused(v, &v->estimates, &v->references, v->o.reference, "reference");
    }
    return status;
}

saw_status saw_evaluation_open(saw_context *ctx, const saw_evaluation_options *options,
                               saw_evaluation **out)
{
    *out = NULL;
    if (options->n_sums > MAX_SUMS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "there are more than %d sums", MAX_SUMS);
    saw_evaluation *v = saw_calloc(ctx, 1, sizeof *v);
    if (!v)
        return SAW_ERR_MEMORY;
    v->ctx = ctx;
    v->o = *options;
    saw_status status = SAW_OK;
    for (int i = 0; i < options->n_sums && !status; i++)
        status = parse_sum(ctx, options->sums[i], &v->sums[i]);
    if (!status)
        status = list_entries(v, options->reference, &v->references);
    if (!status)
        status = list_entries(v, options->estimate, &v->estimates);
    if (!status)
        status = find_pairs(v);
    if (status)
        saw_evaluation_close(v);
    else
        *out = v;
    return status;
}

static void free_entries(saw_context *ctx, entry_list *list)
{
    for (int i = 0; i < list->count; i++)
        saw_free(ctx, list->entries[i].stem);
    saw_free(ctx, list->entries);
    saw_inputs_free(&list->inputs);
}

void saw_evaluation_close(saw_evaluation *v)
{
    if (!v)
        return;
    saw_context *ctx = v->ctx;
    for (int i = 0; i < v->song_count; i++) {
        saw_free(ctx, v->songs[i].name);
        saw_free(ctx, v->songs[i].stems);
        saw_free(ctx, v->songs[i].rows);
    }
    saw_free(ctx, v->songs);
    for (int i = 0; i < MAX_SUMS; i++) {
        saw_free(ctx, v->sums[i].name);
        for (int k = 0; k < v->sums[i].count; k++)
            saw_free(ctx, v->sums[i].parts[k]);
    }
    free_entries(ctx, &v->references);
    free_entries(ctx, &v->estimates);
    saw_free(ctx, v);
}

int saw_evaluation_songs(const saw_evaluation *v)
{
    return v->song_count;
}

const char *saw_evaluation_song(const saw_evaluation *v, int i)
{
    return v->songs[i].name;
}

int saw_evaluation_problems(const saw_evaluation *v)
{
    return v->problems;
}

/* ---- audio ----------------------------------------------------------------------------------- */

typedef struct audio {
    int rate_hz, channels;
    int64_t samples, room;
    float *channel[SAW_AUDIO_MAX_CHANNELS];
} audio;

static void free_audio(saw_context *ctx, audio *a)
{
    for (int c = 0; c < a->channels; c++)
        saw_free(ctx, a->channel[c]);
    *a = (audio){0};
}

/* Grows as samples come: what a header promises may not be there. */
static saw_status read_samples(saw_context *ctx, saw_audio_reader *r, audio *a)
{
    int64_t promised = saw_audio_reader_info(r)->frames, got = READ_FRAMES;
    float *at[SAW_AUDIO_MAX_CHANNELS];
    while (got == READ_FRAMES) {
        if (a->samples + READ_FRAMES > a->room) {
            int64_t room = a->room ? 2 * a->room : 64 * READ_FRAMES, exact = promised + READ_FRAMES;
            a->room = promised > 0 && exact > a->room && exact < room ? exact : room;
            for (int c = 0; c < a->channels; c++) {
                float *grown =
                    saw_realloc(ctx, a->channel[c], (size_t)a->room * sizeof *a->channel[c]);
                if (!grown)
                    return SAW_ERR_MEMORY;
                a->channel[c] = grown;
            }
        }
        for (int c = 0; c < a->channels; c++)
            at[c] = a->channel[c] + a->samples;
        saw_status status = saw_audio_read(r, at, READ_FRAMES, &got);
        if (status)
            return status;
        if (saw_cancelled(ctx))
            return SAW_ERR_CANCELLED;
        a->samples += got;
    }
    return SAW_OK;
}

static saw_status read_file(saw_context *ctx, const char *path, audio *a)
{
    saw_audio_reader *r;
    *a = (audio){0};
    saw_status status = saw_audio_open(ctx, path, &r);
    if (status)
        return status;
    a->rate_hz = saw_audio_reader_info(r)->rate_hz;
    a->channels = saw_audio_reader_info(r)->channels;
    status = read_samples(ctx, r, a);
    if (!status && a->samples == 0)
        status = saw_fail(ctx, SAW_ERR_FORMAT, "%s: the file holds no samples", path);
    saw_audio_close(r);
    if (status)
        free_audio(ctx, a);
    return status;
}

/* Two files that belong together must be alike. */
static saw_status check_alike(saw_context *ctx, const char *path, const audio *a, const char *other,
                              const audio *b)
{
    if (a->rate_hz != b->rate_hz)
        return saw_fail(ctx, SAW_ERR_SHAPE, "%s has %d Hz, but %s has %d: they must be the same",
                        path, a->rate_hz, other, b->rate_hz);
    if (a->channels != b->channels)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "%s has %d channel%s, but %s has %d: they must be the same", path,
                        a->channels, a->channels == 1 ? "" : "s", other, b->channels);
    if (a->samples != b->samples)
        return saw_fail(ctx, SAW_ERR_SHAPE,
                        "%s has %lld samples, but %s has %lld: they must be the same", path,
                        (long long)a->samples, other, (long long)b->samples);
    return SAW_OK;
}

/* The sum of some files. */
static saw_status read_files(saw_context *ctx, const stem_files *files, audio *a)
{
    saw_status status = read_file(ctx, files->file[0]->path, a);
    for (int i = 1; i < files->count && !status; i++) {
        audio part;
        status = read_file(ctx, files->file[i]->path, &part);
        if (status)
            break;
        status = check_alike(ctx, files->file[i]->path, &part, files->file[0]->path, a);
        for (int c = 0; c < a->channels && !status; c++)
            for (int64_t t = 0; t < a->samples; t++)
                a->channel[c][t] += part.channel[c][t];
        free_audio(ctx, &part);
    }
    if (status)
        free_audio(ctx, a);
    return status;
}

/* ---- scores ---------------------------------------------------------------------------------- */

typedef struct loaded {
    const stem *stem;
    audio reference, estimate;
    saw_stem_scores *row;
} loaded;

static void step(saw_evaluation *v)
{
    v->steps_done++;
    if (v->o.progress)
        v->o.progress(v->o.user, v->song_now, v->steps_done, v->steps);
}

static bool wanted(const saw_evaluation *v, unsigned metrics)
{
    return (v->o.metrics & metrics) != 0;
}

/* What needs no other stem. */
static saw_status score_stem(saw_evaluation *v, loaded *l)
{
    double *score = l->row->score;
    const audio *r = &l->reference, *e = &l->estimate;
    const saw_signals s = {(const float *const *)r->channel, (const float *const *)e->channel,
                           r->channels, r->samples};
    saw_sdr_sums all = {0};
    double snr = 0;
    for (int c = 0; c < r->channels; c++) {
        saw_sdr_sums one = {0};
        saw_sdr_add(&one, r->channel[c], e->channel[c], r->samples);
        saw_sdr_add(&all, r->channel[c], e->channel[c], r->samples);
        snr += saw_sdr_db(&one, 0) / r->channels;
    }
    if (wanted(v, 1 << SAW_METRIC_SDR))
        score[SAW_METRIC_SDR] = saw_sdr_db(&all, 1e-8);
    if (wanted(v, 1 << SAW_METRIC_SI_SDR))
        score[SAW_METRIC_SI_SDR] = saw_si_sdr_db(&all);
    if (wanted(v, 1 << SAW_METRIC_SNR))
        score[SAW_METRIC_SNR] = snr;
    saw_status status = SAW_OK;
    if (wanted(v, 1 << SAW_METRIC_L1_FREQ)) {
        status = saw_l1_freq(v->ctx, &s, &score[SAW_METRIC_L1_FREQ]);
        if (status == SAW_ERR_SHAPE) /* shorter than a window: no score */
            status = SAW_OK;
    }
    double bleedless, fullness;
    if (!status && wanted(v, 1 << SAW_METRIC_BLEEDLESS | 1 << SAW_METRIC_FULLNESS)) {
        status = saw_bleed_full(v->ctx, &s, &bleedless, &fullness);
        if (!status && wanted(v, 1 << SAW_METRIC_BLEEDLESS))
            score[SAW_METRIC_BLEEDLESS] = bleedless;
        if (!status && wanted(v, 1 << SAW_METRIC_FULLNESS))
            score[SAW_METRIC_FULLNESS] = fullness;
    }
    l->row->silent_reference = saw_bss_silent(s.reference, s.channels, s.samples);
    l->row->silent_estimate = saw_bss_silent(s.estimate, s.channels, s.samples);
    step(v);
    return status;
}

static void set_medians(const saw_evaluation *v, saw_stem_scores *row, const saw_bss_ratios *ratio,
                        int64_t windows, double *values)
{
    static const struct {
        saw_metric metric;
        size_t offset;
    } kinds[] = {{SAW_METRIC_CHUNK_SDR, offsetof(saw_bss_ratios, sdr_db)},
                 {SAW_METRIC_ISR, offsetof(saw_bss_ratios, isr_db)},
                 {SAW_METRIC_SIR, offsetof(saw_bss_ratios, sir_db)},
                 {SAW_METRIC_SAR, offsetof(saw_bss_ratios, sar_db)}};
    row->windows = (int)windows;
    row->windows_scored = 0;
    for (int64_t w = 0; w < windows; w++)
        row->windows_scored += !isnan(ratio[w].sdr_db);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (int64_t w = 0; w < windows; w++)
            values[w] = *(const double *)((const char *)&ratio[w] + kinds[k].offset);
        if (wanted(v, 1u << kinds[k].metric))
            row->score[kinds[k].metric] = saw_median(values, windows);
    }
}

/* BSSEval of some stems together; medians for those of them from `first` on. */
static saw_status score_set(saw_evaluation *v, loaded *const *set, int count, int first)
{
    const audio *a = &set[0]->reference;
    size_t signals = (size_t)(count * a->channels);
    int64_t windows = saw_bss_windows(a->samples, a->rate_hz);
    const float **channels = saw_alloc(v->ctx, 2 * signals * sizeof *channels);
    saw_bss_ratios *ratios = saw_alloc(v->ctx, (size_t)(count * windows) * sizeof *ratios);
    double *values = saw_alloc(v->ctx, (size_t)windows * sizeof *values);
    saw_status status = channels && ratios && values ? SAW_OK : SAW_ERR_MEMORY;
    for (size_t i = 0; i < signals && !status; i++) {
        const loaded *l = set[i / (size_t)a->channels];
        channels[i] = l->reference.channel[i % (size_t)a->channels];
        channels[signals + i] = l->estimate.channel[i % (size_t)a->channels];
    }
    if (!status)
        status = saw_bss_eval(v->ctx,
                              &(saw_bss_input){.sources = count,
                                               .channels = a->channels,
                                               .samples = a->samples,
                                               .window_samples = a->rate_hz,
                                               .taps = wanted(v, FILTER_METRICS) ? SAW_BSS_TAPS : 0,
                                               .reference = channels,
                                               .estimate = channels + signals},
                              ratios);
    for (int i = first; i < count && !status; i++)
        set_medians(v, set[i]->row, ratios + i * windows, windows, values);
    saw_free(v->ctx, channels);
    saw_free(v->ctx, ratios);
    saw_free(v->ctx, values);
    step(v);
    return status;
}

static bool is_part(const sum *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->parts[i], name))
            return true;
    return false;
}

/* All stems that are no sums together, then each sum, the last of its set. */
static saw_status score_sets(saw_evaluation *v, loaded *l, int count)
{
    loaded **set = saw_alloc(v->ctx, (size_t)count * sizeof(loaded *));
    saw_status status = set ? SAW_OK : SAW_ERR_MEMORY;
    for (int k = -1; k < count && !status; k++) {
        const sum *s = k < 0 ? NULL : l[k].stem->sum;
        int n = 0;
        if (k >= 0 && (!s || l[k].row->silent_reference || l[k].row->silent_estimate))
            continue;
        for (int i = 0; i < count; i++)
            if (!l[i].stem->sum && !l[i].row->silent_reference && !l[i].row->silent_estimate &&
                !(s && is_part(s, l[i].stem->name)))
                set[n++] = &l[i];
        if (s)
            set[n++] = &l[k];
        if (n)
            status = score_set(v, set, n, s ? n - 1 : 0);
    }
    saw_free(v->ctx, set);
    return status;
}

/* A stem's files; one that cannot be used is reported, and leaves l empty. */
static saw_status load_stem(saw_evaluation *v, const stem *s, const loaded *before, loaded *l)
{
    const char *r = s->reference.file[0]->path, *e = s->estimate.file[0]->path;
    *l = (loaded){.stem = s};
    saw_status status = read_files(v->ctx, &s->reference, &l->reference);
    if (!status)
        status = read_files(v->ctx, &s->estimate, &l->estimate);
    if (!status)
        status = check_alike(v->ctx, e, &l->estimate, r, &l->reference);
    if (!status && before)
        status = check_alike(v->ctx, r, &l->reference, before->stem->reference.file[0]->path,
                             &before->reference);
    step(v);
    if (!status)
        return SAW_OK;
    free_audio(v->ctx, &l->reference);
    free_audio(v->ctx, &l->estimate);
    l->stem = NULL;
    if (status == SAW_ERR_MEMORY || status == SAW_ERR_CANCELLED)
        return status;
    problem(v, saw_context_error(v->ctx));
    return SAW_OK;
}

saw_status saw_evaluation_run(saw_evaluation *v, int index, const saw_stem_scores **rows,
                              int *count)
{
    song *g = &v->songs[index];
    loaded *l = saw_calloc(v->ctx, (size_t)g->stem_count, sizeof *l);
    saw_status status = l ? SAW_OK : SAW_ERR_MEMORY;
    int n = 0, sums = 0;
    for (int i = 0; i < g->stem_count; i++)
        sums += g->stems[i].sum != NULL;
    v->song_now = index;
    v->steps_done = 0;
    v->steps = 2 * g->stem_count + (wanted(v, BSS_METRICS) ? 1 + sums : 0);
    g->row_count = 0;
    for (int i = 0; i < g->stem_count && !status; i++) {
        status = load_stem(v, &g->stems[i], n ? &l[0] : NULL, &l[n]);
        if (status || !l[n].stem)
            continue;
        l[n].row = &g->rows[n];
        *l[n].row = (saw_stem_scores){.song = g->name, .stem = g->stems[i].name};
        for (int m = 0; m < SAW_METRIC_COUNT; m++)
            l[n].row->score[m] = NAN;
        n++;
    }
    for (int i = 0; i < n && !status; i++)
        status = score_stem(v, &l[i]);
    if (!status && n && wanted(v, BSS_METRICS))
        status = score_sets(v, l, n);
    for (int i = 0; i < n; i++) {
        free_audio(v->ctx, &l[i].reference);
        free_audio(v->ctx, &l[i].estimate);
    }
    saw_free(v->ctx, l);
    g->row_count = status ? 0 : n;
    *rows = g->rows;
    *count = g->row_count;
    return status ? saw_fail_in(v->ctx, status, g->name) : SAW_OK;
}

/* ---- summaries ------------------------------------------------------------------------------- */

/* Row i of all songs that were run. */
static const saw_stem_scores *row_at(const saw_evaluation *v, int i)
{
    for (int g = 0; g < v->song_count; g++) {
        if (i < v->songs[g].row_count)
            return &v->songs[g].rows[i];
        i -= v->songs[g].row_count;
    }
    return NULL;
}

const char *saw_evaluation_stem(const saw_evaluation *v, int index)
{
    const saw_stem_scores *row, *earlier;
    for (int i = 0; (row = row_at(v, i)); i++) {
        int k = 0;
        while ((earlier = row_at(v, k)) != row && strcmp(earlier->stem, row->stem))
            k++;
        if (earlier == row && index-- == 0)
            return row->stem;
    }
    return NULL;
}

saw_status saw_evaluation_summary(const saw_evaluation *v, const char *stem_name, saw_metric metric,
                                  saw_score_summary *out)
{
    const saw_stem_scores *row;
    int rows = 0;
    *out = (saw_score_summary){NAN, NAN, 0, 0};
    while (row_at(v, rows))
        rows++;
    double *values = saw_alloc(v->ctx, (size_t)rows * sizeof *values), sum_of = 0;
    if (!values)
        return SAW_ERR_MEMORY;
    for (int i = 0; (row = row_at(v, i)); i++) {
        if (stem_name && strcmp(row->stem, stem_name))
            continue;
        out->rows++;
        bool no_ratio = row->silent_reference && metric <= SAW_METRIC_SNR;
        if (isfinite(row->score[metric]) && !no_ratio) {
            values[out->counted++] = row->score[metric];
            sum_of += row->score[metric];
        }
    }
    if (out->counted)
        out->mean = sum_of / out->counted;
    out->median = saw_median(values, out->counted);
    saw_free(v->ctx, values);
    return SAW_OK;
}
