# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The line protocol in the core: words without quotes, replies of one line.

``linepool/protocols/line.py`` has all the rules. Left to it: quotes, NUL, telnet's commands, a CR that is
not before LF, lines that are too long, data blocks, the rest of a line, replies of several lines.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memchr, memcmp, memcpy

from linepool.core.fields cimport ConnectionFields
from linepool.core.syntax cimport MOST_WORDS, Cut, Out, Plan, Syntax, request_of

cdef enum:
    IN_WORD, BLANK, LF, CR, ODD

cdef unsigned char class_of[256]
cdef int _number
for _number in range(256):
    class_of[_number] = IN_WORD
for _number in b" \t\v\f":
    class_of[_number] = BLANK
for _number in b"\"'\0\xff":
    class_of[_number] = ODD
class_of[10] = LF
class_of[13] = CR


cdef class LineSyntax(Syntax):

    def __init__(self, Py_ssize_t max_line):
        self.max_line = max_line

    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2:
        cdef const char *at = p
        cdef const char *begin
        cdef unsigned char kind
        cut.line = p
        cut.count = -1
        cut.verb_size = 0
        while True:
            while at < end and class_of[<unsigned char>at[0]] == BLANK:
                at += 1
            begin = at
            while at < end and class_of[<unsigned char>at[0]] == IN_WORD:
                at += 1
            if at == end:
                return 0
            kind = class_of[<unsigned char>at[0]]
            if at > begin:
                if cut.count < 0:
                    cut.verb = begin
                    cut.verb_size = at - begin
                elif cut.count == MOST_WORDS:
                    return -1
                else:
                    cut.word[cut.count] = begin
                    cut.size[cut.count] = at - begin
                cut.count += 1
            if kind == LF:
                cut.eol_size = 1
                break
            if kind == CR:
                if at + 1 == end:
                    return 0
                if at[1] != b"\n":
                    return -1
                cut.eol_size = 2
                break
            if kind == ODD:
                return -1
        cut.line_size = at - p
        if cut.line_size > self.max_line:
            return -1
        return cut.line_size + cut.eol_size

    cdef bint admits(self, const char *p, const char *end) except -1:
        cdef unsigned char first = p[0]
        cdef const char *ending = <const char *>memchr(p, b"\n", end - p)
        if ending == NULL or not (b"a" <= (first | 32) <= b"z" or b"0" <= first <= b"9"):
            return False
        if memchr(p, b"/", ending - p) != NULL or memchr(p, b":", ending - p) != NULL:
            return False
        return ending - p < 5 or memcmp(p, b"PROXY", 5) != 0

    cdef bint encode(self, Out out, object value, const Cut *cut) except -1:
        cdef const char *text
        cdef Py_ssize_t size
        cdef char *to
        kind = type(value)
        if kind is int:
            return self.encode_int(out, value, cut)
        if kind is str:
            try:
                value = PyUnicode_AsUTF8String(value)
            except UnicodeEncodeError:
                return False
        elif value is None:
            value = b"OK"
        elif kind is bool:
            value = b"true" if value else b"false"
        elif kind is float:
            value = repr(value).encode()
        elif kind is not bytes:
            return False
        text, size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        if memchr(text, b"\n", size) != NULL or memchr(text, b"\r", size) != NULL:
            return False
        to = out.reserve(size + 2)
        memcpy(to, text, size)
        self.end(out, to + size, cut)
        return True

    cdef bint encode_int(self, Out out, object value, const Cut *cut) except -1:
        if not out.put_int(value):
            return False
        self.end(out, out.reserve(2), cut)
        return True

    cdef void end(self, Out out, char *to, const Cut *cut) noexcept:
        """End a line as its request ended."""
        if cut.eol_size == 2:
            to[0] = b"\r"
            to += 1
        to[0] = b"\n"
        out.size = to + 1 - out.data

    cdef object request(self, const Cut *cut, Plan plan):
        return request_of(cut, plan, eol_of(cut.eol_size == 2))

    cdef int note(self, ConnectionFields connection, const Cut *cut) except -1:
        connection.crlf = cut.eol_size == 2
        if connection.maker is None:
            connection.protocol._eol = eol_of(connection.crlf)
        return 0

    cdef int restore(self, ConnectionFields connection) except -1:
        if connection.served:
            connection.protocol._eol = eol_of(connection.crlf)
        return 0


def syntax_of(service):
    """Return the syntax of an app."""
    return LineSyntax(service.limits.max_line_bytes)


cdef bytes eol_of(bint crlf):
    return b"\r\n" if crlf else b"\n"
