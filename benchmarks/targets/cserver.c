/* The sums server in C: the reference of `./dev bench speed`, about what the machine can do.
 *
 *   cc -O2 -o cserver cserver.c
 *   ./cserver -m prefork|epoll -p PROCESSES PORT
 *
 * prefork: each process accepts one connection at a time and serves it with blocking calls.
 * epoll: each process serves many connections and has its own listener (SO_REUSEPORT).
 * The reply to "ADD a b\n" is "a+b\n", to any other line an error. Requests may arrive in pieces or
 * several at once; the replies to one read() are sent with one write(). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define IN_SIZE 16384 /* bytes; also the longest line */
#define MAX_REPLY 64  /* bytes */
#define MAX_EVENTS 256
#define BACKLOG 1024

static const char ERROR[] = "ERROR unknown command\n";

struct client {
    int fd;
    size_t in_length;  /* bytes of unanswered requests */
    size_t out_start;  /* what precedes it is sent */
    size_t out_length;
    char in[IN_SIZE + 4]; /* the test for "ADD " may read beyond */
    char *out; /* allocated only while replies cannot be sent */
};

static char replies[IN_SIZE * MAX_REPLY]; /* enough for IN_SIZE empty lines */

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Read a decimal number that ends with `end`; return what follows, or NULL. */
static const char *number(const char *at, char end, long long *value) {
    char *after;
    if (*at != '-' && (*at < '0' || *at > '9')) return NULL;
    errno = 0;
    *value = strtoll(at, &after, 10);
    return errno || after == at || *after != end ? NULL : after + 1;
}

/* Write a number and a newline; return the number of bytes. */
static size_t put(char *to, long long value) {
    char digits[24];
    size_t length = 0, count = 0;
    unsigned long long left = value < 0 ? -(unsigned long long)value : (unsigned long long)value;
    do digits[count++] = (char)('0' + left % 10);
    while (left /= 10);
    if (value < 0) to[length++] = '-';
    while (count) to[length++] = digits[--count];
    to[length++] = '\n';
    return length;
}

/* Answer one line, which ends with "\n"; return the number of bytes. */
static size_t answer(const char *line, char *to) {
    long long a, b, sum;
    const char *at = line;
    if (memcmp(at, "ADD ", 4) == 0 && (at = number(at + 4, ' ', &a)) != NULL &&
        (number(at, '\n', &b)) != NULL && !__builtin_add_overflow(a, b, &sum))
        return put(to, sum);
    memcpy(to, ERROR, sizeof ERROR - 1);
    return sizeof ERROR - 1;
}

/* Answer all complete lines into `replies`, keep the rest, and return the number of bytes. */
static size_t answer_all(struct client *client) {
    size_t start = 0, length = 0;
    char *newline;
    while ((newline = memchr(client->in + start, '\n', client->in_length - start)) != NULL) {
        length += answer(client->in + start, replies + length);
        start = (size_t)(newline - client->in) + 1;
    }
    client->in_length -= start;
    memmove(client->in, client->in + start, client->in_length);
    return length;
}

static int listener(int port, int flags) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | flags, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0) die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (flags) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    if (listen(fd, BACKLOG)) die("listen");
    return fd;
}

static void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Serve one connection until it ends. */
static void converse(struct client *client) {
    for (;;) {
        ssize_t got = read(client->fd, client->in + client->in_length, IN_SIZE - client->in_length);
        if (got <= 0) return; /* the end, an error, or a line that is too long */
        client->in_length += (size_t)got;
        size_t length = answer_all(client);
        for (size_t sent = 0; sent < length;) {
            ssize_t put = write(client->fd, replies + sent, length - sent);
            if (put < 0) return;
            sent += (size_t)put;
        }
    }
}

static void run_prefork(int listening) {
    static struct client client;
    for (;;) {
        client.fd = accept(listening, NULL, NULL);
        if (client.fd < 0) continue;
        no_delay(client.fd);
        client.in_length = 0;
        converse(&client);
        close(client.fd);
    }
}

static void watch(int loop, int how, int fd, void *data, unsigned events) {
    struct epoll_event event = {.events = events, .data = {.ptr = data}};
    if (epoll_ctl(loop, how, fd, &event)) die("epoll_ctl");
}

static void accept_all(int loop, int listening) {
    for (;;) {
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return; /* no connection waits, or the client has closed */
        no_delay(fd);
        struct client *client = malloc(sizeof *client);
        if (client == NULL) die("malloc");
        client->fd = fd;
        client->in_length = client->out_start = client->out_length = 0;
        client->out = NULL;
        watch(loop, EPOLL_CTL_ADD, fd, client, EPOLLIN);
    }
}

/* Send `length` bytes, and keep what cannot be sent now; return false if the connection failed. */
static bool send_or_keep(int loop, struct client *client, const char *from, size_t length) {
    ssize_t put = write(client->fd, from, length);
    if (put < 0 && errno != EAGAIN) return false;
    size_t sent = put < 0 ? 0 : (size_t)put;
    if (sent == length) return true;
    client->out = malloc(length - sent);
    if (client->out == NULL) die("malloc");
    memcpy(client->out, from + sent, length - sent);
    client->out_start = 0;
    client->out_length = length - sent;
    watch(loop, EPOLL_CTL_MOD, client->fd, client, EPOLLOUT); /* read no requests before that */
    return true;
}

static bool send_kept(int loop, struct client *client) {
    size_t left = client->out_length - client->out_start;
    ssize_t put = write(client->fd, client->out + client->out_start, left);
    if (put < 0) return errno == EAGAIN;
    client->out_start += (size_t)put;
    if (client->out_start < client->out_length) return true;
    free(client->out);
    client->out = NULL;
    watch(loop, EPOLL_CTL_MOD, client->fd, client, EPOLLIN);
    return true;
}

static bool turn(int loop, struct client *client) {
    if (client->out != NULL) return send_kept(loop, client);
    ssize_t got = read(client->fd, client->in + client->in_length, IN_SIZE - client->in_length);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return false;
    client->in_length += (size_t)got;
    size_t length = answer_all(client);
    return length == 0 || send_or_keep(loop, client, replies, length);
}

static void run_epoll(int listening) {
    struct epoll_event events[MAX_EVENTS];
    int loop = epoll_create1(0);
    if (loop < 0) die("epoll_create1");
    watch(loop, EPOLL_CTL_ADD, listening, NULL, EPOLLIN);
    for (;;) {
        int count = epoll_wait(loop, events, MAX_EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client == NULL) {
                accept_all(loop, listening);
            } else if (!turn(loop, client)) {
                close(client->fd);
                free(client->out);
                free(client);
            }
        }
    }
}

int main(int argc, char **argv) {
    bool epoll = false;
    int option, processes = 2;
    while ((option = getopt(argc, argv, "m:p:")) != -1) {
        if (option == 'm') epoll = strcmp(optarg, "epoll") == 0;
        else if (option == 'p') processes = atoi(optarg);
        else return 2;
    }
    if (optind != argc - 1 || processes < 1) return 2;
    int port = atoi(argv[optind]), listening = -1;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < processes; i++) {
        if (epoll || i == 0) listening = listener(port, epoll ? SOCK_NONBLOCK : 0);
        pid_t pid = fork();
        if (pid < 0) die("fork");
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (epoll) run_epoll(listening);
            run_prefork(listening);
        }
        if (epoll) close(listening); /* otherwise it gets connections that no process accepts */
    }
    fputs("ready\n", stderr);
    while (wait(NULL) > 0) continue;
    return 1;
}
