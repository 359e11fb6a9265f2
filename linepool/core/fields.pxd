from libc.stdint cimport uint64_t


cdef class ConnectionFields:
    cdef public int descriptor, place, needs
    cdef public uint64_t cookie, origin, shown, taken
    cdef public bint served, is_replaceable, is_plain, more
    cdef public double quiet_since, accepted_at, read_by
    cdef public object conversation, protocol
    cdef public object encrypted    # its transport with TLS; None: the core receives and sends itself
    # Of a connection that the core has accepted, until Python's part of it is made.
    cdef object maker       # makes that part; None: it is there
    cdef readonly object listener
    cdef object turns       # which serve it, once they have been found
    cdef readonly bint is_admitted  # its first bytes are those of a request
    cdef bint crlf          # how its last request ended
    cdef readonly object address    # of its client, as Python's accept() gives it


cdef class TableFields:
    cdef public dict connections, again
    cdef public list places
    cdef public double due


cdef class SafePointFields:
    cdef public bint is_open, is_wanted


cdef class FigureFields:
    cdef public long long since_ns


cdef class InterruptFields:
    cdef public object conversation
    cdef public bint armed
