"""The send pump: native threads that write a response's head and its extents with sendfile.

One epoll per thread, edge triggered; a turn sends at most `turn` bytes of one response, so thousands of responses
share a thread fairly and one fast reader cannot hold it. The GIL is never taken by a thread: finished responses
are queued and an eventfd tells the event loop.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from wwfast._ext.live cimport *
from wwfast._ext.sockets cimport *


cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    int pthread_create(pthread_t *, void *, void *(*)(void *) noexcept nogil, void *)
    int pthread_join(pthread_t, void **)

cdef extern from "signal.h" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *)
    int pthread_sigmask(int, sigset_t *, sigset_t *)
    enum: SIG_SETMASK

cdef extern from "sys/types.h" nogil:
    ctypedef long long off_t

cdef extern from "sys/socket.h" nogil:
    ssize_t send(int, const void *, size_t, int)
    enum: MSG_MORE
    enum: MSG_NOSIGNAL

cdef extern from "sys/sendfile.h" nogil:
    ssize_t sendfile(int, int, off_t *, size_t)

cdef enum:
    BATCH = 128


cdef struct Span:
    int fd
    off_t offset
    int64_t left


cdef struct Job:
    int fd
    int error            # 0, or the errno that ended it
    bint queued          # in the ready list of its thread
    const char *memory   # the head, then the body when that is in memory
    size_t memory_left
    const char *body     # what of the memory comes next
    size_t body_left
    Span *spans
    int span
    int span_count
    int64_t sent         # bytes that left, memory and files
    Job *next
    void *owner          # the Sending; alive while in Pump._flying


cdef struct Worker:
    pthread_t thread
    bint running         # the thread was begun
    int epoll
    int wake
    int report           # the eventfd of the whole pump
    bint stop
    size_t turn
    int64_t total        # bytes sent by this thread so far
    int active
    pthread_mutex_t lock  # of inbox and outbox
    Job *inbox
    Job *outbox


cdef struct Queue:       # of the jobs that could send at once, first in first out
    Job *first
    Job *last
    int length


cdef inline void queue_add(Queue *queue, Job *job) noexcept nogil:
    job.queued = True
    job.next = NULL
    if queue.last == NULL:
        queue.first = job
    else:
        queue.last.next = job
    queue.last = job
    queue.length += 1


cdef inline Job *queue_take(Queue *queue) noexcept nogil:
    cdef Job *job = queue.first
    queue.first = job.next
    if queue.first == NULL:
        queue.last = NULL
    queue.length -= 1
    job.next = NULL
    return job


cdef enum Turn:
    AGAIN, BLOCKED, OVER


cdef inline void signal_fd(int fd) noexcept nogil:
    cdef uint64_t one = 1
    write(fd, &one, 8)


cdef inline void close_open(int fd) noexcept nogil:
    if fd >= 0:
        close(fd)


cdef Turn step(Job *job, Worker *worker) noexcept nogil:
    """Send up to one turn of `job`: AGAIN when more could go at once, BLOCKED when the socket is full, OVER."""
    cdef ssize_t done
    cdef size_t budget = worker.turn
    cdef size_t want
    cdef Span *span
    while job.memory_left or job.body_left:
        if not job.memory_left:
            job.memory, job.memory_left, job.body_left = job.body, job.body_left, 0
        done = send(job.fd, job.memory, job.memory_left,
                    MSG_NOSIGNAL | MSG_DONTWAIT | (MSG_MORE if job.span_count or job.body_left else 0))
        if done < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return BLOCKED
            job.error = errno
            return OVER
        job.memory += done
        job.memory_left -= done
        job.sent += done
        worker.total += done
    while job.span < job.span_count:
        span = &job.spans[job.span]
        if span.left == 0:
            job.span += 1
            continue
        if budget == 0:
            return AGAIN
        want = budget if span.left > <int64_t>budget else <size_t>span.left
        done = sendfile(job.fd, span.fd, &span.offset, want)
        if done < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return BLOCKED
            job.error = errno
            return OVER
        if done == 0:  # the file became shorter than what was promised
            job.error = EIO
            return OVER
        span.left -= done
        budget -= done
        job.sent += done
        worker.total += done
    return OVER


cdef void *work(void *argument) noexcept nogil:
    cdef Worker *worker = <Worker *>argument
    cdef epoll_event events[BATCH]
    cdef epoll_event event
    cdef Queue ready = Queue(NULL, NULL, 0)
    cdef Job *job
    cdef Job *finished
    cdef Job *tail
    cdef int count, index, rounds
    cdef uint64_t value
    cdef Turn outcome
    cdef bint tell
    cdef sigset_t every
    sigfillset(&every)
    pthread_sigmask(SIG_SETMASK, &every, NULL)
    while True:
        count = epoll_wait(worker.epoll, events, BATCH, 0 if ready.length else -1)
        for index in range(count):
            job = <Job *>events[index].data.ptr
            if job == NULL:
                read(worker.wake, &value, 8)
                if worker.stop:
                    return NULL
                pthread_mutex_lock(&worker.lock)
                job = worker.inbox
                worker.inbox = NULL
                pthread_mutex_unlock(&worker.lock)
                while job != NULL:
                    tail = job.next
                    memset(&event, 0, sizeof(event))
                    event.events = EPOLLOUT | EPOLLET
                    event.data.ptr = job
                    if epoll_ctl(worker.epoll, EPOLL_CTL_ADD, job.fd, &event) < 0:
                        job.error = errno
                    queue_add(&ready, job)
                    job = tail
            elif not job.queued:
                queue_add(&ready, job)
        finished = NULL
        rounds = min(ready.length, BATCH)
        for index in range(rounds):
            job = queue_take(&ready)
            outcome = OVER if job.error else step(job, worker)
            if outcome == AGAIN:
                queue_add(&ready, job)
            elif outcome == BLOCKED:
                job.queued = False
            else:
                epoll_ctl(worker.epoll, EPOLL_CTL_DEL, job.fd, &event)
                job.next = finished
                finished = job
        if finished != NULL:
            tail = finished
            index = 1
            while tail.next != NULL:
                tail = tail.next
                index += 1
            pthread_mutex_lock(&worker.lock)
            tell = worker.outbox == NULL
            tail.next = worker.outbox
            worker.outbox = finished
            worker.active -= index
            pthread_mutex_unlock(&worker.lock)
            if tell:
                signal_fd(worker.report)


@cython.final
cdef class Sending:
    """One response on its way. `context` is the caller's; the socket and the files must stay open until reported."""

    cdef bint begun
    cdef Job job
    cdef bytes head, body  # what the job points to
    cdef readonly object context

    def __cinit__(self):
        self.begun = live_begun(0)
        memset(&self.job, 0, sizeof(Job))

    def __dealloc__(self):
        if self.begun:
            live_ended(0)
        free(self.job.spans)

    @property
    def sent(self):
        """Bytes that left so far, the memory part included."""
        return self.job.sent

    @property
    def error(self):
        """0, or the errno that ended it; EIO when a file was shorter than promised."""
        return self.job.error


@cython.final
cdef class Pump:
    """`threads` native senders. Not thread safe: one event loop owns it."""

    cdef bint begun
    cdef Worker *workers
    cdef int count
    cdef int report
    cdef set flying
    cdef int64_t closed_total

    def __cinit__(self, int threads=2, size_t turn=2 << 20):
        cdef int index
        cdef Worker *worker
        cdef epoll_event event
        self.begun = live_begun(1)
        self.report = -1
        if threads < 1 or turn < 4096:
            raise ValueError("a pump needs a thread and turns of at least 4096 bytes")
        self.flying = set()
        self.report = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.report < 0:
            raise OSError(errno, "eventfd")
        self.workers = <Worker *>calloc(threads, sizeof(Worker))
        if self.workers == NULL:
            raise MemoryError()
        for index in range(threads):
            worker = &self.workers[index]
            worker.report = self.report
            worker.turn = turn
            worker.epoll = epoll_create1(EPOLL_CLOEXEC)
            worker.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
            pthread_mutex_init(&worker.lock, NULL)
            self.count = index + 1
            memset(&event, 0, sizeof(event))
            event.events = EPOLLIN
            event.data.ptr = NULL
            if worker.epoll < 0 or worker.wake < 0 or \
                    epoll_ctl(worker.epoll, EPOLL_CTL_ADD, worker.wake, &event) < 0:
                raise OSError(errno, "epoll")
            if pthread_create(&worker.thread, NULL, work, worker) != 0:
                raise OSError(EAGAIN, "no thread for the send pump")
            worker.running = True

    def __dealloc__(self):
        if self.begun:
            live_ended(1)
            self._stop()

    cdef void _stop(self):
        cdef int index
        cdef Worker *worker
        for index in range(self.count):
            self.workers[index].stop = True
            if self.workers[index].running:
                signal_fd(self.workers[index].wake)
        for index in range(self.count):
            worker = &self.workers[index]
            if worker.running:
                with nogil:
                    pthread_join(worker.thread, NULL)
            close_open(worker.epoll)
            close_open(worker.wake)
            pthread_mutex_destroy(&worker.lock)
            self.closed_total += worker.total
        close_open(self.report)
        free(self.workers)
        self.workers, self.count, self.report = NULL, 0, -1

    def close(self):
        """End the threads. Responses still on their way stop where they are and are not reported."""
        self._stop()
        self.flying.clear()

    def fileno(self):
        """Readable when reports() has something."""
        return self.report

    def __len__(self):
        """Responses on their way."""
        return len(self.flying)

    @property
    def total(self):
        """Bytes sent since the pump was made."""
        cdef int index
        cdef int64_t total = self.closed_total
        if self.workers != NULL:
            for index in range(self.count):
                total += self.workers[index].total
        return total

    def send(self, int fd, bytes head, bytes body, list spans, object context) -> Sending:
        """Send `head`, `body`, then each (fd, offset, length) of `spans`, to the non-blocking socket `fd`.

        Nothing is copied: one large body may be on its way to many."""
        cdef Sending sending = Sending.__new__(Sending)
        cdef Py_ssize_t count = len(spans)
        cdef Py_ssize_t index
        cdef Worker *worker
        cdef int least = 0
        cdef bint idle
        if self.workers == NULL:
            raise ValueError("the pump is closed")
        sending.context = context
        sending.job.owner = <void *>sending
        sending.job.fd = fd
        sending.job.spans = <Span *>calloc(count + 1, sizeof(Span))
        if sending.job.spans == NULL:
            raise MemoryError()
        sending.head, sending.body = head, body
        sending.job.memory, sending.job.memory_left = <const char *>head, len(head)
        sending.job.body, sending.job.body_left = <const char *>body, len(body)
        for index in range(count):
            item = spans[index]
            sending.job.spans[index].fd = item[0]
            sending.job.spans[index].offset = item[1]
            sending.job.spans[index].left = item[2]
        sending.job.span_count = <int>count
        for index in range(1, self.count):
            if self.workers[index].active < self.workers[least].active:
                least = <int>index
        worker = &self.workers[least]
        self.flying.add(sending)
        pthread_mutex_lock(&worker.lock)
        idle = worker.inbox == NULL
        sending.job.next = worker.inbox
        worker.inbox = &sending.job
        worker.active += 1
        pthread_mutex_unlock(&worker.lock)
        if idle:
            signal_fd(worker.wake)
        return sending

    def reports(self) -> list:
        """The Sendings that ended since the last call, in no particular order."""
        cdef list done = []
        cdef int index
        cdef Job *job
        cdef uint64_t value
        cdef Worker *worker
        if self.workers == NULL:
            return done
        read(self.report, &value, 8)
        for index in range(self.count):
            worker = &self.workers[index]
            pthread_mutex_lock(&worker.lock)
            job = worker.outbox
            worker.outbox = NULL
            pthread_mutex_unlock(&worker.lock)
            while job != NULL:
                sending = <Sending>job.owner
                job = job.next
                self.flying.discard(sending)
                done.append(sending)
        return done


def live():
    """Live objects of a debug build, by type; all 0 in others."""
    return {"Sending": live_count(0), "Pump": live_count(1)}
