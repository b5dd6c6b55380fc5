//! Requests of several clients go on over one connection to the origin (nginx `keepalive`, haproxy
//! `http-reuse`): each finds its own, and none is taken for another (issue 3).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, truth};
use std::collections::BTreeSet;

const CLIENTS: usize = 6;
const SIZE: usize = 100_000;

/// A proxy: the words that start it, and its configuration.
type Proxy = fn(&Observed, u16, u16) -> String;

fn nginx(session: &Observed, near: u16, far: u16) -> String {
    let location = "location / { proxy_pass http://origin; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }";
    peers::nginx(&session.scratch, near, location);
    let conf = session.scratch.at("nginx.conf");
    let text = std::fs::read_to_string(&conf).expect("read").replace(" ssl http2;", ";");
    let upstream = format!("upstream origin {{ server 127.0.0.1:{far}; keepalive 1; }}\n  server {{");
    std::fs::write(&conf, text.replacen("server {", &upstream, 1)).expect("write");
    "nginx -c \"$PWD/nginx.conf\"".into()
}

fn haproxy(session: &Observed, near: u16, far: u16) -> String {
    session.scratch.write(
        "haproxy.cfg",
        format!(
            "global\n    maxconn 100\n    nbthread 1\ndefaults\n    mode http\n    timeout connect 5s\n    timeout client 20s\n    \
             timeout server 20s\n    http-reuse always\nfrontend near\n    bind 127.0.0.1:{near}\n    \
             default_backend far\nbackend far\n    server far 127.0.0.1:{far}\n"
        ),
    );
    "haproxy -db -q -f haproxy.cfg".into()
}

/// `clients` through the proxy, before whose command stands `before`. The origin ends after `count` requests.
fn through(proxy: Proxy, before: &str, count: usize, clients: &str) -> Run {
    let (near, far) = (peers::free_port(), peers::free_port());
    // What the proxy is called is known once there is a folder for its configuration.
    let session = Observed::script(&format!(
        "{python} {sink} tcp {far} {count} threads & server=$!\nlistening {far}\n\
         {before} sh proxy & proxy=$!\nlistening {near}\nurl=http://127.0.0.1:{near}\n\
         put() {{ curl -sS --http1.1 -T $1 $url/$1; }}\n{clients}\nwait $server; kill $proxy; wait $proxy || true",
        python = peers::PYTHON,
        sink = peers::script("http_sink.py"),
    ));
    let start = proxy(&session, near, far);
    session.scratch.write("proxy", format!("exec {start}\n"));
    for client in 0..CLIENTS {
        session.scratch.write(&format!("f{client}"), payload(client as u64 + 1, SIZE + client));
    }
    // Two of one length, with one block of seven another.
    let mut other = payload(1, SIZE);
    other[50_000] ^= 1;
    session.scratch.write("other", other);
    session.go().well()
}

/// The one transfer of this file to the origin.
fn file(run: &Run, name: &str) -> Transfer {
    let path = |t: &Transfer, end: &str| t.0[end]["path"].as_str().unwrap_or("").to_owned();
    let is = |t: &Transfer| {
        path(t, "origin").ends_with(&format!("/{name}"))
            && path(t, "destination").ends_with(&format!("/got/{name}"))
    };
    let found: Vec<_> = run.report.on("file").into_iter().filter(is).collect();
    check!(run, found.len() == 1, "{} file transfers of {name}", found.len());
    found[0].clone()
}

/// Transfers from end to end, through a proxy that nobody sees.
fn ways(run: &Run) -> Vec<Transfer> {
    let whole = |t: &Transfer| t.channel() != "file" && !t.legs().is_empty() && t.program("origin") == "curl";
    run.report.transfers().into_iter().filter(whole).collect()
}

/// One after the other, so that one connection to the origin is enough for all.
fn in_turn() -> String {
    (0..CLIENTS).map(|n| format!("put f{n}\n")).collect()
}

#[test]
fn each_client_finds_its_own() {
    need!("nginx", "haproxy", "curl");
    for (name, proxy) in [("nginx", nginx as Proxy), ("haproxy", haproxy)] {
        for before in ["COUNTERFOIL_OFF=1", ""] {
            let run = through(proxy, before, CLIENTS, &in_turn());
            truth::blameless(&run);
            let what = format!("{name}, {before:?}");
            for client in 0..CLIENTS {
                let t = file(&run, &format!("f{client}"));
                check!(run, t.verdict() == "intact", "{what}: {}", t.shown());
            }
            let server = |t: &Transfer| t.program("destination").starts_with("python");
            let to_origin = run.report.on("tcp").into_iter().filter(|t| server(t) && t.legs().is_empty());
            check!(run, to_origin.count() == 1, "{what}: more than one connection to the origin");
            if !before.is_empty() {
                let ways = ways(&run);
                check!(run, ways.len() == CLIENTS, "{what}: {} clients found", ways.len());
                check!(run, ways.iter().all(|t| t.reasons() == ["transformed"]), "{what}: {ways:?}");
                let sizes: BTreeSet<_> = ways.iter().filter_map(Transfer::origin).collect();
                let sent: BTreeSet<_> = (0..CLIENTS).map(|client| (SIZE + client) as u64).collect();
                check!(run, sizes == sent, "{what}: {sizes:?}");
            }
        }
    }
}

/// More than one connection's worth: what came first is still known when the connection to the origin ends.
#[test]
fn hundreds_of_clients() {
    need!("nginx", "curl");
    const MANY: usize = 700;
    let clients = format!(
        "COUNTERFOIL_OFF=1 {python} -c \"import random\nfor n in range({MANY}): \
         open('m%d' % n, 'wb').write(random.Random(n).randbytes(3000))\"\n\
         curl -sS --http1.1 -H 'Connection: close' -T 'm[0-{last}]' $url/",
        python = peers::PYTHON,
        last = MANY - 1
    );
    let run = through(nginx, "COUNTERFOIL_OFF=1", MANY, &clients);
    truth::blameless(&run);
    let ways = ways(&run);
    check!(run, ways.len() == MANY, "{} clients found", ways.len());
    for client in [0, 1, MANY / 2, MANY - 1] {
        let t = file(&run, &format!("m{client}"));
        check!(run, t.verdict() == "intact", "{}", t.shown());
    }
}

#[test]
fn one_client_that_asks_often_and_many_at_once() {
    need!("nginx", "haproxy", "curl");
    let all: String = (0..CLIENTS).map(|n| format!("-T f{n} $url/f{n} ")).collect();
    let often = format!("curl -sS --http1.1 {all}");
    let at_once: String =
        (0..CLIENTS).map(|n| format!("put f{n} & all=\"${{all-}} $!\"\n")).collect::<String>() + "wait $all";
    for (name, proxy) in [("nginx", nginx as Proxy), ("haproxy", haproxy)] {
        for before in ["COUNTERFOIL_OFF=1", ""] {
            for clients in [&often, &at_once] {
                let run = through(proxy, before, CLIENTS, clients);
                truth::blameless(&run);
                for client in 0..CLIENTS {
                    let t = file(&run, &format!("f{client}"));
                    check!(run, t.verdict() == "intact", "{name}, {before:?}: {}", t.shown());
                }
            }
        }
    }
}

#[test]
fn another_version_is_nobodys_alteration() {
    need!("nginx", "haproxy", "curl");
    // The first goes up unseen, so that its like finds the other one's body alone at the origin.
    let clients = "put f1; COUNTERFOIL_OFF=1 curl -sS --http1.1 -T f0 $url/f0; put other; put f2";
    for (name, proxy) in [("nginx", nginx as Proxy), ("haproxy", haproxy)] {
        for before in ["COUNTERFOIL_OFF=1", ""] {
            let run = through(proxy, before, 4, clients);
            truth::blameless(&run);
            for sent in ["f1", "other", "f2"] {
                let t = file(&run, sent);
                check!(run, t.verdict() == "intact", "{name}, {before:?}: {}", t.shown());
            }
        }
    }
}

#[test]
fn what_is_changed_on_a_shared_connection_is_one_clients() {
    need!("haproxy", "curl");
    let flip = "TAMPER=sock-out:flip:250000";
    // Somebody sees haproxy: the leg behind it is not as haproxy sent it.
    let below = format!("LD_PRELOAD=\"$LD_PRELOAD:$FIXTURES/tamper.so\" {flip}");
    let seen = through(haproxy, &below, CLIENTS, &in_turn());
    // Nobody does: whose the changed body was is not to be known.
    let unseen = through(
        haproxy,
        &format!("COUNTERFOIL_OFF=1 LD_PRELOAD=$FIXTURES/tamper.so {flip}"),
        CLIENTS,
        &in_turn(),
    );
    for (run, last) in [(&seen, "altered"), (&unseen, "unverified")] {
        truth::sound(run);
        let sent = |t: &Transfer, client: usize| {
            t.0["origin"]["path"].as_str().is_some_and(|p| p.ends_with(&format!("/f{client}")))
        };
        for client in 0..CLIENTS {
            let found: Vec<_> = run.report.on("file").into_iter().filter(|t| sent(t, client)).collect();
            let wanted = if client == 2 { last } else { "intact" };
            check!(run, found.len() == 1 && found[0].verdict() == wanted, "f{client}: {found:?}");
        }
    }
    let accused = unseen.report.transfers().into_iter().filter(|t| t.verdict() == "altered").count();
    check!(unseen, accused == 0, "who shares a connection is not accused by it");
}
