"""Transfers of TFTP by the thousand, without sockets and without the GIL: packets and times in, packets out.

The rules are those of wwfast.net.tftp.transfer.Sender, to the packet: a test drives both and compares. What is added
here is company: a hash table of peers and a timer wheel. Who has sockets derives from it (tftp.pyx).

A transfer is known by (socket, peer address, peer port). Ended ones are kept a while, so that late packets of their
peers are not taken for strangers'.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from wwfast._ext.live cimport *
from wwfast._ext.outbox cimport *
from wwfast._ext.sockets cimport *


# Of transfer.Sender, which explains them.
cdef double FIRST_TIMEOUT = 1.0
cdef double LEAST_TIMEOUT = 0.1
cdef double MOST_TIMEOUT = 4.0
cdef double GIVE_UP = 30.0
cdef double LAST_GIVE_UP = 5.0
#: A transfer with progress this lately is alive: two packets lost in a row in its first seconds cost it 3 s.
cdef double FRESH = 5.0
#: An abort and the same request anew, sent in this order to two sockets, are read by two threads: seconds by which the
#: second may overtake the first.
cdef double OVERTAKING = 1.0
#: Seconds an ended transfer is remembered.
cdef double LINGER = 2.0

cdef enum:
    BEGUN = 0
    DONE = 1
    FAILED = 2


cdef class Transfers:
    """All transfers of one server. Any thread may begin them; one thread takes packets and does what is due."""

    def __cinit__(self):
        self.begun = live_begun(0)
        pthread_mutex_init(&self.lock, NULL)
        self.most_local = 0xFFFF
        self.table.slot = -1
        self.table.buckets = <Sending **>calloc(BUCKETS, sizeof(Sending *))
        if self.table.buckets == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Sending *sending
        cdef Sending *chain
        cdef size_t index
        if not self.begun:
            return
        live_ended(0)
        if self.table.buckets != NULL:
            for index in range(BUCKETS):
                sending = self.table.buckets[index]
                while sending != NULL:
                    chain = sending.chain
                    sending_free(sending)
                    sending = chain
        free(self.table.buckets)
        while self.first != NULL:
            self.first = report_free(self.first)
        pthread_mutex_destroy(&self.lock)

    # For the event loop's thread.

    @property
    def live(self) -> int:
        """Transfers under way."""
        return self.table.live

    @property
    def kept(self) -> int:
        """Transfers under way, and ended ones that are still remembered."""
        return self.table.kept

    def start(self, int local, uint32_t ip, uint16_t port, bytes data, uint32_t blksize, uint32_t window,
              int timeout=0, bytes oack=b"", now=None):
        """Begin a transfer to (ip, port) on socket `local`: its id. The caller keeps `data` until it has ended."""
        cdef Sending *sending
        cdef double at = monotonic() if now is None else now
        cdef uint64_t number
        cdef Sending *former
        if blksize < 8 or window < 1 or not 0 <= local <= self.most_local:
            raise ValueError("blksize, window or socket out of range")
        sending = self._made(len(data), oack, blksize, window)
        sending.ip, sending.port, sending.local = ip, port, local
        sending.data = <const uint8_t *><const char *>data
        sending.fixed = timeout > 0
        sending.timeout = timeout if timeout else FIRST_TIMEOUT
        sending.progress = sending.flight = sending.deadline = at
        with nogil:
            pthread_mutex_lock(&self.lock)
            self.next += 1
            sending.id = self.next
            number = sending.id
            former = table_find(&self.table, ip, port, local)
            if former != NULL:
                if not former.ended:
                    self._end(former, FAILED, 0, "the peer asked anew")
                former.gone = True
                self._put(former, at)
            table_insert(&self.table, sending)
            self._put(sending, at)
            pthread_mutex_unlock(&self.lock)
        return number

    cdef Sending *_made(self, uint64_t size, bytes oack, uint32_t blksize, uint32_t window) except NULL:
        """A transfer with all the memory that it will need."""
        cdef Sending *sending = <Sending *>calloc(1, sizeof(Sending))
        cdef Report *report
        cdef int index
        if sending == NULL:
            raise MemoryError
        live_begun(1)
        for index in range(2):  # that it began, and how it ended
            report = <Report *>malloc(sizeof(Report))
            if report == NULL:
                sending_free(sending)
                raise MemoryError
            report.next = sending.reports
            sending.reports = report
        if oack:
            sending.greeting = <uint8_t *>malloc(len(oack))
            if sending.greeting == NULL:
                sending_free(sending)
                raise MemoryError
            memcpy(sending.greeting, <const char *>oack, len(oack))
            sending.greeting_size = len(oack)
        sending.size, sending.blksize, sending.window = size, blksize, window
        sending.blocks = size // blksize + 1
        sending.clean = True
        sending.greeted = not oack
        sending.slot = -1
        return sending

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
            pthread_mutex_lock(&self.lock)
            sending = table_find(&self.table, ip, port, local)
            if sending != NULL and not sending.ended:
                waiting = not sending.begun or now - sending.progress < FRESH
                if not sending.begun:
                    sending.copies, sending.asked = sending.copies + 1, now
                    self._put(sending, now)
            pthread_mutex_unlock(&self.lock)
        return waiting

    def forget(self, uint64_t number, int local, uint32_t ip, uint16_t port):
        """End transfer `number`, if nothing of it was acknowledged, without a word and a report: whether that was so.
        What is on its way out may still point to its data."""
        cdef Sending *sending
        cdef bint forgotten = False
        with nogil:
            pthread_mutex_lock(&self.lock)
            sending = table_find(&self.table, ip, port, local)
            if sending != NULL and sending.id == number and not sending.ended and not sending.begun:
                forgotten = sending.ended = sending.gone = True
                sending.data = NULL
                self.table.live -= 1
                self._put(sending, monotonic())
            pthread_mutex_unlock(&self.lock)
        return forgotten

    def drain(self):
        """What happened since: (id, "begun" | "done" | "failed", bytes acknowledged, error code, error text)."""
        cdef Report *report = NULL
        with nogil:
            pthread_mutex_lock(&self.lock)
            if not self.box.messages:  # else what is on its way out may point to the bytes of one that has ended
                report = self.first
                self.first = self.last = NULL
            pthread_mutex_unlock(&self.lock)
        found = []
        try:
            while report != NULL:
                found.append(
                    (
                        report.id,
                        ("begun", "done", "failed")[report.outcome],
                        report.sent,
                        report.code,
                        (<bytes>report.text).decode("utf-8", "replace"),
                    )
                )
                report = report_free(report)
            return found
        finally:
            while report != NULL:
                report = report_free(report)

    # Packets and times in, packets out.

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
        for index in range(self.box.messages):
            head = &self.box.out[index].msg_hdr
            name = &self.box.names[index]
            data = b"".join(
                [(<char *>head.msg_iov[piece].iov_base)[: head.msg_iov[piece].iov_len] for piece in range(head.msg_iovlen)]
            )
            found.append((self.box.local, ntohl(name.sin_addr.s_addr), ntohs(name.sin_port), data))
        outbox_clear(&self.box)
        return found

    # For those who derive.

    cdef void _woken(self, double now) noexcept nogil:
        """Something is in the inbox: take it in, now or on the thread that sends."""
        self._unbox(now)

    cdef void _told(self) noexcept nogil:
        """There is something to drain."""

    # What the event loop wants. The thread gives the lock back while it sends or waits for the link, so the loop leaves the
    # wheel and the outbox alone and frees nothing: it enters a transfer in the table, and puts it into the inbox to be
    # sent, once more, or to be removed.

    cdef void _put(self, Sending *sending, double now) noexcept nogil:
        if not sending.boxed:
            sending.boxed = True
            sending.next = self.inbox
            self.inbox = sending
        if sending.next == NULL:
            self._woken(now)

    cdef void _unbox(self, double now) noexcept nogil:
        """What was put in, in the order in which it was."""
        cdef Sending *sending
        cdef Sending *first = NULL
        while self.inbox != NULL:
            sending = self.inbox
            self.inbox = sending.next
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
        outbox_flush(&self.box)

    # What ends.

    cdef void _drop(self, Sending *sending) noexcept nogil:
        if sending == NULL:
            return
        if not sending.ended:
            self._end(sending, FAILED, 0, "the peer asked anew")
        if sending.boxed:
            sending.gone = True  # when its turn comes
        else:
            table_remove(&self.table, sending)

    cdef void _end(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil:
        sending.ended = True
        sending.data = NULL
        self.table.live -= 1
        self._report(sending, outcome, code, text)

    cdef void _report(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil:
        cdef Report *report = sending.reports
        cdef size_t index = 0
        if report == NULL:
            return
        sending.reports = report.next
        report.next = NULL
        report.id, report.outcome, report.code = sending.id, outcome, code
        report.sent = min(sending.acked * sending.blksize, sending.size)
        while text[index] != 0 and index < TEXT - 1:
            report.text[index] = text[index]
            index += 1
        report.text[index] = 0
        if self.first == NULL:
            self.first = self.last = report
            self._told()
        else:
            self.last.next = report
            self.last = report

    # What is due.

    cdef void _advance(self, double now) noexcept nogil:
        cdef int64_t until = wheel_slot(now)
        cdef int64_t slot
        cdef Sending *sending
        cdef Sending *after
        if until - self.table.slot > SLOTS:
            self.table.slot = until - SLOTS
        for slot in range(self.table.slot, until + 1):
            self.table.slot = slot
            sending = self.table.wheel[slot % SLOTS]
            while sending != NULL:
                after = sending.after
                if sending.deadline > now:
                    if wheel_slot(sending.deadline) != slot:
                        wheel_take(&self.table, sending)
                        wheel_put(&self.table, sending)
                elif sending.ended:
                    self._drop(sending)
                else:
                    wheel_take(&self.table, sending)
                    self._expire(sending, now)
                    if sending.slot < 0:
                        wheel_put(&self.table, sending)
                sending = after

    cdef void _expire(self, Sending *sending, double now) noexcept nogil:
        if sending.sent == sending.blocks and now - sending.progress >= LAST_GIVE_UP:
            sending.acked = sending.blocks
            self._end(sending, DONE, 0, "the last acknowledgement was lost")
        elif now - sending.progress >= GIVE_UP:
            self._end(sending, FAILED, sending.refusal, "the peer stopped answering")
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
        cdef Sending *sending = table_find(&self.table, ip, port, local)
        cdef int kind = (data[0] << 8 | data[1]) if size >= 4 else 0
        cdef char text[TEXT]
        cdef size_t index
        if sending == NULL:
            if kind != 0 and kind != 5:
                self.strangers += 1
                outbox_push(&self.box, local, ip, port, "\0\5\0\5unknown transfer", 21)
            return
        if sending.ended:
            return
        if kind == 4:
            self._acknowledged(sending, data[2] << 8 | data[3], now)
        elif kind == 5 and sending.copies and not sending.greeted and now - sending.asked < OVERTAKING:
            sending.copies, sending.refusal = sending.copies - 1, data[2] << 8 | data[3]
            self._send(sending, now)  # OVMF asks for the size, aborts, and asks anew from the same port
        elif kind == 5:
            for index in range(min(size - 4, TEXT - 1)):
                text[index] = data[4 + index]
            text[min(size - 4, TEXT - 1)] = 0
            self._end(sending, FAILED, data[2] << 8 | data[3], text)
            sending.deadline = now + LINGER

    cdef void _acknowledged(self, Sending *sending, uint32_t block, double now) noexcept nogil:
        cdef uint64_t ahead = (block - sending.acked) & 0xFFFF
        if not sending.greeted:
            if ahead:
                return
            sending.greeted, sending.refusal = True, 0
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
            if self.table.slot < 0:
                self.table.slot = wheel_slot(now)
            wheel_put(&self.table, sending)

    cdef void _send(self, Sending *sending, double now) noexcept nogil:
        if not sending.greeted:
            self._arm(sending, now)
            outbox_push(&self.box, sending.local, sending.ip, sending.port, <const char *>sending.greeting, sending.greeting_size)
        else:
            self._window(sending, now)

    cdef void _window(self, Sending *sending, double now) noexcept nogil:
        cdef uint64_t last = min(sending.acked + sending.window, sending.blocks)
        cdef double former = sending.deadline
        sending.sent = last
        self._arm(sending, now)
        if sending.deadline < former:
            wheel_take(&self.table, sending)
            wheel_put(&self.table, sending)
        outbox_blocks(
            &self.box, sending.local, sending.ip, sending.port, sending.data, sending.size, sending.blksize,
            sending.acked + 1, last,
        )


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Transfers": live_count(0), "transfer": live_count(1)}
