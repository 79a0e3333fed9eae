#include "core/tensor.h"

#include <string.h>

int64_t saw_tensor_count(const saw_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->ndim; i++)
        n *= t->dims[i];
    return n;
}

void saw_dense_strides(int ndim, const int64_t *dims, int64_t *strides)
{
    int64_t s = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        strides[i] = s;
        s *= dims[i];
    }
}

saw_walk saw_walk_start(int lead, int n, const saw_tensor *const *tensors)
{
    saw_walk w = {.n = n};
    for (int k = 0; k < n; k++) {
        w.base[k] = tensors[k]->data;
        w.bytes[k] = saw_dtype_bytes(tensors[k]->dtype);
    }
    for (int i = 0; i < lead; i++) {
        int64_t size = 1;
        for (int k = 0; k < n; k++)
            if (tensors[k]->data && tensors[k]->dims[i] > size)
                size = tensors[k]->dims[i];
        if (size == 1)
            continue;
        int64_t step[SAW_WALK_TENSORS];
        bool merge = w.levels > 0;
        for (int k = 0; k < n; k++) {
            bool moves = tensors[k]->data && tensors[k]->dims[i] > 1;
            step[k] = moves ? tensors[k]->strides[i] : 0;
            merge = merge && w.step[k][w.levels - 1] == size * step[k];
        }
        if (!merge)
            w.count[w.levels++] = 1;
        w.count[w.levels - 1] *= size;
        for (int k = 0; k < n; k++)
            w.step[k][w.levels - 1] = step[k];
    }
    return w;
}

bool saw_walk_next(saw_walk *w)
{
    int outer = w->levels - 1; /* the last level is the step itself */
    if (!w->started) {
        w->started = 1;
        w->rows = w->levels ? w->count[outer] : 1;
        for (int k = 0; k < w->n; k++)
            w->stride[k] = w->levels ? w->step[k][outer] : 0;
    } else {
        int i = outer - 1;
        while (i >= 0 && ++w->at[i] == w->count[i])
            w->at[i--] = 0;
        if (i < 0)
            return false;
    }
    for (int k = 0; k < w->n; k++) {
        int64_t offset = 0;
        for (int i = 0; i < outer; i++)
            offset += w->at[i] * w->step[k][i];
        w->data[k] = w->base[k] ? w->base[k] + offset * (int64_t)w->bytes[k] : NULL;
    }
    return w->rows > 0;
}
