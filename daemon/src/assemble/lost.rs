//! Streams that were open when an earlier daemon ended, and that ended since.
//!
//! Comes in: records of a program that was taken up again, about objects whose beginning only the earlier
//! daemon knew. Goes out: transfers that are `unverified: daemon-restarted`, so that nothing that was
//! transferred goes unmentioned. Where they led is not known any more.

use super::Assembler;
use super::program::{ArenaId, Program};
use crate::judged::{Context, Judged};
use crate::model::{Bytes, Channel, Endpoint, Reason, Tap, Transfer, Verdict};
use counterfoil_abi::UNKNOWN;
use counterfoil_abi::record::{Ended, How, Record};
use std::collections::HashMap;
use uuid::Uuid;

/// Objects of one program that are remembered as lost.
const MAX_LOST: usize = 4096;
/// Ticks until nobody's `Opened` can be on its way any more: lanes are read one after the other.
const PATIENCE: u64 = 64;

/// One such object.
#[derive(Default)]
pub struct Lost {
    by: u32,
    /// Where its bytes passed: out and in.
    taps: [Option<Tap>; 2],
    /// How far they were seen to go.
    seen: [u64; 2],
    ended: Option<Ended>,
    tick: u64,
}

impl Lost {
    fn is_tls(&self) -> bool {
        self.taps.iter().flatten().any(|t| matches!(t, Tap::TlsRead | Tap::TlsWrite))
            || self.ended.is_some_and(|e| e.seal_total > 0 || e.open_total > 0)
    }

    /// What it was, where all its tags went to the earlier daemon: only the totals tell.
    fn guess(&mut self, tls_nearby: bool) {
        let Some(ended) = self.ended else { return };
        let socket = ended.kernel_out != UNKNOWN || ended.kernel_in != UNKNOWN;
        let untagged = self.taps == [None, None];
        let taps = match (self.is_tls(), socket) {
            (true, _) => [Tap::TlsWrite, Tap::TlsRead],
            (false, _) if untagged && tls_nearby => return,
            (false, true) => [Tap::SockSend, Tap::SockRecv],
            (false, false) => [Tap::PipeWrite, Tap::PipeRead],
        };
        for ((tap, total), guess) in self.taps.iter_mut().zip([ended.out_total, ended.in_total]).zip(taps) {
            if total > 0 {
                tap.get_or_insert(guess);
            }
        }
    }
}

impl Assembler {
    /// A record about an object that is not known, of a program that was taken up again.
    pub(super) fn note_lost(&mut self, arena: ArenaId, by: u32, number: u32, record: &Record) {
        let tick = self.tick;
        let Some(program) = self.programs.get_mut(&arena).filter(|p| p.restarted && !p.said) else { return };
        if program.lost.len() >= MAX_LOST && !program.lost.contains_key(&number) {
            return;
        }
        let lost = program.lost.entry(number).or_default();
        (lost.by, lost.tick) = (by, tick);
        match record {
            Record::Blocks(b) => {
                let Some(tap) = Tap::from_code(b.header.tap) else { return };
                let d = match tap {
                    Tap::PipeWrite | Tap::SockSend | Tap::TlsWrite => 0,
                    Tap::PipeRead | Tap::SockRecv | Tap::TlsRead => 1,
                    _ => return,
                };
                lost.taps[d] = Some(tap);
                lost.seen[d] = lost.seen[d].max(b.offset + u64::from(b.length));
            }
            Record::Ended(e) if e.how != How::Checkpoint as u8 && e.how != How::Execed as u8 => {
                lost.ended = Some(*e);
            }
            _ => {}
        }
    }

    /// Says what has ended; `all`: what has not, too, because the program is gone.
    pub(super) fn say_lost(&mut self, arena: ArenaId, all: bool) {
        let tick = self.tick;
        let Some(program) = self.programs.get_mut(&arena) else { return };
        let numbers = &program.numbers;
        let mut said: HashMap<u32, Lost> = HashMap::new();
        program.lost.retain(|number, lost| {
            if numbers.contains_key(number) {
                return false;
            }
            let due = all || (lost.ended.is_some() && tick.saturating_sub(lost.tick) >= PATIENCE);
            if due {
                said.insert(*number, std::mem::take(lost));
            }
            !due
        });
        // A socket of which no tag came may be the one under a TLS stream: that stream is said.
        let tls = said.values().any(Lost::is_tls);
        for lost in said.values_mut() {
            lost.guess(tls);
        }
        let Some(program) = self.programs.get(&arena) else { return };
        let words: Vec<Judged> = said
            .values()
            .flat_map(|lost| [0, 1].map(|d| self.lost_transfer(program, lost, d)))
            .flatten()
            .collect();
        self.out.extend(words);
    }

    fn lost_transfer(&self, program: &Program, lost: &Lost, d: usize) -> Option<Judged> {
        let tap = lost.taps[d]?;
        let total = lost.ended.map_or(0, |e| [e.out_total, e.in_total][d]).max(lost.seen[d]);
        let process = program.process(lost.by);
        let end = Some(Endpoint {
            host: self.settings.hostname.clone(),
            tap,
            pid: process.pid,
            exe: process.exe.clone(),
            argv: process.argv.clone(),
            uid: process.uid,
            parent: process.parents.first().cloned(),
            local: None,
            remote: None,
            path: None,
            sha256: None,
            bytes: total,
            witnessed: 0,
            offered: 0,
            also: Vec::new(),
        });
        let [origin, destination] = if d == 0 { [end, None] } else { [None, end] };
        let now = self.timestamp(self.now);
        let transfer = Transfer {
            id: Uuid::now_v7(),
            verdict: Verdict::Unverified,
            reasons: vec![Reason::DaemonRestarted],
            channel: match tap {
                Tap::TlsRead | Tap::TlsWrite => Channel::Tls,
                Tap::PipeRead | Tap::PipeWrite => Channel::Pipe,
                _ => Channel::Tcp,
            },
            flow: None,
            assurance: None,
            class: None,
            bytes: Bytes {
                origin: origin.as_ref().map(|e| e.bytes),
                destination: destination.as_ref().map(|e| e.bytes),
            },
            altered: Vec::new(),
            origin,
            destination,
            legs: Vec::new(),
            started: now,
            ended: now,
            strip: Vec::new(),
            origin_digest: None,
            destination_digest: None,
        };
        let context = if d == 0 {
            Context { origin: Some(process), ..Context::default() }
        } else {
            Context { destination: Some(process), ..Context::default() }
        };
        Some(Judged::Transfer { transfer: Box::new(transfer), context: Box::new(context) })
    }
}
