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

#[test]
fn a_relay_that_says_something_first_is_found_and_not_accused() {
    need!("socat", "openssl");
    // As the PROXY protocol does.
    let before = "'+PROXY TCP4 127.0.0.1 127.0.0.1 40000 443'";
    for kind in ["tls", "tcp"] {
        for (observed, flips) in [(false, ""), (true, ""), (false, "200000")] {
            let run = relayed(kind, observed, &format!("{flips} {before}"));
            truth::blameless(&run);
            let said = run.report.fired("tls-terminated-in-path");
            check!(run, said == (kind == "tls"), "{kind}, observed {observed}: TLS that ends on the way");
            if !observed {
                let Some(whole) = whole(&run) else {
                    panic!("{kind}: not laid together: {}", run.report.shown())
                };
                // What is behind the first bytes was not compared: nothing is claimed of it.
                check!(run, whole.verdict() == "unverified", "{}", whole.shown());
                check!(run, whole.reasons() == ["transformed"], "{}", whole.shown());
            }
        }
    }
}

#[test]
fn socat_that_ends_tls_is_a_relay_like_any_other() {
    need!("socat", "openssl");
    for observed in [false, true] {
        let (near, far) = (peers::free_port(), peers::free_port());
        let off = if observed { "" } else { "COUNTERFOIL_OFF=1" };
        let listen = "reuseaddr,bind=127.0.0.1,cert=cert.pem,key=key.pem,verify=0";
        let connect = "cafile=cert.pem,commonname=localhost";
        let session = Observed::script(&format!(
            "socat -u openssl-listen:{far},{listen} create:got & server=$!\nlistening {far}\n\
             {off} socat -u openssl-listen:{near},{listen} openssl:127.0.0.1:{far},{connect} & relay=$!\n\
             listening {near}\n\
             socat -u open:sent openssl:127.0.0.1:{near},{connect}\nwait $relay; wait $server",
        ));
        peers::certificate(&session.scratch);
        session.scratch.write("sent", payload(7, BYTES));
        let run = session.go().well();
        truth::blameless(&run);
        check!(run, run.report.fired("tls-terminated-in-path"), "observed {observed}: not said");
        let file = run.report.on("file");
        check!(run, file.len() == 1 && file[0].verdict() == "intact", "observed {observed}: the file");
    }
}
