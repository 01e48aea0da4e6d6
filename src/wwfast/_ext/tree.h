/* Shapes shared by the walk and the writer, and prototypes of libxxhash (stable since 0.8.0; no -dev package needed). */
#ifndef WWFAST_TREE_H
#define WWFAST_TREE_H

#include <stddef.h>
#include <stdint.h>

typedef struct { uint64_t low64, high64; } XXH128_hash_t;
typedef struct XXH3_state_s XXH3_state_t;
uint64_t XXH3_64bits(const void *data, size_t length);
XXH128_hash_t XXH3_128bits(const void *data, size_t length);
XXH3_state_t *XXH3_createState(void);
int XXH3_freeState(XXH3_state_t *state);
int XXH3_128bits_reset(XXH3_state_t *state);
int XXH3_128bits_update(XXH3_state_t *state, const void *data, size_t length);
XXH128_hash_t XXH3_128bits_digest(const XXH3_state_t *state);

/* What the digest index remembers of one inode; `flags`: 1 content digest present, 2 no xattrs, 4 has xattrs. */
typedef struct {
    uint64_t dev, ino, size, mtime_ns, ctime_ns, low, high, flags;
} tree_record;

/* A directory whose listing is entries[start .. start + count) of the worker that read it. */
typedef struct tree_dir {
    const char *path;
    uint32_t length;
    uint32_t worker;
    uint32_t xattrs;       /* NO_XATTR or HAS_XATTR */
    uint64_t dev, ino;
    size_t start, count;
    struct tree_dir *next;
} tree_dir;

typedef struct {
    const char *path;      /* relative to the root, NUL-terminated */
    const char *target;    /* of a symbolic link */
    tree_dir *dir;         /* of a directory */
    tree_record known;     /* identity, and the digest once it is known */
    uint64_t mtime;        /* as written, seconds */
    uint32_t length, name; /* of path; offset of its last component */
    uint32_t target_length;
    uint32_t mode, uid, gid, nlink, rmajor, rminor;
    uint32_t ino;          /* within the segment */
    uint32_t links;        /* as written: names of this inode in the archive */
    uint32_t carries;      /* 1: its content follows its header */
    int64_t next_link;     /* index of the inode's next name, or -1 */
} tree_entry;

typedef struct {
    size_t start, count;   /* entries in writing order */
    uint64_t size;         /* raw bytes */
    uint32_t id;           /* c_devminor */
    uint32_t large;        /* one file of `large_from` bytes or more */
} tree_segment;

#define TREE_U32 ((uint64_t)0xFFFFFFFF)

#endif
