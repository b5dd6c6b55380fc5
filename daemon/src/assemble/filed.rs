//! Records of files find their way to `files`.

use super::Assembler;
use super::program::ArenaId;
use crate::content::Content;
use crate::sensitive::opens::Open;
use counterfoil_abi::record::{Named, Naming, Opened, Record, Tap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
        let (mine, rest): (Vec<_>, Vec<_>) = early.into_iter().partition(|(n, ..)| *n == number);
        program.early = rest;
        self.files.program(arena, &program.facts);
        if !self.files.opened(arena, pid, opened) {
            self.counts.dropped = self.counts.dropped.saturating_add(1);
            return;
        }
        let (inode, time) = ((opened.device, opened.inode), opened.header.time);
        if let Some(trail) = &mut self.trail {
            // Its own word: it can't know of what comes later.
            let (fd, empty_at) = (opened.fd, opened.peer_inode.min(time));
            let open = Open { arena, pid, number, fd, inode, time, empty_at, path: Vec::new(), read: None };
            trail.opened(open.clone());
            if let Some(gallery) = &mut self.gallery {
                let place = format!("/proc/{pid}/fd/{fd}");
                gallery.opened(open, |moment| trail.made_after(moment, inode, Path::new(&place)));
            }
        }
        for (_, by, record, _) in mine {
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
        if let (Some(trail), Record::Blocks(blocks)) = (&mut self.trail, record)
            && blocks.offset == 0
            && blocks.header.tap == Tap::FileRead as u8
        {
            let (length, tag) = super::apply::first(blocks);
            trail.read_first(arena, blocks.header.object, length, tag, &mut self.out);
            if let Some(gallery) = &mut self.gallery {
                gallery.read_first(arena, blocks.header.object, length, tag);
            }
        }
        if let (Some(gallery), Record::Classed(classed)) = (&mut self.gallery, record)
            && classed.header.tap == Tap::FileRead as u8
            && let Some(content) = Content::of(classed)
        {
            gallery.read(arena, classed.header.object, content);
        }
        self.files.told(arena, pid, self.tick, record)
    }

    /// A file has a name.
    pub(super) fn file_named(&mut self, arena: ArenaId, by: u32, named: &Named) {
        let Some(program) = self.programs.get(&arena) else { return };
        self.files.program(arena, &program.facts);
        self.files.named(arena, program.pid(by), named);
        let Some(trail) = &mut self.trail else { return };
        let (number, inode) = (named.header.object, (named.device, named.inode));
        match Naming::from_code(named.about) {
            Some(Naming::Path) => {
                if let Some(path) = self.files.path_of(arena, number).filter(|p| !p.is_empty()) {
                    trail.named(arena, number, path);
                    if let Some(gallery) = &mut self.gallery {
                        let place = Path::new(OsStr::from_bytes(path));
                        let made_after = |moment| trail.made_after(moment, inode, place);
                        gallery.named(arena, number, path, made_after);
                    }
                }
            }
            Some(Naming::Renamed | Naming::Linked) => trail.moved(inode, named.header.time),
            Some(Naming::Unlinked) | None => {}
        }
    }
}
