# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Middleware in the core: each layer is called as ``Conversation`` calls it; at the end is the handler.

A request that the middleware has not changed goes to its handler as if there were no middleware.
"""
cimport cython
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE

cdef extern from "Python.h":
    Py_ssize_t PyList_GET_SIZE(PyObject *list)
    PyObject *PyList_GET_ITEM(PyObject *list, Py_ssize_t at)


@cython.freelist(8)
cdef class Chain:
    cdef object next(self, object request, Py_ssize_t number):
        """Call the layer of a number, or the handler behind the last one."""
        cdef tuple values
        if number < PyTuple_GET_SIZE(self.layers):
            layer = Layer.__new__(Layer)
            (<Layer>layer).chain, (<Layer>layer).number = self, number + 1
            return self.layers[number](request, self.session, layer)
        if request is self.request and self.cut != NULL and self.is_unchanged():
            values = self.plan.values(self.cut, self.session, self.resources)
            if values is not None:
                return self.plan.function(*values)
        return self.conversation.call(request)

    cdef bint is_unchanged(self) except -1:
        """Whether the request is still what the core has made."""
        cdef Py_ssize_t i
        cdef PyObject *words
        request = self.request
        given = request.words
        if type(given) is not list or request.command is not self.plan.entry:
            return False
        words = <PyObject *>given
        if PyList_GET_SIZE(words) != PyTuple_GET_SIZE(self.words) or request.values is not None:
            return False
        for i in range(PyTuple_GET_SIZE(self.words)):
            if PyList_GET_ITEM(words, i) != <PyObject *>PyTuple_GET_ITEM(self.words, i):
                return False
        return True


@cython.freelist(8)
cdef class Layer:
    def __call__(self, request):
        """Have a request done; as the function that a middleware is given."""
        return self.chain.next(request, self.number)

    @property
    def conversation(self):
        """The conversation of the request."""
        return self.chain.conversation
