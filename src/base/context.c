/*
 * context.c - the one object that every call shares: threads, allocator, log, cancel flag, last
 * error.
 */
#include "base/base.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* Every block carries its size before it, so that the counters are exact and realloc knows what to
 * copy. */
typedef struct block_header {
    size_t bytes;
    void *raw; /* what the allocator gave */
} block_header;

enum { ALIGN = 64, ERROR_ROOM = 1024 };

typedef struct team {
    pthread_t *threads;
    int started; /* workers beside the calling thread */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    uint64_t round;
    int running;
    bool quit;
    saw_task *fn;
    void *arg;
    int64_t items;
    atomic_int_least64_t next;
} team;

struct saw_context {
    saw_options options;
    int threads;
    atomic_int cancel;
    char error[ERROR_ROOM];
    pthread_mutex_t memory_lock;
    saw_memory_stats memory;
    team team;
    bool team_started;
};

const char *saw_status_name(saw_status status)
{
    static const char *const names[] = {"ok",    "argument",    "memory", "io",       "format",
                                        "shape", "unsupported", "device", "cancelled"};
    int i = -(int)status;
    return i >= 0 && i < (int)(sizeof names / sizeof *names) ? names[i] : "unknown";
}

const char *saw_version(void)
{
    return BANDSAW_VERSION;
}

/* ---- open and close -------------------------------------------------------------------------- */

saw_status saw_context_open(saw_context **out, const saw_options *options)
{
    saw_options o = {0};
    if (options)
        o = *options;
    *out = NULL;
    if (o.threads < 0 || o.threads > 1024 || !o.alloc != !o.release)
        return SAW_ERR_ARGUMENT;
    saw_context *ctx = o.alloc ? o.alloc(o.user, sizeof *ctx) : malloc(sizeof *ctx);
    if (!ctx)
        return SAW_ERR_MEMORY;
    memset(ctx, 0, sizeof *ctx);
    ctx->options = o;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    ctx->threads = o.threads ? o.threads : (online > 0 ? (int)online : 1);
    pthread_mutex_init(&ctx->memory_lock, NULL);
    *out = ctx;
    return SAW_OK;
}

static void team_stop(saw_context *ctx);

void saw_context_close(saw_context *ctx)
{
    if (!ctx)
        return;
    team_stop(ctx);
    pthread_mutex_destroy(&ctx->memory_lock);
    if (ctx->options.release)
        ctx->options.release(ctx->options.user, ctx);
    else
        free(ctx);
}

const char *saw_context_error(const saw_context *ctx)
{
    return ctx ? ctx->error : "";
}

void saw_context_cancel(saw_context *ctx)
{
    atomic_store(&ctx->cancel, 1);
}

void saw_context_resume(saw_context *ctx)
{
    atomic_store(&ctx->cancel, 0);
}

bool saw_cancelled(const saw_context *ctx)
{
    return ctx && atomic_load(&((saw_context *)ctx)->cancel);
}

int saw_threads(const saw_context *ctx)
{
    return ctx->threads;
}

/* ---- errors and log -------------------------------------------------------------------------- */

saw_status saw_fail(saw_context *ctx, saw_status code, const char *fmt, ...)
{
    if (!ctx)
        return code;
    char text[ERROR_ROOM]; /* arguments may point into ctx->error */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    memcpy(ctx->error, text, sizeof text);
    return code;
}

saw_status saw_fail_in(saw_context *ctx, saw_status code, const char *prefix)
{
    return saw_fail(ctx, code, "%s: %s", prefix, saw_context_error(ctx));
}

void saw_log(saw_context *ctx, int level, const char *fmt, ...)
{
    if (!ctx || !ctx->options.log)
        return;
    char text[ERROR_ROOM];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    ctx->options.log(ctx->options.user, level, text);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void count_memory(saw_context *ctx, size_t plus, size_t minus)
{
    pthread_mutex_lock(&ctx->memory_lock);
    if (plus) {
        ctx->memory.calls++;
        ctx->memory.now_bytes += plus;
        if (ctx->memory.now_bytes > ctx->memory.peak_bytes)
            ctx->memory.peak_bytes = ctx->memory.now_bytes;
    }
    ctx->memory.now_bytes -= minus;
    pthread_mutex_unlock(&ctx->memory_lock);
}

saw_memory_stats saw_context_memory(const saw_context *ctx)
{
    return ctx->memory;
}

void *saw_alloc(saw_context *ctx, size_t bytes)
{
    size_t whole;
    if (!saw_add_size(bytes, ALIGN + sizeof(block_header), &whole)) {
        saw_fail(ctx, SAW_ERR_MEMORY, "a block of %zu bytes is more than this machine can address",
                 bytes);
        return NULL;
    }
    void *raw = ctx->options.alloc ? ctx->options.alloc(ctx->options.user, whole) : malloc(whole);
    if (!raw) {
        saw_fail(ctx, SAW_ERR_MEMORY, "out of memory (%zu bytes were wanted)", bytes);
        return NULL;
    }
    uintptr_t at = ((uintptr_t)raw + sizeof(block_header) + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1);
    block_header *h = (block_header *)at - 1;
    h->bytes = bytes;
    h->raw = raw;
    count_memory(ctx, whole, 0);
    return (void *)at;
}

void *saw_calloc(saw_context *ctx, size_t count, size_t size)
{
    size_t bytes;
    if (!saw_mul_size(count, size, &bytes)) {
        saw_fail(ctx, SAW_ERR_MEMORY, "%zu times %zu bytes is more than this machine can address",
                 count, size);
        return NULL;
    }
    void *p = saw_alloc(ctx, bytes);
    if (p)
        memset(p, 0, bytes);
    return p;
}

void *saw_realloc(saw_context *ctx, void *block, size_t bytes)
{
    void *fresh = saw_alloc(ctx, bytes);
    if (fresh && block) {
        size_t old = ((block_header *)block - 1)->bytes;
        memcpy(fresh, block, old < bytes ? old : bytes);
        saw_free(ctx, block);
    }
    return fresh;
}

void saw_free(saw_context *ctx, void *block)
{
    if (!block)
        return;
    block_header *h = (block_header *)block - 1;
    count_memory(ctx, 0, h->bytes + ALIGN + sizeof(block_header));
    if (ctx->options.release)
        ctx->options.release(ctx->options.user, h->raw);
    else
        free(h->raw);
}

char *saw_strndup(saw_context *ctx, const char *s, size_t n)
{
    char *copy = saw_alloc(ctx, n + 1);
    if (copy) {
        memcpy(copy, s, n);
        copy[n] = 0;
    }
    return copy;
}

char *saw_strdup(saw_context *ctx, const char *s)
{
    return saw_strndup(ctx, s, strlen(s));
}

char *saw_format(saw_context *ctx, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : saw_alloc(ctx, (size_t)n + 1);
    if (s) {
        va_start(ap, fmt);
        vsnprintf(s, (size_t)n + 1, fmt, ap);
        va_end(ap);
    }
    return s;
}

void *saw_map_alloc(saw_context *ctx, size_t bytes)
{
    if (ctx->options.alloc) { /* the caller's allocator decides about all memory */
        void *p = saw_alloc(ctx, bytes);
        if (p)
            memset(p, 0, bytes);
        return p;
    }
    void *p =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        saw_fail(ctx, SAW_ERR_MEMORY, "out of memory (%zu bytes were wanted)", bytes);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (bytes >= 4u << 20)
        madvise(p, bytes, MADV_HUGEPAGE);
#endif
    count_memory(ctx, bytes, 0);
    return p;
}

void saw_map_free(saw_context *ctx, void *block, size_t bytes)
{
    if (!block)
        return;
    if (ctx->options.alloc) {
        saw_free(ctx, block);
        return;
    }
    munmap(block, bytes ? bytes : 1);
    count_memory(ctx, 0, bytes);
}

bool saw_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool saw_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

void saw_machine_memory(size_t *total_bytes, size_t *available_bytes)
{
    *total_bytes = *available_bytes = 0;
    FILE *f = fopen("/proc/meminfo", "r");
    if (!f)
        return;
    char line[256];
    unsigned long long kb;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemTotal: %llu", &kb) == 1)
            *total_bytes = (size_t)kb * 1024;
        else if (sscanf(line, "MemAvailable: %llu", &kb) == 1)
            *available_bytes = (size_t)kb * 1024;
    }
    fclose(f);
}

double saw_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- threads --------------------------------------------------------------------------------- */

static void team_work(saw_context *ctx, int thread)
{
    team *t = &ctx->team;
    while (!saw_cancelled(ctx)) {
        int64_t item = atomic_fetch_add(&t->next, 1);
        if (item >= t->items)
            break;
        t->fn(t->arg, item, thread);
    }
}

typedef struct worker_start {
    saw_context *ctx;
    int thread;
} worker_start;

static void *team_main(void *arg)
{
    worker_start start = *(worker_start *)arg;
    saw_context *ctx = start.ctx;
    saw_free(ctx, arg);
    team *t = &ctx->team;
    uint64_t seen = 0;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (t->round == seen && !t->quit)
            pthread_cond_wait(&t->wake, &t->lock);
        if (t->quit)
            break;
        seen = t->round;
        pthread_mutex_unlock(&t->lock);
        team_work(ctx, start.thread);
        pthread_mutex_lock(&t->lock);
        if (--t->running == 0)
            pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

/* Workers start with the first parallel call; when one cannot be had, fewer do the work. */
static void team_start(saw_context *ctx)
{
    team *t = &ctx->team;
    ctx->team_started = true;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->wake, NULL);
    pthread_cond_init(&t->done, NULL);
    t->threads = saw_calloc(ctx, (size_t)ctx->threads, sizeof *t->threads);
    sigset_t all, old; /* signals belong to the caller's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int i = 1; t->threads && i < ctx->threads; i++) {
        worker_start *start = saw_alloc(ctx, sizeof *start);
        if (!start)
            break;
        start->ctx = ctx;
        start->thread = i;
        if (pthread_create(&t->threads[t->started], NULL, team_main, start)) {
            saw_free(ctx, start);
            break;
        }
        t->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static void team_stop(saw_context *ctx)
{
    team *t = &ctx->team;
    if (!ctx->team_started)
        return;
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->started; i++)
        pthread_join(t->threads[i], NULL);
    saw_free(ctx, t->threads);
    pthread_cond_destroy(&t->wake);
    pthread_cond_destroy(&t->done);
    pthread_mutex_destroy(&t->lock);
}

void saw_parallel(saw_context *ctx, int64_t items, saw_task *fn, void *arg)
{
    team *t = &ctx->team;
    if (items <= 1 || ctx->threads == 1) {
        for (int64_t i = 0; i < items && !saw_cancelled(ctx); i++)
            fn(arg, i, 0);
        return;
    }
    if (!ctx->team_started)
        team_start(ctx);
    pthread_mutex_lock(&t->lock);
    t->fn = fn;
    t->arg = arg;
    t->items = items;
    atomic_store(&t->next, 0);
    t->running = t->started;
    t->round++;
    pthread_cond_broadcast(&t->wake);
    pthread_mutex_unlock(&t->lock);
    team_work(ctx, 0);
    pthread_mutex_lock(&t->lock);
    while (t->running)
        pthread_cond_wait(&t->done, &t->lock);
    pthread_mutex_unlock(&t->lock);
}
