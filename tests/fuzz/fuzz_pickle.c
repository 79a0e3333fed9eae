/* fuzz_pickle.c - the input is the data.pkl of a torch zip that has one storage, "0", of 64 bytes.
 */
#include "fuzz/fuzz_checkpoint.h"

static saw_buffer zip;

static void number(uint64_t v, size_t bytes)
{
    saw_buffer_add(&zip, &v, bytes);
}

static void local_header(const char *name)
{
    static const char zeros[22];
    saw_buffer_add(&zip, "PK\3\4", 4);
    saw_buffer_add(&zip, zeros, 22);
    number(strlen(name), 2), number(0, 2);
    saw_buffer_add(&zip, name, strlen(name));
}

static void entry(const char *name, size_t n, size_t offset)
{
    static const char zeros[16];
    saw_buffer_add(&zip, "PK\1\2", 4);
    saw_buffer_add(&zip, zeros, 16);
    number(n, 4), number(n, 4), number(strlen(name), 2), number(0, 2), number(0, 2), number(0, 8);
    number(offset, 4);
    saw_buffer_add(&zip, name, strlen(name));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    int fd = fuzz_file(path);
    uint8_t storage[64];
    for (int i = 0; i < 64; i++)
        storage[i] = (uint8_t)(i * 5);
    zip = (saw_buffer){.ctx = fuzz_context()};
    local_header("x/data.pkl");
    saw_buffer_add(&zip, bytes, n);
    size_t second = zip.size;
    local_header("x/data/0");
    saw_buffer_add(&zip, storage, sizeof storage);
    size_t start = zip.size;
    entry("x/data.pkl", n, 0);
    entry("x/data/0", sizeof storage, second);
    size_t end = zip.size;
    saw_buffer_add(&zip, "PK\5\6\0\0\0\0", 8);
    number(2, 2), number(2, 2), number(end - start, 4), number(start, 4), number(0, 2);
    FUZZ_PROMISE(!zip.failed && pwrite(fd, zip.data, zip.size, 0) == (ssize_t)zip.size);
    saw_buffer_free(&zip);
    fuzz_checkpoint(path);
    return 0;
}
