/*
 * file.c - checked random reads, and files that appear whole or not at all.
 */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct saw_file {
    saw_context *ctx;
    char *path;
    int fd;
    uint64_t size;
};

saw_status saw_file_open(saw_context *ctx, const char *path, saw_file **out)
{
    *out = NULL;
    /* O_NONBLOCK: opening a named pipe must not hang before it is refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return saw_fail(ctx, SAW_ERR_IO, "%s: cannot be opened: %s", path, strerror(errno));
    saw_status status = SAW_OK;
    if (fstat(fd, &st))
        status = saw_fail(ctx, SAW_ERR_IO, "%s: cannot be examined: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        status = saw_fail(ctx, SAW_ERR_IO, "%s: is a folder, and a file is needed here", path);
    else if (!S_ISREG(st.st_mode))
        status = saw_fail(ctx, SAW_ERR_IO, "%s: is not a regular file", path);
    saw_file *f = status ? NULL : saw_calloc(ctx, 1, sizeof *f);
    if (f) {
        f->ctx = ctx;
        f->fd = fd;
        f->size = (uint64_t)st.st_size;
        f->path = saw_strdup(ctx, path);
    }
    if (!f || !f->path) {
        saw_free(ctx, f);
        close(fd);
        return status ? status : SAW_ERR_MEMORY;
    }
    *out = f;
    return SAW_OK;
}

void saw_file_close(saw_file *f)
{
    if (!f)
        return;
    close(f->fd);
    saw_free(f->ctx, f->path);
    saw_free(f->ctx, f);
}

uint64_t saw_file_size(const saw_file *f)
{
    return f->size;
}

const char *saw_file_path(const saw_file *f)
{
    return f->path;
}

saw_status saw_file_read(saw_file *f, uint64_t offset, void *out, size_t n)
{
    if (offset > f->size || n > f->size - offset)
        return saw_fail(f->ctx, SAW_ERR_FORMAT,
                        "%s: is cut short: %zu bytes at offset %llu were wanted, the file has %llu",
                        f->path, n, (unsigned long long)offset, (unsigned long long)f->size);
    for (size_t done = 0; done < n;) {
        ssize_t got = pread(f->fd, (char *)out + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return saw_fail(f->ctx, SAW_ERR_IO, "%s: cannot be read: %s", f->path, strerror(errno));
        if (got == 0)
            return saw_fail(f->ctx, SAW_ERR_FORMAT, "%s: became shorter while it was read",
                            f->path);
        done += (size_t)got;
    }
    return SAW_OK;
}

saw_status saw_read_all(saw_context *ctx, const char *path, size_t limit, char **out, size_t *size)
{
    saw_file *f;
    *out = NULL;
    saw_status status = saw_file_open(ctx, path, &f);
    if (status)
        return status;
    uint64_t n = f->size;
    if (n > limit)
        status = saw_fail(ctx, SAW_ERR_FORMAT,
                          "%s: has %llu bytes; at most %zu are expected of such a file", path,
                          (unsigned long long)n, limit);
    char *data = status ? NULL : saw_alloc(ctx, (size_t)n + 1);
    if (!status && !data)
        status = SAW_ERR_MEMORY;
    if (!status)
        status = saw_file_read(f, 0, data, (size_t)n);
    saw_file_close(f);
    if (status) {
        saw_free(ctx, data);
        return status;
    }
    data[n] = 0;
    *out = data;
    if (size)
        *size = (size_t)n;
    return SAW_OK;
}

/* ---- files that appear whole ----------------------------------------------------------------- */

saw_status saw_atomic_open(saw_context *ctx, const char *path, saw_atomic_file *out)
{
    memset(out, 0, sizeof *out);
    out->ctx = ctx;
    out->path = saw_strdup(ctx, path);
    out->temp = saw_format(ctx, "%s.part%ld", path, (long)getpid());
    if (!out->path || !out->temp) {
        saw_atomic_abort(out);
        return SAW_ERR_MEMORY;
    }
    out->file = fopen(out->temp, "wb+e");
    if (!out->file) {
        saw_status status =
            saw_fail(ctx, SAW_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
        saw_free(ctx, out->temp);
        out->temp = NULL;
        saw_atomic_abort(out);
        return status;
    }
    return SAW_OK;
}

saw_status saw_atomic_commit(saw_atomic_file *f)
{
    saw_status status = SAW_OK;
    errno = 0;
    bool bad = ferror(f->file) != 0;
    bad |= fflush(f->file) != 0;
    bad |= fsync(fileno(f->file)) != 0 && errno != EINVAL;
    bad |= fclose(f->file) != 0;
    f->file = NULL;
    if (!bad)
        bad = rename(f->temp, f->path) != 0;
    if (bad) {
        status = saw_fail(f->ctx, SAW_ERR_IO, "%s: cannot be written: %s", f->path,
                          errno ? strerror(errno) : "an earlier write failed");
    } else {
        saw_free(f->ctx, f->temp);
        f->temp = NULL;
    }
    saw_atomic_abort(f);
    return status;
}

void saw_atomic_abort(saw_atomic_file *f)
{
    if (!f->ctx)
        return;
    if (f->file)
        fclose(f->file);
    if (f->temp)
        unlink(f->temp);
    saw_free(f->ctx, f->temp);
    saw_free(f->ctx, f->path);
    memset(f, 0, sizeof *f);
}

saw_status saw_make_folders(saw_context *ctx, const char *path)
{
    char *p = saw_strdup(ctx, path);
    if (!p)
        return SAW_ERR_MEMORY;
    saw_status status = SAW_OK;
    for (char *at = p + 1; !status; at++) {
        if (*at != '/' && *at)
            continue;
        char was = *at;
        *at = 0;
        struct stat st;
        if (mkdir(p, 0777) && errno != EEXIST)
            status =
                saw_fail(ctx, SAW_ERR_IO, "%s: the folder cannot be made: %s", p, strerror(errno));
        else if (stat(p, &st) == 0 && !S_ISDIR(st.st_mode))
            status =
                saw_fail(ctx, SAW_ERR_IO, "%s: a file of this name is where a folder is needed", p);
        *at = was;
        if (!was)
            break;
    }
    saw_free(ctx, p);
    return status;
}
