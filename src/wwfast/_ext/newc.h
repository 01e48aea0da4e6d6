/* The newc ("070701") header, as Linux, GNU cpio and libarchive read it: 6 bytes magic, 13 fields of 8 hex digits. */
#ifndef WWFAST_NEWC_H
#define WWFAST_NEWC_H

#include <stdint.h>
#include <string.h>

#define NEWC_HEADER 110

typedef struct {
    uint32_t ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize;
} newc_fields;

static inline char *newc_hex8(char *out, uint32_t value)
{
    static const char digits[] = "0123456789ABCDEF";
    for (int shift = 28; shift >= 0; shift -= 4)
        *out++ = digits[(value >> shift) & 15];
    return out;
}

/* Write the header only; `namesize` counts the NUL. The checksum field is 0 (only "070702" uses it). */
static inline void newc_header(char *out, const newc_fields *f)
{
    memcpy(out, "070701", 6);
    out = newc_hex8(out + 6, f->ino);
    out = newc_hex8(out, f->mode);
    out = newc_hex8(out, f->uid);
    out = newc_hex8(out, f->gid);
    out = newc_hex8(out, f->nlink);
    out = newc_hex8(out, f->mtime);
    out = newc_hex8(out, f->filesize);
    out = newc_hex8(out, f->devmajor);
    out = newc_hex8(out, f->devminor);
    out = newc_hex8(out, f->rdevmajor);
    out = newc_hex8(out, f->rdevminor);
    out = newc_hex8(out, f->namesize);
    memcpy(out, "00000000", 8);
}

/* Header, name with its NUL, and zeros up to a multiple of 4. */
static inline uint64_t newc_head_size(uint64_t name_length)
{
    return (NEWC_HEADER + name_length + 1 + 3) & ~(uint64_t)3;
}

static inline uint64_t newc_padded(uint64_t length)
{
    return (length + 3) & ~(uint64_t)3;
}

static inline uint64_t newc_head(char *out, newc_fields *f, const char *name, uint64_t name_length)
{
    uint64_t size = newc_head_size(name_length);
    f->namesize = (uint32_t)(name_length + 1);
    newc_header(out, f);
    memcpy(out + NEWC_HEADER, name, name_length);
    memset(out + NEWC_HEADER + name_length, 0, size - NEWC_HEADER - name_length);
    return size;
}

#endif
