//! The alarm about a delivered file, in words.
#![forbid(unsafe_code)]

use super::digest_words;
use super::entry::Entry;
use crate::detect::{self, ranges};
use crate::escape;
use crate::model::{FileFact, Finding, Process, Range, Severity};
use crate::rest::{AtRest, Tags};
use counterfoil_abi::BLOCK;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Ranges that an alarm lists.
const RANGES: usize = 32;

/// What a look found.
pub(super) enum Found {
    Content(Box<AtRest>),
    Gone,
    /// A link, a folder, a device.
    NotRegular,
}

impl Found {
    /// What is compared and remembered.
    pub(super) fn word(&self) -> String {
        match self {
            Self::Content(at_rest) => digest_words(at_rest),
            Self::Gone => "gone".into(),
            Self::NotRegular => "no regular file".into(),
        }
    }

    fn content(&self) -> Option<&AtRest> {
        match self {
            Self::Content(at_rest) => Some(at_rest),
            Self::Gone | Self::NotRegular => None,
        }
    }
}

/// The finding. `old`: nobody looked at the file between the delivery and now.
pub(super) fn changed(
    now: Timestamp,
    path: &str,
    entry: &Entry,
    tags: &Tags,
    found: &Found,
    old: bool,
) -> Finding {
    let severity = match found {
        // Whoever used it may have cleared it away.
        Found::Gone => Severity::Low,
        _ if old => Severity::Medium,
        _ => Severity::High,
    };
    let name = escape::text(path);
    let content = found.content();
    let differing = content.map(|c| differing(tags, &c.tags)).unwrap_or_default();
    let mut f = detect::finding("delivered-file-changed", severity, now);
    f.confidence = Some("proven".into());
    f.title = match found {
        Found::Content(_) => format!("A delivered file changed: {name}"),
        Found::Gone => format!("A delivered file is gone: {name}"),
        Found::NotRegular => format!("A delivered file was replaced by something else: {name}"),
    };
    f.message = format!(
        "{name}, {}, {}; no observed process did that.{}",
        delivered(entry),
        what(entry, found, &differing),
        if old { " The path was opted in after the delivery, so it is not known since when." } else { "" },
    );
    f.next = match found {
        Found::Gone => {
            "If whoever used the file clears it away, nothing needs doing; else find out who removed it (audit, shell \
             histories, timers), and whether it had been used before."
        }
        _ => {
            "Find out who wrote it: its owner and times (stat), who has it open (lsof, fuser), audit and shell \
             histories at the time it was modified; get the file again from its origin, and compare with counterfoil \
             verify."
        }
    }
    .into();
    f.key = format!(
        "delivered-file-changed file={path:?}{}",
        if matches!(found, Found::Gone) { " gone" } else { "" }
    );
    f.file = Some(FileFact {
        path: Some(path.to_owned()),
        sha256: content.map(digest_words),
        class: None,
        label: None,
    });
    f.process = entry.by.pid.map(|pid| Process {
        pid,
        exe: entry.by.exe.clone(),
        uid: entry.by.uid,
        ..Process::default()
    });
    f.transfer = entry.by.transfer;
    f.why = detect::why(found.word(), entry.sha256.clone());
    f.why["tunable"] = json!("hash_check_interval");
    f.evidence = evidence(path, entry, found, &differing);
    f.altered = differing;
    f
}

fn delivered(entry: &Entry) -> String {
    let who = entry.by.pid.map(|pid| detect::ends::name(entry.by.exe.as_deref(), pid));
    let verb = if entry.by.transfer.is_some() { "delivered" } else { "written" };
    format!(
        "{verb} by {} on {}{}",
        who.unwrap_or_else(|| "an unknown process".into()),
        entry.delivered.strftime("%Y-%m-%d %H:%M:%S UTC"),
        entry.by.from.as_ref().map(|f| format!(" from {}", escape::text(f))).unwrap_or_default(),
    )
}

fn what(entry: &Entry, found: &Found, differing: &[Range]) -> String {
    let Found::Content(now) = found else {
        return match found {
            Found::Gone => "is not there any more".into(),
            _ => "is no regular file any more".into(),
        };
    };
    if grew(entry, now) {
        return format!("has {} more bytes at its end", now.bytes - entry.bytes);
    }
    let size = match now.bytes == entry.bytes {
        true => format!("still has {} bytes", now.bytes),
        false => format!("has {} bytes instead of {}", now.bytes, entry.bytes),
    };
    let at = match differing {
        [] => String::new(),
        some => format!("; {} differ", ranges(some)),
    };
    format!("has another SHA-256 and {size}{at}")
}

/// What was delivered is still its beginning.
fn grew(entry: &Entry, now: &AtRest) -> bool {
    let prefix = now.prefix.as_ref().filter(|p| p.bytes == entry.bytes && now.bytes > entry.bytes);
    prefix.is_some_and(|p| Some(super::hex(&p.sha256)) == entry.sha256)
}

fn evidence(path: &str, entry: &Entry, found: &Found, differing: &[Range]) -> Value {
    let time = |nanos: u64| Timestamp::from_nanosecond(i128::from(nanos)).ok();
    let now = found.content();
    let replaced = match (&entry.seen, now) {
        (Some(seen), Some(now)) => Some(seen.inode != now.inode),
        _ => None,
    };
    json!({
        "path": path,
        "found": match found {
            Found::Content(now) if grew(entry, now) => "appended",
            Found::Content(_) => "changed",
            Found::Gone => "gone",
            Found::NotRegular => "no-regular-file",
        },
        "sha256_delivered": entry.sha256,
        "sha256_found": now.map(digest_words),
        "bytes_delivered": entry.bytes,
        "bytes_found": now.map(|n| n.bytes),
        "modified_before": entry.seen.as_ref().and_then(|s| time(s.modified)),
        "modified_found": now.and_then(|n| time(n.before.modified)),
        "changed_found": now.and_then(|n| time(n.before.changed)),
        "last_good": entry.seen.as_ref().map(|s| s.at),
        "replaced_by_another_file": replaced,
        "first_difference": differing.first().map(|r| r.offset),
        "ranges": differing,
        "read_past_page_cache": now.map(|n| n.uncached),
        "delivered": entry.delivered,
        "delivered_by": {"pid": entry.by.pid, "exe": entry.by.exe, "uid": entry.by.uid, "from": entry.by.from},
        "written_by": null,
    })
}

/// Blocks that differ, neighbours merged; nothing where either has no tags.
fn differing(before: &Tags, now: &Tags) -> Vec<Range> {
    if before.units == 0 || now.units == 0 {
        return vec![];
    }
    let mut found: Vec<Range> = Vec::new();
    let end = |t: &Tags| t.blocks() * BLOCK + t.tail.map_or(0, |(length, _)| u64::from(length));
    let (ended_before, ends_now) = (end(before), end(now));
    let longer = ended_before.max(ends_now);
    let block = |t: &Tags, i: u64| match t.tail {
        Some((length, tag)) if i == t.blocks() => Some((u64::from(length), tag)),
        _ => t.get(i).map(|tag| (BLOCK, tag)),
    };
    for index in 0..longer.div_ceil(BLOCK) {
        if block(before, index) == block(now, index) {
            continue;
        }
        let offset = index * BLOCK;
        let length = (longer - offset).min(BLOCK);
        let full = found.len() >= RANGES;
        match found.last_mut() {
            Some(last) if last.offset + last.length == offset => last.length += length,
            Some(last) if full => last.length = offset + length - last.offset,
            _ => found.push(Range { offset, length }),
        }
    }
    found
}
