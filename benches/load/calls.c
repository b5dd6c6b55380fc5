/* write(2) and read(2) of one byte on a file.
 *   calls FILE    {"write_ns", "read_ns"} for one call: the fastest batch, the least disturbed one */
#include "load.h"

enum { BATCHES = 41, CALLS = 50000 };

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    pin(0);
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    must(fd >= 0, "open");
    struct trips writes = {0}, reads = {0};
    char byte = 'x';
    for (int batch = -3; batch < BATCHES; batch++) {
        lseek(fd, 0, SEEK_SET);
        uint64_t begun = now_ns();
        for (int i = 0; i < CALLS; i++) must(write(fd, &byte, 1) == 1, "write");
        uint64_t middle = now_ns();
        lseek(fd, 0, SEEK_SET);
        uint64_t resumed = now_ns();
        for (int i = 0; i < CALLS; i++) must(read(fd, &byte, 1) == 1, "read");
        uint64_t ended = now_ns();
        if (batch < 0) continue;
        trip(&writes, (middle - begun) * 10 / CALLS);
        trip(&reads, (ended - resumed) * 10 / CALLS);
    }
    close(fd);
    unlink(argv[1]);
    printf("{\"write_ns\": %.1f, \"read_ns\": %.1f}\n", percentile(&writes, 0) / 10.0,
           percentile(&reads, 0) / 10.0);
    return 0;
}
