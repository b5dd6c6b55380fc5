//! The hooks, one file a family. Each turns C arguments into slices and calls into
//! [`crate::record`] before and after the real call. `docs/how-it-works.md` walks through one.

pub mod cipher;
pub mod descriptors;
pub mod dl;
pub mod exec;
pub mod gnutls;
pub mod jumps;
pub mod kernel_copies;
pub mod lists;
pub mod made;
pub mod openssl;
pub mod pieces;
pub mod plain;
pub mod sockets;

/// Every exported definition: name and address. A test compares the names with `nm -D`; the
/// constructor looks whether ours is the first in scope.
pub const FAMILIES: &[&[(&str, *const ())]] = &[
    cipher::HOOKS,
    descriptors::HOOKS,
    dl::HOOKS,
    exec::HOOKS,
    gnutls::HOOKS,
    jumps::HOOKS,
    kernel_copies::HOOKS,
    lists::HOOKS,
    made::HOOKS,
    openssl::HOOKS,
    plain::HOOKS,
    sockets::HOOKS,
];

/// Looks up all real functions, so that no hook has to.
pub fn resolve() {
    descriptors::resolve();
    dl::resolve();
    exec::resolve();
    jumps::resolve();
    kernel_copies::resolve();
    made::resolve();
    plain::resolve();
    sockets::resolve();
}
