//! The library exports its hooks and nothing else: a symbol too many would stand before somebody
//! else's, one too few would leave a call unseen.
//!
//! `exports.txt` is the list. The library's own tests hold its tables of hooks against it; this one
//! holds what the linker made against it.

mod parts;

use std::collections::BTreeSet;
use std::process::Command;

fn listed() -> BTreeSet<String> {
    include_str!("../exports.txt").lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
}

#[test]
fn the_library_exports_the_listed_hooks_and_nothing_else() {
    let library = parts::library();
    let nm = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm (binutils)");
    assert!(nm.status.success(), "nm {}: {}", library.display(), String::from_utf8_lossy(&nm.stderr));
    let exported: BTreeSet<String> = String::from_utf8(nm.stdout)
        .expect("symbols are ASCII")
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(Into::into)
        .collect();
    let listed = listed();
    let missing: Vec<_> = listed.difference(&exported).collect();
    let extra: Vec<_> = exported.difference(&listed).collect();
    assert!(missing.is_empty() && extra.is_empty(), "not exported: {missing:?}; not listed: {extra:?}");
    assert!(listed.len() > 50, "the list is all there");
}
