/* TLS 1.3 with AES-128-GCM over loopback, both ends program images of their own.
 *   tls bulk SECONDS     16 KiB writes one way          {"per_second": bytes}
 *   tls small SECONDS    256 B request and reply        {"per_second": round trips, "p50_ns", "p99_ns"}
 *                        Both also: "processor_ns", of both ends, for one write or round trip.
 *   tls alarm COUNT      COUNT round trips; a library below the program (tamper.c) changes one request;
 *                        then the connection stays open for a while. {"arrived_ns"}: CLOCK_MONOTONIC
 *                        when SSL_read returned the changed request to the server. */
#include "load.h"
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

enum { BULK = 16 * 1024, SMALL = 256 };

static unsigned char buffer[BULK];

static void tls_must(int fine, const char *what) {
    if (!fine) {
        fprintf(stderr, "%s\n", what);
        ERR_print_errors_fp(stderr);
        exit(2);
    }
}

static SSL_CTX *context(int server) {
    SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
    tls_must(ctx && SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) &&
                 SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256"),
             "SSL_CTX");
    if (!server) return ctx;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    tls_must(key && cert, "key");
    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_set_pubkey(cert, key);
    tls_must(X509_sign(cert, key, EVP_sha256()) > 0, "X509_sign");
    tls_must(SSL_CTX_use_certificate(ctx, cert) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1, "certificate");
    /* A ticket that the client never reads would turn its close into a reset. */
    SSL_CTX_set_num_tickets(ctx, 0);
    return ctx;
}

static SSL *session(int fd, int server) {
    SSL *ssl = SSL_new(context(server));
    tls_must(ssl && SSL_set_fd(ssl, fd), "SSL_new");
    tls_must((server ? SSL_accept(ssl) : SSL_connect(ssl)) == 1, "handshake");
    return ssl;
}

/* 0 at the peer's orderly end. */
static int all_in(SSL *ssl, int length) {
    for (int got = 0; got < length;) {
        int n = SSL_read(ssl, buffer + got, length - got);
        if (n <= 0) {
            tls_must(SSL_get_error(ssl, n) == SSL_ERROR_ZERO_RETURN && got == 0, "SSL_read");
            return 0;
        }
        got += n;
    }
    return 1;
}

static void all_out(SSL *ssl, int length) {
    tls_must(SSL_write(ssl, buffer, length) == length, "SSL_write");
}

static void finish(SSL *ssl, int fd) {
    SSL_shutdown(ssl);
    shutdown(fd, SHUT_WR);
    while (SSL_read(ssl, buffer, SMALL) > 0) {
    }
    SSL_free(ssl);
    close(fd);
}

static int serve(const char *role, int listening) {
    pin(strcmp(role, "bulk") == 0 ? 1 : 0);
    int fd = accepted_from(listening);
    SSL *ssl = session(fd, 1);
    if (strcmp(role, "bulk") == 0) {
        while (SSL_read(ssl, buffer, BULK) > 0) {
        }
    } else {
        unsigned char expected[SMALL];
        uint64_t number = 0, arrived = 0;
        fill(expected, SMALL, 1);
        for (; all_in(ssl, SMALL); number++) {
            memcpy(expected, &number, sizeof number);
            if (arrived == 0 && memcmp(buffer, expected, SMALL) != 0) arrived = now_ns();
            all_out(ssl, SMALL);
        }
        if (strcmp(role, "alarm") == 0) printf("{\"arrived_ns\": %llu}\n", (unsigned long long)arrived);
    }
    finish(ssl, fd);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: tls bulk|small SECONDS | tls alarm COUNT\n");
        return 2;
    }
    if (strcmp(argv[0], "load-server") == 0) return serve(argv[1], atoi(argv[2]));
    int bulk = strcmp(argv[1], "bulk") == 0, alarm = strcmp(argv[1], "alarm") == 0;
    int listening = listener();
    pid_t child = other_end(argv[1], listening);
    pin(0);
    int fd = connected_to(listening);
    close(listening);
    SSL *ssl = session(fd, 0);

    fill(buffer, BULK, 1);
    if (alarm) {
        for (uint64_t number = 0, count = strtoull(argv[2], NULL, 10); number < count; number++) {
            fill(buffer, SMALL, 1);
            memcpy(buffer, &number, sizeof number);
            all_out(ssl, SMALL);
            all_in(ssl, SMALL);
        }
        usleep(150 * 1000);
        finish(ssl, fd);
        wait_for(child);
        return 0;
    }
    uint64_t begun = now_ns(), counted_from = begun + (uint64_t)(WARM_UP * 1e9);
    uint64_t until = counted_from + (uint64_t)(atof(argv[2]) * 1e9), now = begun, first = 0, done = 0, all = 0;
    struct trips trips = {0};
    for (uint64_t number = 0; now < until; number++) {
        memcpy(buffer, &number, sizeof number);
        if (bulk) {
            all_out(ssl, BULK);
        } else {
            all_out(ssl, SMALL);
            tls_must(all_in(ssl, SMALL), "early end");
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
    finish(ssl, fd);
    wait_for(child);
    printf("{\"per_second\": %.1f, \"p50_ns\": %u, \"p99_ns\": %u, \"processor_ns\": %.1f}\n",
           per_second * (bulk ? BULK : 1), percentile(&trips, 0.5), percentile(&trips, 0.99),
           processor_ns() / (double)all);
    return 0;
}
