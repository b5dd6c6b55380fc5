//! An alarm with everything that is known, for who has to decide something.
#![forbid(unsafe_code)]

use super::source::Source;
use super::{Args, NO, print, say};
use crate::alarms::state::word;
use crate::control::Shown;
use crate::escape::{clip, text};
use crate::model::{Alarm, Change, Process};
use crate::report::style::Style;
use crate::report::{self, words};
use crate::sinks::{alarm_json, transfer_json};
use serde_json::{Value, json};

/// Values longer than this are cut; JSON has them whole.
const VALUE: usize = 400;
/// Links of a chain that are shown.
const LINKS: usize = 40;

pub(super) fn show(args: &Args, id: &str) -> anyhow::Result<u8> {
    match Source::reading(args)?.show(id)? {
        Ok(shown) => {
            print(&if args.json {
                object(&shown).to_string() + "\n"
            } else {
                whole(&shown, &Style::stdout())
            })?;
            Ok(0)
        }
        Err(why) => {
            say(&why);
            Ok(NO)
        }
    }
}

/// The alarm's own object, with its history and the transfer that it is about.
fn object(shown: &Shown) -> Value {
    let mut object = alarm_json(&shown.alarm);
    object["history"] = json!(shown.history);
    object["about"] = shown.transfer.as_ref().map_or(Value::Null, transfer_json);
    object
}

/// Lines of a name and a value.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push_str(&format!("{name:<14} {}\n", text(value)));
        }
    }

    fn option(&mut self, name: &str, value: Option<&str>) {
        self.line(name, value.unwrap_or(""));
    }

    /// Our own words, wrapped.
    fn words(&mut self, name: &str, value: &str, style: &Style) {
        for (i, part) in style.wrap(&text(value), 15).iter().enumerate() {
            let name = if i == 0 { name } else { "" };
            self.0.push_str(&format!("{name:<14} {part}\n"));
        }
    }

    fn section(&mut self, title: &str) {
        self.0.push_str(&format!("\n{title}\n"));
    }
}

fn whole(shown: &Shown, style: &Style) -> String {
    let a = &shown.alarm;
    let f = &a.finding;
    let mut out = Lines::default();
    out.line("alarm", &a.id.to_string());
    out.line("rule", &f.rule);
    out.line("severity", &format!("{}: {}", words::severity(f.severity), words::consequence(f.severity)));
    out.option("technique", f.technique.as_deref());
    out.option("confidence", f.confidence.as_deref());
    out.line("state", word(a.state));
    out.line("count", &a.count.to_string());
    out.line("raised", &a.raised.to_string());
    out.line("last", &a.last.to_string());
    out.words("title", &f.title, style);
    out.words("message", &f.message, style);
    out.words("next", &f.next, style);
    facts(a, &mut out);
    if let Value::Object(evidence) = &f.evidence
        && evidence.values().any(|v| !v.is_null())
    {
        out.section("evidence");
        values(evidence, &mut out);
    }
    if let Value::Object(why) = &f.why
        && why.values().any(|v| !v.is_null())
    {
        out.section("why it was raised");
        values(why, &mut out);
    }
    if let Some(transfer) = &shown.transfer {
        out.section("transfer");
        out.0.push_str(&report::transfer(transfer, style));
        if !transfer.legs.is_empty() {
            let legs: Vec<String> = transfer.legs.iter().map(ToString::to_string).collect();
            out.line("  legs", &legs.join(" "));
        }
    }
    if !shown.history.is_empty() {
        out.section("history");
        for change in &shown.history {
            out.0.push_str(&format!("  {}\n", step(change, style)));
        }
    }
    out.0
}

fn facts(a: &Alarm, out: &mut Lines) {
    let f = &a.finding;
    if let Some(Value::Object(point)) = &f.point {
        out.section("point");
        values(point, out);
    }
    if let Some(p) = &f.process {
        process(p, out);
    }
    if let Some(c) = &f.connection {
        out.option("local", c.local.as_deref());
        out.option("remote", c.remote.as_deref());
        out.option("direction", c.direction.as_deref());
        out.option("server name", c.server_name.as_deref());
        let bytes = |n: Option<u64>| n.map(|n| n.to_string());
        out.option("bytes out", bytes(c.bytes_out).as_deref());
        out.option("bytes in", bytes(c.bytes_in).as_deref());
    }
    if let Some(file) = &f.file {
        out.option("file", file.path.as_deref());
        out.option("  label", file.label.as_deref());
        out.option("  sha256", file.sha256.as_deref());
    }
    out.line("transfer", &f.transfer.map(|t| t.to_string()).unwrap_or_default());
    out.option("flow", f.flow.as_deref());
    out.option("verdict", f.verdict.map(words::verdict));
    if !f.altered.is_empty() {
        out.line("altered", &words::ranges(&f.altered));
    }
    let reasons: Vec<&str> = f.reasons.iter().map(|r| r.word()).collect();
    out.line("reasons", &reasons.join(", "));
}

fn process(p: &Process, out: &mut Lines) {
    out.line("process", &report::process_name(p));
    out.option("  exe", p.exe.as_deref());
    out.option("  sha256", p.sha256.as_deref());
    out.option("  package", p.package.as_deref());
    out.line("  argv", &p.argv.as_ref().map(|a| a.join(" ")).unwrap_or_default());
    out.option("  cwd", p.cwd.as_deref());
    out.option("  user", p.user.as_deref());
    out.line("  uid", &p.uid.map(|uid| uid.to_string()).unwrap_or_default());
    out.option("  unit", p.unit.as_deref());
    out.option("  container", p.container.as_deref());
    out.line("  started", &p.started.map(|t| t.to_string()).unwrap_or_default());
    let parents: Vec<String> =
        p.parents.iter().map(|p| format!("{} ({})", p.exe.as_deref().unwrap_or("?"), p.pid)).collect();
    out.line("  parents", &parents.join(" < "));
}

fn values(object: &serde_json::Map<String, Value>, out: &mut Lines) {
    for (name, value) in object.iter().filter(|(_, v)| !v.is_null()) {
        let name = format!("  {}", text(name));
        match value {
            // A chain, say: a line for each of its links.
            Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
                for (i, link) in list.iter().take(LINKS).enumerate() {
                    out.line(if i == 0 { &name } else { "" }, &clip(&plain(link), VALUE));
                }
                if list.len() > LINKS {
                    out.line("", &format!("and {} more", list.len() - LINKS));
                }
            }
            value => out.line(&name, &clip(&plain(value), VALUE)),
        }
    }
}

/// A value without its brackets and quotes: `exe /usr/bin/scp, pid 11`.
fn plain(value: &Value) -> String {
    let some: Vec<String> = match value {
        Value::String(text) => return text.clone(),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(object) => object
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(name, v)| {
                if v.is_object() { format!("{name} ({})", plain(v)) } else { format!("{name} {}", plain(v)) }
            })
            .collect(),
        other => return other.to_string(),
    };
    some.join(", ")
}

/// `2026-03-04 05:06:07Z  unacknowledged → acknowledged  acknowledge, pat (uid 1000): ticket 4711`.
fn step(change: &Change, style: &Style) -> String {
    let from = change.from.map(|s| format!("{} {} ", word(s), style.arrow())).unwrap_or_default();
    let until =
        change.until.map(|t| format!(" until {}", t.strftime("%Y-%m-%d %H:%M:%SZ"))).unwrap_or_default();
    let who = match (&change.user, change.uid) {
        (Some(user), Some(uid)) => format!(", {} (uid {uid})", text(user)),
        (Some(user), None) => format!(", {}", text(user)),
        (None, Some(uid)) => format!(", uid {uid}"),
        (None, None) => String::new(),
    };
    let comment = change.comment.as_ref().map(|c| format!(": {}", text(c))).unwrap_or_default();
    let at = change.at.strftime("%Y-%m-%d %H:%M:%SZ");
    format!("{at}  {from}{}{until}  {}{who}{comment}", word(change.to), text(&change.why))
}

#[cfg(test)]
mod tests {
    use super::super::row::row;
    use super::*;
    use crate::model::AlarmState;
    use crate::{alarms::Alarms, detect::Rules, judged::Judged, model::Verdict, sample};

    #[test]
    fn a_row_and_the_whole() {
        let transfer = sample::transfer(Verdict::Altered);
        let judged =
            Judged::Transfer { transfer: Box::new(transfer.clone()), context: Box::new(sample::context()) };
        let mut a = Alarms::default().take(Rules::default().findings(&judged).remove(0)).alarm;
        let line = row(&a, &Style::plain());
        assert!(line.contains("CRITICAL") && line.contains("1×  payload-altered: Data changed"), "{line}");
        a.finding.process.as_mut().unwrap().exe = Some("/x\x1b[2J\ny".into());
        a.finding.evidence["chain"] =
            json!([{"step": "read", "by": {"pid": 11}}, {"step": "sent\x1b", "to": null}]);
        let raised = a.changed.clone().unwrap();
        let seen = Change {
            from: Some(AlarmState::Unacknowledged),
            to: AlarmState::Acknowledged,
            uid: Some(1000),
            user: Some("pat".into()),
            why: "acknowledge".into(),
            comment: Some("ticket\n4711".into()),
            ..raised.clone()
        };
        let shown = Shown { alarm: a, history: vec![raised, seen], transfer: Some(transfer) };
        let whole = whole(&shown, &Style::plain());
        assert!(!whole.contains('\x1b') && whole.contains("/x\\x1b[2J\\x0ay"), "{whole}");
        assert!(whole.contains("altered        bytes 16384–32767"), "{whole}");
        assert!(whole.contains("parents      /usr/lib/systemd/systemd (1)"), "{whole}");
        assert!(whole.contains("  chain        step read, by (pid 11)\n"), "{whole}");
        assert!(whole.contains("\n               step sent\\x1b\n"), "{whole}");
        assert!(whole.contains("█▒██"), "the strip of blocks: {whole}");
        let step = "unacknowledged → acknowledged  acknowledge, pat (uid 1000): ticket\\x0a4711\n";
        assert!(whole.contains(step), "{whole}");
        let object = object(&shown);
        assert_eq!(object["history"][1]["uid"], 1000);
        assert_eq!(object["about"]["type"], "transfer");
    }
}
