/* What the load programs share: a clock, two processes that are two program images, a result in JSON. */
#ifndef LOAD_H
#define LOAD_H
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WARM_UP 0.3 /* seconds before counting begins */

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline void must(int fine, const char *what) {
    if (!fine) {
        perror(what);
        exit(2);
    }
}

/* Where the scheduler puts two ends decides their speed otherwise. Bulk: a processor for each. Ping-pong: one
 * for both, so that every nanosecond of either end is in the result and no wake-up of a sleeping processor
 * (five times as long, on a virtual machine) hides it. */
static inline void pin(int which) {
    cpu_set_t all, one;
    must(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
    if (CPU_COUNT(&all) < 2) return;
    CPU_ZERO(&one);
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && seen++ == which) CPU_SET(cpu, &one);
    must(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

/* Different content in each block: one tag that is right by chance proves nothing. */
static inline void fill(unsigned char *buffer, size_t length, uint64_t seed) {
    for (size_t i = 0; i < length; i++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        buffer[i] = (unsigned char)(seed >> 56);
    }
}

static inline int listener(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    must(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 16) == 0, "listen");
    return fd;
}

static inline int connected_to(int listening) {
    struct sockaddr_in a;
    socklen_t size = sizeof a;
    must(getsockname(listening, (struct sockaddr *)&a, &size) == 0, "getsockname");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    must(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static inline int accepted_from(int listening) {
    int on = 1, fd = accept(listening, NULL, NULL);
    must(fd >= 0, "accept");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    close(listening);
    return fd;
}

/* The other end, as a program image of its own, with the listening socket. */
static inline pid_t other_end(const char *role, int listening) {
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", listening);
        execl("/proc/self/exe", "load-server", role, number, (char *)NULL);
        perror("exec");
        _exit(127);
    }
    return child;
}

static inline void wait_for(pid_t child) {
    int status = 0;
    must(waitpid(child, &status, 0) == child, "waitpid");
    if (status != 0) {
        fprintf(stderr, "the other end failed: status %#x\n", status);
        exit(2);
    }
}

/* Processor time of both ends, once the other one was waited for, in ns. */
static inline double processor_ns(void) {
    struct rusage own, other;
    getrusage(RUSAGE_SELF, &own);
    getrusage(RUSAGE_CHILDREN, &other);
    struct timeval all[] = {own.ru_utime, own.ru_stime, other.ru_utime, other.ru_stime};
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)all[i].tv_sec * 1e9 + (double)all[i].tv_usec * 1e3;
    return sum;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Round trips, each with its time in ns. */
struct trips {
    uint32_t *ns;
    size_t count, room;
};

static inline void trip(struct trips *t, uint64_t ns) {
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 1 << 16;
        t->ns = realloc(t->ns, t->room * sizeof *t->ns);
        must(t->ns != NULL, "realloc");
    }
    t->ns[t->count++] = ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns;
}

static inline uint32_t percentile(struct trips *t, double p) {
    if (t->count == 0) return 0;
    qsort(t->ns, t->count, sizeof *t->ns, by_size);
    return t->ns[(size_t)(p * (double)(t->count - 1))];
}

#endif
