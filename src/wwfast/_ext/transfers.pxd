"""The transfers of TFTP: found by their peer in a hash table, by their deadline in a timer wheel."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free

from wwfast._ext.live cimport live_ended
from wwfast._ext.outbox cimport Outbox
from wwfast._ext.sockets cimport pthread_mutex_t

cdef enum:
    SLOTS = 1024
    BUCKETS = 65536
    SLOTS_A_SECOND = 100
    TEXT = 128        # of an ERROR's text this much is kept

cdef struct Report:
    uint64_t id
    int outcome
    int code
    uint64_t sent
    char text[TEXT]
    Report *next

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
    Report *reports       # room for what will be told of it: memory that runs out later keeps nothing back
    double timeout
    double progress
    double flight
    double deadline
    double round_trip
    double variation
    double asked          # when its request came again, as long as it has not begun
    int tries
    int copies            # of its request, each of which may be younger than an abort that is read after it
    int refusal           # code of such an abort, until the OACK is acknowledged
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
    Sending *next         # in the inbox, as long as it is `boxed`
    bint boxed
    bint gone             # to be removed then, and not to be sent

cdef struct Table:
    Sending **buckets     # BUCKETS of them
    Sending *wheel[SLOTS]
    int64_t slot          # the last one looked at; -1 before the first
    uint64_t live         # under way
    uint64_t kept         # those and the ended ones that are remembered


cdef inline size_t table_bucket(uint32_t ip, uint16_t port, uint16_t local) noexcept nogil:
    cdef uint64_t key = (<uint64_t>ip << 32) | (<uint64_t>local << 16) | port
    return <size_t>((key * <uint64_t>0x9E3779B97F4A7C15) >> 48)


cdef inline Sending *table_find(Table *table, uint32_t ip, uint16_t port, uint16_t local) noexcept nogil:
    cdef Sending *sending = table.buckets[table_bucket(ip, port, local)]
    while sending != NULL and not (sending.ip == ip and sending.port == port and sending.local == local):
        sending = sending.chain
    return sending


cdef inline void table_insert(Table *table, Sending *sending) noexcept nogil:
    cdef size_t bucket = table_bucket(sending.ip, sending.port, sending.local)
    sending.chain = table.buckets[bucket]
    table.buckets[bucket] = sending
    table.live += 1
    table.kept += 1


cdef inline int64_t wheel_slot(double at) noexcept nogil:
    return <int64_t>(at * SLOTS_A_SECOND)


cdef inline void wheel_put(Table *table, Sending *sending) noexcept nogil:
    """A transfer stays in its slot when its deadline moves on and is put right when the slot comes."""
    cdef int64_t slot = wheel_slot(sending.deadline)
    if slot >= table.slot + SLOTS:
        slot = table.slot + SLOTS - 1
    if slot < table.slot:
        slot = table.slot
    sending.slot = <int>(slot % SLOTS)
    sending.before = NULL
    sending.after = table.wheel[sending.slot]
    if sending.after != NULL:
        sending.after.before = sending
    table.wheel[sending.slot] = sending


cdef inline void wheel_take(Table *table, Sending *sending) noexcept nogil:
    if sending.slot < 0:
        return
    if sending.before != NULL:
        sending.before.after = sending.after
    else:
        table.wheel[sending.slot] = sending.after
    if sending.after != NULL:
        sending.after.before = sending.before
    sending.slot = -1


cdef inline Report *report_free(Report *report) noexcept nogil:
    cdef Report *following = report.next
    free(report)
    return following


cdef inline void sending_free(Sending *sending) noexcept nogil:
    while sending.reports != NULL:
        sending.reports = report_free(sending.reports)
    free(sending.greeting)
    free(sending)
    live_ended(1)


cdef inline void table_remove(Table *table, Sending *sending) noexcept nogil:
    """Out of the table and the wheel, and freed; it must have ended."""
    cdef Sending **link = &table.buckets[table_bucket(sending.ip, sending.port, sending.local)]
    while link[0] != sending:
        link = &link[0].chain
    link[0] = sending.chain
    table.kept -= 1
    wheel_take(table, sending)
    sending_free(sending)


cdef class Transfers:
    cdef readonly uint64_t strangers, resent
    cdef bint begun
    cdef int most_local
    cdef pthread_mutex_t lock
    cdef Table table
    cdef uint64_t next
    cdef Report *first
    cdef Report *last
    cdef Sending *inbox
    cdef Outbox box

    cdef Sending *_made(self, uint64_t size, bytes oack, uint32_t blksize, uint32_t window) except NULL
    cdef void _woken(self, double now) noexcept nogil
    cdef void _told(self) noexcept nogil
    cdef void _put(self, Sending *sending, double now) noexcept nogil
    cdef void _unbox(self, double now) noexcept nogil
    cdef void _drop(self, Sending *sending) noexcept nogil
    cdef void _end(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil
    cdef void _report(self, Sending *sending, int outcome, int code, const char *text) noexcept nogil
    cdef void _advance(self, double now) noexcept nogil
    cdef void _expire(self, Sending *sending, double now) noexcept nogil
    cdef void _take(
        self, uint16_t local, uint32_t ip, uint16_t port, const uint8_t *data, size_t size, double now
    ) noexcept nogil
    cdef void _acknowledged(self, Sending *sending, uint32_t block, double now) noexcept nogil
    cdef void _measure(self, Sending *sending, double now) noexcept nogil
    cdef void _arm(self, Sending *sending, double now) noexcept nogil
    cdef void _send(self, Sending *sending, double now) noexcept nogil
    cdef void _window(self, Sending *sending, double now) noexcept nogil
