#include "support/audio.h"

#include "support/test.h"

#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>

float *test_read_audio(const char *folder, const char *file, int *channels, int64_t *samples)
{
    char path[512];
    SF_INFO info = {0};
    snprintf(path, sizeof path, "%s/%s", folder, file);
    SNDFILE *f = sf_open(path, SFM_READ, &info);
    if (!f)
        fail_msg("%s: %s", path, sf_strerror(NULL));
    size_t n = (size_t)info.frames, c = (size_t)info.channels;
    float *mixed = malloc(n * c * sizeof *mixed), *out = malloc(n * c * sizeof *out);
    assert_non_null(mixed);
    assert_non_null(out);
    assert_int_equal(sf_readf_float(f, mixed, info.frames), info.frames);
    sf_close(f);
    for (size_t i = 0; i < n * c; i++)
        out[i % c * n + i / c] = mixed[i];
    free(mixed);
    *channels = info.channels;
    *samples = info.frames;
    return out;
}
