"""Does a tree say only what a schema allows, in the plainest way? Yes or no, no reasons.

`accepts(tree, plan)`: plan maps each known key to (code, extra). The codes are below. A text is (code, check): what has
the everyday form of that code is right, for the others the check is called (it returns "" for a right value). Extra of a
list is the text of its items, of tags the texts of keys and of values, of a struct its plan, of structs the text of
their names and their plan. A tree with unknown keys, nulls, quoted or typed values is not accepted: the caller then
looks closely, in Python, and finds the words for what is wrong.
"""

from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.ref cimport PyObject

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

TEXT, CHECKED, ADDRESS, HOST, HWADDR, NAME, LIST, TAGS, STRUCT, STRUCTS, OTHER = range(11)


cdef bint is_plain(const char *at, Py_ssize_t size) noexcept nogil:
    """One short line of printable ASCII, not blank, without what iPXE may run."""
    cdef Py_ssize_t i
    if size == 0 or size > 255 or at[0] == c" ":
        return False
    for i in range(size):
        if at[i] < 0x20 or at[i] > 0x7e or at[i] == c"$" or at[i] == c"|" or at[i] == c"&":
            return False
    return True


cdef bint is_name(const char *at, Py_ssize_t size) noexcept nogil:
    """Letters, digits, _ and, between such, - and single dots."""
    cdef Py_ssize_t i
    cdef char c, before = c"."
    if size > 63:
        return False
    for i in range(size):
        c = at[i]
        if not (c"a" <= c <= c"z" or c"0" <= c <= c"9" or c"A" <= c <= c"Z" or c == c"_"):
            if not (c == c"-" or c == c".") or before == c".":
                return False
        before = c
    return before != c"."


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
    """Six pairs of hex digits with colons that a card can have: not all are 0, and the first pair is even."""
    cdef Py_ssize_t i
    cdef char c
    cdef bint some = False
    if size != 17:
        return False
    for i in range(17):
        c = at[i]
        if i % 3 == 2:
            if c != c":":
                return False
        elif not (c"0" <= c <= c"9" or c"a" <= c <= c"f" or c"A" <= c <= c"F"):
            return False
        elif c != c"0":
            some = True
    return some and (at[1] & 1) == (at[1] > c"9")  # the codes of a and A are odd


cdef bint text_fits(object value, tuple text) except -1:
    cdef Py_ssize_t size
    cdef const char *at
    cdef int code = text[0]
    if type(value) is not str:
        return False
    if code == 1:
        return not text[1](value)
    try:
        at = PyUnicode_AsUTF8AndSize(value, &size)
    except UnicodeEncodeError:
        return False
    if (
        is_plain(at, size) if code == 0
        else is_address(at, size) if code == 2
        else is_host(at, size) if code == 3
        else is_ethernet(at, size) if code == 4
        else is_name(at, size)
    ):
        return True
    return not text[1](value)


cdef bint walk(dict tree, dict plan) except -1:
    cdef Py_ssize_t at = 0, inner
    cdef PyObject *key
    cdef PyObject *value
    cdef PyObject *found
    cdef PyObject *name
    cdef PyObject *item
    cdef tuple spec
    cdef int code
    while PyDict_Next(tree, &at, &key, &value):
        found = PyDict_GetItem(plan, <object>key)
        if found == NULL:
            return False
        spec = <tuple>found
        code = spec[0]
        if code <= 5:
            if type(<object>value) is not str or (<object>value and not text_fits(<object>value, spec)):
                return False
            continue
        extra = spec[1]
        if code == 6:
            if type(<object>value) is not list:
                return False
            for each in <list>value:
                if not text_fits(each, extra):
                    return False
        elif code == 10 or type(<object>value) is not dict:
            return False
        elif code == 8:
            if not walk(<dict>value, extra):
                return False
        else:
            names, inside = extra
            inner = 0
            while PyDict_Next(<dict>value, &inner, &name, &item):
                if not text_fits(<object>name, names):
                    return False
                if code == 7:
                    if not text_fits(<object>item, inside):
                        return False
                elif type(<object>item) is not dict or not walk(<dict>item, inside):
                    return False
    return True


def accepts(tree, dict plan not None):
    """Whether `tree` is a map that needs no closer look."""
    return type(tree) is dict and walk(tree, plan)
