/* bare: the least a program can do. A thread per connection; each request is answered with one file by sendfile.
 *
 *   bare PORT FILE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int file;
static int64_t size;
static char head[256];
static int head_size;

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    char request[4096];
    ssize_t have = 0, n;
    while ((n = recv(fd, request + have, sizeof request - 1 - have, 0)) > 0) {
        have += n;
        request[have] = 0;
        if (!strstr(request, "\r\n\r\n")) continue;
        have = 0;
        send(fd, head, head_size, MSG_MORE | MSG_NOSIGNAL);
        for (off_t at = 0; at < size;)
            if (sendfile(fd, file, &at, size - at < 2 << 20 ? size - at : 2 << 20) <= 0) goto out;
    }
out:
    close(fd);
    return NULL;
}

int main(int argc, char **argv) {
    struct stat st;
    if (argc < 3 || (file = open(argv[2], O_RDONLY)) < 0 || fstat(file, &st)) return 2;
    size = st.st_size;
    head_size = snprintf(head, sizeof head,
                         "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %lld\r\n\r\n",
                         (long long)size);
    signal(SIGPIPE, SIG_IGN);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096)) return 1;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd);
        pthread_detach(thread);
    }
}
