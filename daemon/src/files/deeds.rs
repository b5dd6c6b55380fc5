//! What observed processes do to files, said at once: who looks after delivered files and workflows wants to know it
//! before a transfer can be told.
#![forbid(unsafe_code)]

use super::Files;
use super::open::{FileEnd, Way};
use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use crate::host::path_text;
use crate::judged::{Deed, DeedKind, Judged};

/// Deeds that wait for the next tick; beyond it they are as those of processes that are not observed.
const WAITING: usize = 65_536;

impl Files {
    /// A file was closed by who may have written to it.
    pub(super) fn written(&mut self, end: &FileEnd) {
        if end.way == Way::Written && (end.bytes > 0 || end.made_empty || end.at_rest) {
            self.deed(end.arena, end.pid, end.last, &end.path, end.inode, DeedKind::Written);
        }
    }

    /// Something was done to the file of that name. `time`: monotonic nanoseconds.
    pub(super) fn deed(
        &mut self,
        arena: ArenaId,
        pid: u32,
        time: u64,
        path: &[u8],
        inode: Inode,
        kind: DeedKind,
    ) {
        let Some(process) = self.who(arena, pid).filter(|_| self.deeds.len() < WAITING) else { return };
        let (seen, path) = (self.timestamp(time), path_text(path));
        let inode = (inode != (0, 0)).then_some(inode);
        self.deeds.push_back(Judged::Deed(Box::new(Deed { seen, process, path, inode, kind })));
    }
}
