/*
 * dice.h - random numbers of a place: Philox with the seed as key and (step, item, source, purpose)
 * as counter. A place has the same numbers whatever was drawn elsewhere before.
 */
#ifndef SAW_DICE_H
#define SAW_DICE_H

#include "base/base.h"

typedef struct saw_dice {
    uint64_t seed, step;
    uint32_t item;
    uint8_t source, purpose;
    uint16_t drawn;
} saw_dice;

/** The next number in [0, 1). */
static inline double saw_throw(saw_dice *d)
{
    uint32_t word[4];
    saw_philox(d->seed, d->step,
               (uint64_t)d->item << 32 | (uint64_t)d->source << 24 | (uint64_t)d->purpose << 16 |
                   d->drawn++,
               word);
    return (double)((uint64_t)word[0] << 21 ^ word[1] >> 11) * 0x1p-53;
}

static inline double saw_throw_in(saw_dice *d, double low, double high)
{
    return low + (high - low) * saw_throw(d);
}

/** A whole number in [0, n). */
static inline int64_t saw_throw_of(saw_dice *d, int64_t n)
{
    int64_t i = (int64_t)(saw_throw(d) * (double)n);
    return i < n ? i : n - 1;
}

#endif
