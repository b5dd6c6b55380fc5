//! `verification-lost`: what could be verified before now can't.
//!
//! Comes in: final transfers. Goes out: [`Finding`]s, one for each change. Called by `desk`. What is remembered: for each
//! (program, destination, user, direction, channel) of a client, how often its transfers were verified. It is kept
//! in the ledger, so that it outlives a restart.
//!
//! Only the client's side: a server has clients of all kinds, and that one of them is not observed is no change.
#![forbid(unsafe_code)]

use crate::detect::{self, ends};
use crate::judged::Context;
use crate::ledger::Memory;
use crate::model::{Channel, Endpoint, Finding, Process, Reason, Severity, Transfer, Verdict};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;

/// The stage's name in the ledger.
pub const KIND: &str = "habits";
/// Verified so often, it is what is usual.
const USUAL: u64 = 3;
/// Habits remembered; the one that was verified longest ago goes first.
const KEPT: usize = 20_000;
/// A habit's last day in the ledger is brought up to date so often.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Why a verification is lost rather than not had this once: somebody took an end, or the cipher, out of sight.
const COVERAGE: &[Reason] = &[Reason::PeerNotObserved, Reason::UnsupportedCipher, Reason::ForeignHook];

/// What is usual.
pub struct Habits {
    known: HashMap<String, Habit>,
    memory: Option<Memory>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Habit {
    /// Transfers verified, since the last loss.
    verified: u64,
    /// The latest of them.
    last: Timestamp,
    /// The last one could not be verified, and that was said.
    lost: bool,
}

/// Whose transfer, and where to.
struct Subject<'a> {
    end: &'a Endpoint,
    process: Option<&'a Process>,
    destination: String,
    direction: &'static str,
}

impl Habits {
    /// Goes on with what an earlier daemon remembered.
    #[must_use]
    pub fn new(recalled: Vec<(String, String)>, memory: Option<Memory>) -> Self {
        let known = recalled
            .into_iter()
            .take(KEPT)
            .filter_map(|(key, json)| Some((key, serde_json::from_str(&json).ok()?)))
            .collect();
        Self { known, memory }
    }

    /// One final transfer.
    pub fn take(&mut self, transfer: &Transfer, context: &Context) -> Option<Finding> {
        let subject = subject(transfer, context)?;
        let key = key(&subject, transfer.channel)?;
        let now = transfer.ended;
        match transfer.verdict {
            // Altered and truncated are verified, too: that much was seen of both ends.
            Verdict::Intact | Verdict::Altered | Verdict::Truncated => {
                self.make_room();
                let habit =
                    self.known.entry(key.clone()).or_insert(Habit { verified: 0, last: now, lost: false });
                let aged = now.duration_since(habit.last) >= DAY;
                habit.verified = habit.verified.saturating_add(1);
                if habit.verified <= USUAL || aged || habit.lost {
                    habit.last = now;
                    habit.lost = false;
                    self.remember(&key);
                }
                None
            }
            Verdict::Unverified => {
                let habit = self.known.get_mut(&key)?;
                let coverage =
                    !transfer.reasons.is_empty() && transfer.reasons.iter().all(|r| COVERAGE.contains(r));
                if !coverage || habit.lost || habit.verified < USUAL {
                    return None;
                }
                let finding = lost(transfer, context, &subject, habit, &key);
                // It must become usual again before its loss is said again.
                habit.lost = true;
                habit.verified = 0;
                self.remember(&key);
                Some(finding)
            }
        }
    }

    fn remember(&self, key: &str) {
        if let (Some(memory), Some(habit)) = (&self.memory, self.known.get(key)) {
            memory.remember(key, habit);
        }
    }

    fn make_room(&mut self) {
        if self.known.len() < KEPT {
            return;
        }
        // A tenth at once, so that a full table doesn't cost a search for each transfer.
        let mut all: Vec<(Timestamp, String)> = self.known.iter().map(|(k, h)| (h.last, k.clone())).collect();
        all.sort_unstable();
        for (_, key) in all.into_iter().take(KEPT / 10) {
            self.known.remove(&key);
            if let Some(memory) = &self.memory {
                memory.forget(&key);
            }
        }
    }
}

/// The client's end, if it is observed and it can be told which end that is.
fn subject<'a>(transfer: &'a Transfer, context: &'a Context) -> Option<Subject<'a>> {
    let connection = context.connection.as_ref()?;
    let (service, remote) = ends::served_by(connection)?;
    // The connection is as the origin sees it, or as the destination does where only that was seen.
    let client_is_origin = transfer.origin.is_some() == remote;
    let (end, process, direction) = match client_is_origin {
        true => (transfer.origin.as_ref()?, context.origin.as_ref(), "out"),
        false => (transfer.destination.as_ref()?, context.destination.as_ref(), "in"),
    };
    Some(Subject { end, process, destination: service.to_string(), direction })
}

fn key(subject: &Subject<'_>, channel: Channel) -> Option<String> {
    let exe = subject.end.exe.as_deref()?;
    let uid = subject.end.uid.map(|u| u.to_string()).unwrap_or_default();
    Some(format!("{exe:?} {} uid={uid} {} {channel:?}", subject.destination, subject.direction))
}

fn lost(transfer: &Transfer, context: &Context, subject: &Subject<'_>, habit: &Habit, key: &str) -> Finding {
    let who = ends::endpoint(Some(subject.end));
    let to = &subject.destination;
    let words: Vec<&str> = transfer.reasons.iter().map(|r| r.word()).collect();
    let mut f = detect::finding("verification-lost", Severity::Medium, transfer.ended);
    f.title = format!("What {who} transfers with {to} can't be verified any more");
    f.message = format!(
        "{} transfers of this program with {to} were verified, the last one on {}; this one is unverified: {}.",
        habit.verified,
        habit.last.strftime("%Y-%m-%d %H:%M UTC"),
        words.join(", "),
    );
    f.next = match transfer.reasons.first() {
        Some(Reason::PeerNotObserved) => {
            "Look at what answers there now: a service that was restarted without the library, another program on that \
             port, or something in between."
        }
        Some(Reason::ForeignHook) => "See the alarm process-anomaly: which library stands in between, and who put it there.",
        _ => "Compare the TLS settings of both ends with what they were: which cipher is negotiated now, and why.",
    }
    .into();
    f.key = format!("verification-lost {key}");
    f.process = subject.process.cloned();
    f.connection.clone_from(&context.connection);
    f.transfer = Some(transfer.id);
    f.verdict = Some(transfer.verdict);
    f.reasons.clone_from(&transfer.reasons);
    f.flow.clone_from(&transfer.flow);
    f.why = detect::why(words.join(", "), "verified");
    f.why["baseline"] = json!("known");
    f.evidence = json!({
        "destination": to,
        "direction": subject.direction,
        "channel": transfer.channel,
        "verified_before": habit.verified,
        "last_verified": habit.last,
        "reasons": words,
    });
    f
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, Scribe};
    use crate::sample;

    fn intact() -> Transfer {
        sample::transfer(Verdict::Intact)
    }

    /// The peer is gone from sight.
    fn unverified(reasons: &[Reason]) -> Transfer {
        Transfer { reasons: reasons.to_vec(), destination: None, ..sample::transfer(Verdict::Unverified) }
    }

    fn take(habits: &mut Habits, transfer: &Transfer) -> Option<Finding> {
        habits.take(transfer, &sample::context())
    }

    #[test]
    fn a_loss_is_said_once_and_again_after_it_was_usual_again() {
        let mut habits = Habits::new(vec![], None);
        let lost = unverified(&[Reason::PeerNotObserved]);
        assert_eq!(take(&mut habits, &lost), None, "never verified, nothing lost");
        take(&mut habits, &intact());
        take(&mut habits, &intact());
        assert_eq!(take(&mut habits, &lost), None, "twice is no habit");
        take(&mut habits, &intact());
        let found = take(&mut habits, &lost).unwrap();
        assert_eq!((found.rule.as_str(), found.severity), ("verification-lost", Severity::Medium));
        assert_eq!(found.evidence["verified_before"], 3);
        assert_eq!(found.evidence["destination"], "10.0.0.2:443");
        assert_eq!(found.process.as_ref().unwrap().pid, 11, "the client");
        assert_eq!(take(&mut habits, &lost), None, "once");
        (0..2).for_each(|_| drop(take(&mut habits, &intact())));
        assert_eq!(take(&mut habits, &lost), None);
        (0..3).for_each(|_| drop(take(&mut habits, &intact())));
        assert!(take(&mut habits, &lost).is_some());
    }

    #[test]
    fn circumstance_is_no_loss() {
        let mut habits = Habits::new(vec![], None);
        (0..9).for_each(|_| drop(take(&mut habits, &intact())));
        for reasons in [
            &[Reason::StillOpen][..],
            &[Reason::AbandonedByReceiver],
            &[Reason::RecordsDropped],
            &[Reason::PeerNotObserved, Reason::ProcessKilled],
            &[Reason::KernelCopy],
            &[],
        ] {
            assert_eq!(take(&mut habits, &unverified(reasons)), None, "{reasons:?}");
        }
        // Another user, program, destination, direction or channel has habits of its own.
        let lost = || unverified(&[Reason::PeerNotObserved]);
        let mut other = lost();
        other.origin.as_mut().unwrap().uid = Some(7);
        assert_eq!(take(&mut habits, &other), None);
        let mut other = lost();
        other.origin.as_mut().unwrap().exe = Some("/usr/bin/wget".into());
        assert_eq!(take(&mut habits, &other), None);
        assert_eq!(take(&mut habits, &Transfer { channel: Channel::Tcp, ..lost() }), None);
        let mut elsewhere = sample::context();
        elsewhere.connection.as_mut().unwrap().remote = Some("10.0.0.9:443".into());
        assert_eq!(habits.take(&lost(), &elsewhere), None);
        assert!(take(&mut habits, &lost()).is_some());
    }

    #[test]
    fn a_server_with_a_client_that_is_not_observed_lost_nothing() {
        let mut habits = Habits::new(vec![], None);
        (0..9).for_each(|_| drop(take(&mut habits, &intact())));
        // Only nginx is seen: the connection is as it sees it.
        let alone = Transfer {
            origin: None,
            destination: intact().destination,
            ..unverified(&[Reason::PeerNotObserved])
        };
        let connection = crate::model::Connection {
            local: Some("10.0.0.2:443".into()),
            remote: Some("10.0.0.1:40000".into()),
            ..Default::default()
        };
        let context = Context { origin: None, connection: Some(connection), ..sample::context() };
        assert_eq!(habits.take(&alone, &context), None);
    }

    #[test]
    fn habits_outlive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let day = |transfer: &Transfer| {
            let ledger = Ledger::open(&state, crate::config::Ledger::default()).unwrap();
            let recalled = ledger.recall(KIND).unwrap();
            let scribe = Scribe::start(ledger).unwrap();
            let mut habits = Habits::new(recalled, Some(scribe.memory(KIND)));
            let found = take(&mut habits, transfer);
            drop(habits);
            scribe.finish();
            found
        };
        for _ in 0..3 {
            assert_eq!(day(&intact()), None);
        }
        let lost = unverified(&[Reason::ForeignHook]);
        assert!(day(&lost).is_some());
        assert_eq!(day(&lost), None, "it was said");
    }

    #[test]
    fn memory_is_bounded() {
        let mut habits = Habits::new(vec![], None);
        for i in 0..KEPT as u64 + 10 {
            let mut transfer = intact();
            transfer.origin.as_mut().unwrap().exe = Some(format!("/x/{i}"));
            transfer.ended += SignedDuration::from_secs(i as i64);
            take(&mut habits, &transfer);
        }
        assert!(habits.known.len() <= KEPT);
        assert!(!habits.known.keys().any(|k| k.starts_with("\"/x/0\"")), "the oldest goes");
    }
}
