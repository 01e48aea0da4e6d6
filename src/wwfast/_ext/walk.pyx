"""The walk of a tree: every name with what stat says of it, several threads together.

Order: a directory's names sorted by bytes, depth first. Directories are shared through one stack; each is opened by
a path without links, and must be the one that was listed.
"""

from libc.errno cimport ENOMEM, ESTALE, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy, memset, strcmp, strlen
from posix.unistd cimport close

from wwfast._ext.files cimport *
from wwfast._ext.live cimport *

import os


cdef char *arena_take(Arena *arena, size_t size) noexcept nogil:
    """`size` bytes, 8-aligned, that live as long as the tree; NULL when memory ran out."""
    cdef size_t want
    cdef char *block
    size = (size + 7) & ~<size_t>7
    if arena.used + size > arena.size:
        want = BLOCK if size < BLOCK // 2 else size + 16
        block = <char *>malloc(want)
        if block == NULL:
            return NULL
        (<void **>block)[0] = arena.blocks
        arena.blocks = block
        arena.block = block
        arena.used = 16
        arena.size = want
    block = arena.block + arena.used
    arena.used += size
    return block


cdef int by_name(const void *a, const void *b) noexcept nogil:
    cdef const tree_entry *x = <const tree_entry *>a
    cdef const tree_entry *y = <const tree_entry *>b
    return strcmp(x.path + x.name, y.path + y.name)


cdef class Walk:
    """One pass over one root: walk() by n threads, then whoever derives from it takes the entries by _gather()."""

    def __cinit__(self, root, patterns=()):
        """`patterns`: globs as bytes without leading or trailing slash; what matches is left out with all below."""
        self.begun = live_begun(0)
        self.fd = -1
        self.root = os.fsencode(root)
        self.patterns = list(patterns)
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.cond, NULL)
        self.patterns_count = len(self.patterns)
        self.pattern = <const char **>calloc(self.patterns_count + 1, sizeof(char *))
        self.matched = <char *>calloc(self.patterns_count + 1, 1)
        if self.pattern == NULL or self.matched == NULL:
            raise MemoryError
        for i, one in enumerate(self.patterns):
            self.pattern[i] = <const char *>one
        self.fd = open(self.root, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno), os.fsdecode(self.root))
        cdef stat_t now
        fstat(self.fd, &now)
        self.dev = now.st_dev
        cdef tree_dir *top = <tree_dir *>calloc(1, sizeof(tree_dir))
        if top == NULL:
            raise MemoryError
        top.path = b"."
        top.dev, top.ino = now.st_dev, now.st_ino
        self.stack = self.top = top

    def __dealloc__(self):
        cdef void *block
        cdef void *next_block
        cdef int i
        if not self.begun:
            return
        live_ended(0)
        for i in range(self.workers_count):
            block = self.workers[i].arena.blocks
            while block != NULL:
                next_block = (<void **>block)[0]
                free(block)
                block = next_block
            free(self.workers[i].entries)
            free(self.workers[i].listing)
        free(self.pattern)
        free(self.matched)
        free(self.top)
        free(self.entries)
        if self.fd >= 0:
            close(self.fd)
        pthread_cond_destroy(&self.cond)
        pthread_mutex_destroy(&self.mutex)

    def walk(self):
        """Take directories until none is left; several threads call it together. Raises OSError with the path."""
        with nogil:
            self._walk()
        if self.failed:
            raise OSError(self.failed, os.strerror(self.failed), os.fsdecode(self.failed_path))

    cdef void _fail(self, int number, const char *path) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        if not self.failed:
            self.failed = number
            self.failed_path = path
        pthread_cond_broadcast(&self.cond)
        pthread_mutex_unlock(&self.mutex)

    cdef void _walk(self) noexcept nogil:
        cdef tree_dir *directory
        cdef int me
        pthread_mutex_lock(&self.mutex)
        me = self.workers_count
        if me == WORKERS:
            pthread_mutex_unlock(&self.mutex)
            return
        self.workers_count += 1
        self.workers[me].listing = <char *>malloc(LISTING)
        while True:
            while self.stack == NULL and self.active and not self.failed:
                pthread_cond_wait(&self.cond, &self.mutex)
            if self.stack == NULL or self.failed:
                break
            directory = self.stack
            self.stack = directory.next
            self.active += 1
            pthread_mutex_unlock(&self.mutex)
            self._list(directory, me)
            pthread_mutex_lock(&self.mutex)
            self.active -= 1
            if self.active == 0:
                pthread_cond_broadcast(&self.cond)
        pthread_mutex_unlock(&self.mutex)

    cdef bint _excluded(self, const char *path) noexcept nogil:
        cdef int i
        for i in range(self.patterns_count):
            if fnmatch(self.pattern[i], path, FNM_PATHNAME) == 0:
                self.matched[i] = 1  # several threads write the same byte, all the same value
                return True
        return False

    def idle(self):
        """The patterns that matched nothing in the walk."""
        return [self.patterns[i] for i in range(self.patterns_count) if not self.matched[i]]

    cdef void _list(self, tree_dir *directory, int me) noexcept nogil:
        """Read one directory: its entries, sorted, join the worker's; its subdirectories go on the stack."""
        cdef Worker *worker = &self.workers[me]
        cdef stat_t now
        cdef long got, at
        cdef tree_dirent64 *item
        cdef tree_entry *entry
        cdef tree_dir *found = NULL
        cdef tree_dir *last = NULL
        cdef int fd
        cdef size_t i
        if worker.listing == NULL:
            self._fail(ENOMEM, directory.path)
            return
        fd = openat(self.fd, directory.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        if fd < 0:
            self._fail(errno, directory.path)
            return
        if fstat(fd, &now) < 0 or now.st_dev != directory.dev or now.st_ino != directory.ino:
            close(fd)
            self._fail(ESTALE, directory.path)
            return
        directory.worker = me
        directory.xattrs = HAS_XATTR if flistxattr(fd, NULL, 0) > 0 else NO_XATTR
        directory.start = worker.count
        while True:
            got = syscall(SYS_getdents64, fd, worker.listing, LISTING)
            if got < 0:
                self._fail(errno, directory.path)
                break
            if got == 0:
                break
            at = 0
            while at < got:
                item = <tree_dirent64 *>(worker.listing + at)
                at += item.reclen
                if item.name[0] == c"." and (item.name[1] == 0 or (item.name[1] == c"." and item.name[2] == 0)):
                    continue
                if not self._add(directory, worker, fd, item.name):
                    close(fd)
                    return
        close(fd)
        directory.count = worker.count - directory.start
        qsort(worker.entries + directory.start, directory.count, sizeof(tree_entry), by_name)
        for i in range(directory.start, worker.count):
            entry = &worker.entries[i]
            if entry.dir != NULL and entry.dir.dev == self.dev:
                entry.dir.next = found
                found = entry.dir
                if last == NULL:
                    last = found
        if found != NULL:
            pthread_mutex_lock(&self.mutex)
            last.next = self.stack
            self.stack = found
            pthread_cond_broadcast(&self.cond)
            pthread_mutex_unlock(&self.mutex)

    cdef bint _add(self, tree_dir *directory, Worker *worker, int fd, const char *name) noexcept nogil:
        """Stat one name and append it; False after a failure."""
        cdef stat_t now
        cdef size_t name_length = strlen(name)
        cdef size_t offset = directory.length + 1 if directory.length else 0
        cdef char *path = arena_take(&worker.arena, offset + name_length + 1)
        cdef tree_entry *entry
        cdef tree_entry *grown
        cdef size_t room
        cdef ssize_t length
        cdef char *target
        if path == NULL:
            self._fail(ENOMEM, directory.path)
            return False
        if offset:
            memcpy(path, directory.path, directory.length)
            path[directory.length] = c"/"
        memcpy(path + offset, name, name_length + 1)
        if self.patterns_count and self._excluded(path):
            return True
        if fstatat(fd, name, &now, AT_SYMLINK_NOFOLLOW) < 0:
            self._fail(errno, path)
            return False
        if worker.count == worker.room:
            room = worker.room * 2 if worker.room else 1024
            grown = <tree_entry *>realloc(worker.entries, room * sizeof(tree_entry))
            if grown == NULL:
                self._fail(ENOMEM, path)
                return False
            worker.entries, worker.room = grown, room
        entry = &worker.entries[worker.count]
        memset(entry, 0, sizeof(tree_entry))
        entry.path = path
        entry.length = <uint32_t>(offset + name_length)
        entry.name = <uint32_t>offset
        entry.mode, entry.uid, entry.gid = now.st_mode, now.st_uid, now.st_gid
        entry.nlink = <uint32_t>now.st_nlink
        entry.rmajor, entry.rminor = major(now.st_rdev), minor(now.st_rdev)
        entry.mtime = <uint64_t>now.st_mtim.tv_sec
        entry.known.dev, entry.known.ino, entry.known.size = now.st_dev, now.st_ino, <uint64_t>now.st_size
        entry.known.mtime_ns, entry.known.ctime_ns = nanoseconds(&now.st_mtim), nanoseconds(&now.st_ctim)
        entry.next_link = -1
        if entry.mode & S_IFMT == S_IFDIR:
            entry.dir = <tree_dir *>arena_take(&worker.arena, sizeof(tree_dir))
            if entry.dir == NULL:
                self._fail(ENOMEM, path)
                return False
            memset(entry.dir, 0, sizeof(tree_dir))
            entry.dir.path, entry.dir.length = path, entry.length
            entry.dir.dev, entry.dir.ino = now.st_dev, now.st_ino
        elif entry.mode & S_IFMT == S_IFLNK:
            target = arena_take(&worker.arena, 4096)
            if target == NULL:
                self._fail(ENOMEM, path)
                return False
            length = readlinkat(fd, name, target, 4095)
            if length < 0:
                self._fail(errno, path)
                return False
            worker.arena.used -= 4096 - ((length + 8) & ~7)
            target[length] = 0
            entry.target, entry.target_length = target, <uint32_t>length
        worker.count += 1
        return True

    cdef int _gather(self) except -1:
        """All entries in one place, in order; those of the workers are gone."""
        cdef size_t total = 0
        cdef int w
        for w in range(self.workers_count):
            total += self.workers[w].count
        self.entries = <tree_entry *>malloc((total + 1) * sizeof(tree_entry))
        if self.entries == NULL:
            raise MemoryError
        with nogil:
            self._collect(self.top)
            for w in range(self.workers_count):
                free(self.workers[w].entries)
                self.workers[w].entries = NULL
        return 0

    cdef void _collect(self, tree_dir *directory) noexcept nogil:
        """Depth first, names in order: a parent stands before what is below it."""
        cdef tree_entry *listed = self.workers[directory.worker].entries + directory.start
        cdef size_t i
        for i in range(directory.count):
            self.entries[self.count] = listed[i]
            self.count += 1
            if listed[i].dir != NULL and listed[i].dir.dev == self.dev:
                self.entries[self.count - 1].known.flags = listed[i].dir.xattrs
                self._collect(listed[i].dir)


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Tree": live_count(0)}
