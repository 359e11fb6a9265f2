from linepool.core.syntax cimport Cut, Out, Syntax

cdef enum:
    LOGGED_WORDS = 4        # these two as in ``linepool/protocols/resp/parser.py``
    LOGGED_BYTES = 64


cdef class RespSyntax(Syntax):
    cdef object template        # a protocol of a new client
    cdef Py_ssize_t most        # bytes of a request
    cdef int version            # of the protocol, as this turn's client has chosen it
    cdef char line[LOGGED_WORDS * (LOGGED_BYTES + 1)]   # what the log shows of the present request
    cdef void join(self, Cut *cut) noexcept
    cdef bint add(self, Out out, object value, int depth) except -1
    cdef bint add_other(self, Out out, object value, object kind, int depth) except -1
    cdef bint add_all(self, Out out, object values, int depth) except -1
    cdef bint add_pairs(self, Out out, dict values, int depth) except -1
