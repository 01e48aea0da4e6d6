/* Preloaded into a program: fails, cuts or kills at the Nth call that changes what is below one directory.
 *
 * The orders come from a file (FAULT_STATE) that the test maps, too, so that a running program, its threads and its
 * children are armed and disarmed at will and counted together. See shim.py for the layout. A call is counted when it
 * could change the directory: opening with O_CREAT or O_TRUNC, writing, giving a length, making it durable, renaming,
 * linking, making a directory, removing. Not seen: the C library's own calls (stdio), static programs, mapped memory.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, RENAME = 16, LINK = 32, MKDIR = 64, REMOVE = 128 };
enum { NOTHING, FAIL, SHORT, KILL };

#define LOG_SIZE (4u << 20)

struct state {
    atomic_uint armed;
    uint32_t at;     /* the call that is hit, from 1; 0 only counts */
    uint32_t kind;   /* FAIL, SHORT, KILL */
    uint32_t error;  /* errno of FAIL */
    uint32_t sticky; /* those that are hit after it, too */
    uint32_t ops;    /* those that are counted */
    atomic_uint count;
    atomic_uint fired;
    atomic_uint used; /* bytes of the log */
    char directory[1024];
    char log[LOG_SIZE];
};

static struct state *state;

__attribute__((constructor)) static void attach(void) {
    const char *name = getenv("FAULT_STATE");
    int fd = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at != MAP_FAILED) state = at;
}

#define REAL(type, name, ...)                                   \
    static type (*real)(__VA_ARGS__);                           \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

static ssize_t link_of(int fd, char *into, size_t room) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(fd == AT_FDCWD ? "/proc/self/cwd" : name, into, room - 1);
    into[length < 0 ? 0 : length] = 0;
    return length;
}

static void path_of(int at, const char *name, char *into) {
    into[0] = 0;
    if (!name) return;
    if (name[0] == '/') {
        snprintf(into, PATH_MAX, "%s", name);
        return;
    }
    ssize_t length = link_of(at, into, PATH_MAX);
    if (length >= 0) snprintf(into + length, PATH_MAX - (size_t)length, "/%s", name);
}

static int below(const char *path) {
    size_t length = strlen(state->directory);
    return length && !strncmp(path, state->directory, length) && (path[length] == '/' || !path[length]);
}

static void note(const char *op, const char *path, const char *other, int hit) {
    char line[2 * PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s%s\t%s\t%s\n", hit ? "!" : "", op, path, other);
    unsigned at = atomic_fetch_add(&state->used, (unsigned)length);
    if (at + (unsigned)length < LOG_SIZE) memcpy(state->log + at, line, (size_t)length);
}

/* What is to happen to this call; FAIL has set errno. KILL is returned for writes only: half is written before. */
static int hit(unsigned op, const char *name, const char *path, const char *other) {
    if (!state || !atomic_load(&state->armed) || !(below(path) || below(other))) return NOTHING;
    int saved = errno;
    unsigned mine = state->ops & op ? atomic_fetch_add(&state->count, 1) + 1 : 0;
    int now = mine && state->at && (mine == state->at || (state->sticky & op && mine > state->at));
    note(name, path, other, now);
    errno = saved;
    if (!now) return NOTHING;
    atomic_fetch_add(&state->fired, 1);
    if (state->kind == KILL && op != WRITE) {
        kill(0, SIGKILL);
        for (;;) pause();
    }
    if (state->kind == FAIL) errno = (int)state->error;
    return (int)state->kind;
}

static int hit_fd(unsigned op, const char *name, int fd) {
    char path[PATH_MAX];
    if (!state || !atomic_load(&state->armed)) return NOTHING;
    int saved = errno;
    if (link_of(fd, path, sizeof path) <= 0) path[0] = 0;
    errno = saved;
    return hit(op, name, path, "");
}

static int hit_at(unsigned op, const char *name, int at, const char *first, int to, const char *second) {
    char path[PATH_MAX], other[PATH_MAX];
    if (!state || !atomic_load(&state->armed)) return NOTHING;
    int saved = errno;
    path_of(at, first, path);
    path_of(to, second, other);
    errno = saved;
    return hit(op, name, path, other);
}

static ssize_t killed(ssize_t done, int what) {
    if (what == KILL) {
        kill(0, SIGKILL);
        for (;;) pause();
    }
    return done;
}

static size_t half(size_t length, int what) { return what == NOTHING || length < 2 ? length : length / 2; }

#define WRITER(name, fd, length, type, params, ...)             \
    type name params {                                          \
        REAL(type, name, __VA_ARGS__);                          \
        int what = hit_fd(WRITE, "write", fd);                  \
        if (what == FAIL) return -1;                            \
        length = half(length, what);                            \
        return killed(CALL, what);                              \
    }

#define CALL real(fd, data, length)
WRITER(write, fd, length, ssize_t, (int fd, const void *data, size_t length), int, const void *, size_t)
#undef CALL
#define CALL real(fd, data, length, at)
WRITER(pwrite, fd, length, ssize_t, (int fd, const void *data, size_t length, off_t at), int, const void *, size_t,
       off_t)
WRITER(pwrite64, fd, length, ssize_t, (int fd, const void *data, size_t length, off64_t at), int, const void *, size_t,
       off64_t)
#undef CALL
#define CALL real(fd, from, at, length)
WRITER(sendfile, fd, length, ssize_t, (int fd, int from, off_t *at, size_t length), int, int, off_t *, size_t)
WRITER(sendfile64, fd, length, ssize_t, (int fd, int from, off64_t *at, size_t length), int, int, off64_t *, size_t)
#undef CALL
#define CALL real(from, at, fd, to, length, flags)
WRITER(copy_file_range, fd, length, ssize_t,
       (int from, off64_t *at, int fd, off64_t *to, size_t length, unsigned flags), int, off64_t *, int, off64_t *,
       size_t, unsigned)
#undef CALL

/* A vector is cut to its first half, or its first buffer. */
#define VECTOR(name, params, call_whole, call_half, ...)                        \
    ssize_t name params {                                                       \
        REAL(ssize_t, name, __VA_ARGS__);                                       \
        int what = hit_fd(WRITE, "write", fd);                                  \
        if (what == FAIL) return -1;                                            \
        if (what == NOTHING || count < 1) return call_whole;                    \
        struct iovec one = {vector->iov_base, half(vector->iov_len, what)};     \
        return killed(call_half, what);                                         \
    }
VECTOR(writev, (int fd, const struct iovec *vector, int count), real(fd, vector, count), real(fd, &one, 1), int,
       const struct iovec *, int)
VECTOR(pwritev, (int fd, const struct iovec *vector, int count, off_t at), real(fd, vector, count, at),
       real(fd, &one, 1, at), int, const struct iovec *, int, off_t)
VECTOR(pwritev64, (int fd, const struct iovec *vector, int count, off64_t at), real(fd, vector, count, at),
       real(fd, &one, 1, at), int, const struct iovec *, int, off64_t)

static int there(int at, const char *name) {
    struct stat facts;
    int saved = errno, found = fstatat(at, name, &facts, AT_SYMLINK_NOFOLLOW) == 0;
    errno = saved;
    return found;
}

/* One that is there can be opened, and is found to be there, on a full disk, too. */
static int opened(int at, const char *name, int flags) {
    if (!(flags & (O_CREAT | O_TRUNC)) || (!(flags & O_TRUNC) && there(at, name))) return NOTHING;
    return hit_at(OPEN, "open", at, name, AT_FDCWD, NULL);
}

static int made(int at, const char *name) {
    return there(at, name) ? NOTHING : hit_at(MKDIR, "mkdir", at, name, AT_FDCWD, NULL);
}

#define MODE(last) va_list rest; va_start(rest, last); mode_t mode = va_arg(rest, mode_t); va_end(rest)
#define OPENER(symbol)                                                          \
    int symbol(const char *name, int flags, ...) {                              \
        MODE(flags);                                                            \
        REAL(int, symbol, const char *, int, ...);                              \
        return opened(AT_FDCWD, name, flags) == FAIL ? -1 : real(name, flags, mode); \
    }
#define OPENER_AT(symbol)                                                       \
    int symbol(int at, const char *name, int flags, ...) {                      \
        MODE(flags);                                                            \
        REAL(int, symbol, int, const char *, int, ...);                         \
        return opened(at, name, flags) == FAIL ? -1 : real(at, name, flags, mode); \
    }
OPENER(open)
OPENER(open64)
OPENER_AT(openat)
OPENER_AT(openat64)

#define SIMPLE(symbol, params, verdict, call, ...)                              \
    int symbol params {                                                         \
        REAL(int, symbol, __VA_ARGS__);                                         \
        return (verdict) == FAIL ? -1 : call;                                   \
    }
SIMPLE(fsync, (int fd), hit_fd(SYNC, "sync", fd), real(fd), int)
SIMPLE(fdatasync, (int fd), hit_fd(SYNC, "sync", fd), real(fd), int)
SIMPLE(syncfs, (int fd), hit_fd(SYNC, "syncfs", fd), real(fd), int)
SIMPLE(ftruncate, (int fd, off_t size), hit_fd(TRUNCATE, "truncate", fd), real(fd, size), int, off_t)
SIMPLE(ftruncate64, (int fd, off64_t size), hit_fd(TRUNCATE, "truncate", fd), real(fd, size), int, off64_t)
SIMPLE(rename, (const char *a, const char *b), hit_at(RENAME, "rename", AT_FDCWD, a, AT_FDCWD, b), real(a, b),
       const char *, const char *)
SIMPLE(renameat, (int x, const char *a, int y, const char *b), hit_at(RENAME, "rename", x, a, y, b), real(x, a, y, b),
       int, const char *, int, const char *)
SIMPLE(renameat2, (int x, const char *a, int y, const char *b, unsigned f), hit_at(RENAME, "rename", x, a, y, b),
       real(x, a, y, b, f), int, const char *, int, const char *, unsigned)
SIMPLE(link, (const char *a, const char *b), hit_at(LINK, "link", AT_FDCWD, a, AT_FDCWD, b), real(a, b), const char *,
       const char *)
SIMPLE(linkat, (int x, const char *a, int y, const char *b, int f), hit_at(LINK, "link", x, a, y, b),
       real(x, a, y, b, f), int, const char *, int, const char *, int)
SIMPLE(symlink, (const char *a, const char *b), hit_at(LINK, "symlink", AT_FDCWD, b, AT_FDCWD, NULL), real(a, b),
       const char *, const char *)
SIMPLE(symlinkat, (const char *a, int y, const char *b), hit_at(LINK, "symlink", y, b, AT_FDCWD, NULL), real(a, y, b),
       const char *, int, const char *)
SIMPLE(mkdir, (const char *a, mode_t m), made(AT_FDCWD, a), real(a, m), const char *, mode_t)
SIMPLE(mkdirat, (int x, const char *a, mode_t m), made(x, a), real(x, a, m), int, const char *, mode_t)
SIMPLE(unlink, (const char *a), hit_at(REMOVE, "remove", AT_FDCWD, a, AT_FDCWD, NULL), real(a), const char *)
SIMPLE(unlinkat, (int x, const char *a, int f), hit_at(REMOVE, "remove", x, a, AT_FDCWD, NULL), real(x, a, f), int,
       const char *, int)
SIMPLE(rmdir, (const char *a), hit_at(REMOVE, "remove", AT_FDCWD, a, AT_FDCWD, NULL), real(a), const char *)
