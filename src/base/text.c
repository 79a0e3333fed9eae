/*
 * text.c - numbers and strings: locale-free parsing, small floats, hashes, Philox, a growing
 * buffer.
 */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t saw_dtype_bytes(saw_dtype dtype)
{
    static const uint8_t bytes[SAW_DTYPE_COUNT] = {4, 8, 2, 2, 1, 1, 2, 4, 8, 1};
    return bytes[dtype];
}

const char *saw_dtype_name(saw_dtype dtype)
{
    static const char *const names[SAW_DTYPE_COUNT] = {"f32", "f64", "f16", "bf16", "i8",
                                                       "u8",  "i16", "i32", "i64",  "bool"};
    return names[dtype];
}

static locale_t c_locale(void)
{
    static locale_t
        locale; /* made once, lives as long as the process; a lost race only leaks one */
    locale_t now = __atomic_load_n(&locale, __ATOMIC_ACQUIRE);
    if (!now) {
        now = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        __atomic_store_n(&locale, now, __ATOMIC_RELEASE);
    }
    return now;
}

bool saw_parse_double(const char *s, double *out)
{
    char *end;
    if (!s || !*s || *s == ' ' || *s == '\t' || *s == '\n')
        return false;
    errno = 0;
    double v = strtod_l(s, &end, c_locale());
    if (*end || (errno == ERANGE && (v > 1 || v < -1)))
        return false;
    *out = v;
    return true;
}

bool saw_parse_int64(const char *s, int64_t *out)
{
    char *end;
    if (!s || !*s || *s == ' ' || *s == '\t' || *s == '\n')
        return false;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (*end || errno)
        return false;
    *out = v;
    return true;
}

enum { WORD_ROOM = 64 };

bool saw_parse_bytes(const char *s, size_t *out)
{
    static const char units[] = "kmgt";
    char number[WORD_ROOM];
    size_t n = strlen(s);
    double v;
    if (n == 0 || n >= sizeof number)
        return false;
    memcpy(number, s, n + 1);
    if (n > 1 && (number[n - 1] == 'B' || number[n - 1] == 'b'))
        number[--n] = 0;
    if (n > 1 && number[n - 1] == 'i')
        number[--n] = 0;
    const char *unit = n > 1 ? strchr(units, tolower((unsigned char)number[n - 1])) : NULL;
    if (unit)
        number[n - 1] = 0;
    if (!saw_parse_double(number, &v) || !(v > 0 && v < 1e15))
        return false;
    v = unit ? ldexp(v, 10 * (int)(unit - units + 1)) : v;
    if (v > 1e15)
        return false;
    *out = (size_t)v;
    return true;
}

/* Fewest letters to insert, drop, change or swap with the neighbour. */
static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b), d[WORD_ROOM][WORD_ROOM];
    if (n >= WORD_ROOM || m >= WORD_ROOM)
        return WORD_ROOM;
    for (int i = 0; i <= n; i++) {
        for (int j = 0; j <= m; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *saw_nearest_word(const char *word, const char *const *words, int count)
{
    const char *nearest = NULL;
    int least = 1 + (int)strlen(word) / 3;
    for (int i = 0; i < count; i++) {
        int distance = edit_distance(word, words[i]);
        size_t n = strlen(word);
        bool begins = n >= 3 && strncmp(word, words[i], n) == 0;
        if (distance <= least || (begins && !nearest)) {
            nearest = words[i];
            least = distance <= least ? distance - 1 : least;
        }
    }
    return nearest;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float saw_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f;
    return sign ? -tiny : tiny;
}

uint16_t saw_f32_to_f16(float f)
{
    uint32_t u = bits_of(f), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (a >= 0x47800000) /* 65536 and more; what rounds up to it overflows below by itself */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* below 2^-14: count units of 2^-24, the addition rounds to even */
        float r = float_of(a) + 0.5f;
        return (uint16_t)(sign | (bits_of(r) - bits_of(0.5f)));
    }
    uint32_t rounded = a + 0xfff + ((a >> 13) & 1);
    return (uint16_t)(sign | ((rounded - 0x38000000) >> 13));
}

float saw_bf16_to_f32(uint16_t h)
{
    return float_of((uint32_t)h << 16);
}

uint16_t saw_f32_to_bf16(float f)
{
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

uint64_t saw_fnv1a(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

void saw_philox(uint64_t key, uint64_t counter_hi, uint64_t counter_lo, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c[4] = {(uint32_t)counter_lo, (uint32_t)(counter_lo >> 32), (uint32_t)counter_hi,
                     (uint32_t)(counter_hi >> 32)};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)b;
        c[2] = n2;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* ---- buffer ---------------------------------------------------------------------------------- */

static bool buffer_room(saw_buffer *b, size_t more)
{
    size_t want;
    if (b->failed || !saw_add_size(b->size, more, &want) || !saw_add_size(want, 1, &want)) {
        b->failed = true;
        return false;
    }
    if (want > b->room) {
        size_t room = want < 256 ? 256 : want + want / 2;
        char *data = saw_realloc(b->ctx, b->data, room);
        if (!data) {
            b->failed = true;
            return false;
        }
        b->data = data;
        b->room = room;
    }
    return true;
}

void saw_buffer_add(saw_buffer *b, const void *bytes, size_t n)
{
    if (!buffer_room(b, n))
        return;
    memcpy(b->data + b->size, bytes, n);
    b->size += n;
    b->data[b->size] = 0;
}

void saw_buffer_printf(saw_buffer *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !buffer_room(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(b->data + b->size, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->size += (size_t)n;
}

void saw_buffer_free(saw_buffer *b)
{
    if (b->data)
        saw_free(b->ctx, b->data);
    b->data = NULL;
    b->size = b->room = 0;
}
