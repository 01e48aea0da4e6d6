"""The TFTP engine: thousands of transfers on a few sockets, by one thread that does not take the GIL.

Its rules are those of wwfast.net.tftp.transfer.Sender, to the packet: a test drives both and compares. What is added
here is company: a hash table of peers, a timer wheel, receiving and sending in batches (recvmmsg, sendmmsg; header
and slice of the file gathered by the kernel; a window of blocks as one UDP_SEGMENT message).

A transfer is known by (socket, peer address, peer port). Ended ones are kept a while, so that late packets of their
peers are not taken for strangers'.
"""

from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from wwfast._ext.live cimport *
from wwfast._ext.outbox cimport *
from wwfast._ext.sockets cimport *
from wwfast._ext.transfers cimport *


# Of transfer.Sender, which explains them.
cdef double FIRST_TIMEOUT = 1.0
cdef double LEAST_TIMEOUT = 0.1
cdef double MOST_TIMEOUT = 4.0
cdef double GIVE_UP = 30.0
cdef double LAST_GIVE_UP = 5.0
#: A transfer with progress this lately is alive: two packets lost in a row in its first seconds cost it 3 s.
cdef double FRESH = 5.0
#: Seconds an ended transfer is remembered.
cdef double LINGER = 2.0

cdef enum:
    RECEIVE = 128     # an ACK has 4 bytes; of an ERROR's text this much is kept
    ROUNDS = 4        # batches read from one socket before others get their turn
    EVENTS = 64

cdef enum:
    BEGUN = 0
    DONE = 1
    FAILED = 2

cdef struct Report:
    uint64_t id
    int outcome
    int code
    uint64_t sent
    char text[RECEIVE]


cdef class Engine:
    """`sockets`: file descriptors (non-blocking UDP, IPv4) by their index; none for a test without sockets.

    `fileno` becomes readable when `drain` has something to tell.
    """

    cdef readonly int fileno
    cdef readonly uint64_t strangers, resent
    cdef bint _begun
    cdef int *_sockets
    cdef int _count
    cdef int _wake, _epoll
    cdef bint _stop, _busy
    cdef pthread_mutex_t _lock
    cdef Table _table
    cdef uint64_t _next
    cdef Report *_reports
    cdef size_t _reported, _room
    cdef Sending *_inbox
    cdef Outbox _box
    cdef mmsghdr _in[BATCH]
    cdef iovec _in_pieces[BATCH]
    cdef sockaddr_in _in_names[BATCH]
    cdef uint8_t _in_data[BATCH][RECEIVE]

    def __cinit__(self, sockets=(), *, bint segments=True):
        cdef int index
        cdef epoll_event event
        self._begun = live_begun(0)
        self._wake = self.fileno = self._epoll = -1
        self._count = len(sockets)
        self._sockets = <int *>calloc(max(self._count, 1), sizeof(int))
        self._table.buckets = <Sending **>calloc(BUCKETS, sizeof(Sending *))
        if self._sockets == NULL or self._table.buckets == NULL:
            raise MemoryError
        for index in range(self._count):
            self._sockets[index] = sockets[index]
        self._box.segments = segments and self._count > 0
        self._box.sockets = self._sockets if self._count else NULL
        self._box.lock = &self._lock if self._count else NULL
        self._table.slot = -1
        pthread_mutex_init(&self._lock, NULL)
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
        cdef Sending *sending
        cdef Sending *chain
        cdef size_t index
        if not self._begun:
            return
        live_ended(0)
        if self._table.buckets != NULL:
            for index in range(BUCKETS):
                sending = self._table.buckets[index]
                while sending != NULL:
                    chain = sending.chain
                    sending_free(sending)
                    sending = chain
        free(self._table.buckets)
        free(self._sockets)
        free(self._reports)
        self._close()
        pthread_mutex_destroy(&self._lock)

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
        self._poke()

    def close(self):
        """Close the descriptors that it wakes others by, once `serve` has ended; the counters stay. Safe to repeat."""
        self._close()

    @property
    def live(self) -> int:
        """Transfers under way."""
        return self._table.live

    @property
    def kept(self) -> int:
        """Transfers under way, and ended ones that are still remembered."""
        return self._table.kept

    @property
    def send_errors(self) -> int:
        """Packets that the kernel would not take."""
        return self._box.errors

    @property
    def busy(self) -> bool:
        """More acknowledgements wait than one turn took: new transfers had better wait."""
        return self._busy

    def start(self, int local, uint32_t ip, uint16_t port, bytes data, uint32_t blksize, uint32_t window,
              int timeout=0, bytes oack=b"", now=None):
        """Begin a transfer to (ip, port) on socket `local`: its id. The caller keeps `data` until it has ended."""
        cdef Sending *sending
        cdef double at = monotonic() if now is None else now
        cdef uint64_t number
        cdef Sending *former
        if blksize < 8 or window < 1 or local < 0 or (self._count and local >= self._count):
            raise ValueError("blksize, window or socket out of range")
        sending = <Sending *>calloc(1, sizeof(Sending))
        if sending == NULL:
            raise MemoryError
        live_begun(1)
        if oack:
            sending.greeting = <uint8_t *>malloc(len(oack))
            if sending.greeting == NULL:
                sending_free(sending)
                raise MemoryError
            memcpy(sending.greeting, <const char *>oack, len(oack))
            sending.greeting_size = len(oack)
        sending.ip, sending.port, sending.local = ip, port, local
        sending.data, sending.size = <const uint8_t *><const char *>data, len(data)
        sending.blksize, sending.window = blksize, window
        sending.blocks = sending.size // blksize + 1
        sending.fixed = timeout > 0
        sending.timeout = timeout if timeout else FIRST_TIMEOUT
        sending.progress = sending.flight = sending.deadline = at
        sending.clean = True
        sending.greeted = not oack
        sending.slot = -1
        with nogil:
            pthread_mutex_lock(&self._lock)
            self._next += 1
            sending.id = self._next
            number = sending.id
            former = table_find(&self._table, ip, port, local)
            if former != NULL:
                if not former.ended:
                    self._end(former, FAILED, 0, "the peer asked anew")
                former.gone = True
                self._put(former, at)
            table_insert(&self._table, sending)
            self._put(sending, at)
            pthread_mutex_unlock(&self._lock)
        return number

    def again(self, int local, uint32_t ip, uint16_t port):
        """The peer repeated its request: whether that is answered by the transfer it has.

        Before the transfer has begun, its first packet goes out again. While it goes on, the request is a late copy
        of the first one (it waited in a queue): to begin anew would cut off a client that is being served. A machine
        that was switched off meanwhile asks again after more than FRESH seconds without progress.
        """
        cdef Sending *sending
        cdef bint waiting = False
        cdef double now = monotonic()
        with nogil:
            pthread_mutex_lock(&self._lock)
            sending = table_find(&self._table, ip, port, local)
            if sending != NULL and not sending.ended:
                waiting = not sending.begun or now - sending.progress < FRESH
                if not sending.begun:
                    self._put(sending, now)
            pthread_mutex_unlock(&self._lock)
        return waiting

    def forget(self, uint64_t number, int local, uint32_t ip, uint16_t port):
        """End transfer `number`, if nothing of it was acknowledged, without a word and a report: whether that was so.
        What is on its way out may still point to its data."""
        cdef Sending *sending
        cdef bint forgotten = False
        with nogil:
            pthread_mutex_lock(&self._lock)
            sending = table_find(&self._table, ip, port, local)
            if sending != NULL and sending.id == number and not sending.ended and not sending.begun:
                forgotten = sending.ended = sending.gone = True
                sending.data = NULL
                self._table.live -= 1
                self._put(sending, monotonic())
            pthread_mutex_unlock(&self._lock)
        return forgotten

    def drain(self):
        """What happened since: (id, "begun" | "done" | "failed", bytes acknowledged, error code, error text)."""
        cdef uint64_t dummy
        cdef Report *reports
        cdef size_t count, index
        read(self.fileno, &dummy, 8)
        with nogil:
            pthread_mutex_lock(&self._lock)
            reports, count = NULL, 0
            if not self._box.messages:  # else what is on its way out may point to the bytes of one that has ended
                reports, count = self._reports, self._reported
                self._reports, self._reported, self._room = NULL, 0, 0
            pthread_mutex_unlock(&self._lock)
        try:
            return [
                (
                    reports[index].id,
                    ("begun", "done", "failed")[reports[index].outcome],
                    reports[index].sent,
                    reports[index].code,
                    (<bytes>reports[index].text).decode("utf-8", "replace"),
                )
                for index in range(count)
            ]
        finally:
            free(reports)

    # Without sockets: packets and times in, packets out.

    def feed(self, int local, uint32_t ip, uint16_t port, bytes data, double now):
        """Take one packet as if it had come from (ip, port)."""
        self._take(local, ip, port, <const uint8_t *><const char *>data, len(data), now)

    def tick(self, double now):
        """Do what is due."""
        self._advance(now)

    def take(self):
        """The packets that would have been sent: (local, ip, port, bytes)."""
        found = []
        cdef int index
        cdef size_t piece
        cdef msghdr *head
        cdef sockaddr_in *name
        for index in range(self._box.messages):
            head = &self._box.out[index].msg_hdr
            name = &self._box.names[index]
            data = b"".join(
                [(<char *>head.msg_iov[piece].iov_base)[: head.msg_iov[piece].iov_len] for piece in range(head.msg_iovlen)]
            )
            found.append((self._box.local, ntohl(name.sin_addr.s_addr), ntohs(name.sin_port), data))
        outbox_clear(&self._box)
        return found

    # What the event loop wants. The thread gives the lock back while it sends or waits for the link, so the loop leaves the
    # wheel and the outbox alone and frees nothing: it enters a transfer in the table, and puts it into the inbox to be
    # sent, once more, or to be removed.

    cdef void _put(self, Sending *sending, double now) noexcept nogil:
        if not sending.boxed:
            sending.boxed = True
            sending.next = self._inbox
            self._inbox = sending
        if not self._count:
            self._unbox(now)
        elif sending.next == NULL:
            self._poke()

    cdef void _unbox(self, double now) noexcept nogil:
        """What was put in, in the order in which it was."""
        cdef Sending *sending
        cdef Sending *first = NULL
        while self._inbox != NULL:
            sending = self._inbox
            self._inbox = sending.next
            sending.next = first
            first = sending
        while first != NULL:
            sending = first
            first = sending.next
            sending.boxed = False
            if sending.gone:
                self._drop(sending)
            elif not sending.ended:
                self._send(sending, now)
        outbox_flush(&self._box)

    # What ends.

    cdef void _drop(self, Sending *sending) noexcept nogil:
        if sending == NULL:
            return
        if not sending.ended:
            self._end(sending, FAILED, 0, "the peer asked anew")
        if sending.boxed:
            sending.gone = True  # when its turn comes
        else:
            table_remove(&self._table, sending)

    cdef void _end(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil:
        sending.ended = True
        sending.data = NULL
        self._table.live -= 1
        self._report(sending, outcome, code, text)

    cdef void _report(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil:
        cdef Report *report
        cdef Report *larger
        cdef size_t index = 0
        cdef uint64_t one = 1
        if self._reported == self._room:
            larger = <Report *>realloc(self._reports, (self._room * 2 + 64) * sizeof(Report))
            if larger == NULL:
                return
            self._reports, self._room = larger, self._room * 2 + 64
        report = &self._reports[self._reported]
        report.id, report.outcome, report.code = sending.id, outcome, code
        report.sent = min(sending.acked * sending.blksize, sending.size)
        while text[index] != 0 and index < RECEIVE - 1:
            report.text[index] = text[index]
            index += 1
        report.text[index] = 0
        self._reported += 1
        if self._reported == 1:
            write(self.fileno, &one, 8)

    # What is due.

    cdef void _advance(self, double now) noexcept nogil:
        cdef int64_t until = wheel_slot(now)
        cdef int64_t slot
        cdef Sending *sending
        cdef Sending *after
        if until - self._table.slot > SLOTS:
            self._table.slot = until - SLOTS
        for slot in range(self._table.slot, until + 1):
            self._table.slot = slot
            sending = self._table.wheel[slot % SLOTS]
            while sending != NULL:
                after = sending.after
                if sending.deadline > now:
                    if wheel_slot(sending.deadline) != slot:
                        wheel_take(&self._table, sending)
                        wheel_put(&self._table, sending)
                elif sending.ended:
                    self._drop(sending)
                else:
                    wheel_take(&self._table, sending)
                    self._expire(sending, now)
                    if sending.slot < 0:
                        wheel_put(&self._table, sending)
                sending = after

    cdef void _expire(self, Sending *sending, double now) noexcept nogil:
        if sending.sent == sending.blocks and now - sending.progress >= LAST_GIVE_UP:
            sending.acked = sending.blocks
            self._end(sending, DONE, 0, "the last acknowledgement was lost")
        elif now - sending.progress >= GIVE_UP:
            self._end(sending, FAILED, 0, "the peer stopped answering")
        else:
            sending.tries += 1
            sending.clean = sending.repeated = False
            self.resent += 1
            self._send(sending, now)
            return
        sending.deadline = now + LINGER

    # The protocol, as in transfer.Sender.

    cdef void _take(self, uint16_t local, uint32_t ip, uint16_t port, const uint8_t *data, size_t size,
                    double now) noexcept nogil:
        cdef Sending *sending = table_find(&self._table, ip, port, local)
        cdef int kind = (data[0] << 8 | data[1]) if size >= 4 else 0
        cdef char text[RECEIVE]
        cdef size_t index
        if sending == NULL:
            if kind != 0 and kind != 5:
                self.strangers += 1
                outbox_push(&self._box, local, ip, port, "\0\5\0\5unknown transfer", 21)
            return
        if sending.ended:
            return
        if kind == 4:
            self._acknowledged(sending, data[2] << 8 | data[3], now)
        elif kind == 5:
            for index in range(min(size - 4, RECEIVE - 1)):
                text[index] = data[4 + index]
            text[min(size - 4, RECEIVE - 1)] = 0
            self._end(sending, FAILED, data[2] << 8 | data[3], text)
            sending.deadline = now + LINGER

    cdef void _acknowledged(self, Sending *sending, uint32_t block, double now) noexcept nogil:
        cdef uint64_t ahead = (block - sending.acked) & 0xFFFF
        if not sending.greeted:
            if ahead:
                return
            sending.greeted = True
            self._measure(sending, now)
            sending.tries, sending.progress, sending.clean = 0, now, True
            sending.begun = True
            self._report(sending, BEGUN, 0, "")
            self._window(sending, now)
            return
        if ahead > sending.sent - sending.acked:
            return
        if ahead == 0:
            if sending.window == 1 or sending.repeated or now - sending.flight < max(sending.round_trip, 0.001):
                return
            sending.repeated, sending.clean = True, False
            self.resent += 1
            self._window(sending, now)
            return
        if sending.acked + ahead == sending.sent:
            self._measure(sending, now)
        if not sending.begun:
            sending.begun = True
            self._report(sending, BEGUN, 0, "")
        sending.acked += ahead
        sending.repeated, sending.clean = False, True
        sending.tries, sending.progress = 0, now
        if sending.acked == sending.blocks:
            self._end(sending, DONE, 0, "")
            sending.deadline = now + LINGER
            return
        self._window(sending, now)

    cdef void _measure(self, Sending *sending, double now) noexcept nogil:
        cdef double sample = now - sending.flight
        cdef double error
        if not sending.clean or sending.fixed:
            return
        if sending.round_trip == 0.0:
            sending.round_trip, sending.variation = sample, sample / 2
        else:
            error = sample - sending.round_trip
            sending.variation += ((error if error >= 0 else -error) - sending.variation) / 4
            sending.round_trip += (sample - sending.round_trip) / 8
        sending.timeout = min(max(sending.round_trip + 4 * sending.variation, LEAST_TIMEOUT), MOST_TIMEOUT)

    cdef void _arm(self, Sending *sending, double now) noexcept nogil:
        cdef double wait = sending.timeout
        cdef int index
        for index in range(sending.tries):
            wait = min(wait * 2, max(MOST_TIMEOUT, sending.timeout))
        sending.flight = now
        sending.deadline = now + wait
        # The wheel's slot is only too late when the deadline came nearer, after a timeout that was long.
        if sending.slot < 0:
            if self._table.slot < 0:
                self._table.slot = wheel_slot(now)
            wheel_put(&self._table, sending)

    cdef void _send(self, Sending *sending, double now) noexcept nogil:
        if not sending.greeted:
            self._arm(sending, now)
            outbox_push(&self._box, sending.local, sending.ip, sending.port, <const char *>sending.greeting, sending.greeting_size)
        else:
            self._window(sending, now)

    cdef void _window(self, Sending *sending, double now) noexcept nogil:
        cdef uint64_t last = min(sending.acked + sending.window, sending.blocks)
        cdef double former = sending.deadline
        sending.sent = last
        self._arm(sending, now)
        if sending.deadline < former:
            wheel_take(&self._table, sending)
            wheel_put(&self._table, sending)
        outbox_blocks(
            &self._box, sending.local, sending.ip, sending.port, sending.data, sending.size, sending.blksize,
            sending.acked + 1, last,
        )

    # The thread.

    cdef void _poke(self) noexcept nogil:
        cdef uint64_t one = 1
        write(self._wake, &one, 8)

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
        outbox_flush(&self._box)
        return count == BATCH

    cdef void _serve(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int event, ready, turn
        cdef uint32_t index
        cdef uint64_t dummy
        cdef double now
        cdef bint more
        cdef uint64_t one = 1
        while not self._stop:
            ready = epoll_wait(self._epoll, events, EVENTS, 10 if self._table.kept else -1)
            now = monotonic()
            more = False
            for event in range(ready):
                index = events[event].data.u32
                if index == <uint32_t>self._count:
                    read(self._wake, &dummy, 8)
                    continue
                for turn in range(ROUNDS):
                    pthread_mutex_lock(&self._lock)
                    if self._inbox != NULL:
                        self._unbox(now)
                    if turn:
                        now = monotonic()
                    if not self._read(index, now):
                        pthread_mutex_unlock(&self._lock)
                        break
                    pthread_mutex_unlock(&self._lock)
                else:
                    more = True
            self._busy = more
            pthread_mutex_lock(&self._lock)
            if self._inbox != NULL:
                self._unbox(now)
            if wheel_slot(now) > self._table.slot:
                self._advance(now)
            outbox_flush(&self._box)
            if self._reported:  # those that drain() had to leave
                write(self.fileno, &one, 8)
            pthread_mutex_unlock(&self._lock)


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Engine": live_count(0), "transfer": live_count(1)}
