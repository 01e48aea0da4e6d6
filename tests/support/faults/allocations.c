/* Preloaded into a program: the Nth allocation of our extensions, and of libyaml and libxxhash for them, fails.
 *
 * Who asks is told by the address that the call returns to, so Python's own allocations go on and are not counted: the
 * numbers are the same in every run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void __libc_free(void *);

static atomic_long armed, fails_at, count, held;

static int ours(const void *caller) {
    static const char *const names[] = {"/wwfast/_ext/", "libyaml", "libxxhash"};
    Dl_info info;
    if (!armed || !dladdr(caller, &info) || !info.dli_fname) return 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(info.dli_fname, names[i])) return 1;
    return 0;
}

static int refused(int mine) { return mine && ++count == fails_at; }

static void *given(int mine, void *memory) {
    if (mine && memory) held++;
    return memory;
}

void *malloc(size_t size) {
    int mine = ours(__builtin_return_address(0));
    return refused(mine) ? NULL : given(mine, __libc_malloc(size));
}

void *calloc(size_t n, size_t size) {
    int mine = ours(__builtin_return_address(0));
    return refused(mine) ? NULL : given(mine, __libc_calloc(n, size));
}

void *realloc(void *former, size_t size) {
    int mine = ours(__builtin_return_address(0));
    if (refused(mine)) return NULL;
    void *memory = __libc_realloc(former, size);
    return former ? memory : given(mine, memory);
}

char *strdup(const char *text) {
    int mine = ours(__builtin_return_address(0));
    size_t size = strlen(text) + 1;
    char *copy = refused(mine) ? NULL : given(mine, __libc_malloc(size));
    return copy ? memcpy(copy, text, size) : NULL;
}

void free(void *memory) {
    if (memory && ours(__builtin_return_address(0))) held--;
    __libc_free(memory);
}

/* Counts and fails from here on; the Nth, from 1, is the one that fails, 0 none. */
void allocations_arm(long nth) {
    fails_at = nth;
    count = held = 0;
    armed = 1;
}
void allocations_disarm(void) { armed = 0; }
long allocations_count(void) { return count; }
long allocations_held(void) { return held; }
