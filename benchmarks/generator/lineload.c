/* lineload: load for servers that answer every request with one known reply.
 *
 * One thread, epoll, Linux, only the C library. Every reply is compared byte for byte with the
 * expected one. Prints one JSON object; `lineload --help` shows the options.
 *
 * The figures:
 *   requests   replies, whenever they arrived, to requests that began in the measured time (open: that
 *              were due in it); the latencies are of these, so a stall at the end is not cut off
 *   answered   replies that arrived in the measured time; rps is answered / seconds
 *   wrong      wrong replies; the first one closes its connection
 *   errors     requests without a reply, and connections that were refused, or lost while idle
 *   cpu_s      processor time of lineload in the measured time; near `seconds`, it is the bottleneck
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 200000,
    MAX_DEPTH = 65536,
    MAX_OUTSTANDING = 1000000, /* an open loop that is further behind fails */
    MAX_LOST = 10000,          /* connections, before the run fails */
    MAX_SHOWN = 3,             /* wrong replies and lost connections that are described */
    MAX_SOURCES = 250,         /* addresses 127.0.0.1 and up that connections may come from */
    IDLE_PER_SOURCE = 10000,    /* of some 28,000 ports; connect() is slow when few are free */
    IDLE_PENDING = 128,
    EVENTS = 256,
    RECEIVED = 1 << 18,
};

static const uint64_t NS = 1000000000;
static const uint64_t REOPEN_AFTER_NS = 10 * 1000000;  /* between attempts, if the server refuses */
static const uint64_t OPEN_LIMIT_NS = 20 * NS;         /* for all connections to be open */
static const uint64_t DRAIN_LIMIT_NS = 5 * NS;         /* for the last replies */
static const long IDLE_PAUSE_NS = 10 * 1000000;        /* so that the backlog is not overrun */

/* ---- options ---- */

enum mode { CLOSED, CONNECT, OPEN };

struct text {
    char *bytes;
    size_t size;
};

static struct {
    enum mode mode;
    long connections, depth, idle, slow_one_in, reply_bytes;
    double seconds, warm_up, settle, rate;
    bool reset, phases;
    struct text request, reply, prefix, slow_request, slow_reply;
    struct sockaddr_in address;
} opt = {.mode = CLOSED, .connections = 1, .depth = 1, .seconds = 2, .warm_up = 0.3};

/* ---- failing ---- */

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("lineload: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void *grown(void *memory, size_t size)
{
    void *more = realloc(memory, size);
    if (!more)
        fail("no memory for %zu bytes", size);
    return more;
}

static void phase(const char *name)
{
    if (opt.phases)
        dprintf(STDERR_FILENO, "phase %s\n", name);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (double)(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

/* ---- histograms: 64 buckets for each power of two, so a value is off by less than 1 % ---- */

enum { SUB = 64, BUCKETS = 59 * SUB };

struct histogram {
    uint64_t count, min, max, buckets[BUCKETS];
    double sum;
};

static void note(struct histogram *h, uint64_t ns)
{
    unsigned shift = ns < SUB ? 0 : 63 - (unsigned)__builtin_clzll(ns) - 6;
    h->buckets[shift * SUB + (ns >> shift)]++;
    if (!h->count || ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
    h->count++;
    h->sum += (double)ns;
}

static double quantile_us(const struct histogram *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->count), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) {
            unsigned shift = i < 2 * SUB ? 0 : i / SUB - 1;
            double low = (double)((uint64_t)(i - shift * SUB) << shift);
            double middle = low + (double)((uint64_t)1 << shift) / 2;
            if (middle > (double)h->max)
                middle = (double)h->max;
            return (middle < (double)h->min ? (double)h->min : middle) / 1e3;
        }
    }
    return (double)h->max / 1e3;
}

static void print_histogram(const char *name, const struct histogram *h)
{
    printf(", \"%s\": {\"count\": %llu, \"min\": %.3f, \"p50\": %.3f, \"p90\": %.3f, "
           "\"p99\": %.3f, \"p999\": %.3f, \"max\": %.3f, \"mean\": %.3f}",
           name, (unsigned long long)h->count, (double)h->min / 1e3, quantile_us(h, 0.5),
           quantile_us(h, 0.9), quantile_us(h, 0.99), quantile_us(h, 0.999),
           (double)h->max / 1e3, h->count ? h->sum / (double)h->count / 1e3 : 0);
}

/* ---- the run ---- */

struct request {
    uint64_t began_ns; /* open: was due */
    uint32_t number;
    bool slow;
};

struct connection {
    int fd; /* -1: not open */
    bool ready, wants_out;
    size_t matched; /* bytes received of the reply to the oldest request */
    struct request *ring;
    uint32_t first, count, size; /* size: a power of two */
    char *out;
    size_t out_from, out_to, out_size;
    uint64_t reopen_at;
};

static struct {
    int epoll, timer;
    uint64_t from, end; /* of the measured time */
    struct connection *connections;
    struct connection **closed; /* a ring of those to reopen, the next first */
    uint32_t closed_first, closed_count;
    uint64_t outstanding, sent_due;
    uint64_t wrong, errors, lost, answered;
    uint32_t number;
    uint64_t rng;
    struct histogram quick, slow, late;
    char received[RECEIVED];
} run = {.epoll = -1, .timer = -1, .end = UINT64_MAX, .rng = 0x9E3779B97F4A7C15};

static bool rolls_slow(void)
{
    run.rng ^= run.rng << 13; /* xorshift64 */
    run.rng ^= run.rng >> 7;
    run.rng ^= run.rng << 17;
    return (run.rng >> 11) % (uint64_t)opt.slow_one_in == 0;
}

static size_t write_number(char *to, uint32_t value)
{
    char digits[10];
    size_t size = 0;
    do
        digits[size++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < size; i++)
        to[i] = digits[size - 1 - i];
    return size;
}

static uint32_t first_term(uint32_t number)
{
    return number % 1000000;
}

static uint32_t second_term(uint32_t number)
{
    return number * 2654435761u % 1000000;
}

/* ---- sockets ---- */

static int new_socket(unsigned source, int *status)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0)
        fail("socket: %s", strerror(errno));
    if (opt.mode != CONNECT) /* it sends one request in one packet: nothing is delayed */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (source) {
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source);
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) < 0)
            fail("bind to 127.0.0.%u: %s", 1 + source, strerror(errno));
    }
    *status = connect(fd, (struct sockaddr *)&opt.address, sizeof opt.address) < 0 ? errno : 0;
    return fd;
}

/* Start to connect; status: 0, EINPROGRESS or an error. */
static int connecting(unsigned *source, int *status)
{
    bool loopback = ntohl(opt.address.sin_addr.s_addr) >> 24 == 127;
    for (;;) {
        int fd = new_socket(*source, status);
        if (*status != EADDRNOTAVAIL || !loopback || *source + 1 >= MAX_SOURCES)
            return fd;
        close(fd); /* the ports of this address are used up */
        ++*source;
    }
}

static int error_of(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
    return error;
}

static void close_with_reset(int fd)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close(fd);
}

static void watch(struct connection *c, int operation)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (c->wants_out)
        event.events |= EPOLLOUT;
    if (epoll_ctl(run.epoll, operation, c->fd, &event) < 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* ---- one connection ---- */

static void close_connection(struct connection *c)
{
    if (opt.mode == CONNECT && opt.reset)
        close_with_reset(c->fd);
    else
        close(c->fd);
    c->fd = -1;
    c->ready = c->wants_out = false;
    run.outstanding -= c->count;
    c->first = c->count = 0;
    c->matched = c->out_from = c->out_to = 0;
}

static void close_to_reopen(struct connection *c)
{
    close_connection(c);
    c->reopen_at = now_ns() + REOPEN_AFTER_NS;
    run.closed[(run.closed_first + run.closed_count++) % (uint32_t)opt.connections] = c;
    if (++run.lost > MAX_LOST)
        fail("%llu connections were lost; giving up", (unsigned long long)run.lost);
}

static void lose(struct connection *c, const char *why)
{
    if (run.lost < MAX_SHOWN)
        fprintf(stderr, "lineload: lost a connection with %u requests: %s\n", c->count, why);
    run.errors += c->count ? c->count : 1;
    close_to_reopen(c);
}

/* Write pending requests; this may lose the connection. */
static void flush(struct connection *c)
{
    bool wanted_out = c->wants_out;
    if (c->out_from < c->out_to) {
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            lose(c, strerror(errno));
            return;
        }
        if (sent > 0) {
            c->ready = true; /* the connection is established */
            c->out_from += (size_t)sent;
        }
    }
    c->wants_out = c->out_from < c->out_to || !c->ready;
    if (!c->wants_out)
        c->out_from = c->out_to = 0;
    if (c->wants_out != wanted_out)
        watch(c, EPOLL_CTL_MOD);
}

static void append(struct connection *c, const char *bytes, size_t size)
{
    if (c->out_to + size > c->out_size) {
        c->out_size = 2 * (c->out_to + size) + 64;
        c->out = grown(c->out, c->out_size);
    }
    memcpy(c->out + c->out_to, bytes, size);
    c->out_to += size;
}

static void append_request(struct connection *c, const struct request *request)
{
    if (request->slow) {
        append(c, opt.slow_request.bytes, opt.slow_request.size);
    } else if (opt.request.size) {
        append(c, opt.request.bytes, opt.request.size);
    } else {
        char line[32] = "ADD ";
        size_t size = 4;
        size += write_number(line + size, first_term(request->number));
        line[size++] = ' ';
        size += write_number(line + size, second_term(request->number));
        line[size++] = '\n';
        append(c, line, size);
    }
}

static void queue_request(struct connection *c, uint64_t began_ns)
{
    if (c->count == c->size) {
        uint32_t size = c->size ? 2 * c->size : 4;
        struct request *ring = grown(NULL, size * sizeof *ring);
        for (uint32_t i = 0; i < c->count; i++)
            ring[i] = c->ring[(c->first + i) & (c->size - 1)];
        free(c->ring);
        c->ring = ring;
        c->first = 0;
        c->size = size;
    }
    struct request *request = &c->ring[(c->first + c->count++) & (c->size - 1)];
    *request = (struct request){began_ns, run.number++, opt.slow_one_in && rolls_slow()};
    if (++run.outstanding > MAX_OUTSTANDING)
        fail("%d requests wait for replies; giving up", MAX_OUTSTANDING);
    append_request(c, request);
}

static void ask(struct connection *c, long count)
{
    uint64_t now = now_ns();
    for (long i = 0; i < count; i++)
        queue_request(c, now);
    flush(c);
}

/* Open a connection, and in connect mode send a request. */
static void open_connection(struct connection *c)
{
    static unsigned source = 0;
    uint64_t began = now_ns();
    int status;
    c->fd = connecting(&source, &status);
    c->ready = status == 0;
    c->wants_out = false;
    watch(c, EPOLL_CTL_ADD);
    if (status && status != EINPROGRESS) {
        lose(c, strerror(status));
        return;
    }
    if (opt.mode == CONNECT)
        queue_request(c, began);
    flush(c); /* on loopback it is connected already; this saves a turn of the loop */
}

/* ---- replies ---- */

struct due {
    const char *bytes; /* compared up to `compared`; the rest may be anything */
    size_t size, compared;
};

static struct due due_reply(const struct request *request)
{
    static char sum[16];
    if (request->slow)
        return (struct due){opt.slow_reply.bytes, opt.slow_reply.size, opt.slow_reply.size};
    if (opt.reply_bytes)
        return (struct due){opt.prefix.bytes, (size_t)opt.reply_bytes, opt.prefix.size};
    if (opt.reply.size)
        return (struct due){opt.reply.bytes, opt.reply.size, opt.reply.size};
    size_t size = write_number(sum, first_term(request->number) + second_term(request->number));
    sum[size++] = '\n';
    return (struct due){sum, size, size};
}

static void count_reply(const struct request *request, uint64_t now)
{
    if (now >= run.from && now < run.end)
        run.answered++;
    if (request->began_ns >= run.from && request->began_ns < run.end)
        note(request->slow ? &run.slow : &run.quick, now - request->began_ns);
}

static void show(const char *label, const char *bytes, size_t size)
{
    fprintf(stderr, "%s '", label);
    for (size_t i = 0; i < size && i < 60; i++) {
        unsigned char one = (unsigned char)bytes[i];
        if (one >= ' ' && one < 127 && one != '\\')
            fputc(one, stderr);
        else
            fprintf(stderr, "\\x%02x", one);
    }
    fputs(size > 60 ? "...'" : "'", stderr);
}

static void refuse(struct connection *c, const struct due *due, const char *got, size_t size)
{
    if (run.wrong++ < MAX_SHOWN) {
        fputs("lineload: wrong reply:", stderr);
        show(" due", due->bytes, due->compared);
        fprintf(stderr, ", %zu bytes were correct, then", c->matched);
        show("", got, size);
        fputc('\n', stderr);
    }
    run.errors += c->count ? c->count - 1 : 0; /* the others get no reply */
    close_to_reopen(c); /* the start of the next reply is unknown */
}

/* Compare received bytes; return the number of completed replies, -1 if one is wrong. */
static long check(struct connection *c, const char *bytes, size_t size, uint64_t now)
{
    long completed = 0;
    while (size) {
        if (!c->count) {
            refuse(c, &(struct due){"", 0, 0}, bytes, size);
            return -1;
        }
        const struct request *request = &c->ring[c->first & (c->size - 1)];
        struct due due = due_reply(request);
        size_t part = due.size - c->matched < size ? due.size - c->matched : size;
        if (c->matched < due.compared) {
            size_t left = due.compared - c->matched;
            if (memcmp(due.bytes + c->matched, bytes, part < left ? part : left) != 0) {
                refuse(c, &due, bytes, size);
                return -1;
            }
        }
        c->matched += part;
        bytes += part;
        size -= part;
        if (c->matched == due.size) {
            count_reply(request, now);
            c->first++;
            c->count--;
            run.outstanding--;
            c->matched = 0;
            completed++;
        }
    }
    return completed;
}

static void receive(struct connection *c)
{
    ssize_t size = recv(c->fd, run.received, sizeof run.received, 0);
    if (size <= 0) {
        if (size == 0)
            lose(c, "closed by the server");
        else if (errno != EAGAIN)
            lose(c, strerror(errno));
        return;
    }
    uint64_t now = now_ns();
    long completed = check(c, run.received, (size_t)size, now);
    if (completed <= 0)
        return;
    if (opt.mode == CONNECT) {
        close_connection(c);
        if (now < run.end)
            open_connection(c);
    } else if (opt.mode == CLOSED && now < run.end) {
        ask(c, completed);
    }
}

static void serve_event(struct connection *c, uint32_t events)
{
    if (c->fd < 0)
        return;
    if (!c->ready && events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = error_of(c->fd);
        if (error) {
            lose(c, strerror(error));
            return;
        }
        c->ready = true;
        if (opt.mode == CLOSED && run.end != UINT64_MAX && now_ns() < run.end)
            ask(c, opt.depth); /* it was reopened within the run */
        else
            flush(c);
    } else if (events & EPOLLOUT) {
        flush(c);
    }
    if (c->fd >= 0 && events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(c);
}

/* ---- all connections ---- */

static void wait_for_events(int timeout_ms)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(run.epoll, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR)
        fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr) /* not the timer, which only wakes the loop */
            serve_event(events[i].data.ptr, events[i].events);
}

static void reopen_due(uint64_t now)
{
    while (run.closed_count && run.closed[run.closed_first]->reopen_at <= now) {
        struct connection *c = run.closed[run.closed_first];
        run.closed_first = (run.closed_first + 1) % (uint32_t)opt.connections;
        run.closed_count--;
        open_connection(c);
        if (c->fd >= 0 && c->ready && opt.mode == CLOSED)
            ask(c, opt.depth);
    }
}

static void open_all(void)
{
    uint64_t give_up_at = now_ns() + OPEN_LIMIT_NS;
    long ready = 0;
    for (long i = 0; i < opt.connections; i++) {
        open_connection(&run.connections[i]);
        if (i % IDLE_PENDING == IDLE_PENDING - 1)
            wait_for_events(0);
    }
    while (ready < opt.connections) {
        if (now_ns() > give_up_at)
            fail("only %ld of %ld connections could be opened", ready, opt.connections);
        wait_for_events(10);
        if (run.lost) /* the server is not ready */
            fail("a connection failed before the load began");
        ready = 0;
        for (long i = 0; i < opt.connections; i++)
            ready += run.connections[i].ready;
    }
}

static uint64_t due_ns(uint64_t started, uint64_t number)
{
    return started + (uint64_t)((double)number * 1e9 / opt.rate);
}

/* Send the requests that are due, each on the next connection; return whether more are due. */
static bool send_due(uint64_t started)
{
    uint64_t now = now_ns();
    for (int i = 0; i < EVENTS; i++) {
        uint64_t due = due_ns(started, run.sent_due);
        if (due >= run.end)
            return false;
        if (due > now) {
            struct itimerspec next = {.it_value = {(time_t)(due / NS), (long)(due % NS)}};
            timerfd_settime(run.timer, TFD_TIMER_ABSTIME, &next, NULL);
            return false;
        }
        struct connection *c = &run.connections[run.sent_due++ % (uint64_t)opt.connections];
        if (c->fd < 0 || !c->ready) {
            run.errors++; /* no connection is open now */
            continue;
        }
        if (due >= run.from)
            note(&run.late, now_ns() - due);
        queue_request(c, due);
        flush(c);
    }
    /* if far behind, read replies in between */
    return due_ns(started, run.sent_due) < run.end;
}

static int milliseconds_until(uint64_t moment, uint64_t now)
{
    return moment <= now ? 0 : (int)((moment - now + 999999) / 1000000);
}

static void begin(uint64_t now)
{
    run.from = now + (uint64_t)(opt.warm_up * 1e9);
    run.end = run.from + (uint64_t)(opt.seconds * 1e9);
    if (opt.mode == OPEN) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        run.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
        if (run.timer < 0 || epoll_ctl(run.epoll, EPOLL_CTL_ADD, run.timer, &event) < 0)
            fail("timer: %s", strerror(errno));
        return;
    }
    for (long i = 0; i < opt.connections; i++) {
        struct connection *c = &run.connections[i];
        if (opt.mode == CONNECT)
            open_connection(c);
        else if (c->fd >= 0 && c->ready)
            ask(c, opt.depth);
    }
}

/* Load the server; return the processor time used in the measured time. */
static double drive(void)
{
    uint64_t started = now_ns(), now = started, give_up_at = 0;
    double cpu_s = 0;
    bool measuring = false, behind = false;
    begin(started);
    while (!give_up_at || behind || (run.outstanding && now < give_up_at)) {
        if (!measuring && now >= run.from) {
            measuring = true;
            phase("measure");
            cpu_s -= cpu_seconds();
        }
        if (now < run.end)
            reopen_due(now);
        /* At the end too: requests that fell due in a pause of lineload are sent late. */
        if (opt.mode == OPEN)
            behind = send_due(started);
        if (!give_up_at && now >= run.end) {
            cpu_s += cpu_seconds();
            phase("end");
            give_up_at = now + DRAIN_LIMIT_NS;
            continue;
        }
        uint64_t next = give_up_at ? give_up_at : measuring ? run.end : run.from;
        if (!give_up_at && run.closed_count && run.closed[run.closed_first]->reopen_at < next)
            next = run.closed[run.closed_first]->reopen_at;
        wait_for_events(behind ? 0 : milliseconds_until(next, now_ns()));
        now = now_ns();
    }
    run.errors += run.outstanding; /* no reply within the limit */
    return cpu_s;
}

/* ---- idle connections ---- */

static int *open_idle(void)
{
    int *fds = grown(NULL, ((size_t)opt.idle + 1) * sizeof *fds);
    int watcher = epoll_create1(EPOLL_CLOEXEC);
    uint64_t give_up_at = now_ns() + OPEN_LIMIT_NS + (uint64_t)opt.idle * 1000000;
    long started = 0, opened = 0;
    while (opened < opt.idle) {
        while (started < opt.idle && started - opened < IDLE_PENDING) {
            unsigned source = (unsigned)(started / IDLE_PER_SOURCE);
            int status;
            fds[started] = connecting(&source, &status);
            if (status && status != EINPROGRESS)
                fail("idle connection %ld: %s", started, strerror(status));
            struct epoll_event event = {.events = EPOLLOUT | EPOLLONESHOT,
                                        .data.fd = fds[started++]};
            if (epoll_ctl(watcher, EPOLL_CTL_ADD, event.data.fd, &event) < 0)
                fail("epoll_ctl: %s", strerror(errno));
        }
        struct epoll_event events[IDLE_PENDING];
        int count = epoll_wait(watcher, events, IDLE_PENDING, 100);
        for (int i = 0; i < count; i++) {
            int error = error_of(events[i].data.fd);
            if (error)
                fail("idle connection: %s", strerror(error));
            opened++;
        }
        if (now_ns() > give_up_at)
            fail("only %ld of %ld idle connections could be opened", opened, opt.idle);
        nanosleep(&(struct timespec){.tv_nsec = IDLE_PAUSE_NS}, NULL);
    }
    close(watcher);
    return fds;
}

/* Return the number of idle connections that were closed, failed or received data. */
static long dropped_idle(const int *fds)
{
    long dropped = 0;
    for (long i = 0; i < opt.idle; i++) {
        char byte;
        ssize_t size = recv(fds[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        dropped += !(size < 0 && errno == EAGAIN);
        close_with_reset(fds[i]); /* thousands in TIME_WAIT would disturb the next run */
    }
    return dropped;
}

/* ---- command line ---- */

static const char USAGE[] =
    "usage: lineload [options] HOST PORT\n"
    "  -c N             connections (1)\n"
    "  -t SEC           measured time (2)\n"
    "  -w SEC           warm-up before it, not counted (0.3)\n"
    "  -P N             requests in flight on each connection, closed loop (1)\n"
    "  -m MODE          closed: next request after the reply (default)\n"
    "                   connect: a new connection per request\n"
    "                   open: a fixed rate over all connections in turn; latency counts from the\n"
    "                   moment a request was due, and late requests are sent at once\n"
    "  -r RATE          total requests/s, for open\n"
    "  -R               connect: close with RST, to leave no port in TIME_WAIT\n"
    "  -i N             additional idle connections, opened first\n"
    "  --settle SEC     wait after opening them (0)\n"
    "  --request S      the request; escapes: \\r \\n \\t \\\\ \\xHH\n"
    "  --reply S        the expected reply; without both: ADD a b, and the sum\n"
    "  --reply-bytes N  expect a reply of this length ...\n"
    "  --reply-prefix S ... that begins with this\n"
    "  --slow N         each request is the slow one with probability 1/N\n"
    "  --slow-request S, --slow-reply S\n"
    "  --phases         write to stderr when a phase begins: settle, load, measure, end\n";

static void usage_error(const char *why) __attribute__((noreturn));

static void usage_error(const char *why)
{
    fprintf(stderr, "lineload: %s\n%s", why, USAGE);
    exit(2);
}

static int hex(char digit)
{
    const char *digits = "0123456789abcdef", *found = strchr(digits, digit | 0x20);
    return digit && found ? (int)(found - digits) : -1;
}

static struct text unescaped(const char *source)
{
    struct text text = {grown(NULL, strlen(source) + 1), 0};
    for (const char *s = source; *s; s++) {
        char one = *s;
        if (one == '\\') {
            switch (*++s) {
            case 'r': one = '\r'; break;
            case 'n': one = '\n'; break;
            case 't': one = '\t'; break;
            case '\\': break;
            case 'x':
                if (hex(s[1]) < 0 || hex(s[2]) < 0)
                    usage_error("\\x needs two hexadecimal digits");
                one = (char)(hex(s[1]) * 16 + hex(s[2]));
                s += 2;
                break;
            default: usage_error("unknown escape");
            }
        }
        text.bytes[text.size++] = one;
    }
    if (!text.size)
        usage_error("a request or reply must not be empty");
    return text;
}

static double number(const char *text, double min, double max)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= min && value <= max)) {
        fprintf(stderr, "lineload: '%s' is not a number from %g to %g\n", text, min, max);
        exit(2);
    }
    return value;
}

static enum mode mode_named(const char *name)
{
    if (!strcmp(name, "closed"))
        return CLOSED;
    if (!strcmp(name, "connect"))
        return CONNECT;
    if (!strcmp(name, "open"))
        return OPEN;
    usage_error("unknown mode");
}

static void read_options(int argc, char **argv)
{
    enum { REQUEST = 256, REPLY, REPLY_BYTES, PREFIX, SLOW, SLOW_REQUEST, SLOW_REPLY, SETTLE, PHASES };
    static const struct option options[] = {
        {"request", required_argument, NULL, REQUEST},
        {"reply", required_argument, NULL, REPLY},
        {"reply-bytes", required_argument, NULL, REPLY_BYTES},
        {"reply-prefix", required_argument, NULL, PREFIX},
        {"slow", required_argument, NULL, SLOW},
        {"slow-request", required_argument, NULL, SLOW_REQUEST},
        {"slow-reply", required_argument, NULL, SLOW_REPLY},
        {"settle", required_argument, NULL, SETTLE},
        {"phases", no_argument, NULL, PHASES},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "c:t:w:P:m:r:Ri:h", options, NULL)) != -1) {
        switch (option) {
        case 'c': opt.connections = (long)number(optarg, 1, MAX_CONNECTIONS); break;
        case 't': opt.seconds = number(optarg, 0.01, 3600); break;
        case 'w': opt.warm_up = number(optarg, 0, 600); break;
        case 'P': opt.depth = (long)number(optarg, 1, MAX_DEPTH); break;
        case 'm': opt.mode = mode_named(optarg); break;
        case 'r': opt.rate = number(optarg, 0.1, 1e7); break;
        case 'R': opt.reset = true; break;
        case 'i': opt.idle = (long)number(optarg, 0, MAX_CONNECTIONS); break;
        case REQUEST: opt.request = unescaped(optarg); break;
        case REPLY: opt.reply = unescaped(optarg); break;
        case REPLY_BYTES: opt.reply_bytes = (long)number(optarg, 1, 1e9); break;
        case PREFIX: opt.prefix = unescaped(optarg); break;
        case SLOW: opt.slow_one_in = (long)number(optarg, 1, 1e9); break;
        case SLOW_REQUEST: opt.slow_request = unescaped(optarg); break;
        case SLOW_REPLY: opt.slow_reply = unescaped(optarg); break;
        case SETTLE: opt.settle = number(optarg, 0, 600); break;
        case PHASES: opt.phases = true; break;
        case 'h': fputs(USAGE, stdout); exit(0);
        default: usage_error("wrong option");
        }
    }
    if (argc - optind != 2)
        usage_error("HOST and PORT are needed");
    opt.address.sin_family = AF_INET;
    opt.address.sin_port = htons((uint16_t)number(argv[optind + 1], 1, 65535));
    if (inet_pton(AF_INET, argv[optind], &opt.address.sin_addr) != 1)
        usage_error("HOST must be an IPv4 address");
    if ((opt.mode == OPEN) != (opt.rate > 0))
        usage_error("-r goes with -m open");
    if (opt.mode != CLOSED && opt.depth != 1)
        usage_error("-P goes with -m closed");
    if (opt.mode != CONNECT && opt.reset)
        usage_error("-R goes with -m connect");
    if (!opt.request.size != !(opt.reply.size || opt.reply_bytes))
        usage_error("--request goes with --reply or --reply-bytes");
    if (opt.reply.size && opt.reply_bytes)
        usage_error("--reply or --reply-bytes, not both");
    if (opt.prefix.size && opt.prefix.size > (size_t)opt.reply_bytes)
        usage_error("--reply-prefix goes with --reply-bytes, and is not longer");
    if (!opt.slow_one_in != !(opt.slow_request.size && opt.slow_reply.size) ||
        !opt.slow_request.size != !opt.slow_reply.size)
        usage_error("--slow, --slow-request and --slow-reply go together");
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    rlim_t needed = (rlim_t)(opt.connections + opt.idle + 64);
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= needed)
        return;
    limit.rlim_cur = needed;
    if (limit.rlim_max < needed)
        limit.rlim_max = needed; /* root may */
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("%lu descriptors are needed: %s", (unsigned long)needed, strerror(errno));
}

static void prepare(void)
{
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (run.epoll < 0)
        fail("epoll_create1: %s", strerror(errno));
    run.connections = grown(NULL, (size_t)opt.connections * sizeof *run.connections);
    run.closed = grown(NULL, (size_t)opt.connections * sizeof *run.closed);
    for (long i = 0; i < opt.connections; i++)
        run.connections[i] = (struct connection){.fd = -1};
}

static void report(double cpu_s, long dropped)
{
    static const char *const modes[] = {"closed", "connect", "open"};
    uint64_t requests = run.quick.count + run.slow.count;
    printf("{\"mode\": \"%s\", \"connections\": %ld, \"depth\": %ld, \"idle\": %ld, "
           "\"requests\": %llu, \"answered\": %llu, \"wrong\": %llu, \"errors\": %llu, "
           "\"lost\": %llu, \"dropped_idle\": %ld, \"seconds\": %.3f, \"rps\": %.1f, "
           "\"cpu_s\": %.4f",
           modes[opt.mode], opt.connections, opt.depth, opt.idle, (unsigned long long)requests,
           (unsigned long long)run.answered, (unsigned long long)run.wrong,
           (unsigned long long)run.errors, (unsigned long long)run.lost, dropped, opt.seconds,
           (double)run.answered / opt.seconds, cpu_s);
    print_histogram("latency_us", &run.quick);
    if (opt.slow_one_in)
        print_histogram("slow_us", &run.slow);
    if (opt.mode == OPEN)
        print_histogram("late_us", &run.late); /* how late requests were sent */
    puts("}");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    raise_descriptor_limit();
    prepare();
    int *idle = open_idle();
    if (opt.idle)
        phase("settle");
    double settle = opt.settle;
    nanosleep(&(struct timespec){(time_t)settle, (long)((settle - (double)(time_t)settle) * 1e9)},
              NULL);
    if (opt.mode != CONNECT)
        open_all();
    phase("load");
    double cpu_s = drive();
    report(cpu_s, dropped_idle(idle));
    free(idle);
    return run.wrong || !(run.quick.count + run.slow.count);
}
