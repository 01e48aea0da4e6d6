"""Archives in memory: a list of entries to newc bytes in two passes, one to size the result and one to write it."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_Check, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset


cdef extern from *:
    """
    #ifdef WWFAST_DEBUG
    #define WWFAST_IS_DEBUG 1
    #else
    #define WWFAST_IS_DEBUG 0
    #endif
    """
    const int WWFAST_IS_DEBUG

cdef uint64_t PATH_MAX = 4096
DEBUG = bool(WWFAST_IS_DEBUG)  # a debug build: benchmarks refuse it


def pack(list entries, uint32_t segment, bint trailer):
    """Bytes of `entries`, tuples (name, mode, uid, gid, mtime, data, (major, minor)), numbered from inode 1.

    A number that does not fit its field raises OverflowError; a name or data that is not bytes, TypeError.
    """
    cdef uint64_t total = 0
    cdef bytes name, data, out
    cdef object entry, rdev
    for entry in entries:
        if not PyTuple_Check(entry) or PyTuple_GET_SIZE(entry) != 7:
            raise TypeError("an entry is a tuple of seven")
        name = <object>PyTuple_GET_ITEM(entry, 0)
        data = <object>PyTuple_GET_ITEM(entry, 5)
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
        name = <object>PyTuple_GET_ITEM(entry, 0)
        data = <object>PyTuple_GET_ITEM(entry, 5)
        rdev = <object>PyTuple_GET_ITEM(entry, 6)
        ino += 1
        memset(&f, 0, sizeof(f))
        f.ino = ino
        f.mode = <object>PyTuple_GET_ITEM(entry, 1)
        f.uid = <object>PyTuple_GET_ITEM(entry, 2)
        f.gid = <object>PyTuple_GET_ITEM(entry, 3)
        f.nlink = 2 if (f.mode & 0o170000) == 0o040000 else 1
        f.mtime = <object>PyTuple_GET_ITEM(entry, 4)
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


def sound(list entries):
    """Whether every entry can be packed and Linux takes it as it is; archive/newc.py says what is wrong otherwise."""
    cdef bytes name, data
    cdef const char *text
    cdef uint64_t length
    cdef long long mode, value
    cdef object entry
    try:
        for entry in entries:
            name = entry[0]
            data = entry[5]
            text = PyBytes_AS_STRING(name)
            length = PyBytes_GET_SIZE(name)
            if not 0 < length < PATH_MAX or text[0] == c"/" or memchr(text, 0, length) != NULL:
                return False
            if length == 10 and memcmp(text, b"TRAILER!!!", 10) == 0:
                return False
            mode = entry[1]
            length = PyBytes_GET_SIZE(data)
            if length > 0xFFFFFFFF or (mode & 0o170000 == 0o120000 and not 0 < length < PATH_MAX):
                return False
            for value in (mode, entry[2], entry[3], entry[4], entry[6][0], entry[6][1]):
                if not 0 <= value <= 0xFFFFFFFF:
                    return False
    except OverflowError:
        return False
    return True


def entries(bytes raw):
    """The entries of `raw` as `pack` takes them, without a TRAILER. ValueError for what is no newc."""
    cdef const char *view = PyBytes_AS_STRING(raw)
    cdef uint64_t size = PyBytes_GET_SIZE(raw), at = 0, start
    cdef uint64_t field[13]
    cdef int each
    cdef bytes name
    cdef list found = []
    while at < size:
        if at + NEWC_HEADER > size or memcmp(view + at, b"070701", 6) != 0:
            raise ValueError("no newc header")
        for each in range(13):
            field[each] = hex8(view + at + 6 + 8 * each)
        start = at + newc_head_size(field[11] - 1)
        if field[11] == 0 or start + field[6] > size:
            raise ValueError("a newc entry is cut off")
        name = PyBytes_FromStringAndSize(view + at + NEWC_HEADER, field[11] - 1)
        if name != b"TRAILER!!!":
            data = PyBytes_FromStringAndSize(view + start, field[6])
            found.append((name, field[1], field[2], field[3], field[5], data, (field[9], field[10])))
        at = start + newc_padded(field[6])
    return found


cdef uint64_t hex8(const char *digits) except? 0xFFFFFFFFFF:
    cdef uint64_t value = 0
    cdef int each, digit
    for each in range(8):
        digit = digits[each]
        if c"0" <= digit <= c"9":
            digit -= c"0"
        elif c"A" <= digit <= c"F":
            digit -= c"A" - 10
        else:
            raise ValueError("a newc field is no number")
        value = value << 4 | digit
    return value
