/* The C mirror of the crate counterfoil-abi: what the preloaded library and the daemon say to each
 * other. `include/src` is the original; `include/tests/header.rs` fails where this file differs.
 *
 * Numbers are little-endian and naturally aligned. Words that both sides touch (marked "shared") are
 * plain here: use __atomic_load_n and __atomic_store_n, with release to publish and acquire to take.
 */
#ifndef COUNTERFOIL_H
#define COUNTERFOIL_H

#include <stdint.h>

#define COUNTERFOIL_ABI_VERSION 1
#define COUNTERFOIL_BLOCK 16384              /* bytes in a block of a stream */
#define COUNTERFOIL_UNKNOWN UINT64_MAX       /* a length or count that is not known */
#define COUNTERFOIL_UNPLAUSIBLE (1ULL << 62) /* offsets and totals stay below */
#define COUNTERFOIL_TAG_BYTES 16

/* ---- records ------------------------------------------------------------------------------- */

#define COUNTERFOIL_LINE 64         /* bytes in a line */
#define COUNTERFOIL_MAX_LINES 5     /* lines in the longest record */
#define COUNTERFOIL_FIRST_LINE_TAGS 2
#define COUNTERFOIL_MAX_TAGS 18     /* tag units in the longest Blocks record */

/* header.kind */
enum {
    COUNTERFOIL_KIND_OPENED = 1,
    COUNTERFOIL_KIND_BLOCKS = 2,
    COUNTERFOIL_KIND_GAP = 3,
    COUNTERFOIL_KIND_FLOW = 4,
    COUNTERFOIL_KIND_CARRIER = 5,
    COUNTERFOIL_KIND_ENDED = 6,
    COUNTERFOIL_KIND_REJECTED = 7,
    COUNTERFOIL_KIND_FORKED = 8,
    COUNTERFOIL_KIND_NOTE = 9,
    COUNTERFOIL_KIND_NAMED = 10,
    COUNTERFOIL_KIND_FILE = 11,
    COUNTERFOIL_KIND_PRINTS = 12,
    COUNTERFOIL_KIND_MESSAGE = 14,
    COUNTERFOIL_KIND_BODY = 15,
    COUNTERFOIL_KIND_CLASS = 13,
    COUNTERFOIL_KIND_DATAGRAMS = 16,
    COUNTERFOIL_KIND_AGAIN = 17,
};

/* header.tap */
enum {
    COUNTERFOIL_TAP_FILE_READ = 1,
    COUNTERFOIL_TAP_FILE_WRITE = 2,
    COUNTERFOIL_TAP_PIPE_READ = 3,
    COUNTERFOIL_TAP_PIPE_WRITE = 4,
    COUNTERFOIL_TAP_SOCK_RECV = 5,
    COUNTERFOIL_TAP_SOCK_SEND = 6,
    COUNTERFOIL_TAP_TLS_READ = 7,
    COUNTERFOIL_TAP_TLS_WRITE = 8,
    COUNTERFOIL_TAP_CIPHER_OPEN = 9,
    COUNTERFOIL_TAP_CIPHER_SEAL = 10,
};

/* opened.channel */
enum {
    COUNTERFOIL_CHANNEL_TCP = 1,
    COUNTERFOIL_CHANNEL_DATAGRAM = 2,
    COUNTERFOIL_CHANNEL_UNIX = 3,
    COUNTERFOIL_CHANNEL_UNIX_DATAGRAM = 4,
    COUNTERFOIL_CHANNEL_PIPE = 5,
    COUNTERFOIL_CHANNEL_TLS = 6,
    COUNTERFOIL_CHANNEL_GNUTLS = 7,
    COUNTERFOIL_CHANNEL_FILE = 8,
    COUNTERFOIL_CHANNEL_SSH = 9,
};

/* gap.reason, and the reasons of a verdict */
enum {
    COUNTERFOIL_REASON_PEER_NOT_OBSERVED = 1,
    COUNTERFOIL_REASON_RECORDS_DROPPED = 2,
    COUNTERFOIL_REASON_SHARED_DESCRIPTOR = 3,
    COUNTERFOIL_REASON_BYPASSED_BYTES = 4,
    COUNTERFOIL_REASON_KERNEL_COPY = 5,
    COUNTERFOIL_REASON_UNSUPPORTED_CIPHER = 6,
    COUNTERFOIL_REASON_TRANSFORMED = 7,
    COUNTERFOIL_REASON_STILL_OPEN = 8,
    COUNTERFOIL_REASON_ABANDONED_BY_RECEIVER = 9,
    COUNTERFOIL_REASON_ATTACHED_LATE = 10,
    COUNTERFOIL_REASON_HANDED_OVER = 11,
    COUNTERFOIL_REASON_PROCESS_KILLED = 12,
    COUNTERFOIL_REASON_FOREIGN_HOOK = 13,
    COUNTERFOIL_REASON_DISPUTED_CLAIM = 14,
    COUNTERFOIL_REASON_OTHER_WRITER = 15,
    COUNTERFOIL_REASON_TOO_SMALL_TO_JOIN = 16,
    COUNTERFOIL_REASON_DATAGRAM = 17,
    COUNTERFOIL_REASON_DAEMON_RESTARTED = 18,
};

/* ended.how */
enum {
    COUNTERFOIL_HOW_CLOSED = 1,
    COUNTERFOIL_HOW_FREED = 2,
    COUNTERFOIL_HOW_EXITED = 3,
    COUNTERFOIL_HOW_EXECED = 4,
    COUNTERFOIL_HOW_CHECKPOINT = 5,
    COUNTERFOIL_HOW_CLOSED_UNSEEN = 6,
};

/* note.about */
enum {
    COUNTERFOIL_ABOUT_COVERAGE_LOST = 1,
    COUNTERFOIL_ABOUT_FOREIGN_HOOK = 2,
    COUNTERFOIL_ABOUT_EXEC = 3,
    COUNTERFOIL_ABOUT_MEMORY_WRITE = 4,
    COUNTERFOIL_ABOUT_IMAGE_LIBRARIES = 5, /* note.number: a bit for each of include/src/images.rs */
    COUNTERFOIL_ABOUT_CODE = 6, /* note.code: length of the build id */
};

/* note.code of COUNTERFOIL_ABOUT_MEMORY_WRITE */
enum {
    COUNTERFOIL_TOUCH_PROCESS_VM_WRITEV = 1,
    COUNTERFOIL_TOUCH_PROC_MEM = 2,
    COUNTERFOIL_TOUCH_PTRACE = 3,
};

/* note.text of COUNTERFOIL_ABOUT_MEMORY_WRITE */
struct counterfoil_written {
    uint64_t address;
    uint64_t length;
};

/* note.text of COUNTERFOIL_ABOUT_CODE; behind it the library's path */
#define COUNTERFOIL_BUILD_ID 24   /* bytes of one that are compared */
#define COUNTERFOIL_FIRST_CODE 32 /* bytes of a function that are compared */
struct counterfoil_code {
    uint64_t offset;
    uint8_t build_id[COUNTERFOIL_BUILD_ID];
    uint8_t first[COUNTERFOIL_FIRST_CODE];
};

/* note.code of COUNTERFOIL_ABOUT_COVERAGE_LOST */
enum {
    COUNTERFOIL_LOST_STATIC = 1,
    COUNTERFOIL_LOST_SETUID = 2,
    COUNTERFOIL_LOST_OTHER_ABI = 3,
    COUNTERFOIL_LOST_NO_PRELOAD = 4,
    COUNTERFOIL_LOST_UNREADABLE = 5,
};

/* First 16 bytes of every record. */
struct counterfoil_header {
    uint8_t kind;
    uint8_t lines;
    uint8_t tap;
    uint8_t flags;
    uint32_t object;
    uint64_t time; /* CLOCK_MONOTONIC, ns */
};

struct counterfoil_address {
    uint8_t ip[16]; /* IPv4 in the first four */
    uint16_t port;  /* host order */
    uint8_t version;
    uint8_t pad[5];
};

/* opened.header.flags */
#define COUNTERFOIL_INHERITED 1
#define COUNTERFOIL_ACCEPTED 2
#define COUNTERFOIL_CONNECTED 4
#define COUNTERFOIL_PAIRED 8
#define COUNTERFOIL_ATTACHED_LATE 16
#define COUNTERFOIL_RESUMED 32

struct counterfoil_opened {
    struct counterfoil_header header;
    uint8_t channel;
    uint8_t pad[3];
    int32_t fd;
    uint64_t device;
    uint64_t inode;
    uint64_t peer_inode;
    uint32_t peer_pid;
    uint32_t name_len;
    struct counterfoil_address local;
    struct counterfoil_address remote;
    uint8_t name[152];
};

/* blocks.header.flags */
#define COUNTERFOIL_PARTIAL 1
#define COUNTERFOIL_WIDE 2
#define COUNTERFOIL_WITNESSED 4

struct counterfoil_blocks {
    struct counterfoil_header header;
    uint64_t offset;
    uint32_t length;
    uint32_t count;
    uint8_t tags[COUNTERFOIL_MAX_TAGS][COUNTERFOIL_TAG_BYTES];
};

struct counterfoil_gap {
    struct counterfoil_header header;
    uint64_t offset;
    uint64_t length;
    uint8_t reason;
    uint8_t pad[31];
};

/* flow.header.flags */
#define COUNTERFOIL_CLIENT 1
#define COUNTERFOIL_SESSION_RESUMED 2
#define COUNTERFOIL_NO_CIPHER_WITNESS 4

struct counterfoil_flow {
    struct counterfoil_header header;
    uint8_t flow[16];
    uint8_t hello[COUNTERFOIL_TAG_BYTES];
    uint32_t carrier;
    uint16_t version;
    uint16_t cipher;
    uint32_t name_len;
    uint8_t name[68];
};

struct counterfoil_carrier {
    struct counterfoil_header header;
    uint64_t out_offset;
    uint64_t in_offset;
    uint8_t hello[COUNTERFOIL_TAG_BYTES];
    uint32_t tls;
    uint8_t pad[12];
};

/* ended.header.flags */
#define COUNTERFOIL_IN_EOF 1
#define COUNTERFOIL_OUT_SHUT 2
#define COUNTERFOIL_NOTIFY_SEEN 4
#define COUNTERFOIL_NOTIFY_SENT 8
#define COUNTERFOIL_FAILED 16
#define COUNTERFOIL_HANDED_ON 32
#define COUNTERFOIL_HANDED_UNSEEN 64
#define COUNTERFOIL_THROUGH_STDIO 128

struct counterfoil_ended {
    struct counterfoil_header header;
    uint8_t how;
    uint8_t pad[3];
    int32_t error; /* `errno` in Rust: a macro in C */
    uint64_t out_total;
    uint64_t in_total;
    uint64_t out_offered;
    uint64_t kernel_out;
    uint64_t kernel_in;
    uint64_t seal_total;
    uint64_t open_total;
    uint32_t out_urgent;
    uint32_t in_urgent;
    uint8_t pad2[40];
};

struct counterfoil_rejected {
    struct counterfoil_header header;
    uint32_t code;
    uint32_t side;
    uint64_t offset;
    uint8_t text[32];
};

struct counterfoil_forked {
    struct counterfoil_header header;
    uint32_t pid;
    uint32_t parent;
    uint8_t pad[40];
};

struct counterfoil_note {
    struct counterfoil_header header;
    uint8_t about;
    uint8_t code;
    uint16_t text_len;
    uint32_t number;
    uint8_t text[232];
};

/* named.about */
enum {
    COUNTERFOIL_NAMING_PATH = 1,
    COUNTERFOIL_NAMING_RENAMED = 2,
    COUNTERFOIL_NAMING_LINKED = 3,
    COUNTERFOIL_NAMING_UNLINKED = 4,
};

#define COUNTERFOIL_NAME_PIECE 216
#define COUNTERFOIL_MAX_NAME 4096

struct counterfoil_named {
    struct counterfoil_header header;
    uint8_t about;
    uint8_t pad;
    uint16_t length;
    uint16_t at;
    uint16_t total;
    uint64_t device;
    uint64_t inode;
    uint8_t text[COUNTERFOIL_NAME_PIECE];
};

/* file.header.flags */
#define COUNTERFOIL_READ_DIGEST 1
#define COUNTERFOIL_WRITE_DIGEST 2
#define COUNTERFOIL_READ_AT_REST 4
#define COUNTERFOIL_WRITE_AT_REST 8
#define COUNTERFOIL_MADE_EMPTY 16
#define COUNTERFOIL_LAST 32

struct counterfoil_stat {
    uint64_t size;
    uint64_t modified;
    uint64_t changed;
};

struct counterfoil_file {
    struct counterfoil_header header;
    uint32_t opened_with;
    uint32_t pad;
    struct counterfoil_stat before;
    struct counterfoil_stat after;
    uint64_t read_bytes;
    uint64_t write_bytes;
    uint8_t read_digest[32];
    uint8_t write_digest[32];
    uint64_t written;
    uint64_t read;
    uint8_t pad2[24];
};

/* Fingerprints of windows of content: include/src/prints.rs. */
#define COUNTERFOIL_WINDOW 32   /* bytes of a window */
#define COUNTERFOIL_DISTINCT 6  /* different bytes that a window must have */
#define COUNTERFOIL_MAX_BITS 24 /* the sparsest: one place in 2^bits */
#define COUNTERFOIL_MAX_SAMPLES 24

struct counterfoil_sample {
    uint32_t end;
    uint8_t print[8];
};

struct counterfoil_prints {
    struct counterfoil_header header;
    uint64_t offset;
    uint32_t length;
    uint8_t bits;
    uint8_t count;
    uint8_t pad[2];
    struct counterfoil_sample samples[COUNTERFOIL_MAX_SAMPLES];
};

/* Packets of a stream that carries MQTT: include/src/record/message.rs. One to four lines. */
#define COUNTERFOIL_QOS 3        /* flags: the QoS */
#define COUNTERFOIL_RETAINED 4   /* flags: the broker had kept it, or shall */
#define COUNTERFOIL_DUPLICATE 8  /* flags: it was sent before, perhaps */
#define COUNTERFOIL_BROKER 16    /* flags: this process is the broker */
#define COUNTERFOIL_MAX_TEXT 192

enum {
    COUNTERFOIL_PACKET_LOST = 0,
    COUNTERFOIL_PACKET_CONNECT = 1,
    COUNTERFOIL_PACKET_CONNACK = 2,
    COUNTERFOIL_PACKET_PUBLISH = 3,
    COUNTERFOIL_PACKET_PUBACK = 4,
    COUNTERFOIL_PACKET_PUBREC = 5,
    COUNTERFOIL_PACKET_SUBSCRIBE = 8,
    COUNTERFOIL_PACKET_SUBACK = 9,
    COUNTERFOIL_PACKET_UNSUBSCRIBE = 10,
    COUNTERFOIL_PACKET_PINGREQ = 12,
    COUNTERFOIL_PACKET_PINGRESP = 13,
    COUNTERFOIL_PACKET_DISCONNECT = 14,
};

struct counterfoil_message {
    struct counterfoil_header header;
    uint64_t offset;
    uint32_t length;
    uint32_t sequence;
    uint8_t fingerprint[16];
    uint32_t payload;
    uint16_t id;
    uint16_t alias;
    uint8_t packet;
    uint8_t level;
    uint16_t text_len;
    uint8_t pad[4];
    uint8_t text[COUNTERFOIL_MAX_TEXT];
};

#define COUNTERFOIL_WHOLE 1
#define COUNTERFOIL_UNFRAMED 2

struct counterfoil_body {
    struct counterfoil_header header; /* flags: WHOLE, UNFRAMED */
    uint64_t at;                      /* in the stream */
    uint64_t offset;                  /* in the body */
    uint32_t length;
    uint32_t message;
    uint32_t head;
    uint32_t pad;
    uint8_t tag[COUNTERFOIL_TAG_BYTES];
};

struct counterfoil_again {
    struct counterfoil_header header; /* object: an earlier reading's; tap: file-read */
    uint8_t pad[48];
};

struct counterfoil_datagrams {
    struct counterfoil_header header;
    struct counterfoil_address remote; /* version 0: as before */
    uint64_t sent;
    uint64_t bytes;
    uint64_t received;
};

/* class.class */
enum {
    COUNTERFOIL_CLASS_EMPTY = 1,
    COUNTERFOIL_CLASS_TEXT = 2,
    COUNTERFOIL_CLASS_STRUCTURED = 3,
    COUNTERFOIL_CLASS_COMPRESSED = 4,
    COUNTERFOIL_CLASS_MEDIA = 5,
    COUNTERFOIL_CLASS_ENCRYPTED = 6,
    COUNTERFOIL_CLASS_BINARY = 7,
};

/* class.magic */
enum {
    COUNTERFOIL_MAGIC_PNG = 1,
    COUNTERFOIL_MAGIC_JPEG = 2,
    COUNTERFOIL_MAGIC_GIF = 3,
    COUNTERFOIL_MAGIC_BMP = 4,
    COUNTERFOIL_MAGIC_WEBP = 5,
    COUNTERFOIL_MAGIC_TIFF = 6,
    COUNTERFOIL_MAGIC_HEIF = 7,
    COUNTERFOIL_MAGIC_PNM = 8,
    COUNTERFOIL_MAGIC_ICO = 9,
    COUNTERFOIL_MAGIC_PSD = 10,
    COUNTERFOIL_MAGIC_JPEG2000 = 11,
    COUNTERFOIL_MAGIC_PICTURE = 12,
    COUNTERFOIL_MAGIC_MP3 = 32,
    COUNTERFOIL_MAGIC_FLAC = 33,
    COUNTERFOIL_MAGIC_WAV = 34,
    COUNTERFOIL_MAGIC_OGG = 35,
    COUNTERFOIL_MAGIC_AAC = 36,
    COUNTERFOIL_MAGIC_AIFF = 37,
    COUNTERFOIL_MAGIC_MIDI = 38,
    COUNTERFOIL_MAGIC_SOUND = 39,
    COUNTERFOIL_MAGIC_MP4 = 64,
    COUNTERFOIL_MAGIC_MATROSKA = 65,
    COUNTERFOIL_MAGIC_AVI = 66,
    COUNTERFOIL_MAGIC_MPEG = 67,
    COUNTERFOIL_MAGIC_VIDEO = 68,
    COUNTERFOIL_MAGIC_GZIP = 96,
    COUNTERFOIL_MAGIC_BZIP2 = 97,
    COUNTERFOIL_MAGIC_XZ = 98,
    COUNTERFOIL_MAGIC_ZSTD = 99,
    COUNTERFOIL_MAGIC_LZ4 = 100,
    COUNTERFOIL_MAGIC_LZMA = 101,
    COUNTERFOIL_MAGIC_ZIP = 102,
    COUNTERFOIL_MAGIC_7Z = 103,
    COUNTERFOIL_MAGIC_RAR = 104,
    COUNTERFOIL_MAGIC_ZLIB = 105,
    COUNTERFOIL_MAGIC_PACKAGE = 106,
    COUNTERFOIL_MAGIC_ARCHIVE = 107,
    COUNTERFOIL_MAGIC_CONTENT_ENCODING = 108,
    COUNTERFOIL_MAGIC_OPENPGP = 144,
    COUNTERFOIL_MAGIC_OPENSSL_SALTED = 145,
    COUNTERFOIL_MAGIC_AGE = 146,
    COUNTERFOIL_MAGIC_SSH = 147,
    COUNTERFOIL_MAGIC_TLS = 148,
    COUNTERFOIL_MAGIC_LUKS = 149,
    COUNTERFOIL_MAGIC_ENCRYPTED_ARCHIVE = 150,
    COUNTERFOIL_MAGIC_VAULT = 151,
    COUNTERFOIL_MAGIC_ELF = 176,
    COUNTERFOIL_MAGIC_PROGRAM = 177,
    COUNTERFOIL_MAGIC_PDF = 178,
    COUNTERFOIL_MAGIC_TAR = 179,
    COUNTERFOIL_MAGIC_AR = 180,
    COUNTERFOIL_MAGIC_SQLITE = 181,
    COUNTERFOIL_MAGIC_OLE = 182,
    COUNTERFOIL_MAGIC_FONT = 183,
    COUNTERFOIL_MAGIC_PCAP = 184,
    COUNTERFOIL_MAGIC_JSON = 224,
    COUNTERFOIL_MAGIC_XML = 225,
    COUNTERFOIL_MAGIC_TABLE = 226,
    COUNTERFOIL_MAGIC_SETTINGS = 227,
    COUNTERFOIL_MAGIC_PEM = 228,
    COUNTERFOIL_MAGIC_BASE64 = 229,
};

/* class.header.flags */
#define COUNTERFOIL_CLASS_FINAL 1
#define COUNTERFOIL_CLASS_HTTP 2

struct counterfoil_class {
    struct counterfoil_header header;
    uint8_t class_;
    uint8_t magic;
    uint16_t entropy;
    uint32_t chi_squared;
    uint32_t looked;
    uint32_t passed;
    uint64_t offset;
    uint32_t width;
    uint32_t height;
    uint8_t pad[16];
};

/* ---- matcher: which files are sensitive, by device and inode -------------------------------- */

#define COUNTERFOIL_MATCHER_MAGIC 0x74616d6c696f6663ULL /* "cfoilmat" */
#define COUNTERFOIL_PLACES 32768
#define COUNTERFOIL_PROBES 16 /* places where one file may stand */

/* In the memory that comes behind the arena's in the hello reply, read only. */
struct counterfoil_matcher {
    uint64_t magic;
    uint64_t pad[7];
    uint64_t places[COUNTERFOIL_PLACES]; /* shared: 0, or a file's key */
};

#define COUNTERFOIL_MATCHER_BYTES sizeof(struct counterfoil_matcher)

/* What stands for a file: in place (key >> 1) + n, n below COUNTERFOIL_PROBES, modulo COUNTERFOIL_PLACES. */
static inline uint64_t counterfoil_key(uint64_t device, uint64_t inode) {
    const uint64_t odd = 0x9e3779b97f4a7c15ULL;
    uint64_t mixed = device * odd;
    mixed = (mixed << 29 | mixed >> 35) ^ inode;
    mixed = (mixed ^ mixed >> 32) * odd;
    return (mixed ^ mixed >> 29) | 1;
}

/* ---- board: pipes through which sensitive content may pass ---------------------------------- */

#define COUNTERFOIL_BOARD_MAGIC 0x6472626c696f6663ULL /* "cfoilbrd" */
#define COUNTERFOIL_NOTICES 62 /* pipes that it holds: the latest */

/* In the memory that comes behind the matcher's in the hello reply, shared by one user's programs. */
struct counterfoil_board {
    uint64_t magic;
    uint32_t count; /* shared: how often something was put up */
    uint32_t next;  /* shared: the place of the next one */
    uint64_t notices[COUNTERFOIL_NOTICES]; /* shared: 0, or a pipe's key */
    uint64_t bell;    /* shared: 1, by who has set an arena's bell that was 0; then the daemon looks at all of the user's */
    uint32_t napping; /* shared: 1, the daemon sleeps until called; who has rung takes it, */
    uint32_t calls;   /* shared: adds 1 here, and FUTEX_WAKEs one who waits for that (not private) */
    uint64_t rest[6]; /* so that the bell has a cache line of its own */
};

#define COUNTERFOIL_BOARD_BYTES sizeof(struct counterfoil_board)

/* ---- lanes and arena ----------------------------------------------------------------------- */

#define COUNTERFOIL_LANES 512
#define COUNTERFOIL_FULL_LANES 64 /* the first ones */
#define COUNTERFOIL_LANE_LINES 4096 /* lines in the ring of one of those */
#define COUNTERFOIL_SHORT_LINES 256 /* lines in the ring of another one */

/* A line of a ring; shared. */
typedef uint64_t counterfoil_slot[8];

struct counterfoil_lane_head {
    uint64_t head;    /* shared: lines published, written by the producer */
    uint64_t owner;   /* shared: pid << 32 | tid, 0 when free */
    uint64_t dropped; /* shared: records that found no room */
    uint64_t pad[5];
    uint64_t tail;    /* shared: lines consumed, written by the consumer */
    uint64_t pad2[7];
} __attribute__((aligned(128)));

#define COUNTERFOIL_POLICY_WATCHED 1
#define COUNTERFOIL_POLICY_OFF 2
#define COUNTERFOIL_POLICY_BLAKE3 4
#define COUNTERFOIL_POLICY_SHA256 8
#define COUNTERFOIL_POLICY_FINGERPRINTS 16
#define COUNTERFOIL_POLICY_TURNED_UP 32
#define COUNTERFOIL_POLICY_BOARD 64
#define COUNTERFOIL_POLICY_MESSAGES 128

#define COUNTERFOIL_ARENA_MAGIC 0x6e72616c696f6663ULL /* "cfoilarn" */

struct counterfoil_arena_head {
    uint64_t magic;
    uint32_t abi;
    uint32_t lanes;
    uint64_t id;
    uint32_t policy; /* shared: written by the daemon */
    uint32_t reach;  /* shared: lanes from here on were never claimed, or below FULL_LANES */
    uint32_t pad[8];
    uint32_t bell;   /* shared: 1 when something was published */
    uint32_t pad2;
    uint64_t no_lane;   /* shared: records that found no free lane */
    uint64_t no_object; /* shared: objects that found no free slot */
    uint64_t pad3[5];
};

#define COUNTERFOIL_LANE_HEADS_AT 4096
#define COUNTERFOIL_RINGS_AT \
    (COUNTERFOIL_LANE_HEADS_AT + COUNTERFOIL_LANES * sizeof(struct counterfoil_lane_head))
#define COUNTERFOIL_ARENA_BYTES COUNTERFOIL_RING_AT(COUNTERFOIL_LANES)
#define COUNTERFOIL_LANE_HEAD_AT(i) (COUNTERFOIL_LANE_HEADS_AT + (i) * sizeof(struct counterfoil_lane_head))
#define COUNTERFOIL_LINES(i) ((i) < COUNTERFOIL_FULL_LANES ? COUNTERFOIL_LANE_LINES : COUNTERFOIL_SHORT_LINES)
#define COUNTERFOIL_RING_AT(i) \
    (COUNTERFOIL_RINGS_AT + sizeof(counterfoil_slot) * ((i) < COUNTERFOIL_FULL_LANES \
        ? (i) * COUNTERFOIL_LANE_LINES \
        : COUNTERFOIL_FULL_LANES * COUNTERFOIL_LANE_LINES + ((i) - COUNTERFOIL_FULL_LANES) * COUNTERFOIL_SHORT_LINES))

/* ---- hello --------------------------------------------------------------------------------- */

#define COUNTERFOIL_HELLO_MAGIC 0x3169686c696f6663ULL /* "cfoilhi1" */
#define COUNTERFOIL_MAX_INHERITED 16

/* reply.status */
#define COUNTERFOIL_GRANTED 0
#define COUNTERFOIL_WRONG_ABI 1
#define COUNTERFOIL_DECLINED 2

struct counterfoil_request {
    uint64_t magic;
    uint32_t abi;
    uint32_t pid;
    uint32_t inherited_len;
    uint32_t inert;
    struct counterfoil_opened inherited[COUNTERFOIL_MAX_INHERITED];
};

struct counterfoil_resume {
    uint64_t out_offset;
    uint64_t in_offset;
};

struct counterfoil_reply {
    uint64_t magic;
    uint32_t abi;
    uint32_t status;
    uint64_t arena_bytes;
    uint32_t policy;
    uint32_t pad;
    uint8_t key[16];
    struct counterfoil_resume resume[COUNTERFOIL_MAX_INHERITED];
};

#endif
