"""The everyday form of nodes.conf, read entry by entry without a YAML parser.

Everyday lines are: blank, comment, `key:`, `key: value`, `- value`, where a value is plain, `{}`, `[]`, or in quotes
without escapes, in printable ASCII. Whatever else occurs is left to libyaml by the caller:

    split(data)               -> None, or {section: {entry: (start, end)}}, {(section, entry) with other lines}
    parse(data, start, end)   -> (the tree of one entry,), or None when it is not in everyday form

An entry is the bytes from its key line to the next one. An everyday line is complete in itself (no open quote,
bracket, block scalar, anchor or tag), so an entry of such lines ends where it seems to end; of the others the caller
must ask libyaml whether they stand alone.
"""

from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.string cimport memchr, memcmp

from wwfast._ext.yamlevents import Quoted

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum Kind:
    BLANK, KEY, PAIR, ITEM, ODD

cdef enum Value:
    NOTHING, PLAIN, QUOTED, EMPTY_MAP, EMPTY_LIST

cdef struct Line:
    Kind kind
    Py_ssize_t start, end  # the bytes of the line; end is behind its newline
    int indent
    const char *key
    Py_ssize_t key_length
    Value form
    const char *value
    Py_ssize_t value_length

# What a plain key may be made of: 1 inside, 2 also first.
cdef unsigned char KEYS[256]
# What a plain value must not begin with.
cdef unsigned char INDICATOR[256]
for _code in range(256):
    _letter = chr(_code)
    KEYS[_code] = 2 if _code < 128 and (_letter.isalnum() or _letter in "/_.") else 1 if _letter in " -+@%=:" else 0
    INDICATOR[_code] = _letter in "[]{},&*!|>%@`#?:"

cdef list CACHE = [None] * 2048


cdef str text(const char *at, Py_ssize_t length):
    """The text as str; short ones are shared."""
    cdef unsigned int mix
    cdef Py_ssize_t i, size
    cdef object held
    if length > 40:
        return PyUnicode_DecodeASCII(at, length, NULL)
    mix = 2166136261u
    for i in range(length):
        mix = (mix ^ <unsigned char>at[i]) * 16777619u
    mix = (mix ^ (mix >> 15)) & 2047
    held = CACHE[mix]
    if held is not None:
        known = PyUnicode_AsUTF8AndSize(held, &size)
        if size == length and memcmp(known, at, length) == 0:
            return held
    held = PyUnicode_DecodeASCII(at, length, NULL)
    CACHE[mix] = held
    return held


cdef bint is_null(const char *at, Py_ssize_t length) noexcept nogil:
    if length == 1:
        return at[0] == c"~"
    return length == 4 and (memcmp(at, b"null", 4) == 0 or memcmp(at, b"Null", 4) == 0 or memcmp(at, b"NULL", 4) == 0)


cdef bint rest_is_blank(const char *at, const char *end) noexcept nogil:
    """Nothing but blanks, or a comment set off by one."""
    if at < end and at[0] != c" ":
        return False
    while at < end and at[0] == c" ":
        at += 1
    return at == end or at[0] == c"#"


cdef bint read_value(const char *at, const char *end, Line *line) noexcept nogil:
    """A value up to the end of the line; False when it is not an everyday one."""
    cdef const char *scan
    cdef char first
    while at < end and at[0] == c" ":
        at += 1
    if at == end or at[0] == c"#":
        line.form = NOTHING
        return True
    first = at[0]
    if first == c'"' or first == c"'":
        scan = <const char *>memchr(at + 1, first, end - at - 1)
        if scan == NULL or not rest_is_blank(scan + 1, end):
            return False
        if first == c'"' and memchr(at + 1, c"\\", scan - at - 1) != NULL:
            return False
        line.form, line.value, line.value_length = QUOTED, at + 1, scan - at - 1
        return True
    if first == c"{" or first == c"[":
        if at + 1 < end and at[1] == (c"}" if first == c"{" else c"]") and rest_is_blank(at + 2, end):
            line.form = EMPTY_MAP if first == c"{" else EMPTY_LIST
            return True
        return False
    if INDICATOR[<unsigned char>first] or (first == c"-" and (at + 1 == end or at[1] == c" ")):
        return False
    scan = at
    while scan < end:
        if scan[0] == c":" and (scan + 1 == end or scan[1] == c" "):
            return False
        if scan[0] == c"#" and (scan - 1)[0] == c" ":
            break
        scan += 1
    while scan > at and (scan - 1)[0] == c" ":
        scan -= 1
    if is_null(at, scan - at):
        line.form = NOTHING
    else:
        line.form, line.value, line.value_length = PLAIN, at, scan - at
    return True


cdef void read_line(const char *data, Py_ssize_t start, Py_ssize_t size, Line *line) noexcept nogil:
    cdef const char *newline = <const char *>memchr(data + start, c"\n", size - start)
    cdef const char *end = newline if newline != NULL else data + size
    cdef const char *at = data + start
    cdef const char *scan
    cdef unsigned char code
    line.start, line.end = start, (end - data) + (1 if newline != NULL else 0)
    while at < end and at[0] == c" ":
        at += 1
    line.indent = <int>(at - (data + start))
    if at == end:
        line.kind = BLANK
        return
    line.kind = ODD
    scan = at
    while scan < end:
        code = <unsigned char>scan[0]
        if code < 32 or code > 126:
            return
        scan += 1
    if at[0] == c"#":
        line.kind = BLANK
        return
    if at[0] == c"-" and at + 1 < end and at[1] == c" ":
        if read_value(at + 2, end, line) and line.form in (PLAIN, QUOTED):
            line.kind = ITEM
        return
    if KEYS[<unsigned char>at[0]] != 2:
        return
    scan = at
    while scan < end and not (scan[0] == c":" and (scan + 1 == end or scan[1] == c" ")):
        if not KEYS[<unsigned char>scan[0]]:
            return
        scan += 1
    if scan == end or scan - at > 200 or (scan - 1)[0] == c" " or is_null(at, scan - at):
        return
    line.key, line.key_length = at, scan - at
    if read_value(scan + 1, end, line):
        line.kind = KEY if line.form == NOTHING and no_value(scan + 1, end) else PAIR


cdef bint no_value(const char *at, const char *end) noexcept nogil:
    """`key:` with nothing behind it, so that its value may be below; `key: null` is a value."""
    while at < end and at[0] == c" ":
        at += 1
    return at == end or at[0] == c"#"


def split(bytes data not None):
    """Where the entries of the sections are; see the module."""
    cdef const char *bytes_ = data
    cdef Py_ssize_t at = 0, size = len(data), entry_start = -1
    cdef int margin = 0
    cdef unsigned int count = 0
    cdef Line line
    cdef dict sections = {}, entries = None
    cdef set odd = set()
    cdef str section = None, name = None
    if data.startswith((b"---\n", b"--- \n")):
        at = data.index(b"\n") + 1
    while at < size:
        read_line(bytes_, at, size, &line)
        at = line.end
        count += 1
        if count & 4095 == 0:
            with nogil:  # others may run: a reload must not hold up the daemon
                pass
        if line.kind == BLANK:
            continue
        if line.indent == 0:
            if line.kind != KEY and not (line.kind == PAIR and line.form in (EMPTY_MAP, NOTHING)):
                return None
            if entry_start >= 0:
                entries[name] = (entry_start, line.start)
                entry_start = -1
            section = text(line.key, line.key_length)
            if section in sections:
                return None
            entries = sections[section] = {}
            margin = 0 if line.kind == KEY else -1
            continue
        if entries is None or margin < 0:
            return None
        if margin == 0:
            margin = line.indent
        if line.indent < margin:
            return None
        if line.indent == margin:
            if line.kind == ODD or line.kind == ITEM or line.kind == BLANK:
                return None
            if entry_start >= 0:
                entries[name] = (entry_start, line.start)
            name = text(line.key, line.key_length)
            if name in entries:
                return None
            entries[name] = None
            entry_start = line.start
            if line.kind == PAIR and line.form in (PLAIN, QUOTED):
                odd.add((section, name))
        elif line.kind == ODD:
            odd.add((section, name))
    if entry_start >= 0:
        entries[name] = (entry_start, size)
    return sections, odd


cdef class Reader:
    cdef bytes data
    cdef const char *at
    cdef Py_ssize_t next, end
    cdef Line line
    cdef bint over, free

    cdef void advance(self) noexcept:
        """To the next line with content."""
        while self.next < self.end:
            read_line(self.at, self.next, self.end, &self.line)
            self.next = self.line.end
            if self.line.kind != BLANK:
                return
        self.over = True

    cdef object value(self):
        if self.line.form == PLAIN:
            return text(self.line.value, self.line.value_length)
        if self.line.form == QUOTED:
            found = text(self.line.value, self.line.value_length)
            return Quoted(found) if self.free else found
        if self.line.form == EMPTY_MAP:
            return {}
        if self.line.form == EMPTY_LIST:
            return []
        return None

    cdef dict mapping(self, int indent, int depth):
        """The pairs at `indent`; None when they are not everyday."""
        cdef dict found = {}
        cdef str key
        cdef object value
        if depth > 20:
            return None
        while not self.over and self.line.indent == indent:
            if self.line.kind != KEY and self.line.kind != PAIR:
                return None
            key = text(self.line.key, self.line.key_length)
            if key in found:
                return None
            if depth == 1:
                self.free = key == "resources"
            if self.line.kind == PAIR:
                value = self.value()
                self.advance()
            else:
                self.advance()
                value = None
                if not self.over and (self.line.indent > indent or (self.line.indent == indent and self.line.kind == ITEM)):
                    value = self.items(self.line.indent) if self.line.kind == ITEM else self.mapping(self.line.indent, depth + 1)
                    if value is None:
                        return None
            found[key] = value
        if not self.over and self.line.indent > indent:
            return None
        return found

    cdef list items(self, int indent):
        cdef list found = []
        while not self.over and self.line.indent == indent and self.line.kind == ITEM:
            found.append(self.value())
            self.advance()
        if not self.over and self.line.indent > indent:
            return None
        return found


def parse(bytes data not None, Py_ssize_t start, Py_ssize_t end):
    """The tree of the entry at [start, end); see the module."""
    cdef Reader reader = Reader()
    cdef int indent
    cdef dict found
    reader.data, reader.at, reader.next, reader.end = data, data, start, end
    reader.advance()
    if reader.over:
        return None
    indent = reader.line.indent
    found = reader.mapping(indent, 0)
    if found is None or not reader.over or len(found) != 1:
        return None
    for value in found.values():
        return (value,)
