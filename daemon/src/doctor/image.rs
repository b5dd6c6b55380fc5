//! What an executable file is, told from its bytes.
//!
//! Comes in: a file. Goes out: an [`Image`]. Called by [`super::program`] and [`super::libraries`]. The file may be
//! anything: what makes no sense is [`Image::Other`], and only its first 512 MiB are looked at.
#![forbid(unsafe_code)]

use memchr::memmem;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endianness, FileKind, Object, ObjectSymbol, elf};
use std::collections::BTreeSet;
use std::io::{self, Read};

/// Bytes of a file that are looked at.
const LARGEST: u64 = 512 << 20;
/// The kernel looks at so many to know what a file is (BINPRM_BUF_SIZE).
const LOOKED_AT: usize = 256;

/// Our own machine, and its glibc's loader.
#[cfg(target_arch = "x86_64")]
const OURS: (u16, &str) = (elf::EM_X86_64.0, "ld-linux-x86-64.so.2");
#[cfg(target_arch = "aarch64")]
const OURS: (u16, &str) = (elf::EM_AARCH64.0, "ld-linux-aarch64.so.1");
#[cfg(target_arch = "riscv64")]
const OURS: (u16, &str) = (elf::EM_RISCV.0, "ld-linux-riscv64-lp64d.so.1");

/// Functions that say what a program does: TLS, and input and output past the hooks.
const TELLING: [&str; 8] = [
    "SSL_write",
    "SSL_read",
    "gnutls_record_send",
    "mbedtls_ssl_write",
    "wolfSSL_write",
    "io_uring_setup",
    "io_uring_queue_init",
    "io_uring_queue_init_params",
];

/// A file that may be executed.
#[derive(Debug)]
pub enum Image {
    /// ELF.
    Elf(Box<Elf>),
    /// `#!` and its interpreter.
    Script(String),
    /// Something else.
    Other,
}

/// What is known of an ELF file.
#[derive(Debug, Default)]
pub struct Elf {
    /// 32 or 64.
    pub bits: u8,
    /// e_machine.
    pub machine: u16,
    /// Little-endian.
    pub little: bool,
    /// Its loader; None: static.
    pub interpreter: Option<String>,
    /// Libraries that it asks for.
    pub needed: Vec<String>,
    /// Where it wants them looked for.
    pub paths: Vec<String>,
    /// Its own name as a library.
    pub soname: Option<String>,
    /// Built by Go.
    pub go: bool,
    /// The table from which the above is read is missing.
    pub bare: bool,
    /// Of the telling functions, those that it has itself.
    pub defines: BTreeSet<&'static str>,
    /// Of the telling functions, those that it wants from a library.
    pub wants: BTreeSet<&'static str>,
    /// TLS libraries whose marks are inside, such as `OpenSSL 3.0.13`.
    pub marks: Vec<String>,
}

impl Elf {
    /// Our class, byte order and machine.
    #[must_use]
    pub fn our_kind(&self) -> bool {
        self.bits == usize::BITS as u8
            && self.little == cfg!(target_endian = "little")
            && self.machine == OURS.0
    }

    /// Its loader is our glibc's, which reads LD_PRELOAD.
    #[must_use]
    pub fn our_loader(&self) -> bool {
        self.interpreter.as_deref().is_some_and(|i| super::base(i) == OURS.1)
    }

    /// It is a glibc loader itself.
    #[must_use]
    pub fn is_loader(&self) -> bool {
        self.soname.as_deref() == Some(OURS.1)
    }

    /// `64-bit x86-64`.
    #[must_use]
    pub fn architecture(&self) -> String {
        let machine = match elf::Machine(self.machine) {
            elf::EM_X86_64 => "x86-64".into(),
            elf::EM_386 => "x86".into(),
            elf::EM_AARCH64 => "ARM64".into(),
            elf::EM_ARM => "ARM".into(),
            elf::EM_RISCV => "RISC-V".into(),
            other => format!("machine {}", other.0),
        };
        format!("{}-bit {machine}", self.bits)
    }
}

/// Looks at a file.
///
/// # Errors
/// It can't be read.
pub fn look(file: impl Read) -> io::Result<Image> {
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(of(&bytes))
}

fn of(bytes: &[u8]) -> Image {
    if bytes.starts_with(b"#!") {
        return interpreter(bytes).map_or(Image::Other, Image::Script);
    }
    let found = match FileKind::parse(bytes) {
        Ok(FileKind::Elf64) => elf::<elf::FileHeader64<Endianness>>(bytes, 64),
        Ok(FileKind::Elf32) => elf::<elf::FileHeader32<Endianness>>(bytes, 32),
        _ => None,
    };
    found.map_or(Image::Other, |e| Image::Elf(Box::new(e)))
}

/// As fs/binfmt_script.c reads it.
fn interpreter(bytes: &[u8]) -> Option<String> {
    let line = bytes[2..bytes.len().min(LOOKED_AT)].split(|&b| b == b'\n').next()?;
    let word = line.split(|b| matches!(b, b' ' | b'\t' | 0)).find(|w| !w.is_empty())?;
    Some(String::from_utf8_lossy(word).into_owned())
}

fn elf<H: FileHeader<Endian = Endianness>>(bytes: &[u8], bits: u8) -> Option<Elf> {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    // What the kernel looks at; it needs no more of a file than this to start it.
    let header = H::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, bytes).ok()?;
    let mut out = Elf {
        bits,
        machine: header.e_machine(endian).0,
        little: header.is_little_endian(),
        marks: marks(bytes),
        ..Elf::default()
    };
    out.interpreter = segments.iter().find_map(|h| h.interpreter(endian, bytes).ok().flatten()).map(text);
    let Ok(file) = ElfFile::<H>::parse(bytes) else {
        out.bare = true;
        return Some(out);
    };
    let dynamic = segments.iter().any(|h| h.p_type(endian) == elf::PT_DYNAMIC);
    let table = file.elf_dynamic_table().ok().filter(|t| !t.is_empty());
    out.bare = dynamic && table.is_none();
    for entry in table.iter().flat_map(|t| t.iter()) {
        let value = || table.as_ref().and_then(|t| t.string(entry).ok()).map(text);
        match entry.tag {
            elf::DT_NEEDED => out.needed.extend(value()),
            elf::DT_SONAME => out.soname = value(),
            elf::DT_RPATH | elf::DT_RUNPATH => {
                out.paths.extend(value().iter().flat_map(|v| v.split(':')).map(str::to_owned));
            }
            _ => {}
        }
    }
    out.go = [".go.buildinfo", ".note.go.buildid"].iter().any(|s| file.section_by_name(s).is_some());
    for symbol in file.dynamic_symbols().chain(file.symbols()) {
        let Ok(name) = symbol.name_bytes() else { continue };
        // A version may follow in .symtab: SSL_write@OPENSSL_3.0.0.
        let name = name.split(|&b| b == b'@').next().unwrap_or(name);
        if let Some(known) = TELLING.iter().find(|t| t.as_bytes() == name) {
            if symbol.is_undefined() {
                out.wants.insert(known)
            } else {
                out.defines.insert(known)
            };
        }
    }
    Some(out)
}

/// What TLS libraries leave in a program that has them inside.
fn marks(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for name in ["OpenSSL ", "LibreSSL "] {
        let version = memmem::find_iter(bytes, name).find_map(|at| {
            let rest = &bytes[at + name.len()..];
            let number: String = rest
                .iter()
                .take(16)
                .map(|&b| char::from(b))
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '.')
                .collect();
            // "OpenSSL 3.0.13 30 Jan 2024": a number, then a date; other texts speak of OpenSSL, too.
            let date = rest.get(number.len()..)?.strip_prefix(b" ")?.first()?.is_ascii_digit();
            (number.starts_with(|c: char| c.is_ascii_digit()) && number.contains('.') && date)
                .then(|| format!("{name}{number}"))
        });
        found.extend(version);
    }
    for (mark, name) in [("BoringSSL", "BoringSSL"), ("/rustls-0.", "rustls"), ("mbed TLS ", "Mbed TLS")] {
        if memmem::find(bytes, mark.as_bytes()).is_some() {
            found.push(name.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn the_test_itself() {
        let Image::Elf(elf) = of(&own()) else { panic!("no ELF") };
        assert!(elf.our_kind() && elf.our_loader() && !elf.go && !elf.bare);
        assert!(elf.needed.iter().any(|n| n == "libc.so.6"), "{:?}", elf.needed);
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let script = |text: &[u8]| match of(text) {
            Image::Script(path) => Some(path),
            _ => None,
        };
        assert_eq!(script(b"#! /usr/bin/env python3\n").as_deref(), Some("/usr/bin/env"));
        assert_eq!(script(b"#!/bin/sh").as_deref(), Some("/bin/sh"));
        assert_eq!(script(b"#!\n"), None);
        assert!(matches!(of(b""), Image::Other));
        assert!(matches!(of(b"MZ\x90"), Image::Other));
    }

    #[test]
    fn marks_are_versions_not_mentions() {
        assert_eq!(marks(b"x OpenSSL 3.0.13 30 Jan 2024\0"), ["OpenSSL 3.0.13"]);
        assert_eq!(marks(b"OpenSSL 1.1.1w  11 Sep 2023\0 OpenSSL 1.1.1w 11 Sep"), ["OpenSSL 1.1.1w"]);
        assert!(marks(b"needs OpenSSL 3.0 or newer; OpenSSL error; OpenSSL ").is_empty());
    }

    /// A packer may leave a section table that makes no sense; the kernel doesn't mind.
    #[test]
    fn without_a_section_table() {
        let mut bytes = std::fs::read("/bin/true").unwrap();
        // Elf64_Ehdr: e_shoff.
        bytes[40..48].fill(0xff);
        let Image::Elf(elf) = of(&bytes) else { panic!("no ELF") };
        assert!(elf.bare && elf.our_loader());
    }

    /// A hostile file is looked at by whoever asks, often root.
    #[test]
    fn lies_in_a_file_are_survived() {
        let good = std::fs::read("/bin/true").unwrap();
        let head = good.len().min(2048);
        let mut small = good[..head.max(64)].to_vec();
        for at in 0..small.len() {
            for value in [0, 0x7f, 0xff] {
                let before = std::mem::replace(&mut small[at], value);
                of(&small);
                small[at] = before;
            }
        }
        for length in 0..small.len() {
            of(&small[..length]);
        }
        // Headers that lie about a whole file: the first bytes, and the section table at its end.
        let mut whole = good;
        let ends = [0..64, whole.len() - 64..whole.len()];
        for at in ends.into_iter().flatten().step_by(7) {
            let before = std::mem::replace(&mut whole[at], 0xff);
            if at >= 16 {
                elf::<elf::FileHeader64<Endianness>>(&whole, 64).map(|e| e.needed.len());
            }
            whole[at] = before;
        }
    }
}
