/* separate.c - the library in forty lines: raw float32 stereo at the model's rate from standard
 * input, the first stem to standard output.   separate MODEL < mix.f32 > stem.f32 */
#include <bandsaw.h>
#include <stdio.h>

enum { BLOCK = 4096 };

static int fail(saw_context *ctx)
{
    fprintf(stderr, "%s\n", saw_context_error(ctx));
    return 1;
}

static int drain(saw_stream *t)
{
    static float left[BLOCK], right[BLOCK];
    float *out[2] = {left, right};
    for (int64_t n; (n = saw_stream_ready(t)) > 0;) {
        n = n < BLOCK ? n : BLOCK;
        if (saw_stream_pull(t, out, n))
            return 1;
        for (int64_t i = 0; i < n; i++)
            fwrite((float[]){left[i], right[i]}, sizeof(float), 2, stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    saw_context *ctx;
    saw_separator *model;
    saw_stream *stream;
    if (argc != 2 || saw_context_open(&ctx, NULL))
        return 2;
    if (saw_separator_open(ctx, argv[1], NULL, &model))
        return fail(ctx);
    const saw_separator_info *info = saw_separator_get_info(model);
    saw_stream_options options = {.stems = info->stem_names, .n_stems = 1};
    if (info->channels != 2 || saw_stream_open(model, &options, &stream))
        return fail(ctx);
    float frame[2], *in[2] = {&frame[0], &frame[1]};
    while (fread(frame, sizeof frame, 1, stdin) == 1)
        if (saw_stream_push(stream, (const float *const *)in, 1) || drain(stream))
            return fail(ctx);
    if (saw_stream_finish(stream) || drain(stream))
        return fail(ctx);
    saw_stream_close(stream);
    saw_separator_close(model);
    saw_context_close(ctx);
    return 0;
}
