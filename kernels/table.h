/*
 * table.h - rows that are read, or added up, through a table of indices; an index of -1 is nobody.
 */
#ifndef SAW_TABLE_H
#define SAW_TABLE_H

#include "kernels/kernel.h"

#include <string.h>

/** Every row of output 0: y[i] = share[i] x[table[i]]. share NULL: ones. */
static inline void table_read(const saw_call *c, const saw_tensor *from, const int32_t *table,
                              const double *share, int64_t n)
{
    const saw_tensor *t[] = {from, &c->out[0]};
    saw_walk w = saw_walk_start(from->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r);
            float *y = SAW_ROW(float, w, 1, r);
            for (int64_t i = 0; i < n; i++)
                y[i] = (saw_adds(c, 0) ? y[i] : 0) +
                       (table[i] < 0 ? 0 : (share ? (float)share[i] : 1) * x[table[i]]);
        }
}

/** Every row of output 0: y[table[i]] += share[i] x[i], from zeros unless the call adds. */
static inline void table_add(const saw_call *c, const saw_tensor *from, const int32_t *table,
                             const double *share, int64_t n)
{
    const saw_tensor *t[] = {from, &c->out[0]};
    saw_walk w = saw_walk_start(from->ndim - 1, 2, t);
    while (saw_walk_next(&w))
        for (int64_t r = 0; r < w.rows; r++) {
            const float *x = SAW_ROW(const float, w, 0, r);
            float *y = SAW_ROW(float, w, 1, r);
            if (!saw_adds(c, 0))
                memset(y, 0, (size_t)saw_last(t[1]) * sizeof *y);
            for (int64_t i = 0; i < n; i++)
                if (table[i] >= 0)
                    y[table[i]] += (share ? (float)share[i] : 1) * x[i];
        }
}

#endif
