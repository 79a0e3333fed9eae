/*
 * pool.c - a bump allocator with a limit, an open-addressing map of names, JSON strings.
 */
#include "io/pool.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 64 << 10, POOL_ALIGN = 16 };

struct saw_pool_block {
    struct saw_pool_block *next;
    char pad[POOL_ALIGN - sizeof(void *)];
};

void saw_pool_init(saw_pool *p, saw_context *ctx, size_t limit_bytes)
{
    *p = (saw_pool){.ctx = ctx, .limit_bytes = limit_bytes};
}

void *saw_pool_alloc(saw_pool *p, size_t bytes)
{
    if (bytes > p->limit_bytes - p->used_bytes) {
        saw_fail(p->ctx, SAW_ERR_MEMORY, "more than the limit of %zu MB would be needed to read it",
                 p->limit_bytes >> 20);
        return NULL;
    }
    size_t whole = (bytes + POOL_ALIGN - 1) & ~(size_t)(POOL_ALIGN - 1);
    if (whole > p->left) {
        bool own = whole > BLOCK_BYTES / 4; /* a big one gets its own block, the open one stays */
        struct saw_pool_block *b = saw_alloc(p->ctx, sizeof *b + (own ? whole : BLOCK_BYTES));
        if (!b)
            return NULL;
        b->next = p->blocks;
        p->blocks = b;
        if (own) {
            p->used_bytes += bytes;
            return memset(b + 1, 0, whole);
        }
        p->at = (char *)(b + 1);
        p->left = BLOCK_BYTES;
    }
    void *got = memset(p->at, 0, whole);
    p->at += whole;
    p->left -= whole;
    p->used_bytes += bytes;
    return got;
}

char *saw_pool_strndup(saw_pool *p, const char *s, size_t n)
{
    char *copy = saw_pool_alloc(p, n + 1);
    if (copy && n)
        memcpy(copy, s, n);
    return copy;
}

void saw_pool_free(saw_pool *p)
{
    while (p->blocks) {
        struct saw_pool_block *b = p->blocks;
        p->blocks = b->next;
        saw_free(p->ctx, b);
    }
    *p = (saw_pool){0};
}

/* ---- names ------------------------------------------------------------------------------------- ---- */

struct saw_name_slot {
    const char *name; /* NULL: empty */
    size_t n, value;
    uint64_t hash;
};

static struct saw_name_slot *slot_of(const saw_name_map *m, const char *name, size_t n,
                                     uint64_t hash)
{
    size_t i = (size_t)hash & (m->room - 1);
    while (m->slots[i].name && (m->slots[i].hash != hash || m->slots[i].n != n ||
                                memcmp(m->slots[i].name, name, n) != 0))
        i = (i + 1) & (m->room - 1);
    return &m->slots[i];
}

saw_status saw_name_map_put(saw_name_map *m, const char *name, size_t n, size_t value)
{
    if (2 * (m->used + 1) > m->room) {
        saw_name_map bigger = {.ctx = m->ctx, .used = m->used, .room = m->room ? 2 * m->room : 64};
        bigger.slots = saw_calloc(m->ctx, bigger.room, sizeof *bigger.slots);
        if (!bigger.slots)
            return SAW_ERR_MEMORY;
        for (size_t i = 0; i < m->room; i++)
            if (m->slots[i].name)
                *slot_of(&bigger, m->slots[i].name, m->slots[i].n, m->slots[i].hash) = m->slots[i];
        saw_free(m->ctx, m->slots);
        *m = bigger;
    }
    uint64_t hash = saw_fnv1a(name, n);
    struct saw_name_slot *s = slot_of(m, name, n, hash);
    m->used += !s->name;
    *s = (struct saw_name_slot){name, n, value, hash};
    return SAW_OK;
}

size_t *saw_name_map_get(const saw_name_map *m, const char *name, size_t n)
{
    if (!m->room)
        return NULL;
    struct saw_name_slot *s = slot_of(m, name, n, saw_fnv1a(name, n));
    return s->name ? &s->value : NULL;
}

void saw_name_map_free(saw_name_map *m)
{
    saw_free(m->ctx, m->slots);
    *m = (saw_name_map){0};
}

/* ---- JSON strings ------------------------------------------------------------------------------ ---- */

bool saw_json_add_string(saw_buffer *b, const char *s)
{
    json_t *j = json_string(s);
    char *text = j ? json_dumps(j, JSON_ENCODE_ANY) : NULL;
    if (text)
        saw_buffer_add(b, text, strlen(text));
    free(text);
    json_decref(j);
    return text != NULL && !b->failed;
}
