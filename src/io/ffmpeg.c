/*
 * ffmpeg.c - the ffmpeg program as a decoder. It gets the open file as its standard input and opens
 * /dev/fd/0, which is seekable and hides the name: no name can look like an option or a protocol,
 * and a playlist finds nothing beside it.
 */
#include "io/ffmpeg.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define INPUT "file:/dev/fd/0"

enum { CANCEL_POLL_MS = 100 };

saw_status saw_ffmpeg_open(saw_context *ctx, int input_fd, const char *path, saw_pipe *out)
{
    static const char *const arguments[] = {
        "ffmpeg", "-nostdin", "-v",  "error", "-protocol_whitelist", "file",   "-i", INPUT, "-map",
        "0:a:0",  "-f",       "wav", "-c:a",  "pcm_f32le",           "pipe:1", NULL};
    int data[2], errors[2];
    memset(out, 0, sizeof *out);
    out->fd = out->error_fd = -1;
    lseek(input_fd, 0, SEEK_SET);
    if (pipe2(data, O_CLOEXEC))
        return saw_fail(ctx, SAW_ERR_IO, "%s: no pipe can be made: %s", path, strerror(errno));
    if (pipe2(errors, O_CLOEXEC)) {
        close(data[0]);
        close(data[1]);
        return saw_fail(ctx, SAW_ERR_IO, "%s: no pipe can be made: %s", path, strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t signals;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, input_fd, 0);
    posix_spawn_file_actions_adddup2(&actions, data[1], 1);
    posix_spawn_file_actions_adddup2(&actions, errors[1], 2);
    posix_spawnattr_init(&attributes);
    sigemptyset(&signals);
    posix_spawnattr_setsigmask(&attributes, &signals);
    sigaddset(&signals, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int error = posix_spawnp(&out->child, "ffmpeg", &actions, &attributes, (char *const *)arguments,
                             environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    close(data[1]);
    close(errors[1]);
    out->fd = data[0];
    out->error_fd = errors[0];
    if (!error)
        return SAW_OK;
    out->child = 0;
    saw_pipe_close(out);
    if (error == ENOENT)
        return saw_fail(ctx, SAW_ERR_UNSUPPORTED,
                        "%s: is in a format that only the program ffmpeg can read, and it is not "
                        "installed: install ffmpeg, or convert the file to WAV or FLAC",
                        path);
    return saw_fail(ctx, SAW_ERR_IO, "%s: the program ffmpeg cannot be started: %s", path,
                    strerror(error));
}

/* Keep the newest bytes of what the program says. */
static void listen_to_errors(saw_pipe *p)
{
    char text[sizeof p->message / 2];
    ssize_t n = read(p->error_fd, text, sizeof text);
    if (n < 0 && errno == EINTR)
        return;
    if (n <= 0) {
        close(p->error_fd);
        p->error_fd = -1;
        return;
    }
    size_t fresh = (size_t)n, keep = sizeof p->message - 1 - fresh;
    keep = p->message_size < keep ? p->message_size : keep;
    memmove(p->message, p->message + p->message_size - keep, keep);
    memcpy(p->message + keep, text, fresh);
    p->message_size = keep + fresh;
}

static const char *last_line(saw_pipe *p)
{
    while (p->message_size && (unsigned char)p->message[p->message_size - 1] <= ' ')
        p->message_size--;
    p->message[p->message_size] = 0;
    const char *line = strrchr(p->message, '\n');
    line = line ? line + 1 : p->message;
    size_t name = strlen(INPUT ": ");
    return strncmp(line, INPUT ": ", name) ? line : line + name;
}

static saw_status ended(saw_context *ctx, saw_pipe *p, const char *path)
{
    int how = 0;
    while (p->error_fd >= 0)
        listen_to_errors(p);
    while (waitpid(p->child, &how, 0) < 0 && errno == EINTR)
        ;
    p->child = 0;
    if (WIFEXITED(how) && WEXITSTATUS(how) == 0)
        return SAW_OK;
    return saw_fail(ctx, SAW_ERR_FORMAT, "%s: is no audio file that can be read; ffmpeg says: %s",
                    path, last_line(p));
}

saw_status saw_pipe_read(saw_context *ctx, saw_pipe *p, const char *path, void *out, size_t n,
                         size_t *got)
{
    *got = 0;
    while (*got < n && p->fd >= 0) {
        struct pollfd fds[2] = {{.fd = p->fd, .events = POLLIN},
                                {.fd = p->child ? p->error_fd : -1, .events = POLLIN}};
        int ready = poll(fds, 2, CANCEL_POLL_MS);
        if (saw_cancelled(ctx))
            return saw_fail(ctx, SAW_ERR_CANCELLED, "%s: reading was cancelled", path);
        if (ready > 0 && fds[1].revents)
            listen_to_errors(p);
        if (ready <= 0 || !fds[0].revents)
            continue;
        ssize_t r = read(p->fd, (char *)out + *got, n - *got);
        if (r < 0 && errno != EINTR && errno != EAGAIN)
            return saw_fail(ctx, SAW_ERR_IO, "%s: cannot be read: %s", path, strerror(errno));
        if (r > 0)
            *got += (size_t)r;
        if (r == 0 && p->child)
            return ended(ctx, p, path);
        if (r == 0)
            break;
    }
    return SAW_OK;
}

void saw_pipe_close(saw_pipe *p)
{
    if (p->fd >= 0)
        close(p->fd);
    if (p->error_fd >= 0)
        close(p->error_fd);
    if (p->child) {
        kill(p->child, SIGKILL);
        while (waitpid(p->child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    p->fd = p->error_fd = -1;
    p->child = 0;
}
