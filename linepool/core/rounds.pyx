# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The rounds of a worker in the core: wait, serve what is plain, accept.

``worker/rounds.py`` defines what a round is. The core makes one after the other until there is something
that it leaves to Python: an event of another kind, a timer, an order.
"""
from cpython.dict cimport PyDict_GetItem
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.math cimport ceil
from libc.stdint cimport uint16_t, uint64_t

from linepool.core.fields cimport ConnectionFields, TableFields
from linepool.core.kernel cimport (
    AF_INET,
    AF_INET6,
    NI_MAXHOST,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLLIN,
    MSG_DONTWAIT,
    SO_COOKIE,
    SOCK_CLOEXEC,
    SOL_SOCKET,
    PyErr_CheckSignals,
    PyObject,
    accept_any,
    close,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    full_fence,
    getsockopt,
    inet_ntop,
    monotonic_ns,
    ntohs,
    numeric_host,
    sockaddr_in,
    sockaddr_storage,
)
from linepool.core.turn cimport SERVED, UNTOUCHED, Turns, Words

from linepool.core import rules
from linepool.errors import LeaveNow
from linepool.kernel.sockets import (
    LONGEST_WAIT,
    as_connection,
    close_by_reset,
    origin_of,
    unix_peer,
    unmapped,
)
from linepool.kernel.standard import LAST_STANDARD, moved_away
from linepool.pool.status import State

cdef int IDLE = State.IDLE
cdef int TAKEN = State.TAKEN

cdef enum:
    MOST_EVENTS = 1024

cdef int EVENTS_WHILE_OTHERS_WAIT = rules.EVENTS_WHILE_OTHERS_WAIT
cdef long long MOMENT_NS = rules.MOMENT_NS
cdef long long SLEPT_NS = rules.SLEPT_NS
cdef long long WORTH_NS = rules.WORTH_NS
cdef long long STARVING_NS = rules.STARVING_NS
cdef long long COMPARE_EVERY_NS = rules.COMPARE_EVERY_NS
cdef int LONGEST_WAIT_MS = 1000 * LONGEST_WAIT
cdef int READ = rules.READ


cdef class Rounds(Turns):
    """The rounds of one worker; for the arguments and attributes see ``worker/rounds.py``."""

    cdef public bint is_idle
    cdef public long long began_ns
    cdef TableFields table
    cdef object parts, acceptor, handoff, admission
    cdef dict listeners
    cdef int epoll
    cdef int most_active
    cdef uint64_t enough            # connections in all that are admitted without a look at all workers
    cdef bint was_late
    cdef bint accepts_any           # the core may accept for some listener
    cdef uint64_t seen_bans
    cdef long long mean_ns, looked_ns
    cdef int count
    cdef type accepted              # the class of connections that the core accepts
    cdef object complete_class      # and that which they become
    cdef bint slept                 # before this round, so nothing in it has waited
    cdef object last_host
    cdef uint64_t last_origin
    cdef uint16_t[::1] origins
    cdef bint gives_back
    cdef object orders

    def __init__(self, parts):
        Turns.__init__(self, parts.context)
        settings = parts.context.settings
        self.parts, self.table = parts, parts.table
        self.acceptor, self.handoff = parts.acceptor, parts.handoff
        self.admission, self.orders = parts.admission, parts.context.orders
        self.origins, self.gives_back = parts.context.board.layout.origins, parts.gives_back
        self.listeners = parts.acceptor.listeners
        self.epoll = parts.epoll.fileno()
        self.most_active = settings.hot_connections
        self.enough = self.admission.enough
        self.is_idle = self.was_late = True
        self.accepts_any = not parts.gives_back
        self.accepted, self.complete_class = parts.accepted, parts.complete

    def next_events(self, *, bint takes_work, bint may_wait=True):
        """As in Python, but serve what is plain, in as many rounds as there are without other events."""
        cdef epoll_event events[MOST_EVENTS]
        cdef Words *words = &self.words
        cdef long long now_ns, began_ns
        cdef int count, most
        cdef bint others_wait
        while True:
            PyErr_CheckSignals()
            now_ns = monotonic_ns()
            others_wait = words.ready[0] != 0
            most = EVENTS_WHILE_OTHERS_WAIT if others_wait else MOST_EVENTS
            if not may_wait:
                began_ns = now_ns
                self.slept = False
                count = max(epoll_wait(self.epoll, events, most, 0), 0)
            else:
                words.client_fd[0] = 0
                words.idle_since_ns[0] = now_ns if takes_work else 0
                if others_wait and takes_work:
                    self.handoff.ask_for_work(now_ns)
                count = self.wait(events, most)
                began_ns = monotonic_ns()
                self.was_late = began_ns - now_ns > MOMENT_NS
                self.slept = began_ns - now_ns > SLEPT_NS
                words.client_fd[0] = 0
                words.idle_since_ns[0] = 0
                words.waited_ns[0] += began_ns - now_ns
            # What is there now came after the events of the round before.
            self.figures.since_ns = began_ns if self.slept else self.began_ns
            self.began_ns, self.count = began_ns, count
            if self.mean_ns * count > WORTH_NS:
                self.parts.offload(
                    [(events[number].data.fd, events[number].events) for number in range(count)]
                )
            left = self.serve(events, count)
            if left or not may_wait or not count:
                return left
            now_ns = monotonic_ns()
            if self.must_look(now_ns, takes_work):
                return left
            self.end(now_ns)

    cdef bint must_look(self, long long now_ns, bint takes_work) except -1:
        """Whether Python must look around after a round."""
        cdef Words *words = &self.words
        if len(self.table.connections) > 1 and now_ns - self.looked_ns > COMPARE_EVERY_NS:
            self.looked_ns = now_ns
            return True
        if words.bans[0] != self.seen_bans:
            self.seen_bans = words.bans[0]
            return True
        return (
            not takes_work
            or words.order[0]
            or words.permit[0]
            or len(self.table.again)
            or now_ns / 1e9 >= self.table.due
            or (words.ready[0] and now_ns - <long long>words.ready_since_ns[0] > STARVING_NS)
            or self.handoff.to_return
            or self.orders.must_leave
        )

    cdef int wait(self, epoll_event *events, int most) except -1:
        """Wait for events; return how many there are, 0: a timer is due."""
        cdef int count = 0, milliseconds
        cdef double pause
        if not self.was_late:
            # Without other threads at first: to let them run costs more than to look.
            count = epoll_wait(self.epoll, events, most, 0)
            if count == 0:
                with nogil:
                    count = epoll_wait(self.epoll, events, most, MOMENT_NS // 1000000)
        while count <= 0:
            if count < 0 and errno != EINTR:
                raise OSError(errno, "epoll_wait")
            PyErr_CheckSignals()
            if not self.is_idle:
                self.is_idle = True
                self.pass_edge(IDLE)
            pause = 1e3 * (self.table.due - monotonic_ns() / 1e9)
            milliseconds = -1
            if pause < LONGEST_WAIT_MS:
                milliseconds = <int>ceil(pause) if pause > 0 else 0
            elif self.table.due < 1e300:
                milliseconds = LONGEST_WAIT_MS
            with nogil:
                count = epoll_wait(self.epoll, events, most, milliseconds)
            if count == 0:
                return 0
        return count

    cdef list serve(self, epoll_event *events, int count):
        """Serve what is plain; return the other events."""
        cdef list left = []
        cdef int number, descriptor
        cdef PyObject *found
        cdef ConnectionFields connection
        for number in range(count):
            descriptor = events[number].data.fd
            key = descriptor
            found = <PyObject *>PyDict_GetItem(self.table.connections, key)
            if found != NULL:
                connection = <ConnectionFields>found
                if not self.gives_back and connection.needs == READ and self.serve_one(connection):
                    continue
            elif self.accepts_any and self.accept(descriptor):
                continue
            left.append((descriptor, events[number].events))
        return left

    cdef bint serve_one(self, ConnectionFields connection) except -1:
        """Serve a connection that is readable; return False if it is as before."""
        cdef int how
        if self.is_idle:
            self.begin_work()
        try:
            how = self.of(connection).turn(connection, MSG_DONTWAIT, True)
            if how == UNTOUCHED and connection.maker is not None:
                return self.close_new(connection)
        except LeaveNow:
            raise
        except BaseException:
            connection.fail()
            how = SERVED
        if how == UNTOUCHED:
            return False
        if connection.needs != READ:
            self.table.arrange(connection)
        return True

    def begin_work(self):
        """Report that the worker is not idle any more. Pre-condition: it was."""
        self.is_idle = False
        self.pass_edge(TAKEN)

    cdef int pass_edge(self, int state) except -1:
        """Tell the master a state; on the board alone if ``worker/edges.py`` says that it may be so."""
        cdef Words *words = &self.words
        cdef uint64_t now_ns = monotonic_ns()
        # First published, then asked: a worker that is preempted in between tells an edge too many, and
        # the other way round the master would have looked at the board before the edge was there.
        words.state[0] = state
        words.since_ns[0] = now_ns
        full_fence()
        if now_ns < words.edges_from_ns[0] and not words.idle_floor[0]:
            return 0
        if state == IDLE:
            self.parts.edges.idle(now_ns)
        else:
            self.parts.edges.busy(now_ns)
        return 0

    def end(self, long long now_ns):
        """Note when the events of a round have been served."""
        if self.count:
            self.mean_ns += ((now_ns - self.began_ns) // self.count - self.mean_ns) >> 3

    cdef bint accept(self, int listener) except -1:
        """Accept a client, and serve it; return False if that is to be done in Python."""
        cdef sockaddr_storage address
        cdef unsigned size_of_address = sizeof(address)
        cdef unsigned size = sizeof(uint64_t)
        cdef uint64_t cookie = 0
        cdef epoll_event event
        cdef int descriptor, number
        cdef Words *words = &self.words
        cdef ConnectionFields connection
        cdef Turns turns = self
        cdef long long since_ns = self.figures.since_ns
        found = self.listeners.get(listener)
        if found is None or found.phase[0]:
            return False
        if self.others is not None:
            turns = self.others.get(found.name, self)
        if not turns.accepts:
            return False
        if self.table.active >= self.most_active:
            return False
        if words.parked[0] + words.slots[0] * self.most_active >= self.enough:
            return False
        descriptor = accept_any(listener, &address, &size_of_address, SOCK_CLOEXEC)
        if descriptor < 0:
            number = errno
            # A unix socket that a handler has shut says EAGAIN too.
            return number == ECONNABORTED or number == EINTR or (number == EAGAIN and not found.is_unix)
        if self.acceptor.failures:
            self.acceptor.failures = 0
        if descriptor <= LAST_STANDARD:
            descriptor = moved_away(descriptor)
        client = client_of(descriptor, &address, size_of_address)
        if turns.has_rules or words.bans[0]:
            if self.admission.denies(client, found.name):
                close_by_reset(as_connection(descriptor, address.ss_family))
                return True
        key = descriptor
        if key in self.table.connections:  # a handler has closed its descriptor
            self.table.close(self.table.connections[key])
        if key in self.listeners:  # likewise
            self.acceptor.make_way(key)
        getsockopt(descriptor, SOL_SOCKET, SO_COOKIE, &cookie, &size)
        connection = self.accepted.__new__(self.accepted)
        connection.descriptor, connection.cookie = descriptor, cookie
        connection.listener, connection.address = found, client
        connection.maker, connection.turns = self, turns
        connection.quiet_since = connection.accepted_at = self.began_ns / 1e9
        connection.origin = self.origin(connection.address)
        connection.place = self.table.places.pop() if self.table.places else -1
        self.table.connections[key] = connection
        words.held[0] = len(self.table.connections)
        self.count_origin(connection.origin, 1)
        event.events, event.data.u64 = EPOLLIN, descriptor
        epoll_ctl(self.epoll, EPOLL_CTL_ADD, descriptor, &event)
        self.table.look_at(connection.quiet_since + self.table.first_look)
        words.connections[0] += 1
        if not self.slept:
            self.figures.since_ns = 0  # it may have waited until some worker had time for it
        if not self.serve_one(connection):
            connection.on_readable()
            self.table.arrange(connection)
        self.figures.since_ns = since_ns
        return True

    cdef uint64_t origin(self, object address) except? 0:
        """Return what Python says of where a client comes from; most come from where the last one does."""
        host = address[0] if type(address) is tuple else ""
        if host != self.last_host:
            self.last_origin, self.last_host = origin_of(address), host
        return self.last_origin

    cdef int count_origin(self, uint64_t origin, int change) except -1:
        """As in ``WorkerView``."""
        if origin:
            self.origins[origin % <uint64_t>len(self.origins)] += change
        return 0

    cdef bint close_new(self, ConnectionFields connection) except -1:
        """Close a connection that Python has not seen, because its client has ended its stream."""
        cdef epoll_event none
        if self.of(connection).context.service.on_disconnect:
            return False
        key = connection.descriptor
        if epoll_ctl(self.epoll, EPOLL_CTL_DEL, connection.descriptor, &none) < 0:
            return False
        connection.maker = None
        del self.table.connections[key]
        self.words.held[0] = len(self.table.connections)
        self.count_origin(connection.origin, -1)
        if connection.place >= 0:
            self.words.published[self.words.place_words * connection.place + self.words.shown] = 0
            self.table.places.append(connection.place)
        close(connection.descriptor)
        return True

    def make(self, ConnectionFields connection):
        """Make Python's part of a connection that was accepted here."""
        cdef Turns turns = self.of(connection)
        session = self.admission.session(connection.address, connection.listener)
        self.complete_class.complete(connection, session, turns.context)
        if connection.is_admitted:
            connection.conversation.note_admission()
        turns.syntax.restore(connection)


cdef object client_of(int descriptor, sockaddr_storage *address, unsigned size):
    """Return the address of a new client as ``Listener.accept`` does."""
    cdef char host[NI_MAXHOST]
    cdef sockaddr_in *inet = <sockaddr_in *>address
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &inet.sin_addr, host, sizeof(host))
        return host.decode(), ntohs(inet.sin_port)
    if address.ss_family == AF_INET6:
        numeric_host(address, size, host, sizeof(host))
        return unmapped((host.decode(), ntohs(inet.sin_port)))  # the port is where IPv4 has it
    return unix_peer(descriptor)
