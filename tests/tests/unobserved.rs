//! Files that go to somebody whom nobody observes, or come from there: which file, with which digest, to whom
//! (issue 3). The other end is left open, and nothing more is claimed.

use counterfoil_tests::scratch::payload;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Observed, Run, Transfer, check, need, need_sshd, peers, truth};
use sha2::{Digest, Sha256};

const SIZE: usize = 300_000;

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// Transfers of one file: its end is `end` (`origin`, `destination`), its path in the scratch folder `path`.
fn of(run: &Run, end: &str, path: &str) -> Vec<Transfer> {
    let wanted = run.scratch.path().canonicalize().expect("scratch").join(path);
    let is = |t: &Transfer| t.0[end]["path"] == *wanted.to_string_lossy();
    run.report.on("file").into_iter().filter(is).collect()
}

/// It is told once, with the file's digest, and where it went or came from.
fn told(run: &Run, end: &str, path: &str, program: &str, port: u16) {
    let found = of(run, end, path);
    check!(run, found.len() == 1, "{} file transfers of {path}", found.len());
    let t = &found[0];
    let content = std::fs::read(run.scratch.at(path)).expect("file");
    check!(run, t.verdict() == "unverified" && t.reasons() == ["peer-not-observed"], "{}", t.shown());
    check!(run, t.program(end) == program, "{}", t.shown());
    check!(run, t.0[end]["sha256"] == sha256(&content), "{path}: {}", t.0[end]["sha256"]);
    let other = if end == "origin" { "destination" } else { "origin" };
    check!(run, t.0[other].is_null(), "{}", t.shown());
    check!(run, t.0["bytes"][end] == content.len(), "{}", t.shown());
    let remote = t.0[end]["remote"].as_str().unwrap_or("");
    check!(run, port == 0 || remote == format!("127.0.0.1:{port}"), "{path} and {remote}");
    let legs = t.legs();
    let leg = legs.iter().find_map(|id| {
        run.report.transfers().into_iter().find(|t| t.0["id"] == *id && t.reasons() == ["peer-not-observed"])
    });
    check!(run, leg.is_some(), "{path} names no connection to somebody unseen: {}", t.shown());
}

/// Nothing but these files is told of.
fn only(run: &Run, count: usize) {
    truth::blameless(run);
    let files = run.report.on("file");
    check!(run, files.len() == count, "{} files, not {count}: {files:#?}", files.len());
}

/// curl's way up and down, to a server that is not observed, in one of HTTP's versions.
fn by_curl(version: &str, tls: bool) -> Run {
    let port = peers::free_port();
    let scheme = if tls { "https" } else { "http" };
    let session = Observed::script(&format!(
        "COUNTERFOIL_OFF=1 nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nurl={scheme}://localhost:{port}\n\
         printf 'silent\\n' >curlrc\nget=\"curl -K curlrc -S --ipv4 {version} --cacert cert.pem -c jar -D heads\"\n\
         $get -T sent $url/up/sent\n$get $url/f -o got\nkill $server; wait $server || true",
    ));
    peers::nginx(&session.scratch, port, "");
    if !tls {
        let conf = session.scratch.at("nginx.conf");
        let text = std::fs::read_to_string(&conf).expect("read").replace(" ssl http2;", ";");
        std::fs::write(&conf, text).expect("write");
    }
    session.scratch.write("sent", payload(1, SIZE));
    session.scratch.write("www/f", payload(2, SIZE + 1));
    session.env("PORT", port.to_string()).go().well()
}

fn port_of(run: &Run) -> u16 {
    let conf = std::fs::read_to_string(run.scratch.at("nginx.conf")).expect("nginx.conf");
    let from = conf.split("127.0.0.1:").nth(1).expect("listen");
    from.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).expect("a port")
}

#[test]
fn curl_up_and_down() {
    need!("curl", "nginx", "openssl");
    for (version, tls) in [("--http1.1", false), ("--http1.1", true), ("--http2", true)] {
        let run = by_curl(version, tls);
        let port = port_of(&run);
        told(&run, "origin", "sent", "curl", port);
        told(&run, "destination", "got", "curl", port);
        only(&run, 2);
    }
}

/// An sshd that is not observed.
fn beside_unseen_sshd(commands: &str) -> (Run, u16) {
    let scratch = counterfoil_tests::Scratch::new();
    let sshd = Sshd::new(&scratch);
    let port = sshd.port();
    let script =
        sshd.around(commands).replacen("/usr/sbin/sshd -D", "COUNTERFOIL_OFF=1 /usr/sbin/sshd -D", 1);
    assert!(script.contains("COUNTERFOIL_OFF"), "{script}");
    let mut session = Observed::script(&script);
    session.scratch = scratch;
    session.scratch.write("src/f0", payload(1, SIZE));
    session.scratch.write("src/f1", payload(2, 70_000));
    session.scratch.write("src/f2", "");
    session.scratch.write("far/f3", payload(3, SIZE));
    (session.go().well(), port)
}

#[test]
fn scp_to_an_sshd_and_from_it() {
    need_sshd!();
    for options in ["", "-C", "-O"] {
        let commands = format!(
            "mkdir dst back; scp {options} src/f0 src/f1 src/f2 far:$here/dst/\nscp {options} far:$here/far/f3 back/f3"
        );
        let (run, port) = beside_unseen_sshd(&commands);
        for name in ["f0", "f1", "f2"] {
            told(&run, "origin", &format!("src/{name}"), "scp", port);
        }
        told(&run, "destination", "back/f3", "scp", port);
        only(&run, 4);
    }
}

#[test]
fn sftp_and_a_pipe_through_ssh() {
    need_sshd!();
    let (run, port) = beside_unseen_sshd(
        "mkdir dst; printf 'put %s/src/f0 %s/dst/f0\\nget %s/far/f3 back\\n' $here $here $here | sftp -b - far >/dev/null\n\
         cat src/f1 | ssh far \"cat >$here/dst/f1\"\nssh far \"cat $here/far/f3\" | cat >piped",
    );
    told(&run, "origin", "src/f0", "sftp", port);
    told(&run, "destination", "back", "sftp", port);
    told(&run, "origin", "src/f1", "cat", port);
    told(&run, "destination", "piped", "cat", port);
    only(&run, 4);
}

#[test]
fn a_client_that_nobody_sees() {
    need_sshd!();
    need!("nginx", "curl", "openssl");
    // The same from the server's side.
    let scratch = counterfoil_tests::Scratch::new();
    let script = Sshd::new(&scratch)
        .around("mkdir dst\nexport COUNTERFOIL_OFF=1\nscp src/f0 far:$here/dst/f0\nscp far:$here/far/f3 back")
        .replacen("$PWD; ", "$PWD\n", 1);
    let mut session = Observed::script(&script);
    session.scratch = scratch;
    session.scratch.write("src/f0", payload(1, SIZE));
    session.scratch.write("far/f3", payload(3, SIZE));
    let run = session.go().well();
    told(&run, "destination", "dst/f0", "sftp-server", 0);
    told(&run, "origin", "far/f3", "sftp-server", 0);
    only(&run, 2);

    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nexport COUNTERFOIL_OFF=1\n\
         put=\"curl -sS --ipv4 --http1.1 --cacert cert.pem\"\n$put -T sent https://localhost:{port}/up/sent\n\
         $put https://localhost:{port}/f -o got\nkill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("sent", payload(1, SIZE));
    session.scratch.write("www/f", payload(2, SIZE));
    let run = session.go().well();
    told(&run, "destination", "www/up/sent", "nginx", 0);
    told(&run, "origin", "www/f", "nginx", 0);
    only(&run, 2);
}

/// A server that hands out one file again and again, faster than each reading is told in full: every connection that
/// carried it is named, and none that didn't.
#[test]
fn one_file_to_many() {
    need!("curl", "nginx", "openssl");
    const TIMES: usize = 24;
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nexport COUNTERFOIL_OFF=1\n\
         get=\"curl -sS --ipv4 --http1.1 --cacert cert.pem\"\nurl=https://localhost:{port}\n\
         $get -H 'Connection: close' \"$url/small?[1-{TIMES}]\" >got\n$get \"$url/other\" >>got\n\
         $get \"$url/small?[1-{TIMES}]\" >>got\nkill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("www/small", payload(1, 3000));
    session.scratch.write("www/other", payload(2, 3000));
    let run = session.go().well();
    let got = std::fs::metadata(run.scratch.at("got")).expect("got").len();
    check!(run, got == 3000 * (2 * TIMES as u64 + 1), "{got} bytes were served");
    told(&run, "origin", "www/other", "nginx", 0);
    let found = of(&run, "origin", "www/small");
    let clients: std::collections::BTreeSet<String> =
        found.iter().map(|t| t.0["origin"]["remote"].to_string()).collect();
    check!(run, clients.len() == TIMES + 1, "{} connections, not {}", clients.len(), TIMES + 1);
    // The last one carried it over and over: that is told for each reading that was told in full.
    check!(run, found.len() <= 2 * TIMES, "{} transfers", found.len());
    for t in &found {
        check!(run, t.reasons() == ["peer-not-observed"], "{}", t.shown());
        check!(run, t.0["origin"]["sha256"] == sha256(&payload(1, 3000)), "{}", t.shown());
    }
    truth::blameless(&run);
}

/// Clients that have their connections open at the same time and fetch one file in turn: each of them got it.
#[test]
fn one_file_to_many_at_once() {
    need!("nginx", "openssl");
    const CLIENTS: usize = 4;
    let port = peers::free_port();
    let fetch = format!(
        "import http.client as h, ssl\nc = ssl.create_default_context(cafile='cert.pem')\n\
         all = [h.HTTPSConnection('localhost', {port}, context=c) for _ in range({CLIENTS})]\n\
         for n in range(9):\n  for one in all:\n    one.request('GET', '/small'); assert len(one.getresponse().read()) == 3000\n\
         for one in all: one.close()"
    );
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\n\
         COUNTERFOIL_OFF=1 {} fetch.py\nkill -QUIT $server; wait $server",
        peers::PYTHON
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("fetch.py", fetch);
    session.scratch.write("www/small", payload(1, 3000));
    let run = session.go().well();
    let found = of(&run, "origin", "www/small");
    let clients: std::collections::BTreeSet<String> =
        found.iter().map(|t| t.0["origin"]["remote"].to_string()).collect();
    check!(run, clients.len() == CLIENTS, "{} of {CLIENTS} clients: {found:#?}", clients.len());
    truth::blameless(&run);
}

/// More than a server's programs remembered once, within the time that a file's other end is looked for.
#[test]
fn many_uploads_by_clients_that_are_not_observed() {
    need!("curl", "nginx", "openssl");
    const CLIENTS: usize = 90;
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\n\
         for n in $(seq {CLIENTS}); do COUNTERFOIL_OFF=1 curl -sS --ipv4 --http1.1 --cacert cert.pem -T f$n https://localhost:{port}/up/f$n; done\n\
         kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "");
    for n in 1..=CLIENTS {
        session.scratch.write(&format!("f{n}"), payload(n as u64, 20_000));
    }
    let run = session.go().well();
    for n in 1..=CLIENTS {
        told(&run, "destination", &format!("www/up/f{n}"), "nginx", 0);
    }
    only(&run, CLIENTS);
}

#[test]
fn what_is_read_and_not_sent_is_no_transfer() {
    need!("curl", "nginx", "openssl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "COUNTERFOIL_OFF=1 nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\n\
         {python} -c 'import urllib.request as r,ssl\nopen(\"sent\",\"rb\").read()\n\
         c=ssl.create_default_context(cafile=\"cert.pem\")\nopen(\"page\",\"wb\").write(b\"x\"*99+r.urlopen(\"https://localhost:{port}/f\",context=c).read())'\n\
         curl -sS --ipv4 --cacert cert.pem https://localhost:{port}/f | gzip >zipped\n\
         cat sent >copy\nkill $server; wait $server || true",
        python = peers::PYTHON,
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("sent", payload(1, SIZE));
    session.scratch.write("www/f", payload(2, SIZE));
    let run = session.go().well();
    only(&run, 1);
    check!(run, of(&run, "destination", "copy").len() == 1, "the copy");
}

#[test]
fn the_ledger_answers_who_sent_what_to_whom() {
    need!("curl", "nginx", "openssl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "COUNTERFOIL_OFF=1 nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\n\
         curl -sS --ipv4 --http1.1 --cacert cert.pem -T sent https://localhost:{port}/up/sent\n\
         kill $server; wait $server || true",
    ));
    let state = session.scratch.at("state");
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("sent", payload(1, SIZE));
    let run = session.option("--state").option(state.clone()).go().well();
    let out = std::process::Command::new(counterfoil_tests::product::program())
        .args(["transfers", "--channel", "file", "--state"])
        .arg(&state)
        .output()
        .expect("counterfoil transfers");
    let text = String::from_utf8_lossy(&out.stdout);
    let digest = sha256(&payload(1, SIZE));
    for part in
        ["unverified", "/sent", "curl (pid", &digest, &format!("127.0.0.1:{port}"), "peer-not-observed"]
    {
        check!(
            run,
            text.contains(part),
            "{part} is not in {text:?} {}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
