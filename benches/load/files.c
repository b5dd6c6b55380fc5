/* files FILE COPY ROUNDS: opens FILE, reads 512 bytes of it and closes it, writes them to COPY in the same way,
 * ROUNDS times. What that takes is counted by files.sh. */
#include "load.h"

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    char bytes[512];
    for (int left = atoi(argv[3]); left > 0; left--) {
        int fd = open(argv[1], O_RDONLY);
        must(read(fd, bytes, sizeof bytes) == sizeof bytes, "read");
        close(fd);
        fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        must(write(fd, bytes, sizeof bytes) == sizeof bytes, "write");
        close(fd);
    }
    return 0;
}
