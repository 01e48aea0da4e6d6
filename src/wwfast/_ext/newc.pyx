"""Archives in memory: a list of entries to newc bytes in two passes, one to size the result and one to write it."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset


cdef extern from "newc.h" nogil:
    ctypedef struct newc_fields:
        uint32_t ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize
    uint64_t newc_head(char *out, newc_fields *f, const char *name, uint64_t name_length)
    uint64_t newc_head_size(uint64_t name_length)
    uint64_t newc_padded(uint64_t length)


cdef extern from *:
    """
    #ifdef WWFAST_DEBUG
    #define WWFAST_IS_DEBUG 1
    #else
    #define WWFAST_IS_DEBUG 0
    #endif
    """
    const int WWFAST_IS_DEBUG

DEBUG = bool(WWFAST_IS_DEBUG)  # a debug build: benchmarks refuse it


def pack(list entries, uint32_t segment, bint trailer):
    """Bytes of `entries`, tuples (name, mode, uid, gid, mtime, data, (major, minor)), numbered from inode 1.

    A number that does not fit its field raises OverflowError; a name or data that is not bytes, TypeError.
    """
    cdef uint64_t total = 0
    cdef bytes name, data, out
    cdef object entry, rdev
    for entry in entries:
        name = entry[0]
        data = entry[5]
        if PyBytes_GET_SIZE(data) > 0xFFFFFFFF:
            raise OverflowError("data")
        total += newc_head_size(PyBytes_GET_SIZE(name)) + newc_padded(PyBytes_GET_SIZE(data))
    if trailer:
        total += newc_head_size(10)
    out = PyBytes_FromStringAndSize(NULL, total)
    cdef char *at = PyBytes_AS_STRING(out)
    cdef newc_fields f
    cdef uint32_t ino = 0
    cdef uint64_t length
    for entry in entries:
        name = entry[0]
        data = entry[5]
        rdev = entry[6]
        ino += 1
        memset(&f, 0, sizeof(f))
        f.ino = ino
        f.mode = entry[1]
        f.uid = entry[2]
        f.gid = entry[3]
        f.nlink = 2 if (f.mode & 0o170000) == 0o040000 else 1
        f.mtime = entry[4]
        f.filesize = <uint32_t>PyBytes_GET_SIZE(data)
        f.devminor = segment
        f.rdevmajor = rdev[0]
        f.rdevminor = rdev[1]
        at += newc_head(at, &f, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        length = PyBytes_GET_SIZE(data)
        memcpy(at, PyBytes_AS_STRING(data), length)
        memset(at + length, 0, newc_padded(length) - length)
        at += newc_padded(length)
    if trailer:
        memset(&f, 0, sizeof(f))
        f.nlink = 1
        newc_head(at, &f, b"TRAILER!!!", 10)
    return out
