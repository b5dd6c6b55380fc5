//! The build id of a library: a digest that the linker left in it, by which a file and what a process has mapped are known to
//! be of one build.
//!
//! Both sides look for it: the shim in memory, the daemon in the file.

use crate::record::BUILD_ID;

/// NT_GNU_BUILD_ID (elf.h).
const TYPE: u32 = 3;
/// Sizes of the name and of the description, and the type.
const HEADER: usize = 12;

/// The build id among an object's notes (a PT_NOTE segment of this alignment), as much of it as is compared.
pub fn in_notes(mut notes: &[u8], align: u64) -> Option<&[u8]> {
    let align = if align == 8 { 8 } else { 4 };
    loop {
        let number = |at: usize| Some(u32::from_ne_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (name, length, kind) = (number(0)? as usize, number(4)? as usize, number(8)?);
        let from = HEADER.checked_add(name)?.checked_next_multiple_of(align)?;
        let to = from.checked_add(length)?;
        if kind == TYPE && notes.get(HEADER..HEADER + name) == Some(b"GNU\0") {
            return notes.get(from..to).filter(|id| !id.is_empty()).map(|id| &id[..length.min(BUILD_ID)]);
        }
        notes = notes.get(to.checked_next_multiple_of(align)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn note(name: &[u8], kind: u32, content: &[u8], align: usize) -> Vec<u8> {
        let mut note = Vec::new();
        for number in [name.len() as u32, content.len() as u32, kind] {
            note.extend(number.to_ne_bytes());
        }
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(align), 0);
        }
        note
    }

    #[test]
    fn among_others() {
        for (align, more) in [(4, 4), (8, 8), (4, 0), (4, 1)] {
            let property = note(b"GNU\0", 5, &[7; 20], align);
            let notes = [property.clone(), note(b"GNU\0", TYPE, &[9; 20], align)].concat();
            assert_eq!(in_notes(&notes, more), Some(&[9; 20][..]));
            assert_eq!(in_notes(&property, more), None);
        }
        assert_eq!(in_notes(&note(b"GNU\0", TYPE, &[9; 32], 4), 4), Some(&[9; BUILD_ID][..]));
        assert_eq!(in_notes(&note(b"Go\0\0", TYPE, &[9; 20], 4), 4), None);
        assert_eq!(in_notes(&note(b"GNU\0", TYPE, &[], 4), 4), None);
    }

    #[test]
    fn whatever_a_hostile_file_says() {
        let notes = [note(b"x\0\0\0", 5, &[7; 20], 4), note(b"GNU\0", TYPE, &[9; 20], 4)].concat();
        for length in 0..notes.len() {
            assert_eq!(in_notes(&notes[..length], 4), None);
        }
        for at in 0..notes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut wrong = notes.clone();
                wrong[at] = value;
                let _ = in_notes(&wrong, 4);
            }
        }
        assert_eq!(in_notes(&[0xff; 64], 8), None);
        assert_eq!(in_notes(&[0; 64], 4), None, "it comes to an end");
    }
}
