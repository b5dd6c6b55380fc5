/* Plain TCP over loopback, both ends program images of their own.
 *   tcp bulk SECONDS    64 KiB writes one way            {"per_second": bytes}
 *   tcp small SECONDS   64 B request and 64 B reply      {"per_second": round trips, "p50_ns", "p99_ns"}
 * Both also: "processor_ns", of both ends, for one write or round trip. */
#include "load.h"

enum { BULK = 64 * 1024, SMALL = 64 };

static unsigned char buffer[BULK];

static void all_in(int fd, size_t length) {
    for (size_t got = 0; got < length;) {
        ssize_t n = read(fd, buffer + got, length - got);
        must(n > 0, "read");
        got += (size_t)n;
    }
}

static void all_out(int fd, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = write(fd, buffer + sent, length - sent);
        must(n > 0, "write");
        sent += (size_t)n;
    }
}

static int serve(const char *role, int listening) {
    pin(strcmp(role, "bulk") == 0 ? 1 : 0);
    int fd = accepted_from(listening);
    if (strcmp(role, "bulk") == 0) {
        while (read(fd, buffer, BULK) > 0) {
        }
    } else {
        for (;;) {
            ssize_t n = read(fd, buffer, SMALL);
            if (n <= 0) break;
            if (n < SMALL) all_in(fd, (size_t)(SMALL - n));
            all_out(fd, SMALL);
        }
    }
    close(fd);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: tcp bulk|small SECONDS\n");
        return 2;
    }
    if (strcmp(argv[0], "load-server") == 0) return serve(argv[1], atoi(argv[2]));
    int bulk = strcmp(argv[1], "bulk") == 0;
    double seconds = atof(argv[2]);
    int listening = listener();
    pid_t child = other_end(argv[1], listening);
    pin(0);
    int fd = connected_to(listening);
    close(listening);

    uint64_t begun = now_ns(), counted_from = begun + (uint64_t)(WARM_UP * 1e9);
    uint64_t until = counted_from + (uint64_t)(seconds * 1e9), now = begun, first = 0, done = 0, all = 0;
    struct trips trips = {0};
    fill(buffer, BULK, 1);
    for (uint64_t number = 0; now < until; number++) {
        memcpy(buffer, &number, sizeof number);
        if (bulk) {
            all_out(fd, BULK);
        } else {
            all_out(fd, SMALL);
            all_in(fd, SMALL);
        }
        uint64_t then = now;
        now = now_ns();
        all++;
        if (first) {
            done++;
            if (!bulk) trip(&trips, now - then);
        } else if (now >= counted_from) {
            first = now;
        }
    }
    double per_second = (double)done / ((double)(now - first) / 1e9);
    shutdown(fd, SHUT_WR);
    while (read(fd, buffer, SMALL) > 0) {
    }
    close(fd);
    wait_for(child);
    printf("{\"per_second\": %.1f, \"p50_ns\": %u, \"p99_ns\": %u, \"processor_ns\": %.1f}\n",
           per_second * (bulk ? BULK : 1), percentile(&trips, 0.5), percentile(&trips, 0.99),
           processor_ns() / (double)all);
    return 0;
}
