from linepool.core.syntax cimport Out, Syntax
from linepool.core.syntax cimport Cut


cdef class LineSyntax(Syntax):
    cdef Py_ssize_t max_line
    cdef bint framed            # requests may begin with @
    cdef bint encode_int(self, Out out, object value, const Cut *cut) except -1
    cdef bint encode_framed(self, Out out, object value, const Cut *cut) except -1
    cdef void end(self, Out out, char *to, const Cut *cut) noexcept
