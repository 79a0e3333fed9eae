/*
 * check.h - what is wrong with a data set, before anybody trains on it. Every file is read once, a
 * second at a time, all files of a song side by side.
 *
 *   kind        what is found
 *   damaged     a file that cannot be read, or holds samples that are no finite numbers
 *   not_sum     the mixture less the sum of the stems is above -30 dB of the mixture
 *   silent      a stem (or mixture) below -70 dB RMS
 *   one_sided   one channel of a stereo file is silent, the other is not
 *   clipped     full scale held for three samples and more, in ten places and more
 *   dc          the mean of a channel is beyond 0.005 of full scale
 *   rate        a file's rate is not the wanted one, or not that of most files
 *   channels    a file's channels are not those of most files
 *   length      files of one song differ by more than 50 ms
 *   bleed       a stem that is quiet holds another one: see below
 *   duplicate   the same audio twice, at any level and rate, starting at the same time
 *   missing     a song lacks a stem that others have (a note)
 *   alone       a mixture without stems, or a stem without any other (a note)
 *
 * Bleed: where stem a lies 10 dB and more below stem b, is it nothing but b? Then a quarter of a
 * second of a is a constant times b, at most 12 ms later or earlier, so their correlation is near
 * 1. It is a fault when that is so with one gain and delay in a twentieth of the moments in which b
 * sounds. A stem that never rests hides its bleed.
 *
 * Duplicates: 64 signs a quarter of a second, of the signal below 2 kHz; equal audio agrees in
 * nearly all of them (or, with the polarity turned, in nearly none), any other in half.
 */
#ifndef SAW_CHECK_H
#define SAW_CHECK_H

#include "base/base.h"

typedef enum saw_fault_kind {
    SAW_FAULT_DAMAGED,
    SAW_FAULT_NOT_SUM,
    SAW_FAULT_SILENT,
    SAW_FAULT_ONE_SIDED,
    SAW_FAULT_CLIPPED,
    SAW_FAULT_DC,
    SAW_FAULT_RATE,
    SAW_FAULT_CHANNELS,
    SAW_FAULT_LENGTH,
    SAW_FAULT_BLEED,
    SAW_FAULT_DUPLICATE,
    SAW_FAULT_MISSING,
    SAW_FAULT_ALONE,
    SAW_FAULT_KINDS
} saw_fault_kind;
/** "damaged", "not_sum", ... */
const char *saw_fault_name(saw_fault_kind kind);

typedef struct saw_fault {
    saw_fault_kind kind;
    bool note;               /* worth knowing, but no fault */
    const char *song, *stem; /* stem NULL: the whole song */
    double value;            /* what was measured, in the unit of the kind (dB, places, Hz, ...) */
    const char *text;        /* what is wrong, for people */
} saw_fault;

typedef struct saw_check_options {
    const char *layout; /* NULL: recognised */
    int rate_hz;        /* that files should have; 0: that of most */
    /** Called after every second of a song. */
    void (*progress)(void *user, int song, double seconds_done, double seconds_total);
    void *user;
} saw_check_options;

typedef struct saw_check saw_check;

/** Find the songs and open every file once. SAW_ERR_IO, SAW_ERR_ARGUMENT: as saw_dataset_open; a
 * file that cannot be read is a fault, found later. */
saw_status saw_check_open(saw_context *ctx, const char *path, const saw_check_options *options,
                          saw_check **out);
void saw_check_close(saw_check *c);
const char *saw_check_layout(const saw_check *c);
int saw_check_songs(const saw_check *c);
const char *saw_check_song(const saw_check *c, int song);
double saw_check_seconds(const saw_check *c);

/** Read one song, or, with song == saw_check_songs, compare the songs with each other (after all of
 * them). Faults are appended; those of a call start at *first. SAW_ERR_CANCELLED, SAW_ERR_MEMORY.
 */
saw_status saw_check_run(saw_check *c, int song, int *first);
int saw_check_faults(const saw_check *c);
const saw_fault *saw_check_fault(const saw_check *c, int i);

#endif
