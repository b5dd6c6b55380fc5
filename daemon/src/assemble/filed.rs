//! Records of files find their way to `files`.

use super::Assembler;
use super::program::ArenaId;
use counterfoil_abi::record::{Named, Opened, Record};

impl Assembler {
    /// A file was opened, or was open when its program began.
    pub(super) fn file_opened(&mut self, arena: ArenaId, by: u32, opened: &Opened) {
        let number = opened.header.object;
        let Some(program) = self.programs.get_mut(&arena) else { return };
        if number == 0 || program.numbers.contains_key(&number) {
            return;
        }
        let pid = program.pid(by);
        let early = if program.early.is_empty() { Vec::new() } else { std::mem::take(&mut program.early) };
        let (mine, rest): (Vec<_>, Vec<_>) = early.into_iter().partition(|(n, _, _)| *n == number);
        program.early = rest;
        self.files.program(arena, &program.facts);
        if !self.files.opened(arena, pid, opened) {
            self.counts.dropped = self.counts.dropped.saturating_add(1);
            return;
        }
        for (_, by, record) in mine {
            match *record {
                Record::Named(named) => self.file_named(arena, by, &named),
                record => _ = self.file_told(arena, by, &record),
            }
        }
    }

    /// A record of an object that is none of ours. False: it is no file, either.
    #[inline]
    pub(super) fn file_told(&mut self, arena: ArenaId, by: u32, record: &Record) -> bool {
        let pid = self.programs.get(&arena).map_or(by, |p| p.pid(by));
        self.files.told(arena, pid, self.tick, record)
    }

    /// A file has a name.
    pub(super) fn file_named(&mut self, arena: ArenaId, by: u32, named: &Named) {
        let Some(program) = self.programs.get(&arena) else { return };
        self.files.program(arena, &program.facts);
        self.files.named(arena, program.pid(by), named);
    }
}
