/*
 * adapters.c - the table of adapters.
 */
#include "nn/adapter.h"

#include <string.h>

#define SAW_ADAPTER(name) extern const saw_adapter saw_adapter_##name;
#include "models/adapters/adapters.def"
#undef SAW_ADAPTER

static const saw_adapter *const table[] = {
#define SAW_ADAPTER(name) &saw_adapter_##name,
#include "models/adapters/adapters.def"
#undef SAW_ADAPTER
};

const saw_adapter *saw_adapter_at(int i)
{
    return i >= 0 && i < (int)(sizeof table / sizeof *table) ? table[i] : NULL;
}

const saw_adapter *saw_adapter_named(const char *name)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(table[i]->name, name))
            return table[i];
    return NULL;
}
