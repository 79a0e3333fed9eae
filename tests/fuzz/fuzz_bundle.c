/* fuzz_bundle.c - the input is the index of a TensorFlow bundle; its data file holds 4096 bytes. */
#include "fuzz/fuzz_checkpoint.h"

#include <fcntl.h>

static char folder[] = "/tmp/bandsaw-fuzz-XXXXXX", data[64], index_path[64];

static void remove_files(void)
{
    unlink(data);
    unlink(index_path);
    rmdir(folder);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    FUZZ_PROMISE(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint8_t values[4096];
    if (!*data) {
        FUZZ_PROMISE(mkdtemp(folder) != NULL);
        snprintf(data, sizeof data, "%s/m.data-00000-of-00001", folder);
        snprintf(index_path, sizeof index_path, "%s/m.index", folder);
        write_bytes(data, values, sizeof values);
        atexit(remove_files);
    }
    write_bytes(index_path, bytes, n);
    fuzz_checkpoint(index_path);
    return 0;
}
