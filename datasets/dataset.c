/*
 * dataset.c - from files to songs to sources: find (a layout), sort, probe, then write each source
 * of each song as a signed sum of files.
 */
#include "datasets/dataset_private.h"
#include "dsp/resample.h"
#include "io/audio.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_SPEC_PARTS = 32, READ_FRAMES = 8192, DEFAULT_HZ = 44100, DEFAULT_CHANNELS = 2 };

#define SAW_LAYOUT(name) extern const saw_layout saw_layout_##name;
#include "datasets/datasets.def"
#undef SAW_LAYOUT

static const saw_layout *const layouts[] = {
#define SAW_LAYOUT(name) &saw_layout_##name,
#include "datasets/datasets.def"
#undef SAW_LAYOUT
};
enum { LAYOUTS = sizeof layouts / sizeof *layouts };

const char *saw_dataset_layout_name(int i)
{
    return i >= 0 && i < LAYOUTS ? layouts[i]->name : NULL;
}

const char *saw_dataset_layout_help(int i)
{
    return i >= 0 && i < LAYOUTS ? layouts[i]->help : NULL;
}

/* ---- wanted stems ---------------------------------------------------------------------------- */

/* "name" or "name=a+b", in lower case. A name alone is its own only part. */
typedef struct wanted {
    char *text; /* owned, cut into name and parts */
    const char *name, *parts[MAX_SPEC_PARTS];
    int count;
    bool rest;
} wanted;

typedef struct wishes {
    wanted stem[SAW_DATASET_MAX_STEMS];
    const char *names[SAW_DATASET_MAX_STEMS * MAX_SPEC_PARTS]; /* all of them: hints for layouts */
    int count, name_count;
} wishes;

static void lower(char *text)
{
    for (; *text; text++)
        *text = *text >= 'A' && *text <= 'Z' ? (char)(*text - 'A' + 'a') : *text;
}

static saw_status parse_wish(saw_context *ctx, const char *text, wanted *w)
{
    if (!(w->text = saw_strdup(ctx, text)))
        return SAW_ERR_MEMORY;
    lower(w->text);
    w->name = w->text;
    char *equals = strchr(w->text, '='), *p = equals ? equals + 1 : w->text;
    if (equals)
        *equals = 0;
    bool good = *w->name;
    for (bool more = true; good && more;) {
        char *end = equals ? p + strcspn(p, "+") : p + strlen(p);
        more = *end;
        *end = 0;
        good = end > p && w->count < MAX_SPEC_PARTS;
        if (good)
            w->parts[w->count++] = p;
        p = end + 1;
    }
    if (good)
        return SAW_OK;
    return saw_fail(ctx, SAW_ERR_ARGUMENT,
                    "the stem %s makes no sense: a name is wanted, or name=part+part with at most "
                    "%d parts",
                    text, MAX_SPEC_PARTS);
}

static saw_status parse_wishes(saw_context *ctx, const saw_dataset_options *o, wishes *w)
{
    if (o->n_stems > SAW_DATASET_MAX_STEMS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT, "%d stems were asked for, %d are possible",
                        o->n_stems, SAW_DATASET_MAX_STEMS);
    for (int i = 0; i < o->n_stems; i++) {
        wanted *s = &w->stem[w->count++];
        saw_status status = parse_wish(ctx, o->stems[i], s);
        if (status)
            return status;
        for (int k = 0; k < s->count; k++)
            w->names[w->name_count++] = s->parts[k];
        for (int k = 0; k < i; k++)
            if (!strcmp(w->stem[k].name, s->name))
                return saw_fail(ctx, SAW_ERR_ARGUMENT, "the stem %s is asked for twice", s->name);
    }
    return SAW_OK;
}

static void free_wishes(saw_context *ctx, wishes *w)
{
    for (int i = 0; w && i < w->count; i++)
        saw_free(ctx, w->stem[i].text);
    saw_free(ctx, w);
}

static bool is_one_of(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return true;
    return false;
}

/* ---- finding --------------------------------------------------------------------------------- */

static int by_song_stem_path(const void *a, const void *b)
{
    const saw_finding *x = a, *y = b;
    int order = strcmp(x->song, y->song);
    order = order ? order : strcmp(x->stem, y->stem);
    return order ? order : strcmp(x->path, y->path);
}

static saw_status choose_layout(saw_dataset *d, const char *path, const char *name)
{
    for (int i = 0; i < LAYOUTS && !d->layout; i++)
        if (name ? !strcmp(layouts[i]->name, name) : layouts[i]->recognise(&d->found, path))
            d->layout = layouts[i];
    if (d->layout)
        return SAW_OK;
    saw_buffer names = {.ctx = d->ctx};
    for (int i = 0; i < LAYOUTS; i++)
        saw_buffer_printf(&names, "%s%s", i ? ", " : "", layouts[i]->name);
    saw_status status = names.failed ? SAW_ERR_MEMORY
                        : name       ? saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                                                "unknown layout %s: there are %s", name, names.data)
                                     : saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                                                "%s: no layout of a data set was recognised there; name "
                                                      "one: %s",
                                                path, names.data);
    saw_buffer_free(&names);
    return status;
}

/* The files below path, whose songs get this prefix. */
static saw_status find_part(saw_dataset *d, const char *path, const char *prefix,
                            const char *layout)
{
    d->found.prefix = prefix;
    saw_status status = d->layout ? SAW_OK : choose_layout(d, path, layout);
    int before = d->found.count;
    if (!status)
        status = d->layout->find(&d->found, path);
    if (!status && d->found.count == before)
        status = saw_fail(d->ctx, SAW_ERR_IO, "%s: holds no audio files in the layout %s (%s)",
                          path, d->layout->name, d->layout->help);
    return status;
}

static saw_status find_files(saw_dataset *d, const char *layout)
{
    static const char *const valid_names[] = {"valid", "validation", "val"};
    struct stat st;
    if (stat(d->path, &st))
        return saw_fail(d->ctx, SAW_ERR_IO, "%s: there is no such file or folder", d->path);
    char *train = saw_format(d->ctx, "%s/train", d->path);
    bool parts = train && S_ISDIR(st.st_mode) && !stat(train, &st) && S_ISDIR(st.st_mode);
    saw_status status = !train  ? SAW_ERR_MEMORY
                        : parts ? find_part(d, train, "train/", layout)
                                : find_part(d, d->path, "", layout);
    for (size_t i = 0; !status && parts && i < sizeof valid_names / sizeof *valid_names; i++) {
        char *valid = saw_format(d->ctx, "%s/%s", d->path, valid_names[i]);
        if (!valid) {
            status = SAW_ERR_MEMORY;
        } else if (!d->parted && !stat(valid, &st) && S_ISDIR(st.st_mode)) {
            status = find_part(d, valid, "valid/", layout);
            d->parted = true;
        }
        saw_free(d->ctx, valid);
    }
    saw_free(d->ctx, train);
    return status;
}

static saw_status sort_songs(saw_dataset *d)
{
    saw_findings *f = &d->found;
    qsort(f->items, (size_t)f->count, sizeof *f->items, by_song_stem_path);
    d->files = saw_calloc(d->ctx, (size_t)f->count, sizeof *d->files);
    d->songs = saw_calloc(d->ctx, (size_t)f->count, sizeof *d->songs);
    if (!d->files || !d->songs)
        return SAW_ERR_MEMORY;
    for (int i = 0; i < f->count; i++) {
        const saw_finding *n = &f->items[i];
        d->files[i].path = n->path;
        d->files[i].stem = n->stem;
        if (!i || strcmp(n->song, n[-1].song)) {
            saw_data_song *g = &d->songs[d->song_count++];
            g->song.name = n->song;
            g->song.part =
                d->parted && !strncmp(n->song, "valid/", 6) ? SAW_SONG_VALID : SAW_SONG_TRAIN;
            g->first_file = i;
        }
        d->songs[d->song_count - 1].files++;
    }
    return SAW_OK;
}

static saw_status find_all(saw_dataset *d, const saw_dataset_options *o, const wishes *w)
{
    d->rate_hz = o->rate_hz ? o->rate_hz : DEFAULT_HZ;
    d->channels = o->channels ? o->channels : DEFAULT_CHANNELS;
    if (d->rate_hz < SAW_AUDIO_MIN_HZ || d->rate_hz > SAW_AUDIO_MAX_HZ || d->channels < 1 ||
        d->channels > SAW_AUDIO_MAX_CHANNELS)
        return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                        "a data set of %d channels at %d Hz makes no sense", d->channels,
                        d->rate_hz);
    /* what a pair's target is: the first wanted stem that is not the rest of the mixture */
    d->found.target = "target";
    for (int i = w->count; i-- > 0;)
        if (strcmp(w->stem[i].name, "other") && strcmp(w->stem[i].name, "residual"))
            d->found.target = w->stem[i].parts[0];
    d->found.stems = w->names;
    d->found.n_stems = w->name_count;
    saw_status status = find_files(d, o->layout);
    d->found.stems = NULL;
    d->found.n_stems = 0;
    return status ? status : sort_songs(d);
}

static saw_status new_dataset(saw_context *ctx, const char *path, saw_dataset **out)
{
    saw_dataset *d = *out = saw_calloc(ctx, 1, sizeof *d);
    if (!d)
        return SAW_ERR_MEMORY;
    d->ctx = d->found.ctx = ctx;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    d->path = saw_strndup(ctx, path, n);
    return d->path ? SAW_OK : SAW_ERR_MEMORY;
}

/* ---- probing --------------------------------------------------------------------------------- */

/* Read to the end of a file that does not state its length. */
static saw_status count_frames(saw_context *ctx, saw_audio_reader *r, int channels, int64_t *frames)
{
    float *planar[SAW_AUDIO_MAX_CHANNELS];
    float *block = saw_calloc(ctx, (size_t)channels * READ_FRAMES, sizeof *block);
    if (!block)
        return SAW_ERR_MEMORY;
    for (int c = 0; c < channels; c++)
        planar[c] = block + (size_t)c * READ_FRAMES;
    saw_status status = SAW_OK;
    int64_t got = READ_FRAMES;
    for (*frames = 0; !status && got == READ_FRAMES; *frames += got) {
        status = saw_audio_read(r, planar, READ_FRAMES, &got);
        if (!status && saw_cancelled(ctx))
            status = saw_fail(ctx, SAW_ERR_CANCELLED, "cancelled while reading the data set");
    }
    saw_free(ctx, block);
    return status;
}

static saw_status probe_file(saw_dataset *d, saw_data_file *f)
{
    saw_audio_reader *r;
    saw_status status = saw_audio_open(d->ctx, f->path, &r);
    if (status)
        return status;
    const saw_audio_info *info = saw_audio_reader_info(r);
    f->channels = info->channels;
    f->rate_hz = info->rate_hz;
    f->frames = info->frames;
    if (f->frames < 0)
        status = count_frames(d->ctx, r, f->channels, &f->frames);
    saw_audio_close(r);
    return status;
}

static saw_status probe(saw_dataset *d)
{
    saw_status status = SAW_OK;
    for (int i = 0; !status && i < d->song_count; i++) {
        saw_data_song *g = &d->songs[i];
        for (int k = g->first_file; !status && k < g->first_file + g->files; k++) {
            saw_data_file *f = &d->files[k];
            status = probe_file(d, f);
            int64_t samples = status ? 0 : saw_resample_frames(f->frames, f->rate_hz, d->rate_hz);
            if (samples > g->song.samples)
                g->song.samples = samples;
        }
    }
    return status;
}

/* ---- sources --------------------------------------------------------------------------------- */

static const char mixture_name[] = "mixture";

static bool any_song_has(const saw_dataset *d, const char *stem)
{
    for (int i = 0; i < d->found.count; i++)
        if (!strcmp(d->files[i].stem, stem))
            return true;
    return false;
}

/* Every stem there is becomes a wish. */
static saw_status wish_for_all(saw_dataset *d, wishes *w)
{
    for (int i = 0; i < d->found.count; i++) {
        const char *stem = d->files[i].stem;
        bool known = !strcmp(stem, mixture_name);
        for (int k = 0; k < w->count; k++)
            known |= !strcmp(w->stem[k].name, stem);
        if (known)
            continue;
        if (w->count == SAW_DATASET_MAX_STEMS)
            return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                            "%s: has more than %d different stems; name those that are wanted",
                            d->path, SAW_DATASET_MAX_STEMS);
        wanted *s = &w->stem[w->count++];
        if (!(s->text = saw_strdup(d->ctx, stem)))
            return SAW_ERR_MEMORY;
        s->name = s->parts[s->count++] = s->text;
    }
    for (int i = 0; i < w->count; i++) /* by name; songs may have shown them in any order */
        for (int k = i; k > 0 && strcmp(w->stem[k - 1].name, w->stem[k].name) > 0; k--) {
            wanted swap = w->stem[k];
            w->stem[k] = w->stem[k - 1];
            w->stem[k - 1] = swap;
        }
    return SAW_OK;
}

/* Which wishes are the rest, and whether every other one is somewhere. */
static saw_status resolve_wishes(saw_dataset *d, wishes *w, bool all)
{
    static const char *const always[] = {"other", "residual"};
    static const char *const unless_there[] = {"rest", "instrumental", "accompaniment"};
    const wanted *rest = NULL;
    for (int i = 0; i < w->count && !all; i++) {
        wanted *s = &w->stem[i];
        bool alone = s->parts[0] == s->name;
        s->rest = alone && (is_one_of(s->name, always, 2) ||
                            (is_one_of(s->name, unless_there, 3) && !any_song_has(d, s->name)));
        if (s->rest && rest)
            return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                            "the stems %s and %s both stand for the rest of the mixture",
                            rest->name, s->name);
        rest = s->rest ? s : rest;
        for (int k = 0; k < s->count && !s->rest; k++)
            if (any_song_has(d, s->parts[k])) {
                break;
            } else if (k == s->count - 1) {
                saw_buffer names = {.ctx = d->ctx};
                wishes *there = saw_calloc(d->ctx, 1, sizeof *there);
                saw_status status = there ? wish_for_all(d, there) : SAW_ERR_MEMORY;
                for (int n = 0; !status && n < there->count; n++)
                    saw_buffer_printf(&names, "%s%s", n ? ", " : "", there->stem[n].name);
                if (!status && !names.failed)
                    status = saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                                      "%s: no song has the stem %s; there are %s", d->path, s->name,
                                      names.data ? names.data : "only mixtures");
                saw_buffer_free(&names);
                free_wishes(d->ctx, there);
                return status ? status : SAW_ERR_MEMORY;
            }
    }
    return SAW_OK;
}

typedef struct builder {
    saw_dataset *d;
    const wishes *w;
    int terms;
} builder;

static bool is_named(const wishes *w, const char *stem)
{
    for (int i = 0; i < w->count; i++)
        if (!w->stem[i].rest && is_one_of(stem, w->stem[i].parts, w->stem[i].count))
            return true;
    return false;
}

static void add_term(builder *b, int file, float sign)
{
    b->d->terms[b->terms++] = (saw_data_term){file, sign};
}

/* The sum of what no wish names, or else the mixture less what the wishes name. */
static void add_rest(builder *b, const saw_data_song *g)
{
    const saw_data_file *files = b->d->files;
    int before = b->terms, end = g->first_file + g->files;
    for (int k = g->first_file; k < end; k++)
        if (strcmp(files[k].stem, mixture_name) && !is_named(b->w, files[k].stem))
            add_term(b, k, 1);
    if (b->terms > before)
        return;
    int stems = 0;
    for (int k = g->first_file; k < end; k++) {
        bool mixture = !strcmp(files[k].stem, mixture_name);
        add_term(b, k, mixture ? 1 : -1);
        stems += !mixture;
    }
    if (!stems || b->terms - before == stems) /* nothing is known of a mixture alone */
        b->terms = before;
}

/* Does any song have a stem that no wish names, or a mixture of one stem and more? (A mixture of
 * several stems is taken for their sum.) */
static bool leaves_rest(const saw_dataset *d, const wishes *w)
{
    for (int i = 0; i < d->song_count; i++) {
        const saw_data_song *g = &d->songs[i];
        bool mixture = false;
        int stems = 0;
        for (int k = g->first_file; k < g->first_file + g->files; k++) {
            const char *stem = d->files[k].stem;
            bool first = k == g->first_file || strcmp(stem, d->files[k - 1].stem);
            if (!strcmp(stem, mixture_name))
                mixture = true;
            else if (!is_named(w, stem))
                return true;
            else
                stems += first;
        }
        if (mixture && stems == 1)
            return true;
    }
    return false;
}

static saw_status build_sources(saw_dataset *d, const wishes *w)
{
    bool rest = false;
    for (int i = 0; i < w->count; i++) {
        rest |= w->stem[i].rest;
        if (!(d->stem_names[i] = saw_strdup(d->ctx, w->stem[i].name)))
            return SAW_ERR_MEMORY;
        d->stem_count++;
    }
    d->source_count = w->count + (!rest && leaves_rest(d, w));
    size_t sources, terms;
    if (!saw_mul_size((size_t)d->song_count, (size_t)d->source_count, &sources) ||
        !saw_mul_size((size_t)d->found.count, (size_t)d->source_count, &terms))
        return saw_fail(d->ctx, SAW_ERR_MEMORY, "%s: too many files", d->path);
    d->sources = saw_calloc(d->ctx, sources, sizeof *d->sources);
    d->terms = saw_calloc(d->ctx, terms, sizeof *d->terms);
    if (!d->sources || !d->terms)
        return SAW_ERR_MEMORY;
    builder b = {.d = d, .w = w};
    for (int i = 0; i < d->song_count; i++) {
        saw_data_song *g = &d->songs[i];
        for (int s = 0; s < d->source_count; s++) {
            saw_data_source *out = &d->sources[i * d->source_count + s];
            out->first = b.terms;
            if (s == w->count || w->stem[s].rest)
                add_rest(&b, g);
            else
                for (int k = g->first_file; k < g->first_file + g->files; k++)
                    if (is_one_of(d->files[k].stem, w->stem[s].parts, w->stem[s].count))
                        add_term(&b, k, 1);
            out->count = b.terms - out->first;
            g->song.has |= (uint64_t)(out->count > 0) << s;
        }
    }
    return SAW_OK;
}

/* Songs that lack stems: left out, or said. One that has nothing is left out in any case. */
static saw_status settle_missing(saw_dataset *d, bool complete)
{
    uint64_t all = ((uint64_t)1 << d->stem_count) - 1;
    int kept = 0, lacking = 0;
    const char *first = NULL;
    for (int i = 0; i < d->song_count; i++) {
        bool lacks = (d->songs[i].song.has & all) != all;
        first = lacks && !first ? d->songs[i].song.name : first;
        lacking += lacks;
        if ((lacks && complete) || !d->songs[i].song.has)
            continue;
        memmove(&d->sources[kept * d->source_count], &d->sources[i * d->source_count],
                (size_t)d->source_count * sizeof *d->sources);
        d->songs[kept++] = d->songs[i];
    }
    if (lacking)
        saw_log(d->ctx, SAW_LOG_WARN, "%s: %d of %d songs lack a stem (%s%s) and %s", d->path,
                lacking, d->song_count, first, lacking > 1 ? " and others" : "",
                complete ? "are left out" : "have silence in its place");
    d->song_count = kept;
    return kept ? SAW_OK
                : saw_fail(d->ctx, SAW_ERR_ARGUMENT, "%s: no song has the stems that are wanted",
                           d->path);
}

/* ---- open and close -------------------------------------------------------------------------- */

static saw_status open_wishes(saw_context *ctx, const saw_dataset_options *o, wishes **out)
{
    *out = saw_calloc(ctx, 1, sizeof **out);
    return *out ? parse_wishes(ctx, o, *out) : SAW_ERR_MEMORY;
}

saw_status saw_dataset_find(saw_context *ctx, const char *path, const saw_dataset_options *options,
                            saw_dataset **out)
{
    wishes *w = NULL;
    saw_dataset *d = NULL;
    *out = NULL;
    saw_status status = open_wishes(ctx, options, &w);
    if (!status)
        status = new_dataset(ctx, path, &d);
    if (!status)
        status = find_all(d, options, w);
    free_wishes(ctx, w);
    if (status)
        saw_dataset_close(d);
    else
        *out = d;
    return status;
}

saw_status saw_dataset_open(saw_context *ctx, const char *path, const saw_dataset_options *options,
                            saw_dataset **out)
{
    const saw_dataset_options none = {0};
    const saw_dataset_options *o = options ? options : &none;
    wishes *w = NULL;
    saw_dataset *d = NULL;
    *out = NULL;
    saw_status status = open_wishes(ctx, o, &w);
    if (!status)
        status = new_dataset(ctx, path, &d);
    if (!status)
        status = find_all(d, o, w);
    if (!status && !o->n_stems)
        status = wish_for_all(d, w);
    if (!status)
        status = resolve_wishes(d, w, !o->n_stems);
    if (!status)
        status = probe(d);
    if (!status)
        status = build_sources(d, w);
    if (!status)
        status = settle_missing(d, o->complete);
    free_wishes(ctx, w);
    if (status)
        saw_dataset_close(d);
    else
        *out = d;
    return status;
}

void saw_dataset_close(saw_dataset *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->stem_count; i++)
        saw_free(d->ctx, d->stem_names[i]);
    saw_findings_free(&d->found);
    saw_free(d->ctx, d->terms);
    saw_free(d->ctx, d->sources);
    saw_free(d->ctx, d->songs);
    saw_free(d->ctx, d->files);
    saw_free(d->ctx, d->path);
    saw_free(d->ctx, d);
}

const char *saw_dataset_path(const saw_dataset *d)
{
    return d->path;
}

const char *saw_dataset_layout(const saw_dataset *d)
{
    return d->layout->name;
}

int saw_dataset_rate_hz(const saw_dataset *d)
{
    return d->rate_hz;
}

int saw_dataset_channels(const saw_dataset *d)
{
    return d->channels;
}

int saw_dataset_songs(const saw_dataset *d)
{
    return d->song_count;
}

const saw_song *saw_dataset_song(const saw_dataset *d, int song)
{
    return &d->songs[song].song;
}

int saw_dataset_stems(const saw_dataset *d)
{
    return d->stem_count;
}

const char *saw_dataset_stem(const saw_dataset *d, int stem)
{
    return stem >= 0 && stem < d->stem_count ? d->stem_names[stem] : NULL;
}

int saw_dataset_sources(const saw_dataset *d)
{
    return d->source_count;
}

/* ---- train and validate ---------------------------------------------------------------------- */

static saw_status set_parts(saw_dataset *d, const char *const *names, int count, saw_song_part part,
                            saw_song_part from)
{
    for (int i = 0; i < count; i++) {
        saw_data_song *found = NULL;
        for (int k = 0; !found && k < d->song_count; k++)
            if (!strcmp(d->songs[k].song.name, names[i]))
                found = &d->songs[k];
        if (!found)
            return saw_fail(d->ctx, SAW_ERR_ARGUMENT, "%s: there is no song %s", d->path, names[i]);
        if (found->song.part != from && found->song.part != part)
            return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                            "the song %s is named to train with and to validate with", names[i]);
        found->song.part = part;
    }
    return SAW_OK;
}

static uint64_t song_hash(const saw_data_song *g, uint64_t seed)
{
    uint32_t word[4];
    saw_philox(seed, saw_fnv1a(g->song.name, strlen(g->song.name)), 0x73706c6974, word);
    return (uint64_t)word[0] << 32 | word[1];
}

static void split_by_hash(saw_dataset *d, int valid, uint64_t seed)
{
    for (int n = 0; n < valid; n++) {
        int lowest = -1;
        for (int i = 0; i < d->song_count; i++)
            if (d->songs[i].song.part == SAW_SONG_TRAIN &&
                (lowest < 0 || song_hash(&d->songs[i], seed) < song_hash(&d->songs[lowest], seed)))
                lowest = i;
        d->songs[lowest].song.part = SAW_SONG_VALID;
    }
}

saw_status saw_dataset_split(saw_dataset *d, const saw_split_options *o)
{
    bool lists = o->n_valid || o->n_train;
    saw_status status = SAW_OK;
    int train = 0, valid = 0;
    if (!(o->fraction >= 0 && o->fraction < 1))
        return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                        "%g is no share of songs to validate with: 0 to below 1 is", o->fraction);
    if (lists || !d->parted) {
        saw_song_part from = o->n_train ? SAW_SONG_UNUSED : SAW_SONG_TRAIN;
        for (int i = 0; i < d->song_count; i++)
            d->songs[i].song.part = from;
        status = set_parts(d, o->valid, o->n_valid, SAW_SONG_VALID, from);
        if (!status && o->n_train)
            status = set_parts(d, o->train, o->n_train, SAW_SONG_TRAIN, from);
    }
    for (int i = 0; i < d->song_count; i++) {
        train += d->songs[i].song.part == SAW_SONG_TRAIN;
        valid += d->songs[i].song.part == SAW_SONG_VALID;
    }
    if (!status && !valid && o->fraction > 0 && !o->n_valid) {
        valid = (int)(o->fraction * train + 0.5);
        valid = valid < 1 ? 1 : valid;
        if (train < 2)
            return saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                            "%s: has only one song to train with, and one more is needed to "
                            "validate with; add a song, or train without validation",
                            d->path);
        valid = valid < train ? valid : train - 1;
        split_by_hash(d, valid, o->seed);
        train -= valid;
    }
    if (!status && !train)
        status = saw_fail(d->ctx, SAW_ERR_ARGUMENT,
                          "%s: every song is there to validate with, none to train with", d->path);
    return status;
}
