#include "run/run_log.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static double number_of(const json_t *record, const char *key)
{
    const json_t *v = json_object_get(record, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static saw_status add_point(saw_context *ctx, saw_run_curve *c, double step, double value)
{
    if (c->count == c->room) {
        int room = c->room ? 2 * c->room : 256;
        double *steps = saw_realloc(ctx, c->step, (size_t)room * sizeof *steps);
        if (!steps)
            return SAW_ERR_MEMORY;
        c->step = steps;
        double *values = saw_realloc(ctx, c->value, (size_t)room * sizeof *values);
        if (!values)
            return SAW_ERR_MEMORY;
        c->value = values;
        c->room = room;
    }
    c->step[c->count] = step;
    c->value[c->count++] = value;
    return SAW_OK;
}

/* ---- scores ---------------------------------------------------------------------------------- */

static saw_run_score *score_of(saw_run_log *log, const char *song, const char *stem)
{
    for (int i = 0; i < log->n_scores; i++)
        if (!strcmp(log->scores[i].song, song) && !strcmp(log->scores[i].stem, stem))
            return &log->scores[i];
    if (log->n_scores == log->scores_room) {
        int room = log->scores_room ? 2 * log->scores_room : 16;
        saw_run_score *scores = saw_realloc(log->ctx, log->scores, (size_t)room * sizeof *scores);
        if (!scores)
            return NULL;
        log->scores = scores;
        log->scores_room = room;
    }
    saw_run_score *s = &log->scores[log->n_scores];
    *s = (saw_run_score){.song = saw_strdup(log->ctx, song),
                         .stem = saw_strdup(log->ctx, stem),
                         .before_db = NAN,
                         .after_db = NAN};
    if (!s->song || !s->stem) {
        saw_free(log->ctx, s->song);
        saw_free(log->ctx, s->stem);
        return NULL;
    }
    log->n_scores++;
    return s;
}

static saw_status take_scores(saw_run_log *log, const json_t *songs, bool before)
{
    for (size_t i = 0; i < json_array_size(songs); i++) {
        const json_t *row = json_array_get(songs, i);
        const char *song = json_string_value(json_object_get(row, "song"));
        const char *stem;
        json_t *figure;
        json_object_foreach(json_object_get(row, "sdr_db"), stem, figure)
        {
            saw_run_score *s = song ? score_of(log, song, stem) : NULL;
            if (song && !s)
                return SAW_ERR_MEMORY;
            if (s && json_is_number(figure))
                *(before ? &s->before_db : &s->after_db) = json_number_value(figure);
        }
    }
    return SAW_OK;
}

static saw_status take_valid(saw_run_log *log, const json_t *record, double step)
{
    double sdr = number_of(record, "sdr_db"), general = number_of(record, "general_sdr_db");
    bool before = step == 0, best = json_is_true(json_object_get(record, "best"));
    saw_status status = add_point(log->ctx, &log->sdr, step, sdr);
    if (!status)
        status = add_point(log->ctx, &log->general, step, general);
    if (before) {
        log->before_db = sdr;
        log->general_before_db = general;
    } else if (best) {
        log->best_step = (int64_t)step;
        log->best_db = sdr;
        log->general_best_db = general;
    }
    return status || (!before && !best)
               ? status
               : take_scores(log, json_object_get(record, "songs"), before);
}

/* ---- lines ----------------------------------------------------------------------------------- */

static saw_status take_line(saw_run_log *log, const char *line)
{
    json_t *record = json_loads(line, 0, NULL);
    const char *type = json_string_value(json_object_get(record, "type"));
    double step = number_of(record, "step"), seconds = number_of(record, "seconds");
    saw_status status = SAW_OK;
    if (type && step >= 0 && step < 1e15) {
        log->step = (int64_t)step > log->step ? (int64_t)step : log->step;
        log->seconds = seconds > log->seconds ? seconds : log->seconds;
        if (!strcmp(type, "step")) {
            status = add_point(log->ctx, &log->loss, step, number_of(record, "loss"));
            if (!status)
                status = add_point(log->ctx, &log->lr, step, number_of(record, "lr"));
            if (!status)
                status = add_point(log->ctx, &log->grad_norm, step, number_of(record, "grad_norm"));
        } else if (!strcmp(type, "valid")) {
            status = take_valid(log, record, step);
        }
    }
    json_decref(record);
    return status;
}

saw_status saw_run_log_read(saw_context *ctx, const char *folder, saw_run_log *out)
{
    *out = (saw_run_log){.ctx = ctx,
                         .best_step = -1,
                         .before_db = NAN,
                         .best_db = NAN,
                         .general_before_db = NAN,
                         .general_best_db = NAN};
    char *path = saw_format(ctx, "%s/log.jsonl", folder);
    if (!path)
        return SAW_ERR_MEMORY;
    FILE *in = fopen(path, "re");
    saw_status status = in || errno == ENOENT ? SAW_OK
                                              : saw_fail(ctx, SAW_ERR_IO, "%s: cannot be read: %s",
                                                         path, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    while (in && !status && getline(&line, &room, in) > 0)
        status = take_line(out, line);
    free(line);
    if (in)
        fclose(in);
    saw_free(ctx, path);
    return status;
}

void saw_run_log_free(saw_run_log *log)
{
    saw_run_curve *curves[] = {&log->loss, &log->lr, &log->grad_norm, &log->sdr, &log->general};
    for (size_t i = 0; i < sizeof curves / sizeof *curves; i++) {
        saw_free(log->ctx, curves[i]->step);
        saw_free(log->ctx, curves[i]->value);
    }
    for (int i = 0; i < log->n_scores; i++) {
        saw_free(log->ctx, log->scores[i].song);
        saw_free(log->ctx, log->scores[i].stem);
    }
    saw_free(log->ctx, log->scores);
}
