from libc.stdint cimport uint64_t

from linepool.core.fields cimport ConnectionFields

cdef enum:
    MOST_WORDS = 24


cdef struct Cut:
    # One request in the bytes that were received. The pointers are into these.
    const char *line        # without its ending
    Py_ssize_t line_size
    int eol_size
    const char *verb
    Py_ssize_t verb_size
    int count               # of the words after the verb
    const char *word[MOST_WORDS]
    Py_ssize_t size[MOST_WORDS]
    # Only where the syntax has data blocks:
    const char *body        # NULL: there is none
    Py_ssize_t body_size
    long long most_ns       # how long the client waits for the reply; 0: it has not said
    # For the syntax itself:
    int form                # which form the command has
    int extra               # words behind those that are counted
    bint is_quiet           # the client wants no reply, or only an unexpected one
    bint is_framed          # its reply begins with ...
    const char *head        # ... this id, unless that is empty
    Py_ssize_t head_size
    const char *given_id    # of the request, from its client
    Py_ssize_t given_id_size


cdef class Out:
    # The replies of a turn.
    cdef char *data
    cdef Py_ssize_t size, room
    cdef char *reserve(self, Py_ssize_t more) except NULL
    cdef int put(self, const char *data, Py_ssize_t size) except -1
    cdef int put_bytes(self, bytes data) except -1
    cdef bint put_int(self, object value) except -1


cdef class Syntax


cdef class Plan:
    # How a command is called.
    cdef Syntax syntax
    cdef readonly object entry
    cdef object call            # as the entry's was when the plan was made
    cdef object function
    cdef bytes verb
    cdef readonly bint is_direct         # the core calls the function itself
    cdef bint is_indirect       # the core has the conversation answer; neither: Python reads it
    cdef bint is_braked
    cdef bint has_session
    cdef int arguments, required, words
    cdef char many              # how the words beyond these are converted; 0: none may be given
    cdef char kind[MOST_WORDS]
    cdef list extras            # of each argument: its default, its value, or the name of a resource
    cdef uint64_t limit_ns, number
    cdef Py_ssize_t offset      # the first word of its block in a row of the figures
    cdef bint add(self, str name, dict words, dict supplied) except -1
    cdef tuple values(self, const Cut *cut, object session, object resources)


cdef class Plans:
    # The plans of an app's commands, by the verb's bytes.
    cdef readonly list plans
    cdef list verbs, found      # a hash table: at the same place a verb and its plan
    cdef uint64_t mask
    cdef bint ignores_case
    cdef Plan find(self, const char *verb, Py_ssize_t size)
    cdef Plan find_exactly(self, const char *verb, Py_ssize_t size)


cdef class Syntax:
    # What the core knows of a protocol.
    cdef bint has_blocks        # its requests may have a data block
    cdef dict kinds             # the letters of converters, as ``KINDS``
    cdef bint is_initial        # the protocol of this turn's connection is in its initial state
    cdef object supply          # with which the protocol injects what ``supplied`` returns, or None
    cdef bint serves(self, ConnectionFields connection) except -1
    cdef bint only_calls(self, bytes verb) except -1
    cdef Py_ssize_t cut(self, const char *p, const char *end, Cut *cut) except -2
    cdef bint admits(self, const char *p, const char *end) except -1
    cdef bint encode(self, Out out, object value, const Cut *cut) except -1
    cdef object request(self, const Cut *cut, Plan plan)
    cdef object supplied(self, const Cut *cut)
    cdef int note(self, ConnectionFields connection, const Cut *cut) except -1
    cdef int restore(self, ConnectionFields connection) except -1


cdef object block(const Cut *cut)
cdef object converted(char kind, const char *word, Py_ssize_t size)
cdef list words_of(const Cut *cut)
cdef object request_of(const Cut *cut, Plan plan, bytes eol)
