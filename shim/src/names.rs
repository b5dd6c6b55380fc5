//! Names of files: what a descriptor's file is called, and what a call's path means.
//!
//! Only on cold paths. Names are put together in memory that the constructor mapped: a hook may run on a
//! small stack.

use crate::kernel;
use crate::lanes;
use crate::process;
use crate::scratch::Scratch;
use crate::thread::Guard;
use bytemuck::Zeroable;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use counterfoil_abi::record::{Kind, MAX_NAME, NAME_PIECE, Named, Naming};
use rustix::fs::{CWD, readlinkat_raw};

/// What the kernel appends to the name of a file that has none any more.
const DELETED: &[u8] = b" (deleted)";
/// "/proc/self/fd/" and a number.
const LINK: usize = 32;

fn link_of(fd: i32, into: &mut [u8; LINK]) -> Option<&CStr> {
    let prefix = b"/proc/self/fd/";
    let mut number = u32::try_from(fd).ok()?;
    let mut digits = [0; 10];
    let mut count = 0;
    loop {
        digits[count] = b'0' + (number % 10) as u8;
        count += 1;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    into[..prefix.len()].copy_from_slice(prefix);
    for (at, digit) in digits[..count].iter().rev().enumerate() {
        into[prefix.len() + at] = *digit;
    }
    CStr::from_bytes_until_nul(into).ok()
}

/// `use_it` with the absolute, link-resolved name of what `fd` leads to; None if it can't be had.
pub fn of_descriptor<T>(fd: i32, use_it: impl FnOnce(Option<&[u8]>) -> T) -> T {
    let mut link = [0; LINK];
    let Some((link, mut room)) = link_of(fd, &mut link)
        .filter(|_| !process::sandboxed())
        .and_then(|link| Some((link, Scratch::take()?)))
    else {
        return use_it(None);
    };
    let name = readlinkat_raw(CWD, link, &mut room.bytes()[..MAX_NAME + 1]).ok();
    let name = name.map(|(name, _)| &*name).filter(|name| name.len() <= MAX_NAME && name.starts_with(b"/"));
    let out = use_it(name.map(|name| match name.strip_suffix(DELETED) {
        Some(had) if kernel::is_nameless(fd) => had,
        _ => name,
    }));
    room.give_back();
    out
}

/// `use_it` with `path` made absolute, where `folder` is what it starts from (AT_FDCWD: the working
/// directory). Not called if that can't be had, or is too long.
pub fn absolute(folder: i32, path: &[u8], use_it: impl FnOnce(&[u8])) {
    let Some(mut room) = Scratch::take() else { return };
    let bytes = &mut room.bytes()[..2 * (MAX_NAME + 2)];
    let length = if path.starts_with(b"/") { Some(0) } else { folder_name(folder, bytes) };
    if let Some(length) = length.and_then(|length| join(bytes, length, path)) {
        // SAFETY: `join` has filled that much.
        use_it(unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), length) });
    }
    room.give_back();
}

fn folder_name(folder: i32, into: &mut [MaybeUninit<u8>]) -> Option<usize> {
    let mut link = [0; LINK];
    let link = if folder == libc::AT_FDCWD { c"/proc/self/cwd" } else { link_of(folder, &mut link)? };
    let (name, _) = readlinkat_raw(CWD, link, &mut into[..MAX_NAME + 1]).ok()?;
    (name.starts_with(b"/") && name.len() <= MAX_NAME).then_some(name.len())
}

/// Appends `path`'s parts, without empty ones and ".": how long it is then.
fn join(into: &mut [MaybeUninit<u8>], folder: usize, path: &[u8]) -> Option<usize> {
    // "/" alone ends with what would be put before the next part.
    let mut length = if folder == 1 { 0 } else { folder };
    for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if length + 1 + part.len() > MAX_NAME {
            return None;
        }
        for &byte in b"/".iter().chain(part) {
            into[length].write(byte);
            length += 1;
        }
    }
    (length > 0).then_some(length)
}

/// Says a name, in as many pieces as it needs.
pub fn tell(guard: &Guard, about: Naming, object: u32, device: u64, inode: u64, name: &[u8]) {
    let mut at = 0;
    for piece in name.chunks(NAME_PIECE) {
        let mut record = Named {
            header: lanes::header(Kind::Named, 4, 0, object),
            about: about as u8,
            length: piece.len() as u16,
            at: at as u16,
            total: name.len() as u16,
            device,
            inode,
            ..Zeroable::zeroed()
        };
        record.text[..piece.len()].copy_from_slice(piece);
        if at == 0 {
            lanes::push_record(guard, &record);
        } else {
            lanes::push_behind(guard, &record);
        }
        at += piece.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(folder: &[u8], path: &[u8]) -> Option<Vec<u8>> {
        let mut room: Vec<_> = folder.iter().map(|&byte| MaybeUninit::new(byte)).collect();
        room.resize(2 * (MAX_NAME + 2), MaybeUninit::new(0));
        let length = join(&mut room, folder.len(), path)?;
        // SAFETY: all of it was filled above.
        Some(room[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect())
    }

    #[test]
    fn paths_are_made_absolute() {
        assert_eq!(joined(b"/a/b", b"c").unwrap(), b"/a/b/c");
        assert_eq!(joined(b"/a/b", b"./c//d/.").unwrap(), b"/a/b/c/d");
        assert_eq!(joined(b"/", b"c").unwrap(), b"/c");
        assert_eq!(joined(b"", b"/x/./y").unwrap(), b"/x/y");
        assert_eq!(joined(b"/a", b"../c").unwrap(), b"/a/../c", "a link's parent is not ours to say");
        assert!(joined(b"/a", &[b'n'; MAX_NAME]).is_none());
    }

    #[test]
    fn a_descriptors_link() {
        let mut room = [0; LINK];
        assert_eq!(link_of(0, &mut room).unwrap(), c"/proc/self/fd/0");
        let mut room = [0; LINK];
        assert_eq!(link_of(1_048_575, &mut room).unwrap(), c"/proc/self/fd/1048575");
        assert!(link_of(-1, &mut [0; LINK]).is_none());
    }
}
