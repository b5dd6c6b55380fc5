/* A library between a program and libssl that changes one byte of one request: what `alarm` is timed on.
 * Linked before libssl, so it answers for SSL_write below whatever is preloaded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

enum { AT = 20, LIMIT = 4096 };

int SSL_write(void *ssl, const void *data, int length) {
    static int (*real)(void *, const void *, int);
    static int calls;
    if (!real) real = (int (*)(void *, const void *, int))dlsym(RTLD_NEXT, "SSL_write");
    if (++calls != AT || length > LIMIT) return real(ssl, data, length);
    unsigned char changed[LIMIT];
    memcpy(changed, data, (size_t)length);
    changed[length / 2] ^= 1;
    return real(ssl, changed, length);
}
