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
/// Who got one name, the latest.
const MAX_GIVEN: usize = 64;
/// Bytes of all names remembered.
const MAX_BYTES: usize = 32 << 20;

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

/// Who got a name.
#[derive(Clone, Copy, Debug)]
struct Given {
    time: u64,
    arena: ArenaId,
    uid: Option<u32>,
    to: Inode,
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    parts: HashMap<(ArenaId, u32, u32), Vec<u8>>,
    changes: HashMap<Inode, Vec<Change>>,
    /// Renames among them, by the new name, which each took from whatever had it.
    given: HashMap<Vec<u8>, Vec<Given>>,
    /// Of their names.
    bytes: usize,
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
        while (self.changes.len() >= MAX_FILES || self.bytes >= MAX_BYTES)
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.forget(oldest, usize::MAX);
        }
        if self.changes.get(&inode).is_some_and(|changes| changes.len() >= MAX_CHANGES) {
            self.forget(inode, 1);
        }
        if name.about == Naming::Renamed {
            let given = self.given.entry(name.path.clone()).or_default();
            if given.len() >= MAX_GIVEN {
                given.remove(0);
            }
            given.push(Given { time, arena, uid, to: inode });
        }
        self.bytes += name.path.len();
        let changes = self.changes.entry(inode).or_insert_with(|| {
            self.order.push_back((time, inode));
            Vec::new()
        });
        changes.push(Change { time, arena, uid, name });
        changes.sort_by_key(|c| c.time);
    }

    /// Forgets a file's first changes.
    fn forget(&mut self, inode: Inode, count: usize) {
        let Some(mut changes) = self.changes.remove(&inode) else { return };
        for gone in changes.drain(..count.min(changes.len())) {
            self.bytes -= gone.name.path.len();
            if gone.name.about == Naming::Renamed
                && let Some(given) = self.given.get_mut(&gone.name.path)
            {
                given.retain(|g| (g.to, g.time) != (inode, gone.time));
                if given.is_empty() {
                    self.given.remove(&gone.name.path);
                }
            }
        }
        if !changes.is_empty() {
            self.changes.insert(inode, changes);
        }
    }

    /// What a file that was called `path` when `arena` opened it is called now, or was when another one took its
    /// name; None: it was removed. What comes after that is another file's, which has its inode.
    pub fn now(
        &self,
        inode: Inode,
        path: &[u8],
        since: u64,
        arena: ArenaId,
        uid: Option<u32>,
    ) -> Option<Vec<u8>> {
        let mut names = vec![(path, since)];
        let changes = self.changes.get(&inode).into_iter().flatten();
        let may = |by: ArenaId, of: Option<u32>| by == arena || of == Some(0) || of.is_some() && of == uid;
        for change in changes.filter(|c| c.time >= since && may(c.arena, c.uid)) {
            let new = &change.name.path;
            let taken = |from: u64, g: &Given| {
                g.to != inode && (from..change.time).contains(&g.time) && may(g.arena, g.uid)
            };
            let has = |&(n, from): &(&[u8], u64)| {
                !self.given.get(n).is_some_and(|given| given.iter().any(|g| taken(from, g)))
            };
            if !names.iter().any(has) {
                break;
            }
            match change.name.about {
                Naming::Path => {}
                Naming::Renamed => names = vec![(new, change.time)],
                Naming::Linked => names.push((new, change.time)),
                Naming::Unlinked => names.retain(|(n, _)| n != new),
            }
        }
        names.first().map(|(n, _)| n.to_vec())
    }

    /// Forgets what is older.
    pub fn forget_before(&mut self, time: u64) {
        while let Some(&(at, inode)) = self.order.front() {
            if at >= time {
                break;
            }
            self.order.pop_front();
            self.forget(inode, usize::MAX);
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

    /// unison's lock is made where the version that it has just replaced was, removed, and the next version is made there.
    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let (mut names, lock, old, new) = (Names::default(), (1, 2), (1, 3), (1, 4));
        let now = |names: &Names, inode, path: &[u8], since| names.now(inode, path, since, 7, Some(5));
        names.changed(lock, 20, 7, Some(5), name(Naming::Unlinked, "/d/lock"));
        names.changed(lock, 30, 7, Some(5), name(Naming::Renamed, "/d/f"));
        assert_eq!(now(&names, lock, b"/d/lock", 10), None);
        assert_eq!(now(&names, lock, b"/d/.f.abcdef", 25).unwrap(), b"/d/f");
        names.changed(new, 40, 7, Some(5), name(Naming::Renamed, "/d/g"));
        assert_eq!(now(&names, old, b"/d/g", 35).unwrap(), b"/d/g", "it had that name");
        names.changed(old, 50, 7, Some(5), name(Naming::Renamed, "/d/h"));
        assert_eq!(now(&names, old, b"/d/g", 35).unwrap(), b"/d/g", "its last");
        assert_eq!(now(&names, old, b"/d/.h.abcdef", 45).unwrap(), b"/d/h");
        assert_eq!(now(&names, new, b"/d/.g.abcdef", 35).unwrap(), b"/d/g");
        names.changed(old, 55, 7, Some(5), name(Naming::Renamed, "/d/g"));
        names.changed(old, 56, 7, Some(5), name(Naming::Renamed, "/d/i"));
        assert_eq!(now(&names, old, b"/d/.h.abcdef", 45).unwrap(), b"/d/i", "that name was another's before");
        names.forget_before(60);
        assert!(names.given.is_empty() && names.changes.is_empty() && names.bytes == 0);
    }

    #[test]
    fn endless_renames_are_bounded() {
        let mut names = Names::default();
        for n in 0..20_000u64 {
            let long = format!("/{}{}", n / 3, "x".repeat(4000));
            names.changed((1, n % 9_000), n, 7, Some(5), name(Naming::Renamed, &long));
            (0..4).for_each(|i| names.changed((2, n * 4 + i), n, 7, Some(5), name(Naming::Renamed, "/d/f")));
        }
        let held = |path: &Vec<u8>| path.len();
        assert!(
            names.bytes <= MAX_BYTES + 4096 && names.given.keys().map(held).sum::<usize>() <= names.bytes
        );
        assert!(names.changes.len() <= MAX_FILES && names.given.values().all(|g| g.len() <= MAX_GIVEN));
        let all: usize = names.changes.values().flatten().map(|c| c.name.path.len()).sum();
        assert_eq!(all, names.bytes);
        names.forget_before(u64::MAX);
        assert!(
            names.given.is_empty() && names.changes.is_empty() && names.order.is_empty() && names.bytes == 0
        );
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
