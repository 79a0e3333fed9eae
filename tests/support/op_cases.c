#include "support/op_case.h"

extern const op_case_list op_cases_basic, op_cases_conv, op_cases_recurrent, op_cases_loss,
    op_cases_adapter;

static const op_case_list end;
const op_case_list *const op_case_lists[] = {
    &op_cases_basic, &op_cases_conv, &op_cases_recurrent, &op_cases_loss, &op_cases_adapter, &end};
