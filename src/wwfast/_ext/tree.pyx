"""A tree as newc segments: the cutting, the digests and the bytes; the walk is in walk.pyx.

Every heavy method releases the GIL, so Python threads are all it takes to use all cores: several of them run
`walk()` together, then, after `arrange()`, `fill()` for one segment each.

Segment 0 holds directories, symbolic links, devices and fifos; regular files go to segments cut by each file's own path
and size class, so that no file moves the cuts of others; a file of `large_from` bytes is a segment of its own. All names
of an inode stay together, content last.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, ENOMEM, ESTALE, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset, strcmp
from posix.unistd cimport close, read

from wwfast._ext.files cimport *
from wwfast._ext.newc cimport *
from wwfast._ext.walk cimport *

import os


cdef extern from "tree.h" nogil:
    ctypedef struct XXH128_hash_t:
        uint64_t low64, high64
    ctypedef struct XXH3_state_t:
        pass
    uint64_t XXH3_64bits(const void *data, size_t length)
    XXH128_hash_t XXH3_128bits(const void *data, size_t length)
    XXH3_state_t *XXH3_createState()
    int XXH3_freeState(XXH3_state_t *state)
    int XXH3_128bits_reset(XXH3_state_t *state)
    int XXH3_128bits_update(XXH3_state_t *state, const void *data, size_t length)
    XXH128_hash_t XXH3_128bits_digest(const XXH3_state_t *state)


SOCKETS, OTHER_TIMES, OVER_2G = "sockets", "times", "over_2g"
RECORD = sizeof(tree_record)


cdef int by_number(const void *a, const void *b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t *>a)[0]
    cdef uint64_t y = (<const uint64_t *>b)[0]
    return -1 if x < y else (1 if x > y else 0)


cdef inline bint same(const tree_record *known, const stat_t *now) noexcept nogil:
    return (
        known.dev == now.st_dev and known.ino == now.st_ino and known.size == <uint64_t>now.st_size
        and known.mtime_ns == nanoseconds(&now.st_mtim) and known.ctime_ns == nanoseconds(&now.st_ctim)
    )


cdef inline uint64_t mix(uint64_t dev, uint64_t ino) noexcept nogil:
    cdef uint64_t h = (ino ^ (dev << 32) ^ (dev >> 7)) * <uint64_t>0x9E3779B97F4A7C15
    return h ^ (h >> 29)


cdef class Tree(Walk):
    """One pass over one root. Methods in order: walk (n threads), arrange, recall, keys, fill or stream, remember."""

    cdef size_t *order
    cdef tree_segment *segments
    cdef readonly size_t segments_count
    cdef readonly size_t written
    cdef readonly uint64_t unpacked
    cdef readonly dict skipped

    def __cinit__(self, root, patterns=()):
        self.skipped = {}

    def __dealloc__(self):
        free(self.order)
        free(self.segments)

    # ---- arranging -----------------------------------------------------------------------------------------

    def arrange(self, frozenset skip_dirs, int64_t epoch, double segment_bytes, uint64_t large_from, tuple dropped,
                uint64_t largest=TREE_U32):
        """Put the entries in order and cut the segments.

        `skip_dirs` and `dropped`: paths as bytes of directories without an entry, and of files left out. `epoch`:
        later times are written as this one (-1: as they are); `largest`: bytes of a file. Raises ValueError (path, why) for what newc cannot
        carry; fills `skipped` with counts of what was dropped or changed.
        """
        cdef size_t i
        self._gather()
        self.order = <size_t *>malloc((self.count + 1) * sizeof(size_t))
        self.segments = <tree_segment *>calloc(self.count + 2, sizeof(tree_segment))
        if self.order == NULL or self.segments == NULL:
            raise MemoryError
        cdef tree_entry *entry
        cdef set left_out = {(path, S_IFDIR) for path in skip_dirs} | {(path, S_IFREG) for path in dropped}
        for path, kind in left_out:
            for i in range(self.count):
                entry = &self.entries[i]
                if entry.length == len(path) and memcmp(entry.path, <const char *>path, entry.length) == 0:
                    if entry.mode & S_IFMT == <uint32_t>kind:
                        entry.length = 0
        cdef size_t sockets = 0, times = 0, over = 0, too_big = 0, bad = 0, trailer = 0
        with nogil:
            for i in range(self.count):
                entry = &self.entries[i]
                if entry.length == 0:
                    continue
                if entry.mode & S_IFMT == S_IFSOCK:
                    entry.length = 0
                    sockets += 1
                    continue
                if epoch >= 0 and <int64_t>entry.mtime > epoch:
                    entry.mtime = <uint64_t>epoch
                if entry.mtime > TREE_U32:
                    entry.mtime = 0 if <int64_t>entry.mtime < 0 else TREE_U32
                    times += 1
                if entry.length > 4095:
                    bad = i + 1
                if entry.name == 0 and strcmp(entry.path, b"TRAILER!!!") == 0:
                    trailer = i + 1
                if entry.mode & S_IFMT == S_IFREG:
                    if entry.known.size > largest:
                        too_big = i + 1
                    elif entry.known.size > 2147483647:
                        over += 1
        if bad:
            raise ValueError(os.fsdecode(self.entries[bad - 1].path), "name")
        if trailer:
            raise ValueError(os.fsdecode(self.entries[trailer - 1].path), "trailer")
        if too_big:
            raise ValueError(os.fsdecode(self.entries[too_big - 1].path), "size")
        self.skipped = {name: n for name, n in ((SOCKETS, sockets), (OTHER_TIMES, times), (OVER_2G, over)) if n}
        cdef dict inodes = {}
        for i in range(self.count):
            entry = &self.entries[i]
            if entry.nlink > 1 and entry.length and entry.mode & S_IFMT not in (S_IFDIR, S_IFLNK):
                inodes.setdefault((entry.known.dev, entry.known.ino), []).append(i)
        for names in inodes.values():
            for one, following in zip(names, names[1:] + [-1]):
                self.entries[<size_t>one].next_link = following
                self.entries[<size_t>one].links = len(names)
        with nogil:
            self._cut(segment_bytes, large_from)
        if self.failed:
            raise MemoryError

    cdef size_t _place(self, size_t at, size_t index, tree_segment *segment, uint32_t *ino) noexcept nogil:
        """Append an entry and the other names of its inode to the order; the last name carries the content."""
        cdef int64_t i = <int64_t>index
        cdef tree_entry *entry = NULL
        ino[0] += 1
        while i >= 0:
            entry = &self.entries[i]
            entry.ino = ino[0]
            if entry.links == 0:
                entry.links = 2 if entry.mode & S_IFMT == S_IFDIR else 1
            self.order[at] = <size_t>i
            at += 1
            segment.count += 1
            segment.size += newc_head_size(entry.length)
            i = entry.next_link
        if entry.mode & S_IFMT == S_IFREG:
            entry.carries = 1
            segment.size += newc_padded(entry.known.size)
            self.unpacked += (entry.known.size + 4095) & ~<uint64_t>4095
        elif entry.mode & S_IFMT == S_IFLNK:
            segment.size += newc_padded(entry.target_length)
        self.unpacked += 1024  # about what an inode and its name take in a tmpfs
        return at

    cdef tree_segment *_open_segment(self, size_t at, uint64_t path_hash) noexcept nogil:
        cdef tree_segment *segment = &self.segments[self.segments_count]
        self.segments_count += 1
        segment.start = at
        segment.id = <uint32_t>(path_hash >> 33) | 1
        return segment

    cdef void _cut(self, double segment_bytes, uint64_t large_from) noexcept nogil:
        """Segment 0, then runs of files, then large files. `ino` 0 tells what is not placed yet."""
        cdef size_t i, at = 0
        cdef uint32_t ino = 0
        cdef tree_entry *entry
        cdef tree_segment *segment = &self.segments[0]
        cdef uint64_t h, weight
        self.segments_count = 1
        for i in range(self.count):
            entry = &self.entries[i]
            if entry.length and not entry.ino and entry.mode & S_IFMT != S_IFREG:
                at = self._place(at, i, segment, &ino)
        segment = NULL
        for i in range(self.count):
            entry = &self.entries[i]
            if entry.length and not entry.ino and entry.mode & S_IFMT == S_IFREG and entry.known.size < large_from:
                weight = 1
                while weight < entry.known.size:
                    weight <<= 1
                weight += 128
                h = XXH3_64bits(entry.path, entry.length)
                if segment == NULL or <double>h / 18446744073709551616.0 * segment_bytes < <double>weight:
                    segment = self._open_segment(at, h)
                    ino = 0
                at = self._place(at, i, segment, &ino)
        for i in range(self.count):
            entry = &self.entries[i]
            if entry.length and not entry.ino and entry.mode & S_IFMT == S_IFREG:
                segment = self._open_segment(at, XXH3_64bits(entry.path, entry.length))
                segment.large = 1
                ino = 0
                at = self._place(at, i, segment, &ino)
        self.written = at
        self._distinct_ids()

    cdef void _distinct_ids(self) noexcept nogil:
        """Equal ids would join the hard links of two segments."""
        cdef size_t i, n = self.segments_count
        cdef tree_segment *segment
        cdef uint64_t *ids = <uint64_t *>malloc(n * sizeof(uint64_t))
        if ids == NULL:
            self._fail(ENOMEM, b"")
            return
        for i in range(n):
            ids[i] = (<uint64_t>self.segments[i].id << 32) | i
        qsort(ids, n, sizeof(uint64_t), by_number)
        for i in range(1, n):
            segment = &self.segments[ids[i] & TREE_U32]
            if segment.id <= self.segments[ids[i - 1] & TREE_U32].id:
                segment.id = self.segments[ids[i - 1] & TREE_U32].id + 1
        free(ids)

    # ---- digests -------------------------------------------------------------------------------------------

    def recall(self, bytes index):
        """Take digests from an earlier `remember()` for every inode whose identity, size and times are the same."""
        cdef size_t n = PyBytes_GET_SIZE(index) // sizeof(tree_record)
        cdef const tree_record *records = <const tree_record *><char *>index
        cdef size_t size = 16
        while size < 2 * n:
            size <<= 1
        cdef uint32_t *table = <uint32_t *>calloc(size, sizeof(uint32_t))
        cdef size_t i, slot
        cdef tree_entry *entry
        if table == NULL:
            raise MemoryError
        with nogil:
            for i in range(n):
                slot = mix(records[i].dev, records[i].ino) & (size - 1)
                while table[slot]:
                    slot = (slot + 1) & (size - 1)
                table[slot] = <uint32_t>(i + 1)
            for i in range(self.count):
                entry = &self.entries[i]
                slot = mix(entry.known.dev, entry.known.ino) & (size - 1)
                while table[slot]:
                    if memcmp(&records[table[slot] - 1], &entry.known, 40) == 0:
                        entry.known = records[table[slot] - 1]
                        break
                    slot = (slot + 1) & (size - 1)
            free(table)

    def remember(self, uint64_t before_ns):
        """What is known, for `recall()`; inodes that changed after `before_ns` are left out, for they may change
        again within one tick of the file system's clock without anything to show for it."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, self.count * sizeof(tree_record))
        cdef tree_record *records = <tree_record *>PyBytes_AS_STRING(out)
        cdef size_t i, n = 0
        for i in range(self.count):
            if self.entries[i].known.flags and self.entries[i].known.ctime_ns < before_ns:
                records[n] = self.entries[i].known
                n += 1
        return out[: n * sizeof(tree_record)]

    # ---- bytes ---------------------------------------------------------------------------------------------

    cdef uint64_t _head(self, char *out, const tree_entry *entry, uint32_t segment) noexcept nogil:
        cdef newc_fields f
        memset(&f, 0, sizeof(f))
        f.ino, f.mode, f.uid, f.gid = entry.ino, entry.mode, entry.uid, entry.gid
        f.nlink, f.mtime, f.devminor = entry.links, <uint32_t>entry.mtime, segment
        if entry.carries:
            f.filesize = <uint32_t>entry.known.size
        elif entry.mode & S_IFMT == S_IFLNK:
            f.filesize = entry.target_length
        elif entry.mode & S_IFMT != S_IFDIR and entry.mode & S_IFMT != S_IFREG:
            f.rdevmajor, f.rdevminor = entry.rmajor, entry.rminor
        return newc_head(out, &f, entry.path, entry.length)

    cdef unsigned char _key(self, size_t number, unsigned char *out) noexcept nogil:
        """Hash of all that decides the segment's bytes; 0 when a digest is missing, 2 without memory."""
        cdef tree_segment *segment = &self.segments[number]
        cdef tree_entry *entry
        cdef char head[4096 + 128]
        cdef uint64_t length
        cdef size_t i
        cdef XXH128_hash_t digest
        cdef XXH3_state_t *state
        for i in range(segment.start, segment.start + segment.count):
            entry = &self.entries[self.order[i]]
            if entry.carries and not entry.known.flags & DIGEST:
                return 0
        state = XXH3_createState()
        if state == NULL:
            return 2
        XXH3_128bits_reset(state)
        for i in range(segment.start, segment.start + segment.count):
            entry = &self.entries[self.order[i]]
            length = self._head(head, entry, segment.id)
            XXH3_128bits_update(state, head, length)
            if entry.carries:
                XXH3_128bits_update(state, &entry.known.low, 16)
            elif entry.target_length:
                XXH3_128bits_update(state, entry.target, entry.target_length)
        digest = XXH3_128bits_digest(state)
        XXH3_freeState(state)
        memcpy(out, &digest, 16)
        return 1

    def key(self, size_t number):
        """16 bytes that name the segment's content, or None while the digest of a file is unknown."""
        return self.keys(number, number + 1)[0]

    def keys(self, size_t start, size_t stop):
        """The keys of segments start to stop - 1 as a list."""
        cdef size_t n = stop - start, i
        cdef bytearray out = bytearray(16 * n)
        cdef bytearray states = bytearray(n)
        cdef unsigned char[::1] bytes_out = out
        cdef unsigned char[::1] done = states
        if n == 0:
            return []
        with nogil:
            for i in range(n):
                done[i] = self._key(start + i, &bytes_out[16 * i])
        if 2 in states:
            raise MemoryError
        return [bytes(out[16 * i : 16 * i + 16]) if states[i] else None for i in range(n)]

    def fill(self, size_t number, unsigned char[::1] buffer):
        """Write the segment's raw bytes and learn its digests; several threads may fill different segments.

        Raises OSError with the path; ESTALE means that a file is not what the walk saw.
        """
        cdef tree_segment *segment = &self.segments[number]
        cdef const char *culprit = NULL
        cdef int number_of_error = 0
        if <uint64_t>buffer.shape[0] < segment.size:
            raise ValueError("buffer too small")
        with nogil:
            number_of_error = self._fill(segment, <char *>&buffer[0], &culprit)
        if number_of_error:
            raise OSError(number_of_error, os.strerror(number_of_error), os.fsdecode(culprit))

    cdef int _fill(self, tree_segment *segment, char *out, const char **culprit) noexcept nogil:
        cdef tree_entry *entry
        cdef size_t i
        cdef uint64_t padded
        cdef int failed
        for i in range(segment.start, segment.start + segment.count):
            entry = &self.entries[self.order[i]]
            out += self._head(out, entry, segment.id)
            if entry.carries:
                if entry.known.size:
                    failed = self._content(entry, out)
                    if failed:
                        culprit[0] = entry.path
                        return failed
                    padded = newc_padded(entry.known.size)
                    memset(out + entry.known.size, 0, padded - entry.known.size)
                    out += padded
                else:
                    failed = self._content(entry, out)
                    if failed:
                        culprit[0] = entry.path
                        return failed
            elif entry.target_length:
                padded = newc_padded(entry.target_length)
                memcpy(out, entry.target, entry.target_length)
                memset(out + entry.target_length, 0, padded - entry.target_length)
                out += padded
        return 0

    cdef int _content(self, tree_entry *entry, char *out) noexcept nogil:
        """Read one file whole; it must be the file of the walk before and after."""
        cdef stat_t now
        cdef uint64_t done = 0
        cdef ssize_t got
        cdef int failed = 0
        cdef XXH128_hash_t digest
        cdef int fd = openat(self.fd, entry.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        if fd < 0:
            return errno
        while done < entry.known.size:
            got = read(fd, out + done, entry.known.size - done)
            if got < 0:
                if errno == EINTR:
                    continue
                failed = errno
                break
            if got == 0:
                failed = ESTALE
                break
            done += <uint64_t>got
        if not failed and (fstat(fd, &now) < 0 or not same(&entry.known, &now)):
            failed = ESTALE
        if not failed:
            digest = XXH3_128bits(out, entry.known.size)
            entry.known.low, entry.known.high = digest.low64, digest.high64
            entry.known.flags = DIGEST | (HAS_XATTR if flistxattr(fd, NULL, 0) > 0 else NO_XATTR)
        close(fd)
        return failed

    def start_stream(self, size_t number):
        """For a segment of one large file: (all its headers as bytes, an open descriptor, size of the content)."""
        cdef tree_segment *segment = &self.segments[number]
        cdef tree_entry *entry = NULL
        cdef size_t i
        cdef bytearray heads = bytearray()
        cdef char head[4096 + 128]
        cdef uint64_t length
        for i in range(segment.start, segment.start + segment.count):
            entry = &self.entries[self.order[i]]
            length = self._head(head, entry, segment.id)
            heads += head[:length]
        cdef int fd = openat(self.fd, entry.path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        if fd < 0:
            raise OSError(errno, os.strerror(errno), os.fsdecode(entry.path))
        return bytes(heads), fd, entry.known.size

    def end_stream(self, size_t number, int fd, uint64_t low, uint64_t high):
        """Check that the file is the file of the walk, and take its digest."""
        cdef tree_segment *segment = &self.segments[number]
        cdef tree_entry *entry = &self.entries[self.order[segment.start + segment.count - 1]]
        cdef stat_t now
        if fstat(fd, &now) < 0 or not same(&entry.known, &now):
            raise OSError(ESTALE, os.strerror(ESTALE), os.fsdecode(entry.path))
        entry.known.low, entry.known.high = low, high
        entry.known.flags = DIGEST | (HAS_XATTR if flistxattr(fd, NULL, 0) > 0 else NO_XATTR)

    # ---- facts ---------------------------------------------------------------------------------------------

    def size(self, size_t number):
        """Raw bytes of a segment."""
        return self.segments[number].size

    def entries_of(self, size_t number):
        return self.segments[number].count

    def large(self, size_t number):
        return bool(self.segments[number].large)

    def paths(self, size_t number):
        """The names in a segment as bytes, in order."""
        cdef tree_segment *segment = &self.segments[number]
        cdef size_t i
        return [
            self.entries[self.order[i]].path[: self.entries[self.order[i]].length]
            for i in range(segment.start, segment.start + segment.count)
        ]

    def members(self, size_t number):
        """As paths(): (path, mode, uid, gid, mtime, size, (major, minor), target, number of its inode in the segment,
        whether it has the content, what tells whether it changed: device, inode, size, mtime and ctime in ns)."""
        cdef tree_segment *segment = &self.segments[number]
        cdef size_t i
        cdef tree_entry *e
        cdef list found = []
        for i in range(segment.start, segment.start + segment.count):
            e = &self.entries[self.order[i]]
            found.append((
                e.path[: e.length], e.mode, e.uid, e.gid, e.mtime, e.known.size, (e.rmajor, e.rminor),
                e.target[: e.target_length] if e.target_length else b"", e.ino, bool(e.carries),
                (e.known.dev, e.known.ino, e.known.size, e.known.mtime_ns, e.known.ctime_ns),
            ))
        return found

    def first(self, size_t number):
        """The first name in a segment (bytes); empty for a segment without entries."""
        cdef tree_segment *segment = &self.segments[number]
        if segment.count == 0:
            return b""
        return <bytes>self.entries[self.order[segment.start]].path

    def with_xattrs(self):
        """Names (bytes) that have extended attributes; call it when every digest is known."""
        cdef size_t i
        cdef tree_entry *entry
        cdef bytes full
        cdef list found = []
        for i in range(self.written):
            entry = &self.entries[self.order[i]]
            if entry.mode & S_IFMT == S_IFREG and not entry.carries:
                continue  # attributes belong to the inode: the name with its content stands for all
            if not entry.known.flags & (NO_XATTR | HAS_XATTR):
                full = self.root + b"/" + <bytes>entry.path
                entry.known.flags |= HAS_XATTR if llistxattr(full, NULL, 0) > 0 else NO_XATTR
            if entry.known.flags & HAS_XATTR:
                found.append(<bytes>entry.path)
        return found
