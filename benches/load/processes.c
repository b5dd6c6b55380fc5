/* Many processes.
 *   processes start COUNT PROGRAM   starts PROGRAM COUNT times, one after the other   {"p50_ns", "p99_ns"}
 *   processes idle COUNT            COUNT processes that sleep; prints {"ready", "pid": of one} and keeps
 *                                   them until its input ends */
#include "load.h"
#include <signal.h>

static pid_t started(char *const arguments[]) {
    pid_t child = fork();
    must(child >= 0, "fork");
    if (child == 0) {
        execv(arguments[0], arguments);
        perror(arguments[0]);
        _exit(127);
    }
    return child;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long count = atol(argv[2]);
    if (strcmp(argv[1], "start") == 0 && argc == 4) {
        struct trips trips = {0};
        for (long i = 0; i < count; i++) {
            uint64_t begun = now_ns();
            wait_for(started((char *[]){argv[3], NULL}));
            trip(&trips, now_ns() - begun);
        }
        printf("{\"p50_ns\": %u, \"p99_ns\": %u}\n", percentile(&trips, 0.5), percentile(&trips, 0.99));
        return 0;
    }
    pid_t *children = calloc((size_t)count, sizeof *children);
    must(children != NULL, "calloc");
    for (long i = 0; i < count; i++) children[i] = started((char *[]){"/bin/sleep", "600", NULL});
    printf("{\"ready\": %ld, \"pid\": %d}\n", count, (int)children[0]);
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {
    }
    for (long i = 0; i < count; i++) kill(children[i], SIGTERM);
    for (long i = 0; i < count; i++) waitpid(children[i], NULL, 0);
    return 0;
}
