"""The system calls of the walk. Declarations only."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "<fcntl.h>" nogil:
    int open(const char *path, int flags, ...)
    int openat(int fd, const char *path, int flags, ...)
    int AT_SYMLINK_NOFOLLOW, O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_CLOEXEC


cdef extern from "<sys/stat.h>" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    cdef struct stat_t "stat":
        uint64_t st_dev, st_ino, st_nlink, st_rdev
        uint32_t st_mode, st_uid, st_gid
        int64_t st_size
        timespec st_mtim, st_ctim
    int fstatat(int fd, const char *path, stat_t *result, int flags)
    int fstat(int fd, stat_t *result)


cdef extern from "<sys/sysmacros.h>" nogil:
    uint32_t major(uint64_t dev)
    uint32_t minor(uint64_t dev)


cdef extern from "<sys/xattr.h>" nogil:
    ssize_t flistxattr(int fd, char *out, size_t size)
    ssize_t llistxattr(const char *path, char *out, size_t size)


cdef extern from "<fnmatch.h>" nogil:
    int fnmatch(const char *pattern, const char *text, int flags)
    int FNM_PATHNAME


cdef extern from "<unistd.h>" nogil:
    ssize_t readlinkat(int fd, const char *path, char *out, size_t size)
    long syscall(long number, ...)


cdef extern from "<sys/syscall.h>" nogil:
    long SYS_getdents64


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *mutex, void *attributes)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_cond_init(pthread_cond_t *cond, void *attributes)
    int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
    int pthread_cond_broadcast(pthread_cond_t *cond)
    int pthread_cond_destroy(pthread_cond_t *cond)


cdef extern from *:
    """
    struct tree_dirent64 { uint64_t ino; int64_t off; unsigned short reclen; unsigned char type; char name[]; };
    """
    cdef struct tree_dirent64:
        unsigned short reclen
        char name[1]
