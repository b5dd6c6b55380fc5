//! What the kernel will make of an executable file, told from its bytes.
//!
//! Comes in: a way to read the file at an offset. Goes out: [`Image`]. Called by [`crate::target`],
//! also in a vfork child: nothing here allocates.

/// A file to look at.
pub trait ReadAt {
    /// Reads up to `into.len()` bytes at `offset`; returns how many, 0 past the end. None: it can't
    /// be read.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Option<usize>;
}

/// The kernel looks at so many bytes of a file to know what it is (linux/binfmts.h,
/// BINPRM_BUF_SIZE).
const LOOKED_AT: usize = 256;
/// What is kept of an interpreter's path: its end, where the file name is.
const LOADER_NAME: usize = 128;

/// Our own e_machine and dynamic loader (glibc's sysdeps, `shlib-versions`).
#[cfg(target_arch = "x86_64")]
const OURS: (u16, &[u8]) = (62, b"ld-linux-x86-64.so.2");
#[cfg(target_arch = "aarch64")]
const OURS: (u16, &[u8]) = (183, b"ld-linux-aarch64.so.1");
#[cfg(target_arch = "riscv64")]
const OURS: (u16, &[u8]) = (243, b"ld-linux-riscv64-lp64d.so.1");

/// ELFCLASS64 or 32, and ELFDATA2LSB or MSB.
const CLASS: u8 = if cfg!(target_pointer_width = "64") { 2 } else { 1 };
const DATA: u8 = if cfg!(target_endian = "little") { 1 } else { 2 };
/// sizeof(Elf64_Phdr): the kernel refuses any other.
const PROGRAM_HEADER: usize = 56;
/// The kernel refuses a longer table (fs/binfmt_elf.c, load_elf_phdrs: 64 KiB).
const MAX_HEADERS: u64 = 65536 / PROGRAM_HEADER as u64;
const PT_INTERP: u32 = 3;

/// An executable file.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nothing here may allocate; lives on the stack, one at a time")]
pub enum Image {
    /// Its loader is a glibc loader of our kind: it reads LD_PRELOAD.
    Ours,
    /// ELF of our kind that names no loader. (The loader itself is one, too.)
    Static,
    /// Another class, machine or loader.
    Other,
    /// `#!`: the interpreter decides.
    Script(Interpreter),
    /// Neither: the kernel says ENOEXEC, or binfmt_misc knows it.
    Strange,
    /// It could not be read.
    Unreadable,
}

/// The path behind `#!`, with its NUL.
#[derive(Debug)]
pub struct Interpreter {
    bytes: [u8; LOOKED_AT],
    length: usize,
}

impl Interpreter {
    /// The path.
    pub fn path(&self) -> &core::ffi::CStr {
        core::ffi::CStr::from_bytes_until_nul(&self.bytes[..=self.length]).unwrap_or(c"")
    }
}

/// Looks at a file.
pub fn look(file: &impl ReadAt) -> Image {
    let mut head = [0u8; LOOKED_AT];
    let Some(have) = file.read_at(0, &mut head) else { return Image::Unreadable };
    let head = &head[..have];
    if head.starts_with(b"#!") {
        interpreter(head).map_or(Image::Strange, Image::Script)
    } else if head.starts_with(b"\x7fELF") {
        if head.len() < 64 { Image::Strange } else { elf(file, head) }
    } else {
        Image::Strange
    }
}

/// fs/binfmt_script.c: blanks, then the path up to a blank, a newline or the end of what is read;
/// a path that fills all of it is cut off, and refused.
fn interpreter(head: &[u8]) -> Option<Interpreter> {
    let line = head[2..].split(|&b| b == b'\n').next()?;
    let whole = line.len() < head.len() - 2 || head.len() < LOOKED_AT;
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let from = line.iter().position(|b| !blank(b))?;
    let path = line[from..].split(|b| blank(b) || *b == 0).next()?;
    if path.is_empty() || (!whole && from + path.len() == line.len()) {
        return None;
    }
    let mut bytes = [0u8; LOOKED_AT];
    bytes[..path.len()].copy_from_slice(path);
    Some(Interpreter { bytes, length: path.len() })
}

fn elf(file: &impl ReadAt, head: &[u8]) -> Image {
    let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
    // Elf64_Ehdr: e_ident[EI_CLASS], e_ident[EI_DATA], e_machine.
    if head[4] != CLASS || head[5] != DATA || half(18) != OURS.0 {
        return Image::Other;
    }
    // e_phoff, e_phentsize, e_phnum.
    let table = u64::from_ne_bytes(head[32..40].try_into().unwrap_or_default());
    if usize::from(half(54)) != PROGRAM_HEADER {
        return Image::Strange;
    }
    for index in 0..u64::from(half(56)).min(MAX_HEADERS) {
        let mut entry = [0u8; PROGRAM_HEADER];
        let Some(at) = table.checked_add(index * PROGRAM_HEADER as u64) else { break };
        if file.read_at(at, &mut entry) != Some(entry.len()) {
            return Image::Strange;
        }
        let word = |at: usize| u64::from_ne_bytes(entry[at..at + 8].try_into().unwrap_or_default());
        if u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]) == PT_INTERP {
            // p_offset, p_filesz.
            return loader(file, word(8), word(32));
        }
    }
    Image::Static
}

fn loader(file: &impl ReadAt, offset: u64, size: u64) -> Image {
    let mut end = [0u8; LOADER_NAME];
    let kept = size.min(LOADER_NAME as u64);
    let Some(at) = offset.checked_add(size - kept) else { return Image::Strange };
    let Some(have) = file.read_at(at, &mut end[..kept as usize]) else { return Image::Unreadable };
    let path = end[..have].split(|&b| b == 0).next().unwrap_or_default();
    if is_our_loader(path) { Image::Ours } else { Image::Other }
}

/// A glibc loader of our class and machine, by its file name: every libc has its own.
pub fn is_our_loader(path: &[u8]) -> bool {
    path.rsplit(|&b| b == b'/').next() == Some(OURS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ReadAt for Vec<u8> {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
            let rest = self.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(into.len());
            into[..n].copy_from_slice(&rest[..n]);
            Some(n)
        }
    }

    fn program(interpreter: Option<&[u8]>) -> Vec<u8> {
        let mut file = vec![0u8; 64 + 2 * PROGRAM_HEADER];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', CLASS, DATA]);
        file[18..20].copy_from_slice(&OURS.0.to_ne_bytes());
        file[32..40].copy_from_slice(&64u64.to_ne_bytes());
        file[54..56].copy_from_slice(&(PROGRAM_HEADER as u16).to_ne_bytes());
        file[56..58].copy_from_slice(&2u16.to_ne_bytes());
        file[64..68].copy_from_slice(&1u32.to_ne_bytes());
        if let Some(path) = interpreter {
            let second = 64 + PROGRAM_HEADER;
            let at = file.len() as u64;
            file[second..second + 4].copy_from_slice(&PT_INTERP.to_ne_bytes());
            file[second + 8..second + 16].copy_from_slice(&at.to_ne_bytes());
            file[second + 32..second + 40].copy_from_slice(&(path.len() as u64).to_ne_bytes());
            file.extend_from_slice(path);
        }
        file
    }

    fn with_loader(name: &[u8]) -> Vec<u8> {
        program(Some(&[b"/lib64/", name, b"\0"].concat()))
    }

    #[test]
    fn the_test_itself_is_ours() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(matches!(look(&file), Image::Ours));
    }

    #[test]
    fn loaders_are_told_apart() {
        assert!(matches!(look(&with_loader(OURS.1)), Image::Ours));
        assert!(matches!(look(&with_loader(b"ld-musl-x86_64.so.1")), Image::Other));
        assert!(matches!(look(&with_loader(b"not-ld-linux-x86-64.so.2")), Image::Other));
        assert!(matches!(look(&program(None)), Image::Static));
        let far = [&[b'x'; 500][..], b"/", OURS.1, b"\0"].concat();
        assert!(matches!(look(&program(Some(&far))), Image::Ours));
    }

    #[test]
    fn other_classes_and_machines_are_other() {
        for (at, value) in [(4, 3 - CLASS), (5, 3 - DATA), (18, 3)] {
            let mut file = with_loader(OURS.1);
            file[at] = value;
            assert!(matches!(look(&file), Image::Other), "byte {at}");
        }
    }

    #[test]
    fn lies_in_a_header_are_survived() {
        let mut file = with_loader(OURS.1);
        for at in 0..file.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let before = std::mem::replace(&mut file[at], value);
                look(&file);
                file[at] = before;
            }
        }
        for length in 0..file.len() {
            look(&file[..length].to_vec());
        }
    }

    fn script(text: &[u8]) -> Option<String> {
        match look(&text.to_vec()) {
            Image::Script(i) => Some(i.path().to_str().unwrap().into()),
            Image::Strange => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn scripts_name_their_interpreter() {
        assert_eq!(script(b"#!/bin/sh\necho").as_deref(), Some("/bin/sh"));
        assert_eq!(script(b"#! \t/usr/bin/env  python3\n").as_deref(), Some("/usr/bin/env"));
        assert_eq!(script(b"#!/bin/sh").as_deref(), Some("/bin/sh"));
        assert_eq!(script(b"#!\n/bin/sh"), None);
        assert_eq!(script(b"#!   "), None);
        let long = [b"#!/".as_slice(), &[b'a'; 300], b"\n"].concat();
        assert_eq!(script(&long), None, "cut off at BINPRM_BUF_SIZE");
        let argument = [b"#!/bin/sh ".as_slice(), &[b'a'; 300], b"\n"].concat();
        assert_eq!(script(&argument).as_deref(), Some("/bin/sh"));
        assert_eq!(script(b"echo no first line\n"), None);
    }

    #[test]
    fn an_empty_file_is_left_to_the_kernel() {
        assert!(matches!(look(&Vec::new()), Image::Strange));
    }
}
