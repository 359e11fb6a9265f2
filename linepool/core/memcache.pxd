from linepool.core.syntax cimport Cut, Out, Plan, Syntax


cdef class MemcacheSyntax(Syntax):
    cdef Py_ssize_t max_body
    cdef object given       # the flags of the present request, if they have been made
    cdef object flags(self, const Cut *cut)
    cdef bint encode_values(self, Out out, object value, const Cut *cut) except -1
    cdef bint encode_meta(self, Out out, object reply, const Cut *cut) except -1
    cdef bint encode_answers(self, Out out, object flags, object key, dict answers) except -1
    cdef bint encode_line(self, Out out, object value, const Cut *cut) except -1
