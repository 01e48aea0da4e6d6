"""The newc header, in C. Declarations only."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "newc.h" nogil:
    ctypedef struct newc_fields:
        uint32_t ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize
    uint64_t newc_head(char *out, newc_fields *f, const char *name, uint64_t name_length)
    uint64_t newc_head_size(uint64_t name_length)
    uint64_t newc_padded(uint64_t length)
    const uint64_t NEWC_HEADER
