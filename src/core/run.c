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
    char *params, *gradients; /* flat buffers of the trainables */
    bool accumulate;
    uint64_t seed;
    saw_val *repack; /* weights that every execution packs: trainables, then values of the step */
    int n_repack, n_repack_params;
    float **panel; /* per thread: scratch of packing */
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
    if (at->where >= PLACE_GRADIENT)
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
                  .simd = r->simd,
                  .seed = r->seed,
                  .entry = e->original};
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

/* Pack the weights repack[first + item] from the numbers that they have now. */
typedef struct pack_job {
    saw_run *r;
    int first;
} pack_job;

static void pack_one(void *arg, int64_t item, int thread)
{
    const pack_job *j = arg;
    const saw_program *p = j->r->p;
    saw_val v = j->r->repack[j->first + item];
    saw_pack_fill(j->r->simd, (saw_packed *)j->r->packed[v],
                  (const float *)(void *)j->r->weights[v], &saw_graph_value(p->graph, v)->dims,
                  p->place[v].packer, j->r->panel[thread]);
}

static void run_groups(saw_run *r, int first, int end)
{
    for (int i = first; i < end && !saw_cancelled(r->ctx); i++)
        saw_parallel(r->ctx, r->p->groups[i].tiles, run_tile, &(job){r, &r->p->groups[i]});
}

saw_status saw_run_execute(saw_run *r)
{
    const saw_program *p = r->p;
    if (p->trainables && !r->accumulate)
        memset(r->gradients, 0, (size_t)p->trainables * p->real_bytes);
    saw_parallel(r->ctx, r->n_repack_params, pack_one, &(pack_job){r, 0});
    run_groups(r, 0, p->n_step_groups);
    saw_parallel(r->ctx, r->n_repack - r->n_repack_params, pack_one,
                 &(pack_job){r, r->n_repack_params});
    run_groups(r, p->n_step_groups, p->n_groups);
    return saw_cancelled(r->ctx) ? saw_fail(r->ctx, SAW_ERR_CANCELLED, "stopped on request")
                                 : SAW_OK;
}

void saw_run_accumulate(saw_run *r, bool add)
{
    r->accumulate = add;
}

void saw_run_seed(saw_run *r, uint64_t seed)
{
    r->seed = seed;
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

/* A weight that is packed in every execution. */
static saw_status packs_anew(saw_run *r, saw_val v)
{
    const saw_program *p = r->p;
    if (!p->place[v].packed)
        return SAW_OK;
    r->packed[v] = own(r, saw_pack_new(r->ctx, &saw_graph_value(p->graph, v)->dims, p->precision,
                                       p->place[v].packer));
    r->repack[r->n_repack++] = v;
    return r->packed[v] ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status bind_trainable(saw_run *r, saw_weights *w, saw_val v)
{
    const saw_program *p = r->p;
    const saw_value *x = saw_graph_value(p->graph, v);
    char *at = r->params + p->place[v].offset;
    r->weights[v] = at;
    if (x->grad)
        r->weights[x->grad] = r->gradients + p->place[v].offset;
    saw_status status = saw_weights_read(w, x->name, &x->dims, (float *)(void *)at);
    for (int64_t i = saw_dims_count(&x->dims) - 1; p->real_bytes == 8 && !status && i >= 0; i--) {
        float narrow; /* in place, from the last to the first */
        memcpy(&narrow, at + 4 * i, 4);
        memcpy(at + 8 * i, &(double){narrow}, 8);
    }
    return status ? status : packs_anew(r, v);
}

static saw_status bind_param(saw_run *r, saw_weights *w, saw_val v)
{
    const saw_program *p = r->p;
    const saw_value *x = saw_graph_value(p->graph, v);
    saw_status status = SAW_OK;
    if (x->trainable)
        return bind_trainable(r, w, v);
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
        const saw_dims *dims = &pe->in_dims[pe->n_in + k];
        float *panel =
            saw_alloc(r->ctx, (size_t)saw_pack_panel(dims, p->place[v].packer) * sizeof *panel);
        saw_packed *packed =
            panel ? own(r, saw_pack_new(r->ctx, dims, p->precision, p->place[v].packer)) : NULL;
        if (packed)
            saw_pack_fill(r->simd, packed, (const float *)(void *)r->weights[v], dims,
                          p->place[v].packer, panel);
        saw_free(r->ctx, panel);
        if (!packed)
            return SAW_ERR_MEMORY;
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
    r->own = saw_calloc(p->ctx, 2 * n_values + threads, sizeof *r->own);
    r->repack = saw_calloc(p->ctx, n_values, sizeof *r->repack);
    r->panel = saw_calloc(p->ctx, threads, sizeof *r->panel);
    bool memory = r->scratch && r->operands && r->packs && r->weights && r->packed && r->own &&
                  r->repack && r->panel;
    for (size_t i = 0; memory && i < threads; i++) {
        r->operands[i] = saw_calloc(p->ctx, (size_t)operands + 1, sizeof **r->operands);
        r->packs[i] = saw_calloc(p->ctx, (size_t)operands + 1, sizeof **r->packs);
        memory = r->operands[i] && r->packs[i];
    }
    saw_status status = memory ? SAW_OK : SAW_ERR_MEMORY;
    if (!status) {
        r->memory_bytes = saw_program_run_bytes(p);
        r->memory = saw_map_alloc(p->ctx, r->memory_bytes);
        status = r->memory ? SAW_OK : SAW_ERR_MEMORY;
    }
    if (!status) {
        r->arena = r->memory;
        r->state = r->arena + p->arena_bytes;
        r->params = r->state + p->state_bytes;
        r->gradients = r->params + (size_t)p->trainables * p->real_bytes;
        for (size_t i = 0; i < threads; i++)
            r->scratch[i] =
                r->gradients + (size_t)p->trainables * p->real_bytes + i * p->scratch_bytes;
    }
    for (saw_val v = 1; v < (saw_val)n_values && !status; v++)
        if (p->place[v].where == PLACE_PARAM && p->place[v].needed)
            status = bind_param(r, w, v);
    r->n_repack_params = r->n_repack;
    for (saw_val v = 1; v < (saw_val)n_values && !status; v++)
        if (p->place[v].where == PLACE_STEP && p->place[v].needed) {
            r->weights[v] = r->arena + p->place[v].offset;
            status = packs_anew(r, v);
        }
    int64_t panel = 0;
    for (int i = 0; i < r->n_repack; i++) {
        int64_t n = saw_pack_panel(&saw_graph_value(p->graph, r->repack[i])->dims,
                                   p->place[r->repack[i]].packer);
        panel = n > panel ? n : panel;
    }
    for (size_t i = 0; i < threads && panel && !status; i++) {
        r->panel[i] = own(r, saw_alloc(p->ctx, (size_t)panel * sizeof **r->panel));
        status = r->panel[i] ? SAW_OK : SAW_ERR_MEMORY;
    }
    for (int i = 0; i < p->n_bind && !status; i++)
        status = bind_entry(r, &p->bind[i]);
    if (status) {
        saw_run_close(r);
        return status;
    }
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
    saw_free(r->ctx, r->repack);
    saw_free(r->ctx, r->panel);
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
    if (!root || !at->needed || (at->where < PLACE_GRADIENT && !r->p->live[root].pinned))
        return none;
    return saw_operand(r->p, NULL, v, 0, NULL, NULL, &m);
}

static saw_tensor flat(const saw_run *r, char *data)
{
    saw_tensor t = {.data = data,
                    .dtype = r->p->real_bytes == 8 ? SAW_F64 : SAW_F32,
                    .ndim = 1,
                    .dims = {r->p->trainables},
                    .strides = {1}};
    return t;
}

saw_tensor saw_run_params(saw_run *r)
{
    return flat(r, r->params);
}

saw_tensor saw_run_gradients(saw_run *r)
{
    return flat(r, r->gradients);
}

saw_tensor saw_run_named(saw_run *r, const char *name)
{
    return saw_run_value(r, saw_graph_find(r->p->graph, name));
}

/* ---- sizes ----------------------------------------------------------------------------------- */

size_t saw_program_run_bytes(const saw_program *p)
{
    return p->arena_bytes + p->state_bytes + 2 * (size_t)p->trainables * p->real_bytes +
           (size_t)saw_threads(p->ctx) * p->scratch_bytes;
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
        if (at->dense && at->where != PLACE_STEP &&
            !saw_graph_value(p->graph, v)->trainable) /* those are the run's */
            bytes += (size_t)saw_dims_count(d) * p->real_bytes;
    }
    return bytes;
}
