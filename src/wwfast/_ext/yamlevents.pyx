"""libyaml's events as plain Python objects, every scalar a string.

    load(data)    -> dict | list | str | Quoted | None       (YAML 1.1 structure, anchors and merge keys resolved)
    compose(data) -> (kind, line, column, end line, end column, flow, value)   the same with positions

Null is None: a plain empty scalar, `~`, `null`, `Null` or `NULL`. Other plain scalars are `str`, quoted and block
ones `Quoted`, so that a schema (or, for free-form data, YAML 1.2 typing) can tell `5` from `"5"`.
Raises Syntax(problem, line, column), lines and columns counted from 0. The GIL is offered to others every
512 events.
"""

from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp

from wwfast._ext.live cimport *


cdef extern from "yamlabi.h":
    ctypedef struct yaml_mark_t:
        size_t index, line, column
    ctypedef struct yaml_parser_t:
        int error
        const char *problem
        yaml_mark_t problem_mark
        const char *context
        yaml_mark_t context_mark
    enum:
        WW_MEMORY_ERROR
        WW_STREAM_START, WW_STREAM_END, WW_DOCUMENT_START, WW_DOCUMENT_END, WW_ALIAS, WW_SCALAR
        WW_SEQUENCE_START, WW_SEQUENCE_END, WW_MAPPING_START, WW_MAPPING_END
    ctypedef struct event_alias:
        unsigned char *anchor
    ctypedef struct event_scalar:
        unsigned char *anchor
        unsigned char *tag
        unsigned char *value
        size_t length
        int style
    ctypedef struct event_collection:
        unsigned char *anchor
        unsigned char *tag
        int style
    ctypedef union event_data:
        event_alias alias
        event_scalar scalar
        event_collection collection
    ctypedef struct yaml_event_t:
        int type
        event_data data
        yaml_mark_t start_mark, end_mark
    int yaml_parser_initialize(yaml_parser_t *parser) noexcept nogil
    void yaml_parser_delete(yaml_parser_t *parser) noexcept nogil
    void yaml_parser_set_input_string(yaml_parser_t *parser, const unsigned char *input, size_t size) noexcept nogil
    int yaml_parser_parse(yaml_parser_t *parser, yaml_event_t *event) noexcept nogil
    void yaml_event_delete(yaml_event_t *event) noexcept nogil


class Quoted(str):
    """A scalar that stood in quotes or in a block: it is text, whatever it looks like."""

    __slots__ = ()


class Syntax(Exception):
    """(problem, line, column), counted from 0."""


cdef int DEEPEST = 200
# Values that aliases may stand for in all: 165 bytes of aliases of aliases are more than a machine can hold. A site
# of 36,000 nodes with 20 anchored values each has 720,000.
cdef Py_ssize_t EXPANDED = 1_000_000


cdef inline bint is_null(const unsigned char *text, size_t length) noexcept:
    if length == 0:
        return True
    if length == 1:
        return text[0] == c"~"
    if length == 4:
        return memcmp(text, b"null", 4) == 0 or memcmp(text, b"Null", 4) == 0 or memcmp(text, b"NULL", 4) == 0
    return False


cdef class Loader:
    cdef yaml_parser_t parser
    cdef yaml_event_t event
    cdef bint begun
    cdef object data
    cdef dict anchors
    cdef dict weights
    cdef Py_ssize_t built, expanded
    cdef int depth
    cdef unsigned int count
    cdef public bint anchored

    def __cinit__(self, bytes data):
        if not yaml_parser_initialize(&self.parser):
            raise MemoryError()
        self.begun = live_begun(0)
        self.event.type = 0
        self.data = data
        self.anchors = {}
        self.weights = {}
        yaml_parser_set_input_string(&self.parser, <const unsigned char *>data, len(data))

    def __dealloc__(self):
        if self.begun:
            live_ended(0)
            yaml_event_delete(&self.event)
            yaml_parser_delete(&self.parser)

    cdef int next(self) except -1:
        yaml_event_delete(&self.event)
        self.event.type = 0
        if not yaml_parser_parse(&self.parser, &self.event):
            if self.parser.error == WW_MEMORY_ERROR:
                raise MemoryError
            problem = self.parser.problem.decode("utf-8", "replace") if self.parser.problem != NULL else "cannot be read"
            if self.parser.context != NULL:
                problem += " " + self.parser.context.decode("utf-8", "replace")
            mark = self.parser.problem_mark
            raise Syntax(problem, mark.line, mark.column)
        self.count += 1
        if self.count & 511 == 0:
            with nogil:
                pass
        return self.event.type

    cdef object fail(self, str problem):
        raise Syntax(problem, self.event.start_mark.line, self.event.start_mark.column)

    cdef object anchor_name(self, unsigned char *anchor):
        self.anchored = True
        return (<const char *>anchor).decode("utf-8")

    cdef object scalar(self):
        cdef event_scalar *it = &self.event.data.scalar
        if it.style == 1 and it.tag == NULL:  # plain
            if is_null(it.value, it.length):
                return None
            return PyUnicode_DecodeUTF8(<const char *>it.value, it.length, NULL)
        return Quoted(PyUnicode_DecodeUTF8(<const char *>it.value, it.length, NULL))

    cdef object node(self):
        """The object whose first event is the current one."""
        cdef int kind = self.event.type
        cdef object name = None, value, key, merged
        cdef list items
        cdef dict mapping
        cdef list merges
        cdef Py_ssize_t before = self.built
        self.built += 1
        if kind == WW_SCALAR:
            value = self.scalar()
            if self.event.data.scalar.anchor != NULL:
                self.anchors[self.anchor_name(self.event.data.scalar.anchor)] = value
            return value
        if kind == WW_ALIAS:
            name = self.anchor_name(self.event.data.alias.anchor)
            if name not in self.anchors:
                self.fail(f"undefined alias *{name}")
            self.built += self.weights.get(name, 1)
            self.expanded += self.weights.get(name, 1)
            if self.expanded > EXPANDED:
                self.fail(f"aliases stand for more than {EXPANDED} values")
            return self.anchors[name]
        if self.depth >= DEEPEST:
            self.fail(f"nested deeper than {DEEPEST} levels")
        if self.event.data.collection.anchor != NULL:
            name = self.anchor_name(self.event.data.collection.anchor)
        self.depth += 1
        if kind == WW_SEQUENCE_START:
            items = []
            while self.next() != WW_SEQUENCE_END:
                items.append(self.node())
            value = items
        else:
            mapping = {}
            merges = None
            while self.next() != WW_MAPPING_END:
                line, column = self.event.start_mark.line, self.event.start_mark.column
                key = self.node()
                if key is None:
                    key = ""
                if not isinstance(key, str):
                    raise Syntax("a key must be a single word or text", line, column)
                if type(key) is not str:
                    key = str(key)
                elif key == "<<":
                    self.next()
                    merged = self.node()
                    merges = (merges or []) + (merged if isinstance(merged, list) else [merged])
                    for each in merges:
                        if not isinstance(each, dict):
                            raise Syntax("a merge key << needs a map or a list of maps", line, column)
                    continue
                if key in mapping:
                    raise Syntax(f"duplicate key '{key}'", line, column)
                self.next()
                mapping[key] = self.node()
            if merges is not None:
                for each in merges:
                    for key in each:
                        mapping.setdefault(key, each[key])
            value = mapping
        self.depth -= 1
        if name is not None:
            self.anchors[name] = value
            self.weights[name] = self.built - before
        return value

    cdef object marked(self):
        """As node(), with positions; aliases stay aliases, keys are a list of pairs."""
        cdef int kind = self.event.type
        start = (self.event.start_mark.line, self.event.start_mark.column)
        end = (self.event.end_mark.line, self.event.end_mark.column)
        if kind == WW_SCALAR:
            return ("scalar", *start, *end, False, self.scalar(), self.event.data.scalar.anchor != NULL,
                    self.event.data.scalar.style)
        if kind == WW_ALIAS:
            return ("alias", *start, *end, False, None, False, 0)
        if self.depth >= DEEPEST:
            self.fail(f"nested deeper than {DEEPEST} levels")
        self.depth += 1
        flow = self.event.data.collection.style == 2
        anchored = self.event.data.collection.anchor != NULL
        children = []
        if kind == WW_SEQUENCE_START:
            while self.next() != WW_SEQUENCE_END:
                children.append(self.marked())
            name = "list"
        else:
            while self.next() != WW_MAPPING_END:
                key = self.marked()
                self.next()
                children.append((key, self.marked()))
            name = "map"
        self.depth -= 1
        end = (self.event.end_mark.line, self.event.end_mark.column)
        return (name, *start, *end, flow, children, anchored, 0)

    def document(self, bint marks):
        """The only document of the stream; None when there is none."""
        self.next()
        if self.next() == WW_STREAM_END:
            return None
        self.next()
        value = self.marked() if marks else self.node()
        self.next()
        if self.next() != WW_STREAM_END:
            self.fail("more than one document in the file")
        return value


def load(bytes data not None):
    """-> (object, whether anchors or aliases occur)."""
    cdef Loader loader = Loader(data)
    value = loader.document(False)
    return value, loader.anchored


def compose(bytes data not None):
    return Loader(data).document(True)


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Loader": live_count(0)}
