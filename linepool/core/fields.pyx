# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The fields that the core shares with Python's classes, as C structs; ``plain`` says which they are for."""


cdef class ConnectionFields:
    def make(self):
        """Make Python's part of a connection that the core has accepted."""
        maker, self.maker = self.maker, None
        maker.make(self)


cdef class TableFields:
    pass


cdef class SafePointFields:
    pass


cdef class FigureFields:
    pass


cdef class InterruptFields:
    pass
