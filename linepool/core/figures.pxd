from libc.stdint cimport uint64_t

cdef int count(uint64_t *block, uint64_t took_ns) noexcept nogil
