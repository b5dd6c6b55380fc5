//! The table of fixtures: a name, a command line, and what is true of it (see `truth`).
//!
//! `for_each_case!(m)` hands the table to the macro `m`. In none of these is a byte changed.

/// Calls `$do! { name: "command line", ["truth", …]; … }`.
#[macro_export]
macro_rules! for_each_case {
    ($do:ident) => {
        $do! {
// Every call, over every channel it fits.
tcp_send_recv: "stream tcp send recv 100000 5000", ["tcp 100000 100000 intact"];
tcp_one_byte: "stream tcp send recv 1 1", ["tcp 1 1 intact"];
tcp_block_less_one: "stream tcp write read 16383 16383", ["tcp 16383 16383 intact"];
tcp_block: "stream tcp write read 16384 16384", ["tcp 16384 16384 intact"];
tcp_block_and_one: "stream tcp write read 16385 16385", ["tcp 16385 16385 intact"];
tcp_odd_pieces: "stream tcp write read 131071 77", ["tcp 131071 131071 intact"];
tcp_large_pieces: "stream tcp write recv 5000000 1000000", ["tcp 5000000 5000000 intact"];
tcp_nothing: "stream tcp send recv 0 100", [];
tcp_more: "stream tcp more recv 50000 700", ["tcp 50000 50000 intact"];
tcp_sendto_recvfrom: "stream tcp sendto recvfrom 100000 5000", ["tcp 100000 100000 intact"];
tcp_sendmsg_recvmsg: "stream tcp sendmsg recvmsg 100000 5000", ["tcp 100000 100000 intact"];
tcp_sendmmsg_recvmmsg: "stream tcp sendmmsg recvmmsg 100000 5000", ["tcp 100000 100000 intact"];
tcp_writev_readv: "stream tcp writev readv 100000 5000", ["tcp 100000 100000 intact"];
tcp_waitall: "stream tcp send waitall 100000 5000", ["tcp 100000 100000 intact"];
tcp_peek: "stream tcp send peek 100000 5000", ["tcp 100000 100000 intact"];
tcp_dontwait: "stream tcp dontwait dontwait 3000000 100000", ["tcp 3000000 3000000 intact"];
tcp_nonblocking: "stream tcp write recv 4000000 500000 nonblock", ["tcp 4000000 4000000 intact"];
tcp_nonblocking_writev: "stream tcp writev readv 4000000 500000 nonblock", ["tcp 4000000 4000000 intact"];
tcp_nonblocking_sendmsg: "stream tcp sendmsg recvmsg 4000000 500000 nonblock", ["tcp 4000000 4000000 intact"];
tcp_nonblocking_sendmmsg: "stream tcp sendmmsg recvmmsg 4000000 500000 nonblock", ["tcp 4000000 4000000 intact"];
tcp_zerocopy: "stream tcp zerocopy recv 200000 50000", ["tcp 200000 200000 intact"];
tcp_ipv6: "stream tcp6 send recv 50000 5000", ["tcp 50000 50000 intact"];
tcp_mapped: "stream mapped send recv 50000 5000", ["tcp 50000 50000 intact"];
tcp_turns: "stream tcp send recv 0 1000 turns=50", ["tcp 50000 50000 intact", "tcp 25050 25050 intact"];
tcp_half_closed: "stream tcp send recv 60000 5000 half", ["tcp 60000 60000 intact", "tcp 60000 60000 intact"];
tcp_fortified_recv: "stream_chk tcp send recv 100000 5000", ["tcp 100000 100000 intact"];
tcp_fortified_recvfrom: "stream_chk tcp sendto recvfrom 100000 5000", ["tcp 100000 100000 intact"];
pipe_fortified_read: "stream_chk pipe write read 100000 5000", ["pipe 100000 100000 intact"];
pipe_write_read: "stream pipe write read 100000 5000", ["pipe 100000 100000 intact"];
pipe2_writev_readv: "stream pipe2 writev readv 100000 5000", ["pipe 100000 100000 intact"];
fifo: "stream fifo write read 100000 5000", ["pipe 100000 100000 intact"];
socketpair_write_read: "stream socketpair write read 100000 5000", ["unix 100000 100000 intact"];
socketpair_turns: "stream socketpair sendmsg recvmsg 0 700 turns=30", ["unix 21000 21000 intact", "unix 10530 10530 intact"];
unix_send_recv: "stream unix send recv 100000 5000", ["unix 100000 100000 intact"];
unix_sendmsg_recvmsg: "stream unix sendmsg recvmsg 100000 5000", ["unix 100000 100000 intact"];
unix_half_closed: "stream unix write read 60000 5000 half", ["unix 60000 60000 intact", "unix 60000 60000 intact"];
seqpacket: "stream seqpacket send recv 90000 1000", ["unix 90000 90000 intact"];
left_open_at_exit: "stream tcp send recv 100000 5000 hold", ["tcp 100000 100000 intact"];
left_by_underscore_exit: "stream tcp send recv 100000 5000 hold _exit", ["tcp 100000 100000 intact"];

// What can't be known, or only in part.
tcp_truncating: "stream tcp send trunc 30000 1000", ["tcp 30000 * unverified"];
unix_truncating: "stream socketpair send trunc 30000 1000", ["unix 30000 30000 intact|unverified"];
tcp_raw_writes: "stream tcp write read 100000 5000 raw=3", ["tcp * 100000 unverified:bypassed-bytes"];
tcp_only_raw_writes: "stream tcp raw read 100000 5000", ["tcp * 100000 unverified:bypassed-bytes/peer-not-observed"];
tcp_raw_reads: "stream tcp write raw 100000 5000", ["tcp 100000 * unverified:bypassed-bytes/peer-not-observed"];
pipe_raw_writes: "stream pipe write read 100000 5000 raw=4", ["pipe * 100000 unverified:bypassed-bytes"];
tcp_urgent: "stream tcp send recv 10000 1000 oob=2", ["tcp 10000 10000 intact"];
tcp_urgent_inline: "stream tcp send recv 10000 1000 oob=2 inline", ["tcp * * unverified|intact"];
tcp_reset: "stream tcp send recv 100000 1000 reset", ["tcp 100000 100000 intact"];
tcp_abandoned: "stream tcp send recv 3000000 10000 abandon=50000", ["tcp * 50000 unverified:abandoned-by-receiver|truncated:abandoned-by-receiver|intact"];
unix_abandoned: "stream unix send recv 3000000 10000 abandon=50000", ["unix * 50000 unverified:abandoned-by-receiver|truncated:abandoned-by-receiver|intact"];
tcp_killed: "stream tcp send recv 900000 5000 kill=50000", ["tcp * 50000 unverified:process-killed"];
pipe_killed: "stream pipe write read 900000 5000 kill=50000", ["pipe * 50000 unverified:process-killed"];
datagrams: "datagrams", ["datagram * * unverified:datagram", "rest"];
tcp_sendfile: "kernel_copy sendfile", ["tcp * 50000 unverified:kernel-copy"];
tcp_sendfile_between: "kernel_copy mixed", ["tcp 110000 110000 unverified:kernel-copy"];
pipe_spliced: "kernel_copy splice-in", ["pipe * 50000 unverified:kernel-copy"];
tcp_spliced: "kernel_copy splice-out", ["tcp 50000 * unverified:kernel-copy", "rest"];
tcp_teed: "kernel_copy tee", ["tcp 50000 * unverified:kernel-copy", "rest"];
copied_files: "kernel_copy copy-range", [];

// TLS: calls, versions, ciphers.
tls13: "tls 1.3 - write read 100000 5000", ["tls 100000 100000 intact"];
tls12: "tls 1.2 - write read 100000 5000 answer=3000", ["tls 100000 100000 intact", "tls 3000 3000 intact"];
tls_one_byte: "tls 1.3 - write read 1 1 answer=1", ["tls 1 1 intact", "tls 1 1 intact"];
tls_block_less_one: "tls 1.3 - write read 16383 16383", ["tls 16383 16383 intact"];
tls_block: "tls 1.3 - write read 16384 16384", ["tls 16384 16384 intact"];
tls_block_and_one: "tls 1.3 - write read 16385 16385", ["tls 16385 16385 intact"];
tls_ex: "tls 1.3 - write_ex read_ex 100000 5000 answer=40000", ["tls 100000 100000 intact", "tls 40000 40000 intact"];
tls_peek: "tls 1.3 - write peek 100000 5000 answer=500", ["tls 100000 100000 intact", "tls 500 500 intact"];
tls_bio: "tls 1.3 - bio bio 400000 40000 answer=500", ["tls 400000 400000 intact", "tls 500 500 intact"];
tls_set_bio: "tls 1.3 - write read 100000 5000 setbio", ["tls 100000 100000 intact"];
tls_memory_bio: "tls 1.3 - memory memory 400000 40000 answer=20000", ["tls 400000 400000 intact", "tls 20000 20000 intact"];
tls12_memory_bio_ex: "tls 1.2 - memory_ex memory_ex 400000 40000 answer=20000", ["tls 400000 400000 intact", "tls 20000 20000 intact"];
tls_sendfile: "tls 1.3 - sendfile read 4000 4000", ["tls 4000 4000 intact"];
tls_nonblocking: "tls 1.3 - nonblock nonblock 4194304 4194304 answer=30000", ["tls 4194304 4194304 intact", "tls 30000 30000 intact"];
tls12_nonblocking_ex: "tls 1.2 - nonblock_ex nonblock 4194304 1000000 answer=30000", ["tls 4194304 4194304 intact", "tls 30000 30000 intact"];
tls_bio_nonblocking: "tls 1.3 - bio_nonblock nonblock 4000000 400000", ["tls 4000000 4000000 intact"];
tls_partial_writes: "tls 1.3 - nonblock read 1000000 200000 partial", ["tls 1000000 1000000 intact"];
tls_retry_with_other_content: "tls 1.3 - moving read 4194304 4194304", ["tls * 4194304 intact|unverified"];
tls12_aes_cbc: "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 150000 40000", ["tls 150000 150000 intact"];
tls12_aes_cbc_sha256: "tls 1.2 ECDHE-ECDSA-AES128-SHA256 write read 150000 40000", ["tls 150000 150000 intact"];
tls12_multiblock: "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 600000 200000", ["tls 600000 600000 intact"];
tls12_mac_first: "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 150000 40000 macfirst", ["tls 150000 150000 intact"];
tls12_mac_first_sha256: "tls 1.2 ECDHE-ECDSA-AES128-SHA256 write read 150000 40000 macfirst", ["tls 150000 150000 intact"];
tls12_mac_first_sha384: "tls 1.2 ECDHE-ECDSA-AES256-SHA384 write read 150000 40000 macfirst", ["tls 150000 150000 intact"];
tls12_mac_first_camellia: "tls 1.2 ECDHE-ECDSA-CAMELLIA256-SHA384 write read 150000 40000 macfirst", ["tls 150000 150000 intact"];
tls12_mac_first_multiblock: "tls 1.2 ECDHE-ECDSA-AES128-SHA write read 600000 200000 macfirst", ["tls 600000 600000 intact"];
tls12_ccm8: "tls 1.2 ECDHE-ECDSA-AES128-CCM8 write read 150000 40000", ["tls 150000 150000 intact"];
tls12_chacha: "tls 1.2 ECDHE-ECDSA-CHACHA20-POLY1305 write read 150000 40000", ["tls 150000 150000 intact"];
tls12_ccm: "tls 1.2 ECDHE-ECDSA-AES128-CCM write read 150000 40000", ["tls 150000 150000 intact"];
tls13_chacha: "tls 1.3 TLS_CHACHA20_POLY1305_SHA256 write read 150000 40000", ["tls 150000 150000 intact"];
tls13_aes128: "tls 1.3 TLS_AES_128_GCM_SHA256 write read 150000 40000", ["tls 150000 150000 intact"];
tls13_ccm: "tls 1.3 TLS_AES_128_CCM_SHA256 write read 150000 40000", ["tls 150000 150000 intact"];

// TLS: what happens to a connection.
tls13_resumed: "tls 1.3 - write read 40000 4000 connections=3 answer=10", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 40000 40000 intact", "tls 10 10 intact", "tls 10 10 intact", "tls 10 10 intact"];
tls12_resumed: "tls 1.2 - write read 40000 4000 connections=2 answer=10", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 10 10 intact", "tls 10 10 intact"];
tls_early_data: "tls 1.3 - write read 40000 4000 connections=2 early answer=10", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 10 10 intact", "tls 10 10 intact"];
tls_key_update: "tls 1.3 - write read 100000 4000 keyupdate event=3 answer=5000", ["tls 100000 100000 intact", "tls 5000 5000 intact"];
tls_renegotiated: "tls 1.2 - write read 100000 4000 renegotiate event=3 answer=5000", ["tls 100000 100000 intact", "tls 5000 5000 intact"];
tls_half_closed: "tls 1.3 - write read 40000 4000 halfclose answer=90000", ["tls 40000 40000 intact", "tls 90000 90000 intact"];
tls_without_notify: "tls 1.3 - write read 40000 4000 noclose", ["tls 40000 40000 intact"];
tls_abandoned: "tls 1.3 - write read 4000000 4000 hangup=10000", ["tls * 10000 unverified:abandoned-by-receiver|truncated:abandoned-by-receiver"];
tls_killed: "tls 1.3 - write read 400000 4000 kill=60000", ["tls * 60000 unverified:process-killed"];
tls_again: "tls 1.3 - write read 40000 4000 again connections=3", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 40000 40000 intact"];
tls12_again: "tls 1.2 - write read 40000 4000 again connections=3 answer=10", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 40000 40000 intact", "tls 10 10 intact", "tls 10 10 intact", "tls 10 10 intact"];
tls_cleared: "tls 1.3 - write read 40000 4000 clear connections=3", ["tls 40000 40000 intact", "tls 40000 40000 intact", "tls 40000 40000 intact"];
tls_after_starttls: "tls 1.3 - write read 40000 4000 starttls=20 answer=9", ["tcp 20 20 intact", "tcp 20 20 intact", "tls 40000 40000 intact", "tls 9 9 intact"];
// As MariaDB's client does it: nothing is said between the last plain byte and the handshake's first.
tls_after_blind_starttls: "tls 1.3 - write read 40000 4000 starttls=36 blind answer=9", ["tcp 36 36 intact", "tls 40000 40000 intact", "tls 9 9 intact"];
tls_forked: "tls 1.3 - write read 100000 4000 fork event=3", ["tls 100000 100000 intact|unverified"];
tls_plugin: "plugin_host", ["tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact"];
tls_plugin_near: "plugin_host near", ["tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact"];
tls_plugin_deep: "plugin_host deep", ["tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact"];
// Only its own RUNPATH leads there, so the host must ask for it by itself, and what was loaded stays unseen.
tls_plugin_deep_near: "plugin_host deep near", [];
// Functions that were asked for by a library's handle.
tls_asked: "asked tls", ["tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact", "tls 30000 30000 intact"];
socketpair_asked: "asked plain", ["unix 30000 30000 intact", "unix 30000 30000 intact", "unix 30000 30000 intact", "unix 30000 30000 intact", "unix 30000 30000 intact", "unix 30000 30000 intact"];
pipe_asked_by_a_wrapper: "asked wrapped", ["pipe * 5 unverified:bypassed-bytes", "pipe * 5 unverified:bypassed-bytes", "pipe * 5 unverified:bypassed-bytes"];

// One socket or pipe for several.
cloned_raw: "clones raw", ["unix 20000 20000 intact", "unix 3 3 intact", "unix 20000 20000 intact", "unix 3 3 intact", "unix 20000 20000 intact", "unix 3 3 intact"];
cloned_by_libc: "clones libc", ["unix 20000 20000 intact", "unix 3 3 intact", "unix 20000 20000 intact", "unix 3 3 intact", "unix 20000 20000 intact", "unix 3 3 intact"];
threads_in_turn: "shared thread-turns", ["tcp 120000 120000 intact"];
threads_in_turn_on_a_pipe: "shared thread-turns-pipe", ["pipe 120000 120000 intact"];
threads_at_once: "shared thread-rush", ["tcp * 240000 intact|unverified:shared-descriptor"];
forks_in_turn: "shared fork-turns", ["tcp 120000 120000 intact", "pipe 20 20 intact", "pipe 20 20 intact"];
forks_in_turn_on_a_socketpair: "shared fork-turns-unix", ["unix 120000 120000 intact", "pipe 20 20 intact", "pipe 20 20 intact"];
forks_at_once: "shared fork-rush", ["tcp * 240000 intact|unverified:shared-descriptor"];
forks_at_once_on_a_pipe: "shared fork-rush-pipe", ["pipe * 240000 intact|unverified:shared-descriptor"];
readers_in_turn: "shared fork-readers", ["pipe 120000 120000 intact"];
number_used_again: "shared reuse", ["tcp 30000 30000 intact|unverified", "tcp 33000 33000 intact|unverified", "tcp 36000 36000 intact|unverified"];
replaced_by_dup2: "shared dup2", ["tcp 6000 6000 intact", "tcp 9000 9000 intact"];
fast_open: "shared fast-open", ["tcp 6000 6000 intact", "tcp 6000 6000 intact"];
given_by_scm_rights: "shared given", ["tcp * 30000 intact", "unix 1 1 intact"];
passed_by_scm_rights: "shared passed", ["tcp * 30000 intact|unverified", "unix 1 1 intact"];
many_sockets: "shared many", ["unix 1 1 intact", "rest"];
torrent_of_bytes: "shared torrent", ["pipe 400000 400000 intact"];
crowd_of_threads: "shared crowd", ["rest"];

// Processes.
inetd: "process inetd", ["tcp 50000 50000 intact", "tcp 9000 9000 intact"];
handed_to_an_unobserved_program: "handed spawn", ["tcp * 35000 unverified:handed-over", "rest"];
handed_by_an_action_of_a_spawn: "handed action", ["tcp * 35000 unverified:handed-over", "rest"];
handed_by_vfork: "handed vfork", ["tcp * 35000 unverified:handed-over", "rest"];
handed_by_a_message: "handed message", ["tcp * 35000 unverified:handed-over", "rest"];
exec_in_the_middle: "process exec", ["tcp 60000 60000 unverified:handed-over"];
spawned: "process spawn", ["pipe 60000 60000 intact"];
vforked: "process vfork", ["pipe 60000 60000 intact", "unix 5 5 intact"];
empty_environment: "process empty-environment", ["pipe 12 12 intact"];
no_environment: "process no-environment", ["pipe 12 12 intact"];
odd_environment: "process odd-environment", ["rest"];
closed_stdio: "process closed-stdio", ["unix 20000 20000 intact"];
started_by_the_library: "process by-the-library", ["pipe 30000 30000 intact", "rest"];
itself: "process itself", [];
failing: "process fail", [];

// Calls that don't return.
cancelled: "interrupt cancel", ["unix 60000 60000 intact"];
cancelled_tls: "interrupt cancel-tls", ["tls 60000 60000 intact|unverified", "pipe 2 2 intact"];
jumped_out_of_read: "interrupt jump-read", ["unix 90000 90000 intact"];
jumped_out_of_tls: "interrupt jump-tls", ["tls 60000 60000 intact|unverified", "pipe 2 2 intact"];
jumped_out_of_writes: "interrupt jump-write", ["tcp * * intact|unverified"];
calls_on_a_small_stack: "altstack", ["unix 200005 200005 intact|unverified", "tcp 102500 102500 intact|unverified", "pipe 2500 2500 intact|unverified"];
writes_in_a_handler: "interrupt handler-writes", ["tcp 10000000 10000000 intact", "rest"];
ended_in_a_handler: "unwind exit", ["unix 30000 30000 intact|unverified", "unix 30000 30000 intact|unverified", "rest"];
cancelled_anywhere: "unwind asynchronous", ["unix 30000 30000 intact|unverified", "unix 30000 30000 intact|unverified", "rest"];
cancelled_in_every_call: "unwind deferred", ["unix 30000 30000 intact", "unix 30000 30000 intact", "rest"];

// Several stacks in one thread.
handler_on_a_stack_above: "stacks handler", ["unix 56000000 56000000 intact", "rest"];
handler_that_jumps_within_itself: "stacks jump", ["unix * 56000000 intact|unverified", "rest"];
coroutines: "stacks turns", ["unix 2800000 2800000 intact", "unix 2800000 2800000 intact"];
coroutines_by_force: "stacks preempt", ["unix * * intact|unverified", "unix * * intact|unverified"];
coroutines_in_tls: "stacks tls", ["tls 200000 200000 intact|unverified", "tls 200000 200000 intact|unverified", "tls 200000 200000 intact|unverified", "tls 200000 200000 intact|unverified"];
        }
    };
}
