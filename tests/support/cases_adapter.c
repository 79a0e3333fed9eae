/*
 * cases_adapter.c - ops that adapters are made of.
 */
#include "support/op_case.h"

#define D OP_DIMS

static saw_val row_norm(saw_graph *g, const saw_val *in)
{
    return saw_row_norm(g, in[0]);
}

static saw_val cayley_exact(saw_graph *g, const saw_val *in)
{
    return saw_cayley(g, in[0], 5, 0);
}

static saw_val cayley_2(saw_graph *g, const saw_val *in)
{
    return saw_cayley(g, in[0], 3, 2);
}

static saw_val cayley_3(saw_graph *g, const saw_val *in)
{
    return saw_cayley(g, in[0], 3, 3);
}

static saw_val cayley_5(saw_graph *g, const saw_val *in)
{
    return saw_cayley(g, in[0], 4, 5);
}

static saw_val block_linear(saw_graph *g, const saw_val *in)
{
    return saw_block_linear(g, in[0], in[1]);
}

static saw_val rotation(saw_graph *g, const saw_val *in)
{
    return saw_rotation(g, in[0], in[1]);
}

static const op_case cases[] = {
    {.name = "row_norm", .record = row_norm, .in = {D(5, 7)}, .fixed = 1},
    {.name = "cayley", .record = cayley_exact, .in = {D(3, 10)}, .params = 1},
    {.name = "cayley, 2 terms", .record = cayley_2, .in = {D(2, 3)}, .params = 1},
    {.name = "cayley, 3 terms", .record = cayley_3, .in = {D(2, 3)}, .params = 1},
    {.name = "cayley, 5 terms", .record = cayley_5, .in = {D(2, 6)}, .params = 1},
    {.name = "block_linear", .record = block_linear, .in = {D(2, 3, 12), D(3, 4, 4)}, .params = 2},
    {.name = "block_linear, one block",
     .record = block_linear,
     .in = {D(5, 12), D(1, 4, 4)},
     .params = 2},
    {.name = "rotation", .record = rotation, .in = {D(7), D(7)}, .params = 3},
};

const op_case_list op_cases_adapter = {cases, sizeof cases / sizeof *cases};
