"""A tree as it was walked: what the walk and the writer of segments share."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from wwfast._ext.files cimport *


cdef extern from "tree.h" nogil:
    const uint64_t TREE_U32
    ctypedef struct tree_record:
        uint64_t dev, ino, size, mtime_ns, ctime_ns, low, high, flags
    ctypedef struct tree_dir:
        const char *path
        uint32_t length, worker, xattrs
        uint64_t dev, ino
        size_t start, count
        tree_dir *next
    ctypedef struct tree_entry:
        const char *path
        const char *target
        tree_dir *dir
        tree_record known
        uint64_t mtime
        uint32_t length, name, target_length, mode, uid, gid, nlink, rmajor, rminor, ino, links, carries
        int64_t next_link
    ctypedef struct tree_segment:
        size_t start, count
        uint64_t size
        uint32_t id, large


cdef enum:
    WORKERS = 64
    LISTING = 65536
    BLOCK = 1 << 20
    DIGEST = 1
    NO_XATTR = 2
    HAS_XATTR = 4
    S_IFMT = 0o170000
    S_IFDIR = 0o040000
    S_IFREG = 0o100000
    S_IFLNK = 0o120000
    S_IFSOCK = 0o140000


cdef struct Arena:
    char *block
    size_t used, size
    void *blocks  # singly linked through the first word of each block


cdef struct Worker:
    Arena arena
    tree_entry *entries
    size_t count, room
    char *listing


cdef inline uint64_t nanoseconds(const timespec *t) noexcept nogil:
    return <uint64_t>(<int64_t>t.tv_sec * 1000000000 + t.tv_nsec)


cdef class Walk:
    cdef bint begun
    cdef bytes root
    cdef list patterns
    cdef const char **pattern
    cdef char *matched
    cdef int patterns_count
    cdef int fd
    cdef uint64_t dev
    cdef Worker workers[WORKERS]
    cdef int workers_count, active
    cdef tree_dir *stack
    cdef tree_dir *top
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t cond
    cdef int failed
    cdef const char *failed_path
    cdef tree_entry *entries
    cdef size_t count

    cdef void _fail(self, int number, const char *path) noexcept nogil
    cdef void _walk(self) noexcept nogil
    cdef bint _excluded(self, const char *path) noexcept nogil
    cdef void _list(self, tree_dir *directory, int me) noexcept nogil
    cdef bint _add(self, tree_dir *directory, Worker *worker, int fd, const char *name) noexcept nogil
    cdef void _collect(self, tree_dir *directory) noexcept nogil
    cdef int _gather(self) except -1
