//! `process-anomaly`: what `surround` found around a watched process.
#![forbid(unsafe_code)]

use super::ends::{name, process};
use super::{finding, key, why};
use crate::judged::{Anomaly, Flaw, Notice, Patch};
use crate::model::{Finding, Process, Severity};
use counterfoil_abi::record::Touch;
use serde_json::{Value, json};

/// What a kind of anomaly has of its own.
struct Said {
    kind: &'static str,
    severity: Severity,
    title: String,
    message: String,
    next: &'static str,
    evidence: Value,
    /// What tells one such anomaly from another, besides the process.
    key: Vec<(&'static str, String)>,
    value: Value,
}

/// The finding for an anomaly.
pub(super) fn anomaly(notice: &Notice, anomaly: &Anomaly) -> Finding {
    let who = process(notice.process.as_ref());
    let said = match anomaly {
        Anomaly::Tracer { tracer, started_it } => traced(&who, tracer, *started_it),
        Anomaly::MemoryWrite { writer, how, address, length, started_it } => {
            written(&who, writer, *how, (*address, *length), *started_it)
        }
        Anomaly::CodePatched(patch) => patched(&who, patch),
        Anomaly::UnexpectedParent { parent, expected, learnt } => {
            let by = name(parent.exe.as_deref(), parent.pid);
            Said {
                kind: "unexpected-parent",
                severity: Severity::High,
                title: format!("{by} started {who}"),
                message: format!(
                    "{who} was started by {by}; {}.",
                    match (learnt, expected.is_empty()) {
                        (false, _) => format!("only {} do that", expected.join(", ")),
                        (true, true) => "on this host nobody else was seen to".into(),
                        (true, false) => format!("on this host {} does", expected.join(", ")),
                    }
                ),
                next: "See what the parent is and who runs it (parents in this alarm): a login that was not sshd's, \
                       a script that an attacker left, or a new way of starting it that is meant.",
                evidence: json!({"parent": parent, "expected": expected,
                                 "basis": if *learnt { "baseline" } else { "built-in" }}),
                key: vec![("parent", parent.exe.clone().unwrap_or_default())],
                value: json!(parent.exe),
            }
        }
        Anomaly::UnexpectedBinary { flaw, service } => binary(&who, notice.process.as_ref(), flaw, *service),
        Anomaly::UnexpectedClient { service } => Said {
            kind: "unexpected-client",
            severity: Severity::High,
            title: format!("{who} connected to {}", short(service)),
            message: format!(
                "{who} connected to {}{}; such programs were not seen to do that on this host.",
                short(service),
                super::ends::route(notice.connection.as_ref())
            ),
            next: "Find out what the program wants there: a scan, a home-made client, or a new tool that is meant. \
                   The service's own log says whether it got in.",
            evidence: json!({"service": service, "basis": "baseline"}),
            key: vec![("service", service.clone())],
            value: json!(service),
        },
    };
    let Said { kind, severity, title, message, next, mut evidence, key: own, value } = said;
    let mut f = finding("process-anomaly", severity, notice.seen);
    (f.title, f.message, f.next) = (title, message, next.into());
    if let Value::Object(map) = &mut evidence {
        map.shift_insert(0, "anomaly".into(), json!(kind));
    }
    f.evidence = evidence;
    f.why = why(value, Value::Null);
    if f.evidence["basis"] == "baseline" {
        f.why["tunable"] = json!("baseline_days");
        f.why["baseline"] = json!("first-seen");
    }
    let mut more: Vec<(&str, &str)> = vec![("anomaly", kind)];
    more.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    f.key = key(&f.rule, notice.process.as_ref(), None, None, &more);
    f.process.clone_from(&notice.process);
    f.connection.clone_from(&notice.connection);
    f
}

fn short(service: &str) -> &str {
    service.rsplit('/').next().unwrap_or(service)
}

/// Its digest, else its path: repeats are counted by it.
fn identity(process: &Process) -> String {
    process.sha256.clone().or_else(|| process.exe.clone()).unwrap_or_default()
}

fn traced(who: &str, tracer: &Process, started_it: bool) -> Said {
    let by = name(tracer.exe.as_deref(), tracer.pid);
    Said {
        kind: "tracer",
        severity: if started_it { Severity::Low } else { Severity::High },
        title: format!("{by} traces {who}"),
        message: format!(
            "{by}{} traces {who}: it can read and change all that passes there{}.",
            user(tracer),
            if started_it { " (it also started it, as a debugger does)" } else { "" }
        ),
        next: if started_it {
            "Somebody debugs the program; if that is meant to happen here, nothing needs doing."
        } else {
            "Ask who runs the tracer, and why: evidence names its user and arguments. What the process transferred \
             meanwhile is in doubt."
        },
        evidence: json!({"tracer": tracer, "started_it": started_it}),
        key: vec![("by", identity(tracer))],
        value: json!(tracer.exe),
    }
}

fn user(process: &Process) -> String {
    process.user.as_ref().map_or_else(String::new, |user| format!(", run by {user},"))
}

fn written(
    who: &str,
    writer: &Process,
    how: Touch,
    (address, length): (Option<u64>, u64),
    started_it: bool,
) -> Said {
    let by = name(writer.exe.as_deref(), writer.pid);
    let call = match how {
        Touch::ProcessVm => "process_vm_writev",
        Touch::Mem => "a write to /proc/PID/mem",
        Touch::Ptrace => "ptrace",
    };
    Said {
        kind: "memory-write",
        severity: if started_it { Severity::Low } else { Severity::High },
        title: format!("{by} wrote into {who}"),
        message: format!(
            "{by}{} wrote into the {} of {who}, by {call}.",
            user(writer),
            if length == 0 { "registers" } else { "memory" }
        ),
        next: "Ask who runs the writer, and why: evidence names its user and arguments. What the process transferred \
               since then is in doubt.",
        evidence: json!({"writer": writer, "how": how.word(), "address": address.map(|a| format!("{a:#x}")),
                         "length": length, "started_it": started_it}),
        key: vec![("by", identity(writer))],
        value: json!(how.word()),
    }
}

fn patched(who: &str, patch: &Patch) -> Said {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    // int3, on x86: what a debugger and the kernel's uprobes (eBPF tools) put there.
    let breakpoint =
        cfg!(target_arch = "x86_64") && patch.differing == 1 && patch.memory.first() == Some(&0xcc);
    let place = patch.symbol.clone().unwrap_or_else(|| format!("offset {:#x}", patch.offset));
    let library = short(&patch.object);
    Said {
        kind: "code-patched",
        severity: Severity::High,
        title: format!("Code of {library} was changed in {who}"),
        message: format!(
            "What {who} runs as {place} of {library} is not what its file says ({} bytes differ there{}): somebody \
             put {} into it.",
            patch.differing,
            if patch.pages > 1 { format!(", and {} more pages", patch.pages - 1) } else { String::new() },
            if breakpoint { "a breakpoint" } else { "code" }
        ),
        next: "Look for who wrote it: a debugger (see tracer and memory-write), an eBPF tool with a uprobe there, a \
               library loaded into the process, or the program itself. Unless it is meant, restart it from clean files; what it transferred meanwhile is in doubt.",
        evidence: json!({"object": patch.object, "symbol": patch.symbol, "offset": patch.offset,
                         "differing": patch.differing, "pages": patch.pages, "breakpoint": breakpoint,
                         "file": hex(&patch.file), "memory": hex(&patch.memory)}),
        key: vec![("file", patch.object.clone()), ("symbol", patch.symbol.clone().unwrap_or_default())],
        value: json!(place),
    }
}

fn binary(who: &str, process: Option<&Process>, flaw: &Flaw, service: bool) -> Said {
    let exe = process.and_then(|p| p.exe.as_deref()).unwrap_or("");
    let what = match flaw {
        Flaw::Memfd => "lies in memory only, in no file".to_owned(),
        Flaw::Deleted => "was removed when it started, and nothing stands in its place".into(),
        Flaw::WritableByOthers => "may be changed by every user".into(),
        Flaw::OpenFolder(folder) => format!("lies below {folder}, where every user may put files"),
        Flaw::Owner(uid) => format!("is run by root and may be changed by user {uid}, whose it is"),
        Flaw::Replaced { unpackaged: false, .. } => {
            "is not the one that ran before, and its package was not upgraded since".into()
        }
        Flaw::Replaced { unpackaged: true, .. } => {
            "is not the one that ran before, and belongs to no package".into()
        }
    };
    let severity = match flaw {
        Flaw::Replaced { unpackaged: true, .. } => Severity::Medium,
        Flaw::Owner(_) if !service => Severity::Medium,
        _ => Severity::High,
    };
    let mut evidence =
        json!({"flaw": flaw.word(), "exe": exe, "sha256": process.and_then(|p| p.sha256.clone())});
    match flaw {
        Flaw::OpenFolder(folder) => evidence["folder"] = json!(folder),
        Flaw::Owner(uid) => evidence["owner"] = json!(uid),
        Flaw::Replaced { was, .. } => {
            (evidence["was"], evidence["basis"]) = (json!(was), json!("baseline"));
        }
        _ => {}
    }
    Said {
        kind: "unexpected-binary",
        severity,
        title: format!("{who} is not the program that its name says"),
        message: format!("The program of {who}, {exe}, {what}."),
        next: "Compare the file with the package's (dpkg -V, rpm -V, sha256sum), and see who put it there and when.",
        evidence,
        key: vec![("flaw", flaw.word().into()), ("file", exe.into())],
        value: json!(exe),
    }
}
