//! counterfoil.h against this crate: a C program built from the header prints every size, offset and
//! constant, and each must be the Rust one. Fields are listed by an exhaustive pattern, and enums are
//! walked by their codes, so what is added here and forgotten there fails.
#![cfg(not(loom))]

use counterfoil_abi::{ABI_VERSION, BLOCK, UNKNOWN, arena, board, hello, lane, matcher, prints, record};
use std::fmt::Write as _;
use std::process::Command;

/// C expressions and what each must come to.
type Facts = Vec<(String, u64)>;

macro_rules! layout {
    ($facts:ident, $type:path, $c:literal, { $($field:ident),* } $(, $rest:tt)?) => {{
        // Fails to compile when a public field is missing from the list.
        #[allow(dead_code)]
        fn all_listed(value: &$type) {
            let $type { $($field: _,)* $($rest)? } = value;
        }
        let c = concat!("struct counterfoil_", $c);
        $facts.push((format!("sizeof({c})"), size_of::<$type>() as u64));
        $facts.push((format!("_Alignof({c})"), align_of::<$type>() as u64));
        $({
            // `errno` is a macro in C, `class` a word of C++.
            let name = match stringify!($field) {
                "errno" => "error",
                "class" => "class_",
                name => name,
            };
            $facts.push((format!("offsetof({c}, {name})"), std::mem::offset_of!($type, $field) as u64));
        })*
    }};
}

macro_rules! constants {
    ($facts:ident, $($module:ident :: $name:ident),* $(,)?) => {
        $($facts.push((concat!("COUNTERFOIL_", stringify!($name)).into(), $module::$name as u64));)*
    };
}

/// Every code that Rust knows, by its word.
fn words<T>(facts: &mut Facts, prefix: &str, from_code: fn(u8) -> Option<T>, word: fn(T) -> &'static str) {
    for code in 0..=u8::MAX {
        if let Some(value) = from_code(code) {
            let name = word(value).to_uppercase().replace('-', "_");
            facts.push((format!("COUNTERFOIL_{prefix}_{name}"), u64::from(code)));
        }
    }
}

fn facts() -> Facts {
    let mut f = Facts::new();
    layout!(f, record::Header, "header", { kind, lines, tap, flags, object, time });
    layout!(f, record::Address, "address", { ip, port, version, pad });
    layout!(f, record::Opened, "opened", {
        header, channel, pad, fd, device, inode, peer_inode, peer_pid, name_len, local, remote, name
    });
    layout!(f, record::Blocks, "blocks", { header, offset, length, count, tags });
    layout!(f, record::Gap, "gap", { header, offset, length, reason, pad });
    layout!(f, record::Flow, "flow", { header, flow, hello, carrier, version, cipher, name_len, name });
    layout!(f, record::Carrier, "carrier", { header, out_offset, in_offset, hello, tls, pad });
    layout!(f, record::Ended, "ended", {
        header, how, pad, errno, out_total, in_total, out_offered, kernel_out, kernel_in, seal_total,
        open_total, out_urgent, in_urgent, pad2
    });
    layout!(f, record::Rejected, "rejected", { header, code, side, offset, text });
    layout!(f, record::Forked, "forked", { header, pid, parent, pad });
    layout!(f, record::Note, "note", { header, about, code, text_len, number, text });
    layout!(f, record::Written, "written", { address, length });
    layout!(f, record::Code, "code", { offset, build_id, first });
    layout!(f, record::Named, "named", { header, about, pad, length, at, total, device, inode, text });
    layout!(f, record::Stat, "stat", { size, modified, changed });
    layout!(f, record::Again, "again", { header, pad });
    layout!(f, record::File, "file", {
        header, opened_with, pad, before, after, read_bytes, write_bytes, read_digest, write_digest, written,
        read, pad2
    });
    layout!(f, record::Sample, "sample", { end, print });
    layout!(f, record::Prints, "prints", { header, offset, length, bits, count, pad, samples });
    layout!(f, record::Message, "message", {
        header, offset, length, sequence, fingerprint, payload, id, alias, packet, level, text_len, pad, text
    });
    layout!(f, record::Body, "body", { header, at, offset, length, message, head, pad, tag });
    layout!(f, record::Datagrams, "datagrams", { header, remote, sent, bytes, received });
    layout!(f, record::Classed, "class", {
        header, class, magic, entropy, chi_squared, looked, passed, offset, width, height, pad
    });
    layout!(f, lane::LaneHead, "lane_head", { head, owner, dropped, tail }, ..);
    layout!(f, arena::ArenaHead, "arena_head", { magic, abi, lanes, id, policy, bell, no_lane, no_object }, ..);
    layout!(f, matcher::Matcher, "matcher", { magic, places }, ..);
    layout!(f, board::Board, "board", { magic, count, notices }, ..);
    layout!(f, hello::Request, "request", { magic, abi, pid, inherited_len, inert, inherited });
    layout!(f, hello::Resume, "resume", { out_offset, in_offset });
    layout!(f, hello::Reply, "reply", { magic, abi, status, arena_bytes, policy, pad, key, resume });

    words(&mut f, "KIND", record::Kind::from_code, record::Kind::word);
    words(&mut f, "PACKET", record::Packet::from_code, record::Packet::word);
    words(&mut f, "TAP", record::Tap::from_code, record::Tap::word);
    words(&mut f, "CHANNEL", record::Channel::from_code, record::Channel::word);
    words(&mut f, "REASON", record::Reason::from_code, record::Reason::word);
    words(&mut f, "HOW", record::How::from_code, record::How::word);
    words(&mut f, "ABOUT", record::About::from_code, record::About::word);
    words(&mut f, "NAMING", record::Naming::from_code, record::Naming::word);
    words(&mut f, "LOST", record::Lost::from_code, record::Lost::word);
    words(&mut f, "CLASS", record::Class::from_code, record::Class::word);
    words(&mut f, "MAGIC", record::Magic::from_code, record::Magic::word);
    words(&mut f, "TOUCH", record::Touch::from_code, record::Touch::word);

    constants!(
        f,
        record::LINE,
        record::MAX_LINES,
        record::FIRST_LINE_TAGS,
        record::MAX_TAGS,
        record::UNPLAUSIBLE,
        record::INHERITED,
        record::ACCEPTED,
        record::CONNECTED,
        record::PAIRED,
        record::ATTACHED_LATE,
        record::RESUMED,
        record::PARTIAL,
        record::WIDE,
        record::WITNESSED,
        record::CLIENT,
        record::SESSION_RESUMED,
        record::NO_CIPHER_WITNESS,
        record::IN_EOF,
        record::OUT_SHUT,
        record::NOTIFY_SEEN,
        record::NOTIFY_SENT,
        record::FAILED,
        record::HANDED_ON,
        record::HANDED_UNSEEN,
        record::THROUGH_STDIO,
        record::BUILD_ID,
        record::FIRST_CODE,
        record::NAME_PIECE,
        record::MAX_NAME,
        record::READ_DIGEST,
        record::WRITE_DIGEST,
        record::READ_AT_REST,
        record::WRITE_AT_REST,
        record::MADE_EMPTY,
        record::LAST,
        record::CLASS_FINAL,
        record::CLASS_HTTP,
        record::MAX_SAMPLES,
        record::QOS,
        record::RETAINED,
        record::DUPLICATE,
        record::BROKER,
        record::MAX_TEXT,
        record::WHOLE,
        record::UNFRAMED,
        prints::WINDOW,
        prints::DISTINCT,
        prints::MAX_BITS,
        lane::LANE_LINES,
        arena::LANES,
        arena::FULL_LANES,
        arena::SHORT_LINES,
        arena::LANE_HEADS_AT,
        arena::RINGS_AT,
        arena::ARENA_BYTES,
        arena::POLICY_WATCHED,
        arena::POLICY_OFF,
        arena::POLICY_BLAKE3,
        arena::POLICY_SHA256,
        arena::POLICY_FINGERPRINTS,
        arena::POLICY_TURNED_UP,
        arena::POLICY_BOARD,
        arena::POLICY_MESSAGES,
        board::NOTICES,
        board::BOARD_BYTES,
        matcher::PLACES,
        matcher::PROBES,
        matcher::MATCHER_BYTES,
        hello::MAX_INHERITED,
        hello::GRANTED,
        hello::WRONG_ABI,
        hello::DECLINED,
    );
    for (name, value) in [
        ("ABI_VERSION", u64::from(ABI_VERSION)),
        ("BLOCK", BLOCK),
        ("UNKNOWN", UNKNOWN),
        ("TAG_BYTES", size_of::<counterfoil_abi::Tag>() as u64),
        ("ARENA_MAGIC", arena::MAGIC),
        ("HELLO_MAGIC", hello::MAGIC),
        ("MATCHER_MAGIC", matcher::MAGIC),
        ("BOARD_MAGIC", board::MAGIC),
        ("LANE_HEAD_AT(0)", arena::lane_head_at(0) as u64),
        ("LANE_HEAD_AT(511)", arena::lane_head_at(511) as u64),
        ("LINES(63)", arena::lines(63)),
        ("LINES(64)", arena::lines(64)),
        ("RING_AT(0)", arena::ring_at(0) as u64),
        ("RING_AT(64)", arena::ring_at(64) as u64),
        ("RING_AT(511)", arena::ring_at(511) as u64),
    ] {
        f.push((format!("COUNTERFOIL_{name}"), value));
    }
    for (device, inode) in [(0, 0), (1, 2), (64_769, 1_048_577), (u64::MAX, u64::MAX), (1 << 63, 1)] {
        f.push((format!("counterfoil_key({device}ULL, {inode}ULL)"), matcher::key(device, inode)));
    }
    f.push(("sizeof(counterfoil_slot)".into(), size_of::<lane::Slot>() as u64));
    f
}

/// Names that the header defines as numbers, as the preprocessor and a look at its enums tell.
fn names_in(header: &str) -> Vec<String> {
    header
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let rest = line.strip_prefix("#define ").unwrap_or(line);
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_')
                .collect();
            let follows = &rest[name.len()..];
            let is_number = line.starts_with("#define ") && !follows.is_empty() || follows.starts_with(" = ");
            (name.starts_with("COUNTERFOIL_") && is_number).then_some(name)
        })
        .collect()
}

#[test]
#[cfg_attr(miri, ignore = "runs a C compiler")]
fn header_equals_crate() {
    let manifest = env!("CARGO_MANIFEST_DIR");
    let facts = facts();
    let mut source = String::from(
        "#include \"counterfoil.h\"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n",
    );
    for (expression, _) in &facts {
        writeln!(source, "printf(\"%llu\\n\", (unsigned long long)({expression}));").unwrap();
    }
    source.push_str("return 0;\n}\n");

    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, program) = (folder.join("header.c"), folder.join("header"));
    std::fs::write(&c, source).unwrap();
    let built = Command::new(std::env::var("CC").unwrap_or("cc".into()))
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I", manifest, "-o"])
        .args([&program, &c])
        .output()
        .expect("a C compiler called cc");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let out = Command::new(&program).output().unwrap();
    let printed: Vec<u64> =
        String::from_utf8(out.stdout).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    assert_eq!(printed.len(), facts.len());
    let differ: Vec<String> = facts
        .iter()
        .zip(&printed)
        .filter(|((_, rust), c)| rust != *c)
        .map(|((expression, rust), c)| format!("{expression}: {rust} in Rust, {c} in C"))
        .collect();
    assert!(differ.is_empty(), "{differ:#?}");

    // The other way round: the header has no number that this test doesn't compare.
    let header = std::fs::read_to_string(format!("{manifest}/counterfoil.h")).unwrap();
    let unknown: Vec<String> = names_in(&header)
        .into_iter()
        .filter(|name| !facts.iter().any(|(e, _)| e.split('(').next() == Some(name)))
        .collect();
    assert!(unknown.is_empty(), "in counterfoil.h only: {unknown:?}");
}
