/*
 * wav.c - a RIFF file is "RIFF" size "WAVE" and then chunks: four letters, a 32-bit size, that many
 * bytes, and one more when the size is odd. AIFF ("FORM" size "AIFF") is the same with the high
 * byte first. RF64 keeps sizes beyond 4 GB in a chunk `ds64` right after the start (EBU Tech 3306).
 */
#include "io/wav.h"

#include <string.h>

enum { MAX_CHUNKS = 4096, MAX_INFO_BYTES = 1 << 20, MAX_TAG_BYTES = 1 << 16 };

static const char tag_ids[SAW_TAG_COUNT][5] = {"INAM", "IART", "IPRD", "ITRK",
                                               "ICRD", "IGNR", "ICMT"};

static uint32_t le16(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t le32(const uint8_t *p)
{
    return le16(p) | le16(p + 2) << 16;
}

static uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* ---- reading ---------------------------------------------------------------------------------- ---- */

void saw_audio_tags_free(saw_context *ctx, saw_audio_tags *tags)
{
    for (int i = 0; i < SAW_TAG_COUNT; i++) {
        saw_free(ctx, tags->text[i]);
        tags->text[i] = NULL;
    }
}

static void parse_info(saw_context *ctx, const uint8_t *p, size_t size, saw_audio_tags *tags)
{
    while (size >= 8) {
        size_t n = le32(p + 4);
        const char *text = (const char *)p + 8;
        if (n > size - 8)
            return;
        for (int i = 0; i < SAW_TAG_COUNT; i++) {
            bool mine = !memcmp(p, tag_ids[i], 4) || (i == SAW_TAG_TRACK && !memcmp(p, "IPRT", 4));
            size_t length = strnlen(text, n);
            if (mine && !tags->text[i] && length && length <= MAX_TAG_BYTES)
                tags->text[i] = saw_strndup(ctx, text, length);
        }
        size_t step = 8 + n + (n & 1);
        step = step < size ? step : size;
        p += step;
        size -= step;
    }
}

static void parse_format(const uint8_t *p, size_t n, saw_wav *out)
{
    static const saw_wav_coding pcm[] = {SAW_WAV_OTHER, SAW_WAV_U8, SAW_WAV_S16, SAW_WAV_S24,
                                         SAW_WAV_S32};
    static const uint8_t guid_tail[14] = {0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113};
    uint32_t tag = le16(p), bits = le16(p + 14);
    if (tag == 0xfffe && n >= 40 && !memcmp(p + 26, guid_tail, sizeof guid_tail))
        tag = le16(p + 24);
    out->channels = (int)le16(p + 2);
    out->rate_hz = le32(p + 4) > INT32_MAX ? 0 : (int)le32(p + 4);
    out->frame_bytes = le16(p + 12);
    if (tag == 1 && bits % 8 == 0 && bits <= 32)
        out->coding = pcm[bits / 8];
    else if (tag == 3 && (bits == 32 || bits == 64))
        out->coding = bits == 32 ? SAW_WAV_F32 : SAW_WAV_F64;
    if (out->frame_bytes != (uint32_t)out->channels * bits / 8)
        out->coding = SAW_WAV_OTHER;
}

bool saw_wav_parse(saw_context *ctx, saw_wav_read *read, void *user, saw_wav *out,
                   saw_audio_tags *tags)
{
    uint8_t h[64];
    memset(out, 0, sizeof *out);
    if (read(user, 0, h, 12) != 12)
        return false;
    bool rf64 = !memcmp(h, "RF64", 4) || !memcmp(h, "BW64", 4), aiff = !memcmp(h, "FORM", 4);
    if (aiff ? memcmp(h + 8, "AIFF", 4) && memcmp(h + 8, "AIFC", 4)
             : (!rf64 && memcmp(h, "RIFF", 4)) || memcmp(h + 8, "WAVE", 4))
        return false;
    uint64_t at = 12, big_bytes = 0;
    for (int chunk = 0; chunk < MAX_CHUNKS; chunk++) {
        if (read(user, at, h, 8) != 8)
            return false;
        uint64_t size = aiff ? be32(h + 4) : le32(h + 4);
        at += 8;
        if (!memcmp(h, aiff ? "SSND" : "data", 4)) {
            /* streaming programs write 0, 0xffffffff or what is left below it, or the same about
             * 2^31 */
            out->data_unknown = !aiff && (size == 0 || size >= 0xffffff00u ||
                                          (size >= 0x7ffff000u && size <= 0x80000000u));
            if (rf64 && size == 0xffffffffu && big_bytes) {
                size = big_bytes;
                out->data_unknown = false;
            }
            out->data_offset = at;
            out->data_bytes = size;
            return aiff || out->frame_bytes > 0;
        }
        size_t want = size < sizeof h ? (size_t)size : sizeof h;
        bool format = !aiff && !memcmp(h, "fmt ", 4), list = tags && !memcmp(h, "LIST", 4);
        if (format || (rf64 && !memcmp(h, "ds64", 4))) {
            if (want < 16 || read(user, at, h, want) != want)
                return false;
            if (format)
                parse_format(h, want, out);
            else
                big_bytes = le64(h + 8);
        } else if (list && size >= 4 && size <= MAX_INFO_BYTES) {
            uint8_t *info = saw_alloc(ctx, (size_t)size);
            bool whole = info && read(user, at, info, (size_t)size) == size;
            if (whole && !memcmp(info, "INFO", 4))
                parse_info(ctx, info + 4, (size_t)size - 4, tags);
            saw_free(ctx, info);
            if (!whole)
                return false;
        }
        at += size + (size & 1);
    }
    return false;
}

void saw_wav_unpack(saw_wav_coding coding, const uint8_t *in, float *out, size_t n)
{
    switch (coding) {
    case SAW_WAV_U8:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)(in[i] - 128) * 0x1p-7f;
        break;
    case SAW_WAV_S16:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)(int16_t)le16(in + 2 * i) * 0x1p-15f;
        break;
    case SAW_WAV_S24:
        for (size_t i = 0; i < n; i++)
            out[i] =
                (float)(int32_t)(le16(in + 3 * i) << 8 | (uint32_t)in[3 * i + 2] << 24) * 0x1p-31f;
        break;
    case SAW_WAV_S32:
        for (size_t i = 0; i < n; i++)
            out[i] = (float)(int32_t)le32(in + 4 * i) * 0x1p-31f;
        break;
    case SAW_WAV_F32:
        for (size_t i = 0; i < n; i++) {
            uint32_t u = le32(in + 4 * i);
            memcpy(out + i, &u, sizeof u);
        }
        break;
    case SAW_WAV_F64:
        for (size_t i = 0; i < n; i++) {
            uint64_t u = le64(in + 8 * i);
            double d;
            memcpy(&d, &u, sizeof u);
            out[i] = (float)d;
        }
        break;
    case SAW_WAV_OTHER:
        break;
    }
}

/* ---- writing ---------------------------------------------------------------------------------- ---- */

/* Little-endian, whatever the machine. */
static void put(saw_buffer *b, uint64_t value, int bytes)
{
    uint8_t p[8];
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
    saw_buffer_add(b, p, (size_t)bytes);
}

static void put_chunk(saw_buffer *b, const char *id, uint64_t size)
{
    saw_buffer_add(b, id, 4);
    put(b, size, 4);
}

void saw_wav_header(saw_buffer *b, saw_audio_subtype subtype, int channels, int rate_hz,
                    const saw_audio_tags *tags, int64_t frames)
{
    /* where the speakers of 1 to 8 channels usually stand */
    static const uint16_t masks[9] = {0, 0x4, 0x3, 0x7, 0x33, 0x37, 0x3f, 0x70f, 0x63f};
    static const uint8_t guid_tail[14] = {0, 0, 0, 0, 16, 0, 128, 0, 0, 170, 0, 56, 155, 113};
    unsigned bits = subtype == SAW_AUDIO_PCM_16 ? 16 : subtype == SAW_AUDIO_PCM_24 ? 24 : 32;
    unsigned frame_bytes = (unsigned)channels * bits / 8;
    unsigned coding = subtype == SAW_AUDIO_FLOAT ? 3 : 1;
    unsigned format_bytes = channels > 2 ? 40 : coding == 3 ? 18 : 16;
    uint64_t info_bytes = 0;
    for (int i = 0; tags && i < SAW_TAG_COUNT; i++)
        if (tags->text[i])
            info_bytes += 8 + ((strlen(tags->text[i]) + 2) & ~(uint64_t)1);
    uint64_t data_bytes = frames < 0 ? 0 : (uint64_t)frames * frame_bytes;
    uint64_t riff_bytes = 4 + 36 + (8 + format_bytes) + 12 + (info_bytes ? 12 + info_bytes : 0) +
                          8 + data_bytes + (data_bytes & 1);
    bool rf64 = riff_bytes > 0xffffffffu, unknown = frames < 0;

    put_chunk(b, rf64 ? "RF64" : "RIFF", rf64 || unknown ? 0xffffffffu : riff_bytes);
    saw_buffer_add(b, "WAVE", 4);
    put_chunk(b, rf64 ? "ds64" : "JUNK", 28);
    put(b, rf64 ? riff_bytes : 0, 8);
    put(b, rf64 ? data_bytes : 0, 8);
    put(b, rf64 ? (uint64_t)frames : 0, 8);
    put(b, 0, 4);
    put_chunk(b, "fmt ", format_bytes);
    put(b, format_bytes == 40 ? 0xfffe : coding, 2);
    put(b, (unsigned)channels, 2);
    put(b, (unsigned)rate_hz, 4);
    put(b, (uint64_t)rate_hz * frame_bytes, 4);
    put(b, frame_bytes, 2);
    put(b, bits, 2);
    if (format_bytes > 16)
        put(b, format_bytes - 18, 2);
    if (format_bytes == 40) {
        put(b, bits, 2);
        put(b, channels <= 8 ? masks[channels] : 0, 4);
        put(b, coding, 2);
        saw_buffer_add(b, guid_tail, sizeof guid_tail);
    }
    put_chunk(b, "fact", 4);
    put(b, rf64 || unknown ? 0xffffffffu : (uint64_t)frames, 4);
    if (info_bytes) {
        put_chunk(b, "LIST", 4 + info_bytes);
        saw_buffer_add(b, "INFO", 4);
        for (int i = 0; i < SAW_TAG_COUNT; i++) {
            if (!tags->text[i])
                continue;
            size_t n = strlen(tags->text[i]) + 1;
            put_chunk(b, tag_ids[i], n);
            saw_buffer_add(b, tags->text[i], n);
            put(b, 0, (int)(n & 1));
        }
    }
    put_chunk(b, "data", rf64 || unknown ? 0xffffffffu : data_bytes);
}
