# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""RESP in the core: arrays of short words, and replies of the usual types.

``linepool/protocols/resp`` has all the rules. Left to it: inline commands, long words, errors in the
framing, open transactions, subscribers.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memcpy

from linepool.core.fields cimport ConnectionFields
from linepool.core.syntax cimport MOST_WORDS, Cut, Out, Plan, Syntax, request_of

from linepool.protocols.base import Request
from linepool.protocols.resp.protocol import to_float, to_int
from linepool.protocols.resp.values import OK, NullArray, PerVersion, Status, float_text

cdef extern from "strings.h":
    int strncasecmp(const char *a, const char *b, size_t size)

cdef extern from "Python.h":
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    MOST_DIGITS = 5         # of a count or a length
    MOST_DEPTH = 8          # of lists in lists
    ODD = -1
    INCOMPLETE = -2


cdef class RespSyntax(Syntax):

    def __init__(self, service):
        self.template = service.open_protocol()
        self.most = self.template.short_limit_bytes
        self.kinds = self.kinds | {to_int: b"I", to_float: b"f"}
        self.version = 2

    cdef bint serves(self, ConnectionFields connection) except -1:
        self.version, self.is_initial = 2, True
        if connection.maker is not None or connection.is_replaceable:
            return True
        protocol = connection.protocol
        self.version = protocol.version
        self.is_initial = self.version == 2 and not protocol.name
        return protocol.queue is None and not protocol.subscribed and not protocol.mute

    cdef bint only_calls(self, bytes verb) except -1:
        return self.template.is_plain(Request(verb, []))

    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2:
        cdef const char *at = p
        cdef Py_ssize_t size
        cdef int number
        cdef Py_ssize_t count = head(&at, end, b"*")
        if not 0 < count <= MOST_WORDS + 1:
            return 0 if count == INCOMPLETE else -1
        cut.count = count - 1
        for number in range(-1, cut.count):
            size = head(&at, end, b"$")
            if size < 0:
                return 0 if size == INCOMPLETE else -1
            if at - p + size + 2 > self.most:
                return -1
            if end - at < size + 2:
                return 0
            if number >= 0:
                cut.word[number], cut.size[number] = at, size
            elif size:
                cut.verb, cut.verb_size = at, size
            else:
                return -1
            at += size
            if at[0] != b"\r" or at[1] != b"\n":
                return -1
            at += 2
        cut.eol_size = 2
        self.join(cut)
        return at - p

    cdef void join(self, Cut *cut) noexcept:
        """Make the request's line, for the log, as ``RespParser.request`` does."""
        cdef Py_ssize_t total = cut.verb_size, size
        cdef int number, shown = cut.count
        cdef char *to = self.line
        for number in range(cut.count):
            total += 1 + cut.size[number]
        if is_secret(cut):
            shown = 0
        elif total > LOGGED_BYTES:
            shown = min(shown, LOGGED_WORDS - 1)
        size = min(cut.verb_size, <Py_ssize_t>LOGGED_BYTES)
        memcpy(to, cut.verb, size)
        to += size
        for number in range(shown):
            to[0] = b" "
            size = min(cut.size[number], <Py_ssize_t>LOGGED_BYTES)
            memcpy(to + 1, cut.word[number], size)
            to += 1 + size
        cut.line, cut.line_size = self.line, to - self.line

    cdef bint admits(self, const char *p, const char *end) except -1:
        return head(&p, end, b"*") > 0

    cdef object request(self, const Cut *cut, Plan plan):
        return request_of(cut, plan, b"\r\n")

    cdef bint encode(self, Out out, object value, const Cut *cut) except -1:
        cdef Py_ssize_t before = out.size
        if self.add(out, value, 0):
            return True
        out.size = before
        return False

    cdef bint add(self, Out out, object value, int depth) except -1:
        """Write a value, or a part of one; return False if it is not plain."""
        cdef const char *text
        cdef Py_ssize_t size = 0
        kind = type(value)
        if kind is bytes:
            bulk(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        elif value is None:
            null(out, self.version)
        elif kind is str:
            if PyUnicode_IS_COMPACT_ASCII(value):
                text = PyUnicode_AsUTF8AndSize(value, &size)
                bulk(out, text, size)
                return True
            try:
                data = PyUnicode_AsUTF8String(value)
            except UnicodeEncodeError:
                return False
            bulk(out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        elif kind is int:
            out.put(b":", 1)
            if not out.put_int(value):
                return False
            out.put(b"\r\n", 2)
        elif value is OK:
            out.put(b"+OK\r\n", 5)
        else:
            return self.add_other(out, value, kind, depth)
        return True

    cdef bint add_other(self, Out out, object value, object kind, int depth) except -1:
        cdef Py_buffer view
        if kind is memoryview:
            try:
                PyObject_GetBuffer(value, &view, PyBUF_SIMPLE)
            except (BufferError, ValueError):
                return False
            try:
                bulk(out, <const char *>view.buf, view.len)
            finally:
                PyBuffer_Release(&view)
        elif kind is bool:
            if self.version == 3:
                out.put(b"#t\r\n" if value else b"#f\r\n", 4)
            else:
                out.put(b":1\r\n" if value else b":0\r\n", 4)
        elif kind is float:
            text = float_text(value)
            if self.version == 3:
                out.put(b",", 1)
                out.put_bytes(text)
                out.put(b"\r\n", 2)
            else:
                bulk(out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        elif kind is Status:
            try:
                text = value.encode()
            except UnicodeEncodeError:
                return False
            if b"\r" in text or b"\n" in text:
                return False
            out.put(b"+", 1)
            out.put_bytes(text)
            out.put(b"\r\n", 2)
        elif kind is NullArray:
            out.put(b"_\r\n" if self.version == 3 else b"*-1\r\n", 3 if self.version == 3 else 5)
        elif depth == MOST_DEPTH:
            return False
        elif kind is PerVersion:
            return self.add(out, value.resp3 if self.version == 3 else value.resp2, depth + 1)
        elif kind is list or kind is tuple:
            return self.add_all(out, value, depth)
        elif kind is dict:
            return self.add_pairs(out, value, depth)
        else:
            return False
        return True

    cdef bint add_all(self, Out out, object values, int depth) except -1:
        number(out, b"*", len(values))
        for value in values:
            if not self.add(out, value, depth + 1):
                return False
        return True

    cdef bint add_pairs(self, Out out, dict values, int depth) except -1:
        if self.version == 3:
            number(out, b"%", len(values))
        else:
            number(out, b"*", 2 * len(values))
        for key, value in values.items():
            if not (self.add(out, key, depth + 1) and self.add(out, value, depth + 1)):
                return False
        return True


def syntax_of(service):
    """Return the syntax of an app."""
    return RespSyntax(service)


cdef Py_ssize_t head(const char **at, const char *end, char mark) noexcept:
    """Return the count or length that begins here, and go behind its line; ODD or INCOMPLETE."""
    cdef const char *p = at[0]
    cdef Py_ssize_t value = 0
    cdef int digits = 0
    if p == end:
        return INCOMPLETE
    if p[0] != mark:
        return ODD
    p += 1
    while p < end and b"0" <= p[0] <= b"9":
        value = 10 * value + p[0] - 48
        p += 1
        digits += 1
        if digits > MOST_DIGITS or (digits > 1 and at[0][1] == b"0"):
            return ODD
    if p < end and (digits == 0 or p[0] != b"\r"):
        return ODD
    if end - p < 2:
        return INCOMPLETE
    if p[1] != b"\n":
        return ODD
    at[0] = p + 2
    return value


cdef bint is_secret(const Cut *cut) noexcept:
    """Whether the words of a request may be secrets."""
    if cut.verb_size == 4:
        return not strncasecmp(cut.verb, b"AUTH", 4)
    return cut.verb_size == 5 and not strncasecmp(cut.verb, b"HELLO", 5)


cdef inline char *digits(char *to, Py_ssize_t value) noexcept:
    """Write a number that is not negative; return where it ends."""
    cdef char text[20]
    cdef int size = 0
    while True:
        size += 1
        text[20 - size] = 48 + value % 10
        value //= 10
        if not value:
            break
    memcpy(to, text + 20 - size, size)
    return to + size


cdef int number(Out out, char mark, Py_ssize_t value) except -1:
    """Write a line with a number."""
    cdef char *to = out.reserve(24)
    to[0] = mark
    to = digits(to + 1, value)
    memcpy(to, b"\r\n", 2)
    out.size = to + 2 - out.data
    return 0


cdef int bulk(Out out, const char *text, Py_ssize_t size) except -1:
    """Write a bulk string."""
    cdef char *to = out.reserve(size + 26)
    to[0] = b"$"
    to = digits(to + 1, size)
    memcpy(to, b"\r\n", 2)
    memcpy(to + 2, text, size)
    memcpy(to + 2 + size, b"\r\n", 2)
    out.size = to + 4 + size - out.data
    return 0


cdef int null(Out out, int version) except -1:
    if version == 3:
        return out.put(b"_\r\n", 3)
    return out.put(b"$-1\r\n", 5)
