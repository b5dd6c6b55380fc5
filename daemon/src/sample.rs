//! Transfers and notices to test with: curl uploads to nginx over TLS.

use crate::judged::{Context, Notice, What};
use crate::model::{
    Assurance, BlockRun, BlockState, Bytes, Channel, Connection, Endpoint, Process, ProcessName, Range, Tap,
    Transfer, Verdict,
};
use jiff::Timestamp;
use uuid::Uuid;

/// A moment that doesn't move.
pub fn moment() -> Timestamp {
    "2026-03-04T05:06:07.123456Z".parse().unwrap()
}

/// Process `pid` of `exe`.
pub fn process(pid: u32, exe: &str) -> Process {
    Process {
        pid,
        exe: Some(exe.into()),
        user: Some("pay".into()),
        uid: Some(1000),
        parents: vec![ProcessName { pid: 1, exe: Some("/usr/lib/systemd/systemd".into()) }],
        ..Process::default()
    }
}

fn endpoint(tap: Tap, pid: u32, exe: &str, local: &str, remote: &str, bytes: u64) -> Endpoint {
    Endpoint {
        host: "alpha".into(),
        tap,
        pid,
        exe: Some(exe.into()),
        argv: Some(vec![exe.into()]),
        uid: Some(1000),
        parent: None,
        local: Some(local.into()),
        remote: Some(remote.into()),
        path: None,
        sha256: None,
        bytes,
        witnessed: bytes,
        offered: 0,
        also: vec![],
    }
}

/// 64 KiB from curl to nginx. Altered: the second block. Truncated: 40,000 bytes arrived.
pub fn transfer(verdict: Verdict) -> Transfer {
    let arrived = if verdict == Verdict::Truncated { 40_000 } else { 65_536 };
    let run = |state, blocks| BlockRun { state, blocks };
    let altered = verdict == Verdict::Altered;
    Transfer {
        id: Uuid::now_v7(),
        verdict,
        reasons: vec![],
        channel: Channel::Tls,
        flow: Some("00112233445566778899aabbccddeeff".into()),
        assurance: Some(Assurance::KeyedTag),
        class: None,
        bytes: Bytes { origin: Some(65_536), destination: Some(arrived) },
        altered: if altered { vec![Range { offset: 16_384, length: 16_384 }] } else { vec![] },
        origin: Some(endpoint(Tap::TlsWrite, 11, "/usr/bin/curl", "10.0.0.1:40000", "10.0.0.2:443", 65_536)),
        destination: Some(endpoint(
            Tap::TlsRead,
            22,
            "/usr/sbin/nginx",
            "10.0.0.2:443",
            "10.0.0.1:40000",
            arrived,
        )),
        legs: vec![],
        started: moment(),
        ended: moment(),
        strip: if altered {
            vec![run(BlockState::Same, 1), run(BlockState::Differs, 1), run(BlockState::Same, 2)]
        } else {
            vec![run(BlockState::Same, 4)]
        },
        origin_digest: Some("aa11".repeat(8)),
        destination_digest: Some(if altered { "bb22" } else { "aa11" }.repeat(8)),
    }
}

/// The ends of [`transfer`].
pub fn context() -> Context {
    Context {
        origin: Some(process(11, "/usr/bin/curl")),
        destination: Some(process(22, "/usr/sbin/nginx")),
        connection: Some(connection()),
        ..Context::default()
    }
}

/// The connection of [`transfer`], as curl sees it.
pub fn connection() -> Connection {
    Connection {
        local: Some("10.0.0.1:40000".into()),
        remote: Some("10.0.0.2:443".into()),
        direction: Some("out".into()),
        ..Connection::default()
    }
}

/// A notice about curl.
pub fn notice(what: What) -> Notice {
    Notice {
        seen: moment(),
        process: Some(process(11, "/usr/bin/curl")),
        connection: Some(connection()),
        flow: Some("00112233445566778899aabbccddeeff".into()),
        transfer: None,
        what,
    }
}
