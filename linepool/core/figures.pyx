# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""How the core counts a duration, in a row of the figures; ``ipc/figures`` says what a row is."""
from libc.stdint cimport uint64_t

from linepool.ipc.figures import buckets, words

cdef enum:
    MOST_BOUNDS = 256

cdef uint64_t[MOST_BOUNDS] bounds
cdef int bound_count = len(buckets.BOUNDS_NS)
cdef int[65] first_of            # the first bound that a number of so many bits can be below
cdef int SUM_NS = words.SUM_NS
cdef int FIRST_BUCKET = words.FIRST_BUCKET

cdef extern from *:
    """
    static inline int bits_of(unsigned long long number) {
        return number ? 64 - __builtin_clzll(number) : 0;
    }
    """
    int bits_of(unsigned long long number) nogil


cdef int fill() except -1:
    cdef int number = 0, bits
    for number in range(bound_count):
        bounds[number] = buckets.BOUNDS_NS[number]
    number = 0
    for bits in range(65):
        while number < bound_count and bits and bounds[number] < (<uint64_t>1 << (bits - 1)):
            number += 1
        first_of[bits] = number
    return 0


fill()


cdef int count(uint64_t *block, uint64_t took_ns) noexcept nogil:
    """Count a duration in a block."""
    cdef int number = first_of[bits_of(took_ns)]
    while number < bound_count and bounds[number] < took_ns:
        number += 1
    block[SUM_NS] += took_ns
    block[FIRST_BUCKET + number] += 1
    return 0


def counted(uint64_t[::1] block, uint64_t took_ns):
    """Count a duration in a block; to be compared with ``Row.done``."""
    count(&block[0], took_ns)
