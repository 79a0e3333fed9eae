#include "run/report.h"

#include "io/audio.h"
#include "io/config.h"
#include "run/draw.h"
#include "run/recipe.h"
#include "run/run_log.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_ROOM = 4300, MAX_AUDIO_BYTES = 16 << 20, MAX_SECONDS = 60 };

typedef struct page {
    saw_context *ctx;
    const char *folder;
    FILE *out;
    saw_run_log log;
    saw_recipe recipe;
} page;

static const char HEAD[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<style>\n"
    ":root{--bg:#fff;--ink:#1c2330;--soft:#667085;--line:#e4e7ec;--card:#f7f8fa;--a:#2f6fd0;"
    "--b:#d0652f;--good:#1a7f4b;--bad:#b42318}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#14171c;--ink:#e6e9ef;--soft:#98a2b3;"
    "--line:#2b313b;--card:#1b1f26;--a:#6ea3f0;--b:#f0996e;--good:#4cc38a;--bad:#f97066}}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,sans-serif}\n"
    "main{max-width:60rem;margin:0 auto;padding:2rem 1.2rem 4rem}\n"
    "h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.4rem 0 .6rem}\n"
    "small,.soft{color:var(--soft)}figure{margin:1.2rem 0}figcaption{font-weight:600}\n"
    "svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--soft)}\n"
    ".grid{stroke:var(--line)}path{fill:none;stroke-width:1.8}\n"
    ".faint{opacity:.4}path.c0{stroke:var(--a)}path.c1{stroke:var(--b)}circle.c0{fill:var(--a)}"
    "circle.c1{fill:var(--b)}.k0{color:var(--a)}.k1{color:var(--b)}.key{font-weight:400}\n"
    ".cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.4rem 0}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:8px;"
    "padding:.6rem 1rem;min-width:7rem}.card b{display:block;font-size:1.35rem}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;width:100%}\n"
    "td,th{text-align:left;padding:.28rem .7rem .28rem 0;border-bottom:1px solid var(--line);"
    "vertical-align:top}\n"
    ".n{text-align:right;font-variant-numeric:tabular-nums}.up{color:var(--good)}"
    ".down{color:var(--bad)}\n"
    ".tracks{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1rem}\n"
    ".track img{width:100%;height:9rem;border-radius:6px;display:block}"
    ".track audio{width:100%;margin-top:.3rem}\n"
    ".set{font-weight:600}code{overflow-wrap:anywhere}\n</style>\n";

/* ---- figures --------------------------------------------------------------------------------- */

static void put_gain(const page *p, double gain)
{
    if (isfinite(gain))
        fprintf(p->out, "<span class=\"%s\">%+.2f</span>", gain < 0 ? "down" : "up", gain);
    else
        fprintf(p->out, "-");
}

static void put_db(const page *p, double db)
{
    fprintf(p->out, isfinite(db) ? "%.2f" : "-", db);
}

static void put_duration(const page *p, double seconds)
{
    if (seconds < 90)
        fprintf(p->out, "%.3g s", seconds);
    else if (seconds < 5400)
        fprintf(p->out, "%.0f min", seconds / 60);
    else
        fprintf(p->out, "%.1f h", seconds / 3600);
}

static void put_heading(const page *p)
{
    const saw_recipe *r = &p->recipe;
    fprintf(p->out, "<title>");
    saw_draw_text(p->out, p->folder);
    fprintf(p->out, "</title></head><body><main>\n<h1>");
    for (int i = 0; i < r->stems.count; i++) {
        fprintf(p->out, i ? ", " : "");
        saw_draw_text(p->out, r->stems.items[i]);
    }
    if (!r->stems.count)
        saw_draw_text(p->out, p->folder);
    fprintf(p->out, "</h1>\n<p class=\"soft\">");
    saw_draw_text(p->out, r->method);
    fprintf(p->out, " on <code>");
    saw_draw_text(p->out, r->model ? r->model : r->config ? r->config : "");
    fprintf(p->out, "</code></p>\n");
}

static void put_cards(const page *p)
{
    const saw_run_log *log = &p->log;
    fprintf(p->out, "<div class=\"cards\">\n<div class=\"card\">before<b>");
    put_db(p, log->before_db);
    fprintf(p->out, " dB</b>SDR</div>\n<div class=\"card\">best<b>");
    put_db(p, log->best_db);
    fprintf(p->out, " dB</b>");
    put_gain(p, log->best_db - log->before_db);
    if (log->best_step >= 0)
        fprintf(p->out, " at step %lld", (long long)log->best_step);
    fprintf(p->out, "</div>\n");
    if (isfinite(log->general_before_db)) {
        fprintf(p->out, "<div class=\"card\">general songs<b>");
        put_db(p, log->general_best_db);
        fprintf(p->out, " dB</b>");
        put_gain(p, log->general_best_db - log->general_before_db);
        fprintf(p->out, "</div>\n");
    }
    fprintf(p->out, "<div class=\"card\">steps<b>%lld</b>of %lld</div>\n", (long long)log->step,
            (long long)p->recipe.steps);
    fprintf(p->out, "<div class=\"card\">time<b>");
    put_duration(p, log->seconds);
    fprintf(p->out, "</b></div>\n</div>\n");
}

/* Means over the last tenth or so of a noisy curve, for the eye. */
static double *smoothed(saw_context *ctx, const saw_run_curve *c)
{
    double *y = saw_alloc(ctx, (size_t)c->count * sizeof *y), mean = NAN;
    double keep = 1 - 1 / fmin(fmax(c->count / 20.0, 1), 200);
    for (int i = 0; y && i < c->count; i++) {
        if (isfinite(c->value[i]))
            mean = isfinite(mean) ? keep * mean + (1 - keep) * c->value[i] : c->value[i];
        y[i] = mean;
    }
    return y;
}

static saw_status put_charts(const page *p)
{
    const saw_run_log *log = &p->log;
    double *mean = smoothed(p->ctx, &log->loss);
    if (!mean)
        return SAW_ERR_MEMORY;
    saw_draw_curve sdr[] = {{.name = "validation songs",
                             .x = log->sdr.step,
                             .y = log->sdr.value,
                             .count = log->sdr.count,
                             .dots = true},
                            {.name = "general songs",
                             .x = log->general.step,
                             .y = log->general.value,
                             .count = log->general.count,
                             .dots = true}};
    saw_draw_curve loss[] = {
        {.name = "each step",
         .x = log->loss.step,
         .y = log->loss.value,
         .count = log->loss.count,
         .faint = true},
        {.name = "mean", .x = log->loss.step, .y = mean, .count = log->loss.count}};
    saw_draw_curve lr = {.name = "", .x = log->lr.step, .y = log->lr.value, .count = log->lr.count};
    saw_draw_curve norm = {.name = "",
                           .x = log->grad_norm.step,
                           .y = log->grad_norm.value,
                           .count = log->grad_norm.count};
    saw_draw_chart charts[] = {{"SDR", "dB", false, sdr, isfinite(log->general_before_db) ? 2 : 1},
                               {"Loss", "", true, loss, 2},
                               {"Learning rate", "", false, &lr, 1},
                               {"Gradient norm", "", true, &norm, 1}};
    fprintf(p->out, "<h2>Curves</h2>\n");
    for (size_t i = 0; i < sizeof charts / sizeof *charts; i++)
        saw_draw_chart_svg(p->out, &charts[i]);
    saw_free(p->ctx, mean);
    return SAW_OK;
}

/* ---- songs ----------------------------------------------------------------------------------- */

static int by_gain(const void *a, const void *b)
{
    const saw_run_score *x = a, *y = b;
    double g = x->after_db - x->before_db, h = y->after_db - y->before_db;
    if (isfinite(g) && isfinite(h) && g != h)
        return g > h ? -1 : 1;
    int songs = strcmp(x->song, y->song);
    return songs ? songs : strcmp(x->stem, y->stem);
}

static void put_scores(page *p)
{
    saw_run_log *log = &p->log;
    if (!log->n_scores)
        return;
    qsort(log->scores, (size_t)log->n_scores, sizeof *log->scores, by_gain);
    fprintf(p->out, "<h2>Validation songs</h2>\n<div class=\"wide\"><table><tr><th>song</th>"
                    "<th>stem</th><th class=\"n\">before, dB</th><th class=\"n\">after</th>"
                    "<th class=\"n\">change</th></tr>\n");
    for (int i = 0; i < log->n_scores; i++) {
        const saw_run_score *s = &log->scores[i];
        fprintf(p->out, "<tr><td>");
        saw_draw_text(p->out, s->song);
        fprintf(p->out, "</td><td>");
        saw_draw_text(p->out, s->stem);
        fprintf(p->out, "</td><td class=\"n\">");
        put_db(p, s->before_db);
        fprintf(p->out, "</td><td class=\"n\">");
        put_db(p, s->after_db);
        fprintf(p->out, "</td><td class=\"n\">");
        put_gain(p, s->after_db - s->before_db);
        fprintf(p->out, "</td></tr>\n");
    }
    fprintf(p->out, "</table></div>\n");
}

/* ---- listening ------------------------------------------------------------------------------- */

static saw_status put_spectrogram(const page *p, const char *name, const char *path)
{
    saw_audio_reader *reader;
    saw_status status = saw_audio_open(p->ctx, path, &reader);
    if (status)
        return status;
    const saw_audio_info *info = saw_audio_reader_info(reader);
    int64_t room = (int64_t)info->rate_hz * MAX_SECONDS, got = 0;
    float *x = saw_alloc(p->ctx, (size_t)(room * info->channels) * sizeof *x);
    float *rows[SAW_AUDIO_MAX_CHANNELS];
    status = x ? SAW_OK : SAW_ERR_MEMORY;
    for (int c = 0; c < info->channels; c++)
        rows[c] = x + c * room;
    if (!status)
        status = saw_audio_read(reader, rows, room, &got);
    for (int c = 1; c < info->channels && !status; c++)
        for (int64_t i = 0; i < got; i++)
            x[i] += (rows[c][i] - x[i]) / (float)(c + 1);
    if (!status && got)
        status = saw_draw_spectrogram(p->ctx, p->out, name, x, got, info->rate_hz);
    saw_free(p->ctx, x);
    saw_audio_close(reader);
    return status;
}

static saw_status put_track(const page *p, const char *around, const saw_config *row)
{
    const char *name = saw_config_as_string(saw_config_get(row, "name")),
               *file = saw_config_as_string(saw_config_get(row, "file"));
    char path[2 * NAME_ROOM];
    char *bytes;
    size_t n;
    if (!name || !file || strchr(file, '/'))
        return SAW_OK;
    snprintf(path, sizeof path, "%s/%s", around, file);
    saw_status status = saw_read_all(p->ctx, path, MAX_AUDIO_BYTES, &bytes, &n);
    if (status)
        return status;
    fprintf(p->out, "<div class=\"track\">");
    status = put_spectrogram(p, name, path);
    saw_draw_text(p->out, name);
    fprintf(p->out, "<audio controls preload=\"metadata\" src=\"data:audio/ogg;base64,");
    saw_draw_base64(p->out, bytes, n);
    fprintf(p->out, "\"></audio></div>\n");
    saw_free(p->ctx, bytes);
    return status;
}

/* One song to hear, when its excerpts are there. */
static saw_status put_excerpt(const page *p, const char *role, const char *title)
{
    char around[NAME_ROOM], path[NAME_ROOM + 32];
    saw_config *list;
    double start = 0, gain = NAN;
    snprintf(around, sizeof around, "%s/audio/%s", p->folder, role);
    snprintf(path, sizeof path, "%s/excerpt.json", around);
    if (access(path, F_OK) != 0)
        return SAW_OK;
    saw_status status = saw_config_load(p->ctx, path, &list);
    if (status)
        return status;
    const char *song = saw_config_as_string(saw_config_get(list, "song"));
    const saw_config *tracks = saw_config_get(list, "tracks");
    saw_config_as_double(saw_config_get(list, "start_s"), &start);
    saw_config_as_double(saw_config_get(list, "gain_db"), &gain);
    fprintf(p->out, "<h2>%s: ", title);
    saw_draw_text(p->out, song ? song : "");
    fprintf(p->out, "</h2>\n<p class=\"soft\">");
    put_gain(p, gain);
    fprintf(p->out,
            " dB; from %d:%02d on. Time to the right, 40 Hz to half the rate upwards, -90 "
            "to 0 dB.</p>\n<div class=\"tracks\">\n",
            (int)(start / 60), (int)start % 60);
    for (int i = 0; i < saw_config_size(tracks) && !status; i++)
        status = put_track(p, around, saw_config_at(tracks, i));
    fprintf(p->out, "</div>\n");
    saw_config_free(list);
    return status;
}

/* ---- split and recipe ------------------------------------------------------------------------ */

static saw_status put_split(const page *p)
{
    static const char *const parts[][2] = {{"train", "to train with"},
                                           {"valid", "to validate with"}};
    char path[NAME_ROOM];
    saw_config *split;
    snprintf(path, sizeof path, "%s/split.json", p->folder);
    if (access(path, F_OK) != 0)
        return SAW_OK;
    saw_status status = saw_config_load(p->ctx, path, &split);
    if (status)
        return status;
    fprintf(p->out, "<h2>Songs</h2>\n");
    for (int k = 0; k < 2; k++) {
        const saw_config *songs = saw_config_get(split, parts[k][0]);
        fprintf(p->out, "<p>%d %s: ", saw_config_size(songs), parts[k][1]);
        for (int i = 0; i < saw_config_size(songs); i++) {
            const char *song = saw_config_as_string(saw_config_at(songs, i));
            fprintf(p->out, i ? ", " : "");
            saw_draw_text(p->out, song ? song : "?");
        }
        fprintf(p->out, "</p>\n");
    }
    saw_config_free(split);
    return SAW_OK;
}

static saw_status put_recipe(const page *p)
{
    const saw_recipe_key *key;
    saw_recipe fresh;
    saw_status status = saw_recipe_open(p->ctx, &fresh);
    saw_buffer value = {.ctx = p->ctx}, usual = {.ctx = p->ctx};
    fprintf(p->out, "<h2>Recipe</h2>\n<p class=\"soft\">What is not as usual is bold.</p>\n"
                    "<div class=\"wide\"><table>\n");
    for (int i = 0; (key = saw_recipe_key_at(i)) && !status; i++) {
        value.size = usual.size = 0;
        saw_recipe_print(&p->recipe, key, &value);
        saw_recipe_print(&fresh, key, &usual);
        if (value.failed || usual.failed) {
            status = SAW_ERR_MEMORY;
            break;
        }
        fprintf(p->out, "<tr><td>%s.%s</td><td%s><code>", key->section, key->name,
                strcmp(value.data, usual.data) ? " class=\"set\"" : "");
        saw_draw_text(p->out, value.data);
        fprintf(p->out, "</code></td><td class=\"soft\">");
        saw_draw_text(p->out, key->help);
        fprintf(p->out, "</td></tr>\n");
    }
    fprintf(p->out, "</table></div>\n");
    saw_buffer_free(&value);
    saw_buffer_free(&usual);
    saw_recipe_free(&fresh);
    return status;
}

/* ---- the page -------------------------------------------------------------------------------- */

static saw_status put_page(page *p)
{
    fputs(HEAD, p->out);
    put_heading(p);
    put_cards(p);
    saw_status status = put_charts(p);
    put_scores(p);
    if (!status)
        status = put_excerpt(p, "best", "Gained most");
    if (!status)
        status = put_excerpt(p, "worst", "Gained least");
    if (!status)
        status = put_split(p);
    if (!status)
        status = put_recipe(p);
    fprintf(p->out, "</main></body></html>\n");
    return status;
}

saw_status saw_report_write(saw_context *ctx, const char *folder)
{
    page p = {.ctx = ctx, .folder = folder, .log = {.ctx = ctx}};
    saw_atomic_file file = {0};
    char path[NAME_ROOM];
    int n = snprintf(path, sizeof path, "%s/recipe.yaml", folder);
    if (n >= NAME_ROOM || access(path, F_OK) != 0)
        return saw_fail(ctx, SAW_ERR_IO, "%s: has no run: there is no recipe.yaml in it", folder);
    saw_status status = saw_recipe_open(ctx, &p.recipe);
    if (!status)
        status = saw_recipe_load(&p.recipe, path);
    if (!status)
        status = saw_run_log_read(ctx, folder, &p.log);
    snprintf(path, sizeof path, "%s/report.html", folder);
    if (!status)
        status = saw_atomic_open(ctx, path, &file);
    if (!status) {
        locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0), before = uselocale(plain);
        p.out = file.file;
        status = put_page(&p);
        uselocale(before);
        freelocale(plain);
    }
    if (!status)
        status = saw_atomic_commit(&file);
    saw_atomic_abort(&file);
    saw_run_log_free(&p.log);
    saw_recipe_free(&p.recipe);
    return status;
}
