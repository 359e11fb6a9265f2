# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cut the line of a plain request into its words."""

from libc.string cimport memchr


def plain_words(bytes line not None):
    """Return the words of a line without its newline; None if only the pure Python may cut it.

    A line is plain if it has neither a quote nor a control character nor a byte above ASCII.
    """
    cdef Py_ssize_t i
    cdef unsigned char byte
    cdef const char *text = line
    cdef Py_ssize_t length = len(line)
    if length and memchr(text, b'"', length) is not NULL:
        return None
    for i in range(length):
        byte = <unsigned char>text[i]
        if byte < 32 or byte > 126:
            return None
    return line.split()
