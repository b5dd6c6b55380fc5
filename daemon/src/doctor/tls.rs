//! Which TLS a program has, and whether what goes through it is seen.
//!
//! Comes in: the names of libraries, linked or loaded, and what is inside the program. Goes out: checks. Called by
//! [`super::program`] and [`super::process`].
#![forbid(unsafe_code)]

use super::image::Elf;
use super::{Mark, Report, base};

/// TLS libraries whose calls are hooked.
const HOOKED: [(&str, &str); 2] = [("libssl.so", "OpenSSL"), ("libgnutls.so", "GnuTLS")];
/// TLS libraries whose calls aren't.
const OTHERS: [(&str, &str); 7] = [
    ("libnss3.so", "NSS"),
    ("libssl3.so", "NSS"),
    ("libmbedtls.so", "Mbed TLS"),
    ("libwolfssl.so", "wolfSSL"),
    ("libbearssl.so", "BearSSL"),
    ("libs2n.so", "s2n-tls"),
    ("libtls.so", "LibreSSL"),
];
/// What is still seen where TLS isn't.
const STILL: &str = "its TCP streams (the ciphertext), pipes and files are seen";

/// Says which TLS libraries are there. `libraries`: names, each with a word on how it comes there.
pub(super) fn libraries(report: &mut Report, libraries: &[(String, String)]) -> bool {
    let mut any = false;
    let mut told = std::collections::BTreeSet::new();
    for (table, hooked) in [(&HOOKED[..], true), (&OTHERS[..], false)] {
        for (soname, name) in table {
            let found = libraries.iter().find(|(library, _)| base(library).starts_with(soname));
            let Some((library, how)) = found.filter(|_| told.insert(*name)) else { continue };
            any = true;
            if hooked {
                report.add(
                    "tls",
                    Mark::Good,
                    format!("{name} ({}{how}): what goes through it is seen", base(library)),
                );
            } else {
                let says =
                    format!("{name} ({}{how}): what goes through it is not seen; {STILL}", base(library));
                report.add("tls", Mark::Part, says);
                report.advise(
                    "a build of the program with OpenSSL or GnuTLS, where there is one, would be seen in full",
                );
            }
        }
    }
    any
}

/// Says which TLS is inside the program itself. Returns whether there is any.
pub(super) fn inside(report: &mut Report, elf: &Elf, linked: bool) -> bool {
    let functions = ["SSL_write", "gnutls_record_send", "mbedtls_ssl_write", "wolfSSL_write"];
    let defined = functions.iter().find(|f| elf.defines.contains(**f));
    // A program that links a TLS library may well say with which version it was built.
    let mark = elf.marks.first().filter(|_| !linked);
    let says = match (defined, mark) {
        (Some(function), mark) => {
            let version = mark.map(|m| format!(", {m}")).unwrap_or_default();
            format!("its own TLS inside ({function} is part of the program{version}): not seen; {STILL}")
        }
        (None, Some(mark)) => format!("its own TLS inside ({mark}): not seen; {STILL}"),
        (None, None) => return false,
    };
    report.add("tls", Mark::Part, says);
    report.advise(
        "use a build that links the system's OpenSSL (Debian's packages do, where there is one), \
         or let a proxy that is observed speak TLS for it",
    );
    true
}
