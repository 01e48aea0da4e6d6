"""Counting of live native objects; `live_begun` is 1, so that a `__dealloc__` knows whether its object ever began.

An object whose arguments were wrong is deallocated too, all zeros, and 0 is a descriptor of somebody else.
"""


cdef extern from "live.h" nogil:
    bint live_begun(int kind)
    void live_ended(int kind)
    long live_count(int kind)
