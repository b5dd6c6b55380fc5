use super::*;
use crate::config;
use crate::judged::Context;
use crate::model::{Coverage, Range, Reason, Tap, Verdict};
use crate::sample;

fn rules() -> Rules {
    Rules::default()
}

fn one(what: What) -> Finding {
    let mut found = rules().findings(&Judged::Notice(Box::new(sample::notice(what))));
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn of(verdict: Verdict, reasons: &[Reason]) -> Vec<Finding> {
    let mut t = sample::transfer(verdict);
    t.reasons = reasons.to_vec();
    rules().findings(&Judged::Transfer { transfer: Box::new(t), context: Box::new(sample::context()) })
}

#[test]
fn what_is_well_or_unknown_raises_nothing() {
    assert!(of(Verdict::Intact, &[]).is_empty());
    assert!(of(Verdict::Unverified, &[Reason::PeerNotObserved]).is_empty());
    let coverage = Coverage { pid: 1, exe: None, observed: false, reason: None };
    assert!(rules().findings(&Judged::Coverage(coverage)).is_empty());
}

#[test]
fn an_altered_transfer_is_critical_and_says_where() {
    let found = of(Verdict::Altered, &[]);
    let [f] = &found[..] else { panic!("{found:?}") };
    assert_eq!((f.rule.as_str(), f.severity), ("payload-altered", Severity::Critical));
    assert_eq!((f.analytic, f.technique.as_deref()), (Analytic::An0703, Some("T1565.002")));
    assert_eq!(f.confidence.as_deref(), Some("proven"));
    assert!(f.message.contains("bytes 16384–32767 differ"), "{}", f.message);
    assert!(f.title.contains("curl (pid 11)") && f.title.contains("nginx (pid 22)"), "{}", f.title);
    assert_eq!(f.why["value"], 16384);
    assert_eq!(f.evidence["taps"][0], "tls-write");
    assert!(f.evidence["origin_digest"].is_string() && f.evidence["destination_digest"].is_string());
    assert!(!f.next.is_empty());
}

#[test]
fn hanging_up_early_is_no_truncation() {
    assert!(of(Verdict::Truncated, &[Reason::AbandonedByReceiver]).is_empty());
    let found = of(Verdict::Truncated, &[]);
    assert_eq!((found[0].rule.as_str(), found[0].severity), ("payload-truncated", Severity::Medium));
    assert!(found[0].message.contains("65536") && found[0].message.contains("40000"), "{}", found[0].message);
}

#[test]
fn the_early_word_and_the_last_one_have_one_key_and_one_transfer() {
    let t = sample::transfer(Verdict::Altered);
    let mut notice = sample::notice(What::AlteredWhileOpen {
        channel: t.channel,
        altered: t.altered.clone(),
        peer: sample::context().destination,
    });
    notice.transfer = Some(t.id);
    notice.process = sample::context().origin;
    let early = rules().findings(&Judged::Notice(Box::new(notice))).remove(0);
    let last = rules()
        .findings(&Judged::Transfer { transfer: Box::new(t), context: Box::new(sample::context()) })
        .remove(0);
    assert_eq!(early.key, last.key);
    assert_eq!((early.transfer, early.verdict, early.flow), (last.transfer, last.verdict, last.flow));
    assert!(early.message.contains("still open"));
}

#[test]
fn the_kernels_ports_are_not_in_the_key() {
    let at = |port: u16, exe: &str| {
        let mut context: Context = sample::context();
        context.connection.as_mut().unwrap().local = Some(format!("10.0.0.1:{port}"));
        context.origin.as_mut().unwrap().exe = Some(exe.into());
        let transfer = Box::new(sample::transfer(Verdict::Altered));
        rules().findings(&Judged::Transfer { transfer, context: Box::new(context) }).remove(0).key
    };
    assert_eq!(at(40001, "/usr/bin/curl"), at(40002, "/usr/bin/curl"));
    assert_ne!(at(40001, "/usr/bin/curl"), at(40001, "/usr/bin/wget"));
    assert!(at(40001, "/usr/bin/curl").contains("10.0.0.2:443"));
    // A name can't end a field and begin another.
    assert_ne!(at(1, "a\" user=\"root"), at(1, "a"));
    assert!(at(1, "a\" user=\"root").contains("\\\""));
}

#[test]
fn the_cipher_witness() {
    let range = Range { offset: 0, length: 16384 };
    let f = one(What::CipherMismatch { tap: Tap::TlsWrite, altered: vec![range], lacking: 0 });
    assert_eq!((f.rule.as_str(), f.severity), ("cipher-mismatch", Severity::Critical));
    assert_eq!(f.evidence["taps"], json!(["tls-write", "cipher-seal"]));
    assert!(f.message.contains("gave to TLS are not what was encrypted"), "{}", f.message);
    let f = one(What::CipherMismatch { tap: Tap::TlsRead, altered: vec![range], lacking: 0 });
    assert_eq!(f.evidence["taps"], json!(["tls-read", "cipher-open"]));
}

#[test]
fn a_refused_record() {
    let what = |by_peer| What::RecordRejected {
        tap: Tap::TlsRead,
        code: 281,
        by_peer,
        text: "bad-record-mac".into(),
        offset: 77,
    };
    let f = one(what(false));
    assert_eq!((f.rule.as_str(), f.severity), ("record-rejected", Severity::High));
    assert!(f.message.contains("bad-record-mac") && f.message.contains("77 bytes"), "{}", f.message);
    assert!(one(what(true)).message.contains("The peer of"));
}

#[test]
fn tls_that_ends_on_the_way_names_relay_and_receiver() {
    let what = |changed: Vec<Range>| What::TlsTerminated {
        onward: sample::context().connection,
        onward_flow: Some("ab".into()),
        onward_transfer: uuid::Uuid::nil(),
        relay: None,
        receiver: sample::context().destination,
        bytes: 65536,
        changed,
    };
    let f = one(what(vec![]));
    assert_eq!((f.rule.as_str(), f.severity), ("tls-terminated-in-path", Severity::High));
    assert!(
        f.message.contains("someone who is not observed") && f.message.contains("nginx"),
        "{}",
        f.message
    );
    assert_eq!(f.evidence["flows"][1], "ab");
    let f = one(what(vec![Range { offset: 0, length: 16384 }]));
    assert!(f.message.ends_with("and changed bytes 0–16383."), "{}", f.message);
}

#[test]
fn a_foreign_hook_is_high_unless_it_is_a_known_tool() {
    let with = |object: &str| {
        one(What::ForeignHook { symbol: "SSL_write".into(), object: object.into(), before: true })
    };
    let f = with("/tmp/libtamper.so");
    assert_eq!((f.rule.as_str(), f.severity), ("process-anomaly", Severity::High));
    assert_eq!(f.evidence["anomaly"], "foreign-hook");
    assert_eq!(with("/usr/lib/x86_64-linux-gnu/libfakeroot/libfakeroot-0.so").severity, Severity::Low);
    // Many functions of one library are one alarm.
    let other = one(What::ForeignHook {
        symbol: "SSL_read".into(),
        object: "/tmp/libtamper.so".into(),
        before: false,
    });
    assert_eq!(f.key, other.key);
}

#[test]
fn about_ourselves() {
    let lost = |tracked| What::CoverageLost {
        exe: "/opt/static".into(),
        reason: "static".into(),
        inherits_tracked: tracked,
    };
    let f = one(lost(false));
    assert_eq!((f.analytic, f.technique.clone(), f.severity), (Analytic::Itself, None, Severity::Info));
    assert_eq!(one(lost(true)).severity, Severity::Medium);
    assert_eq!(one(What::RecordsDropped { records: 9 }).rule, "records-dropped");
    assert_eq!(one(What::HostileArena { detail: "lines 0".into() }).severity, Severity::High);
    assert_eq!(one(What::DaemonRestarted { arenas: 1 }).rule, "daemon-restarted");
}

#[test]
fn ports_that_are_not_monitored_are_quiet_and_ranges_enrich() {
    let with = |text: &str| {
        let rules = Rules::new(config::parse(text).unwrap().config.watch);
        let transfer = Box::new(sample::transfer(Verdict::Altered));
        rules.findings(&Judged::Transfer { transfer, context: Box::new(sample::context()) })
    };
    assert_eq!(with("[watch]\nmonitored_ports = [443]").len(), 1);
    assert_eq!(with("[watch]\nmonitored_ports = [25]").len(), 0);
    assert_eq!(with("[watch]\ninternal_ranges = [\"10.0.0.0/8\"]")[0].evidence["service_is"], "internal");
    assert_eq!(with("[watch]\ninternal_ranges = [\"192.168.0.0/16\"]")[0].evidence["service_is"], "external");
}

#[test]
fn what_stands_around_a_process() {
    use crate::judged::{Anomaly, Flaw, Patch};
    use crate::model::{Process, ProcessName};
    use counterfoil_abi::record::Touch;
    let gdb = || Box::new(Process { pid: 99, exe: Some("/usr/bin/gdb".into()), ..Process::default() });
    let written = |how, started_it| Anomaly::MemoryWrite {
        writer: gdb(),
        how,
        address: Some(0x7f00),
        length: 8,
        started_it,
    };
    let patch = Patch {
        object: "/usr/lib/libssl.so.3".into(),
        symbol: Some("SSL_write".into()),
        offset: 0x1000,
        differing: 14,
        pages: 1,
        file: vec![0xf3, 0x0f],
        memory: vec![0xff, 0x25],
    };
    let parent = ProcessName { pid: 98, exe: Some("/usr/bin/python3".into()) };
    let by = |learnt| Anomaly::UnexpectedParent {
        parent: parent.clone(),
        expected: vec!["/usr/sbin/sshd".into()],
        learnt,
    };
    let binary = |flaw, service| Anomaly::UnexpectedBinary { flaw, service };
    let replaced = |unpackaged| Flaw::Replaced { was: "aa".repeat(32), unpackaged };
    use Severity::{High, Low, Medium};
    let cases = [
        (Anomaly::Tracer { tracer: gdb(), started_it: false }, "tracer", High, "traces curl (pid 11)"),
        (Anomaly::Tracer { tracer: gdb(), started_it: true }, "tracer", Low, "as a debugger does"),
        (written(Touch::Mem, false), "memory-write", High, "a write to /proc/PID/mem"),
        (written(Touch::Ptrace, true), "memory-write", Low, "by ptrace"),
        (Anomaly::CodePatched(patch), "code-patched", High, "SSL_write of libssl.so.3"),
        (by(false), "unexpected-parent", High, "only /usr/sbin/sshd do that"),
        (by(true), "unexpected-parent", High, "on this host /usr/sbin/sshd does"),
        (binary(Flaw::Memfd, true), "unexpected-binary", High, "in memory only"),
        (binary(Flaw::OpenFolder("/tmp".into()), false), "unexpected-binary", High, "below /tmp"),
        (binary(Flaw::Owner(1000), false), "unexpected-binary", Medium, "user 1000"),
        (binary(replaced(false), false), "unexpected-binary", High, "was not upgraded"),
        (binary(replaced(true), true), "unexpected-binary", Medium, "belongs to no package"),
        (
            Anomaly::UnexpectedClient { service: "/usr/sbin/sshd".into() },
            "unexpected-client",
            High,
            "to sshd",
        ),
    ];
    let mut keys = std::collections::BTreeSet::new();
    for (anomaly, kind, severity, words) in cases {
        let f = one(What::Anomaly(anomaly));
        assert_eq!((f.rule.as_str(), f.severity), ("process-anomaly", severity), "{kind}");
        assert_eq!(f.evidence["anomaly"], kind);
        assert!(f.message.contains(words), "{kind}: {}", f.message);
        assert!(!f.next.is_empty() && f.process.is_some());
        keys.insert(f.key);
    }
    // How it was written, who started what, and what the basis is make no alarm of their own.
    assert_eq!(keys.len(), 9, "{keys:#?}");
}
