"""A batch of TFTP packets on its way to one socket: messages, and the pieces, headers and addresses they point to."""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, ENOBUFS, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from wwfast._ext.sockets cimport *

cdef extern from *:
    """
    #include <netinet/udp.h>
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

cdef enum:
    BATCH = 64
    PIECES = 256      # blocks in one sendmmsg at most
    SEGMENTS = 64     # UDP_MAX_SEGMENTS of older kernels
    DATAGRAM = 65507

cdef struct Outbox:
    mmsghdr out[BATCH]
    iovec pieces[PIECES * 2]
    uint8_t heads[PIECES][4]
    sockaddr_in names[BATCH]
    uint8_t controls[BATCH][64]
    int messages
    int used
    int headed
    int local           # index of the socket; all messages are for one
    const int *sockets  # NULL: nothing is sent, the messages are for a test to look at
    pthread_mutex_t *lock  # given back while packets go out and while the link is behind; NULL: there is none
    bint segments       # several blocks may be one message (UDP_SEGMENT)
    uint64_t errors


cdef inline void outbox_clear(Outbox *box) noexcept nogil:
    box.messages = box.used = box.headed = 0


cdef inline void outbox_flush(Outbox *box) noexcept nogil:
    cdef int first = 0
    cdef int done
    cdef pollfd wait
    if box.sockets == NULL or not box.messages:
        return
    if box.lock != NULL:
        pthread_mutex_unlock(box.lock)
    while first < box.messages:
        done = sendmmsg(box.sockets[box.local], &box.out[first], box.messages - first, MSG_DONTWAIT)
        if done > 0:
            first += done
        elif errno == EINTR:
            continue
        elif errno == EAGAIN or errno == ENOBUFS:
            # The link is behind: wait for it a little, lest we lose what we have just been asked for.
            wait.fd, wait.events = box.sockets[box.local], POLLOUT
            if poll(&wait, 1, 10) <= 0:
                box.errors += box.messages - first
                break
        else:
            if (errno == EIO or errno == EINVAL) and box.out[first].msg_hdr.msg_controllen:
                box.segments = False  # a device without checksum offload; the timeout sends it again, singly
            box.errors += 1
            first += 1
    if box.lock != NULL:
        pthread_mutex_lock(box.lock)
    outbox_clear(box)


cdef inline mmsghdr *outbox_message(Outbox *box, int local, uint32_t ip, uint16_t port, int blocks) noexcept nogil:
    """Room for a message of that many blocks at the end of the batch, which is sent first when it is full."""
    cdef mmsghdr *message
    cdef sockaddr_in *name
    if box.messages == BATCH or box.headed + blocks > PIECES or (box.messages and box.local != local):
        outbox_flush(box)
        if box.messages == BATCH or box.headed + blocks > PIECES:
            return NULL
    box.local = local
    message = &box.out[box.messages]
    memset(message, 0, sizeof(mmsghdr))
    name = &box.names[box.messages]
    name.sin_family, name.sin_port, name.sin_addr.s_addr = AF_INET, htons(port), htonl(ip)
    message.msg_hdr.msg_name = name
    message.msg_hdr.msg_namelen = sizeof(sockaddr_in)
    message.msg_hdr.msg_iov = &box.pieces[box.used]
    box.messages += 1
    return message


cdef inline void outbox_push(
    Outbox *box, int local, uint32_t ip, uint16_t port, const char *data, size_t size
) noexcept nogil:
    """A packet that lives at least until the next flush."""
    cdef mmsghdr *message = outbox_message(box, local, ip, port, 1)
    if message == NULL:
        return
    message.msg_hdr.msg_iovlen = 1
    box.pieces[box.used].iov_base = <void *>data
    box.pieces[box.used].iov_len = size
    box.used += 2
    box.headed += 1


cdef inline void outbox_blocks(
    Outbox *box, int local, uint32_t ip, uint16_t port,
    const uint8_t *data, uint64_t size, uint32_t blksize, uint64_t block, uint64_t last,
) noexcept nogil:
    """The DATA packets `block` to `last` (counted from 1) of a file: header and slice gathered by the kernel."""
    cdef uint64_t count, at
    cdef uint64_t most = 1
    cdef mmsghdr *message
    if box.segments:
        most = max(min(<uint64_t>SEGMENTS, DATAGRAM // (blksize + 4)), 1)
    while block <= last:
        count = min(last - block + 1, most)
        message = outbox_message(box, local, ip, port, <int>count)
        if message == NULL:
            return
        message.msg_hdr.msg_iovlen = 2 * count
        if count > 1:
            tftp_segment(&message.msg_hdr, box.controls[box.messages - 1], <unsigned short>(blksize + 4))
        while count:
            at = (block - 1) * blksize
            box.heads[box.headed][0] = 0
            box.heads[box.headed][1] = 3
            box.heads[box.headed][2] = (block >> 8) & 0xFF
            box.heads[box.headed][3] = block & 0xFF
            box.pieces[box.used].iov_base = box.heads[box.headed]
            box.pieces[box.used].iov_len = 4
            box.pieces[box.used + 1].iov_base = <void *>(data + at)
            box.pieces[box.used + 1].iov_len = min(size - at, <uint64_t>blksize)
            box.used += 2
            box.headed += 1
            block += 1
            count -= 1
