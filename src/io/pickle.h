/*
 * pickle.h - a pickle machine that only makes data.
 *
 * Protocols 2 to 5. Scalars, strings, lists, tuples and dicts become values; the calls by which
 * torch rebuilds tensors, parameters and OrderedDicts, and numpy arrays, are understood by name;
 * every other class, call or object becomes an opaque value that carries its name. Nothing is
 * imported, called or run. Values may be shared and, in a hostile file, contain themselves: whoever
 * walks them must mark what he has seen.
 */
#ifndef SAW_PICKLE_H
#define SAW_PICKLE_H

#include "io/pool.h"

typedef enum saw_pickle_kind {
    SAW_PICKLE_NONE,
    SAW_PICKLE_BOOL,
    SAW_PICKLE_INT,
    SAW_PICKLE_LONG, /* an integer of more than 64 bits: its little-endian bytes */
    SAW_PICKLE_FLOAT,
    SAW_PICKLE_STRING,
    SAW_PICKLE_BYTES,
    SAW_PICKLE_LATIN1, /* bytes as protocol 2 writes them: UTF-8 text, each character one byte */
    SAW_PICKLE_LIST,
    SAW_PICKLE_TUPLE,
    SAW_PICKLE_DICT,   /* items: key, value, key, value, ...; of equal keys the last counts */
    SAW_PICKLE_GLOBAL, /* a name: "module.name" */
    SAW_PICKLE_STORAGE,
    SAW_PICKLE_TENSOR, /* or a numpy array */
    SAW_PICKLE_DTYPE,  /* of numpy: a saw_dtype, or -1 */
    SAW_PICKLE_OPAQUE  /* what a class or call that is not understood would have made: its name */
} saw_pickle_kind;

typedef struct saw_pickle_value saw_pickle_value;

/** Names storage `key` of the file. A view starts `view_first` elements into it. */
typedef struct saw_pickle_storage {
    saw_pickle_value *key; /* a string */
    int dtype;             /* saw_dtype, or -1: one that is not supported */
    uint64_t item_bytes;   /* 0 when unknown */
    uint64_t count, view_first;
} saw_pickle_storage;

typedef struct saw_pickle_tensor {
    saw_pickle_value
        *storage; /* of a numpy array: BYTES or LATIN1, or NULL when it was never filled */
    int dtype;    /* as above; of the tensor */
    int ndim;
    uint64_t first; /* elements of the tensor's dtype */
    int64_t dims[SAW_MAX_DIMS], strides[SAW_MAX_DIMS];
} saw_pickle_tensor;

struct saw_pickle_value {
    saw_pickle_kind kind;
    bool seen; /* for walkers, false at first */
    union {
        int64_t integer; /* BOOL, INT, DTYPE */
        double real;
        struct {
            const char *bytes; /* not terminated; may lie in the pickle itself */
            size_t n;
        } text; /* LONG, STRING, BYTES, LATIN1, GLOBAL, OPAQUE */
        struct {
            saw_pickle_value **items;
            size_t n, room;
        } seq; /* LIST, TUPLE, DICT */
        saw_pickle_storage storage;
        saw_pickle_tensor *tensor;
    } u;
};

/** A class or function that the pickle names and the machine does not know. */
typedef struct saw_pickle_foreign {
    saw_pickle_value *name;
    bool called, made; /* by REDUCE; as an object by NEWOBJ */
} saw_pickle_foreign;

enum { SAW_PICKLE_MAX_FOREIGN = 64 };

typedef struct saw_pickle {
    saw_pickle_value *root;
    size_t used_bytes; /* up to and with the STOP */
    bool cut_short;    /* the failure was: more bytes are needed */
    saw_pickle_value **storages;
    size_t storage_count, storage_room;
    saw_pickle_foreign foreign[SAW_PICKLE_MAX_FOREIGN]; /* the first so many names */
    int foreign_count;
} saw_pickle;

/** Read one pickle. Values live in the pool and borrow from bytes. `path` names the file in errors.
 */
saw_status saw_pickle_read(saw_pool *pool, const char *path, const uint8_t *bytes, size_t n,
                           saw_pickle *out);

/** The value of a string key, or NULL (also when dict is NULL or no dict). */
saw_pickle_value *saw_pickle_find(const saw_pickle_value *dict, const char *key);
bool saw_pickle_is(const saw_pickle_value *v, saw_pickle_kind kind, const char *text);

#endif
