//! The demo: a payment file is uploaded over TLS, once clean, once with a library inside the client
//! that changes an amount on its way to the cipher.
//!
//! Called by `commands::demo`. Everything is real: curl, `openssl s_server`, the library, the
//! stages, a syslog line over a datagram socket. Everything lies in one private directory that goes
//! away at the end.
#![forbid(unsafe_code)]

mod upload;

use crate::config::{Config, Facility, Sink, SinkKind, SyslogAddress, SyslogShape, Tls};
use crate::desk::Outcome;
use crate::library;
use crate::model::Severity;
use crate::place::Place;
use crate::report::style::{Colour, Style};
use crate::session::Session;
use anyhow::{Context, ensure};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The culprit's source; see the comment at its head.
const TAMPER: &str = include_str!("tamper.c");
/// A culprit that was built beforehand, beside the program or in its `../lib`.
const PREBUILT: &str = "libcounterfoil-demo-tamper.so";
const FILE: &str = "payments.json";
/// The order whose amount the culprit changes; `tamper.c` names it too.
const ORDER: &str = "PO-0612";

/// Payment orders, a line each, about 87 KiB: five blocks and a bit.
fn orders() -> String {
    const PAYEES: [&str; 4] = ["Northwind Ltd", "Contoso SA", "Fabrikam AG", "Tailspin BV"];
    let lines: Vec<String> = (0..1500u32)
        .map(|n| {
            let amount = if n == 612 { 1250 } else { 100 + n * 37 % 9000 };
            format!(
                "{{\"id\":\"PO-{n:04}\",\"payee\":\"{}\",\"amount\":\"{amount}.00\"}}",
                PAYEES[n as usize % 4]
            )
        })
        .collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// The line of `ORDER` in `body`.
fn order(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().find(|l| l.contains(ORDER)).unwrap_or("(not there)");
    crate::escape::text(line.trim_end_matches(',')).into_owned()
}

/// Shows it on `out`.
///
/// # Errors
/// Something that the demo needs is missing, or it didn't show what it should.
pub fn show(out: &mut impl Write, style: &Style) -> anyhow::Result<()> {
    let place = Place::make(0o700).context("can't make a private directory")?;
    let dir = place.path();
    let sent = orders();
    std::fs::write(dir.join(FILE), &sent)?;
    upload::certificate(dir)?;
    let tamper = culprit(dir)?;

    heading(out, style, "1  curl uploads a payment file over TLS to an openssl server. Nobody interferes.")?;
    let clean = scene(dir, None, out, style)?;
    ensure!(clean.body == sent.as_bytes(), "the clean upload did not arrive as it was sent");
    ensure!(clean.count("intact") >= 1, "the clean upload was not found intact");
    ensure!(clean.count("altered") == 0, "the clean upload was called altered");
    ensure!(clean.outcome_alarms.is_empty(), "the clean upload raised an alarm");

    heading(
        out,
        style,
        "2  The same upload, with a library inside curl that changes one amount between the program and the \
         cipher. The connection is encrypted, the certificate is good, curl reports success.",
    )?;
    let bad = scene(dir, Some(&tamper), out, style)?;
    writeln!(out, "curl was given   {}", order(sent.as_bytes()))?;
    writeln!(out, "the server got   {}", style.paint(Colour::Red, &order(&bad.body)))?;
    writeln!(out)?;
    writeln!(out, "{}", style.paint(Colour::Bold, "What syslog was sent:"))?;
    for line in &bad.syslog {
        writeln!(out, "{}", crate::escape::text(line))?;
    }
    ensure!(bad.body != sent.as_bytes(), "the culprit changed nothing");
    ensure!(bad.count("altered") == 1, "the alteration was not found");
    for rule in ["payload-altered", "cipher-mismatch"] {
        ensure!(bad.outcome_alarms.iter().any(|r| r == rule), "no {rule} was raised");
        ensure!(bad.syslog.iter().any(|l| l.contains(&format!("rule=\"{rule}\""))), "syslog got no {rule}");
    }
    writeln!(out)?;
    writeln!(
        out,
        "{}",
        style.paint(
            Colour::Green,
            "As it should be: clean was intact, and the changed amount was caught and located."
        )
    )?;
    Ok(())
}

fn heading(out: &mut impl Write, style: &Style, text: &str) -> std::io::Result<()> {
    writeln!(out)?;
    for line in style.wrap(text, 0) {
        writeln!(out, "{}", style.paint(Colour::Bold, &line))?;
    }
    out.flush()
}

/// What one upload showed.
struct Scene {
    body: Vec<u8>,
    transfers: std::collections::BTreeMap<String, u64>,
    outcome_alarms: Vec<String>,
    syslog: Vec<String>,
}

impl Scene {
    fn count(&self, verdict: &str) -> u64 {
        self.transfers.get(verdict).copied().unwrap_or(0)
    }
}

/// One upload in a session of its own, with its report.
fn scene(dir: &Path, tamper: Option<&Path>, out: &mut impl Write, style: &Style) -> anyhow::Result<Scene> {
    // Stands for /dev/log.
    let log = dir.join("log");
    let _ = std::fs::remove_file(&log);
    let receiver = UnixDatagram::bind(&log)?;
    let end = log.clone();
    // As a syslog daemon does: it reads all the time. An empty datagram ends it.
    let reader = std::thread::spawn(move || {
        let mut lines = Vec::new();
        let mut buffer = [0; 16384];
        while let Ok(n @ 1..) = receiver.recv(&mut buffer) {
            lines.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
        lines
    });
    let kind = SinkKind::Syslog {
        address: SyslogAddress::Unix(log),
        facility: Facility::default(),
        shape: SyslogShape::default(),
        tls: Tls::default(),
    };
    let sink = Sink { min_severity: Severity::Medium, heartbeat: None, ..Sink::of(kind) };
    let config = Config { sinks: vec![sink], ..Config::default() };
    let session = Session::start(&config, None, None)?;
    let received = upload::upload(
        dir,
        FILE,
        |server| _ = session.observe(server),
        |client| {
            session.observe(client);
            if let Some(tamper) = tamper {
                // Behind ours: it lies between the program's call and the cipher.
                client.env("LD_PRELOAD", library::preload(session.library(), Some(tamper.as_os_str())));
            }
        },
    );
    let outcome = session.finish();
    let received = received?;
    writeln!(out, "curl: {}", received.client)?;
    let Outcome { gathered, alarms, summary, .. } = outcome;
    gathered.write(&alarms, &summary, false, style, out)?;
    writeln!(out)?;
    UnixDatagram::unbound()?.send_to(&[], end)?;
    let syslog = reader.join().unwrap_or_default();
    let outcome_alarms = alarms.iter().map(|a| a.finding.rule.clone()).collect();
    Ok(Scene { body: received.body, transfers: summary.transfers, outcome_alarms, syslog })
}

/// The culprit: built beforehand, or now by the C compiler.
fn culprit(dir: &Path) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|e| e.parent().map(Path::to_owned));
    let places = beside.iter().flat_map(|b| [b.join(PREBUILT), b.join("../lib").join(PREBUILT)]);
    if let Some(found) = places.into_iter().find(|p| p.is_file()) {
        return Ok(found);
    }
    let (source, library) = (dir.join("tamper.c"), dir.join("libtamper.so"));
    std::fs::write(&source, TAMPER)?;
    let cc = std::env::var_os("CC").filter(|c| !c.is_empty()).unwrap_or_else(|| "cc".into());
    let built = Command::new(cc)
        .args(["-shared", "-fPIC", "-O1", "-fno-builtin", "-o"])
        .arg(&library)
        .arg(&source)
        .arg("-ldl")
        .output()
        .context("the demo builds a small C library and needs a C compiler (Debian: apt-get install gcc libc6-dev)")?;
    ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_culprit_and_the_orders_speak_of_the_same_line() {
        let orders = orders();
        let target = "\"PO-0612\",\"payee\":\"Northwind Ltd\",\"amount\":\"1250.00\"";
        assert_eq!(orders.matches(target).count(), 1);
        assert!(TAMPER.contains(&target.replace('"', "\\\"")));
        // Far from the edges of a record, so that it is copied in one piece however long curl's
        // request head is.
        let at = orders.find(target).unwrap() % 16384;
        assert!((1024..16384 - 1024).contains(&at), "{at}");
        assert!(serde_json::from_str::<serde_json::Value>(&orders).is_ok());
    }

    /// The scenery by itself, without the library: what arrives is what was sent, or with the one
    /// amount changed.
    #[test]
    fn the_scenery() {
        for needed in ["curl", "openssl", "cc"] {
            if Command::new(needed).arg("--version").output().is_err() {
                println!("skipped: {needed} is not installed");
                return;
            }
        }
        let place = Place::make(0o700).unwrap();
        let dir = place.path();
        let sent = orders();
        std::fs::write(dir.join(FILE), &sent).unwrap();
        upload::certificate(dir).unwrap();
        let tamper = culprit(dir).unwrap();
        let clean = upload::upload(dir, FILE, |_| (), |_| ()).unwrap();
        assert!(clean.body == sent.as_bytes(), "clean");
        let bad = upload::upload(dir, FILE, |_| (), |c| _ = c.env("LD_PRELOAD", &tamper)).unwrap();
        let changed =
            sent.replace("Northwind Ltd\",\"amount\":\"1250.00", "Northwind Ltd\",\"amount\":\"9250.00");
        assert_eq!(order(&bad.body), order(changed.as_bytes()));
        assert!(bad.body == changed.as_bytes(), "only that amount changed");
    }
}
