"""DHCP's packets in batches: recvmmsg, sendmmsg, options into a dict, link-level frames. What they say is not known here.

A storm is tens of thousands of small packets; a system call for each of them costs more than answering it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from wwfast._ext.sockets cimport *

cdef extern from *:
    """
    #include <linux/if_ether.h>
    #include <linux/if_packet.h>
    #ifndef SO_RXQ_OVFL
    #define SO_RXQ_OVFL 40
    #endif
    static void dhcp_overflow(struct msghdr *head, unsigned int *dropped) {
        struct cmsghdr *control;
        for (control = CMSG_FIRSTHDR(head); control; control = CMSG_NXTHDR(head, control))
            if (control->cmsg_level == SOL_SOCKET && control->cmsg_type == SO_RXQ_OVFL)
                *dropped = *(unsigned int *)CMSG_DATA(control);
    }
    """
    void dhcp_overflow(msghdr *head, unsigned int *dropped) nogil

cdef extern from "linux/if_packet.h" nogil:
    struct sockaddr_ll:
        unsigned short sll_family
        uint16_t sll_protocol
        int sll_ifindex
        unsigned char sll_halen
        unsigned char sll_addr[8]
    enum: ETH_P_IP

cdef enum:
    MANY = 64
    ROOM = 2048
    CONTROL = 64
    HEADERS = 28     # IPv4 and UDP

BATCH = MANY


cdef class Receiver:
    """What arrives at one UDP socket; `dropped` counts what the kernel could not keep (SO_RXQ_OVFL)."""

    cdef readonly unsigned int dropped
    cdef int _fd
    cdef mmsghdr _in[MANY]
    cdef iovec _pieces[MANY]
    cdef sockaddr_in _names[MANY]
    cdef uint8_t _data[MANY][ROOM]
    cdef uint8_t _controls[MANY][CONTROL]

    def __cinit__(self, int fd):
        cdef int index
        self._fd = fd
        for index in range(MANY):
            self._pieces[index].iov_base = self._data[index]
            self._pieces[index].iov_len = ROOM
            self._in[index].msg_hdr.msg_iov = &self._pieces[index]
            self._in[index].msg_hdr.msg_iovlen = 1
            self._in[index].msg_hdr.msg_name = &self._names[index]
            self._in[index].msg_hdr.msg_control = self._controls[index]

    def receive(self):
        """Up to BATCH waiting packets: (data, source address, source port). Raises OSError."""
        cdef int index, count
        for index in range(MANY):
            self._in[index].msg_hdr.msg_namelen = sizeof(sockaddr_in)
            self._in[index].msg_hdr.msg_controllen = CONTROL
        with nogil:
            count = recvmmsg(self._fd, self._in, MANY, MSG_DONTWAIT, NULL)
        if count < 0:
            raise OSError(errno, "recvmmsg")
        found = []
        for index in range(count):
            dhcp_overflow(&self._in[index].msg_hdr, &self.dropped)
            found.append((
                PyBytes_FromStringAndSize(<char *>self._data[index], self._in[index].msg_len),
                ntohl(self._names[index].sin_addr.s_addr),
                ntohs(self._names[index].sin_port),
            ))
        return found


cdef int _send_all(int fd, mmsghdr *out, int count) noexcept nogil:
    """How many of them could not be sent; one that cannot does not hold up the others."""
    cdef int first = 0
    cdef int failed = 0
    cdef int done
    while first < count:
        done = sendmmsg(fd, &out[first], count - first, MSG_DONTWAIT)
        if done > 0:
            first += done
        elif done == 0 or errno != EINTR:
            failed += 1
            first += 1
    return failed


def send(int fd, list packets):
    """Send (data, address, port) from UDP socket `fd`: how many could not be sent."""
    cdef mmsghdr out[MANY]
    cdef iovec pieces[MANY]
    cdef sockaddr_in names[MANY]
    cdef int count = 0
    cdef int failed = 0
    cdef bytes data
    cdef uint32_t address
    cdef uint16_t port
    memset(out, 0, sizeof(out))
    memset(names, 0, sizeof(names))
    for data, address, port in packets:
        names[count].sin_family, names[count].sin_port, names[count].sin_addr.s_addr = AF_INET, htons(port), htonl(address)
        pieces[count].iov_base, pieces[count].iov_len = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        out[count].msg_hdr.msg_name, out[count].msg_hdr.msg_namelen = &names[count], sizeof(sockaddr_in)
        out[count].msg_hdr.msg_iov, out[count].msg_hdr.msg_iovlen = &pieces[count], 1
        count += 1
        if count == MANY:
            with nogil:
                failed += _send_all(fd, out, count)
            count = 0
    with nogil:
        failed += _send_all(fd, out, count)
    return failed


def send_frames(int fd, int interface, list packets):
    """Send (frame, MAC) from packet socket `fd` on the interface of that index: how many could not be sent."""
    cdef mmsghdr out[MANY]
    cdef iovec pieces[MANY]
    cdef sockaddr_ll names[MANY]
    cdef int count = 0
    cdef int failed = 0
    cdef bytes data, mac
    memset(out, 0, sizeof(out))
    memset(names, 0, sizeof(names))
    for data, mac in packets:
        if len(mac) != 6:
            raise ValueError("not the MAC of an Ethernet card")
        names[count].sll_family, names[count].sll_protocol = AF_PACKET, htons(ETH_P_IP)
        names[count].sll_ifindex, names[count].sll_halen = interface, 6
        memcpy(names[count].sll_addr, PyBytes_AS_STRING(mac), 6)
        pieces[count].iov_base, pieces[count].iov_len = PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        out[count].msg_hdr.msg_name, out[count].msg_hdr.msg_namelen = &names[count], sizeof(sockaddr_ll)
        out[count].msg_hdr.msg_iov, out[count].msg_hdr.msg_iovlen = &pieces[count], 1
        count += 1
        if count == MANY:
            with nogil:
                failed += _send_all(fd, out, count)
            count = 0
    with nogil:
        failed += _send_all(fd, out, count)
    return failed


cdef void _put16(uint8_t *at, uint32_t value) noexcept nogil:
    at[0], at[1] = <uint8_t>(value >> 8), <uint8_t>value


cdef uint64_t _sum(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint64_t total = 0
    cdef size_t at
    for at in range(0, size - 1, 2):
        total += <uint32_t>data[at] << 8 | data[at + 1]
    if size & 1:
        total += <uint32_t>data[size - 1] << 8
    return total


cdef uint16_t _fold(uint64_t total) noexcept nogil:
    """The checksum of a sum (RFC 1071)."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return <uint16_t>~total


def frame(uint32_t source, uint16_t source_port, uint32_t target, uint16_t target_port, bytes data):
    """IPv4 and UDP headers and `data`, as a packet socket wants it (RFC 791, 768)."""
    cdef size_t size = len(data)
    cdef bytes made
    cdef uint8_t *at
    cdef uint16_t check
    if size > 65535 - HEADERS:
        raise ValueError("longer than a datagram can be")
    made = PyBytes_FromStringAndSize(NULL, size + HEADERS)
    at = <uint8_t *>PyBytes_AS_STRING(made)
    memset(at, 0, HEADERS)
    at[0], at[1], at[8], at[9] = 0x45, 0x10, 64, 17
    _put16(at + 2, size + HEADERS)
    _put16(at + 12, source >> 16)
    _put16(at + 14, source)
    _put16(at + 16, target >> 16)
    _put16(at + 18, target)
    _put16(at + 10, _fold(_sum(at, 20)))
    _put16(at + 20, source_port)
    _put16(at + 22, target_port)
    _put16(at + 24, size + 8)
    memcpy(at + HEADERS, PyBytes_AS_STRING(data), size)
    # The pseudo header: the addresses, the protocol, the length.
    check = _fold(_sum(at + 12, size + HEADERS - 12) + 17 + size + 8)
    _put16(at + 26, check if check else 0xFFFF)
    return made


def read_options(bytes data, Py_ssize_t at, dict options):
    """Add the options in `data` from `at` on; parts of one are joined (RFC 3396). An option that runs past the end
    is returned as its code, -1 when all is whole.
    """
    cdef const uint8_t *raw = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef int code
    while at < size:
        code = raw[at]
        if code == 0:
            at += 1
            continue
        if code == 255:
            break
        if at + 2 > size or at + 2 + raw[at + 1] > size:
            return code
        value = PyBytes_FromStringAndSize(<const char *>raw + at + 2, raw[at + 1])
        options[code] = options[code] + value if code in options else value
        at += 2 + raw[at + 1]
    return -1
