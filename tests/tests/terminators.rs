//! haproxy and stunnel between two programs, observed and not: they pass on what they get, begin TLS or end
//! it on the way, and what is changed in them is found in its block (issue 3).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, truth};

const BYTES: usize = 500_000;
/// Where a byte is changed, behind any head in the block that has it.
const FLIP: usize = 200_000;
const BLOCK: (u64, u64) = (196_608, 16_384);

/// What a side of a relay speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Tcp,
    Tls,
}
use Side::{Tcp, Tls};

/// With who asks, and with whom it asks.
type Sides = (Side, Side);

/// A relay: its configuration, and how it is started and ended.
struct Relay {
    file: String,
    text: String,
    start: String,
    stop: &'static str,
}

/// haproxy, from port `near` to port `far`.
fn haproxy(mode: &str, sides: Sides, near: u16, far: u16) -> Relay {
    let bind = if sides.0 == Tls { "ssl crt both.pem" } else { "" };
    let server = if sides.1 == Tls { "ssl verify none" } else { "" };
    let text = format!(
        "global\n    maxconn 100\ndefaults\n    mode {mode}\n    timeout connect 5s\n    timeout client 20s\n    \
         timeout server 20s\nfrontend near\n    bind 127.0.0.1:{near} {bind}\n    default_backend far\n\
         backend far\n    server far 127.0.0.1:{far} {server}\n",
    );
    let file = format!("haproxy{near}.cfg");
    Relay { start: format!("haproxy -db -q -f {file}"), file, text, stop: "kill -USR1" }
}

/// stunnel: as a client of TLS, or as a server.
fn stunnel(sides: Sides, near: u16, far: u16) -> Relay {
    let own = if sides == (Tcp, Tls) { "client = yes" } else { "cert = both.pem" };
    let text = format!(
        "foreground = yes\npid =\ndebug = err\n[it]\n{own}\naccept = 127.0.0.1:{near}\nconnect = 127.0.0.1:{far}\n"
    );
    let file = format!("stunnel{near}.conf");
    Relay { start: format!("stunnel4 {file}"), file, text, stop: "kill" }
}

/// What stands before a relay's command where it is not observed.
const UNSEEN: &str = "COUNTERFOIL_OFF=1";

fn before(observed: bool) -> &'static str {
    if observed { "" } else { UNSEEN }
}

/// And where a byte of what it gets is changed, below the hooks if there are any.
fn tampered(observed: bool, side: Side) -> String {
    let point = if side == Tls { "tls-in" } else { "sock-in" };
    let (own, ours) = if observed { ("", "$LD_PRELOAD:") } else { (UNSEEN, "") };
    format!("{own} LD_PRELOAD=\"{ours}$FIXTURES/tamper.so\" TAMPER={point}:flip:{FLIP}")
}

/// `server`, the relays one behind the other with `before` their commands, and `client`, who asks the first.
fn through(relays: &[Relay], before: &str, server: (&str, u16), client: &str, ports: &[u16]) -> Run {
    let mut script = format!("{} & server=$!\nlistening {}\nrelays=\n", server.0, server.1);
    for (relay, port) in relays.iter().zip(ports) {
        script +=
            &format!("{before} {} & relays=\"{} $!; $relays\"\nlistening {port}\n", relay.start, relay.stop);
    }
    script += &format!("{client}\nwait $server\neval \"$relays true\"\nwait\n");
    let session = Observed::script(&script);
    peers::certificate(&session.scratch);
    let both = ["cert.pem", "key.pem"].map(|f| std::fs::read(session.scratch.at(f)).expect("made"));
    session.scratch.write("both.pem", both.concat());
    session.scratch.write("sent", payload(7, BYTES));
    for relay in relays {
        session.scratch.write(&relay.file, &relay.text);
    }
    session.go().well()
}

/// socat sends a file to socat.
fn plainly(relays: &[Relay], before: &str, sides: Sides, ports: &[u16]) -> Run {
    let listen = match sides.1 {
        Tls => "openssl-listen:{},reuseaddr,bind=127.0.0.1,cert=cert.pem,key=key.pem,verify=0",
        Tcp => "tcp-listen:{},reuseaddr,bind=127.0.0.1",
    };
    let connect = match sides.0 {
        Tls => "openssl:127.0.0.1:{},cafile=cert.pem,commonname=localhost",
        Tcp => "tcp:127.0.0.1:{}",
    };
    let far = ports[ports.len() - 1];
    let server = format!("socat -u {} create:got", listen.replace("{}", &far.to_string()));
    let client = format!("socat -u open:sent {}", connect.replace("{}", &ports[0].to_string()));
    through(relays, before, (&server, far), &client, ports)
}

/// curl puts a file.
fn by_http(relays: &[Relay], before: &str, sides: Sides, ports: &[u16]) -> Run {
    let far = ports[ports.len() - 1];
    let kind = if sides.1 == Tls { "tls" } else { "tcp" };
    let scheme = if sides.0 == Tls { "https" } else { "http" };
    let server = format!("{} {} {kind} {far} 1", peers::PYTHON, peers::script("http_sink.py"));
    let client =
        format!("curl -sS --http1.1 --ipv4 --cacert cert.pem -T sent {scheme}://localhost:{}/sent", ports[0]);
    through(relays, before, (&server, far), &client, ports)
}

fn ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| peers::free_port()).collect()
}

/// The transfer from end to end: the one that names its legs.
fn whole(run: &Run) -> Option<Transfer> {
    run.report.transfers().into_iter().find(|t| t.channel() != "file" && !t.legs().is_empty())
}

/// The file's one transfer.
fn file(run: &Run) -> Transfer {
    let is = |t: &Transfer| t.0["origin"]["path"].as_str().is_some_and(|p| p.ends_with("/sent"));
    let found: Vec<_> = run.report.on("file").into_iter().filter(is).collect();
    check!(run, found.len() == 1, "{} file transfers", found.len());
    found[0].clone()
}

/// Connections that carried the file, in its direction.
fn carriers(run: &Run) -> Vec<Transfer> {
    let all = run.report.transfers().into_iter();
    all.filter(|t| ["tls", "tcp"].contains(&t.channel()) && t.legs().is_empty())
        .filter(|t| t.origin().or(t.destination()) >= Some(BYTES as u64))
        .collect()
}

/// Nothing was changed: the file arrived as it was, and every connection that was seen at both ends is intact.
fn clean(run: &Run, observed: bool, relays: usize, sessions: usize, what: &str) {
    truth::blameless(run);
    let t = file(run);
    check!(run, t.verdict() == "intact", "{what}: {}", t.shown());
    let legs = carriers(run);
    check!(run, legs.len() == if observed { relays + 1 } else { 2 }, "{what}: {} legs", legs.len());
    let expected = if observed { "intact" } else { "unverified" };
    check!(run, legs.iter().all(|t| t.verdict() == expected), "{what}: {legs:?}");
    let said = run.report.fired("tls-terminated-in-path");
    check!(run, said == (sessions > 1), "{what}: {sessions} TLS sessions, and said: {said}");
}

/// It was found where it is, and which end or way changed it.
fn found(run: &Run, what: &str) {
    truth::sound(run);
    let t = file(run);
    check!(run, t.verdict() == "altered" && t.altered() == [BLOCK], "{what}: {}", t.shown());
    check!(run, run.report.fired("payload-altered"), "{what}: no alarm");
}

const ALL: [Sides; 4] = [(Tcp, Tcp), (Tls, Tls), (Tls, Tcp), (Tcp, Tls)];

fn sessions(sides: Sides) -> usize {
    usize::from(sides.0 == Tls) + usize::from(sides.1 == Tls)
}

#[test]
fn haproxy_passes_bytes_on() {
    need!("haproxy", "socat", "openssl");
    for sides in ALL {
        for observed in [false, true] {
            let ports = ports(2);
            let relay = haproxy("tcp", sides, ports[0], ports[1]);
            let run = plainly(&[relay], before(observed), sides, &ports);
            let what = format!("{sides:?}, observed: {observed}");
            clean(&run, observed, 1, sessions(sides), &what);
            if !observed {
                let whole = whole(&run);
                let intact = whole.as_ref().is_some_and(|t| t.verdict() == "intact");
                check!(run, intact, "{what}: {whole:?}");
            }
        }
    }
}

#[test]
fn haproxy_passes_requests_on() {
    need!("haproxy", "curl", "openssl");
    for sides in ALL {
        for observed in [false, true] {
            let ports = ports(2);
            let relay = haproxy("http", sides, ports[0], ports[1]);
            let run = by_http(&[relay], before(observed), sides, &ports);
            let what = format!("{sides:?}, observed: {observed}");
            clean(&run, observed, 1, sessions(sides), &what);
        }
    }
}

#[test]
fn what_changes_in_haproxy_is_found() {
    need!("haproxy", "socat", "curl", "openssl");
    for sides in [(Tls, Tls), (Tcp, Tcp), (Tls, Tcp)] {
        for (mode, observed) in [("tcp", false), ("tcp", true), ("http", false), ("http", true)] {
            let ports = ports(2);
            let relay = [haproxy(mode, sides, ports[0], ports[1])];
            let before = tampered(observed, sides.0);
            let run = match mode {
                "tcp" => plainly(&relay, &before, sides, &ports),
                _ => by_http(&relay, &before, sides, &ports),
            };
            found(&run, &format!("{mode}, {sides:?}, observed: {observed}"));
        }
    }
}

#[test]
fn stunnel_begins_and_ends_tls() {
    need!("stunnel4", "socat", "openssl");
    for sides in [(Tcp, Tls), (Tls, Tcp)] {
        for observed in [false, true] {
            let ports = ports(2);
            let relay = stunnel(sides, ports[0], ports[1]);
            let run = plainly(&[relay], before(observed), sides, &ports);
            let what = format!("{sides:?}, observed: {observed}");
            clean(&run, observed, 1, 1, &what);
            if !observed {
                let whole = whole(&run);
                let intact = whole.as_ref().is_some_and(|t| t.verdict() == "intact");
                check!(run, intact, "{what}: {whole:?}");
            }
        }
    }
}

#[test]
fn what_changes_in_stunnel_is_found() {
    need!("stunnel4", "socat", "openssl");
    for sides in [(Tcp, Tls), (Tls, Tcp)] {
        for observed in [false, true] {
            let ports = ports(2);
            let relay = stunnel(sides, ports[0], ports[1]);
            let run = plainly(&[relay], &tampered(observed, sides.0), sides, &ports);
            found(&run, &format!("{sides:?}, observed: {observed}"));
        }
    }
}

#[test]
fn two_stunnels_one_behind_the_other() {
    need!("stunnel4", "socat", "openssl");
    // A tunnel between two plain ends; and TLS that ends in the first and begins again in the second.
    for (outer, inner) in [(Tcp, Tls), (Tls, Tcp)] {
        for observed in [false, true] {
            let ports = ports(3);
            let relays =
                [stunnel((outer, inner), ports[0], ports[1]), stunnel((inner, outer), ports[1], ports[2])];
            let run = plainly(&relays, before(observed), (outer, outer), &ports);
            let sessions = if outer == Tls { 2 } else { 1 };
            clean(&run, observed, 2, sessions, &format!("{outer:?} outside, observed: {observed}"));
        }
    }
}

/// Behind CONNECT, and with TLS libraries that never see a socket.
#[test]
fn a_proxy_that_looks_into_what_it_was_asked_to_pass_on() {
    need!("curl", "openssl", "/usr/bin/python3");
    for (deed, observed) in [("", false), ("", true), ("flip:200200", false), ("flip:200200", true)] {
        let ports = ports(2);
        let start = format!("{} {} {} {deed}", peers::PYTHON, peers::script("connect_proxy.py"), ports[0]);
        let relay = Relay { file: "none".into(), text: String::new(), start, stop: "true" };
        let server = format!("{} {} tls {} 1", peers::PYTHON, peers::script("http_sink.py"), ports[1]);
        let client = format!(
            "curl -sS --http1.1 --ipv4 --cacert cert.pem -x http://127.0.0.1:{} -T sent https://localhost:{}/sent",
            ports[0], ports[1]
        );
        let run = through(&[relay], before(observed), (&server, ports[1]), &client, &ports);
        let what = format!("deed {deed:?}, observed: {observed}");
        check!(
            run,
            run.report.fired("tls-terminated-in-path"),
            "{what}: two TLS sessions, and nobody says so"
        );
        check!(run, run.report.fired("payload-altered") != deed.is_empty(), "{what}");
        if deed.is_empty() {
            truth::blameless(&run);
        }
        let clear = run.report.on("tcp");
        let clear: Vec<_> =
            clear.iter().filter(|t| t.0["origin"]["bytes"].as_u64().is_some_and(|n| n < 200)).collect();
        let whole = clear.iter().filter(|t| t.verdict() == "intact").count();
        check!(run, !observed || whole == 2, "{what}: what was said before TLS: {clear:?}");
    }
}
