//! What files are called, and how that changes.
//!
//! Comes in: `Named` records, long names in pieces. Goes out: the name that a file had in the end, after
//! renames; or that it has none any more. A name counts from whoever may rename the file anyway.

use crate::assemble::program::ArenaId;
use crate::host::facts::Inode;
use counterfoil_abi::record::{Named, Naming};
use std::collections::{HashMap, VecDeque};

/// Names whose last piece has not come.
const MAX_PARTS: usize = 256;
/// Changes remembered of one file.
const MAX_CHANGES: usize = 16;
/// Files whose changes are remembered.
const MAX_FILES: usize = 50_000;

/// A whole name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// What of it.
    pub about: Naming,
    /// The name.
    pub path: Vec<u8>,
}

#[derive(Debug)]
struct Change {
    time: u64,
    arena: ArenaId,
    uid: Option<u32>,
    name: Name,
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    parts: HashMap<(ArenaId, u32, u32), Vec<u8>>,
    changes: HashMap<Inode, Vec<Change>>,
    /// Oldest first, to be forgotten.
    order: VecDeque<(u64, Inode)>,
}

impl Names {
    /// Takes in a name or a piece of one; the whole name with its last piece.
    pub fn piece(&mut self, arena: ArenaId, by: u32, named: &Named) -> Option<Name> {
        let about = Naming::from_code(named.about)?;
        let text = &named.text[..usize::from(named.length).min(named.text.len())];
        let (at, total) = (usize::from(named.at), usize::from(named.total));
        let key = (arena, by, named.header.object);
        let mut path = if at == 0 { Vec::new() } else { self.parts.remove(&key)? };
        if path.len() != at {
            return None;
        }
        path.extend_from_slice(text);
        if path.len() < total {
            if self.parts.len() < MAX_PARTS {
                self.parts.insert(key, path);
            }
            return None;
        }
        Some(Name { about, path })
    }

    /// A file's name changed.
    pub fn changed(&mut self, inode: Inode, time: u64, arena: ArenaId, uid: Option<u32>, name: Name) {
        if self.changes.len() >= MAX_FILES
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.changes.remove(&oldest);
        }
        let changes = self.changes.entry(inode).or_default();
        if changes.is_empty() {
            self.order.push_back((time, inode));
        }
        if changes.len() >= MAX_CHANGES {
            changes.remove(0);
        }
        changes.push(Change { time, arena, uid, name });
        changes.sort_by_key(|c| c.time);
    }

    /// What a file that was called `path` when `arena` opened it is called now; None: it was removed.
    pub fn now(
        &self,
        inode: Inode,
        path: &[u8],
        since: u64,
        arena: ArenaId,
        uid: Option<u32>,
    ) -> Option<Vec<u8>> {
        let mut names = vec![path.to_vec()];
        let changes = self.changes.get(&inode).into_iter().flatten();
        let may = |c: &&Change| c.arena == arena || c.uid == Some(0) || c.uid.is_some() && c.uid == uid;
        for change in changes.filter(|c| c.time >= since).filter(may) {
            let new = &change.name.path;
            match change.name.about {
                Naming::Path => {}
                Naming::Renamed => names = vec![new.clone()],
                Naming::Linked => names.push(new.clone()),
                Naming::Unlinked => names.retain(|n| n != new),
            }
        }
        names.into_iter().next()
    }

    /// Has it a name of its own since then?
    pub fn renamed_since(&self, inode: Inode, since: u64) -> bool {
        let changes = self.changes.get(&inode).into_iter().flatten();
        changes.filter(|c| c.time >= since).any(|c| c.name.about == Naming::Renamed)
    }

    /// Forgets what is older.
    pub fn forget_before(&mut self, time: u64) {
        while let Some(&(at, inode)) = self.order.front() {
            if at >= time {
                break;
            }
            self.order.pop_front();
            self.changes.remove(&inode);
        }
        self.parts.clear();
    }
}

/// The last part of a path.
pub fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(path)
}

/// The name that a temporary name stands for, if it looks like one: rsync's `.name.XXXXXX`, and the
/// endings that downloads have until they are whole.
pub fn stands_for(base: &[u8]) -> Option<&[u8]> {
    let random = |s: &[u8]| s.len() == 6 && s.iter().all(u8::is_ascii_alphanumeric);
    if let Some(rest) = base.strip_prefix(b".")
        && let Some(dot) = rest.iter().rposition(|&b| b == b'.')
        && random(&rest[dot + 1..])
        && dot > 0
    {
        return Some(&rest[..dot]);
    }
    let endings: [&[u8]; 7] = [b".part", b".filepart", b".tmp", b"_tmp", b"~", b".partial", b".crdownload"];
    endings.iter().find_map(|e| base.strip_suffix(*e)).filter(|s| !s.is_empty())
}

/// Could it be renamed yet? nginx numbers what it is still receiving.
pub fn temporary(base: &[u8]) -> bool {
    stands_for(base).is_some()
        || base.len() == 10 && base.iter().all(u8::is_ascii_digit)
        || base.starts_with(b"tmp")
}

/// How many of the last parts two paths share.
pub fn common_parts(a: &[u8], b: &[u8]) -> usize {
    a.rsplit(|&c| c == b'/').zip(b.rsplit(|&c| c == b'/')).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(about: Naming, path: &str) -> Name {
        Name { about, path: path.into() }
    }

    #[test]
    fn the_final_name_counts() {
        let mut names = Names::default();
        let file = (1, 2);
        names.changed(file, 20, 7, Some(5), name(Naming::Renamed, "/d/name"));
        assert_eq!(names.now(file, b"/d/.name.abcdef", 10, 7, Some(5)).unwrap(), b"/d/name");
        assert_eq!(names.now(file, b"/d/other", 30, 7, Some(5)).unwrap(), b"/d/other", "later than that");
        names.changed(file, 40, 7, Some(5), name(Naming::Linked, "/d/link"));
        names.changed(file, 41, 7, Some(5), name(Naming::Unlinked, "/d/name"));
        assert_eq!(names.now(file, b"/d/.name.abcdef", 10, 7, Some(5)).unwrap(), b"/d/link");
        names.changed(file, 42, 7, Some(5), name(Naming::Unlinked, "/d/link"));
        assert_eq!(names.now(file, b"/d/.name.abcdef", 10, 7, Some(5)), None);
    }

    #[test]
    fn nobody_renames_others_files() {
        let mut names = Names::default();
        names.changed((1, 2), 20, 8, Some(1000), name(Naming::Renamed, "/etc/passwd"));
        assert_eq!(names.now((1, 2), b"/f", 10, 7, Some(5)).unwrap(), b"/f");
    }

    #[test]
    fn a_long_name_comes_in_pieces() {
        let long: Vec<u8> = (0..500).map(|i| b'a' + (i % 26) as u8).collect();
        let mut names = Names::default();
        let mut whole = None;
        for (i, piece) in long.chunks(200).enumerate() {
            let mut n: Named = bytemuck::Zeroable::zeroed();
            (n.about, n.length, n.at, n.total) =
                (Naming::Path as u8, piece.len() as u16, (i * 200) as u16, long.len() as u16);
            n.text[..piece.len()].copy_from_slice(piece);
            whole = names.piece(1, 1, &n);
        }
        assert_eq!(whole.unwrap().path, long);
    }

    #[test]
    fn temporary_names() {
        assert_eq!(stands_for(b".a.txt.Xy12zZ"), Some(&b"a.txt"[..]));
        assert_eq!(stands_for(b"a.bin.part"), Some(&b"a.bin"[..]));
        assert_eq!(stands_for(b".bashrc"), None);
        assert_eq!(stands_for(b"a.txt"), None);
        assert!(temporary(b"0000000012") && !temporary(b"notes.txt"));
        assert_eq!(common_parts(b"/a/b/c", b"/x/b/c"), 2);
    }
}
