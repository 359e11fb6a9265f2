# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What every protocol's part of the core uses: plans of commands, conversion of words, the replies' buffer.

A plan is made once for each command. It says whether the core calls the handler itself (its parameters
are plain words, the session, resources), has the conversation answer (middleware, options, other
types), or leaves the request to Python.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

from linepool.core.fields cimport ConnectionFields

import inspect

from linepool.handlers.from_words import KINDS
from linepool.handlers.inject import ResourceOf, session_of, verb_of
from linepool.protocols.base import Request
from linepool.session import Verb
from linepool.signatures import signature_of

cdef extern from "Python.h":
    object PyUnicode_DecodeUTF8(const char *data, Py_ssize_t size, const char *errors)
    double PyOS_string_to_double(const char *text, char **end, PyObject *overflow) except? -1.0
    object PyLong_FromLongLong(long long value)
    ctypedef struct PyTypeObject
    object PyType_GenericAlloc(PyTypeObject *kind, Py_ssize_t items)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

BODY = object()  # in place of what injects a parameter: it is the data block

cdef enum:
    FIRST_ROOM = 16384
    MOST_DIGITS = 18        # every such number fits into 64 bits
    MOST_FLOAT = 40         # characters
    MOST_VERB = 64


cdef class Out:
    def __cinit__(self):
        self.data = <char *>PyMem_Malloc(FIRST_ROOM)
        self.room = FIRST_ROOM
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef char *reserve(self, Py_ssize_t more) except NULL:
        """Return where the next bytes go, with room for so many."""
        cdef char *data
        if self.size + more > self.room:
            room = 2 * (self.size + more)
            data = <char *>PyMem_Realloc(self.data, room)
            if data == NULL:
                raise MemoryError
            self.data, self.room = data, room
        return self.data + self.size

    cdef int put(self, const char *data, Py_ssize_t size) except -1:
        memcpy(self.reserve(size), data, size)
        self.size += size
        return 0

    cdef int put_bytes(self, bytes data) except -1:
        return self.put(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef bint put_int(self, object value) except -1:
        """Write an int in decimal; return False, and write nothing, if it has more than 64 bits."""
        cdef char digits[24]
        cdef char *at = digits + 24
        cdef int overflow = 0
        cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
        cdef unsigned long long rest
        if overflow:
            return False
        rest = <unsigned long long>number
        if number < 0:
            rest = 0 - rest
        while True:
            at -= 1
            at[0] = 48 + rest % 10
            rest //= 10
            if not rest:
                break
        if number < 0:
            at -= 1
            at[0] = b"-"
        self.put(at, digits + 24 - at)
        return True


cdef class Plan:
    def __init__(
        self,
        bytes verb,
        object entry,
        object service,
        uint64_t limit_ns,
        Syntax syntax,
        bint has_layers,
    ):
        signature = entry.signature
        self.syntax = syntax
        self.entry, self.verb, self.call, self.function = entry, verb, entry.call, entry.function
        self.limit_ns = limit_ns if entry.limit_ns is None else entry.limit_ns
        self.number = entry.number
        self.required, self.words = signature.required, len(signature.words)
        self.extras = []
        words = {word.name: word for word in signature.words}
        supplied = dict(signature.supplied)
        self.is_indirect = not signature.rest and not entry.waits
        if signature.body:
            self.is_indirect = self.is_indirect and syntax.has_blocks
            supplied[signature.body] = BODY
        for supply in [*signature.supplied.values(), *service.supplies]:
            if supply not in (session_of, verb_of, syntax.supply) and not isinstance(supply, ResourceOf):
                self.is_indirect = False  # it may reach the connection, whose replies are kept here
        if signature.many:
            kind = syntax.kinds.get(signature.many.convert, b"\0")
            self.many = (<bytes>kind)[0]
        self.is_direct = (
            self.is_indirect
            # What these use of a request may be changed by middleware.
            and not (has_layers and (syntax.has_blocks or verb_of in supplied.values()))
            and syntax.only_calls(verb)
            and may_lack_options(entry.function, signature)
            and (signature.many is None or self.many)
            and len(words) + len(supplied) == len(signature.order) <= MOST_WORDS
        )
        for name in signature.order if self.is_direct else ():
            self.is_direct = self.is_direct and self.add(name, words, supplied)

    cdef bint add(self, str name, dict words, dict supplied) except -1:
        """Add an argument; return whether the core can make it."""
        word = words.get(name)
        extra = None
        if word is not None:
            kind = self.syntax.kinds.get(word.convert)
            extra = None if word.required else word.default
        elif supplied[name] is session_of:
            kind = b"S"
            self.has_session = True
        elif supplied[name] is verb_of:
            kind, extra = b"V", Verb(self.verb.decode("utf-8", "replace"))
        elif supplied[name] is BODY:
            kind = b"B"
        elif supplied[name] is self.syntax.supply:
            kind = b"P"
        else:
            kind = b"R" if type(supplied[name]) is ResourceOf else None
            extra = getattr(supplied[name], "name", None)
        if kind is None:
            return False
        self.kind[self.arguments] = (<bytes>kind)[0]
        self.arguments += 1
        self.extras.append(extra)
        return True

    cdef tuple values(self, const Cut *cut, object session, object resources):
        """Return the arguments, or None: the words are not exactly those that the handler takes."""
        cdef int number, at = 0
        cdef int further = cut.count - self.words
        if cut.count < self.required or (further > 0 and not self.many):
            return None
        cdef char kind
        cdef PyObject *resource
        if further < 0:
            further = 0
        cdef tuple values = PyTuple_New(self.arguments + further)
        for number in range(self.arguments + further):
            kind = self.kind[number] if number < self.arguments else self.many
            if kind == b"S":
                value = session
            elif kind == b"V":
                value = self.extras[number]
            elif kind == b"B":
                value = block(cut)
            elif kind == b"P":
                value = self.syntax.supplied(cut)
            elif kind == b"R":
                resource = PyDict_GetItem(resources, self.extras[number])
                if resource == NULL:
                    return None  # it is made when a batch asks for it
                value = <object>resource
            elif at < cut.count:
                value = converted(kind, cut.word[at], cut.size[at])
                if value is None:
                    return None
                at += 1
            else:
                value = self.extras[number]
            Py_INCREF(value)
            PyTuple_SET_ITEM(values, number, value)
        return values


def may_lack_options(function, signature):
    """Whether the handler is called without option words as if it had none.

    As ``linepool/handlers/compile.py`` decides it, but for defaults that are not the function's own.
    """
    parameters = signature_of(function).parameters
    for option in signature.options.values():
        if option.required or parameters[option.name].default is inspect.Parameter.empty:
            return False
    return not signature.options or signature.required == len(signature.words)


cdef inline uint64_t hashed(const char *verb, Py_ssize_t size) noexcept:
    """Return a hash of a verb (FNV-1a)."""
    cdef uint64_t value = 0xCBF29CE484222325ULL
    cdef Py_ssize_t i
    for i in range(size):
        value = (value ^ <unsigned char>verb[i]) * 0x100000001B3ULL
    return value ^ (value >> 32)


cdef class Plans:
    def __init__(self, object service, uint64_t limit_ns, Syntax syntax, bint has_layers):
        """Make the plans of an app.

        Args:
            service: The app.
            limit_ns: The setting ``request_timeout``, in ns.
            syntax: Cuts its requests.
            has_layers: It has middleware that the core does not replace.
        """
        self.ignores_case = service.protocol.ignores_case
        self.plans = [
            Plan(verb, entry, service, limit_ns, syntax, has_layers)
            for verb, entry in service.table.items()
        ]
        by_verb = {(<Plan>plan).verb: plan for plan in self.plans}
        if service.protocol.ignores_case:  # its names are in upper case
            for verb in list(by_verb):
                by_verb.setdefault(verb.lower(), by_verb[verb])  # as most clients write it
        size = 8
        while size < 4 * len(by_verb):
            size *= 2
        self.mask = size - 1
        self.verbs, self.found = [None] * size, [None] * size
        for verb, plan in by_verb.items():
            at = hashed(verb, len(verb)) & self.mask
            while self.verbs[at] is not None:
                at = (at + 1) & self.mask
            self.verbs[at], self.found[at] = verb, plan

    def place(self, list offsets):
        """Note where the requests of each command are counted, by the command's number."""
        for plan in self.plans:
            (<Plan>plan).offset = offsets[(<Plan>plan).number]

    def refresh(self):
        """Note which commands are braked now: the entry's ``call`` is another one then."""
        for plan in self.plans:
            (<Plan>plan).is_braked = plan.entry.call is not (<Plan>plan).call

    cdef Plan find(self, const char *verb, Py_ssize_t size):
        """Return the plan of a command as the protocol finds its entry, or None."""
        cdef char upper[MOST_VERB]
        cdef Py_ssize_t i
        found = self.find_exactly(verb, size)
        if found is None and self.ignores_case and size <= MOST_VERB:
            for i in range(size):
                upper[i] = verb[i] - 32 if b"a" <= verb[i] <= b"z" else verb[i]
            found = self.find_exactly(upper, size)
        return found

    cdef Plan find_exactly(self, const char *verb, Py_ssize_t size):
        cdef uint64_t at = hashed(verb, size) & self.mask
        while True:
            known = self.verbs[at]
            if known is None:
                return None
            if PyBytes_GET_SIZE(known) == size and not memcmp(PyBytes_AS_STRING(known), verb, size):
                return <Plan>self.found[at]
            at = (at + 1) & self.mask


cdef class Syntax:
    """One protocol; without methods of its own, nothing is plain."""

    def __cinit__(self):
        self.kinds = KINDS
        self.is_initial = True

    cdef bint serves(self, ConnectionFields connection) except -1:
        """Whether requests of a connection may be taken now; called at the beginning of a turn."""
        return True

    cdef bint only_calls(self, bytes verb) except -1:
        """Whether ``Protocol.around`` would only call the handler of a command, where ``serves``."""
        return True

    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2:
        """Cut the next request; return its length with its ending.

        0: it is incomplete; -1: it is not plain. A request of no words (``verb_size`` 0) is ignored.
        """
        return -1

    cdef bint admits(self, const char *p, const char *end) except -1:
        """Whether the first bytes of a client are certainly those of this protocol."""
        return False

    cdef bint encode(self, Out out, object value, const Cut *cut) except -1:
        """Write a reply; return False, and write nothing, if the value is not plain."""
        return False

    cdef object request(self, const Cut *cut, Plan plan):
        """Return the request as the protocol in Python would."""
        raise NotImplementedError

    cdef object supplied(self, const Cut *cut):
        """Return what ``supply`` would for that request."""
        raise NotImplementedError

    cdef int note(self, ConnectionFields connection, const Cut *cut) except -1:
        """Note in the connection's protocol, or in the connection, what a request says of its client."""
        return 0

    cdef int restore(self, ConnectionFields connection) except -1:
        """Move that from the connection to its protocol, which has just been made."""
        return 0


cdef list words_of(const Cut *cut):
    """Return the words after the verb."""
    cdef int number
    cdef list words = []
    for number in range(cut.count):
        words.append(PyBytes_FromStringAndSize(cut.word[number], cut.size[number]))
    return words


cdef object request_of(const Cut *cut, Plan plan, bytes eol):
    """Return a request without a data block."""
    request = PyType_GenericAlloc(<PyTypeObject *>Request, 0)  # in half the time of its __init__
    request.verb = PyBytes_FromStringAndSize(cut.verb, cut.verb_size)
    request.words, request.command = words_of(cut), plan.entry
    request.body = request.values = None
    request.eol, request.line = eol, PyBytes_FromStringAndSize(cut.line, cut.line_size)
    return request


cdef object block(const Cut *cut):
    """Return the data block of a request, or None."""
    return None if cut.body == NULL else PyBytes_FromStringAndSize(cut.body, cut.body_size)


cdef object converted(char kind, const char *word, Py_ssize_t size):
    """Return a word as ``linepool.handlers.from_words`` converts it, or None: it is not plain."""
    if kind == b"i":
        return to_int(word, size)
    if kind == b"I":
        return to_strict_int(word, size)
    if kind == b"s":
        try:
            return PyUnicode_DecodeUTF8(word, size, NULL)
        except UnicodeDecodeError:
            return None
    if kind == b"b":
        return PyBytes_FromStringAndSize(word, size)
    if kind == b"f":
        return to_float(word, size)
    return to_bool(word, size)


cdef object to_int(const char *word, Py_ssize_t size):
    cdef bint minus = word[0] == b"-"
    cdef long long value = 0
    cdef unsigned digit
    cdef Py_ssize_t i
    if not minus < size <= MOST_DIGITS + minus:
        return None
    for i in range(minus, size):
        digit = <unsigned char>word[i] - 48
        if digit > 9:
            return None
        value = value * 10 + digit
    return PyLong_FromLongLong(-value if minus else value)


cdef object to_strict_int(const char *word, Py_ssize_t size):
    """As ``to_int``, but without superfluous zeros, as Redis has it."""
    cdef bint minus = word[0] == b"-"
    if size > minus and word[minus] == b"0" and size > 1:
        return None
    return to_int(word, size)


cdef object to_float(const char *word, Py_ssize_t size):
    cdef char text[MOST_FLOAT + 1]
    cdef char *end = text
    cdef Py_ssize_t i
    if size > MOST_FLOAT:
        return None
    for i in range(size):
        if not (b"0" <= word[i] <= b"9" or word[i] in b".-+e"):
            return None
    memcpy(text, word, size)
    text[size] = 0
    try:
        value = PyOS_string_to_double(text, &end, NULL)  # too large: infinite
    except ValueError:
        return None
    return value if end == text + size else None


cdef object to_bool(const char *word, Py_ssize_t size):
    if size == 1 and word[0] in b"01":
        return word[0] == b"1"
    if size == 4 and not memcmp(word, b"true", 4):
        return True
    if size == 5 and not memcmp(word, b"false", 5):
        return False
    return None
