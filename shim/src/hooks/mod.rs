//! The hooks, one file a family. Each turns C arguments into slices and calls into
//! [`crate::record`] before and after the real call. `docs/how-it-works.md` walks through one.

pub mod cipher;
pub mod descriptors;
pub mod dl;
pub mod dlopen;
pub mod dlsym;
pub mod exec;
pub mod files;
pub mod filters;
pub mod gnutls;
pub mod jumps;
pub mod kernel_copies;
pub mod lists;
pub mod made;
pub mod memory;
pub mod openssl;
pub mod pieces;
pub mod plain;
pub mod plain_files;
pub mod sockets;

/// The C names of all hooks. Held against `exports.txt`, and that against what is exported.
#[cfg(test)]
const FAMILIES: &[&[&str]] = &[
    cipher::HOOKS,
    descriptors::HOOKS,
    dl::HOOKS,
    dlopen::HOOKS,
    dlsym::HOOKS,
    exec::HOOKS,
    files::HOOKS,
    filters::HOOKS,
    gnutls::HOOKS,
    jumps::HOOKS,
    kernel_copies::HOOKS,
    lists::HOOKS,
    made::HOOKS,
    memory::HOOKS,
    openssl::HOOKS,
    plain::HOOKS,
    plain_files::HOOKS,
    sockets::HOOKS,
];

/// Looks up all real functions, so that no hook has to.
pub fn resolve() {
    descriptors::resolve();
    dl::resolve();
    exec::resolve();
    files::resolve();
    filters::resolve();
    jumps::resolve();
    kernel_copies::resolve();
    made::resolve();
    memory::resolve();
    plain::resolve();
    plain_files::resolve();
    sockets::resolve();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// tests/exports.rs holds the same list against what the linker exports.
    #[test]
    fn the_families_are_what_is_listed() {
        let named: Vec<&str> = super::FAMILIES.iter().copied().flatten().copied().collect();
        let hooks: BTreeSet<&str> = named.iter().copied().collect();
        let listed: BTreeSet<&str> =
            include_str!("../../exports.txt").lines().filter(|line| !line.starts_with('#')).collect();
        let missing: Vec<_> = listed.difference(&hooks).collect();
        let extra: Vec<_> = hooks.difference(&listed).collect();
        assert!(missing.is_empty() && extra.is_empty(), "in no family: {missing:?}; not listed: {extra:?}");
        assert_eq!(named.len(), hooks.len(), "a hook in two families");
    }
}
