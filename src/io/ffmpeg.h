/*
 * ffmpeg.h - reading a pipe, with or without the program `ffmpeg` at its other end. Internal to
 * io/.
 */
#ifndef SAW_FFMPEG_H
#define SAW_FFMPEG_H

#include "base/base.h"

#include <sys/types.h>

/** {.fd = FD, .error_fd = -1} reads any other pipe. */
typedef struct saw_pipe {
    int fd;
    pid_t child;       /* 0: no program behind it */
    int error_fd;      /* the program's standard error, -1 when closed */
    char message[512]; /* the last of what it said */
    size_t message_size;
} saw_pipe;

/**
 * Start ffmpeg on input_fd (a regular file; not closed): it writes the first audio stream as a
 * float WAV into the pipe. path is for sentences. SAW_ERR_UNSUPPORTED when ffmpeg is not installed.
 */
saw_status saw_ffmpeg_open(saw_context *ctx, int input_fd, const char *path, saw_pipe *out);

/**
 * Read n bytes; *got < n only at the end. A program that ended with a failure is SAW_ERR_FORMAT
 * with the last line it said. Returns SAW_ERR_CANCELLED soon after a cancel.
 */
saw_status saw_pipe_read(saw_context *ctx, saw_pipe *p, const char *path, void *out, size_t n,
                         size_t *got);

/** Close, and end the program if it still runs. Fine on a pipe that is closed. */
void saw_pipe_close(saw_pipe *p);

#endif
