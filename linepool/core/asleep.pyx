# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A process that sleeps without its memory, to its end: the holder of a worker's descriptors.

Once the memory is given back, there is no interpreter any more: nothing but system calls is made, by a
function that has been called before. The dynamic linker may need that memory at the first call of another.
"""
from libc.errno cimport errno

cdef extern from "<unistd.h>" nogil:
    long syscall(long number, ...)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_getppid
    long SYS_munmap
    long SYS_rt_sigtimedwait
    long SYS_exit_group

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec

cdef enum:
    MOST = 1024
    PAGE = 65536  # bytes of the largest that there is


def sleep(ranges, int number, int parent, int patience):
    """Give back memory, wait until the parent has ended, then for some seconds; end the process.

    Args:
        ranges: Begin and end of each piece of memory that only the interpreter needs.
        number: Of the signal that comes when the parent ends. Pre-condition: all signals are blocked.
        parent: Its pid.
        patience: Seconds.
    """
    cdef unsigned long begins[MOST]
    cdef unsigned long ends[MOST]
    cdef int count = 0
    # What a thread keeps for itself is in such memory too; the kernel's calls here may set errno.
    cdef unsigned long own = <unsigned long>&errno
    for begin, end in ranges:
        if count + 2 > MOST:
            break
        if begin <= own < end:
            begins[count], ends[count] = begin, max(begin, own // PAGE * PAGE - PAGE)
            count += 1
            begin = min(end, own // PAGE * PAGE + 2 * PAGE)
        begins[count], ends[count] = begin, end
        count += 1
    syscall(SYS_getppid)
    with nogil:
        rest(begins, ends, count, number, parent, patience)


cdef void rest(
    unsigned long *begins, unsigned long *ends, int count, int number, int parent, int patience
) noexcept nogil:
    cdef int at
    cdef unsigned long long signals = 1ULL << (number - 1)
    cdef timespec seconds
    for at in range(count):
        if begins[at] < ends[at]:
            syscall(SYS_munmap, begins[at], ends[at] - begins[at])
    while syscall(SYS_getppid) == parent:
        syscall(SYS_rt_sigtimedwait, &signals, NULL, NULL, sizeof(signals))
    seconds.tv_sec, seconds.tv_nsec = patience, 0
    signals = 0
    syscall(SYS_rt_sigtimedwait, &signals, NULL, &seconds, sizeof(signals))
    syscall(SYS_exit_group, 0)
