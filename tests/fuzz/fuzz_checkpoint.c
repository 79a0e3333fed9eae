/* fuzz_checkpoint.c - the input is the file: zip, legacy pickles, safetensors or anything else. */
#include "fuzz/fuzz_checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    int fd = fuzz_file(path);
    FUZZ_PROMISE(pwrite(fd, bytes, n, 0) == (ssize_t)n);
    fuzz_checkpoint(path);
    return 0;
}
