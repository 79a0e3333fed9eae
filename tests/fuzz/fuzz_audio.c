/*
 * fuzz_audio.c - any bytes as an audio file: read from a file and, when they are a WAV, again
 * through a pipe. ffmpeg is kept away; its own fuzzers test it.
 */
#include "fuzz/fuzz.h"
#include "io/audio.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BLOCK = 1000, MAX_BLOCKS = 200, MAX_PIPE_BYTES = 60000 };

static void read_some(saw_context *ctx, const char *path)
{
    static float samples[SAW_AUDIO_MAX_CHANNELS][BLOCK];
    float *planar[SAW_AUDIO_MAX_CHANNELS];
    for (int c = 0; c < SAW_AUDIO_MAX_CHANNELS; c++)
        planar[c] = samples[c];
    saw_audio_reader *r;
    if (saw_audio_open(ctx, path, &r))
        return;
    int64_t got = BLOCK;
    saw_status status = saw_audio_seek(r, 7);
    for (int i = 0; !status && got == BLOCK && i < MAX_BLOCKS; i++)
        status = saw_audio_read(r, planar, BLOCK, &got);
    saw_audio_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    saw_context *ctx;
    char path[64];
    setenv("PATH", "/nonexistent", 1);
    if (saw_context_open(&ctx, NULL))
        return 0;
    int fd = memfd_create("audio", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        read_some(ctx, path);
    }
    close(fd);
    int ends[2];
    if (size <= MAX_PIPE_BYTES && pipe2(ends, O_CLOEXEC) == 0) { /* less than a pipe holds */
        bool sent = write(ends[1], data, size) == (ssize_t)size;
        close(ends[1]);
        snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]);
        if (sent)
            read_some(ctx, path);
        close(ends[0]);
    }
    saw_context_close(ctx);
    return 0;
}
