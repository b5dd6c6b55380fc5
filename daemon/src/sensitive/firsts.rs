//! What begins as a sensitive file does: the first block of a stream, or all of a shorter one, has the same tag.
//!
//! Both orders: what was sent is remembered for a while, since what a file contains may become known later.
#![forbid(unsafe_code)]

use super::Trail;
use super::lineage::Sending;
use super::origins::Source;
use crate::assemble::pending::Value;
use crate::assemble::program::ArenaId;
use crate::judged::Judged;
use crate::model::Range;
use std::collections::{HashMap, VecDeque};

/// Shorter content proves nothing.
const LEAST: u32 = 48;
/// Beginnings of streams remembered.
const STREAMS: usize = 1024;
/// Beginnings of files that were seen to be read.
const FILES: usize = 4096;

/// Bytes, and their tag.
type First = (u32, Value);

/// All of them.
#[derive(Default)]
pub(super) struct Firsts {
    /// Of sensitive files, as they were read; the daemon itself knows those that it can read.
    files: HashMap<First, Source>,
    streams: VecDeque<(First, Sending)>,
    /// [`super::known::Known::generation`] when they were last laid side by side.
    generation: u64,
}

impl Trail {
    /// A file that is being read begins with this.
    pub fn read_first(
        &mut self,
        arena: ArenaId,
        number: u32,
        length: u32,
        tag: Value,
        out: &mut VecDeque<Judged>,
    ) {
        if length < LEAST || self.origins.quiet() {
            return;
        }
        let Some(reading) = self.origins.of(arena, number).filter(|r| r.source.same) else { return };
        let source = reading.source.clone();
        if self.first.files.len() >= FILES {
            self.first.files.clear();
        }
        let first = (length, tag);
        let same: Vec<Sending> =
            self.first.streams.iter().filter(|(f, _)| *f == first).map(|(_, s)| s.clone()).collect();
        same.into_iter().for_each(|sending| self.begins_as(&source, &sending, length, out));
        self.first.files.insert(first, source);
    }

    /// A stream begins with this. `sending`: who sends it where.
    pub fn sent_first(&mut self, length: u32, tag: Value, sending: &Sending, out: &mut VecDeque<Judged>) {
        if length < LEAST {
            return;
        }
        let first = (length, tag);
        let source = match self.known.held().begins_with(length, tag) {
            Some(secret) => Some(super::source(secret)),
            None => self.first.files.get(&first).cloned(),
        };
        match source {
            Some(source) => self.begins_as(&source, sending, length, out),
            None => {
                if self.first.streams.len() >= STREAMS {
                    self.first.streams.pop_front();
                }
                self.first.streams.push_back((first, sending.clone()));
            }
        }
    }

    /// There are streams of which nothing is known yet.
    pub(super) fn has_firsts(&self) -> bool {
        !self.first.streams.is_empty()
    }

    /// More is known of what the files contain.
    pub(super) fn lay_beside(&mut self, out: &mut VecDeque<Judged>) {
        let generation = self.known.generation();
        if std::mem::replace(&mut self.first.generation, generation) == generation {
            return;
        }
        let held = self.known.held();
        let found = self.first.streams.iter().filter_map(|((length, tag), sending)| {
            held.begins_with(*length, *tag).map(|s| (super::source(s), sending.clone(), *length))
        });
        let found: Vec<_> = found.collect();
        found
            .into_iter()
            .for_each(|(source, sending, length)| self.begins_as(&source, &sending, length, out));
    }

    fn begins_as(&mut self, source: &Source, sending: &Sending, length: u32, out: &mut VecDeque<Judged>) {
        self.proven(source, sending, vec![Range { offset: 0, length: u64::from(length) }], out);
    }

    /// Forgets what was sent before.
    pub(super) fn forget_firsts_before(&mut self, time: u64) {
        self.first.streams.retain(|(_, sending)| sending.grew >= time);
    }
}
