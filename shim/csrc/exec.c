/* The execs that take their arguments one by one: variadic functions can't be defined in stable
 * Rust. Like glibc's (posix/execl.c): counted, copied to the stack, and handed to the call that
 * takes a list, which here is our hook on it. Exported by hooks/lists.rs. */
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

/* Arguments from `first` on, its NULL counted; 0 (and errno) if there are too many. */
#define COUNT(count, first, rest)                                   \
    do {                                                            \
        va_start(rest, first);                                      \
        for (count = 1; va_arg(rest, const char *) != NULL; ++count) \
            if (count == INT_MAX - 1) {                             \
                va_end(rest);                                       \
                errno = E2BIG;                                      \
                return -1;                                          \
            }                                                       \
        va_end(rest);                                               \
    } while (0)

/* As many into `list`, NULL included. */
#define COPY(list, count, first, rest)                 \
    do {                                               \
        list[0] = (char *)first;                       \
        for (ptrdiff_t i = 1; i <= count; ++i)         \
            list[i] = va_arg(rest, char *);            \
    } while (0)

int counterfoil_execl(const char *path, const char *first, ...) {
    va_list rest;
    ptrdiff_t count;
    COUNT(count, first, rest);
    char *list[count + 1];
    va_start(rest, first);
    COPY(list, count, first, rest);
    va_end(rest);
    return execv(path, list);
}

int counterfoil_execlp(const char *file, const char *first, ...) {
    va_list rest;
    ptrdiff_t count;
    COUNT(count, first, rest);
    char *list[count + 1];
    va_start(rest, first);
    COPY(list, count, first, rest);
    va_end(rest);
    return execvp(file, list);
}

int counterfoil_execle(const char *path, const char *first, ...) {
    va_list rest;
    ptrdiff_t count;
    COUNT(count, first, rest);
    char *list[count + 1];
    va_start(rest, first);
    COPY(list, count, first, rest);
    char *const *environment = va_arg(rest, char *const *);
    va_end(rest);
    return execve(path, list, environment);
}
