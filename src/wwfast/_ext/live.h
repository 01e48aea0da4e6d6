/* Live native objects, counted in a debug build by the type that owns memory or a descriptor; nothing in others. */
#pragma once
#ifdef WWFAST_DEBUG
static long live_objects[2];  /* of this extension */
#define live_begun(kind) (__atomic_add_fetch(&live_objects[kind], 1, __ATOMIC_RELAXED), 1)
#define live_ended(kind) ((void)__atomic_sub_fetch(&live_objects[kind], 1, __ATOMIC_RELAXED))
#define live_count(kind) __atomic_load_n(&live_objects[kind], __ATOMIC_RELAXED)
#else
#define live_begun(kind) 1
#define live_ended(kind) ((void)0)
#define live_count(kind) 0L
#endif
