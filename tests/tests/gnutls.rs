//! GnuTLS's own ways to send: nothing is counted twice, nothing is lost, and a retry that offers
//! other bytes does not make the ones that were sent first look altered.

use counterfoil_tests::{Observed, check, truth};

const TOTAL: u64 = 2_000_000;

fn arrives_intact(way: &str) {
    let run = Observed::fixture(&format!("gnutls {way}")).go().well();
    truth::blameless(&run);
    let there: Vec<_> =
        run.report.on("tls").into_iter().filter(|t| t.origin().is_some_and(|bytes| bytes > 0)).collect();
    check!(run, there.len() == 1, "{way}: want one transfer with content on tls");
    let transfer = &there[0];
    check!(run, transfer.origin() == Some(TOTAL), "{way}: bytes sent: {}", transfer.shown());
    check!(run, transfer.verdict() == "intact", "{way}: {}", transfer.shown());
}

macro_rules! ways {
    ($($name:ident: $way:literal;)*) => {
        $(#[test]
        fn $name() {
            arrives_intact($way);
        })*
    };
}

ways! {
    retried_with_the_same_bytes: "same";
    retried_with_null: "null";
    retried_with_other_bytes: "other";
    corked: "cork";
    received_as_packets: "packet";
}
