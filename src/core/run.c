/*
 * run.c - binding weights and executing the groups of a program, tile by tile, on the context's
 * team.
 */
#include "core/program_private.h"
#include "kernels/simd/simd.h"

#include <math.h>
#include <string.h>

struct saw_run {
    saw_context *ctx;
    const saw_program *p;
    const saw_simd *simd; /* asked for once: the question costs a trap on virtual machines */
    char *memory;         /* one mapping: arena, state, scratch and operand lists per thread */
    size_t memory_bytes;
    char *arena, *state;
    char **scratch;            /* per thread */
    saw_tensor **operands;     /* per thread */
    const saw_packed ***packs; /* per thread: list for one call */
    char **weights;            /* per value: dense numbers or NULL */
    const saw_packed **packed; /* per value */
    void **own;                /* blocks that this run owns: bound values, double copies */
    int n_own;
    int threads;
};

saw_tensor saw_operand(const saw_program *p, const group *g, saw_val v, uint32_t axes,
                       const int64_t *lo, const int64_t *hi, const saw_memory *m)
{
    const saw_value *x = saw_graph_value(p->graph, v);
    const saw_value *root = saw_graph_value(p->graph, x->base);
    const place *at = &p->place[x->base];
    bool in_tile = at->where == PLACE_SCRATCH;
    uint32_t cut = g ? g->axes & axes : 0;
    saw_tensor t = {.dtype = p->real_bytes == 8 ? SAW_F64 : SAW_F32, .ndim = x->dims.n};
    int64_t base_dims[SAW_MAX_DIMS], strides[SAW_MAX_DIMS];
    for (int a = 0; a < root->dims.n; a++)
        base_dims[a] = in_tile && g->axes & SAW_AXIS(a) ? hi[a] - lo[a] : root->dims.d[a];
    saw_dense_strides(root->dims.n, base_dims, strides);
    int64_t offset = x->kind == SAW_VALUE_VIEW ? x->offset : 0;
    for (int a = 0; a < x->dims.n; a++) {
        bool own = x->kind == SAW_VALUE_VIEW && a >= x->lead;
        t.strides[a] = own ? x->strides[a] : strides[a];
        t.dims[a] = x->dims.d[a];
        if (cut & SAW_AXIS(a) && t.dims[a] > 1) { /* an axis of one is repeated, not cut */
            t.dims[a] = hi[a] - lo[a];
            if (!in_tile)
                offset += lo[a] * t.strides[a];
        }
    }
    if (!m)
        return t;
    char *data = in_tile                    ? m->scratch + at->offset
                 : at->where == PLACE_ARENA ? m->arena + at->offset
                                            : NULL;
    if (at->where >= PLACE_PARAM)
        data = m->weights[x->base];
    t.data = data ? data + offset * (int64_t)p->real_bytes : NULL;
    return t;
}

static saw_kernel *kernel_of(const saw_program *p, const planned_entry *pe, bool bind)
{
    const saw_op *op = pe->e->op;
    const saw_kernels *k = pe->kernels;
    if (p->device == SAW_DEVICE_REF64)
        return pe->e->backward ? k->ref64_backward : k->ref64_forward;
    saw_kernel *fast = pe->e->backward ? op->cpu_backward : op->cpu_forward;
    if (p->device == SAW_DEVICE_CPU && fast && !bind && !pe->reference)
        return fast;
    return pe->e->backward ? k->ref32_backward : k->ref32_forward;
}

/* ---- execution ------------------------------------------------------------------------------- */

typedef struct job {
    saw_run *r;
    const group *g;
} job;

static void call_entry(saw_run *r, const group *g, int i, const int64_t *lo, const int64_t *hi,
                       int64_t part, int thread)
{
    const saw_program *p = r->p;
    const planned_entry *pe = &p->entries[i];
    const saw_entry *e = pe->e;
    saw_tensor *t = r->operands[thread];
    saw_memory m = {.arena = r->arena, .scratch = r->scratch[thread], .weights = r->weights};
    for (int k = 0; k < e->n_in + e->n_out; k++) {
        saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
        if (v)
            t[k] = saw_operand(p, g, v, pe->operand_axes[k], lo, hi, &m);
        else
            memset(&t[k], 0, sizeof t[k]);
        if (k < e->n_in)
            r->packs[thread][k] = v ? r->packed[saw_root(p->graph, v)] : NULL;
    }
    saw_call c = {.attr = e->attr,
                  .in = t,
                  .out = t + e->n_in,
                  .n_in = e->n_in,
                  .n_out = e->n_out,
                  .packed = r->packs[thread],
                  .part = part,
                  .parts = g->parts,
                  .add = e->add,
                  .precision = p->precision,
                  .scratch = r->scratch[thread] + g->values_bytes,
                  .state = pe->state_bytes ? r->state + pe->state_offset : NULL,
                  .simd = r->simd};
    for (int a = 0; a < SAW_MAX_DIMS; a++)
        c.origin[a] = g->axes & SAW_AXIS(a) ? lo[a] : 0;
    kernel_of(p, pe, false)(&c);
}

static void run_tile(void *arg, int64_t item, int thread)
{
    const job *j = arg;
    const group *g = j->g;
    int64_t lo[SAW_MAX_DIMS] = {0}, hi[SAW_MAX_DIMS] = {0};
    int64_t rest = item;
    for (int a = SAW_MAX_DIMS - 1; a >= 0 && g->parts <= 1; a--) {
        if (!(g->axes & SAW_AXIS(a)))
            continue;
        int64_t n = (g->size[a] + g->extent[a] - 1) / g->extent[a];
        lo[a] = rest % n * g->extent[a];
        hi[a] = lo[a] + g->extent[a] < g->size[a] ? lo[a] + g->extent[a] : g->size[a];
        rest /= n;
    }
    for (int i = g->first; i < g->first + g->count; i++)
        call_entry(j->r, g, i, lo, hi, g->parts > 1 ? item : 0, thread);
}

saw_status saw_run_execute(saw_run *r)
{
    for (int i = 0; i < r->p->n_groups && !saw_cancelled(r->ctx); i++)
        saw_parallel(r->ctx, r->p->groups[i].tiles, run_tile, &(job){r, &r->p->groups[i]});
    return saw_cancelled(r->ctx) ? saw_fail(r->ctx, SAW_ERR_CANCELLED, "stopped on request")
                                 : SAW_OK;
}

void saw_run_reset(saw_run *r)
{
    memset(r->state, 0, r->p->state_bytes);
}

/* ---- binding --------------------------------------------------------------------------------- */

static void *own(saw_run *r, void *block)
{
    if (block)
        r->own[r->n_own++] = block;
    return block;
}

static saw_status bind_param(saw_run *r, saw_weights *w, saw_val v)
{
    const saw_program *p = r->p;
    const saw_value *x = saw_graph_value(p->graph, v);
    saw_status status = SAW_OK;
    if (p->place[v].packed)
        status = saw_weights_packed(w, x->name, &x->dims, p->precision, p->place[v].packer,
                                    &r->packed[v]);
    if (status || !p->place[v].dense)
        return status;
    const float *dense;
    status = saw_weights_dense(w, x->name, &x->dims, &dense);
    if (status)
        return status;
    if (p->real_bytes == 4) {
        r->weights[v] = (char *)dense;
        return SAW_OK;
    }
    size_t n = (size_t)saw_dims_count(&x->dims);
    double *wide = own(r, saw_alloc(r->ctx, n * sizeof *wide));
    if (!wide)
        return SAW_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        wide[i] = dense[i];
    r->weights[v] = (char *)wide;
    return SAW_OK;
}

/* A value made from weights alone: computed once by the reference kernel, then packed where
 * products want it. */
static saw_status bind_entry(saw_run *r, const planned_entry *pe)
{
    const saw_program *p = r->p;
    const saw_entry *e = pe->e;
    saw_tensor *t = r->operands[0];
    saw_memory m = {.weights = r->weights};
    for (int k = 0; k < e->n_out; k++) {
        r->weights[e->out[k]] =
            own(r, saw_calloc(r->ctx, (size_t)saw_dims_count(&pe->in_dims[pe->n_in + k]),
                              p->real_bytes));
        if (!r->weights[e->out[k]])
            return SAW_ERR_MEMORY;
    }
    for (int k = 0; k < e->n_in + e->n_out; k++) {
        saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
        if (v)
            t[k] = saw_operand(p, NULL, v, 0, NULL, NULL, &m);
        else
            memset(&t[k], 0, sizeof t[k]);
    }
    saw_call c = {.attr = e->attr,
                  .in = t,
                  .out = t + e->n_in,
                  .n_in = e->n_in,
                  .n_out = e->n_out,
                  .parts = 1,
                  .simd = r->simd};
    void *scratch = NULL;
    if (e->op->scratch) {
        scratch = saw_alloc(r->ctx, e->op->scratch(&c));
        if (!scratch)
            return SAW_ERR_MEMORY;
        c.scratch = scratch;
    }
    kernel_of(p, pe, true)(&c);
    saw_free(r->ctx, scratch);
    for (int k = 0; k < e->n_out; k++) {
        saw_val v = e->out[k];
        if (!p->place[v].packed)
            continue;
        saw_packed *packed;
        saw_status status =
            saw_pack_dense(r->ctx, (const float *)(void *)r->weights[v], &pe->in_dims[pe->n_in + k],
                           p->precision, p->place[v].packer, &packed);
        if (status)
            return status;
        own(r, packed);
        r->packed[v] = packed;
    }
    return SAW_OK;
}

static void no_work(void *arg, int64_t item, int thread)
{
    (void)arg, (void)item, (void)thread;
}

saw_status saw_run_open(const saw_program *p, saw_weights *w, saw_run **out)
{
    *out = NULL;
    saw_run *r = saw_calloc(p->ctx, 1, sizeof *r);
    if (!r)
        return SAW_ERR_MEMORY;
    r->ctx = p->ctx;
    r->p = p;
    r->simd = saw_simd_best();
    r->threads = saw_threads(p->ctx);
    size_t n_values = (size_t)saw_graph_values(p->graph), threads = (size_t)r->threads;
    int operands = p->max_operands;
    for (int i = 0; i < p->n_bind; i++) {
        int n = p->bind[i].e->n_in + p->bind[i].e->n_out;
        operands = n > operands ? n : operands;
    }
    r->scratch = saw_calloc(p->ctx, threads, sizeof *r->scratch);
    r->operands = saw_calloc(p->ctx, threads, sizeof *r->operands);
    r->packs = saw_calloc(p->ctx, threads, sizeof *r->packs);
    r->weights = saw_calloc(p->ctx, n_values, sizeof *r->weights);
    r->packed = saw_calloc(p->ctx, n_values, sizeof *r->packed);
    r->own = saw_calloc(p->ctx, 2 * n_values, sizeof *r->own);
    bool memory = r->scratch && r->operands && r->packs && r->weights && r->packed && r->own;
    for (size_t i = 0; memory && i < threads; i++) {
        r->operands[i] = saw_calloc(p->ctx, (size_t)operands + 1, sizeof **r->operands);
        r->packs[i] = saw_calloc(p->ctx, (size_t)operands + 1, sizeof **r->packs);
        memory = r->operands[i] && r->packs[i];
    }
    saw_status status = memory ? SAW_OK : SAW_ERR_MEMORY;
    for (saw_val v = 1; v < (saw_val)n_values && !status; v++)
        if (p->place[v].where == PLACE_PARAM && p->place[v].needed)
            status = bind_param(r, w, v);
    for (int i = 0; i < p->n_bind && !status; i++)
        status = bind_entry(r, &p->bind[i]);
    if (!status) {
        r->memory_bytes = saw_program_run_bytes(p);
        r->memory = saw_map_alloc(p->ctx, r->memory_bytes);
        status = r->memory ? SAW_OK : SAW_ERR_MEMORY;
    }
    if (status) {
        saw_run_close(r);
        return status;
    }
    r->arena = r->memory;
    r->state = r->arena + p->arena_bytes;
    for (size_t i = 0; i < threads; i++)
        r->scratch[i] = r->state + p->state_bytes + i * p->scratch_bytes;
    saw_parallel(r->ctx, 2, no_work, NULL); /* the team starts now: its threads take memory */
    *out = r;
    return SAW_OK;
}

void saw_run_close(saw_run *r)
{
    if (!r)
        return;
    for (int i = 0; i < r->n_own; i++)
        saw_free(r->ctx, r->own[i]);
    for (int i = 0; i < r->threads; i++) {
        if (r->operands)
            saw_free(r->ctx, r->operands[i]);
        if (r->packs)
            saw_free(r->ctx, r->packs[i]);
    }
    saw_free(r->ctx, r->own);
    saw_free(r->ctx, r->scratch);
    saw_free(r->ctx, r->operands);
    saw_free(r->ctx, r->packs);
    saw_free(r->ctx, r->weights);
    saw_free(r->ctx, r->packed);
    saw_map_free(r->ctx, r->memory, r->memory_bytes);
    saw_free(r->ctx, r);
}

saw_tensor saw_run_value(saw_run *r, saw_val v)
{
    saw_memory m = {.arena = r->arena, .weights = r->weights};
    saw_tensor none = {0};
    saw_val root = v ? saw_root(r->p->graph, v) : 0;
    const place *at = &r->p->place[root];
    if (!root || !at->needed || (at->where < PLACE_PARAM && !r->p->live[root].pinned))
        return none;
    return saw_operand(r->p, NULL, v, 0, NULL, NULL, &m);
}

saw_tensor saw_run_named(saw_run *r, const char *name)
{
    return saw_run_value(r, saw_graph_find(r->p->graph, name));
}

/* ---- sizes ----------------------------------------------------------------------------------- */

size_t saw_program_run_bytes(const saw_program *p)
{
    return p->arena_bytes + p->state_bytes + (size_t)saw_threads(p->ctx) * p->scratch_bytes;
}

size_t saw_program_weight_bytes(const saw_program *p)
{
    size_t bytes = 0;
    for (saw_val v = 1; v < saw_graph_values(p->graph); v++) {
        const place *at = &p->place[v];
        if (at->where < PLACE_PARAM || !at->needed)
            continue;
        const saw_dims *d = &saw_graph_value(p->graph, v)->dims;
        if (at->packed)
            bytes += saw_pack_bytes(d, p->precision, at->packer);
        if (at->dense)
            bytes += (size_t)saw_dims_count(d) * p->real_bytes;
    }
    return bytes;
}
