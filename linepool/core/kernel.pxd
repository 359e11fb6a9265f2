# What the core asks of the kernel, and of CPython beyond what Cython declares.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t send(int fd, const void *buffer, size_t size, int flags)
    int getsockopt(int fd, int level, int option, void *value, unsigned *size)
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SO_COOKIE
        SOCK_CLOEXEC
        SOL_SOCKET
        AF_INET
        AF_INET6
    struct sockaddr_storage:
        unsigned short ss_family

cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_INFO

cdef extern from "<arpa/inet.h>" nogil:
    const char *inet_ntop(int family, const void *address, char *text, unsigned size)
    unsigned short ntohs(unsigned short port)

cdef extern from "<netdb.h>" nogil:
    enum:
        NI_MAXHOST

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        int fd
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_wait(int epoll, epoll_event *events, int most, int milliseconds)
    int epoll_ctl(int epoll, int operation, int fd, epoll_event *event)
    enum:
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLLIN

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *time)
    enum:
        CLOCK_MONOTONIC

cdef extern from *:
    """
    static inline void release_fence(void) { __atomic_thread_fence(__ATOMIC_RELEASE); }

    static inline void full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

    static inline int accept_any(int fd, void *address, unsigned *size, int flags) {
        return accept4(fd, (struct sockaddr *)address, (socklen_t *)size, flags);
    }

    static inline int numeric_host(const void *address, unsigned size, char *host, unsigned most) {
        host[0] = 0;
        return getnameinfo((const struct sockaddr *)address, size, host, most, NULL, 0, NI_NUMERICHOST);
    }

    static inline PyObject *take_raised(void) {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback != NULL)
            PyException_SetTraceback(value, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    #endif
    }
    """
    void release_fence() nogil
    void full_fence() nogil
    int accept_any(int fd, void *address, unsigned *size, int flags) nogil
    int numeric_host(const void *address, unsigned size, char *host, unsigned most) nogil
    object take_raised()

cdef extern from "Python.h":
    ctypedef struct PyObject
    int PyErr_CheckSignals() except -1
    PyObject *PyObject_Call(object function, tuple arguments, void *keywords)
    object PyContext_CopyCurrent()
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    void Py_DECREF(PyObject *value)


cdef inline long long monotonic_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * 1000000000LL + time.tv_nsec
