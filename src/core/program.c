/*
 * program.c - the passes that turn a tape into a program: drop, hoist, group, place, list.
 *
 * Grouping. Neighbouring entries that can all be cut along the same axes are run tile by tile, the
 * values between them in per-thread scratch. Which neighbours go together is found by dynamic
 * programming over the cut points: a group costs the bytes that cross its border, the bytes inside
 * weighted by whether a tile fits the L2 cache, and the weights that every tile reads again.
 * Kernels give the same bits for every cut, so this choice never changes a result.
 */
#include "core/program_private.h"
#include "kernels/simd/simd.h"

#include <float.h>
#include <string.h>

enum { MAX_GROUP = 40 };

/* Relative costs of moving a byte, of which only the ratios matter: through memory, the last-level
 * cache, L2. Packed weights are read in order and, unless they come from memory, mostly behind the
 * arithmetic. */
static const double COST_MEMORY = 1.0, COST_L3 = 0.22, COST_L2 = 0.06, COST_WEIGHT = 0.05,
                    COST_FAR_WEIGHT = 0.5, COST_REPACK = 1.0, COST_FLOP = 0.01, COST_CALL = 1000;
static const double L2_BYTES = 384e3, L3_BYTES = 12e6, NO_CACHE_BYTES = 48e6;

/* Cost of a byte inside a tile that takes so much scratch. */
static double inner_cost(double scratch)
{
    if (scratch <= L2_BYTES)
        return COST_L2;
    if (scratch <= L3_BYTES)
        return COST_L3;
    double out = (scratch - L3_BYTES) / (NO_CACHE_BYTES - L3_BYTES);
    return COST_L3 + (COST_MEMORY - COST_L3) * (out < 1 ? out : 1);
}

/* ---- axes ------------------------------------------------------------------------------------ */

static bool is_weight(const saw_program *p, saw_val v)
{
    return p->place[saw_root(p->graph, v)].where >= PLACE_PARAM;
}

/* The forward operand that operand k (inputs then outputs) of an entry stands for. */
static int forward_operand(const saw_entry *e, int n_in, int n_out, int k)
{
    if (!e->backward)
        return k;
    int inputs = n_in + 2 * n_out;
    if (k < n_in + n_out)
        return k;
    return k < inputs ? k - n_out : k - inputs;
}

static uint32_t operand_axes(const saw_program *p, int i, int k)
{
    const planned_entry *pe = &p->entries[i];
    const saw_entry *e = pe->e;
    saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
    if (!v)
        return SAW_ALL_AXES;
    int f = forward_operand(e, pe->n_in, pe->n_out, k);
    const saw_entry *fe = e->backward ? saw_graph_entry(p->graph, e->forward) : e;
    saw_val fv = f < pe->n_in ? fe->in[f] : fe->out[f - pe->n_in];
    const saw_value *x = saw_graph_value(p->graph, fv);
    /* A weight is whole to every tile, unless it is what the entry works on, as when weights are
     * made of weights. */
    if (x->dims.n == 0 ||
        (is_weight(p, fv) && ((f > 0 && !e->op->axes) || x->dims.n != pe->in_dims[pe->n_in].n)))
        return 0;
    uint32_t all = SAW_LEADING(x->dims.n - 1);
    bool fast = e->backward && p->device == SAW_DEVICE_CPU && !pe->reference;
    if (fast && e->op->backward_axes)
        return e->op->backward_axes(e->attr, pe->n_in, pe->in_dims, f);
    return e->op->axes ? e->op->axes(e->attr, pe->n_in, pe->in_dims, f) : all;
}

static uint32_t entry_axes(const saw_program *p, int i)
{
    const planned_entry *pe = &p->entries[i];
    const saw_entry *e = pe->e;
    uint32_t axes = SAW_ALL_AXES;
    for (int k = 0; k < e->n_out; k++)
        if (e->out[k])
            axes &= operand_axes(p, i, e->n_in + k);
    if (!e->backward && e->op->disjoint)
        axes |= e->op->disjoint(e->attr, pe->n_in, pe->in_dims);
    return e->backward && e->op->joint_backward ? 0 : axes;
}

/* Size of an axis as this entry sees it; 0 when no operand names it. */
static int64_t axis_size(const saw_program *p, int i, int axis)
{
    const saw_entry *e = p->entries[i].e;
    int64_t size = 0;
    for (int k = 0; k < e->n_in + e->n_out; k++) {
        saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
        if (v && operand_axes(p, i, k) & SAW_AXIS(axis)) {
            int64_t d = saw_graph_value(p->graph, v)->dims.d[axis];
            size = d > size ? d : size;
        }
    }
    return size;
}

/* ---- one candidate group --------------------------------------------------------------------- */

static int produced_in(const saw_program *p, saw_val root, int first, int last)
{
    for (int i = first; i < last; i++)
        for (int k = 0; k < p->entries[i].e->n_out; k++)
            if (p->entries[i].e->out[k] && saw_root(p->graph, p->entries[i].e->out[k]) == root)
                return i;
    return -1;
}

/* Axes along which entries [first, last] can be cut together. */
static uint32_t joint_axes(const saw_program *p, int first, int last, uint32_t before)
{
    const saw_entry *e = p->entries[last].e;
    uint32_t axes = before & p->entries[last].axes;
    for (int k = 0; k < e->n_in + e->n_out && axes; k++) {
        saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
        if (!v)
            continue;
        const saw_value *x = saw_graph_value(p->graph, v);
        int from = produced_in(p, x->base, first, last);
        if (from < 0)
            continue;
        axes &= operand_axes(p, last, k);
        if (x->kind == SAW_VALUE_VIEW)
            axes &= SAW_LEADING(x->lead);
        const saw_entry *f =
            p->entries[from].e; /* the slice that the producer made must be the one that is read */
        for (int j = 0; j < f->n_out; j++)
            if (f->out[j] && saw_root(p->graph, f->out[j]) == x->base) {
                axes &= operand_axes(p, from, f->n_in + j);
                const saw_value *y = saw_graph_value(p->graph, f->out[j]);
                if (y->kind == SAW_VALUE_VIEW)
                    axes &= SAW_LEADING(y->lead);
            }
    }
    for (int a = 0; a < SAW_MAX_DIMS; a++)
        if (axes & SAW_AXIS(a)) {
            int64_t n = axis_size(p, first, a), m = axis_size(p, last, a);
            if (n != m || n == 0)
                axes &= ~SAW_AXIS(a);
        }
    return axes;
}

static size_t value_bytes(const saw_program *p, saw_val root)
{
    return (size_t)saw_dims_count(&saw_graph_value(p->graph, root)->dims) * p->real_bytes;
}

static size_t align64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Bytes of a root value within one tile of the group. */
static size_t tile_value_bytes(const saw_program *p, const group *g, saw_val root)
{
    const saw_dims *d = &saw_graph_value(p->graph, root)->dims;
    size_t n = p->real_bytes;
    for (int a = 0; a < d->n; a++)
        n *= (size_t)(g->axes & SAW_AXIS(a) && g->extent[a] < d->d[a] ? g->extent[a] : d->d[a]);
    return align64(n);
}

static bool stays_inside(const saw_program *p, saw_val root, int first, int last)
{
    const live *l = &p->live[root];
    return !l->pinned && l->first >= first && l->last <= last;
}

typedef struct slot {
    size_t offset, bytes;
    int first, last;
    saw_val root;
} slot;

/* First fit: the lowest offset where no slot that lives at the same time lies. */
static size_t fit(const slot *slots, int n, size_t bytes, int first, int last)
{
    size_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < n; i++)
            if (slots[i].first <= last && slots[i].last >= first && slots[i].offset < at + bytes &&
                slots[i].offset + slots[i].bytes > at) {
                at = slots[i].offset + slots[i].bytes;
                moved = true;
            }
    }
    return at;
}

/* Lay the inner values of a group out in scratch. Fills slots (at most MAX_GROUP * 4), returns
 * their number. */
static int layout_scratch(const saw_program *p, const group *g, slot *slots, size_t *bytes)
{
    int n = 0;
    int last = g->first + g->count - 1;
    *bytes = 0;
    for (int i = g->first; i <= last; i++) {
        const saw_entry *e = p->entries[i].e;
        for (int k = 0; k < e->n_out; k++) {
            saw_val root = e->out[k] ? saw_root(p->graph, e->out[k]) : 0;
            if (!root || p->live[root].first != i || !stays_inside(p, root, g->first, last) ||
                n == MAX_GROUP * 4)
                continue;
            size_t size = tile_value_bytes(p, g, root);
            slot s = {.bytes = size, .first = i, .last = p->live[root].last, .root = root};
            s.offset = fit(slots, n, size, s.first, s.last);
            if (s.offset + size > *bytes)
                *bytes = s.offset + size;
            slots[n++] = s;
        }
    }
    return n;
}

static int64_t tiles_along(const group *g, int a)
{
    return (g->size[a] + g->extent[a] - 1) / g->extent[a];
}

static int64_t tile_count(const group *g)
{
    int64_t n = 1;
    for (int a = 0; a < SAW_MAX_DIMS; a++)
        if (g->axes & SAW_AXIS(a))
            n *= tiles_along(g, a);
    return n;
}

/* What the group costs with these extents, all but the border traffic. */
static double tile_cost(const saw_program *p, const group *g, double weight_bytes,
                        double dealt_bytes, double repacked, int dealt_axis, double inner_bytes,
                        double flops)
{
    slot slots[MAX_GROUP * 4];
    size_t scratch;
    layout_scratch(p, g, slots, &scratch);
    if (p->tile_bytes && scratch > p->tile_bytes)
        return DBL_MAX;
    int64_t tiles = tile_count(g);
    double dealt_tiles = dealt_axis > 0 && g->axes & SAW_AXIS(dealt_axis)
                             ? (double)tiles / (double)tiles_along(g, dealt_axis)
                             : (double)tiles;
    double cost = inner_bytes * inner_cost((double)scratch);
    double each =
        weight_bytes + dealt_bytes * dealt_tiles / (double)tiles; /* that one tile reads */
    cost += each * (double)tiles * (each <= L3_BYTES ? COST_WEIGHT : COST_FAR_WEIGHT);
    cost += repacked * each * (double)tiles * COST_REPACK;
    cost += COST_CALL * (double)tiles * g->count;
    double work = cost + flops * COST_FLOP;
    int64_t rounds = (tiles + p->threads - 1) / p->threads;
    return cost + work * ((double)(rounds * p->threads) / (double)tiles - 1);
}

/* Choose the extents of a group: the cheapest on two ways from one element to everything, growing
 * the axes from the innermost outwards and from the outermost inwards. */
static double choose_extents(const saw_program *p, group *g)
{
    double weights = 0, dealt = 0, repacked = 0, inner = 0, flops = 0;
    int dealt_axis = 0;
    int last = g->first + g->count - 1;
    for (int i = g->first; i <= last; i++) {
        const planned_entry *pe = &p->entries[i];
        flops += pe->flops;
        if (pe->e->backward && pe->e->op->pack)
            repacked += pe->weight_bytes;
        if (pe->e->op->dealt_axis > 0) {
            dealt += pe->weight_bytes;
            dealt_axis = pe->e->op->dealt_axis;
        } else {
            weights += pe->weight_bytes;
        }
        for (int k = 0; k < pe->e->n_out; k++) {
            saw_val root = pe->e->out[k] ? saw_root(p->graph, pe->e->out[k]) : 0;
            if (root && stays_inside(p, root, g->first, last))
                inner += 2.0 * (double)value_bytes(p, root);
        }
    }
    repacked /= weights + dealt > 0 ? weights + dealt : 1;
    for (int a = 0; a < SAW_MAX_DIMS; a++)
        g->size[a] = g->axes & SAW_AXIS(a) ? axis_size(p, g->first, a) : 1;
    double best = -1;
    int64_t best_extent[SAW_MAX_DIMS];
    for (int order = 0; order < 2; order++) {
        for (int a = 0; a < SAW_MAX_DIMS; a++)
            g->extent[a] = 1;
        for (int i = -1; i < SAW_MAX_DIMS; i++) {
            int a = order ? i : SAW_MAX_DIMS - 1 - i;
            if (i >= 0 && !(g->axes & SAW_AXIS(a)))
                continue;
            for (int64_t e = 2; i < 0 || g->extent[a] < g->size[a]; e *= 2) {
                if (i >= 0)
                    g->extent[a] = e < g->size[a] ? e : g->size[a];
                double c = tile_cost(p, g, weights, dealt, repacked, dealt_axis, inner, flops);
                if (best < 0 || c < best) {
                    best = c;
                    memcpy(best_extent, g->extent, sizeof best_extent);
                }
                if (i < 0)
                    break;
            }
        }
    }
    memcpy(g->extent, best_extent, sizeof best_extent);
    for (int a = 0; a < SAW_MAX_DIMS; a++) { /* even tiles: no short one at the end */
        int64_t n = tiles_along(g, a);
        g->extent[a] = (g->size[a] + n - 1) / n;
    }
    return best;
}

static double border_bytes(const saw_program *p, int first, int last)
{
    double bytes = 0;
    for (int i = first; i <= last; i++) {
        const saw_entry *e = p->entries[i].e;
        for (int k = 0; k < e->n_in + e->n_out; k++) {
            saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
            if (!v || is_weight(p, v))
                continue;
            saw_val root = saw_root(p->graph, v);
            if (!stays_inside(p, root, first, last))
                bytes += (double)value_bytes(p, root);
        }
    }
    return bytes;
}

/* ---- the passes ------------------------------------------------------------------------------ */

/* Hoist: what depends on weights alone is done before all else; once, when weights are bound, if
 * they are all frozen. */
static void rate_entry(saw_program *p, int i)
{
    const saw_graph *g = p->graph;
    const saw_entry *e = saw_graph_entry(g, i);
    bool weights = !e->backward && e->n_in > 0 && !e->op->state, frozen = true;
    for (int k = 0; k < e->n_in && weights; k++) {
        saw_val root = e->in[k] ? saw_root(g, e->in[k]) : 0;
        int where = root ? p->place[root].where : PLACE_BIND;
        weights = where >= PLACE_PARAM;
        frozen = frozen && where != PLACE_STEP && !(root && saw_graph_value(g, root)->trainable);
    }
    for (int k = 0; k < e->n_out && weights; k++)
        p->place[e->out[k]].where = frozen ? PLACE_BIND : PLACE_STEP;
}

static bool is_step(const saw_program *p, int i)
{
    const saw_entry *e = saw_graph_entry(p->graph, i);
    return !e->backward && e->n_out && p->place[e->out[0]].where == PLACE_STEP;
}

static bool is_bind(const saw_program *p, int i)
{
    const saw_entry *e = saw_graph_entry(p->graph, i);
    return !e->backward && e->n_out && p->place[e->out[0]].where == PLACE_BIND;
}

static saw_status plan_entry(saw_program *p, int i, planned_entry *pe)
{
    const saw_graph *g = p->graph;
    const saw_entry *e = saw_graph_entry(g, i),
                    *f = e->backward ? saw_graph_entry(g, e->forward) : e;
    *pe = (planned_entry){
        .e = e, .n_in = f->n_in, .n_out = f->n_out, .kernels = saw_kernels_of(e->op)};
    pe->in_dims = saw_calloc(p->ctx, (size_t)(f->n_in + f->n_out), sizeof *pe->in_dims);
    for (int k = 0; k < f->n_in + f->n_out && pe->in_dims; k++)
        pe->in_dims[k] = saw_dims_val(g, k < f->n_in ? f->in[k] : f->out[k - f->n_in]);
    return pe->in_dims ? SAW_OK : SAW_ERR_MEMORY;
}

static saw_status collect_entries(saw_program *p, const saw_program_options *o)
{
    saw_graph *g = p->graph;
    int n = saw_graph_entries(g), n_values = saw_graph_values(g);
    bool *needed = saw_calloc(p->ctx, (size_t)n_values, sizeof *needed);
    bool *used = saw_calloc(p->ctx, (size_t)n + 1, sizeof *used);
    if (!needed || !used) {
        saw_free(p->ctx, needed);
        saw_free(p->ctx, used);
        return SAW_ERR_MEMORY;
    }
    bool any = false;
    for (saw_val v = 1; v < n_values; v++) {
        const saw_value *x = saw_graph_value(g, v);
        bool wanted = x->output && !o->outputs;
        for (int i = 0; i < o->n_outputs && o->outputs; i++)
            wanted = wanted || (x->output && x->name && !strcmp(x->name, o->outputs[i]));
        if (wanted || (o->all_taps && x->tap)) {
            needed[x->base] = true;
            p->live[x->base].pinned = true;
            any = true;
        }
        if (x->kind == SAW_VALUE_PARAM && x->trainable && x->grad)
            needed[x->grad] = any = true;
    }
    for (int i = n - 1; i >= 0; i--) {
        const saw_entry *e = saw_graph_entry(g, i);
        for (int k = 0; k < e->n_out; k++)
            used[i] = used[i] || (e->out[k] && needed[saw_root(g, e->out[k])]);
        for (int k = 0; used[i] && k < e->n_in; k++)
            if (e->in[k])
                needed[saw_root(g, e->in[k])] = true;
        for (int k = 0; used[i] && k < e->n_out;
             k++) /* a kernel writes all its outputs: each needs a place */
            if (e->out[k])
                needed[saw_root(g, e->out[k])] = true;
    }
    for (saw_val v = 1; v < n_values; v++) {
        const saw_value *x = saw_graph_value(g, v);
        if (x->kind == SAW_VALUE_PARAM)
            p->place[v].where = PLACE_PARAM;
        else if ((x->kind == SAW_VALUE_INPUT || x->kind == SAW_VALUE_ENTRY) &&
                 p->place[v].where == PLACE_NONE)
            p->place[v].where = PLACE_ARENA;
        if (x->kind == SAW_VALUE_PARAM && x->trainable && x->grad)
            p->place[x->grad].where = PLACE_GRADIENT;
        p->place[v].needed = needed[v];
    }
    saw_status status =
        any ? SAW_OK : saw_fail(p->ctx, SAW_ERR_ARGUMENT, "none of the wanted outputs is there");
    for (int i = 0; i < n; i++)
        if (used[i])
            rate_entry(p, i);
    for (int i = 0; i < n && !status; i++)
        if (used[i] && is_step(p, i))
            status = plan_entry(p, i, &p->entries[p->n_entries++]);
    p->n_step = p->n_entries;
    for (int i = 0; i < n && !status; i++)
        if (used[i] && !is_step(p, i))
            status = plan_entry(
                p, i, is_bind(p, i) ? &p->bind[p->n_bind++] : &p->entries[p->n_entries++]);
    saw_free(p->ctx, needed);
    saw_free(p->ctx, used);
    return status;
}

/* The places of trainables in the flat buffers, each on a line of its own. */
static saw_status find_ranges(saw_program *p)
{
    enum { ALIGN = 16 };
    int n = 0;
    for (int pass = 0; pass < 2; pass++) {
        n = 0;
        for (saw_val v = 1; v < saw_graph_values(p->graph); v++) {
            const saw_value *x = saw_graph_value(p->graph, v);
            if (x->kind != SAW_VALUE_PARAM || !x->trainable || !p->place[v].needed)
                continue;
            if (pass) {
                int64_t count = saw_dims_count(&x->dims);
                p->ranges[n] = (saw_range){x->name, x->dims, p->trainables, count};
                p->place[v].offset = (size_t)p->trainables * p->real_bytes;
                if (x->grad)
                    p->place[x->grad].offset = p->place[v].offset;
                p->trainables += (count + ALIGN - 1) / ALIGN * ALIGN;
                p->place[v].dense = true;
            }
            n++;
        }
        if (!pass)
            p->ranges = saw_calloc(p->ctx, (size_t)n + 1, sizeof *p->ranges);
        if (!p->ranges)
            return SAW_ERR_MEMORY;
    }
    p->n_ranges = n;
    return SAW_OK;
}

static void find_lives(saw_program *p)
{
    const saw_graph *g = p->graph;
    for (saw_val v = 1; v < saw_graph_values(g); v++) {
        p->live[v].first = INT32_MAX;
        p->live[v].last = -1;
        if (saw_graph_value(g, v)->kind == SAW_VALUE_INPUT) {
            p->live[v].first = -1;
            p->live[v].pinned = true;
        }
    }
    for (int i = 0; i < p->n_entries; i++) {
        const saw_entry *e = p->entries[i].e;
        for (int k = 0; k < e->n_in + e->n_out; k++) {
            saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
            if (!v)
                continue;
            live *l = &p->live[saw_root(g, v)];
            l->first = i < l->first ? i : l->first;
            l->last = i > l->last ? i : l->last;
            l->pinned = l->pinned || p->place[saw_root(g, v)].where >= PLACE_GRADIENT;
        }
    }
}

/* Does the CPU kernel of the entry want operand k packed? */
static bool wants_packed(const saw_program *p, const planned_entry *pe, int k)
{
    const saw_op *op = pe->e->op;
    bool fast = pe->e->backward ? op->cpu_backward && op->backward_packed : op->cpu_forward != NULL;
    return p->device == SAW_DEVICE_CPU && fast && op->pack && k < pe->n_in && pe->e->in[k] &&
           op->pack(pe->e->attr, k) == SAW_PACK_GEMM;
}

/* Weights are packed whole; those of the step after its entries. */
static bool can_pack(const saw_program *p, int i, saw_val v)
{
    return is_weight(p, v) && saw_graph_value(p->graph, v)->kind != SAW_VALUE_VIEW &&
           i >= p->n_step;
}

static double entry_flops(const saw_program *p, const planned_entry *pe)
{
    const saw_op *op = pe->e->op;
    double flops = op->flops ? op->flops(pe->e->attr, pe->n_in, pe->in_dims, pe->in_dims + pe->n_in)
                             : (double)saw_dims_count(&pe->in_dims[pe->n_in]);
    if (!pe->e->backward)
        return flops;
    /* as much again for the gradients of data and for those of weights */
    const saw_entry *f = saw_graph_entry(p->graph, pe->e->forward);
    bool data = false, weights = false, any_weights = false;
    for (int k = 0; k < f->n_in; k++) {
        bool weight = f->in[k] && is_weight(p, f->in[k]);
        any_weights = any_weights || weight;
        data = data || (pe->e->out[k] && !weight);
        weights = weights || (pe->e->out[k] && weight);
    }
    return flops * (any_weights ? data + weights : 2);
}

/* How each weight is wanted, and the work and weight bytes of each entry. */
static void survey(saw_program *p)
{
    const saw_graph *g = p->graph;
    for (int i = 0; i < p->n_entries; i++) {
        planned_entry *pe = &p->entries[i];
        const saw_op *op = pe->e->op;
        pe->flops = entry_flops(p, pe);
        p->flops += pe->flops;
        pe->reference = pe->e->backward && op->pack && is_step(p, pe->e->forward);
        for (int k = 0; k < pe->e->n_in; k++)
            if (wants_packed(p, pe, k) && !can_pack(p, i, pe->e->in[k]))
                pe->reference = true;
        for (int k = 0; k < pe->e->n_in; k++) {
            saw_val v = pe->e->in[k];
            if (!v || !is_weight(p, v))
                continue;
            place *at = &p->place[saw_root(g, v)];
            bool packs = wants_packed(p, pe, k) && !pe->reference;
            at->packed = at->packed || packs;
            if (packs && op->matrix)
                at->packer = pe->e;
            at->dense = at->dense || !packs;
            pe->weight_bytes +=
                (double)saw_dims_count(&saw_graph_value(g, v)->dims) *
                (packs && p->precision ? (p->precision == SAW_PRECISION_BF16 ? 2 : 1) : 4);
        }
        pe->axes = entry_axes(p, i);
        for (int a = 0; a < SAW_MAX_DIMS; a++) {
            int64_t size = pe->axes & SAW_AXIS(a) ? axis_size(p, i, a) : 0;
            for (int k = 0; k < pe->e->n_out && pe->e->backward; k++)
                if (pe->e->out[k] && saw_dim(g, pe->e->out[k], a) == 1 && size > 1)
                    size = 0; /* a sum over the axis */
            if (size == 0)
                pe->axes &= ~SAW_AXIS(a);
        }
    }
    for (int i = 0; i < p->n_bind; i++)
        for (int k = 0; k < p->bind[i].e->n_in; k++)
            if (p->bind[i].e->in[k])
                p->place[saw_root(g, p->bind[i].e->in[k])].dense = true;
}

/* The entry is a call of parts, or one alone that is not cut. */
static int64_t entry_parts(const saw_program *p, int i)
{
    const planned_entry *pe = &p->entries[i];
    const saw_op *op = pe->e->op;
    int64_t (*parts)(const void *, int, const saw_dims *, const saw_dims *) =
        !pe->e->backward            ? op->parts
        : pe->axes || pe->reference ? NULL /* reference kernels know no parts */
                                    : op->backward_parts;
    return parts ? parts(pe->e->attr, pe->n_in, pe->in_dims, pe->in_dims + pe->n_in) : 0;
}

static saw_status make_groups(saw_program *p, bool ungrouped)
{
    int n = p->n_entries;
    double *cost = saw_calloc(p->ctx, (size_t)n + 1, sizeof *cost);
    group *from = saw_calloc(p->ctx, (size_t)n + 1, sizeof *from);
    p->groups = saw_calloc(p->ctx, (size_t)n + 1, sizeof *p->groups);
    if (!cost || !from || !p->groups) {
        saw_free(p->ctx, cost);
        saw_free(p->ctx, from);
        return SAW_ERR_MEMORY;
    }
    for (int end = 1; end <= n; end++)
        cost[end] = -1;
    for (int first = 0; first < n; first++) {
        uint32_t axes = SAW_ALL_AXES;
        int64_t alone = entry_parts(p, first);
        int limit = first + (ungrouped ? 1 : MAX_GROUP), end = first < p->n_step ? p->n_step : n;
        limit = limit < end ? limit : end;
        for (int last = first; last < limit; last++) {
            axes = last == first ? p->entries[last].axes : joint_axes(p, first, last, axes);
            if (last > first && !axes)
                break;
            group g = {.first = first,
                       .count = last - first + 1,
                       .axes = ungrouped ? 0 : axes,
                       .parts = 1};
            if (g.count == 1 && alone)
                g.parts = alone;
            else if (g.count > 1 && entry_parts(p, last))
                break;
            if (g.parts > 1)
                g.axes = 0;
            if (ungrouped)
                g.parts = 1;
            double c = choose_extents(p, &g);
            if (c == DBL_MAX) /* more entries need no less scratch */
                break;
            c += border_bytes(p, first, last) * COST_MEMORY + cost[first];
            if (cost[last + 1] < 0 || c < cost[last + 1]) {
                cost[last + 1] = c;
                from[last + 1] = g;
            }
            if (alone)
                break;
        }
    }
    int count = 0;
    for (int end = n; end > 0; end = from[end].first)
        count++;
    p->n_groups = count;
    for (int end = n; end > 0; end = from[end].first)
        p->groups[--count] = from[end];
    while (p->n_step_groups < p->n_groups && p->groups[p->n_step_groups].first < p->n_step)
        p->n_step_groups++;
    saw_free(p->ctx, cost);
    saw_free(p->ctx, from);
    return SAW_OK;
}

/* Bytes a kernel wants as scratch for the largest tile of its group. */
static size_t kernel_scratch(saw_program *p, const group *g, int i)
{
    const planned_entry *pe = &p->entries[i];
    const saw_entry *e = pe->e;
    bool fast = e->backward && p->device == SAW_DEVICE_CPU && e->op->cpu_backward && !pe->reference;
    size_t (*scratch)(const saw_call *) = fast ? e->op->backward_scratch : e->op->scratch;
    if (!scratch)
        return 0;
    int64_t lo[SAW_MAX_DIMS] = {0}, hi[SAW_MAX_DIMS];
    for (int a = 0; a < SAW_MAX_DIMS; a++)
        hi[a] = g->axes & SAW_AXIS(a) ? g->extent[a] : 0;
    saw_tensor *t = saw_calloc(p->ctx, (size_t)(e->n_in + e->n_out), sizeof *t);
    if (!t)
        return SIZE_MAX;
    for (int k = 0; k < e->n_in + e->n_out; k++) {
        saw_val v = k < e->n_in ? e->in[k] : e->out[k - e->n_in];
        if (v)
            t[k] = saw_operand(p, g, v, pe->operand_axes[k], lo, hi, NULL);
    }
    saw_call c = {.attr = e->attr,
                  .in = t,
                  .n_in = e->n_in,
                  .out = t + e->n_in,
                  .n_out = e->n_out,
                  .parts = g->parts,
                  .precision = p->precision,
                  .simd = saw_simd_best()};
    size_t bytes = scratch(&c);
    saw_free(p->ctx, t);
    return bytes;
}

static int group_of(const saw_program *p, int entry)
{
    int lo = 0, hi = p->n_groups - 1;
    while (lo < hi) {
        int mid = (lo + hi + 1) / 2;
        if (p->groups[mid].first <= entry)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}

static int larger_first(const void *a, const void *b)
{
    const slot *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->root < y->root ? -1 : x->root > y->root;
}

/* Whether every access of a root value by entries of the group is cut along all of the group's
 * axes. */
static bool cut_like_group(const saw_program *p, const group *g, saw_val root)
{
    for (int i = g->first; i < g->first + g->count; i++) {
        const planned_entry *pe = &p->entries[i];
        for (int k = 0; k < pe->e->n_in + pe->e->n_out; k++) {
            saw_val v = k < pe->e->n_in ? pe->e->in[k] : pe->e->out[k - pe->e->n_in];
            if (!v || saw_root(p->graph, v) != root)
                continue;
            const saw_value *x = saw_graph_value(p->graph, v);
            uint32_t axes = pe->operand_axes[k];
            if (x->kind == SAW_VALUE_VIEW)
                axes &= SAW_LEADING(x->lead);
            if (g->axes & ~axes)
                return false;
        }
    }
    return true;
}

/* A value that is first written in a group may take over the memory of one that is read there for
 * the last time, if every tile has read its part before it writes it. */
static bool can_take_over(const saw_program *p, const group *g, saw_val from, saw_val to)
{
    const live *a = &p->live[from], *b = &p->live[to];
    if (a->pinned || a->first >= g->first || a->last < g->first || a->last > b->first)
        return false;
    const saw_entry *e = p->entries[b->first].e;
    return (a->last < b->first || (e->backward ? e->op->backward_in_place : e->op->in_place)) &&
           saw_dims_equal(&saw_graph_value(p->graph, from)->dims,
                          &saw_graph_value(p->graph, to)->dims) &&
           cut_like_group(p, g, from) && cut_like_group(p, g, to);
}

/* heads[v]: the first value of the chain whose memory v takes over, v itself when it takes none. */
static void find_heads(const saw_program *p, saw_val *heads)
{
    int n = saw_graph_values(p->graph);
    for (saw_val v = 0; v < n; v++)
        heads[v] = v;
    for (int j = 0; j < p->n_groups; j++) {
        const group *g = &p->groups[j];
        for (int i = g->first; i < g->first + g->count && g->parts <= 1; i++) {
            const saw_entry *e = p->entries[i].e;
            for (int k = 0; k < e->n_out; k++) {
                saw_val to = e->out[k] ? saw_root(p->graph, e->out[k]) : 0;
                if (!to || p->place[to].where != PLACE_ARENA || p->live[to].first != i ||
                    heads[to] != to)
                    continue;
                bool found = false;
                for (int m = g->first; m <= i && !found; m++) {
                    const saw_entry *r = p->entries[m].e;
                    for (int q = 0; q < r->n_in && !found; q++) {
                        saw_val from = r->in[q] ? saw_root(p->graph, r->in[q]) : 0;
                        if (!from || p->place[from].where != PLACE_ARENA || from == to ||
                            p->place[from].taken || !can_take_over(p, g, from, to))
                            continue;
                        heads[to] = heads[from];
                        p->place[from].taken = found = true;
                    }
                }
            }
        }
    }
}

static saw_status place_memory(saw_program *p)
{
    const saw_graph *g = p->graph;
    for (int i = 0; i < p->n_entries; i++) {
        planned_entry *pe = &p->entries[i];
        int n = pe->e->n_in + pe->e->n_out;
        pe->operand_axes = saw_calloc(p->ctx, (size_t)n, sizeof *pe->operand_axes);
        if (!pe->operand_axes)
            return SAW_ERR_MEMORY;
        for (int k = 0; k < n; k++)
            pe->operand_axes[k] = operand_axes(p, i, k);
        p->max_operands = n > p->max_operands ? n : p->max_operands;
        if (pe->e->op->state && !pe->e->backward) {
            pe->state_offset = p->state_bytes;
            pe->state_bytes = pe->e->op->state(pe->e->attr, pe->n_in, pe->in_dims);
            p->state_bytes += align64(pe->state_bytes);
        }
    }
    /* inside the groups */
    for (int j = 0; j < p->n_groups; j++) {
        group *gr = &p->groups[j];
        slot slots[MAX_GROUP * 4];
        size_t values, kernels = 0;
        int n = layout_scratch(p, gr, slots, &values);
        for (int i = 0; i < n; i++) {
            p->place[slots[i].root].where = PLACE_SCRATCH;
            p->place[slots[i].root].offset = slots[i].offset;
        }
        gr->values_bytes = values;
        for (int i = gr->first; i < gr->first + gr->count; i++) {
            size_t b = kernel_scratch(p, gr, i);
            if (b == SIZE_MAX)
                return SAW_ERR_MEMORY;
            kernels = b > kernels ? b : kernels;
        }
        gr->tiles = gr->parts > 1 ? gr->parts : tile_count(gr);
        size_t whole = values + align64(kernels);
        p->scratch_bytes = whole > p->scratch_bytes ? whole : p->scratch_bytes;
    }
    /* between the groups: large values first, each at the lowest free offset */
    int n_values = saw_graph_values(g), n = 0;
    slot *slots = saw_calloc(p->ctx, (size_t)n_values, sizeof *slots);
    saw_val *heads = saw_calloc(p->ctx, (size_t)n_values, sizeof *heads);
    int *slot_of = saw_calloc(p->ctx, (size_t)n_values, sizeof *slot_of);
    if (!slots || !heads || !slot_of) {
        saw_free(p->ctx, slots);
        saw_free(p->ctx, heads);
        saw_free(p->ctx, slot_of);
        return SAW_ERR_MEMORY;
    }
    find_heads(p, heads);
    for (int pass = 0; pass < 2; pass++) /* heads first, then those that take their memory over */
        for (saw_val v = 1; v < n_values; v++) {
            const live *l = &p->live[v];
            if ((p->place[v].where != PLACE_ARENA && p->place[v].where != PLACE_STEP) ||
                !p->place[v].needed || (heads[v] == v) != (pass == 0))
                continue;
            slot s = {
                .bytes = align64(value_bytes(p, v)), .root = v, .first = -1, .last = p->n_groups};
            if (l->first >= 0 && l->first != INT32_MAX)
                s.first = group_of(p, l->first);
            if (!l->pinned)
                s.last = group_of(p, l->last);
            if (pass == 0) {
                slot_of[v] = n;
                slots[n++] = s;
            } else {
                slot *head = &slots[slot_of[heads[v]]];
                head->first = s.first < head->first ? s.first : head->first;
                head->last = s.last > head->last ? s.last : head->last;
            }
        }
    qsort(slots, (size_t)n, sizeof *slots, larger_first);
    for (int i = 0; i < n; i++) {
        slots[i].offset = fit(slots, i, slots[i].bytes, slots[i].first, slots[i].last);
        p->place[slots[i].root].offset = slots[i].offset;
        size_t end = slots[i].offset + slots[i].bytes;
        p->arena_bytes = end > p->arena_bytes ? end : p->arena_bytes;
    }
    for (saw_val v = 1; v < n_values; v++)
        if (heads[v] != v)
            p->place[v].offset = p->place[heads[v]].offset;
    saw_free(p->ctx, slot_of);
    saw_free(p->ctx, heads);
    saw_free(p->ctx, slots);
    return SAW_OK;
}

saw_status saw_program_build(saw_graph *graph, const saw_program_options *options,
                             saw_program **out)
{
    static const saw_program_options none = {0};
    const saw_program_options *o = options ? options : &none;
    saw_context *ctx = saw_graph_context(graph);
    *out = NULL;
    saw_status status = saw_graph_status(graph);
    saw_program *p = status ? NULL : saw_calloc(ctx, 1, sizeof *p);
    if (!p) {
        saw_graph_close(graph);
        return status ? status : SAW_ERR_MEMORY;
    }
    p->ctx = ctx;
    p->graph = graph;
    p->device = o->device;
    p->precision = o->device == SAW_DEVICE_CPU ? o->precision : SAW_PRECISION_F32;
    p->real_bytes = o->device == SAW_DEVICE_REF64 ? 8 : 4;
    p->threads = o->threads ? o->threads : saw_threads(ctx);
    p->tile_bytes = o->tile_bytes;
    size_t n = (size_t)saw_graph_entries(graph) + 1;
    p->entries = saw_calloc(ctx, n, sizeof *p->entries);
    p->bind = saw_calloc(ctx, n, sizeof *p->bind);
    p->place = saw_calloc(ctx, (size_t)saw_graph_values(graph), sizeof *p->place);
    p->live = saw_calloc(ctx, (size_t)saw_graph_values(graph), sizeof *p->live);
    if (!p->entries || !p->bind || !p->place || !p->live)
        status = SAW_ERR_MEMORY;
    if (!status)
        status = collect_entries(p, o);
    if (!status)
        status = find_ranges(p);
    if (!status) {
        find_lives(p);
        survey(p);
        status = make_groups(p, o->ungrouped || o->device != SAW_DEVICE_CPU);
    }
    if (!status)
        status = place_memory(p);
    if (status) {
        saw_program_close(p);
        return status;
    }
    *out = p;
    return SAW_OK;
}

void saw_program_close(saw_program *p)
{
    if (!p)
        return;
    for (int i = 0; p->entries && i < p->n_entries; i++) {
        saw_free(p->ctx, p->entries[i].in_dims);
        saw_free(p->ctx, p->entries[i].operand_axes);
    }
    for (int i = 0; p->bind && i < p->n_bind; i++)
        saw_free(p->ctx, p->bind[i].in_dims);
    saw_free(p->ctx, p->entries);
    saw_free(p->ctx, p->bind);
    saw_free(p->ctx, p->place);
    saw_free(p->ctx, p->live);
    saw_free(p->ctx, p->groups);
    saw_free(p->ctx, p->ranges);
    saw_graph_close(p->graph);
    saw_free(p->ctx, p);
}

const saw_graph *saw_program_graph(const saw_program *p)
{
    return p->graph;
}

int saw_program_ranges(const saw_program *p, const saw_range **out)
{
    *out = p->ranges;
    return p->n_ranges;
}

int64_t saw_program_trainables(const saw_program *p)
{
    return p->trainables;
}

double saw_program_flops(const saw_program *p)
{
    return p->flops;
}

/* ---- listing --------------------------------------------------------------------------------- */

static void list_dims(const saw_dims *d, saw_buffer *out)
{
    saw_buffer_printf(out, "[");
    for (int i = 0; i < d->n; i++)
        saw_buffer_printf(out, "%s%lld", i ? "," : "", (long long)d->d[i]);
    saw_buffer_printf(out, "]");
}

static void list_entry(const saw_program *p, const planned_entry *pe, saw_buffer *out)
{
    const saw_entry *e = pe->e;
    saw_buffer_printf(out, "    %-28s %s%s", e->scope, e->op->name, e->backward ? " backward" : "");
    if (e->op->list)
        e->op->list(e->attr, out);
    for (int k = 0; k < e->n_out; k++)
        if (e->out[k]) {
            saw_buffer_printf(out, " -> ");
            list_dims(&saw_graph_value(p->graph, e->out[k])->dims, out);
            const char *name = saw_graph_value(p->graph, e->out[k])->name;
            if (name)
                saw_buffer_printf(out, " %s", name);
        }
    saw_buffer_printf(out, "\n");
}

void saw_program_list(const saw_program *p, saw_buffer *out)
{
    saw_buffer_printf(out, "bind: %d entries\n", p->n_bind);
    for (int i = 0; i < p->n_bind; i++)
        list_entry(p, &p->bind[i], out);
    for (int j = 0; j < p->n_groups; j++) {
        const group *g = &p->groups[j];
        double flops = 0;
        if (j == 0 && p->n_step_groups)
            saw_buffer_printf(out, "step: %d groups\n", p->n_step_groups);
        for (int i = g->first; i < g->first + g->count; i++)
            flops += p->entries[i].flops;
        saw_buffer_printf(out, "group %d: %lld %s", j, (long long)g->tiles,
                          g->parts > 1 ? "parts" : "tiles");
        for (int a = 0; a < SAW_MAX_DIMS && g->parts <= 1; a++)
            if (g->axes & SAW_AXIS(a))
                saw_buffer_printf(out, " axis %d by %lld", a, (long long)g->extent[a]);
        saw_buffer_printf(out, ", %.2f GFLOP, %.2f MB of scratch a thread\n", flops * 1e-9,
                          (double)g->values_bytes * 1e-6);
        for (int i = g->first; i < g->first + g->count; i++)
            list_entry(p, &p->entries[i], out);
    }
    saw_buffer_printf(
        out,
        "arena %.1f MB, scratch %.2f MB a thread, state %.2f MB, weights %.1f MB, %.1f GFLOP\n",
        (double)p->arena_bytes * 1e-6, (double)p->scratch_bytes * 1e-6,
        (double)p->state_bytes * 1e-6, (double)saw_program_weight_bytes(p) * 1e-6, p->flops * 1e-9);
}
