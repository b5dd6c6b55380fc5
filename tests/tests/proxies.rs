//! A file that is uploaded through an HTTP proxy, which gives it other heads and other frames, and perhaps
//! other bytes: what the file's transfer says, and what the connections'.

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, truth};

const SIZE: usize = 300_000;

/// `upload` (a line of shell; `$url` is the proxy's) through a proxy that does `deeds`.
fn through(kind: &str, proxy_observed: bool, deeds: &str, upload: &str, count: u32) -> Run {
    let (near, far) = (peers::free_port(), peers::free_port());
    let off = if proxy_observed { "" } else { "COUNTERFOIL_OFF=1" };
    let scheme = if kind == "tls" { "https" } else { "http" };
    let session = Observed::script(&format!(
        "{python} {sink} {kind} {far} {count} & server=$!\nlistening {far}\n\
         {off} {python} {proxy} {kind} {kind} {near} {far} {deeds} & proxy=$!\nlistening {near}\n\
         url={scheme}://localhost:{near}\n{upload}\nwait $proxy; wait $server",
        python = peers::PYTHON,
        sink = peers::script("http_sink.py"),
        proxy = peers::script("http_proxy.py"),
    ));
    peers::certificate(&session.scratch);
    session.scratch.write("sent", payload(7, SIZE));
    session.scratch.write("other", payload(8, SIZE));
    session.go().well()
}

const CURL: &str = "curl -sS --http1.1 --ipv4 --cacert cert.pem -T sent $url/sent";

/// The one transfer of this file to the origin server.
fn file(run: &Run, name: &str) -> Transfer {
    let path = |t: &Transfer, end: &str| t.0[end]["path"].as_str().unwrap_or("").to_owned();
    let is = |t: &Transfer| {
        let arrived = path(t, "destination");
        path(t, "origin").ends_with(&format!("/{name}"))
            && (arrived.contains("/got/") || arrived.contains("/www/up/"))
    };
    let found: Vec<_> = run.report.on("file").into_iter().filter(is).collect();
    check!(run, found.len() == 1, "{} file transfers of {name}", found.len());
    found[0].clone()
}

/// The transfer from end to end over both connections.
fn whole(run: &Run) -> Option<Transfer> {
    run.report.transfers().into_iter().find(|t| t.channel() != "file" && !t.legs().is_empty())
}

#[test]
fn other_heads_and_frames_accuse_nobody() {
    need!("curl", "openssl");
    for kind in ["tls", "tcp"] {
        for (observed, deeds) in [(false, ""), (true, ""), (false, "chunk"), (true, "chunk"), (false, "host")]
        {
            let run = through(kind, observed, deeds, CURL, 1);
            truth::blameless(&run);
            let what = format!("{kind}, {deeds:?}, proxy observed: {observed}");
            let t = file(&run, "sent");
            check!(run, t.verdict() == "intact", "{what}: {}", t.shown());
            let said = run.report.fired("tls-terminated-in-path");
            check!(run, said == (kind == "tls"), "{what}: TLS that ends on the way");
            if !observed {
                let whole = whole(&run);
                check!(run, whole.is_some(), "{what}: not laid together");
                let whole = whole.expect("checked");
                check!(run, whole.verdict() == "unverified", "{what}: {}", whole.shown());
                check!(run, whole.reasons() == ["transformed"], "{what}: {}", whole.shown());
            }
        }
    }
}

#[test]
fn a_flipped_byte_is_found_in_the_file_and_on_the_way() {
    need!("curl", "openssl");
    for kind in ["tls", "tcp"] {
        for (observed, deeds) in [(false, "flip:200000"), (true, "flip:200000"), (false, "chunk flip:200000")]
        {
            let what = format!("{kind}, {deeds:?}, proxy observed: {observed}");
            let run = through(kind, observed, deeds, CURL, 1);
            truth::sound(&run);
            let t = file(&run, "sent");
            check!(run, t.verdict() == "altered", "{what}: {}", t.shown());
            check!(run, t.altered() == [(196_608, 16_384)], "{what}: {}", t.shown());
            let Some(whole) = whole(&run) else { panic!("{what}: not laid together\n{}", run.shown()) };
            check!(run, whole.verdict() == "altered", "{what}: {}", whole.shown());
            let [(offset, length)] = whole.altered()[..] else { panic!("{what}: {}", whole.shown()) };
            check!(
                run,
                length == 16_384 && (196_608..197_608).contains(&offset),
                "{what}: {}",
                whole.shown()
            );
            let alarms = run.report.alarms();
            let places: Vec<_> = alarms.iter().filter_map(|a| a.0["evidence"]["place"].as_str()).collect();
            let place = if observed { "inside python3" } else { "between curl and python3" };
            check!(run, places.iter().any(|p| p.contains(place)), "{what}: places {places:?}");
        }
    }
}

#[test]
fn inserted_bytes_are_found_in_the_file() {
    need!("curl", "openssl");
    for kind in ["tls", "tcp"] {
        for observed in [false, true] {
            let what = format!("{kind}, proxy observed: {observed}");
            let run = through(kind, observed, "insert:200000", CURL, 1);
            truth::sound(&run);
            let t = file(&run, "sent");
            check!(run, t.verdict() == "altered", "{what}: {}", t.shown());
            check!(run, t.altered() == [(196_608, SIZE as u64 + 8 - 196_608)], "{what}: {}", t.shown());
        }
    }
}

#[test]
fn what_a_proxy_compresses_accuses_nobody() {
    need!("curl", "openssl");
    for observed in [false, true] {
        truth::blameless(&through("tls", observed, "gzip", CURL, 1));
    }
}

#[test]
fn two_versions_of_a_file_over_one_connection() {
    need!("curl", "openssl");
    let upload = "cp sent second; printf x | dd of=second bs=1 seek=150000 conv=notrunc 2>/dev/null\n\
        curl -sS --http1.1 --ipv4 --cacert cert.pem -T sent $url/sent -T second $url/second -T other $url/other";
    for observed in [false, true] {
        let run = through("tls", observed, "", upload, 3);
        truth::blameless(&run);
        for name in ["sent", "second", "other"] {
            let t = file(&run, name);
            check!(run, t.verdict() == "intact", "{}", t.shown());
        }
    }
}

/// nginx as a reverse proxy (`scheme` on both sides) before `http_sink.py`.
fn through_nginx(kind: &str, observed: bool, more: &str) -> Run {
    let (near, far) = (peers::free_port(), peers::free_port());
    let off = if observed { "" } else { "COUNTERFOIL_OFF=1" };
    let scheme = if kind == "tls" { "https" } else { "http" };
    let session = Observed::script(&format!(
        "{python} {sink} {kind} {far} 1 & server=$!\nlistening {far}\n\
         {off} nginx -c \"$PWD/nginx.conf\" & proxy=$!\nlistening {near}\n\
         curl -sS --http1.1 --ipv4 --cacert cert.pem -T sent {scheme}://localhost:{near}/sent\n\
         wait $server; kill -QUIT $proxy; wait $proxy",
        python = peers::PYTHON,
        sink = peers::script("http_sink.py"),
    ));
    let location =
        format!("location / {{ proxy_pass {scheme}://127.0.0.1:{far}; proxy_http_version 1.1; {more} }}");
    peers::nginx(&session.scratch, near, &location);
    if kind == "tcp" {
        let conf = session.scratch.at("nginx.conf");
        let text = std::fs::read_to_string(&conf).expect("read").replace(" ssl http2;", ";");
        std::fs::write(&conf, text).expect("write");
    }
    session.scratch.write("sent", payload(7, SIZE));
    session.go().well()
}

#[test]
fn nginx_before_the_origin() {
    need!("curl", "openssl", "nginx");
    for kind in ["tls", "tcp"] {
        for (observed, more) in [(false, ""), (true, ""), (true, "proxy_request_buffering off;")] {
            let run = through_nginx(kind, observed, more);
            truth::blameless(&run);
            let t = file(&run, "sent");
            check!(run, t.verdict() == "intact", "{kind}, observed {observed}: {}", t.shown());
            let said = run.report.fired("tls-terminated-in-path");
            check!(run, said == (kind == "tls"), "{kind}, observed {observed}: TLS that ends on the way");
        }
    }
}

#[test]
fn a_proxy_before_nginx_flips_a_byte() {
    need!("curl", "openssl", "nginx");
    let (near, far) = (peers::free_port(), peers::free_port());
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {far}\n\
         COUNTERFOIL_OFF=1 {python} {proxy} tls tls {near} {far} flip:200000 & proxy=$!\nlistening {near}\n\
         curl -sS --http1.1 --ipv4 --cacert cert.pem -T sent https://localhost:{near}/up/sent\n\
         wait $proxy; kill -QUIT $server; wait $server",
        python = peers::PYTHON,
        proxy = peers::script("http_proxy.py"),
    ));
    peers::nginx(&session.scratch, far, "");
    session.scratch.write("sent", payload(7, SIZE));
    let run = session.go().well();
    let t = file(&run, "sent");
    check!(run, t.verdict() == "altered", "{}", t.shown());
    check!(run, t.altered() == [(196_608, 16_384)], "{}", t.shown());
    check!(
        run,
        t.0["destination"]["path"].as_str().is_some_and(|p| p.ends_with("/www/up/sent")),
        "{}",
        t.shown()
    );
}
