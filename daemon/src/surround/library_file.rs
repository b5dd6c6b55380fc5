//! What the file of a library says: where its code is, which build it is, what its functions are called.
//!
//! Called by `code` and `beginnings`. Any process may have mapped the file: nothing in it is believed to make sense.
#![forbid(unsafe_code)]

use counterfoil_abi::build_id;
use object::elf::{
    DF_TEXTREL, DT_FLAGS, DT_TEXTREL, FileHeader64, PF_X, PT_DYNAMIC, PT_LOAD, PT_NOTE, STT_FUNC,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Sym};
use object::{Endianness, elf};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A library is not larger.
pub const LARGEST: u64 = 64 << 20;
/// Bytes of notes that are looked at.
const NOTES: u64 = 4096;

/// Its build id, as much of it as is compared. `head`: its first page.
pub fn build_id(file: &File, head: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, head).ok()?;
    headers.iter().filter(|h| h.p_type(endian) == PT_NOTE).find_map(|h| {
        let mut notes = vec![0; usize::try_from(h.p_filesz(endian).min(NOTES)).ok()?];
        file.read_exact_at(&mut notes, h.p_offset(endian)).ok()?;
        build_id::in_notes(&notes, h.p_align(endian)).map(<[u8]>::to_vec)
    })
}

/// Code of a library.
pub struct Segment {
    /// Where it begins, from the library's first page.
    pub address: u64,
    /// Where it does in the file.
    pub offset: u64,
    /// Bytes of it that are the file's.
    pub length: u64,
}

/// The executable segments, from the file's first page. Addresses count from the library's first page.
pub fn segments(head: &[u8]) -> Option<Vec<Segment>> {
    let header = FileHeader64::<Endianness>::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let loads = || {
        let headers = header.program_headers(endian, head).ok()?;
        Some(headers.iter().filter(move |h| h.p_type(endian) == PT_LOAD))
    };
    let first = loads()?.next()?.p_vaddr(endian);
    let found = loads()?.filter(|h| h.p_flags(endian).0 & PF_X.0 != 0).filter_map(|h| {
        Some(Segment {
            address: h.p_vaddr(endian).checked_sub(first)?,
            offset: h.p_offset(endian),
            length: h.p_filesz(endian).min(LARGEST),
        })
    });
    Some(found.collect())
}

/// All of the file.
pub fn whole(file: &File) -> Option<Vec<u8>> {
    let length = usize::try_from(file.metadata().ok()?.len().min(LARGEST)).ok()?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}

/// Is its code changed where it is loaded? None: it is no library.
pub fn has_text_relocations(bytes: &[u8]) -> Option<bool> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    for segment in header.program_headers(endian, bytes).ok()? {
        if segment.p_type(endian) == PT_DYNAMIC {
            let entries = segment.dynamic(endian, bytes).ok()??;
            return Some(entries.iter().any(|e| {
                let (tag, value) = (Dyn::d_tag(e, endian), Dyn::d_val(e, endian));
                tag == DT_TEXTREL || tag == DT_FLAGS && value & DF_TEXTREL.0 != 0
            }));
        }
    }
    Some(false)
}

/// The exported function that holds `offset`.
pub fn symbol_at(bytes: &[u8], offset: u64) -> Option<String> {
    let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let symbols = sections.symbols(endian, bytes, elf::SHT_DYNSYM).ok()?;
    let holds = |s: &&elf::Sym64<Endianness>| {
        s.st_type() == STT_FUNC
            && offset.checked_sub(s.st_value(endian)).is_some_and(|into| into < s.st_size(endian))
    };
    let symbol = symbols.iter().find(holds)?;
    let name = symbol.name(endian, symbols.strings()).ok()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a hostile file says must do no harm.
    #[test]
    fn files_that_are_no_library() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(segments(&own[..4096]).is_some_and(|s| !s.is_empty()));
        assert_eq!(has_text_relocations(&own), Some(false));
        for cut in [0, 1, 16, 63, 64, 200] {
            assert!(segments(&own[..cut]).is_none_or(|s| s.is_empty()), "{cut}");
            assert!(symbol_at(&own[..cut], 1).is_none());
        }
        let mut wrong = own[..4096].to_vec();
        wrong[64..].fill(0xff);
        let _ = segments(&wrong);
        let _ = has_text_relocations(&wrong);
    }
}
