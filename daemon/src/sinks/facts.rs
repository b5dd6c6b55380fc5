//! What an alarm says, as names and plain values: what syslog, journald and CEF have in common.
//!
//! Comes in: an [`Alarm`]. Goes out: names (INTERFACE's, for syslog) with unescaped values, the most important ones first.
#![forbid(unsafe_code)]

use crate::escape::{clip, text};
use crate::model::{Alarm, Severity};

/// Names that every line has, however little room there is; those after them are left out first.
pub(super) const FIRST: usize = 11;

/// The facts that apply. What doesn't is left out.
pub(super) fn of(alarm: &Alarm) -> Vec<(&'static str, String)> {
    let f = &alarm.finding;
    let process = f.process.as_ref();
    let connection = f.connection.as_ref();
    let file = f.file.as_ref();
    let changed = alarm.changed.as_ref();
    let evidence = |name: &str| f.evidence.get(name).and_then(|v| v.as_str()).map(str::to_owned);
    let point = |name: &str| {
        f.point.as_ref().and_then(|p| p.get(name)).filter(|v| !v.is_null()).map(|v| match v.as_str() {
            Some(text) => text.to_owned(),
            None => v.to_string(),
        })
    };
    let baseline = f.why.get("baseline").and_then(|v| v.as_str()).map(str::to_owned);
    let reasons: Vec<&str> = f.reasons.iter().map(|r| r.word()).collect();
    let all = [
        ("id", Some(alarm.id.to_string())),
        ("analytic", word(&f.analytic)),
        ("rule", Some(f.rule.clone())),
        ("severity", word(&f.severity)),
        ("state", word(&alarm.state)),
        ("verdict", f.verdict.as_ref().and_then(word)),
        ("technique", f.technique.clone()),
        ("count", Some(alarm.count.to_string())),
        ("pid", process.map(|p| p.pid.to_string())),
        ("transfer", f.transfer.map(|t| t.to_string())),
        ("flow", f.flow.clone()),
        // FIRST ends here.
        ("exe", process.and_then(|p| p.exe.clone())),
        ("user", process.and_then(|p| p.user.clone())),
        ("file", file.and_then(|x| x.path.clone())),
        ("local", connection.and_then(|c| c.local.clone())),
        ("remote", connection.and_then(|c| c.remote.clone())),
        ("tag", point("tag")),
        ("condition", point("condition")),
        ("value", point("value")),
        ("limit", point("limit")),
        ("unit", point("unit")),
        ("source_time", point("source_time")),
        ("changed_by", changed.and_then(|c| c.user.clone().or_else(|| c.uid.map(|u| u.to_string())))),
        ("comment", changed.and_then(|c| c.comment.clone())),
        ("until", changed.and_then(|c| c.until).map(super::jsonl::time)),
        ("altered", altered(alarm)),
        ("sha256_origin", evidence("sha256_origin")),
        ("sha256_destination", evidence("sha256_destination")),
        ("argv", process.and_then(|p| p.argv.as_ref()).map(|argv| arguments(argv))),
        ("confidence", f.confidence.clone()),
        ("reasons", (!reasons.is_empty()).then(|| reasons.join(","))),
        ("direction", connection.and_then(|c| c.direction.clone())),
        ("server_name", connection.and_then(|c| c.server_name.clone())),
        ("bytes_out", connection.and_then(|c| c.bytes_out).map(|n| n.to_string())),
        ("bytes_in", connection.and_then(|c| c.bytes_in).map(|n| n.to_string())),
        ("label", file.and_then(|x| x.label.clone())),
        ("class", file.and_then(|x| x.class.as_ref()).and_then(word)),
        ("sha256_file", file.and_then(|x| x.sha256.clone())),
        ("sha256_exe", process.and_then(|p| p.sha256.clone())),
        ("package", process.and_then(|p| p.package.clone())),
        ("digest_origin", evidence("origin_digest")),
        ("digest_destination", evidence("destination_digest")),
        ("baseline", baseline),
        ("unit_name", process.and_then(|p| p.unit.clone())),
        ("container", process.and_then(|p| p.container.clone())),
        ("session", process.and_then(|p| p.session).map(|n| n.to_string())),
        ("uid", process.and_then(|p| p.uid).map(|n| n.to_string())),
        ("cwd", process.and_then(|p| p.cwd.clone())),
        ("raised", Some(super::jsonl::time(alarm.raised))),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// The text of an alarm.
pub(super) fn message(alarm: &Alarm) -> String {
    format!("{}: {}", alarm.finding.title, alarm.finding.message)
}

/// A serialised word of ours.
pub(super) fn word(value: &impl serde::Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

/// Milliseconds since 1970.
pub(super) fn ms(t: jiff::Timestamp) -> i64 {
    t.as_millisecond()
}

/// An alarm's severity as syslog counts.
#[must_use]
pub fn priority(severity: Severity) -> syslog_fmt::Severity {
    match severity {
        Severity::Critical => syslog_fmt::Severity::Crit,
        Severity::High => syslog_fmt::Severity::Err,
        Severity::Medium => syslog_fmt::Severity::Warning,
        Severity::Low => syslog_fmt::Severity::Notice,
        Severity::Info => syslog_fmt::Severity::Info,
    }
}

/// `16384+16384,49152+100`: offset and length; twelve at most, then `…`.
fn altered(alarm: &Alarm) -> Option<String> {
    let all = &alarm.finding.altered;
    let parts: Vec<String> = all.iter().take(12).map(|r| format!("{}+{}", r.offset, r.length)).collect();
    let more = if all.len() > 12 { ",…" } else { "" };
    (!all.is_empty()).then(|| format!("{}{more}", parts.join(",")))
}

/// A JSON array, so that no argument can look like two. Long ones are cut, and so is a long list; the array is whole.
pub(super) fn arguments(argv: &[String]) -> String {
    const ARGUMENT: usize = 64;
    const LIST: usize = 180;
    let mut out = String::from("[");
    for (i, argument) in argv.iter().enumerate() {
        let one = serde_json::Value::from(clip(&text(argument), ARGUMENT).into_owned()).to_string();
        if out.chars().count() + one.chars().count() > LIST {
            out.push_str(",\"…\"");
            break;
        }
        if i > 0 {
            out.push(',');
        }
        out.push_str(&one);
    }
    out.push(']');
    out
}

/// `ip:port`, taken apart; brackets taken off.
pub(super) fn ip_port(address: &str) -> Option<(String, u16)> {
    let address: std::net::SocketAddr = address.parse().ok()?;
    Some((address.ip().to_string(), address.port()))
}

/// This host's name.
pub(super) fn host() -> String {
    // RFC 5424 section 6: printable ASCII without spaces, 255 characters at most.
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().chars().filter(char::is_ascii_graphic).take(255).collect()
}
