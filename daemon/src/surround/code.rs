//! Whether the code of a TLS library in memory is what its file says.
//!
//! Comes in: a pid. Goes out: a [`Patch`] for each library whose code differs. The page map says which
//! pages are the file's own: they can't differ, and mostly that is all of them. A page that the process
//! has a copy of (it was written to), or where something else is mapped, is read and compared byte by
//! byte. Where the file can't be had any more (an upgrade removed it), nothing is said: no false alarm.
#![forbid(unsafe_code)]

use super::library_file::{LARGEST, has_text_relocations, segments, symbol_at, whole};
use crate::host::regular;
use crate::judged::Patch;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// File names of libraries whose code carries plaintext, and our own.
pub const LIBRARIES: &[&str] =
    &["libssl.so", "libssl3.so", "libcrypto.so", "libgnutls.so", "libcounterfoil.so"];
/// Libraries of one process, and pages of one library, that are compared. A hostile process has no end of them.
const MAX_LIBRARIES: usize = 16;
const MAX_PAGES: usize = 4096;
/// Bytes shown.
pub const SHOWN: usize = 16;
/// Processes map fewer lines than this, mostly.
const MAX_MAPS: usize = 8 << 20;

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    executable: bool,
}

/// One library of a process: all its mappings.
struct Mapped {
    path: String,
    device: u64,
    inode: u64,
    mappings: Vec<Mapping>,
}

/// Looks at every library of `pid`. Nothing: all is well, or can't be read.
pub fn look(pid: u32) -> Vec<Patch> {
    let mut found = look_once(pid);
    if !found.is_empty() {
        // A program that has just called exec has its libraries in pieces for a moment, until the loader has mapped each of them.
        let still = look_once(pid);
        let same =
            |a: &Patch, b: &Patch| (&a.object, a.offset, &a.memory) == (&b.object, b.offset, &b.memory);
        found.retain(|patch| still.iter().any(|again| same(patch, again)));
    }
    found
}

fn look_once(pid: u32) -> Vec<Patch> {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{pid}/maps")) else { return vec![] };
    if maps.len() > MAX_MAPS {
        return vec![];
    }
    libraries(&maps).iter().filter_map(|library| compare(pid, library)).collect()
}

fn libraries(maps: &str) -> Vec<Mapped> {
    let mut found: BTreeMap<(u64, u64), Mapped> = BTreeMap::new();
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let Some(path) = rest.find('/').map(|at| &rest[at..]) else { continue };
        let name = path.rsplit('/').next().unwrap_or(path);
        if !LIBRARIES.iter().any(|library| name.starts_with(library)) {
            continue;
        }
        let mut fields = rest.split_whitespace();
        let parsed = (|| {
            let (start, end) = range.split_once('-')?;
            let hex = |text: &str| u64::from_str_radix(text, 16).ok();
            let executable = fields.next()?.as_bytes().get(2) == Some(&b'x');
            let offset = hex(fields.next()?)?;
            let (major, minor) = fields.next()?.split_once(':')?;
            let device = rustix::fs::makedev(
                u32::from_str_radix(major, 16).ok()?,
                u32::from_str_radix(minor, 16).ok()?,
            );
            let inode: u64 = fields.next()?.parse().ok()?;
            Some((device, inode, Mapping { start: hex(start)?, end: hex(end)?, offset, executable }))
        })();
        if let Some((device, inode, mapping)) = parsed {
            let path = path.strip_suffix(" (deleted)").unwrap_or(path).to_owned();
            let mapped = || Mapped { path, device, inode, mappings: Vec::new() };
            if found.len() < MAX_LIBRARIES || found.contains_key(&(device, inode)) {
                found.entry((device, inode)).or_insert_with(mapped).mappings.push(mapping);
            }
        }
    }
    found.into_values().collect()
}

/// The very file that is mapped: by the kernel's own link to it where we may follow it, else by its
/// path, if device and inode are the mapping's.
fn open(pid: u32, library: &Mapped) -> Option<File> {
    let Mapping { start, end, .. } = library.mappings.first()?;
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    let small = |file: &File| file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() <= LARGEST);
    if let Ok(file) = File::open(link) {
        return Some(file).filter(small);
    }
    let path = Path::new(&format!("/proc/{pid}/root")).join(library.path.trim_start_matches('/'));
    regular::open(&path, |meta| (meta.dev(), meta.ino()) == (library.device, library.inode)).filter(small)
}

fn compare(pid: u32, library: &Mapped) -> Option<Patch> {
    // Where its first page is, the rest has its place from there.
    let base = library.mappings.iter().find(|m| m.offset == 0)?.start;
    let file = open(pid, library)?;
    let mut head = [0; 4096];
    let got = file.read_at(&mut head, 0).ok()?;
    let segments = segments(&head[..got])?;
    let page = rustix::param::page_size() as u64;
    let mut patch: Option<Patch> = None;
    let mut left = MAX_PAGES;
    for segment in &segments {
        let start = base.checked_add(segment.address)? & !(page - 1);
        let end = base.checked_add(segment.address)?.checked_add(segment.length)?;
        for address in copied_pages(pid, library, start, end, page).into_iter().take(left) {
            left -= 1;
            let from = address.max(base + segment.address);
            let length = usize::try_from((address + page).min(end).checked_sub(from)?).ok()?;
            let (mut theirs, mut ours) = (vec![0; length], vec![0; length]);
            let at = segment.offset + (from - base - segment.address);
            if read_memory(pid, from, &mut theirs).is_none() || file.read_exact_at(&mut ours, at).is_err() {
                continue;
            }
            let Some(first) = (0..length).find(|&i| theirs[i] != ours[i]) else { continue };
            match &mut patch {
                Some(patch) => patch.pages += 1,
                none => {
                    let shown = first..(first + SHOWN).min(length);
                    *none = Some(Patch {
                        object: library.path.clone(),
                        symbol: None,
                        offset: from + first as u64 - base,
                        differing: theirs.iter().zip(&ours).filter(|(a, b)| a != b).count() as u64,
                        pages: 1,
                        file: ours[shown.clone()].to_vec(),
                        memory: theirs[shown].to_vec(),
                    });
                }
            }
        }
    }
    let mut patch = patch?;
    // Only now: a library with text relocations has copies that rightly differ, and who asks for a name
    // reads the whole file.
    let bytes = whole(&file)?;
    if has_text_relocations(&bytes).unwrap_or(true) {
        return None;
    }
    patch.symbol = symbol_at(&bytes, patch.offset);
    Some(patch)
}

/// Pages between `start` and `end` that are not the file's own: the process has a copy, or something
/// else is mapped there. All of them where the page map can't be read.
fn copied_pages(pid: u32, library: &Mapped, start: u64, end: u64, page: u64) -> Vec<u64> {
    // Documentation/admin-guide/mm/pagemap.rst
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_A_FILE: u64 = 1 << 61;
    let count = usize::try_from((end - start).div_ceil(page)).unwrap_or(0);
    let mut entries = vec![0u8; count * 8];
    let read = File::open(format!("/proc/{pid}/pagemap"))
        .and_then(|map| map.read_exact_at(&mut entries, start / page * 8))
        .is_ok();
    let ours =
        |address: u64| library.mappings.iter().any(|m| m.executable && (m.start..m.end).contains(&address));
    let pages = entries.chunks_exact(8).enumerate().map(|(i, entry)| {
        let bits = entry.try_into().map(u64::from_ne_bytes).unwrap_or(0);
        (start + i as u64 * page, bits)
    });
    let copied = |&(address, bits): &(u64, u64)| {
        !read || !ours(address) || (bits & (PRESENT | SWAPPED) != 0 && bits & OF_A_FILE == 0)
    };
    pages.filter(copied).map(|(address, _)| address).collect()
}

fn read_memory(pid: u32, address: u64, into: &mut [u8]) -> Option<()> {
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(into, address).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_a_map() {
        let maps = "\
7f0000000000-7f0000002000 r--p 00000000 fe:01 42    /usr/lib/libssl.so.3
7f0000002000-7f0000005000 r-xp 00002000 fe:01 42    /usr/lib/libssl.so.3
7f0000010000-7f0000012000 r-xp 00000000 fe:01 43    /usr/lib/libc.so.6
7f0000020000-7f0000022000 r-xp 00000000 00:2a 44    /tmp/a b/libcrypto.so.3 (deleted)
7f0000030000-7f0000031000 rw-p 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0     [stack]
nonsense
-1 r-xp z y x /libssl.so.3
";
        let found = libraries(maps);
        let names: Vec<&str> = found.iter().map(|l| l.path.as_str()).collect();
        assert_eq!(names, ["/tmp/a b/libcrypto.so.3", "/usr/lib/libssl.so.3"]);
        let ssl = &found[1];
        assert_eq!((ssl.inode, ssl.device), (42, rustix::fs::makedev(0xfe, 1)));
        assert_eq!((ssl.mappings.len(), ssl.mappings[1].executable), (2, true));
    }
}
