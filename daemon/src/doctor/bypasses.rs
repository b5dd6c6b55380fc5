//! Ways past the hooks: io_uring, and TLS in the kernel.
//!
//! Comes in: what is known of a program. Goes out: checks. Called by [`super::program`] and [`super::process`].
#![forbid(unsafe_code)]

use super::image::Elf;
use super::libraries::Library;
use super::{Mark, Report};
use std::path::Path;

/// Which of them `elf` may take. `openssl`: it links a TLS library that can give its work to the kernel.
pub(super) fn check(report: &mut Report, elf: &Elf, libraries: &[Library], openssl: bool) {
    let uring = elf.wants.iter().chain(&elf.defines).any(|s| s.starts_with("io_uring"))
        || libraries.iter().any(|l| l.name.starts_with("liburing"));
    if uring {
        report.add(
            "io_uring",
            Mark::Part,
            "it can use io_uring: bytes that go that way are counted, not seen",
        );
        report.advise(
            "switch it off in the program's configuration, or on the host: sysctl kernel.io_uring_disabled=2",
        );
    }
    if openssl {
        kernel_tls(report);
    }
}

/// OpenSSL gives encryption to the kernel where a program or openssl.cnf asks for it.
pub(super) fn kernel_tls(report: &mut Report) {
    let protocols = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let there = protocols.split_whitespace().any(|p| p == "tls") || Path::new("/sys/module/tls").exists();
    let configured = ["/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/usr/lib/ssl/openssl.cnf"]
        .iter()
        .filter_map(|f| std::fs::read_to_string(f).ok())
        .any(|text| asks_for_ktls(&text));
    match (there, configured) {
        (_, true) => {
            report.add("kernel-tls", Mark::Warning, "openssl.cnf asks for kernel TLS (Options = KTLS): SSL_sendfile and the cipher are then not seen");
            report.advise("take KTLS out of Options in openssl.cnf");
        }
        (true, false) => {
            report.add("kernel-tls", Mark::Info, "the kernel has TLS; only programs that ask for it use it (nginx: ssl_conf_command Options KTLS)");
        }
        (false, false) => {}
    }
}

fn asks_for_ktls(configuration: &str) -> bool {
    configuration.lines().map(|l| l.split('#').next().unwrap_or("")).any(|l| {
        l.split_once('=').is_some_and(|(key, value)| {
            key.trim().eq_ignore_ascii_case("options")
                && value.split(',').any(|o| o.trim().eq_ignore_ascii_case("ktls"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ktls_in_a_configuration() {
        assert!(asks_for_ktls("[x]\nOptions = ServerPreference,KTLS\n"));
        assert!(!asks_for_ktls("# Options = KTLS\nOptions = -SessionTicket\nCiphers = KTLS"));
    }
}
