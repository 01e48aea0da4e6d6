"""Many TFTP clients in one thread, fast enough to be no bottleneck: for benchmarks and boot storms.

Each client is a socket of its own and behaves like firmware: it asks for blksize (and windowsize), acknowledges each
window, says what it had last when something is missing or late, and compares every block with the true content.
"""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset, strcmp, strlen

from wwfast._ext.live cimport *
from wwfast._ext.sockets cimport *

cdef extern from "sys/prctl.h" nogil:
    int prctl(int, unsigned long)
    enum: PR_SET_TIMERSLACK

cdef extern from "stdlib.h" nogil:
    long strtol(const char *, char **, int)

cdef enum:
    EVENTS = 256
    LATE = 65536      # acknowledgements held back at once

cdef double SCAN = 0.05   # seconds between looks for late clients

cdef struct Client:
    int fd
    sockaddr_in server
    uint64_t received
    uint32_t blksize
    uint32_t window
    uint32_t pending      # blocks not acknowledged yet
    double heard          # last progress
    double deadline
    double began
    bint answered
    bint done
    bint failed
    bint gap

cdef struct Held:
    double due
    uint32_t client
    uint64_t block


cdef class Crowd:
    """`count` clients that fetch `request` (an RRQ) from (server, port) and expect `content`.

    `delay`: seconds each acknowledgement is held back, which is a longer round trip as the server sees it;
    `timeout`: seconds until a client repeats itself; `patience`: seconds without progress until it fails.
    """

    cdef readonly double seconds
    cdef readonly uint64_t completed, failed, repeats, blocks, wrong
    cdef Client *_clients
    cdef uint32_t _count
    cdef bytes _kept_request, _kept_content
    cdef const uint8_t *_request
    cdef size_t _request_size
    cdef const uint8_t *_content
    cdef size_t _size
    cdef double _delay, _timeout, _patience
    cdef Held *_held
    cdef size_t _first, _last
    cdef int _epoll
    cdef bint _begun

    def __cinit__(self, uint32_t server, uint16_t port, bytes request, bytes content, *, uint32_t count=1,
                  double delay=0.0, double timeout=1.0, double patience=30.0, sources=()):
        cdef uint32_t index
        cdef epoll_event event
        cdef sockaddr_in own
        self._begun = live_begun(0)
        self._epoll = -1
        self._count, self._kept_request, self._kept_content = count, request, content
        self._request, self._request_size = <const uint8_t *><const char *>request, len(request)
        self._content, self._size = <const uint8_t *><const char *>content, len(content)
        self._delay, self._timeout, self._patience = delay, timeout, patience
        self._clients = <Client *>calloc(count, sizeof(Client))
        self._held = <Held *>calloc(LATE, sizeof(Held)) if delay else NULL
        if self._clients == NULL or (delay and self._held == NULL):
            raise MemoryError
        for index in range(count):
            self._clients[index].fd = -1
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self._epoll < 0:
            raise OSError(errno, "epoll")
        for index in range(count):
            self._clients[index].fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
            if self._clients[index].fd < 0:
                raise OSError(errno, "socket (raise the limit of open files)")
            if sources:
                memset(&own, 0, sizeof(own))
                own.sin_family, own.sin_addr.s_addr = AF_INET, htonl(sources[index % len(sources)])
                if bind(self._clients[index].fd, <sockaddr *>&own, sizeof(own)):
                    raise OSError(errno, "bind")
            memset(&event, 0, sizeof(event))
            event.events, event.data.u32 = EPOLLIN, index
            epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._clients[index].fd, &event)
            self._clients[index].server.sin_family = AF_INET
            self._clients[index].server.sin_port = htons(port)
            self._clients[index].server.sin_addr.s_addr = htonl(server)

    def __dealloc__(self):
        cdef uint32_t index
        if not self._begun:
            return
        live_ended(0)
        if self._clients != NULL:
            for index in range(self._count):
                if self._clients[index].fd >= 0:
                    close(self._clients[index].fd)
        free(self._clients)
        free(self._held)
        if self._epoll >= 0:
            close(self._epoll)

    def run(self):
        """All at once, to the end of the last one."""
        with nogil:
            self._run()

    def ended(self):
        """When (CLOCK_MONOTONIC, seconds) each client had everything; 0 for those that failed."""
        return [self._clients[index].heard if self._clients[index].done else 0.0 for index in range(self._count)]

    cdef void _run(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef uint8_t buffer[66000]
        cdef double start, now, scanned, wait
        cdef uint32_t index
        cdef int ready, turn
        cdef timespec pause
        prctl(PR_SET_TIMERSLACK, 1)
        start = scanned = monotonic()
        for index in range(self._count):
            now = monotonic()
            self._clients[index].began = self._clients[index].heard = now
            self._clients[index].blksize, self._clients[index].window = 512, 1
            self._speak(index, now)
        while self.completed + self.failed < self._count:
            now = monotonic()
            wait = SCAN
            if self._first != self._last:
                wait = min(max(self._held[self._first % LATE].due - now, 0.0), SCAN)
            pause.tv_sec, pause.tv_nsec = 0, <long>(wait * 1e9)
            ready = epoll_pwait2(self._epoll, events, EVENTS, &pause, NULL)
            now = monotonic()
            for turn in range(ready):
                self._listen(events[turn].data.u32, buffer, now)
            while self._first != self._last and self._held[self._first % LATE].due <= now:
                self._acknowledge(self._held[self._first % LATE].client, self._held[self._first % LATE].block)
                self._first += 1
            if now - scanned >= SCAN:
                scanned = now
                for index in range(self._count):
                    if not self._clients[index].done and not self._clients[index].failed:
                        if now - self._clients[index].heard > self._patience:
                            self._clients[index].failed = True
                            self.failed += 1
                        elif now >= self._clients[index].deadline:
                            self.repeats += 1
                            self._clients[index].gap = False
                            self._clients[index].pending = 0
                            self._speak(index, now)
        self.seconds = monotonic() - start

    cdef void _speak(self, uint32_t index, double now) noexcept nogil:
        """Ask, or say what came last."""
        cdef Client *client = &self._clients[index]
        client.deadline = now + self._timeout
        if not client.answered:
            sendto(client.fd, self._request, self._request_size, MSG_DONTWAIT,
                   <sockaddr *>&client.server, sizeof(sockaddr_in))
        elif self._delay and self._last - self._first < LATE:
            self._held[self._last % LATE].due = now + self._delay
            self._held[self._last % LATE].client = index
            self._held[self._last % LATE].block = client.received
            self._last += 1
        else:
            self._acknowledge(index, client.received)

    cdef void _acknowledge(self, uint32_t index, uint64_t block) noexcept nogil:
        cdef uint8_t packet[4]
        cdef Client *client = &self._clients[index]
        packet[0], packet[1], packet[2], packet[3] = 0, 4, (block >> 8) & 0xFF, block & 0xFF
        sendto(client.fd, packet, 4, MSG_DONTWAIT, <sockaddr *>&client.server, sizeof(sockaddr_in))

    cdef void _listen(self, uint32_t index, uint8_t *buffer, double now) noexcept nogil:
        cdef Client *client = &self._clients[index]
        cdef sockaddr_in peer
        cdef unsigned int length
        cdef ssize_t size
        cdef uint64_t ahead, at
        cdef uint32_t turn
        for turn in range(client.window if client.window else 1):
            length = sizeof(peer)
            size = recvfrom(client.fd, buffer, 66000, MSG_DONTWAIT, <sockaddr *>&peer, &length)
            if size < 4:
                return
            if client.failed or buffer[0] != 0:
                continue
            if buffer[1] == 5:
                if not client.done:
                    client.failed = True
                    self.failed += 1
                continue
            if client.answered and peer.sin_port != client.server.sin_port:
                continue
            if buffer[1] == 6:
                if client.answered and client.received:
                    continue
                client.answered = True
                client.server.sin_port = peer.sin_port
                client.heard = now
                self._options(client, buffer, size)
                self._speak(index, now)
                continue
            if buffer[1] != 3:
                continue
            client.answered = True
            client.server.sin_port = peer.sin_port
            ahead = ((<uint64_t>(buffer[2] << 8 | buffer[3])) - client.received) & 0xFFFF
            if ahead != 1:
                if not client.gap or ahead > 0x8000 or ahead == 0:
                    client.gap = True
                    client.pending = 0
                    self.repeats += 1
                    self._speak(index, now)
                continue
            if client.done:
                continue
            at = client.received * client.blksize
            if at + size - 4 > self._size or memcmp(self._content + at, buffer + 4, size - 4):
                self.wrong += 1
            client.received += 1
            self.blocks += 1
            client.pending += 1
            client.gap = False
            client.heard = now
            client.deadline = now + self._timeout
            if size - 4 < client.blksize:
                client.done = True
                self.completed += 1
            if client.done or client.pending >= client.window:
                client.pending = 0
                self._speak(index, now)

    cdef void _options(self, Client *client, uint8_t *data, ssize_t size) noexcept nogil:
        cdef char *name = <char *>data + 2
        cdef char *end = <char *>data + size
        cdef char *value
        data[size - 1] = 0
        while name < end:
            value = name + strlen(name) + 1
            if value >= end:
                return
            if strcmp(name, "blksize") == 0:
                client.blksize = strtol(value, NULL, 10)
            elif strcmp(name, "windowsize") == 0:
                client.window = strtol(value, NULL, 10)
            name = value + strlen(value) + 1


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Crowd": live_count(0)}
