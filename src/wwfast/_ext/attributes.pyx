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
WHOLE = "*"


cdef class View:
    """A node as templates see it: which of its fields they look at goes into `reads`; WHOLE where they look at all.

    Templates get at it only by `make_getattr` and `make_getitem`, and by what is here.
    """

    cdef object node
    cdef set reads

    def __init__(self, object node, set reads):
        self.node, self.reads = node, reads

    def __eq__(self, object other):
        return whole(self) == whole(other)

    def __hash__(self):
        self.reads.add(WHOLE)
        return hash(self.node.id)

    def __str__(self):
        return str(whole(self))

    __repr__ = __str__

    def __format__(self, spec):
        return format(str(self), spec)


def whole(object value):
    """The node behind a view, all of which then counts as looked at; anything else as it is."""
    if type(value) is not View:
        return value
    (<View>value).reads.add(WHOLE)
    return (<View>value).node


cdef class Lookup:
    """Resolves the names that stand in a template, and notes which were asked for.

    `vars` are those of the template itself; `fields` maps names to fields of the node, which is `node` (and noted in
    `own`, the others in `asked`); `rest(name)` gives what is left.
    """

    cdef dict vars, fields
    cdef set own, asked
    cdef object rest
    cdef public object node

    def __init__(self, dict fields, set own, set asked, rest):
        self.fields, self.own, self.asked, self.rest = fields, own, asked, rest
        self.vars = {}

    cpdef Lookup within(self, dict vars):
        """The same for a template with these names of its own; it follows the node of `other`."""
        cdef Lookup made = Lookup(self.fields, self.own, self.asked, self.rest)
        made.vars = vars
        made.node = self
        return made

    def __call__(self, str name):
        cdef PyObject* found = PyDict_GetItemWithError(self.vars, name)
        if found is not NULL:
            return <object>found
        found = PyDict_GetItemWithError(self.fields, name)
        if found is NULL:
            self.asked.add(name)
            return self.rest(name)
        self.own.add(<object>found)
        node = self.node
        return getattr((<Lookup>node).node if type(node) is Lookup else node, <str><object>found)


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
        if type(obj) is View or PyObject_TypeCheck(obj, <PyTypeObject*>struct):
            if not attribute.startswith("_"):
                try:
                    value = getattr((<View>obj).node if type(obj) is View else obj, attribute)
                except AttributeError:
                    pass
                else:
                    if not PyCallable_Check(value):
                        if type(obj) is View:
                            (<View>obj).reads.add(attribute)
                        return value
            return undefined((<View>obj).node if type(obj) is View else obj, attribute)
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
        if type(obj) is View or PyObject_TypeCheck(obj, <PyTypeObject*>struct):
            return getattr_(obj, str(argument))
        return fallback(obj, argument)

    return getitem


def make_call(frozenset plain, type macro, fallback):
    """`plain` are functions that may be called as they are, `macro` the type of those of templates."""

    def call(object context, object obj, *args, **kwargs):
        if type(obj) is BUILTIN:
            owner = type(obj.__self__)
            if owner is dict or owner is str:
                # Jinja2 adds keyword arguments of its own, for functions that want the context.
                kwargs.pop("_block_vars", None)
                kwargs.pop("_loop_vars", None)
                return obj(*args, **kwargs)
        elif type(obj) is macro:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return obj(context.eval_ctx, *args, **kwargs)
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
