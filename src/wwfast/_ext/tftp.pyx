"""The TFTP engine: thousands of transfers on a few sockets, by one thread that does not take the GIL.

Its rules are those of wwfast.net.tftp.transfer.Sender, to the packet: a test drives both and compares. What is added
here is company: a hash table of peers, a timer wheel, receiving and sending in batches (recvmmsg, sendmmsg; header
and slice of the file gathered by the kernel; a window of blocks as one UDP_SEGMENT message).

A transfer is known by (socket, peer address, peer port). Ended ones are kept a while, so that late packets of their
peers are not taken for strangers'.
"""

from libc.errno cimport EAGAIN, EINTR, EIO, EINVAL, ENOBUFS, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <poll.h>
    #include <pthread.h>
    #include <time.h>
    #include <unistd.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    static void tftp_segment(struct msghdr *head, void *space, unsigned short size) {
        struct cmsghdr *control;
        head->msg_control = space;
        head->msg_controllen = CMSG_SPACE(sizeof(size));
        control = CMSG_FIRSTHDR(head);
        control->cmsg_level = IPPROTO_UDP;
        control->cmsg_type = UDP_SEGMENT;
        control->cmsg_len = CMSG_LEN(sizeof(size));
        *(unsigned short *)CMSG_DATA(control) = size;
    }
    """
    void tftp_segment(msghdr *head, void *space, unsigned short size) nogil

cdef extern from "sys/socket.h" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int recvmmsg(int, mmsghdr *, unsigned int, int, void *)
    int sendmmsg(int, mmsghdr *, unsigned int, int)
    enum: MSG_DONTWAIT
    enum: AF_INET

cdef extern from "netinet/in.h" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)
    uint32_t htonl(uint32_t)
    uint32_t ntohl(uint32_t)

cdef extern from "poll.h" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    enum: POLLOUT

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint32_t u32
    struct epoll_event:
        unsigned int events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)
    int epoll_wait(int, epoll_event *, int, int)
    enum: EPOLL_CLOEXEC
    enum: EPOLL_CTL_ADD
    enum: EPOLLIN

cdef extern from "sys/eventfd.h" nogil:
    int eventfd(unsigned int, int)
    enum: EFD_NONBLOCK
    enum: EFD_CLOEXEC

cdef extern from "unistd.h" nogil:
    ssize_t read(int, void *, size_t)
    ssize_t write(int, const void *, size_t)
    int close(int)

cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef extern from "time.h" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    enum: CLOCK_MONOTONIC


# Of transfer.Sender, which explains them.
cdef double FIRST_TIMEOUT = 1.0
cdef double LEAST_TIMEOUT = 0.1
cdef double MOST_TIMEOUT = 4.0
cdef double GIVE_UP = 30.0
cdef double LAST_GIVE_UP = 5.0
#: A transfer with progress this lately is alive.
cdef double FRESH = 2.0
#: Seconds an ended transfer is remembered.
cdef double LINGER = 2.0

cdef enum:
    BATCH = 64
    PIECES = 256      # blocks in one sendmmsg at most
    SEGMENTS = 64     # UDP_MAX_SEGMENTS of older kernels
    DATAGRAM = 65507
    RECEIVE = 128     # an ACK has 4 bytes; of an ERROR's text this much is kept
    ROUNDS = 4        # batches read from one socket before others get their turn
    SLOTS = 1024
    BUCKETS = 65536
    EVENTS = 64
cdef double SLOT = 0.01   # seconds

cdef enum:
    BEGUN = 0
    DONE = 1
    FAILED = 2

cdef struct Sending:
    uint64_t id
    uint32_t ip           # host order, as everything below
    uint16_t port
    uint16_t local
    const uint8_t *data
    uint64_t size
    uint64_t blocks
    uint64_t acked
    uint64_t sent
    uint32_t blksize
    uint32_t window
    uint8_t *greeting
    size_t greeting_size
    double timeout
    double progress
    double flight
    double deadline
    double round_trip
    double variation
    int tries
    bint greeted          # the OACK is acknowledged, or there is none
    bint fixed
    bint clean
    bint repeated
    bint begun
    bint ended
    Sending *chain        # hash bucket
    Sending *before       # timer wheel
    Sending *after
    int slot

cdef struct Report:
    uint64_t id
    int outcome
    int code
    uint64_t sent
    char text[RECEIVE]

cdef double monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef class Engine:
    """`sockets`: file descriptors (non-blocking UDP, IPv4) by their index; none for a test without sockets.

    `fileno` becomes readable when `drain` has something to tell.
    """

    cdef readonly int fileno
    cdef readonly uint64_t strangers, resent, send_errors
    cdef int *_sockets
    cdef int _count
    cdef int _wake, _epoll
    cdef bint _stop, _segments, _busy
    cdef pthread_mutex_t _lock
    cdef Sending **_buckets
    cdef Sending *_wheel[SLOTS]
    cdef int64_t _slot
    cdef uint64_t _live, _kept, _next
    cdef Report *_reports
    cdef size_t _reported, _room
    # The batch being put together: messages, their pieces, the 4-byte headers and addresses they point to.
    cdef mmsghdr _out[BATCH]
    cdef iovec _pieces[PIECES * 2]
    cdef uint8_t _heads[PIECES][4]
    cdef sockaddr_in _names[BATCH]
    cdef uint8_t _controls[BATCH][64]
    cdef int _messages, _used, _headed, _local
    cdef mmsghdr _in[BATCH]
    cdef iovec _in_pieces[BATCH]
    cdef sockaddr_in _in_names[BATCH]
    cdef uint8_t _in_data[BATCH][RECEIVE]

    def __cinit__(self, sockets=(), *, bint segments=True):
        cdef int index
        cdef epoll_event event
        self._wake = self.fileno = self._epoll = -1
        self._count = len(sockets)
        self._sockets = <int *>calloc(max(self._count, 1), sizeof(int))
        self._buckets = <Sending **>calloc(BUCKETS, sizeof(Sending *))
        if self._sockets == NULL or self._buckets == NULL:
            raise MemoryError
        for index in range(self._count):
            self._sockets[index] = sockets[index]
        self._segments = segments and self._count > 0
        self._slot = -1
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
        if self._buckets != NULL:
            for index in range(BUCKETS):
                sending = self._buckets[index]
                while sending != NULL:
                    chain = sending.chain
                    free(sending.greeting)
                    free(sending)
                    sending = chain
        free(self._buckets)
        free(self._sockets)
        free(self._reports)
        if self.fileno >= 0:
            close(self.fileno)
        if self._wake >= 0:
            close(self._wake)
        if self._epoll >= 0:
            close(self._epoll)
        pthread_mutex_destroy(&self._lock)

    # For the event loop's thread.

    def serve(self):
        """Serve the sockets until `stop`, in the calling thread, without the GIL."""
        with nogil:
            self._serve()

    def stop(self):
        """End `serve`; transfers under way are forgotten."""
        self._stop = True
        self._poke()

    @property
    def live(self) -> int:
        """Transfers under way."""
        return self._live

    @property
    def busy(self) -> bool:
        """More acknowledgements wait than one turn took: new transfers had better wait."""
        return self._busy

    def start(self, int local, uint32_t ip, uint16_t port, bytes data, uint32_t blksize, uint32_t window,
              int timeout=0, bytes oack=b"", now=None):
        """Begin a transfer to (ip, port) on socket `local`: its id. The caller keeps `data` until it has ended."""
        cdef Sending *sending
        cdef double at = monotonic() if now is None else now
        if blksize < 8 or window < 1 or local < 0 or (self._count and local >= self._count):
            raise ValueError("blksize, window or socket out of range")
        sending = <Sending *>calloc(1, sizeof(Sending))
        if sending == NULL:
            raise MemoryError
        if oack:
            sending.greeting = <uint8_t *>malloc(len(oack))
            if sending.greeting == NULL:
                free(sending)
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
            self._drop(self._find(ip, port, local))
            self._insert(sending)
            self._send(sending, at)
            self._flush()
            if self._live == 1:
                self._poke()
            pthread_mutex_unlock(&self._lock)
        return sending.id

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
            sending = self._find(ip, port, local)
            if sending != NULL and not sending.ended:
                waiting = not sending.begun or now - sending.progress < FRESH
                if not sending.begun:
                    self._send(sending, now)
                    self._flush()
            pthread_mutex_unlock(&self._lock)
        return waiting

    def drain(self):
        """What happened since: (id, "begun" | "done" | "failed", bytes acknowledged, error code, error text)."""
        cdef uint64_t dummy
        cdef Report *reports
        cdef size_t count, index
        read(self.fileno, &dummy, 8)
        with nogil:
            pthread_mutex_lock(&self._lock)
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
        for index in range(self._messages):
            head = &self._out[index].msg_hdr
            data = b"".join(
                [(<char *>head.msg_iov[piece].iov_base)[: head.msg_iov[piece].iov_len] for piece in range(head.msg_iovlen)]
            )
            found.append((self._local, ntohl(self._names[index].sin_addr.s_addr), ntohs(self._names[index].sin_port), data))
        self._messages = self._used = self._headed = 0
        return found

    # The table.

    cdef size_t _bucket(self, uint32_t ip, uint16_t port, uint16_t local) noexcept nogil:
        cdef uint64_t key = (<uint64_t>ip << 32) | (<uint64_t>local << 16) | port
        return <size_t>((key * <uint64_t>0x9E3779B97F4A7C15) >> 48)

    cdef Sending *_find(self, uint32_t ip, uint16_t port, uint16_t local) noexcept nogil:
        cdef Sending *sending = self._buckets[self._bucket(ip, port, local)]
        while sending != NULL and not (sending.ip == ip and sending.port == port and sending.local == local):
            sending = sending.chain
        return sending

    cdef void _insert(self, Sending *sending) noexcept nogil:
        cdef size_t bucket = self._bucket(sending.ip, sending.port, sending.local)
        sending.chain = self._buckets[bucket]
        self._buckets[bucket] = sending
        self._live += 1
        self._kept += 1

    cdef void _drop(self, Sending *sending) noexcept nogil:
        cdef Sending **link
        if sending == NULL:
            return
        if not sending.ended:
            self._end(sending, FAILED, 0, "the peer asked anew")
        link = &self._buckets[self._bucket(sending.ip, sending.port, sending.local)]
        while link[0] != sending:
            link = &link[0].chain
        link[0] = sending.chain
        self._kept -= 1
        self._unschedule(sending)
        free(sending.greeting)
        free(sending)

    cdef void _end(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil:
        sending.ended = True
        sending.data = NULL
        self._live -= 1
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

    # The timer wheel. A transfer stays in its slot when its deadline moves on and is put right when the slot comes.

    cdef void _schedule(self, Sending *sending) noexcept nogil:
        cdef int64_t slot = <int64_t>(sending.deadline / SLOT)
        if slot >= self._slot + SLOTS:
            slot = self._slot + SLOTS - 1
        if slot < self._slot:
            slot = self._slot
        sending.slot = <int>(slot % SLOTS)
        sending.before = NULL
        sending.after = self._wheel[sending.slot]
        if sending.after != NULL:
            sending.after.before = sending
        self._wheel[sending.slot] = sending

    cdef void _unschedule(self, Sending *sending) noexcept nogil:
        if sending.slot < 0:
            return
        if sending.before != NULL:
            sending.before.after = sending.after
        else:
            self._wheel[sending.slot] = sending.after
        if sending.after != NULL:
            sending.after.before = sending.before
        sending.slot = -1

    cdef void _advance(self, double now) noexcept nogil:
        cdef int64_t until = <int64_t>(now / SLOT)
        cdef int64_t slot
        cdef Sending *sending
        cdef Sending *after
        if until - self._slot > SLOTS:
            self._slot = until - SLOTS
        for slot in range(self._slot, until + 1):
            self._slot = slot
            sending = self._wheel[slot % SLOTS]
            while sending != NULL:
                after = sending.after
                if sending.deadline > now:
                    if <int64_t>(sending.deadline / SLOT) != slot:
                        self._unschedule(sending)
                        self._schedule(sending)
                elif sending.ended:
                    self._drop(sending)
                else:
                    self._unschedule(sending)
                    self._expire(sending, now)
                    if sending.slot < 0:
                        self._schedule(sending)
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
        cdef Sending *sending = self._find(ip, port, local)
        cdef int kind = (data[0] << 8 | data[1]) if size >= 4 else 0
        cdef char text[RECEIVE]
        cdef size_t index
        if sending == NULL:
            if kind != 0 and kind != 5:
                self.strangers += 1
                self._push(local, ip, port, "\0\5\0\5unknown transfer", 21)
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
            if self._slot < 0:
                self._slot = <int64_t>(now / SLOT)
            self._schedule(sending)

    cdef void _send(self, Sending *sending, double now) noexcept nogil:
        if not sending.greeted:
            self._arm(sending, now)
            self._push(sending.local, sending.ip, sending.port, <const char *>sending.greeting, sending.greeting_size)
        else:
            self._window(sending, now)

    cdef void _window(self, Sending *sending, double now) noexcept nogil:
        cdef uint64_t block = sending.acked + 1
        cdef uint64_t last = min(sending.acked + sending.window, sending.blocks)
        cdef uint64_t count, most, left
        cdef double former = sending.deadline
        cdef mmsghdr *message
        cdef size_t at
        sending.sent = last
        self._arm(sending, now)
        if sending.deadline < former:
            self._unschedule(sending)
            self._schedule(sending)
        most = 1
        if self._segments:
            most = max(min(<uint64_t>SEGMENTS, DATAGRAM // (sending.blksize + 4)), 1)
        while block <= last:
            count = min(last - block + 1, most)
            message = self._message(sending.local, sending.ip, sending.port, <int>count)
            if message == NULL:
                return
            message.msg_hdr.msg_iovlen = 2 * count
            if count > 1:
                tftp_segment(&message.msg_hdr, self._controls[self._messages - 1], <unsigned short>(sending.blksize + 4))
            while count:
                at = (block - 1) * sending.blksize
                left = sending.size - at
                self._heads[self._headed][0] = 0
                self._heads[self._headed][1] = 3
                self._heads[self._headed][2] = (block >> 8) & 0xFF
                self._heads[self._headed][3] = block & 0xFF
                self._pieces[self._used].iov_base = self._heads[self._headed]
                self._pieces[self._used].iov_len = 4
                self._pieces[self._used + 1].iov_base = <void *>(sending.data + at)
                self._pieces[self._used + 1].iov_len = min(left, <uint64_t>sending.blksize)
                self._used += 2
                self._headed += 1
                block += 1
                count -= 1

    # Sending.

    cdef mmsghdr *_message(self, int local, uint32_t ip, uint16_t port, int blocks) noexcept nogil:
        """Room for a message of that many blocks at the end of the batch, which is sent first when it is full."""
        cdef mmsghdr *message
        cdef sockaddr_in *name
        if self._messages == BATCH or self._headed + blocks > PIECES or (self._messages and self._local != local):
            self._flush()
            if self._messages == BATCH or self._headed + blocks > PIECES:
                return NULL
        self._local = local
        message = &self._out[self._messages]
        memset(message, 0, sizeof(mmsghdr))
        name = &self._names[self._messages]
        name.sin_family, name.sin_port, name.sin_addr.s_addr = AF_INET, htons(port), htonl(ip)
        message.msg_hdr.msg_name = name
        message.msg_hdr.msg_namelen = sizeof(sockaddr_in)
        message.msg_hdr.msg_iov = &self._pieces[self._used]
        self._messages += 1
        return message

    cdef void _push(self, int local, uint32_t ip, uint16_t port, const char *data, size_t size) noexcept nogil:
        """A packet that lives at least until the next flush."""
        cdef mmsghdr *message = self._message(local, ip, port, 1)
        if message == NULL:
            return
        message.msg_hdr.msg_iovlen = 1
        self._pieces[self._used].iov_base = <void *>data
        self._pieces[self._used].iov_len = size
        self._used += 2
        self._headed += 1

    cdef void _flush(self) noexcept nogil:
        cdef int first = 0
        cdef int done
        cdef pollfd wait
        if not self._count:
            return
        while first < self._messages:
            done = sendmmsg(self._sockets[self._local], &self._out[first], self._messages - first, MSG_DONTWAIT)
            if done > 0:
                first += done
            elif errno == EINTR:
                continue
            elif errno == EAGAIN or errno == ENOBUFS:
                # The link is behind: wait for it a little, lest we lose what we have just been asked for.
                wait.fd, wait.events = self._sockets[self._local], POLLOUT
                if poll(&wait, 1, 10) <= 0:
                    self.send_errors += self._messages - first
                    break
            else:
                if (errno == EIO or errno == EINVAL) and self._out[first].msg_hdr.msg_controllen:
                    self._segments = False  # a device without checksum offload; the timeout sends it again, singly
                self.send_errors += 1
                first += 1
        self._messages = self._used = self._headed = 0

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
        self._flush()
        return count == BATCH

    cdef void _serve(self) noexcept nogil:
        cdef epoll_event events[EVENTS]
        cdef int event, ready, turn
        cdef uint32_t index
        cdef uint64_t dummy
        cdef double now
        cdef bint more
        while not self._stop:
            ready = epoll_wait(self._epoll, events, EVENTS, 10 if self._kept else -1)
            now = monotonic()
            more = False
            for event in range(ready):
                index = events[event].data.u32
                if index == <uint32_t>self._count:
                    read(self._wake, &dummy, 8)
                    continue
                for turn in range(ROUNDS):
                    pthread_mutex_lock(&self._lock)
                    if turn:
                        now = monotonic()
                    if not self._read(index, now):
                        pthread_mutex_unlock(&self._lock)
                        break
                    pthread_mutex_unlock(&self._lock)
                else:
                    more = True
            self._busy = more
            if <int64_t>(now / SLOT) > self._slot:
                pthread_mutex_lock(&self._lock)
                self._advance(now)
                self._flush()
                pthread_mutex_unlock(&self._lock)
