/* Records as fast as the daemon takes them, without the programs that would make them: two processes say
 * hello as the library does and write the tags of TLS streams into their lanes, both ends of each, equal.
 *   drain SOCKET FLOWS BLOCKS     {"records", "seconds"}: how long it took until the lanes were empty */
#include "load.h"
#include "../../include/counterfoil.h"
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/un.h>

static struct counterfoil_lane_head *lane;
static counterfoil_slot *ring;
static uint64_t head;

static void *hello(const char *path) {
    static struct counterfoil_request request;
    struct counterfoil_reply reply = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    must(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0, path);
    request.magic = COUNTERFOIL_HELLO_MAGIC;
    request.abi = COUNTERFOIL_ABI_VERSION;
    request.pid = (uint32_t)getpid();
    must(send(fd, &request, sizeof request, 0) == sizeof request, "hello");
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {&reply, sizeof reply};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    must(recvmsg(fd, &message, 0) == sizeof reply, "reply");
    if (reply.status != COUNTERFOIL_GRANTED || CMSG_FIRSTHDR(&message) == NULL) {
        fprintf(stderr, "the daemon declined: status %u\n", reply.status);
        exit(2);
    }
    int memory;
    memcpy(&memory, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof memory);
    void *arena = mmap(NULL, COUNTERFOIL_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    must(arena != MAP_FAILED, "mmap");
    close(memory);
    close(fd);
    return arena;
}

/* Waits where the library would drop: it's the daemon that is measured. */
static void push(void *arena, void *record, uint32_t lines) {
    struct counterfoil_header *header = record;
    header->lines = (uint8_t)lines;
    header->time = now_ns();
    while (head + lines - __atomic_load_n(&lane->tail, __ATOMIC_ACQUIRE) > COUNTERFOIL_LANE_LINES) {
        __atomic_store_n(&((struct counterfoil_arena_head *)arena)->bell, 1, __ATOMIC_RELEASE);
        usleep(50);
    }
    for (uint32_t i = 0; i < lines; i++)
        memcpy(ring[(head + i) % COUNTERFOIL_LANE_LINES], (char *)record + i * COUNTERFOIL_LINE, COUNTERFOIL_LINE);
    head += lines;
    __atomic_store_n(&lane->head, head, __ATOMIC_RELEASE);
}

static uint64_t produce(const char *socket, int origin, uint32_t flows, uint64_t blocks) {
    void *arena = hello(socket);
    uint64_t records = 0;
    lane = (void *)((char *)arena + COUNTERFOIL_LANE_HEAD_AT(0));
    ring = (void *)((char *)arena + COUNTERFOIL_RING_AT(0));
    __atomic_store_n(&lane->owner, (uint64_t)getpid() << 32 | (uint64_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    for (uint32_t object = 1; object <= flows; object++, records += 2) {
        struct counterfoil_opened opened = {.header = {.kind = COUNTERFOIL_KIND_OPENED, .object = object},
                                            .channel = COUNTERFOIL_CHANNEL_TLS,
                                            .fd = -1};
        struct counterfoil_flow flow = {
            .header = {.kind = COUNTERFOIL_KIND_FLOW, .object = object, .flags = origin ? COUNTERFOIL_CLIENT : 0},
            .version = 0x0304,
            .cipher = 0x1301};
        snprintf((char *)flow.flow, sizeof flow.flow, "drain %u", object);
        push(arena, &opened, 4);
        push(arena, &flow, 2);
    }
    for (uint64_t block = 0; block < blocks; block++) {
        for (uint32_t object = 1; object <= flows; object++, records++) {
            struct counterfoil_blocks one = {
                .header = {.kind = COUNTERFOIL_KIND_BLOCKS,
                           .tap = origin ? COUNTERFOIL_TAP_TLS_WRITE : COUNTERFOIL_TAP_TLS_READ,
                           .object = object},
                .offset = block * COUNTERFOIL_BLOCK,
                .length = COUNTERFOIL_BLOCK,
                .count = 1};
            fill(one.tags[0], COUNTERFOIL_TAG_BYTES, block * 7919 + object);
            push(arena, &one, 1);
        }
    }
    uint64_t total = blocks * COUNTERFOIL_BLOCK;
    for (uint32_t object = 1; object <= flows; object++, records++) {
        struct counterfoil_ended ended = {
            .header = {.kind = COUNTERFOIL_KIND_ENDED,
                       .object = object,
                       .flags = COUNTERFOIL_IN_EOF | COUNTERFOIL_OUT_SHUT | COUNTERFOIL_NOTIFY_SEEN |
                                COUNTERFOIL_NOTIFY_SENT},
            .how = COUNTERFOIL_HOW_FREED,
            .out_total = origin ? total : 0,
            .in_total = origin ? 0 : total,
            .kernel_out = COUNTERFOIL_UNKNOWN,
            .kernel_in = COUNTERFOIL_UNKNOWN};
        push(arena, &ended, 2);
    }
    __atomic_store_n(&((struct counterfoil_arena_head *)arena)->bell, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&lane->tail, __ATOMIC_ACQUIRE) != head) usleep(200);
    return records;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint32_t flows = (uint32_t)atol(argv[2]);
    uint64_t blocks = strtoull(argv[3], NULL, 10), begun = now_ns();
    /* Both as children: neither says hello for the other's pid. */
    pid_t ends[2];
    for (int origin = 0; origin < 2; origin++) {
        ends[origin] = fork();
        must(ends[origin] >= 0, "fork");
        if (ends[origin] == 0) {
            produce(argv[1], origin, flows, blocks);
            _exit(0);
        }
    }
    wait_for(ends[0]);
    wait_for(ends[1]);
    printf("{\"records\": %llu, \"seconds\": %.6f}\n", (unsigned long long)(2 * flows * (blocks + 3)),
           (double)(now_ns() - begun) / 1e9);
    return 0;
}
