/*
 * fuzz_checkpoint.h - bytes as a file, opened as a checkpoint and read every way.
 */
#ifndef SAW_TEST_FUZZ_CHECKPOINT_H
#define SAW_TEST_FUZZ_CHECKPOINT_H

#include "fuzz/fuzz.h"
#include "io/checkpoint.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void fuzz_read_tensor(saw_checkpoint *ck, const saw_ckpt_tensor *t)
{
    enum { MOST = 4096 };
    static float f32[MOST];
    static double f64[MOST], raw[MOST];
    FUZZ_PROMISE(t->ndim >= 0 && t->ndim <= SAW_MAX_DIMS && t->count >= 0);
    FUZZ_PROMISE(saw_checkpoint_find(ck, t->name) != NULL);
    int64_t n = t->count < MOST ? t->count : MOST, last = t->count - n;
    FUZZ_PROMISE(saw_checkpoint_read_f32(ck, t, 0, n, f32) == SAW_OK);
    FUZZ_PROMISE(saw_checkpoint_read_f64(ck, t, last, n, f64) == SAW_OK);
    FUZZ_PROMISE(saw_checkpoint_read_raw(ck, t, last / 2, n, raw) == SAW_OK);
    FUZZ_PROMISE(saw_checkpoint_read_raw(ck, t, last, n + 1, raw) == SAW_ERR_ARGUMENT);
}

/* An opened file keeps its promises, a refused one has a sentence, neither keeps memory. */
static void fuzz_checkpoint(const char *path)
{
    saw_context *ctx = fuzz_context();
    size_t before = saw_context_memory(ctx).now_bytes;
    saw_checkpoint *ck;
    if (saw_checkpoint_open(ctx, path, &ck)) {
        FUZZ_PROMISE(!ck && strlen(saw_context_error(ctx)) > 10);
    } else {
        FUZZ_PROMISE(saw_checkpoint_count(ck) > 0);
        for (int i = 0; i < saw_checkpoint_count(ck) && i < 64; i++)
            fuzz_read_tensor(ck, saw_checkpoint_at(ck, i));
        for (int i = 0; i < saw_checkpoint_note_count(ck); i++)
            for (const char *p = saw_checkpoint_note(ck, i); *p; p++)
                FUZZ_PROMISE(*p >= 32 && *p < 127);
        saw_checkpoint_close(ck);
    }
    FUZZ_PROMISE(saw_context_memory(ctx).now_bytes == before);
}

/** A file without a name, made once, and its path. */
static inline int fuzz_file(char path[64])
{
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("input", 0);
    FUZZ_PROMISE(fd >= 0 && ftruncate(fd, 0) == 0);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
