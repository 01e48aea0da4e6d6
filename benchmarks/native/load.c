/* load: HTTP/1.1 load from one thread, the same for every server that is measured.
 *
 *   load HOST PORT TARGET CONNECTIONS SECONDS          closed loop: each connection asks again when it has all
 *   load HOST PORT TARGET CONNECTIONS SECONDS hold     one download each, kept open for SECONDS at a trickle, then read
 *
 * Bodies are thrown away in the kernel (MSG_TRUNC). Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 4096, CHUNK = 1 << 20, EVENTS = 512, TRICKLE = 4096 };

struct conn {
    int fd;
    int have;          /* bytes of the head so far */
    int64_t left;      /* bytes of the body, -1 while in the head */
    int done;
    char head[HEAD];
};

static char request[8192];
static int request_size;
static char sink[CHUNK];
static int64_t requests, bytes, failed;
static struct sockaddr_in server;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int ask(struct conn *c) {
    c->have = 0;
    c->left = -1;
    return send(c->fd, request, request_size, MSG_NOSIGNAL) == request_size ? 0 : -1;
}

/* One recv. 1: a response is complete, 0: more to come, -1: broken, -2: nothing there. */
static int step(struct conn *c, size_t limit) {
    ssize_t n;
    if (c->left < 0) {
        n = recv(c->fd, c->head + c->have, HEAD - 1 - c->have, 0);
        if (n <= 0) return n < 0 && errno == EAGAIN ? -2 : -1;
        c->have += n;
        c->head[c->have] = 0;
        char *end = strstr(c->head, "\r\n\r\n");
        if (!end) return c->have < HEAD - 1 ? 0 : -1;
        char *length = strcasestr(c->head, "\r\ncontent-length:");
        if (strncmp(c->head, "HTTP/1.1 200", 12) || !length || length > end) return -1;
        n = c->have - (end + 4 - c->head);
        c->left = strtoll(length + 17, NULL, 10) - n;
    } else {
        size_t want = c->left < (int64_t)limit ? (size_t)c->left : limit;
        n = recv(c->fd, sink, want, MSG_TRUNC);
        if (n <= 0) return n < 0 && errno == EAGAIN ? -2 : -1;
        c->left -= n;
    }
    bytes += n;
    if (c->left > 0) return 0;
    requests++;
    return c->left == 0 ? 1 : -1;
}

int main(int argc, char **argv) {
    if (argc < 6) return 2;
    int count = atoi(argv[4]), hold = argc > 6;
    double seconds = atof(argv[5]);
    struct rlimit files = {count + 64, count + 64};
    setrlimit(RLIMIT_NOFILE, &files);
    request_size = snprintf(request, sizeof request,
                            "GET %s HTTP/1.1\r\nConnection: keep-alive\r\nUser-Agent: load/1\r\nHost: %s:%s\r\n\r\n",
                            argv[3], argv[1], argv[2]);
    server.sin_family = AF_INET;
    server.sin_port = htons(atoi(argv[2]));
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    struct conn *conns = calloc(count, sizeof *conns);
    int ep = epoll_create1(0), open_count = 0;
    for (int i = 0; i < count; i++) {
        struct conn *c = &conns[i];
        int one = 1, window = 32 << 10;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (hold) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connect(c->fd, (struct sockaddr *)&server, sizeof server) || ask(c)) {
            failed++;
            c->done = 1;
            continue;
        }
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        open_count++;
    }
    double begin = now(), end = begin + seconds;
    while (hold && now() < end) { /* a trickle over all of them: every download stays open and alive */
        for (int i = 0; i < count; i++) {
            int r = conns[i].done ? -2 : step(&conns[i], TRICKLE);
            if (r == -1) failed++, open_count--;
            if (r == -1 || r == 1) conns[i].done = 1;
        }
        usleep(200000);
    }
    int64_t held = 0;
    for (int i = 0; i < count; i++) held += !conns[i].done;
    for (int i = 0; i < count; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = &conns[i]};
        if (!conns[i].done) epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].fd, &e);
    }
    int64_t left = held;
    double quiet = now();
    while (hold ? left > 0 && now() - quiet < 60 : now() < end) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(ep, events, EVENTS, 100);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            int r = step(c, CHUNK);
            quiet = hold ? now() : quiet;
            if (r == 1 && !hold) r = ask(c);
            if (r == -1) failed++;
            if (r == -1 || (r == 1 && hold)) epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL), left--;
        }
    }
    if (hold) failed += left;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\": %lld, \"bytes\": %lld, \"failed\": %lld, \"held\": %lld, \"seconds\": %.6f, \"cpu\": %.3f}\n",
           (long long)requests, (long long)bytes, (long long)failed, (long long)held, now() - begin, cpu);
    return 0;
}
