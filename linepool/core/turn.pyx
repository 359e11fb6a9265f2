# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A turn of a connection in the core: receive, answer every plain request, send.

``worker/connection.py`` defines what a turn is. The core takes a request only if all of it is plain, and
decides that before anything has happened; at the first that is not, it hands what it has received to the
connection. Between two turns it keeps nothing: an incomplete request is with the protocol.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from linepool.core.fields cimport ConnectionFields, InterruptFields
from linepool.core.figures cimport count
from linepool.core.kernel cimport (
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    TCP_INFO,
    Py_DECREF,
    PyContext_CopyCurrent,
    PyContext_Enter,
    PyContext_Exit,
    PyErr_CheckSignals,
    PyObject,
    PyObject_Call,
    getsockopt,
    monotonic_ns,
    recv,
    release_fence,
    send,
    take_raised,
)
from linepool.core.layers cimport Chain, Layer
from linepool.core.syntax cimport Cut, Out, Plan, Plans, Syntax

import importlib

from linepool import forked
from linepool.batch import end_batch
from linepool.core import rules
from linepool.encryption import followed
from linepool.errors import LeaveNow
from linepool.failures import OK, error_reply
from linepool.ipc import board as boards
from linepool.ipc.board import rates
from linepool.ipc.figures import row as rows
from linepool.ipc.figures import words as figure_words
from linepool.kernel import sockets

cdef Py_ssize_t CHUNK = sockets.CHUNK
cdef Py_ssize_t MOST_DECRYPTED = 2 * CHUNK  # at once: a chunk, and the record that had begun before
cdef Py_ssize_t BATCH_BYTES = rules.BATCH_BYTES
cdef int READ = rules.READ
cdef int AGAIN = rules.AGAIN
cdef uint64_t BOUND = boards.BOUND
cdef uint64_t SEALED = boards.SEALED

cdef uint64_t RATE_SETS = rates.SETS
cdef uint64_t RATE_IN_SET = rates.IN_SET
cdef uint64_t RATE_TAG_SHIFT = rates.TAG_SHIFT
cdef uint64_t RATE_MOMENT = rates.MOMENT
cdef uint64_t RATE_LONGEST_US = rates.LONGEST_US

cdef long long LEAST_WAIT_NS = sockets.LEAST_WAIT_NS
cdef long long SLOW_NS = rows.SLOW_NS
cdef Py_ssize_t QUEUE_OFFSET = figure_words.QUEUE_OFFSET
cdef uint32_t LEAST_WAIT_MS = sockets.LEAST_WAIT_NS // 1000000

cdef enum:
    LAST_DATA_RECV = 13  # the number of the word of struct tcp_info in linux/tcp.h
    DECLINED, ANSWERED, ENDED

# The modules with the syntax of each protocol that has one.
SYNTAXES = {
    "linepool.protocols.line.Line": "linepool.core.line",
    "linepool.protocols.memcache.protocol.Memcache": "linepool.core.memcache",
    "linepool.protocols.resp.protocol.Resp": "linepool.core.resp",
}


def syntax_module(kind):
    """Return the module with the syntax of a protocol; None: the core does not know the protocol."""
    name = SYNTAXES.get(f"{kind.__module__}.{kind.__qualname__}")
    return importlib.import_module(name) if name else None


cdef class Turns:
    """The turns of one worker's connections; for listeners with a context of their own there are others.

    Args:
        context: What the connections share.
    """

    def __init__(self, context):
        service, board = context.service, context.board
        self.context, self.board, self.resources = context, board, context.resources
        self.has_checks = context.resources.has_checks
        self.brakes = context.brakes
        self.brakes_seen = context.brakes.seen
        self.safe_point, self.interrupts = context.safe_point, context.interrupts
        self.forked_names = vars(forked)
        self.read_timeout = context.settings.read_timeout
        self.guard = service.guard
        self.has_login = service.authenticate is not None
        self.locate(board.layout)
        module = syntax_module(type(service.protocol))
        self.is_usable = module is not None
        self.syntax = module.syntax_of(service) if module else Syntax()
        self.layers = tuple(service.middleware)
        if context.rate_limit is not None:
            self.limit(context.rate_limit)
        self.observer = context.observer
        self.listens = self.observer is not None
        self.plans = Plans(service, context.limit_ns, self.syntax, bool(self.layers))
        self.figures = self.row = context.figures
        self.row_words = self.row.words.cast("B").cast("L")
        self.blocks = &self.row_words[0]
        self.plans.place(self.row.offsets)
        self.batch_ns = rules.BATCH_NS
        self.out = Out()
        self.kept_room = service.limits.max_line_bytes + CHUNK
        self.received = <char *>PyMem_Malloc(self.kept_room + MOST_DECRYPTED)
        if self.received == NULL:
            raise MemoryError
        self.accepts = self.is_usable and not self.has_login and not service.greets
        self.accepts = self.accepts and not context.settings.begins_with_tls
        self.has_rules = context.gate.has_rules
        self.accepts = self.accepts and not context.gate.has_proxies
        self.others = others_of(context)

    def __dealloc__(self):
        PyMem_Free(self.received)

    def limit(self, rate_limit):
        """Count requests as a limit does, in its place: that is the outermost layer."""
        buckets = rate_limit.rates
        self.layers = self.layers[1:]
        self.is_limited = True
        self.rate_words = buckets.words.cast("B").cast("L")
        self.interval_us, self.ahead_us, self.rate_salt = buckets.interval_us, buckets.ahead_us, buckets.salt
        self.rate_limit = rate_limit

    def locate(self, layout):
        """Find the words of the board."""
        self.line_bytes, self.slot_words = layout.line, layout.words.cast("B").cast("L")
        self.published_words = layout.published.cast("B").cast("L")
        self.head_words = layout.head.cast("B").cast("L")
        self.line_room = layout.line_bytes
        cdef uint64_t *slot = &self.slot_words[0]
        cdef uint64_t *head = &self.head_words[0]
        cdef Words *words = &self.words
        at = layout.numbers
        words.line = <char *>&self.line_bytes[0]
        words.line_length = slot + <int>at["LINE_LENGTH"]
        words.eol_length = slot + <int>at["EOL_LENGTH"]
        words.limit_ns = slot + <int>at["LIMIT_NS"]
        words.command = slot + <int>at["COMMAND"]
        words.begun = slot + <int>at["BEGUN"]
        words.serial = slot + <int>at["SERIAL"]
        words.started_ns = slot + <int>at["STARTED_NS"]
        words.requests = slot + <int>at["REQUESTS"]
        words.handler_ns = slot + <int>at["HANDLER_NS"]
        words.cookie = slot + <int>at["COOKIE"]
        words.client_fd = slot + <int>at["CLIENT_FD"]
        words.place_words, words.shown = at["PLACE_WORDS"], at["SHOWN"]
        words.shown_cookie, words.taken = at["SHOWN_COOKIE"], at["TAKEN"]
        words.idle_since_ns = slot + <int>at["IDLE_SINCE_NS"]
        words.held = slot + <int>at["HELD"]
        words.connections = slot + <int>at["CONNECTIONS"]
        words.waited_ns = slot + <int>at["WAITED_NS"]
        words.order = slot + <int>at["ORDER"]
        words.permit = slot + <int>at["PERMIT"]
        words.state = slot + <int>at["STATE"]
        words.since_ns = slot + <int>at["SINCE_NS"]
        words.parked = head + <int>at["PARKED"]
        words.ready = head + <int>at["READY"]
        words.ready_since_ns = head + <int>at["READY_SINCE_NS"]
        words.slots = head + <int>at["SLOTS"]
        words.brakes = head + <int>at["BRAKES"]
        words.bans = head + <int>at["BANS"]
        words.edges_from_ns = head + <int>at["EDGES_FROM_NS"]
        words.idle_floor = head + <int>at["IDLE_FLOOR"]
        words.published = &self.published_words[0] if len(self.published_words) else NULL

    def read(self, ConnectionFields connection, int flags=MSG_DONTWAIT):
        """As ``connection.on_readable``, in the core as far as it takes the requests."""
        if self.of(connection).turn(connection, flags, True) == UNTOUCHED:
            connection.on_readable(flags)

    def again(self, ConnectionFields connection):
        """As ``connection.take_turn``, likewise."""
        if connection.more and connection.is_plain:
            connection.more = False
            connection.needs = READ
            if self.of(connection).turn(connection, 0, False) != UNTOUCHED:
                return
            connection.more = True
            connection.needs = AGAIN
        connection.take_turn()

    cdef Turns of(self, ConnectionFields connection):
        """Return the turns that serve a connection: those of its listener."""
        if self.others is None:
            return self
        if connection.turns is None:
            name = connection.listener.name if connection.maker is not None else (
                connection.conversation.session.listener
            )
            connection.turns = self.others.get(name, self)
        return connection.turns

    cdef int turn(self, ConnectionFields connection, int flags, bint receives) except -1:
        """Serve a connection; return whether something must be arranged, or nothing was done at all."""
        cdef Words *words = &self.words
        cdef Input input
        cdef int how
        if not (self.is_usable and (connection.is_plain or connection.maker is not None)):
            return UNTOUCHED
        if not self.syntax.serves(connection):
            return UNTOUCHED
        # Published before the read: bytes that were read are lost with this worker.
        words.cookie[0] = connection.cookie
        words.client_fd[0] = connection.descriptor + 1
        if connection.encrypted is not None:
            words.client_fd[0] += SEALED
        if words.brakes[0] != self.brakes_seen:
            self.brakes.apply()
            self.brakes_seen = self.brakes.seen
            self.plans.refresh()
        self.out.size = 0
        how = self.take(connection, flags, receives, &input)
        if how != SERVED or input.at == NULL:
            return how
        if not connection.served and not connection.is_admitted:
            if self.guard and not self.syntax.admits(input.at, input.end):
                return self.hand_over(connection, &input, False)
            connection.is_admitted = True
        return self.serve_input(connection, &input)

    cdef int take(
        self, ConnectionFields connection, int flags, bint receives, Input *input
    ) except -1:
        """Receive bytes, behind those that the protocol has not read; SERVED and NULL: there are none."""
        cdef char *start = self.received + self.kept_room
        cdef bytes kept
        cdef int how
        input.at, input.got = NULL, 0
        if receives and connection.encrypted is not None:
            how = self.take_decrypted(connection, flags, start, input)
            if how != SERVED or input.got == 0:
                return how
        elif receives:
            input.got = receive(connection.descriptor, start, flags)
            if input.got <= 0:
                return self.failed_to_read(connection, input.got, errno)
            connection.taken += input.got
        input.at, input.end = start, start + input.got
        if connection.maker is not None or connection.is_replaceable:
            return SERVED
        unread = connection.protocol.take_unread()
        if unread is None and not receives:
            return UNTOUCHED
        if unread is None or len(unread) > self.kept_room:
            connection.take_over(b"", (unread or b"") + start[:input.got], input.got)
            return ARRANGE
        kept = unread
        input.at -= PyBytes_GET_SIZE(kept)
        memcpy(<char *>input.at, PyBytes_AS_STRING(kept), PyBytes_GET_SIZE(kept))
        return SERVED

    cdef int take_decrypted(
        self, ConnectionFields connection, int flags, char *start, Input *input
    ) except -1:
        """Receive bytes through TLS, as ``take`` says; all that can be decrypted."""
        cdef bytes data
        try:
            data = connection.encrypted.recv(CHUNK, flags)
        except BlockingIOError:
            return SERVED
        except OSError as error:
            connection.abort(was_reset=isinstance(error, ConnectionResetError))
            return ARRANGE
        input.got = PyBytes_GET_SIZE(data)
        if input.got > MOST_DECRYPTED:
            raise ValueError("TLS has returned more than it was given")
        if input.got == 0:
            return UNTOUCHED  # the end of the stream, which will be read again
        connection.taken += input.got
        memcpy(start, PyBytes_AS_STRING(data), input.got)
        return SERVED

    cdef int serve_input(self, ConnectionFields connection, Input *input) except -1:
        """Answer what is plain, and send the replies or hand over."""
        cdef Words *words = &self.words
        cdef long long first_ns
        cdef Batch batch
        cdef Py_ssize_t sent
        if self.listens:
            self.complete(connection)
            self.observer.begin(connection)
        first_ns = monotonic_ns()
        batch.began_ns = self.turn_ns = first_ns
        if input.got > 0 and self.figures.since_ns >= 0:
            self.count_wait(connection, first_ns)
        batch.done, batch.length, batch.more, batch.ended = 0, 0, False, False
        self.asked_python = False
        if self.has_checks:
            self.resources.look_if_due()
        self.safe_point.is_open = True
        try:
            self.answer_all(connection, input, &batch, first_ns + self.batch_ns)
            # What the connection continues with belongs to the same batch.
            if not batch.ended and (batch.more or input.at == input.end):
                if self.resources.is_open and not self.commit(connection):
                    batch.ended, batch.more = True, False
        finally:
            self.safe_point.is_open = False
            if self.safe_point.is_wanted:
                self.safe_point.wait()
            if self.reply is None:
                words.started_ns[0] = 0
            else:
                batch.done -= 1  # it is not done before its last part is sent
            if batch.done:
                words.requests[0] += batch.done
                words.handler_ns[0] += batch.began_ns - first_ns
                connection.served = True
        if batch.done or input.at == input.end:
            connection.read_by = 0
        if batch.ended or input.at < input.end:
            return self.hand_over(connection, input, batch.more)
        if self.asked_python and connection.conversation.errors:
            self.board.count_errors(*connection.conversation.take_errors())
        if self.out.size and connection.encrypted is not None:
            if not self.send_encrypted(connection):
                return ARRANGE
        elif self.out.size:
            sent = send(connection.descriptor, self.out.data, self.out.size, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent != self.out.size:
                connection.take_over(self.out.data[max(sent, 0):self.out.size], b"")
                return ARRANGE
        if self.listens:
            self.observer.end(connection)
        connection.quiet_since = batch.began_ns / 1e9
        connection.is_replaceable = self.syntax.is_initial
        connection.is_plain = not self.has_login or not self.has_logged_out(connection)
        self.show(connection)
        self.words.cookie[0] = self.words.client_fd[0] = 0
        return SERVED

    cdef bint send_encrypted(self, ConnectionFields connection) except -1:
        """Send the replies through TLS; return False if the connection is to be arranged then."""
        transport = connection.encrypted
        transport.replies.append(self.out.data[:self.out.size])
        try:
            if transport.flush():
                return True
        except OSError:
            connection.abort()
            return False
        connection.take_over(b"", b"")
        return False

    cdef int answer_all(
        self, ConnectionFields connection, Input *input, Batch *batch, long long until_ns
    ) except -1:
        """Answer the plain requests; ``batch`` says why that ended."""
        cdef Cut cuts[2]
        cdef Cut *cut = &cuts[0]
        cdef Cut *last = &cuts[1]  # of the last request that was answered
        cdef int how
        cdef Py_ssize_t before
        cdef long long now_ns
        cdef bint is_done
        cuts[0].most_ns = cuts[1].most_ns = 0
        batch.blank = 0
        while True:
            while input.at < input.end:
                batch.length = self.syntax.cut(input.at, input.end, cut)
                if batch.length <= 0:
                    break
                is_done = False
                if cut.verb_size:
                    before = self.out.size
                    self.is_followed = input.at + batch.length < input.end
                    self.result = None
                    how = self.answer(connection, cut, batch.began_ns)
                    if how == DECLINED:
                        batch.length = -1
                        break
                    batch.done += 1
                    batch.ended = how == ENDED
                    if self.reply is not None:
                        self.replied_bytes = batch.blank + batch.length
                        self.request = None
                    else:
                        is_done = True
                        if self.listens:
                            self.tell(connection, cut, batch, before)
                    if self.shows_session:
                        self.shows_session = False
                        if self.has_login and self.has_logged_out(connection):
                            batch.ended = True
                    batch.blank = 0
                    cut, last = last, cut
                else:
                    batch.blank += batch.length
                input.at += batch.length
                now_ns = monotonic_ns()
                if is_done:
                    self.count_done(connection, batch.began_ns, now_ns)
                batch.began_ns = now_ns
                if batch.ended:
                    break
                if self.out.size > BATCH_BYTES or batch.began_ns > until_ns:
                    batch.more = input.at < input.end
                    break
            if batch.length < 0 or batch.more or batch.ended or not self.receive_more(connection, input):
                break
        if batch.done:
            self.syntax.note(connection, last)
        return 0

    cdef bint has_logged_out(self, ConnectionFields connection) except -1:
        """Whether a request was a log-out; then Python continues, which refuses what follows."""
        conversation = connection.conversation
        if conversation.session.user is not None:
            return False
        conversation.check_lock()
        return True

    cdef bint receive_more(self, ConnectionFields connection, Input *input) except -1:
        """Receive another chunk, if the last one was full; return False if there is none."""
        cdef char *start = self.received + self.kept_room
        cdef Py_ssize_t left = input.end - input.at
        if input.got < CHUNK or left > self.kept_room or connection.encrypted is not None:
            return False
        memmove(start - left, input.at, left)
        input.at, input.end = start - left, start
        input.got = recv(connection.descriptor, start, CHUNK, MSG_DONTWAIT)
        if input.got <= 0:
            return False  # the next turn says why
        connection.taken += input.got
        input.end = start + input.got
        return True

    cdef int failed_to_read(self, ConnectionFields connection, Py_ssize_t got, int error) except -1:
        """Deal with the end of a stream, or with an error of recv()."""
        if got == 0:
            return UNTOUCHED  # it will be read again
        if error == EAGAIN or error == EINTR:
            if connection.maker is not None:
                connection.is_replaceable = True
                self.show(connection)
            self.words.cookie[0] = self.words.client_fd[0] = 0
            return SERVED
        if connection.maker is not None:
            return UNTOUCHED
        connection.abort(was_reset=error == ECONNRESET)
        return ARRANGE

    cdef int hand_over(self, ConnectionFields connection, const Input *input, bint more) except -1:
        """Have the connection continue with the replies, and with what was received but not served."""
        replies = self.out.data[:self.out.size]
        stream, self.reply = self.reply, None
        if stream is not None:
            stream = (stream, self.replied, self.replied_bytes)
            self.replied = None
        unread = input.at[:input.end - input.at]
        connection.take_over(replies, unread, input.got, more=more, stream=stream)
        return ARRANGE

    cdef int answer(self, ConnectionFields connection, const Cut *cut, long long began_ns) except -1:
        """Answer one request; return ENDED if the turn ends with it, DECLINED if nothing was done."""
        cdef Plan plan = self.plans.find(cut.verb, cut.verb_size)
        cdef tuple values
        if plan is None:
            return DECLINED
        self.offset = plan.offset
        if cut.most_ns and not self.has_time(connection, cut, plan, began_ns):
            return DECLINED
        if plan.is_direct and not plan.is_braked:
            if self.layers:
                if self.is_limited and not self.counts(connection, began_ns):
                    return self.refuse(connection, cut, plan, began_ns)
                self.publish(cut, plan, began_ns)
                return self.run(connection, cut, plan, None)
            session = None
            if plan.has_session:
                self.shows_session = True
                self.complete(connection)
                session = connection.conversation.session
            values = plan.values(cut, session, self.resources)
            if values is not None:
                if self.is_limited and not self.counts(connection, began_ns):
                    return self.refuse(connection, cut, plan, began_ns)
                self.publish(cut, plan, began_ns)
                return self.run(connection, cut, plan, values)
        if not plan.is_indirect:
            return DECLINED
        self.publish(cut, plan, began_ns)
        return self.ask(connection, cut, plan)

    cdef bint counts(self, ConnectionFields connection, long long now_ns) except -1:
        """Count a request as ``Rates.admits``; False: there are too many."""
        cdef uint64_t *words = &self.rate_words[0]
        cdef uint64_t client = connection.origin
        cdef uint64_t now_us = now_ns // 1000
        cdef uint64_t full_us, tag, first, at, place, moment = RATE_MOMENT
        if not client:
            self.complete(connection)
            client = self.rate_limit.client(connection.conversation.session)
            if not client:
                return True
        client ^= self.rate_salt
        first = client % RATE_SETS * RATE_IN_SET
        tag = client >> 16 | 1
        place = first
        for at in range(first, first + RATE_IN_SET):
            full_us = words[at] & RATE_MOMENT
            if full_us > now_us + RATE_LONGEST_US:
                full_us = 0
            if words[at] >> RATE_TAG_SHIFT == tag:
                place, moment = at, full_us
                break
            if full_us < moment:
                place, moment = at, full_us
        else:
            moment = 0
        if moment < now_us:
            moment = now_us
        if moment - now_us > self.ahead_us:
            return False
        words[place] = tag << RATE_TAG_SHIFT | moment + self.interval_us
        return True

    cdef int refuse(
        self, ConnectionFields connection, const Cut *cut, Plan plan, long long began_ns
    ) except -1:
        """Refuse a request, because there are too many."""
        self.complete(connection)
        error = self.rate_limit.refusal(connection.conversation.session)
        self.publish(cut, plan, began_ns)
        request = self.syntax.request(cut, plan)
        return self.conclude(connection, request, None, error, PyContext_CopyCurrent())

    cdef bint has_time(
        self, ConnectionFields connection, const Cut *cut, Plan plan, long long began_ns
    ) except -1:
        """Find the limit of a request with its client's deadline, as ``worker/client_limit.py``.

        Returns False if nothing is left: then Python refuses the request.
        """
        cdef long long left_ns
        cdef uint32_t info[LAST_DATA_RECV + 1]
        cdef unsigned size = sizeof(info)
        left_ns = cut.most_ns - (began_ns - self.turn_ns)
        if getsockopt(connection.descriptor, IPPROTO_TCP, TCP_INFO, info, &size) == 0:
            if size == sizeof(info) and info[LAST_DATA_RECV] >= LEAST_WAIT_MS:
                left_ns = min(left_ns, cut.most_ns - info[LAST_DATA_RECV] * 1000000LL)
        if left_ns <= 0:
            return False
        self.client_limit_ns = left_ns
        if plan.limit_ns and plan.limit_ns < self.client_limit_ns:
            self.client_limit_ns = plan.limit_ns
        return True

    cdef int count_done(
        self, ConnectionFields connection, long long began_ns, long long ended_ns
    ) except -1:
        """Count the request that was answered last."""
        cdef long long took_ns = ended_ns - began_ns
        count(self.blocks + self.offset, took_ns if took_ns > 0 else 0)
        if self.result is not None:
            self.row.failed(self.offset, self.result)
        if took_ns > SLOW_NS:
            self.complete(connection)
            peer = connection.conversation.session.peer
            self.row.slow(self.offset, began_ns, ended_ns, self.result or OK, peer)
        return 0

    cdef int count_wait(self, ConnectionFields connection, long long now_ns) except -1:
        """Count how long what was received has waited, as ``RequestFigures.arrived``."""
        cdef long long since_ns = self.figures.since_ns
        cdef long long waited_ns = now_ns - since_ns
        cdef uint32_t info[LAST_DATA_RECV + 1]
        cdef unsigned size = sizeof(info)
        if waited_ns >= LEAST_WAIT_NS:
            if getsockopt(connection.descriptor, IPPROTO_TCP, TCP_INFO, info, &size) == 0 and (
                size == sizeof(info)
            ):
                waited_ns = info[LAST_DATA_RECV] * 1000000LL
                if info[LAST_DATA_RECV] < LEAST_WAIT_MS:
                    waited_ns = 0
            elif since_ns == 0:
                waited_ns = 0
        count(self.blocks + QUEUE_OFFSET, waited_ns if waited_ns > 0 else 0)
        return 0

    cdef int tell(
        self, ConnectionFields connection, const Cut *cut, const Batch *batch, Py_ssize_t before
    ) except -1:
        """Tell the observer of a request that is done; its reply begins at ``before``."""
        cdef Plan plan = self.plans.find(cut.verb, cut.verb_size)
        cdef bytes line = cut.line[:cut.line_size]
        request, self.request = self.request, None
        size = self.out.size - before
        length = batch.blank + batch.length
        self.observer.served(connection, plan.entry, line, request, batch.began_ns, length, size)
        return 0

    cdef int publish(self, const Cut *cut, Plan plan, long long began_ns) noexcept:
        """Publish the request that goes to its handler; the one before it is done."""
        cdef Words *words = &self.words
        cdef Py_ssize_t size = cut.line_size
        words.started_ns[0] = 0
        release_fence()
        memcpy(words.line, cut.line, size if size < self.line_room else self.line_room)
        words.line_length[0] = size
        words.eol_length[0] = cut.eol_size
        words.limit_ns[0] = self.client_limit_ns if cut.most_ns else plan.limit_ns
        words.command[0] = plan.number
        words.begun[0] = self.out.size
        words.serial[0] += 1
        release_fence()
        words.started_ns[0] = began_ns
        return 0

    cdef int run(
        self, ConnectionFields connection, const Cut *cut, Plan plan, tuple values
    ) except -1:
        """Call the handler, or the middleware if there is any, and write the reply."""
        cdef InterruptFields interrupts = self.interrupts
        cdef PyObject *result
        cdef Chain chain
        cdef PyObject *depth = <PyObject *>self.forked_names["depth"]
        chain = self.chain(connection, cut, plan) if values is None else None
        context = PyContext_CopyCurrent()  # what the handler sets there is not seen by the next request
        PyContext_Enter(context)
        interrupts.conversation = None
        interrupts.armed = True
        # RequestTimeout is raised in the handler's own code or not at all: the handler of a signal
        # does not run here.
        if values is None:
            result = call_first(chain)
            chain.cut = NULL
        else:
            result = PyObject_Call(plan.function, values, NULL)
        interrupts.armed = False
        if result == NULL:
            error = take_raised()
            PyContext_Exit(context)
            if <PyObject *>self.forked_names["depth"] != depth:
                end_of_fork(error)
            if isinstance(error, LeaveNow):
                raise error
            request = self.syntax.request(cut, plan) if values is not None else chain.request
            return self.conclude(connection, request, None, error, context)
        PyContext_Exit(context)
        value = <object>result
        Py_DECREF(result)
        if <PyObject *>self.forked_names["depth"] != depth:
            forked.end()
        if self.syntax.encode(self.out, value, cut):
            return ANSWERED
        request = self.syntax.request(cut, plan) if values is not None else chain.request
        return self.conclude(connection, request, value, None, context)

    cdef Chain chain(self, ConnectionFields connection, const Cut *cut, Plan plan):
        """Return a request on its way through the middleware."""
        cdef Chain chain = Chain.__new__(Chain)
        self.complete(connection)
        chain.cut, chain.plan, chain.layers = cut, plan, self.layers
        chain.conversation, chain.resources = connection.conversation, self.resources
        chain.session = chain.conversation.session
        self.shows_session = True
        chain.request = chain.conversation.request = self.syntax.request(cut, plan)
        chain.words = tuple(chain.request.words)
        if self.listens:
            self.request = chain.request
        return chain

    cdef int conclude(
        self,
        ConnectionFields connection,
        object request,
        object value,
        object error,
        object context,
    ) except -1:
        """Have the conversation make the reply of what a handler has returned or raised."""
        self.complete(connection)
        conversation = connection.conversation
        self.interrupts.conversation = conversation
        return self.keep(connection, conversation.conclude(request, value, error, context), request)

    cdef int ask(self, ConnectionFields connection, const Cut *cut, Plan plan) except -1:
        """Have the conversation answer a request."""
        self.complete(connection)
        conversation = connection.conversation
        self.interrupts.conversation = conversation
        request = self.syntax.request(cut, plan)
        return self.keep(connection, conversation.answer(request), request)

    cdef int keep(self, ConnectionFields connection, object reply, object request) except -1:
        """Keep a reply that the conversation has made."""
        self.asked_python = self.shows_session = True
        conversation = connection.conversation
        if self.listens:
            self.request = request
        if type(reply) is not bytes:
            self.reply, self.replied = reply, request
            return ENDED
        if self.is_followed and conversation.starts_tls:
            conversation.starts_tls = False
            reply = error_reply(conversation, followed(), request)
        if conversation.result != OK:
            self.result = conversation.result
            if not self.listens:
                conversation.result = OK
        self.out.put_bytes(reply)
        return ENDED if conversation.closing else ANSWERED

    cdef int show(self, ConnectionFields connection) except -1:
        """Publish that its turn is over, and whether it could continue elsewhere."""
        cdef uint64_t shown = connection.descriptor + 1
        cdef uint64_t *words
        if connection.place < 0:
            return 0
        if connection.maker is None:
            session = connection.conversation.session
            if (
                connection.encrypted is not None
                or session
                or session.user
                or not connection.is_replaceable
            ):
                shown += BOUND
        words = &self.words.published[self.words.place_words * connection.place]
        if shown != connection.shown:
            connection.shown = shown
            words[self.words.shown_cookie] = connection.cookie
            words[self.words.shown] = shown
        words[self.words.taken] = connection.taken
        return 0

    cdef bint commit(self, ConnectionFields connection) except -1:
        """End what the requests of this turn have shared; return whether their replies stand."""
        self.complete(connection)
        if end_batch(connection.conversation):
            return True
        self.out.size = 0  # the connection has the reply in place of these
        return False

    cdef int complete(self, ConnectionFields connection) except -1:
        """Make Python's part of a connection, if the core has accepted it."""
        if connection.maker is not None:
            connection.make()
        return 0


cdef dict others_of(context):
    """Return the turns of the listeners that have a context of their own, by name; None: none has."""
    made = {}
    for one in context.by_listener.values():
        if id(one) not in made:
            made[id(one)] = Turns(one)
    return {name: made[id(one)] for name, one in context.by_listener.items()} or None


cdef Py_ssize_t receive(int descriptor, char *start, int flags) except -2:
    """Receive a chunk; without MSG_DONTWAIT other threads run meanwhile, and signals are handled."""
    cdef Py_ssize_t got
    if flags & MSG_DONTWAIT:
        return recv(descriptor, start, CHUNK, flags)
    while True:
        with nogil:
            got = recv(descriptor, start, CHUNK, flags)
        if got >= 0 or errno != EINTR:
            return got
        PyErr_CheckSignals()


cdef PyObject *call_first(Chain chain) noexcept:
    """Call the first layer; NULL: it has raised something, which is set."""
    cdef Layer layer = Layer.__new__(Layer)
    layer.chain, layer.number = chain, 1
    return PyObject_Call(chain.layers[0], (chain.request, chain.session, layer), NULL)


def end_of_fork(error):
    """End a process that a handler has forked, with what it has raised there."""
    try:
        raise error
    except BaseException:
        forked.end()
