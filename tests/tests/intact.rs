//! Intact on real programs with both ends observed (issue 2, item 1).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::{Observed, Run, Transfer, check, need, peers, truth};

/// Nothing was changed and everything on `channel` was verified, in both directions. Returns what
/// went over it.
fn all_intact(run: &Run, channel: &str) -> Vec<Transfer> {
    truth::blameless(run);
    let transfers = run.report.on(channel);
    check!(run, transfers.len() >= 2, "want both directions on {channel}");
    for transfer in &transfers {
        check!(run, transfer.verdict() == "intact", "not intact: {}", transfer.shown());
    }
    transfers
}

/// One of them went between these programs and carried at least this much.
fn carried(run: &Run, transfers: &[Transfer], from: &str, to: &str, least: u64) {
    let found = transfers.iter().any(|t| {
        t.program("origin").starts_with(from)
            && t.program("destination").starts_with(to)
            && t.origin().is_some_and(|n| n >= least)
    });
    check!(run, found, "nothing of {least} bytes or more went from {from} to {to}");
}

/// Serves by nginx while `script` runs.
fn beside_nginx(tls: &str, files: &[(&str, usize)], script: &str) -> Observed {
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nurl=https://localhost:{port}\n{script}\n\
         kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, tls);
    for (name, length) in files {
        session.scratch.write(&format!("www/{name}"), payload(*length as u64, *length));
    }
    session
}

/// Downloads of all the awkward sizes, and an upload, with curl.
fn curl_and_nginx(tls: &str, options: &str) {
    need!("nginx", "curl");
    let sizes = [1, 16_383, 16_384, 16_385, 300_000];
    let names: Vec<_> = sizes.iter().map(|n| (format!("f{n}"), *n)).collect();
    let files: Vec<_> = names.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    let mut script = String::new();
    for (name, _) in &files {
        script += &format!("curl -sS {options} --cacert cert.pem $url/{name} -o got; cmp got www/{name}\n");
    }
    script += &format!(
        "curl -sS {options} --cacert cert.pem -T www/f300000 $url/up/g; cmp www/up/g www/f300000\n\
         curl -sS {options} --cacert cert.pem $url/f1 $url/f16384 $url/f300000 >/dev/null\n"
    );
    let run = beside_nginx(tls, &files, &script).go().well();
    let transfers = all_intact(&run, "tls");
    check!(
        run,
        transfers.len() == 14,
        "want 7 connections with two directions, not {} transfers",
        transfers.len()
    );
    carried(&run, &transfers, "nginx", "curl", 300_000);
    carried(&run, &transfers, "curl", "nginx", 300_000);
}

#[test]
fn curl_nginx_tls13_http1() {
    curl_and_nginx("ssl_protocols TLSv1.3;", "--http1.1");
}

#[test]
fn curl_nginx_tls13_http2() {
    curl_and_nginx("ssl_protocols TLSv1.3;", "--http2");
}

#[test]
fn curl_nginx_tls12_http1() {
    curl_and_nginx("ssl_protocols TLSv1.2;", "--http1.1");
}

#[test]
fn curl_nginx_tls12_http2() {
    curl_and_nginx("ssl_protocols TLSv1.2;", "--http2");
}

#[test]
fn curl_nginx_ciphers() {
    need!("nginx", "curl");
    for (tls, options) in [
        ("ssl_protocols TLSv1.2; ssl_ciphers ALL;", "--ciphers ECDHE-RSA-AES128-SHA"),
        ("ssl_protocols TLSv1.2; ssl_ciphers ALL;", "--ciphers ECDHE-RSA-CHACHA20-POLY1305"),
        ("ssl_protocols TLSv1.2; ssl_ciphers ALL;", "--ciphers ECDHE-RSA-AES256-GCM-SHA384"),
        ("ssl_protocols TLSv1.3;", "--tls13-ciphers TLS_CHACHA20_POLY1305_SHA256"),
        ("ssl_protocols TLSv1.3;", "--tls13-ciphers TLS_AES_128_GCM_SHA256"),
    ] {
        let script = format!("curl -sS --http1.1 {options} --cacert cert.pem $url/f -o got; cmp got www/f");
        let run = beside_nginx(tls, &[("f", 200_000)], &script).go().well();
        let transfers = all_intact(&run, "tls");
        carried(&run, &transfers, "nginx", "curl", 200_000);
    }
}

#[test]
fn curl_nginx_100_megabytes() {
    need!("nginx", "curl");
    let script = "curl -sS --http1.1 --cacert cert.pem $url/f -o got; cmp got www/f";
    let run = beside_nginx("", &[("f", 100_000_000)], script).limit(120).go().well();
    let transfers = all_intact(&run, "tls");
    carried(&run, &transfers, "nginx", "curl", 100_000_000);
}

#[test]
fn tcp_100_megabytes() {
    let run = Observed::fixture("stream tcp write read 100000000 65536").limit(120).go().well();
    truth::blameless(&run);
    truth::holds(&run, &["tcp 100000000 100000000 intact"]);
}

#[test]
fn wget_nginx() {
    need!("nginx", "wget");
    let script = "for f in f1 f16384 f300000; do wget -q --ca-certificate=cert.pem $url/$f -O got; cmp got www/$f; done";
    let files = [("f1", 1), ("f16384", 16_384), ("f300000", 300_000)];
    let run = beside_nginx("", &files, script).go().well();
    let transfers = all_intact(&run, "tls");
    carried(&run, &transfers, "nginx", "wget", 300_000);
}

#[test]
fn git_clone_over_https() {
    need!("nginx");
    if !std::path::Path::new(peers::GIT).exists() {
        counterfoil_tests::skip!("Debian's git is not installed");
    }
    let git = peers::GIT;
    let session = beside_nginx(
        "",
        &[],
        &format!(
            "GIT_SSL_CAINFO=\"$PWD/cert.pem\" {git} clone -q $url/repo.git clone; cmp clone/data work/data"
        ),
    );
    session.scratch.write("work/data", payload(5, 400_000));
    for words in [
        "init -q work",
        "-C work add data",
        "-C work -c user.name=t -c user.email=t@localhost commit -q -m one",
        "clone -q --bare work www/repo.git",
        "-C www/repo.git update-server-info",
    ] {
        let words: Vec<_> = std::iter::once(git).chain(words.split(' ')).collect();
        peers::prepare(&session.scratch, &words);
    }
    let run = session.env("HOME", "/nonexistent").go().well();
    let transfers = all_intact(&run, "tls");
    carried(&run, &transfers, "nginx", "git", 400_000);
}

#[test]
fn curl_and_python_https_server() {
    need!("curl", peers::PYTHON);
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "{python} {server} {port} cert.pem key.pem 2>/dev/null & server=$!\nlistening {port}\n\
         for f in f1 f16385 f900000; do curl -sS --cacert cert.pem https://localhost:{port}/$f -o got; cmp got $f; done\n\
         kill $server; wait $server || :",
        python = peers::PYTHON,
        server = peers::script("https_server.py"),
    ));
    peers::certificate(&session.scratch);
    for length in [1, 16_385, 900_000] {
        session.scratch.write(&format!("f{length}"), payload(1, length));
    }
    let run = session.go().well();
    let transfers = all_intact(&run, "tls");
    carried(&run, &transfers, "python", "curl", 900_000);
}

#[test]
fn python_asyncio_both_ways() {
    need!(peers::PYTHON);
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "{python} {peer} server {port} cert.pem key.pem & server=$!\nlistening {port}\n\
         {python} {peer} client {port} cert.pem data\nwait $server",
        python = peers::PYTHON,
        peer = peers::script("asyncio_tls.py"),
    ));
    peers::certificate(&session.scratch);
    session.scratch.write("data", payload(9, 1_000_000));
    let run = session.go().well();
    check!(run, run.stdout.contains("equal"), "the peers themselves disagree");
    let transfers = all_intact(&run, "tls");
    check!(run, transfers.iter().any(|t| t.origin() == Some(1_000_008)), "the upload's count is wrong");
    check!(run, transfers.iter().any(|t| t.origin() == Some(1_000_000)), "the answer's count is wrong");
}

#[test]
fn openssl_client_and_server() {
    need!("openssl");
    for version in ["-tls1_2", "-tls1_3"] {
        let port = peers::free_port();
        let session = Observed::script(&format!(
            "mkfifo hold\n\
             openssl s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -quiet -naccept 1 {version} \
             <hold >got & server=$!\nexec 9>hold\nlistening {port}\n\
             openssl s_client -connect 127.0.0.1:{port} -quiet -no_ign_eof -nocommands {version} <data >/dev/null 2>&1\n\
             wait $server; cmp got data"
        ));
        peers::certificate(&session.scratch);
        session.scratch.write("data", "a line of text that is sent\n".repeat(20_000));
        let run = session.go().well();
        truth::blameless(&run);
        truth::holds(&run, &["tls 560000 560000 intact", "rest"]);
    }
}

#[test]
fn openssl_server_www() {
    need!("openssl", "curl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "openssl s_server -WWW -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -naccept 2 >/dev/null 2>&1 & server=$!\n\
         listening {port}\n\
         for i in 1 2; do curl -sS --http1.0 --cacert cert.pem https://localhost:{port}/data -o got; cmp got data; done\n\
         wait $server || :"
    ));
    peers::certificate(&session.scratch);
    session.scratch.write("data", payload(4, 200_000));
    let run = session.go().well();
    let transfers = all_intact(&run, "tls");
    carried(&run, &transfers, "openssl", "curl", 200_000);
    carried(&run, &transfers, "curl", "openssl", 20);
}

#[test]
fn socat_over_tcp() {
    need!("socat");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "socat -u TCP-LISTEN:{port},bind=127.0.0.1 CREATE:got & server=$!\nlistening {port}\n\
         socat -u FILE:data TCP:127.0.0.1:{port}\nwait $server; cmp got data"
    ));
    session.scratch.write("data", payload(2, 700_000));
    let run = session.go().well();
    truth::blameless(&run);
    truth::holds(&run, &["tcp 700000 700000 intact", "file 700000 700000 intact"]);
}

#[test]
fn netcat_over_tcp() {
    need!("nc");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nc -l 127.0.0.1 {port} >got <answer & server=$!\nlistening {port}\n\
         nc -N 127.0.0.1 {port} <data >back\nwait $server; cmp got data; cmp back answer"
    ));
    session.scratch.write("data", payload(2, 700_000));
    session.scratch.write("answer", payload(3, 50_000));
    let run = session.go().well();
    truth::blameless(&run);
    let files = ["file 700000 700000 intact", "file 50000 50000 intact"];
    truth::holds(&run, &["tcp 700000 700000 intact", "tcp 50000 50000 intact", files[0], files[1]]);
}

#[test]
fn pipe_between_programs() {
    let session = Observed::script("cat data | dd of=got bs=64k status=none; cmp got data");
    session.scratch.write("data", payload(2, 700_000));
    let run = session.go().well();
    truth::blameless(&run);
    truth::holds(&run, &["pipe 700000 700000 intact", "file 700000 700000 intact"]);
    let pipe = &run.report.on("pipe")[0];
    check!(run, pipe.program("origin") == "cat" && pipe.program("destination") == "dd", "wrong ends");
}

/// stdio reaches the kernel inside the C library: what was not seen is not called intact.
#[test]
fn pipe_through_stdio_is_unverified() {
    let run = Observed::script("seq 1 20000 | dd of=got bs=64k status=none").go().well();
    truth::blameless(&run);
    truth::holds(&run, &["pipe * 108894 unverified:bypassed-bytes/peer-not-observed"]);
}

/// `(a; b) | c`: successive writers are both named.
#[test]
fn successive_writers_on_a_pipe() {
    let run = Observed::script(
        "(\"$FIXTURES/source\" 20000 3000; \"$FIXTURES/source\" 30000 3000 from=20000) | \"$FIXTURES/sink\"",
    )
    .go()
    .well();
    truth::blameless(&run);
    truth::holds(&run, &["pipe 50000 50000 unverified:handed-over|intact"]);
    let pipe = &run.report.on("pipe")[0];
    let also = pipe.0["origin"]["also"].as_array().map_or(0, Vec::len);
    check!(run, also == 1, "the second writer is not listed");
}

#[test]
fn statically_linked_child_is_said_to_be_unobserved() {
    let run = Observed::script("\"$FIXTURES/source_static\" 20000 3000 | \"$FIXTURES/sink\"").go().well();
    truth::blameless(&run);
    truth::holds(&run, &["pipe * 20000 unverified:peer-not-observed/bypassed-bytes"]);
    check!(run, run.report.fired("coverage-lost"), "no coverage-lost");
    let said = run.report.coverage().iter().any(|c| c["observed"] == false && c["reason"] == "static");
    check!(run, said, "no coverage line says why");
}

/// Over before anybody could be asked which ends belong together, a hundred in a row.
const SHORT: &str = "
import os, socket, sys, threading
listener = socket.socket(socket.AF_UNIX); listener.bind('path'); listener.listen()
def asks():
    for n in range(100):
        with socket.socket(socket.AF_UNIX) as end:
            end.connect('path'); end.sendall(b'%05d' % n * 20); end.shutdown(socket.SHUT_WR); end.recv(10)
if sys.argv[1] == 'fork':
    if os.fork() == 0: asks(); os._exit(0)
else:
    threading.Thread(target=asks).start()
for n in range(100):
    end, _ = listener.accept()
    while end.recv(100): pass
    end.send(b'ok'); end.close()
";

#[test]
fn short_connections_to_one_path() {
    for by in ["fork", "thread"] {
        let run = Observed::new([peers::PYTHON, "-c", SHORT, by]).go().well();
        let all = all_intact(&run, "unix");
        check!(run, all.len() == 200, "{} of 200", all.len());
    }
}

/// Threads that come and go faster than anybody looks after them, each with a connection of its own.
const THREADS: &str = "
import os, threading
def use(n):
    into, out = os.pipe()
    os.write(out, b'%05d' % n * 20)
    assert os.read(into, 1000) == b'%05d' % n * 20
    os.close(into); os.close(out)
for n in range(500):
    thread = threading.Thread(target=use, args=[n]); thread.start(); thread.join()
";

#[test]
fn a_thread_for_each_connection() {
    let run = Observed::new([peers::PYTHON, "-c", THREADS]).go().well();
    truth::blameless(&run);
    let all = run.report.on("pipe");
    let whole = |t: &Transfer| t.verdict() == "intact" && t.origin() == Some(100);
    check!(run, all.len() == 500 && all.iter().all(whole), "{} of 500", all.len());
}

/// More threads at a time than there are lanes with room for bursts, and more forks.
const MANY: &str = "
import os, sys, threading
def use(n, meet):
    into, out = os.pipe()
    for turn in range(2):
        for _ in range(10):
            os.write(out, b'%05d' % n * 20)
            assert len(os.read(into, 100)) == 100
        meet()
    os.close(into); os.close(out)
if sys.argv[1] == 'threads':
    barrier = threading.Barrier(200)
    threads = [threading.Thread(target=use, args=[n, barrier.wait]) for n in range(200)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
else:
    until, go = os.pipe()
    for n in range(200):
        if os.fork() == 0:
            os.close(go); use(n, lambda: os.read(until, 1)); os._exit(0)
    os.close(go)
    for _ in range(200): os.wait()
";

#[test]
fn many_threads_and_many_forks() {
    for what in ["threads", "forks"] {
        let run = Observed::new([peers::PYTHON, "-c", MANY, what]).go().well();
        truth::blameless(&run);
        let all = run.report.on("pipe");
        let whole = |t: &&Transfer| t.verdict() == "intact" && t.origin() == Some(2000);
        check!(
            run,
            all.iter().filter(whole).count() == 200,
            "{what}: {} of 200",
            all.iter().filter(whole).count()
        );
    }
}

/// What looks like TLS and is nobody's session that is seen, as node's and Java's: a stream like any other, from its first byte, or behind
/// what was said in the clear.
#[test]
fn tls_of_nobody_who_is_seen() {
    need!("/usr/bin/python3");
    for clear in ["", "CONNECT x:1 HTTP/1.1\\r\\n\\r\\n"] {
        let code = format!(
            "import socket,os; l=socket.create_server(('127.0.0.1',0)); a=socket.create_connection(l.getsockname()); b,_=l.accept(); c=b'{clear}'\n\
             if c: a.sendall(c); b.recv(99); b.sendall(b'ok'); a.recv(99)\n\
             h=b'\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03'+os.urandom(506); a.sendall(h); b.recv(9999); b.sendall(bytes(50000))\n\
             n=0\n\
             while n<50000: n+=len(a.recv(9999))\n\
             a.sendall(bytes(1000)); b.recv(9999); a.close(); b.close()"
        );
        let run = Observed::new([peers::PYTHON, "-c", &code]).go().well();
        let clear = clear.replace("\\r\\n", "..").len() as u64;
        let mut sizes: Vec<_> =
            run.report.on("tcp").iter().map(|t| (t.verdict().to_owned(), t.origin())).collect();
        sizes.sort();
        let whole = [1517 + clear, 50_000 + if clear > 0 { 2 } else { 0 }];
        check!(
            run,
            sizes == whole.map(|bytes| ("intact".to_owned(), Some(bytes))),
            "{sizes:?}, not {whole:?}"
        );
    }
}

/// More than one after the other that a server's programs are looked for among, and some at the same time.
#[test]
fn many_uploads_to_one_server() {
    need!("curl", "nginx", "openssl");
    const ONE_BY_ONE: usize = 80;
    const TOGETHER: usize = 20;
    const ALL: usize = ONE_BY_ONE + TOGETHER;
    let session = beside_nginx(
        "",
        &[],
        &format!(
            "put() {{ curl -sS --ipv4 --cacert cert.pem -T f$1 $url/up/f$1; }}\n\
             for n in $(seq {ONE_BY_ONE}); do put $n; done\nall=\n\
             for n in $(seq {from} {ALL}); do put $n & all=\"$all $!\"; done\nwait $all",
            from = ONE_BY_ONE + 1
        ),
    );
    for n in 1..=ALL {
        session.scratch.write(&format!("f{n}"), payload(n as u64, 20_000));
    }
    let run = session.go().well();
    truth::blameless(&run);
    for n in 1..=ALL {
        let to = format!("www/up/f{n}");
        let came = |t: &Transfer| t.0["destination"]["path"].as_str().is_some_and(|p| p.ends_with(&to));
        let found = run.report.on("file").into_iter().filter(came);
        let verdicts: Vec<String> = found.map(|t| t.verdict().to_owned()).collect();
        check!(run, verdicts == ["intact"], "{to}: {verdicts:?}");
    }
}
