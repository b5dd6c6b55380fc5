//! The list's measures, for people.
#![forbid(unsafe_code)]

use super::source::Source;
use super::{Args, print};
use crate::escape::{clip, text};
use crate::ledger::{FLOOD, Load, Named};
use serde_json::{Value, json};

pub(super) fn stats(args: &Args) -> anyhow::Result<u8> {
    let load = Source::reading(args)?.load()?;
    print(&if args.json { object(&load).to_string() + "\n" } else { words(&load) })?;
    Ok(0)
}

fn object(load: &Load) -> Value {
    let mut object = json!({"type": "alarm-stats"});
    if let (Value::Object(object), Ok(Value::Object(fields))) = (&mut object, serde_json::to_value(load)) {
        object.extend(fields);
    }
    object
}

fn words(load: &Load) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| out.push_str(&format!("{name:<28} {value}\n"));
    let counts = |names: &[&str], of: &std::collections::BTreeMap<String, u64>| {
        let some: Vec<String> =
            names.iter().filter_map(|n| of.get(*n).map(|count| format!("{count} {n}"))).collect();
        if some.is_empty() { "none".to_owned() } else { some.join(", ") }
    };
    line(
        "alarms",
        &counts(
            &[
                "unacknowledged",
                "acknowledged",
                "returned",
                "shelved",
                "suppressed",
                "out-of-service",
                "normal",
            ],
            &load.states,
        ),
    );
    line("standing", &counts(&["critical", "high", "medium", "low", "info"], &load.standing));
    line("occurrences", &load.occurrences.to_string());
    let flood = if load.last_10_minutes > FLOOD { "  FLOOD: more than anybody can see to" } else { "" };
    line(
        "last 10 minutes",
        &format!("{}, and {} repeats{flood}", load.last_10_minutes, load.repeats_10_minutes),
    );
    line("average of 10 minutes (1 d)", &format!("{:.1}", load.average_10_minutes));
    let at = load.peak_at.map(|t| t.strftime(", from %Y-%m-%d %H:%MZ on").to_string()).unwrap_or_default();
    line("most in 10 minutes (1 d)", &format!("{}{at}", load.peak_10_minutes));
    line(
        "time in flood (1 d)",
        &format!("{:.1} % (more than {FLOOD} in 10 minutes)", load.flood_share * 100.0),
    );
    let mut table = |title: &str, count: Option<u64>, named: &[Named]| {
        if named.is_empty() {
            return;
        }
        out.push_str(&match count {
            Some(count) => format!("\n{title}: {count}\n"),
            None => format!("\n{title}\n"),
        });
        for n in named {
            out.push_str(&format!(
                "  {}  {:>8}×  since {}  {}: {}\n",
                text(&n.id),
                n.count,
                n.since.strftime("%Y-%m-%d %H:%MZ"),
                text(&n.rule),
                clip(&text(&n.title), 100)
            ));
        }
    };
    table("stale, standing for more than a day", Some(load.stale_count), &load.stale);
    table("chattering, three times within a minute", Some(load.chattering_count), &load.chattering);
    table("most frequent", None, &load.most_frequent);
    out
}
