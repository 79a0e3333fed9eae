/*
 * bench_simd.c - speed of the packed products, attention and vector functions on one thread,
 * against the rate of multiply-adds that the same thread reaches from registers. Usage: bench_simd
 * [index of the instruction set]
 */
#include "kernels/simd/simd.h"

#include <stdlib.h>
#include <time.h>

static void *block_of(size_t bytes)
{
    void *block = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!block)
        exit(1);
    return block;
}

static float *random_floats(size_t n)
{
    float *x = block_of(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((uint32_t)(i * 2654435761u) >> 8) / 8388608.0f - 1.0f;
    return x;
}

static const saw_simd *simd;

/** Processor seconds of this thread: what other programs take does not count. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/** Seconds of one call of fn: the fastest of several runs of about 5 ms each. */
static double time_of(void (*fn)(void *arg), void *arg)
{
    double best = 1e9;
    int calls = 1;
    for (int run = 0; run < 20; run++) {
        double begin = cpu_seconds();
        for (int i = 0; i < calls; i++)
            fn(arg);
        double each = (cpu_seconds() - begin) / calls;
        best = each < best ? each : best;
        calls = each < 0.005 ? (int)(0.005 / each) : 1;
    }
    return best;
}

static void run_gemm(void *arg)
{
    simd->gemm(arg);
}

static void bench_gemm(saw_dtype dtype, int64_t m, int64_t n, int64_t k, int64_t stride,
                       saw_act act, double peak)
{
    float *a = random_floats((size_t)((m - 1) * stride + k)), *w = random_floats((size_t)(n * k));
    float *bias = random_floats((size_t)n), *c = random_floats((size_t)(m * n));
    void *b = block_of(simd->pack_bytes(dtype, n, k)), *scratch = block_of(SAW_GEMM_SCRATCH_BYTES);
    simd->pack(dtype, w, k, 1, 0, n, k, b);
    saw_gemm p = {.dtype = dtype,
                  .m = m,
                  .n = n,
                  .k = k,
                  .a = a,
                  .a_stride = stride,
                  .b = b,
                  .c = c,
                  .c_stride = n,
                  .bias = bias,
                  .act = act,
                  .scratch = scratch};
    double work = 2.0 * (double)m * (double)n * (double)k;
    double s = time_of(run_gemm, &p), rate = 1e-9 * work / s;
    printf("gemm %-4s %4ld x %4ld x %4ld stride %5ld %s %8.1f us %7.1f G/s %5.1f %%\n",
           saw_dtype_name(dtype), (long)m, (long)n, (long)k, (long)stride, act ? "gelu" : "    ",
           s * 1e6, rate, 100.0 * rate / peak);
    fflush(stdout);
    float *blocks[] = {a, w, bias, c, b, scratch};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
}

/** 8 heads in one [n, 8 d] row layout, as after a joined q, k, v product. */
static void run_attention(void *arg)
{
    saw_attend p = *(saw_attend *)arg;
    for (int head = 0; head < 8; head++) {
        simd->attention_pack(&p);
        simd->attention(&p);
        p.q += p.d, p.k += p.d, p.v += p.d, p.o += p.d;
    }
}

static void bench_attention(saw_dtype dtype, int64_t n, int64_t d, double peak)
{
    int64_t stride = 3 * 8 * d;
    float *qkv = random_floats((size_t)(n * stride)), *o = random_floats((size_t)(n * 8 * d));
    void *packed = block_of(simd->attention_pack_bytes(dtype, n, d, d));
    void *scratch = block_of(simd->attention_scratch_bytes(d));
    saw_attend p = {.dtype = dtype,
                    .n_q = n,
                    .n_k = n,
                    .d = d,
                    .d_v = d,
                    .q = qkv,
                    .k = qkv + 8 * d,
                    .v = qkv + 16 * d,
                    .o = o,
                    .q_stride = stride,
                    .k_stride = stride,
                    .v_stride = stride,
                    .o_stride = 8 * d,
                    .scale = 0.125f,
                    .packed = packed,
                    .scratch = scratch};
    double work = 8 * 4.0 * (double)n * (double)n * (double)d;
    double s = time_of(run_attention, &p), rate = 1e-9 * work / s;
    printf("attention %-4s %4ld x %4ld x %3ld, 8 heads %10.1f us %7.1f G/s %5.1f %%\n",
           saw_dtype_name(dtype), (long)n, (long)n, (long)d, s * 1e6, rate, 100.0 * rate / peak);
    fflush(stdout);
    free(qkv);
    free(o);
    free(packed);
    free(scratch);
}

enum { VECTOR = 4096 };

typedef struct map_call {
    saw_map *map;
    float *x, *y;
} map_call;

static void run_map(void *arg)
{
    map_call *c = arg;
    c->map(c->x, c->y, VECTOR);
}

static void run_rmsnorm(void *arg)
{
    map_call *c = arg;
    simd->rmsnorm(c->x, 384, c->y, 384, NULL, VECTOR / 384, 384);
}

static void run_softmax(void *arg)
{
    map_call *c = arg;
    simd->softmax(c->x, 512, c->y, 512, VECTOR / 512, 512);
}

static void run_rope(void *arg)
{
    map_call *c = arg;
    simd->rope(c->x, 64, c->y, 64, c->x, 64, false, VECTOR / 64, 64);
}

int main(int argc, char **argv)
{
    simd = argc > 1 ? saw_simd_at(atoi(argv[1])) : saw_simd_best();
    if (!simd)
        return 1;
    static const saw_dtype types[] = {SAW_F32, SAW_BF16, SAW_I8};
    static const int64_t shapes[][3] = {{62, 1536, 384}, {112, 1536, 384}, {801, 1536, 384},
                                        {62, 384, 1536}, {801, 384, 1536}, {62, 384, 512},
                                        {801, 384, 512}, {1, 1024, 256},   {3, 1024, 256},
                                        {5, 1024, 256},  {82, 1024, 256}};
    double peak[3];
    for (int t = 0; t < 3; t++)
        printf("%s peak %s %.1f G/s\n", simd->name, saw_dtype_name(types[t]),
               peak[t] = simd->peak(types[t], 0.3));
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            bench_gemm(types[t], shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][2],
                       SAW_ACT_NONE, peak[t]);
    bench_gemm(SAW_F32, 62, 1536, 384, 384, SAW_ACT_GELU, peak[0]);
    bench_gemm(SAW_F32, 801, 1536, 384, 62 * 384, SAW_ACT_NONE, peak[0]);
    for (int t = 0; t < 2; t++) {
        bench_attention(types[t], 801, 64, peak[t]);
        bench_attention(types[t], 62, 64, peak[t]);
    }
    map_call c = {NULL, random_floats(VECTOR), random_floats(VECTOR + 512)};
    c.y += 512; /* x and y apart by a multiple of 4 KiB would slow each other */
    struct {
        const char *name;
        saw_map *map;
    } maps[] = {{"exp", simd->exp},         {"gelu", simd->gelu}, {"tanh", simd->tanh},
                {"sigmoid", simd->sigmoid}, {"silu", simd->silu}, {"softplus", simd->softplus},
                {"relu", simd->relu}};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        c.map = maps[i].map;
        printf("%-8s %6.2f Gelem/s\n", maps[i].name, VECTOR * 1e-9 / time_of(run_map, &c));
    }
    printf("rmsnorm  %6.2f Gelem/s\n", 3840e-9 / time_of(run_rmsnorm, &c));
    printf("softmax  %6.2f Gelem/s\n", VECTOR * 1e-9 / time_of(run_softmax, &c));
    printf("rope     %6.2f Gelem/s\n", VECTOR * 1e-9 / time_of(run_rope, &c));
    free(c.x);
    free(c.y - 512);
    return 0;
}
