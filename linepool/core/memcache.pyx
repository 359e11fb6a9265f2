# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""memcached's protocol in the core: the commands on items, in the forms in which clients send them.

``linepool/protocols/memcache/`` has all the rules. Left to it: every error, numbers of more than 18
digits or with a sign that is not needed, keys in base64, long lines, data blocks that have not arrived
or are too large, statistics, an app's own commands.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem, PyDict_Next
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8String
from libc.string cimport memchr, memcmp

from linepool.core.fields cimport ConnectionFields
from linepool.core.syntax cimport MOST_WORDS, Cut, Out, Plan, Syntax, block, words_of

from linepool.protocols.memcache.meta import (
    HIDDEN_CODES,
    KNOWN_FLAGS,
    MAX_OPAQUE_BYTES,
    MODES,
    NUMBERS,
    Flags,
    Meta,
)
from linepool.protocols.memcache.parser import (
    ITEM_OVERHEAD_BYTES,
    MAX_BLOCK_BYTES,
    MAX_KEY_BYTES,
    MAX_LINE_BYTES,
    MemcacheRequest,
)
from linepool.protocols.memcache.protocol import Memcache
from linepool.protocols.memcache.replies import BOOLS, Value

cdef enum:
    MOST_DIGITS = 18        # every such number fits into 64 bits
    MOST_VERBS = 32
    # The forms of commands. The last ones are those of meta commands.
    NONE, GET, GET_AND_TOUCH, SET, CAS, DELETE, ARITHMETIC, TOUCH, META, META_SET, META_END
    # What may follow the letter of a flag.
    UNKNOWN, ANYTHING, NUMBER, MODE, OPAQUE

cdef struct VerbForm:
    const char *verb
    Py_ssize_t size
    int form

cdef VerbForm[MOST_VERBS] forms
cdef int form_count = 0
cdef list _verbs = []
for _form, _of in (
    (GET, b"get gets"),
    (SET, b"set add replace append prepend"),
    (META, b"mg md ma"),
    (META_SET, b"ms"),
    (META_END, b"mn"),
    (DELETE, b"delete"),
    (ARITHMETIC, b"incr decr"),
    (TOUCH, b"touch"),
    (CAS, b"cas"),
    (GET_AND_TOUCH, b"gat gats"),
):
    for _verb in _of.split():
        _verbs.append(_verb)
        forms[form_count].verb, forms[form_count].size = PyBytes_AS_STRING(_verb), len(_verb)
        forms[form_count].form = _form
        form_count += 1

cdef int token_of[256]      # what may follow a flag's letter
cdef long long least[256]   # of its number
cdef long long most[256]
cdef int _number
for _number in range(256):
    token_of[_number] = UNKNOWN
for _letter in KNOWN_FLAGS - {"b"}:  # b: the key is in base64
    token_of[<int>ord(_letter)] = ANYTHING
for _letter in NUMBERS:
    _least, _most, _ = NUMBERS[_letter]
    token_of[<int>ord(_letter)] = NUMBER
    least[<int>ord(_letter)] = max(_least, -10**MOST_DIGITS)
    most[<int>ord(_letter)] = min(_most, 10**MOST_DIGITS)
token_of[77] = MODE         # M
token_of[79] = OPAQUE       # O

cdef Py_ssize_t max_line = MAX_LINE_BYTES
cdef Py_ssize_t max_key = MAX_KEY_BYTES
cdef Py_ssize_t max_opaque = MAX_OPAQUE_BYTES
cdef long long max_block = MAX_BLOCK_BYTES
cdef long long item_overhead = ITEM_OVERHEAD_BYTES
cdef frozenset SILENCED = frozenset(
    # Others than these may close the connection or be sent in parts, though nothing of them is sent.
    {type(None), bool, int, float, str, bytes, list, tuple, dict}
)


cdef class MemcacheSyntax(Syntax):

    def __init__(self, Py_ssize_t max_body):
        self.max_body = max_body
        self.has_blocks = True
        self.supply = Memcache.supplies[Flags]

    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2:
        cdef Py_ssize_t size = end - p
        cdef const char *body
        cdef const char *ending = <const char *>memchr(p, b"\n", min(size, max_line + 1))
        if ending == NULL:
            return 0 if size <= max_line else -1
        self.given = None
        cut.line, cut.body, cut.body_size = p, NULL, 0
        cut.line_size = ending - p
        if cut.line_size > 1 and (ending - 1)[0] == b"\r":
            cut.line_size -= 1
        cut.eol_size = 2  # that of every request, whatever its line ends with
        if not (split(cut) and is_plain(cut)):
            return -1
        if cut.form not in (SET, CAS, META_SET):
            return ending + 1 - p
        size = cut.body_size
        if size + cut.size[0] + item_overhead > self.max_body:
            return -1
        body = ending + 1
        if end - body < size + 2:
            return 0
        if body[size] != b"\r" or body[size + 1] != b"\n":
            return -1
        cut.body = body
        return body + size + 2 - p

    cdef bint admits(self, const char *p, const char *end) except -1:
        cdef const char *at = p
        cdef const char *ending = <const char *>memchr(p, b"\n", end - p)
        if ending == NULL:
            return False
        while b"a" <= at[0] <= b"z":  # no method of HTTP
            at += 1
        if at == p or at[0] not in b" \r\n":
            return False
        while True:
            at = <const char *>memchr(at, b"/", ending - at)
            if at == NULL:
                return True
            if (at - 1)[0] in b"pP":  # "HTTP/1.1"
                return False
            at += 1

    cdef bint encode(self, Out out, object value, const Cut *cut) except -1:
        cdef Py_ssize_t before = out.size
        cdef bint is_plain
        kind = type(value)
        if cut.form < META and cut.is_quiet:
            return kind in SILENCED
        if kind is Meta:
            is_plain = cut.form >= META and self.encode_meta(out, value, cut)
        elif cut.form in (GET, GET_AND_TOUCH):
            is_plain = self.encode_values(out, value, cut)
        else:
            is_plain = self.encode_line(out, value, cut)
        if not is_plain:
            out.size = before
        return is_plain

    cdef bint encode_values(self, Out out, object value, const Cut *cut) except -1:
        """Write the reply to a get."""
        kind = type(value)
        if kind is bytes or kind is str:
            if cut.form != GET or cut.count != 1:
                return False
            if kind is str:
                value = utf8(value)
            wants_cas = 0 if cut.verb[cut.verb_size - 1] == b"s" else None
            key = PyBytes_FromStringAndSize(cut.word[0], cut.size[0])
            if value is None or not put_value(out, key, value, 0, wants_cas):
                return False
        elif kind is Value:
            if not put_value(out, value.key, value.data, value.flags, value.cas):
                return False
        elif kind is list or kind is tuple:
            for item in value:
                if type(item) is not Value:
                    return False
                if not put_value(out, item.key, item.data, item.flags, item.cas):
                    return False
        elif value is not None:
            return False
        out.put(b"END\r\n", 5)
        return True

    cdef bint encode_line(self, Out out, object value, const Cut *cut) except -1:
        """Write a reply of one line."""
        cdef const char *text
        cdef Py_ssize_t size
        kind = type(value)
        if value is None:
            value = b"OK"
        elif kind is bool:
            words = BOOLS.get(PyBytes_FromStringAndSize(cut.verb, cut.verb_size))
            if words is None:
                return False
            value = words[0 if value else 1]
        elif kind is int:
            if not out.put_int(value):
                return False
            value = b""
        elif kind is str:
            value = utf8(value)
            if value is None:
                return False
        elif kind is not bytes:
            return False
        text, size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        if memchr(text, b"\n", size) != NULL or memchr(text, b"\r", size) != NULL:
            return False
        out.put(text, size)
        out.put(b"\r\n", 2)
        return True

    cdef bint encode_meta(self, Out out, object reply, const Cut *cut) except -1:
        """Write the reply to a meta command."""
        flags = self.flags(cut)
        code, data, answers, marks = reply.code, reply.data, reply.answers, reply.marks
        if type(code) is not str or type(marks) is not str or type(answers) is not dict:
            return False
        if cut.is_quiet and code in HIDDEN_CODES.get(PyBytes_FromStringAndSize(cut.verb, cut.verb_size), ()):
            return True
        code = utf8(code)
        if code is None:
            return False
        out.put_bytes(code)
        if data is not None:
            if type(data) is not bytes:
                return False
            out.put(b" ", 1)
            out.put_int(PyBytes_GET_SIZE(data))
        if flags and not self.encode_answers(out, flags, flags.key, answers):
            return False
        for mark in marks:
            mark = utf8(mark)
            if mark is None:
                return False
            out.put(b" ", 1)
            out.put_bytes(mark)
        out.put(b"\r\n", 2)
        if data is not None:
            out.put_bytes(data)
            out.put(b"\r\n", 2)
        return True

    cdef bint encode_answers(self, Out out, object flags, object key, dict answers) except -1:
        """Write what answers the flags, in their order; the handler may have changed them."""
        cdef Py_ssize_t at = 0
        cdef PyObject *letter = NULL
        cdef PyObject *token = NULL
        cdef PyObject *answer = NULL
        if "b" in flags or type(key) is not bytes:
            return False
        while PyDict_Next(flags, &at, &letter, &token):
            if <object>letter == "O":
                if type(<object>token) is not bytes:
                    return False
                out.put(b" O", 2)
                out.put_bytes(<object>token)
            elif <object>letter == "k":
                out.put(b" k", 2)
                out.put_bytes(key)
            else:
                answer = PyDict_GetItem(answers, <object>letter)
                if answer == NULL:
                    continue
                name = utf8(<object>letter) if type(<object>letter) is str else None
                if name is None or type(<object>answer) is not int:
                    return False
                out.put(b" ", 1)
                out.put_bytes(name)
                if not out.put_int(<object>answer):
                    return False
        return True

    cdef object request(self, const Cut *cut, Plan plan):
        request = MemcacheRequest(
            PyBytes_FromStringAndSize(cut.verb, cut.verb_size),
            words_of(cut),
            plan.entry,
            block(cut),
            line=PyBytes_FromStringAndSize(cut.line, cut.line_size),
            quiet=cut.is_quiet,
        )
        if cut.form == META or cut.form == META_SET:
            request.flags = self.flags(cut)
        return request

    cdef object supplied(self, const Cut *cut):
        return self.flags(cut)

    cdef object flags(self, const Cut *cut):
        """Return the flags of a meta command, always the same object for a request."""
        cdef int number
        if self.given is None:
            flags = self.given = Flags()
            if cut.form == META or cut.form == META_SET:
                flags.key = PyBytes_FromStringAndSize(cut.word[0], cut.size[0])
                for number in range(cut.count, cut.count + cut.extra):
                    letter = PyBytes_FromStringAndSize(cut.word[number], 1).decode("ascii")
                    flags[letter] = PyBytes_FromStringAndSize(cut.word[number] + 1, cut.size[number] - 1)
        return self.given

    cdef int note(self, ConnectionFields connection, const Cut *cut) except -1:
        if connection.maker is None:
            connection.protocol.note_text()
        return 0

    cdef int restore(self, ConnectionFields connection) except -1:
        if connection.served:
            connection.protocol.note_text()
        return 0


def syntax_of(service):
    """Return the syntax of an app."""
    return MemcacheSyntax(service.limits.max_body_bytes)


cdef bint split(Cut *cut) noexcept:
    """Find the words of a line; return False if it has too many, or NUL."""
    cdef const char *at = cut.line
    cdef const char *end = at + cut.line_size
    cdef const char *begin
    cut.count = -1
    if memchr(at, 0, cut.line_size) != NULL:
        return False
    while True:
        while at < end and at[0] == b" ":
            at += 1
        if at == end:
            return cut.count >= 0
        begin = at
        while at < end and at[0] != b" ":
            at += 1
        if cut.count < 0:
            cut.verb, cut.verb_size = begin, at - begin
        elif cut.count == MOST_WORDS:
            return False
        else:
            cut.word[cut.count], cut.size[cut.count] = begin, at - begin
        cut.count += 1


cdef bint is_plain(Cut *cut) noexcept:
    """Whether the words are a request that is plain; find out what else is known of it."""
    cdef int count = cut.count, number
    cdef int form = form_of(cut)
    cut.form, cut.extra = form, 0
    cut.is_quiet = False
    if form == GET or form == GET_AND_TOUCH:
        if count <= (form == GET_AND_TOUCH):
            return False
        for number in range(count):
            if cut.size[number] > max_key:
                return False
        return form == GET or is_number(cut, 0, True)
    if form == META_END:
        cut.count = 0
        return True
    if form == NONE or count == 0 or cut.size[0] > max_key:
        return False
    if form == META:
        cut.count, cut.extra = 1, count - 1
        return are_flags(cut)
    if form == META_SET:
        cut.count, cut.extra = 2, count - 2
        return count >= 2 and is_size(cut, 1) and are_flags(cut)
    cut.count = 1 if form == DELETE else 2 if form in (ARITHMETIC, TOUCH) else 4 if form == SET else 5
    if count != cut.count:
        cut.is_quiet = True
        if count != cut.count + 1 or cut.size[cut.count] != 7 or memcmp(cut.word[cut.count], b"noreply", 7):
            return False
    if form == DELETE:
        return True
    if form == ARITHMETIC or form == TOUCH:
        return is_number(cut, 1, form == TOUCH)
    if not (
        is_number(cut, 1, False) and to_number(cut, 1) >> 32 == 0
        and is_number(cut, 2, True) and is_size(cut, 3)
    ):
        return False
    return form == SET or is_number(cut, 4, False)


cdef int form_of(const Cut *cut) noexcept:
    cdef int number
    for number in range(form_count):
        if forms[number].size == cut.verb_size and not memcmp(forms[number].verb, cut.verb, cut.verb_size):
            return forms[number].form
    return NONE


cdef bint is_number(const Cut *cut, int number, bint may_be_negative) noexcept:
    """Whether a word is a number as Python writes it, of few enough digits."""
    return are_digits(cut.word[number], cut.size[number], may_be_negative)


cdef bint are_digits(const char *word, Py_ssize_t size, bint may_be_negative) noexcept:
    cdef Py_ssize_t i
    if may_be_negative and size and word[0] == b"-":
        word, size = word + 1, size - 1
        if size and word[0] == b"0":
            return False
    if not 0 < size <= MOST_DIGITS or (word[0] == b"0" and size > 1):
        return False
    for i in range(size):
        if not b"0" <= word[i] <= b"9":
            return False
    return True


cdef long long to_number(const Cut *cut, int number) noexcept:
    return value_of(cut.word[number], cut.size[number])


cdef long long value_of(const char *word, Py_ssize_t size) noexcept:
    """Return a number that is known to be one."""
    cdef bint minus = word[0] == b"-"
    cdef long long value = 0
    cdef Py_ssize_t i
    for i in range(minus, size):
        value = value * 10 + (word[i] - 48)
    return -value if minus else value


cdef bint is_size(Cut *cut, int number) noexcept:
    """Whether a word is the size of a data block; note it."""
    if not is_number(cut, number, False) or to_number(cut, number) > max_block:
        return False
    cut.body_size = to_number(cut, number)
    return True


cdef bint are_flags(Cut *cut) noexcept:
    """Whether the further words of a meta command are flags without an error."""
    cdef int number, token
    cdef bint[256] seen
    cdef const char *word
    cdef Py_ssize_t size
    cdef unsigned char letter
    cdef long long value
    for number in range(cut.count, cut.count + cut.extra):
        seen[<unsigned char>cut.word[number][0]] = False
    for number in range(cut.count, cut.count + cut.extra):
        word, size = cut.word[number] + 1, cut.size[number] - 1
        letter = <unsigned char>(word - 1)[0]
        token = token_of[letter]
        if token == UNKNOWN or seen[letter]:
            return False
        seen[letter] = True
        if token == NUMBER:
            if not are_digits(word, size, True):
                return False
            value = value_of(word, size)
            if not least[letter] <= value <= most[letter]:
                return False
        elif token == MODE:
            if size != 1 or not is_mode(cut, word):
                return False
        elif token == OPAQUE and size > max_opaque:
            return False
        elif letter == b"q":
            cut.is_quiet = True
    return True


cdef bint is_mode(const Cut *cut, const char *letter) noexcept:
    """Whether a letter is a mode of the command; those that have none accept any."""
    if cut.form == META_SET:
        return memchr(PyBytes_AS_STRING(set_modes), letter[0], PyBytes_GET_SIZE(set_modes)) != NULL
    if cut.verb[1] == b"a":
        return memchr(PyBytes_AS_STRING(count_modes), letter[0], PyBytes_GET_SIZE(count_modes)) != NULL
    return True


cdef bytes set_modes = MODES[b"ms"]
cdef bytes count_modes = MODES[b"ma"]


cdef bytes utf8(object text):
    """Return a str as UTF-8, or None if it cannot be."""
    try:
        return PyUnicode_AsUTF8String(text)
    except UnicodeEncodeError:
        return None


cdef bint put_value(Out out, object key, object data, object flags, object cas) except -1:
    """Write the block of one item; return False if it is not plain."""
    if type(key) is not bytes or type(data) is not bytes or type(flags) is not int:
        return False
    out.put(b"VALUE ", 6)
    out.put_bytes(key)
    out.put(b" ", 1)
    if not out.put_int(flags):
        return False
    out.put(b" ", 1)
    out.put_int(PyBytes_GET_SIZE(data))
    if cas is not None:
        out.put(b" ", 1)
        if type(cas) is not int or not out.put_int(cas):
            return False
    out.put(b"\r\n", 2)
    out.put_bytes(data)
    out.put(b"\r\n", 2)
    return True
