# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The line protocol in the core: words without quotes, replies of one line.

``linepool/protocols/line.py`` has all the rules. Left to it: quotes, NUL, telnet's commands, a CR that is
not before LF, lines that are too long, data blocks, the rest of a line, replies of several lines; of framed
requests, attributes but i, r and t, and replies but null, bool, int, bytes and a str that needs no escapes.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memchr, memcmp, memcpy

from linepool.core.fields cimport ConnectionFields
from linepool.core.syntax cimport MOST_WORDS, Cut, Out, Plan, Syntax, request_of, words_of

from linepool.protocols import framing

cdef enum:
    IN_WORD, BLANK, LF, CR, ODD
    MOST_ID = 32            # characters
    MOST_MILLISECONDS = 9   # digits

cdef Py_ssize_t MOST_HEAD = framing.MOST_BYTES
cdef bint[256] in_id

cdef unsigned char class_of[256]
cdef int _number
for _number in range(256):
    class_of[_number] = IN_WORD
    in_id[_number] = chr(_number).isascii() and (chr(_number).isalnum() or chr(_number) in "._-")
for _number in b" \t\v\f":
    class_of[_number] = BLANK
for _number in b"\"'\0\xff":
    class_of[_number] = ODD
class_of[10] = LF
class_of[13] = CR


cdef class LineSyntax(Syntax):
    def __init__(self, Py_ssize_t max_line, bint framed):
        self.max_line, self.framed = max_line, framed

    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2:
        cdef const char *at = p
        cdef const char *begin
        cdef unsigned char kind
        cut.line = p
        cut.count = -1
        cut.verb_size = 0
        cut.most_ns = 0
        cut.is_framed = self.framed and p < end and p[0] == b"@"
        if cut.is_framed:
            at = cut_head(p, end, cut)
            if at == NULL:
                return 0 if memchr(p, b"\n", end - p) == NULL else -1
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
        if cut.line_size > self.max_line or (cut.is_framed and not cut.verb_size):
            return -1
        return cut.line_size + cut.eol_size

    cdef bint admits(self, const char *p, const char *end) except -1:
        cdef unsigned char first = p[0]
        cdef const char *ending = <const char *>memchr(p, b"\n", end - p)
        if ending == NULL:
            return False
        if not (b"a" <= (first | 32) <= b"z" or b"0" <= first <= b"9" or first == b"@"):
            return False
        if memchr(p, b"/", ending - p) != NULL or memchr(p, b":", ending - p) != NULL:
            return False
        return ending - p < 5 or memcmp(p, b"PROXY", 5) != 0

    cdef bint encode(self, Out out, object value, const Cut *cut) except -1:
        cdef const char *text
        cdef Py_ssize_t size
        cdef char *to
        kind = type(value)
        if cut.is_framed:
            return self.encode_framed(out, value, cut)
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

    cdef bint encode_framed(self, Out out, object value, const Cut *cut) except -1:
        cdef Py_ssize_t before = out.size
        kind = type(value)
        if kind is int:
            begin(out, cut, b"= ")
            if not out.put_int(value):
                out.size = before
                return False
        elif kind is str:
            try:
                value = PyUnicode_AsUTF8String(value)
            except UnicodeEncodeError:
                return False
            if not is_unescaped(value):
                return False
            begin(out, cut, b"= ")
            out.put(b'"', 1)
            out.put_bytes(value)
            out.put(b'"', 1)
        elif kind is bytes:
            begin(out, cut, b"$ ")
            out.put_int(PyBytes_GET_SIZE(value))
            self.end(out, out.reserve(2), cut)
            out.put_bytes(value)
        elif value is None or kind is bool:
            begin(out, cut, b"= ")
            out.put_bytes(b"null" if value is None else b"true" if value else b"false")
        else:
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
        eol = eol_of(cut.eol_size == 2)
        if not cut.is_framed:
            return request_of(cut, plan, eol)
        verb, line = cut.verb[:cut.verb_size], cut.line[:cut.line_size]
        head = b"@%b " % cut.head[:cut.head_size] if cut.head_size else b""
        given_id = (<bytes>cut.given_id[:cut.given_id_size]).decode() if cut.given_id_size else ""
        return framing.Framed(
            verb, words_of(cut), plan.entry, None, eol, line, None, head, cut.most_ns, given_id
        )

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
    return LineSyntax(service.limits.max_line_bytes, service.protocol.framed)


cdef const char *cut_head(const char *at, const char *end, Cut *cut) noexcept:
    """Read the attributes of a framed request; return where they end, or NULL: they are not plain."""
    cdef const char *start = at
    cdef const char *begin
    cdef char name
    cdef long long number
    cut.head_size = cut.given_id_size = 0
    at += 1
    while at < end and class_of[<unsigned char>at[0]] == IN_WORD:
        if end - at < 3 or at[1] != b"=":
            return NULL
        name = at[0]
        at += 2
        begin = at
        if name == b"i" or name == b"r":
            while at < end and in_id[<unsigned char>at[0]]:
                at += 1
            if not 0 < at - begin <= MOST_ID:
                return NULL
            if name == b"i":
                cut.head, cut.head_size = begin, at - begin
            else:
                cut.given_id, cut.given_id_size = begin, at - begin
        elif name == b"t":
            number = 0
            while at < end and b"0" <= at[0] <= b"9" and at - begin < MOST_MILLISECONDS:
                number = 10 * number + at[0] - 48
                at += 1
            if number == 0:  # none is given, or nothing is left
                return NULL
            cut.most_ns = number * 1000000
        else:
            return NULL
        if end - at > 1 and at[0] == b"," and class_of[<unsigned char>at[1]] == IN_WORD:
            at += 1
        elif at < end and class_of[<unsigned char>at[0]] == IN_WORD:
            return NULL
    if at < end and at - start <= MOST_HEAD and class_of[<unsigned char>at[0]] == BLANK:
        return at
    return NULL


cdef int begin(Out out, const Cut *cut, const char *mark) except -1:
    """Begin a framed reply: with its id, and what it is."""
    if cut.head_size:
        out.put(b"@", 1)
        out.put(cut.head, cut.head_size)
        out.put(b" ", 1)
    return out.put(mark, 2)


cdef bint is_unescaped(bytes text) noexcept:
    """Whether JSON shows a text as it is."""
    cdef const unsigned char *at = <const unsigned char *>PyBytes_AS_STRING(text)
    cdef Py_ssize_t i
    for i in range(PyBytes_GET_SIZE(text)):
        if at[i] < 32 or at[i] == 34 or at[i] == 92 or at[i] == 127:
            return False
    return True


cdef bytes eol_of(bint crlf):
    return b"\r\n" if crlf else b"\n"
