"""The TFTP engine: transfers (transfers.pyx) on a few sockets, by one thread that does not take the GIL.

It receives and sends in batches (recvmmsg, sendmmsg; header and slice of the file gathered by the kernel; a window of
blocks as one UDP_SEGMENT message).
"""

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from wwfast._ext.live cimport *
from wwfast._ext.outbox cimport *
from wwfast._ext.sockets cimport *
from wwfast._ext.transfers cimport *

cdef enum:
    RECEIVE = TEXT    # an ACK has 4 bytes, an ERROR its text
    ROUNDS = 4        # batches read from one socket before others get their turn
    EVENTS = 64


cdef class Engine(Transfers):
    """`sockets`: file descriptors (non-blocking UDP, IPv4) by their index.

    `fileno` becomes readable when `drain` has something to tell.
    """

    cdef readonly int fileno
    cdef int *_sockets
    cdef int _count
    cdef int _wake, _epoll
    cdef bint _opened, _stop, _busy
    cdef mmsghdr _in[BATCH]
    cdef iovec _in_pieces[BATCH]
    cdef sockaddr_in _in_names[BATCH]
    cdef uint8_t _in_data[BATCH][RECEIVE]

    def __cinit__(self, sockets):
        cdef int index
        cdef epoll_event event
        self._wake = self.fileno = self._epoll = -1
        self._opened = True
        self._count = len(sockets)
        self._sockets = <int *>calloc(max(self._count, 1), sizeof(int))
        if self._sockets == NULL:
            raise MemoryError
        for index in range(self._count):
            self._sockets[index] = sockets[index]
        self.most_local = self._count - 1
        self.box.segments = True
        self.box.sockets = self._sockets
        self.box.lock = &self.lock
        self.fileno = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self._wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self._epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.fileno < 0 or self._wake < 0 or self._epoll < 0:
            raise OSError(errno, "eventfd or epoll")
        for index in range(self._count + 1):
            event.events, event.data.u32 = EPOLLIN, index
            if epoll_ctl(self._epoll, EPOLL_CTL_ADD, self._wake if index == self._count else self._sockets[index], &event):
                raise OSError(errno, "epoll")
        for index in range(BATCH):
            self._in_pieces[index].iov_base = self._in_data[index]
            self._in_pieces[index].iov_len = RECEIVE
            self._in[index].msg_hdr.msg_iov = &self._in_pieces[index]
            self._in[index].msg_hdr.msg_iovlen = 1
            self._in[index].msg_hdr.msg_name = &self._in_names[index]

    def __dealloc__(self):
        if self._opened:
            free(self._sockets)
            self._close()

    cdef void _close(self) noexcept:
        for descriptor in (self.fileno, self._wake, self._epoll):
            if descriptor >= 0:
                close(descriptor)
        self._wake = self.fileno = self._epoll = -1

    # For the event loop's thread.

    def serve(self):
        """Serve the sockets until `stop`, in the calling thread, without the GIL."""
        with nogil:
            self._serve()

    def stop(self):
        """End `serve`; transfers under way are forgotten."""
        self._stop = True
        self._woken(0.0)

    def close(self):
        """Close the descriptors that it wakes others by, once `serve` has ended; the counters stay. Safe to repeat."""
        self._close()

    @property
    def send_errors(self) -> int:
        """Packets that the kernel would not take."""
        return self.box.errors

    @property
    def busy(self) -> bool:
        """More acknowledgements wait than one turn took: new transfers had better wait."""
        return self._busy

    def drain(self):
        cdef uint64_t dummy
        read(self.fileno, &dummy, 8)
        return Transfers.drain(self)

    # The thread.

    cdef void _woken(self, double now) noexcept nogil:
        cdef uint64_t one = 1
        write(self._wake, &one, 8)

    cdef void _told(self) noexcept nogil:
        cdef uint64_t one = 1
        write(self.fileno, &one, 8)

    cdef bint _read(self, int local, double now) noexcept nogil:
        """One batch of a socket; True when there may be more."""
        cdef int index, count
        for index in range(BATCH):
            self._in[index].msg_hdr.msg_namelen = sizeof(sockaddr_in)
        count = recvmmsg(self._sockets[local], self._in, BATCH, MSG_DONTWAIT, NULL)
        for index in range(count):
            self._take(
                local,
                ntohl(self._in_names[index].sin_addr.s_addr),
                ntohs(self._in_names[index].sin_port),
                self._in_data[index],
                self._in[index].msg_len,
                now,
            )
        outbox_flush(&self.box)
        return count == BATCH

    cdef void _serve(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int event, ready, turn
        cdef uint32_t index
        cdef uint64_t dummy
        cdef double now
        cdef bint more
        while not self._stop:
            ready = epoll_wait(self._epoll, events, EVENTS, 10 if self.table.kept else -1)
            now = monotonic()
            more = False
            for event in range(ready):
                index = events[event].data.u32
                if index == <uint32_t>self._count:
                    read(self._wake, &dummy, 8)
                    continue
                for turn in range(ROUNDS):
                    pthread_mutex_lock(&self.lock)
                    if self.inbox != NULL:
                        self._unbox(now)
                    if turn:
                        now = monotonic()
                    if not self._read(index, now):
                        pthread_mutex_unlock(&self.lock)
                        break
                    pthread_mutex_unlock(&self.lock)
                else:
                    more = True
            self._busy = more
            pthread_mutex_lock(&self.lock)
            if self.inbox != NULL:
                self._unbox(now)
            if wheel_slot(now) > self.table.slot:
                self._advance(now)
            outbox_flush(&self.box)
            if self.first != NULL:  # what drain() had to leave
                self._told()
            pthread_mutex_unlock(&self.lock)
