"""Attribute access, calls and printing of templates, the parts that run hundreds of times per node.

Each `make_*` returns a function for jinja2.Environment that handles the common types itself and leaves the others to
`fallback`, the sandbox. What is handled here is safe by its type: values of plain maps, public values (not
methods) of structs, harmless methods of strings and maps.
"""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport PyCallable_Check, PyObject, PyObject_TypeCheck, PyTypeObject

cdef frozenset MAP_METHODS = frozenset(("items", "keys", "values", "get"))
cdef frozenset TEXT_METHODS = frozenset((
    "capitalize", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "join", "ljust", "lower", "lstrip",
    "partition", "removeprefix", "removesuffix", "replace", "rfind", "rjust", "rpartition", "rsplit", "rstrip", "split",
    "splitlines", "startswith", "strip", "title", "upper", "zfill",
))
cdef type BUILTIN = type({}.get)


def make_getattr(object struct, frozenset open, undefined, fallback):
    """`open` are types whose public attributes may all be read; `undefined(obj, name)` is what is not there."""

    def getattr_(object obj, str attribute):
        cdef PyObject* found
        if type(obj) is dict:
            if attribute in MAP_METHODS:
                return getattr(obj, attribute)
            found = PyDict_GetItemWithError(obj, attribute)
            if found is not NULL:
                return <object>found
            return undefined(obj, attribute)
        if PyObject_TypeCheck(obj, <PyTypeObject*>struct):
            if not attribute.startswith("_"):
                try:
                    value = getattr(obj, attribute)
                except AttributeError:
                    pass
                else:
                    if not PyCallable_Check(value):
                        return value
            return undefined(obj, attribute)
        if type(obj) is str:
            if attribute in TEXT_METHODS:
                return getattr(obj, attribute)
        elif type(obj) in open and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return undefined(obj, attribute)
        return fallback(obj, attribute)

    return getattr_


def make_getitem(object struct, undefined, getattr_, fallback):
    def getitem(object obj, object argument):
        if type(obj) is dict:
            try:
                return obj[argument]
            except (KeyError, TypeError):
                return undefined(obj, str(argument))
        if PyObject_TypeCheck(obj, <PyTypeObject*>struct):
            return getattr_(obj, str(argument))
        return fallback(obj, argument)

    return getitem


def make_call(frozenset plain, fallback):
    """`plain` are functions that may be called as they are."""

    def call(object context, object obj, *args, **kwargs):
        if type(obj) is BUILTIN:
            owner = type(obj.__self__)
            if owner is dict or owner is str:
                # Jinja2 adds keyword arguments of its own, for functions that want the context.
                kwargs.pop("_block_vars", None)
                kwargs.pop("_loop_vars", None)
                return obj(*args, **kwargs)
        elif obj in plain:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return obj(*args, **kwargs)
        return fallback(context, obj, *args, **kwargs)

    return call


def finalize(object value):
    """What is printed for nothing and for yes and no, as configuration files spell them."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if value is True:
        return "true"
    return "false" if value is False else value
