//! One content over two connections with a relay in between, observed or not: what it changed is named
//! though the two share no id, and a TLS session that ends on the way is said.

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, truth};

const BYTES: usize = 500_000;

/// socat sends a file over `kind` to a relay, which passes it on to another socat, over `kind` again.
fn relayed(kind: &str, relay_observed: bool, flips: &str) -> Run {
    let (near, far) = (peers::free_port(), peers::free_port());
    let (listen, connect) = match kind {
        "tls" => (
            "openssl-listen:{},reuseaddr,bind=127.0.0.1,cert=cert.pem,key=key.pem,verify=0",
            "openssl:127.0.0.1:{},cafile=cert.pem,commonname=localhost",
        ),
        _ => ("tcp-listen:{},reuseaddr,bind=127.0.0.1", "tcp:127.0.0.1:{}"),
    };
    let listen = listen.replace("{}", &far.to_string());
    let connect = connect.replace("{}", &near.to_string());
    let off = if relay_observed { "" } else { "COUNTERFOIL_OFF=1" };
    let session = Observed::script(&format!(
        "socat -u {listen} create:got & server=$!\nlistening {far}\n\
         {off} {python} {relay} {kind} {kind} {near} {far} {flips} & relay=$!\nlistening {near}\n\
         socat -u open:sent {connect}\nwait $relay; wait $server",
        python = peers::PYTHON,
        relay = peers::script("relay.py"),
    ));
    peers::certificate(&session.scratch);
    session.scratch.write("sent", payload(7, BYTES));
    session.go().well()
}

/// The transfer from end to end: the one that names its legs.
fn whole(run: &Run) -> Option<Transfer> {
    run.report.transfers().into_iter().find(|t| t.channel() != "file" && !t.legs().is_empty())
}

#[test]
fn an_unobserved_relay_that_ends_tls_is_said() {
    need!("socat", "openssl");
    let run = relayed("tls", false, "");
    let Some(whole) = whole(&run) else {
        panic!("the two ends were not laid together: {}", run.report.shown())
    };
    check!(run, whole.verdict() == "intact", "{}", whole.shown());
    check!(run, run.report.fired("tls-terminated-in-path"), "not said");
    check!(run, !run.report.fired("payload-altered"), "falsely accused");
}

#[test]
fn what_an_unobserved_relay_changes_is_found_in_its_block() {
    need!("socat", "openssl");
    for kind in ["tls", "tcp"] {
        let run = relayed(kind, false, "200000");
        let Some(whole) = whole(&run) else { panic!("{kind}: not laid together: {}", run.report.shown()) };
        check!(run, whole.altered() == [(196_608, 16_384)], "{}", whole.shown());
        check!(run, run.report.fired("payload-altered"), "not said");
        check!(
            run,
            run.report.fired("tls-terminated-in-path") == (kind == "tls"),
            "TLS that ended on the way"
        );
    }
}

#[test]
fn what_an_observed_relay_changes_is_found_in_its_block() {
    need!("socat", "openssl");
    for kind in ["tls", "tcp"] {
        let run = relayed(kind, true, "0 499999");
        let Some(whole) = whole(&run) else { panic!("{kind}: not laid together: {}", run.report.shown()) };
        check!(run, whole.altered() == [(0, 16_384), (491_520, 8_480)], "{}", whole.shown());
        check!(run, run.report.fired("payload-altered"), "not said");
    }
}

#[test]
fn an_observed_relay_that_passes_on_plain_tcp_raises_nothing() {
    need!("socat");
    truth::blameless(&relayed("tcp", true, ""));
}
