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
    """Any node as templates see it in the list of all: which of its fields they look at goes into `reads`; WHOLE where
    they look at all. Templates get at it only by `make_getattr` and `make_getitem`, and by what is here.
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


cdef object MISSING = object()  # there is no such key
cdef object SELF = object()  # in the place of a key: the container itself is looked at
# How something is looked at: its value (of a container only the type), whether it is true, which keys or how many
# elements there are, all that is in it.
cdef enum:
    VALUE, TRUTH, KEYS, ALL


cdef class Reader:
    """The one node that templates run for, and what they look at of it.

    `fields` are those that were looked at at all. While `reads` is a list, every (place, key, how) that decides the way
    of a template goes into it, once each; what is only printed does not. `solid` is not 0 while a text is made that the
    template may look at.
    """

    cdef readonly object node
    cdef readonly set fields
    cdef public list reads
    cdef public object closed
    cdef public int solid
    cdef readonly Place top
    cdef object struct
    cdef object digest
    cdef set known
    cdef long stamp

    def __init__(self, object struct, digest, set fields):
        """`digest` tells values apart, by type as well."""
        self.struct, self.digest, self.fields = struct, digest, fields
        self.known = set()
        self.closed = frozenset()
        self.top = Place.__new__(Place)
        self.top.reader = self
        self.top.kept = {}

    def forget(self):
        """Drop what is known of places."""
        self.top.kept = {}

    def begin(self, object node):
        self.node, self.reads = node, None
        self.solid = 0
        self.stamp += 1
        self.top.value, self.top.stamp = node, self.stamp

    def record(self, list reads, closed=frozenset()):
        self.reads, self.closed = reads, closed
        self.solid = 0
        self.known.clear()

    cdef object note(self, Place place, object key, int how):
        if self.reads is None:
            return
        mark = (id(place), key, type(key), how)
        if mark not in self.known:
            self.known.add(mark)
            self.reads.append((place, key, how))

    cdef bint holds(self, object value):
        kind = type(value)
        return kind is dict or kind is list or kind is tuple or PyObject_TypeCheck(value, <PyTypeObject*>self.struct)


cdef class Place:
    """A place in the node of a reader: the node itself, or what is found below a key of another place.

    It is the same object for all nodes. Only maps, lists and structs have one; text and numbers are what they are.
    """

    cdef Reader reader
    cdef Place above
    cdef object key, value
    cdef str field
    cdef dict kept
    cdef long stamp

    cdef object now(self):
        if self.stamp != self.reader.stamp:
            self.value = self.above.at(self.key)
            self.stamp = self.reader.stamp
        return self.value

    cdef object at(self, object key):
        """What is there now, or MISSING; nothing is noted."""
        cdef PyObject* found
        here = self.now()
        if type(here) is dict:
            found = PyDict_GetItemWithError(here, key)
            return MISSING if found is NULL else <object>found
        if type(here) is list or type(here) is tuple:
            return here[key] if type(key) is int and 0 <= <long>key < len(here) else MISSING
        if here is MISSING or type(key) is not str or (<str>key).startswith("_"):
            return MISSING
        value = getattr(here, key, MISSING)
        return MISSING if PyCallable_Check(value) else value

    cdef object seen(self, object key, int how):
        """What decides the way of a template, as a key that tells types apart."""
        value = self.now() if key is SELF else self.at(key)
        if how == VALUE:
            if type(value) is str:
                return value
            return type(value) if self.reader.holds(value) else (type(value), value)
        if how == TRUTH:
            return MISSING if value is MISSING else True if value else False
        if how == KEYS:
            if type(value) is dict:
                keys = tuple(value)
                return keys, tuple([type(each) for each in keys if type(each) is not str])
            return type(value), len(value) if type(value) is list or type(value) is tuple else 0
        return self.reader.digest(value)

    cdef object read(self, object key):
        """What stands there, or MISSING."""
        cdef Place below
        value = self.at(key)
        if value is not MISSING or self.field is not None:
            self.reader.fields.add(self.field or key)
        self.reader.note(self, key, VALUE)
        if not self.reader.holds(value):
            return value
        below = self.kept.get((key, type(key)))
        if below is None:
            below = Place.__new__(Place)
            below.reader, below.above, below.key, below.field = self.reader, self, key, self.field or key
            below.kept = {}
            self.kept[key, type(key)] = below
        below.value, below.stamp = value, self.reader.stamp
        return below

    cdef object look(self, int how):
        """At this very container."""
        here = self.now()
        self.reader.fields.add(self.field or WHOLE)
        self.reader.note(self, SELF, how)
        return here

    def __iter__(self):
        here = self.look(KEYS)
        if type(here) is list or type(here) is tuple:
            return iter([self.read(at) for at in range(len(here))])
        return iter(list(here))

    def __len__(self):
        return len(self.look(KEYS))

    def __bool__(self):
        return True if self.look(TRUTH) else False

    def __contains__(self, key):
        key = whole(key)
        return self.read(key) is not MISSING if type(self.now()) is dict else key in self.look(ALL)

    def __getitem__(self, key):
        value = MISSING if type(key) is slice else self.read(key)
        return self.look(ALL)[key] if value is MISSING else value

    def keys(self):
        return self.look(KEYS).keys()

    def __eq__(self, other):
        return whole(self) == whole(other)

    def __lt__(self, other):
        return whole(self) < whole(other)

    def __le__(self, other):
        return whole(self) <= whole(other)

    def __gt__(self, other):
        return whole(self) > whole(other)

    def __ge__(self, other):
        return whole(self) >= whole(other)

    def __hash__(self):
        here = self.look(ALL)
        return hash(here.id if self.above is None else here)

    def __add__(self, other):
        return whole(self) + whole(other)

    def __radd__(self, other):
        return whole(other) + whole(self)

    def __mul__(self, other):
        return whole(self) * whole(other)

    def __rmul__(self, other):
        return whole(other) * whole(self)

    def __str__(self):
        return str(self.look(ALL))

    def __repr__(self):
        return repr(self.look(ALL))

    def __format__(self, spec):
        return format(self.look(ALL), spec)


cdef class Method:
    """items, keys, values or get of a map in a place."""

    cdef Place place
    cdef str name

    def __call__(self, *args):
        cdef Place place = self.place
        here = place.now()
        if self.name == "get":
            if not 0 < len(args) < 3:
                return here.get(*args)
            value = place.read(whole(args[0]))
            return value if value is not MISSING else args[1] if len(args) > 1 else None
        place.look(KEYS)
        if self.name == "keys" or args:
            return getattr(dict.fromkeys(here), self.name)(*args)
        return getattr({key: place.read(key) for key in here}, self.name)()


def whole(object value):
    """The values in places, and nodes behind views, which then count as looked at, also within lists and maps of a template; anything else
    as it is."""
    if type(value) is Place:
        return (<Place>value).look(ALL)
    if type(value) is View:
        (<View>value).reads.add(WHOLE)
        return (<View>value).node
    return plain(value)


cdef object plain(object value):
    """As `whole`, but what stands for any node of all stays what it is."""
    if type(value) is Place:
        return (<Place>value).look(ALL)
    if type(value) is list or type(value) is tuple:
        for each in value:
            if type(each) is Place or type(each) is list or type(each) is tuple or type(each) is dict:
                return type(value)([plain(each) for each in value])
    elif type(value) is dict:
        for each in (<dict>value).values():
            if type(each) is Place or type(each) is list or type(each) is tuple or type(each) is dict:
                return {key: plain(each) for key, each in (<dict>value).items()}
    return value


cdef class Plain:
    """A function that is given values and no places."""

    cdef readonly object __wrapped__, jinja_pass_arg

    def __init__(self, function):
        self.__wrapped__ = function
        self.jinja_pass_arg = getattr(function, "jinja_pass_arg", None)

    def __call__(self, *args, **kwargs):
        if kwargs:
            kwargs = {name: plain(each) for name, each in kwargs.items()}
        return self.__wrapped__(*[plain(each) for each in args], **kwargs)


cdef class Straight:
    """A macro whose text is printed as it is."""

    cdef object macro

    def __init__(self, macro):
        self.macro = macro


# -- what is made once for many nodes --------------------------------------------------------------------------------


cdef class Branch:
    """What a template looks at next, and by what it saw there how it goes on."""

    cdef Place place
    cdef object key
    cdef int how
    cdef readonly dict ways

    cdef bint asks(self, Place place, object key, int how):
        return self.place is place and self.how == how and type(self.key) is type(key) and self.key == key


def grown(Reader reader, leaf, former):
    """`former` (None: nothing yet) with the way that leads to `leaf` for the node of `reader`, as it was noted; None
    where what is looked at does not follow from what was seen before."""
    cdef Branch branch
    cdef dict ways = {None: former}
    last = None
    for place, key, how in reader.reads:
        there = ways.get(last)
        if there is None:
            branch = Branch.__new__(Branch)
            branch.place, branch.key, branch.how, branch.ways = place, key, how, {}
            ways[last] = branch
        elif type(there) is not Branch or not (<Branch>there).asks(place, key, how):
            return None
        else:
            branch = there
        former = former if former is not None else branch
        ways, last = branch.ways, branch.place.seen(branch.key, branch.how)
    if ways.get(last) is not None:
        return None
    ways[last] = leaf
    return former if reader.reads else leaf


def found(object at):
    """The leaf for the node of the reader now; None where nobody went that way."""
    cdef Branch branch
    while type(at) is Branch:
        branch = at
        at = branch.ways.get(branch.place.seen(branch.key, branch.how))
    return at


cdef class Lookup:
    """Resolves the names that stand in a template, and notes which were asked for.

    `vars` are those of the template itself; `fields` maps names to fields of the node of `reader`; the others go into
    `asked`, and `rest(name)` gives what is left. Only templates for which it was made by `within` get places.
    """

    cdef dict vars, fields
    cdef set asked
    cdef object rest
    cdef Reader reader
    cdef bint places

    def __init__(self, Reader reader, dict fields, set asked, rest):
        self.reader, self.fields, self.asked, self.rest = reader, fields, asked, rest
        self.vars = {}

    @property
    def node(self):
        return self.reader.node

    cpdef Lookup within(self, dict vars):
        """The same for a template with these names of its own."""
        cdef Lookup made = Lookup(self.reader, self.fields, self.asked, self.rest)
        made.vars, made.places = vars, True
        return made

    def __call__(self, str name):
        cdef PyObject* found = PyDict_GetItemWithError(self.vars, name)
        if found is not NULL:
            return <object>found
        found = PyDict_GetItemWithError(self.fields, name)
        if found is not NULL:
            if self.places:
                return self.reader.top.read(<object>found)
            self.reader.fields.add(<object>found)
            return getattr(self.reader.node, <str><object>found)
        self.asked.add(name)
        return self.rest(name)


def make_getattr(object struct, frozenset open, undefined, fallback):
    """`open` are types whose public attributes may all be read; `undefined(obj, name)` is what is not there."""

    def getattr_(object obj, str attribute):
        cdef PyObject* found
        cdef Method method
        if type(obj) is dict:
            if attribute in MAP_METHODS:
                return getattr(obj, attribute)
            found = PyDict_GetItemWithError(obj, attribute)
            if found is not NULL:
                return <object>found
            return undefined(obj, attribute)
        if type(obj) is Place:
            here = (<Place>obj).now()
            if type(here) is dict and attribute in MAP_METHODS:
                method = Method.__new__(Method)
                method.place, method.name = obj, attribute
                return method
            if type(here) is list or type(here) is tuple:
                return fallback((<Place>obj).look(ALL), attribute)
            value = (<Place>obj).read(attribute)
            return undefined(here, attribute) if value is MISSING else value
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
        if type(obj) is Place:
            here = (<Place>obj).now()
            if type(here) is not dict and type(here) is not list and type(here) is not tuple:
                return getattr_(obj, str(argument))
            try:
                value = (<Place>obj).read(argument)
            except TypeError:
                value = MISSING
            if value is not MISSING:
                return value
            if type(here) is dict:
                return undefined(here, str(argument))
            return fallback((<Place>obj).look(ALL), argument)
        if type(obj) is View or PyObject_TypeCheck(obj, <PyTypeObject*>struct):
            return getattr_(obj, str(argument))
        return fallback(obj, argument)

    return getitem


def make_truth(Reader reader):
    """Whether obj.key is true, which may be all that a template asks; `get` is how it would be read."""

    def truth(object obj, object key, get):
        if type(obj) is Place and type(key) is str and (key not in MAP_METHODS or get is None):
            here = (<Place>obj).now()
            if type(here) is not list and type(here) is not tuple:
                value = (<Place>obj).at(key)
                if value is not MISSING:
                    reader.fields.add((<Place>obj).field or key)
                    reader.note(obj, key, TRUTH)
                    return True if value else False
        return True if get(obj, key) else False

    return truth


def make_hole(Reader reader, frozenset fixed, mark):
    """Print what is not looked at: `make()` says it for any node, if `names`, what else it is made of, stays the same.
    `mark(make)` is the text that stands for it while all that is looked at is noted; what is in `reader.closed` (the code
    of such functions) is looked at instead."""

    def hole(make, names):
        cdef bint places = False
        if reader.reads is None or reader.solid or make.__code__ in reader.closed:
            return make()
        for each in names:
            if type(each) is Place:
                places = True
            elif type(each) is str:
                if "\0" in each:
                    return make()
            elif type(each) not in fixed:
                return make()
        return mark(make) if places else make()

    return hole


def make_call(Reader reader, frozenset plainly, type macro, frozenset viewing, fallback):
    """`plainly` are functions that may be called as they are, `macro` the type of those of templates; `viewing` are
    types of what else may be given places."""

    def call(object context, object obj, *args, **kwargs):
        if type(obj) is Straight:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return (<Straight>obj).macro(context.eval_ctx, *args, **kwargs)
        if type(obj) is Method:
            return (<Method>obj)(*args)
        if type(obj) is macro:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            if reader is None:
                return obj(context.eval_ctx, *args, **kwargs)
            reader.solid += 1
            try:
                return obj(context.eval_ctx, *args, **kwargs)
            finally:
                reader.solid -= 1
        if type(obj) not in viewing and obj not in viewing:
            args = tuple([plain(each) for each in args])
            kwargs = {name: plain(each) for name, each in kwargs.items()}
        if type(obj) is BUILTIN:
            owner = type(obj.__self__)
            if owner is dict or owner is str:
                # Jinja2 adds keyword arguments of its own, for functions that want the context.
                kwargs.pop("_block_vars", None)
                kwargs.pop("_loop_vars", None)
                return obj(*args, **kwargs)
        elif obj in plainly:
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return obj(*args, **kwargs)
        if reader is None:
            return fallback(context, obj, *args, **kwargs)
        reader.solid += 1
        try:
            return fallback(context, obj, *args, **kwargs)
        finally:
            reader.solid -= 1

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
