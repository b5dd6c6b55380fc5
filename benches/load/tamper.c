/* A library inside the client that changes one byte of one request between the program and the cipher: what
 * `alarm` is timed on. It is memcpy, which libssl calls to put what it was given into a record; linked before
 * libc, it changes the copy and answers for no function that counterfoil hooks. */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

enum { REQUEST = 256, AT = 20 }; /* tls.c's SMALL, and the number of the request */

void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    unsigned char *out = to;
    const unsigned char *in = from;
    /* The compiler would make a loop into a call of memcpy. */
    for (size_t i = 0; i < length; i++) {
        out[i] = in[i];
        __asm__ volatile("" ::: "memory");
    }
    /* A request begins with its number in eight bytes. Only in the client, and only libssl's copy: the
     * program makes none of this length. */
    static int done;
    if (length == REQUEST && !done && in[0] == AT && program_invocation_short_name[0] == 'a') {
        int number = 1;
        for (int i = 1; i < 8; i++) number &= in[i] == 0;
        if (number) {
            out[length / 2] ^= 1;
            done = 1;
        }
    }
    return to;
}
