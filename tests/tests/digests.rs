//! `[integrity] stream_digest`: blocks with BLAKE3 or SHA-256 in place of the MAC, and the assurance
//! that a verdict has with each.

use counterfoil_tests::{Observed, check};

/// The transfers of one fixture, clean and then with byte 20000 changed below the sender.
fn with(digest: &str, assurance: &str) {
    for (fixture, channel, point) in [
        ("tls 1.3 - write read 700000 40000", "tls", "tls-out"),
        ("stream tcp send recv 700000 60000", "tcp", "sock-out"),
    ] {
        for altered in [false, true] {
            let config = Observed::fixture(fixture);
            let file = config.scratch.at("counterfoil.toml");
            config.scratch.write("counterfoil.toml", format!("[integrity]\nstream_digest = \"{digest}\"\n"));
            let observed = config.option("--config").option(file);
            let run = if altered { observed.tampered(&format!("{point}:flip:20000")) } else { observed }.go();
            let transfers = run.report.on(channel);
            check!(run, transfers.len() == 1, "want one transfer");
            check!(run, transfers[0].0["assurance"] == assurance, "want assurance {assurance}");
            let (verdict, ranges): (_, &[(u64, u64)]) =
                if altered { ("altered", &[(16_384, 16_384)]) } else { ("intact", &[]) };
            check!(run, transfers[0].verdict() == verdict, "want {verdict} with {digest}");
            check!(run, transfers[0].altered() == ranges, "want {ranges:?}");
        }
    }
}

#[test]
fn blake3_stands_against_everyone() {
    with("blake3", "hash");
}

#[test]
fn sha256_stands_against_everyone() {
    with("sha256", "hash");
}

#[test]
fn the_mac_stands_against_who_has_no_key() {
    with("aegis", "keyed-tag");
}
