"""Does a tree say only what a schema allows, in the plainest way? Yes or no, no reasons.

`accepts(tree, plan)`: plan maps each known key to (code, extra). The codes are below; extra is the plan of a struct, or
the check of a text, or of each text of a list (a callable that returns "" for a right value; None for no check). A tree with unknown keys, nulls, quoted or typed
values is not accepted: the caller then looks closely, in Python, and finds the words for what is wrong.
"""

from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.ref cimport PyObject

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

TEXT, CHECKED, ADDRESS, HOST, HWADDR, LIST, TAGS, STRUCT, STRUCTS, OTHER = range(10)


cdef bint is_address(const char *at, Py_ssize_t size) noexcept nogil:
    """Dotted quad without leading zeros."""
    cdef int parts = 0, number = 0, digits = 0
    cdef Py_ssize_t i
    cdef char c
    for i in range(size):
        c = at[i]
        if c == c".":
            if digits == 0 or parts == 3:
                return False
            parts += 1
            number = digits = 0
        elif c"0" <= c <= c"9":
            if digits and number == 0:
                return False
            number = number * 10 + c - c"0"
            digits += 1
            if number > 255:
                return False
        else:
            return False
    return parts == 3 and digits > 0


cdef bint is_host(const char *at, Py_ssize_t size) noexcept nogil:
    """A dotted quad whose first number alone says that a host can have it: 1 to 223, but not 127."""
    cdef int first = 0
    cdef Py_ssize_t i = 0
    if not is_address(at, size):
        return False
    while at[i] != c".":
        first = first * 10 + at[i] - c"0"
        i += 1
    return 0 < first < 224 and first != 127


cdef bint is_ethernet(const char *at, Py_ssize_t size) noexcept nogil:
    """Six pairs of hex digits with colons."""
    cdef Py_ssize_t i
    cdef char c
    if size != 17:
        return False
    for i in range(17):
        c = at[i]
        if i % 3 == 2:
            if c != c":":
                return False
        elif not (c"0" <= c <= c"9" or c"a" <= c <= c"f" or c"A" <= c <= c"F"):
            return False
    return True


cdef bint text_fits(object value, int code, object check) except -1:
    cdef Py_ssize_t size
    cdef const char *at
    if code == 0 or not value:
        return True
    if code >= 2:
        at = PyUnicode_AsUTF8AndSize(value, &size)
        if is_address(at, size) if code == 2 else is_host(at, size) if code == 3 else is_ethernet(at, size):
            return True
    return not check(value)


cdef bint walk(dict tree, dict plan) except -1:
    cdef Py_ssize_t at = 0, inner
    cdef PyObject *key
    cdef PyObject *value
    cdef PyObject *found
    cdef PyObject *name
    cdef PyObject *item
    cdef int code
    while PyDict_Next(tree, &at, &key, &value):
        found = PyDict_GetItem(plan, <object>key)
        if found == NULL:
            return False
        code = (<tuple>found)[0]
        if code <= 4:
            if type(<object>value) is not str or not text_fits(<object>value, code, (<tuple>found)[1]):
                return False
        elif code == 5:
            if type(<object>value) is not list:
                return False
            check = (<tuple>found)[1]
            for each in <list>value:
                if type(each) is not str or not text_fits(each, check is not None, check):
                    return False
        elif code == 9 or type(<object>value) is not dict:
            return False
        elif code == 7:
            if not walk(<dict>value, (<tuple>found)[1]):
                return False
        else:
            inner = 0
            while PyDict_Next(<dict>value, &inner, &name, &item):
                if code == 6:
                    if type(<object>item) is not str:
                        return False
                elif type(<object>item) is not dict or not walk(<dict>item, (<tuple>found)[1]):
                    return False
    return True


def accepts(tree, dict plan not None):
    """Whether `tree` is a map that needs no closer look."""
    return type(tree) is dict and walk(tree, plan)
