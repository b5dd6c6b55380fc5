//! `payload-altered` and `payload-truncated`: a transfer's two ends disagree.
#![forbid(unsafe_code)]

use super::ends::{channel as channel_words, endpoint, process as process_words, ranges, route};
use super::{files, finding, key, why};
use crate::judged::{Context, Notice};
use crate::model::{Channel, FileFact, Finding, Process, Range, Reason, Severity, Transfer, Verdict};
use serde_json::{Value, json};

/// The finding of a final transfer, if it has one.
pub(super) fn judge(transfer: &Transfer, context: &Context) -> Option<Finding> {
    match transfer.verdict {
        Verdict::Altered if transfer.channel == Channel::File => Some(match context.replaced {
            true => files::replaced(transfer, context),
            false => files::altered(transfer, context),
        }),
        Verdict::Altered if context.replaced => Some(replaced(transfer, context)),
        Verdict::Altered => Some(altered(transfer, context)),
        // Who hangs up early loses the rest by its own choice.
        Verdict::Truncated if !transfer.reasons.contains(&Reason::AbandonedByReceiver) => {
            let file = transfer.channel == Channel::File;
            Some(if file { files::truncated(transfer, context) } else { truncated(transfer, context) })
        }
        _ => None,
    }
}

fn altered(transfer: &Transfer, context: &Context) -> Finding {
    let what = Altered {
        channel: transfer.channel,
        ranges: &transfer.altered,
        origin: endpoint(transfer.origin.as_ref()),
        destination: endpoint(transfer.destination.as_ref()),
        open: false,
    };
    let mut f = what.finding(transfer.ended, context.origin.as_ref(), context.destination.as_ref(), context);
    whole(&mut f, transfer);
    f.why = why(altered_bytes(&transfer.altered), 0);
    f
}

/// Nothing is left of it but its length and its kind.
fn replaced(transfer: &Transfer, context: &Context) -> Finding {
    let mut f = altered(transfer, context);
    f.rule = "payload-replaced".into();
    f.severity = Severity::High;
    let (origin, destination) = (endpoint(transfer.origin.as_ref()), endpoint(transfer.destination.as_ref()));
    f.title = format!("Something else arrived at {destination} than {origin} sent");
    f.message = format!(
        "What {destination} read over {}{} is of the length and kind ({}) of what {origin} wrote, and has nothing else in \
         common with it: no block of the {} bytes is the same.",
        channel_words(transfer.channel),
        route(context.connection.as_ref()),
        transfer.class.map_or("?", |class| class.word()),
        transfer.bytes.origin.unwrap_or(0),
    );
    f.key = f.key.replacen("payload-altered", "payload-replaced", 1);
    f
}

/// The same, said while the connection is still open.
pub(super) fn altered_while_open(
    notice: &Notice,
    channel: Channel,
    altered: &[Range],
    peer: Option<&Process>,
) -> Finding {
    let what = Altered {
        channel,
        ranges: altered,
        origin: process_words(notice.process.as_ref()),
        destination: process_words(peer),
        open: true,
    };
    let context = Context { connection: notice.connection.clone(), ..Context::default() };
    let mut f = what.finding(notice.seen, notice.process.as_ref(), peer, &context);
    f.transfer = notice.transfer;
    f.flow.clone_from(&notice.flow);
    f.verdict = Some(Verdict::Altered);
    f.why = why(altered_bytes(altered), 0);
    f.evidence = json!({"channel": channel, "ranges": altered, "connection_open": true});
    f
}

struct Altered<'a> {
    channel: Channel,
    ranges: &'a [Range],
    origin: String,
    destination: String,
    open: bool,
}

impl Altered<'_> {
    fn finding(
        &self,
        seen: jiff::Timestamp,
        origin: Option<&Process>,
        destination: Option<&Process>,
        context: &Context,
    ) -> Finding {
        let mut f = finding("payload-altered", Severity::Critical, seen);
        f.confidence = Some("proven".into());
        f.title = format!("Data changed between {} and {}", self.origin, self.destination);
        f.message = format!(
            "{} differ between what {} wrote and what {} read over {}{}{}.",
            ranges(self.ranges),
            self.origin,
            self.destination,
            channel_words(self.channel),
            route(context.connection.as_ref()),
            if self.open { "; the connection is still open" } else { "" },
        );
        f.next = match self.channel {
            Channel::Tls => {
                "TLS protects the path, so look inside the two programs: a cipher-mismatch alarm on the same flow \
                 names the end; on it compare /proc/PID/maps with what the package installed, and look for \
                 LD_PRELOAD and /etc/ld.so.preload."
            }
            Channel::Tcp => {
                "Plain TCP can be changed by whatever forwards it: capture at both ends, and look at proxies, NAT \
                 helpers and netfilter or eBPF programs on the way. Move the transfer to TLS."
            }
            _ => {
                "Both ends are on this host: look at libraries loaded into the two programs (/proc/PID/maps) and \
                 at who traces them (TracerPid in /proc/PID/status)."
            }
        }
        .into();
        f.key = key("payload-altered", origin.or(destination), context.connection.as_ref(), destination, &[]);
        f.process = origin.or(destination).cloned();
        f.connection.clone_from(&context.connection);
        f.altered = self.ranges.to_vec();
        f
    }
}

fn truncated(transfer: &Transfer, context: &Context) -> Finding {
    let (origin, destination) = (context.origin.as_ref(), context.destination.as_ref());
    let mut f = finding("payload-truncated", Severity::Medium, transfer.ended);
    let (sent, arrived) = (transfer.bytes.origin.unwrap_or(0), transfer.bytes.destination.unwrap_or(0));
    f.confidence = Some("proven".into());
    f.title = format!("Data cut short on its way to {}", endpoint(transfer.destination.as_ref()));
    f.message = format!(
        "{} wrote {sent} bytes over {}{}; {} got the first {arrived} and then the end of the stream.",
        endpoint(transfer.origin.as_ref()),
        channel_words(transfer.channel),
        route(context.connection.as_ref()),
        endpoint(transfer.destination.as_ref()),
    );
    f.next =
        "Look for resets, time-outs and restarts at that time in both programs' logs and in between; then \
              check what the receiver did with the incomplete data."
            .into();
    f.key = key("payload-truncated", origin.or(destination), context.connection.as_ref(), destination, &[]);
    f.process = origin.or(destination).cloned();
    f.connection.clone_from(&context.connection);
    whole(&mut f, transfer);
    f.why = why(sent.saturating_sub(arrived), 0);
    f
}

/// What all of these rules take over from the transfer.
pub(super) fn whole(f: &mut Finding, t: &Transfer) {
    f.transfer = Some(t.id);
    f.verdict = Some(t.verdict);
    f.reasons.clone_from(&t.reasons);
    f.flow.clone_from(&t.flow);
    f.evidence = json!({
        "channel": t.channel,
        "ranges": t.altered,
        "bytes": t.bytes,
        "assurance": t.assurance,
        "origin_digest": t.origin_digest,
        "destination_digest": t.destination_digest,
        "sha256_origin": t.origin.as_ref().and_then(|e| e.sha256.clone()),
        "sha256_destination": t.destination.as_ref().and_then(|e| e.sha256.clone()),
        "taps": [t.origin.as_ref().map(|e| e.tap.word()), t.destination.as_ref().map(|e| e.tap.word())],
        "legs": t.legs,
    });
    let file = t.origin.as_ref().and_then(|e| e.path.as_ref().map(|path| (path, &e.sha256)));
    if let (Channel::File, Some((path, sha256))) = (t.channel, file) {
        f.file =
            Some(FileFact { path: Some(path.clone()), sha256: sha256.clone(), class: t.class, label: None });
        f.key.push_str(&format!(" file={path:?}"));
    }
}

pub(super) fn altered_bytes(ranges: &[Range]) -> Value {
    json!(ranges.iter().fold(0u64, |sum, r| sum.saturating_add(r.length)))
}
