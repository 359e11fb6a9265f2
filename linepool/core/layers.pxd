from linepool.core.syntax cimport Cut, Plan


cdef class Chain:
    # One request on its way through the middleware.
    cdef const Cut *cut         # NULL: the request is over
    cdef Plan plan
    cdef tuple layers, words
    cdef object request, session, conversation, resources
    cdef object next(self, object request, Py_ssize_t number)
    cdef bint is_unchanged(self) except -1


cdef class Layer:
    # What a middleware calls to have the rest done.
    cdef Chain chain
    cdef Py_ssize_t number
