/* Many connections at once over loopback, both ends program images of their own.
 *   flows COUNT   on each a request and its reply as it is opened; once all are open, a request on all of them
 *                 before the first reply is read; then closed in the order in which they were opened
 *                 {"flows", "open_ns", "round_ns", "close_ns"} */
#include "load.h"
#include <sys/epoll.h>

/* What connections come from: each address has its own range of ports. */
enum { SIZE = 256, ADDRESSES = 8, SPARE = 64 };

static unsigned char request[SIZE], reply[SIZE];

static void room_for(rlim_t descriptors) {
    struct rlimit l;
    must(getrlimit(RLIMIT_NOFILE, &l) == 0, "getrlimit");
    if (l.rlim_cur >= descriptors) return;
    l.rlim_cur = descriptors;
    if (l.rlim_max < descriptors) l.rlim_max = descriptors; /* needs CAP_SYS_RESOURCE */
    must(setrlimit(RLIMIT_NOFILE, &l) == 0, "RLIMIT_NOFILE (ulimit -n)");
}

static size_t read_up_to(int fd, unsigned char *into, size_t length) {
    size_t got = 0;
    while (got < length) {
        ssize_t n = read(fd, into + got, length - got);
        must(n >= 0, "read");
        if (n == 0) break;
        got += (size_t)n;
    }
    return got;
}

/* The reply to a request is the request backwards. */
static void turned(const unsigned char *from, unsigned char *to) {
    for (size_t i = 0; i < SIZE; i++) to[i] = from[SIZE - 1 - i];
}

static int serve(long count, int listening) {
    pin(1);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listening}, got[256];
    int poll = epoll_create1(EPOLL_CLOEXEC);
    must(poll >= 0 && epoll_ctl(poll, EPOLL_CTL_ADD, listening, &wanted) == 0, "epoll");
    for (long over = 0; over < count;) {
        int ready = epoll_wait(poll, got, 256, -1);
        must(ready >= 0, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = got[i].data.fd;
            if (fd == listening) {
                wanted.data.fd = accept(listening, NULL, NULL);
                must(wanted.data.fd >= 0, "accept");
                must(epoll_ctl(poll, EPOLL_CTL_ADD, wanted.data.fd, &wanted) == 0, "epoll_ctl");
                continue;
            }
            size_t length = read_up_to(fd, request, SIZE);
            if (length == 0) {
                close(fd);
                over++;
                continue;
            }
            must(length == SIZE, "half a request");
            turned(request, reply);
            must(write(fd, reply, SIZE) == SIZE, "write");
        }
    }
    return 0;
}

static int connection(const struct sockaddr_in *to, long number) {
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(number % ADDRESSES));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    must(fd >= 0, "socket");
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    must(bind(fd, (struct sockaddr *)&from, sizeof from) == 0, "bind");
    must(connect(fd, (const struct sockaddr *)to, sizeof *to) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void ask(int fd, uint64_t seed) {
    fill(request, SIZE, seed);
    must(write(fd, request, SIZE) == SIZE, "write");
}

static void hear(int fd, uint64_t seed) {
    unsigned char expected[SIZE];
    fill(request, SIZE, seed);
    turned(request, expected);
    must(read_up_to(fd, reply, SIZE) == SIZE, "the end of a connection instead of a reply");
    if (memcmp(reply, expected, SIZE) != 0) {
        fprintf(stderr, "a wrong reply\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: flows COUNT\n");
        return 2;
    }
    if (strcmp(argv[0], "load-server") == 0) return serve(atol(argv[1]), atoi(argv[2]));
    long count = atol(argv[1]);
    room_for((rlim_t)count + SPARE);
    int *fds = calloc((size_t)count, sizeof *fds), listening = listener();
    must(fds != NULL && listen(listening, 1024) == 0, "listen");
    struct sockaddr_in to;
    socklen_t size = sizeof to;
    must(getsockname(listening, (struct sockaddr *)&to, &size) == 0, "getsockname");
    pid_t child = other_end(argv[1], listening);
    close(listening);
    pin(0);

    uint64_t begun = now_ns();
    for (long i = 0; i < count; i++) {
        fds[i] = connection(&to, i);
        ask(fds[i], (uint64_t)i);
        hear(fds[i], (uint64_t)i);
    }
    uint64_t open = now_ns();
    for (long i = 0; i < count; i++) ask(fds[i], (uint64_t)(count + i));
    for (long i = 0; i < count; i++) hear(fds[i], (uint64_t)(count + i));
    uint64_t round = now_ns();
    for (long i = 0; i < count; i++) {
        must(shutdown(fds[i], SHUT_WR) == 0 && read_up_to(fds[i], reply, 1) == 0, "a close");
        close(fds[i]);
    }
    wait_for(child);
    printf("{\"flows\": %ld, \"open_ns\": %llu, \"round_ns\": %llu, \"close_ns\": %llu}\n", count,
           (unsigned long long)(open - begun), (unsigned long long)(round - open),
           (unsigned long long)(now_ns() - round));
    return 0;
}
