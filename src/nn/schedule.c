#include "nn/schedule.h"

#include <math.h>
#include <string.h>

static double constant(const nn_schedule *s, const nn_plateau *p, double x)
{
    (void)s, (void)p, (void)x;
    return 1;
}

static double linear(const nn_schedule *s, const nn_plateau *p, double x)
{
    (void)p;
    return 1 - (1 - s->floor) * x;
}

static double cosine(const nn_schedule *s, const nn_plateau *p, double x)
{
    (void)p;
    return s->floor + (1 - s->floor) * 0.5 * (1 + cos(M_PI * x));
}

static double plateau(const nn_schedule *s, const nn_plateau *p, double x)
{
    (void)s, (void)x;
    return p->scale;
}

static const struct {
    const char *name;
    double (*share)(const nn_schedule *s, const nn_plateau *p, double x);
    bool ends, falls;
} ROWS[] = {
    {"constant", constant, false, false},
    {"linear", linear, true, false},
    {"cosine", cosine, true, false},
    {"plateau", plateau, false, true},
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

static int row_of(const nn_schedule *s)
{
    int i = 0;
    while (i < N_ROWS && strcmp(ROWS[i].name, s->name ? s->name : ROWS[0].name))
        i++;
    return i;
}

saw_status nn_schedule_check(saw_context *ctx, const nn_schedule *s)
{
    int row = row_of(s);
    if (row == N_ROWS)
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "there is no schedule '%s': use constant, linear, cosine or plateau",
                        s->name);
    if (!(s->lr >= 0 && s->lr < INFINITY))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the learning rate is %g: it must be a number of at least 0", s->lr);
    if (!(s->floor >= 0 && s->floor <= 1))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the floor of the learning rate is %g: it is a share, from 0 to 1",
                        s->floor);
    if (s->warmup_steps < 0 || (ROWS[row].ends && s->total_steps <= s->warmup_steps))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "a warm-up of %lld of %lld steps makes no sense: use fewer warm-up steps",
                        (long long)s->warmup_steps, (long long)s->total_steps);
    if (ROWS[row].falls && !(s->factor > 0 && s->factor < 1 && s->patience >= 0))
        return saw_fail(ctx, SAW_ERR_ARGUMENT,
                        "the plateau schedule has factor %g and patience %d: the factor must lie "
                        "between 0 and 1, the patience must be at least 0",
                        s->factor, s->patience);
    return SAW_OK;
}

nn_plateau nn_plateau_start(void)
{
    return (nn_plateau){.best = -INFINITY, .scale = 1};
}

double nn_schedule_lr(const nn_schedule *s, const nn_plateau *p, int64_t t)
{
    if (t < s->warmup_steps)
        return s->lr * (double)(t + 1) / (double)s->warmup_steps;
    double rest = (double)(s->total_steps - s->warmup_steps);
    double x = rest > 0 ? fmin(1, (double)(t - s->warmup_steps) / rest) : 1;
    return s->lr * ROWS[row_of(s)].share(s, p, x);
}

void nn_schedule_validated(const nn_schedule *s, nn_plateau *p, double figure)
{
    if (!ROWS[row_of(s)].falls)
        return;
    if (figure > p->best) {
        p->best = figure;
        p->bad = 0;
    } else if (++p->bad > s->patience) {
        p->scale = fmax(s->floor, p->scale * s->factor);
        p->bad = 0;
    }
}
