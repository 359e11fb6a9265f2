from libc.stdint cimport uint64_t

from linepool.core.fields cimport (
    ConnectionFields,
    FigureFields,
    InterruptFields,
    SafePointFields,
)
from linepool.core.layers cimport Chain
from linepool.core.syntax cimport Cut, Out, Plan, Plans, Syntax

cdef enum:
    SERVED, ARRANGE, UNTOUCHED


cdef struct Words:
    # Words of the board, each where ``linepool/ipc/board`` has it.
    char *line
    uint64_t *line_length
    uint64_t *eol_length
    uint64_t *limit_ns
    uint64_t *command
    uint64_t *begun
    uint64_t *serial
    uint64_t *started_ns
    uint64_t *requests
    uint64_t *handler_ns
    uint64_t *cookie
    uint64_t *client_fd
    int place_words
    int shown
    int shown_cookie
    int taken
    uint64_t *idle_since_ns
    uint64_t *held
    uint64_t *connections
    uint64_t *waited_ns
    uint64_t *order
    uint64_t *permit
    uint64_t *state
    uint64_t *since_ns
    # Of the head:
    uint64_t *parked
    uint64_t *ready
    uint64_t *ready_since_ns
    uint64_t *slots
    uint64_t *brakes
    uint64_t *bans
    uint64_t *edges_from_ns
    uint64_t *idle_floor
    uint64_t *published


cdef struct Input:
    # The bytes of a turn.
    const char *at          # what is to be answered next; NULL: nothing has come
    const char *end
    Py_ssize_t got          # by the last recv()


cdef struct Batch:
    # What a turn has done.
    int done                # requests
    long long began_ns      # when the next request begins
    Py_ssize_t length       # of the last request; 0: it is incomplete; -1: it is not plain
    Py_ssize_t blank        # bytes of lines without a word before the request
    bint more               # the turn was long enough; there may be further requests
    bint ended              # nothing behind the last request is answered now


cdef class Turns:
    cdef Words words
    cdef readonly Plans plans
    cdef Syntax syntax
    cdef SafePointFields safe_point
    cdef InterruptFields interrupts
    cdef object context, board, resources, brakes, forked_names
    cdef uint64_t[::1] slot_words, head_words, published_words
    cdef unsigned char[::1] line_bytes
    cdef Out out
    cdef char *received         # what a turn reads, after what was left of the one before
    cdef Py_ssize_t kept_room, line_room
    cdef uint64_t brakes_seen, client_limit_ns
    cdef long long batch_ns     # after which a turn ends
    cdef long long turn_ns      # when this turn began
    cdef double read_timeout
    cdef tuple layers           # of middleware, without the limit of the rate
    cdef bint is_limited        # requests are counted, see ``ipc/board/rates.py``:
    cdef uint64_t[::1] rate_words
    cdef uint64_t interval_us, ahead_us, rate_salt
    cdef object rate_limit
    cdef bint has_login         # clients have to log in
    cdef bint shows_session     # the app's code has had the session in the present request
    cdef bint guard
    cdef bint has_checks        # some of its resources are checked
    cdef bint is_followed       # more has been received behind the request that is being answered
    cdef bint asked_python      # this turn has called the conversation
    cdef object reply, replied  # a reply in parts, and its request
    cdef Py_ssize_t replied_bytes  # of that request
    cdef FigureFields figures   # which count each request
    cdef object row             # the same, with the words:
    cdef uint64_t[::1] row_words
    cdef uint64_t *blocks
    cdef Py_ssize_t offset      # the first word of the block of the request that is being answered
    cdef object result          # how it has ended; None: as it should
    cdef object observer        # told of each request that is done, if something listens:
    cdef bint listens
    cdef object request         # of the one that is being answered; None: it has no object
    cdef readonly bint is_usable
    cdef bint has_rules         # its clients must be asked who they are
    cdef bint accepts           # the core may accept connections for its listener
    cdef dict others            # by the names of listeners that have turns of their own; None: none has
    cdef Turns of(self, ConnectionFields connection)
    cdef int turn(self, ConnectionFields connection, int flags, bint receives) except -1
    cdef int take(
        self, ConnectionFields connection, int flags, bint receives, Input *input
    ) except -1
    cdef int take_decrypted(
        self, ConnectionFields connection, int flags, char *start, Input *input
    ) except -1
    cdef bint send_encrypted(self, ConnectionFields connection) except -1
    cdef int serve_input(self, ConnectionFields connection, Input *input) except -1
    cdef int answer_all(
        self, ConnectionFields connection, Input *input, Batch *batch, long long until_ns
    ) except -1
    cdef bint has_logged_out(self, ConnectionFields connection) except -1
    cdef bint receive_more(self, ConnectionFields connection, Input *input) except -1
    cdef int answer(self, ConnectionFields connection, const Cut *cut, long long began_ns) except -1
    cdef int run(self, ConnectionFields connection, const Cut *cut, Plan plan, tuple values) except -1
    cdef Chain chain(self, ConnectionFields connection, const Cut *cut, Plan plan)
    cdef int ask(self, ConnectionFields connection, const Cut *cut, Plan plan) except -1
    cdef int conclude(
        self,
        ConnectionFields connection,
        object request,
        object value,
        object error,
        object context,
    ) except -1
    cdef int keep(self, ConnectionFields connection, object reply, object request) except -1
    cdef bint counts(self, ConnectionFields connection, long long now_ns) except -1
    cdef int refuse(
        self, ConnectionFields connection, const Cut *cut, Plan plan, long long began_ns
    ) except -1
    cdef bint has_time(
        self, ConnectionFields connection, const Cut *cut, Plan plan, long long began_ns
    ) except -1
    cdef int count_done(
        self, ConnectionFields connection, long long began_ns, long long ended_ns
    ) except -1
    cdef int count_wait(self, ConnectionFields connection, long long now_ns) except -1
    cdef int tell(
        self, ConnectionFields connection, const Cut *cut, const Batch *batch, Py_ssize_t before
    ) except -1
    cdef int publish(self, const Cut *cut, Plan plan, long long began_ns) noexcept
    cdef int failed_to_read(self, ConnectionFields connection, Py_ssize_t got, int error) except -1
    cdef int hand_over(self, ConnectionFields connection, const Input *input, bint more) except -1
    cdef int show(self, ConnectionFields connection) except -1
    cdef bint commit(self, ConnectionFields connection) except -1
    cdef int complete(self, ConnectionFields connection) except -1
