//! Files on their way through real programs: one transfer each, with the right two paths, programs and
//! digests (issue 3, items 1, 3, 4 and 5).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Observed, Run, Transfer, check, need, need_sshd, peers, truth};
use sha2::{Digest, Sha256};

/// The files' transfers.
fn files(run: &Run) -> Vec<Transfer> {
    run.report.on("file")
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// `code` of Python's, with `a` and `b` the paths of a file that is there and of one that isn't.
fn in_python(code: &str) -> Run {
    let code = format!("import os,time; a,b='src/f0','dst/f0'\n{code}");
    with_files(Observed::new([peers::PYTHON, "-c", &code]), &[40_000]).go().well()
}

/// A program may have a file open long after it has read it: what becomes of the file then is no change on the way.
#[test]
fn a_source_that_changes_after_it_was_read() {
    need!("python3");
    let run = in_python(
        "f=os.open(a,os.O_RDONLY); data=os.read(f,99999)\n\
         time.sleep(0.1)\n\
         g=os.open(a,os.O_WRONLY); os.pwrite(g,b'changed',20000); os.close(g)\n\
         out=os.open(b,os.O_WRONLY|os.O_CREAT); os.write(out,data); os.close(out)\n\
         time.sleep(0.1)\n\
         os.close(f)",
    );
    let t = way(&run, "src/f0", "dst/f0");
    check!(run, t.verdict() == "unverified" && t.reasons() == ["other-writer"], "{}", t.shown());
    check!(run, !run.report.fired("payload-altered"), "nobody altered anything");
}

/// A database reads a page, changes it and writes it where it was, and copies other pages elsewhere.
#[test]
fn a_source_that_its_reader_changes() {
    need!("python3");
    let run = in_python(
        "f=os.open(a,os.O_RDWR); data=os.pread(f,99999,0)\n\
         out=os.open(b,os.O_WRONLY|os.O_CREAT); os.write(out,data); os.close(out)\n\
         os.pwrite(f,b'changed',20000); time.sleep(0.1); os.close(f)",
    );
    let verdicts: Vec<_> = files(&run).iter().map(|t| t.verdict().to_owned()).collect();
    check!(run, !verdicts.iter().any(|v| v == "altered" || v == "truncated"), "{verdicts:?}");
}

/// A program that is not observed was given the descriptor, and wrote to the file when all had arrived.
#[test]
fn a_file_that_somebody_unseen_may_write_to() {
    need!("python3");
    let script = r#"
head -c 300000 /dev/urandom > sent
cat > receive.py <<'END'
import os, socket, sys
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
print(s.getsockname()[1], file=open('port', 'w'), flush=True)
c, _ = s.accept()
f = os.open('got', os.O_RDWR | os.O_CREAT)
os.set_inheritable(f, True)
while data := c.recv(65536):
    os.write(f, data)
write = "import os; os.pwrite(%d, b'somebody else', %d)" % (f, 100) if sys.argv[1] == 'writes' else ""
pid = os.posix_spawn(sys.executable, ['python3', '-c', write], os.environ | {'COUNTERFOIL_OFF': '1'})
os.waitpid(pid, 0)
os.close(f)
END
python3 receive.py $WHAT &
until [ -s port ]; do sleep 0.01; done
python3 -c "import socket, sys; s = socket.create_connection(('127.0.0.1', int(open('port').read()))); s.sendall(open('sent', 'rb').read())"
wait"#;
    for (what, verdict) in [("writes", "unverified:other-writer"), ("writes-nothing", "intact")] {
        let run = Observed::script(script).env("WHAT", what).go().well();
        truth::blameless(&run);
        truth::holds(&run, &[&format!("file 300000 300000 {verdict}"), "rest"]);
    }
}

/// The one file transfer that ends at `to`, from `from`; both in the scratch folder.
fn way(run: &Run, from: &str, to: &str) -> Transfer {
    let here = run.scratch.path().canonicalize().expect("scratch");
    let path = |t: &Transfer, end: &str| t.0[end]["path"].as_str().unwrap_or("").to_owned();
    let wanted = here.join(to).to_string_lossy().into_owned();
    let found: Vec<_> = files(run).into_iter().filter(|t| path(t, "destination") == wanted).collect();
    check!(run, found.len() == 1, "{} file transfers end at {to}, not 1", found.len());
    let origin = here.join(from).to_string_lossy().into_owned();
    check!(run, path(&found[0], "origin") == origin, "{to} comes from {}", path(&found[0], "origin"));
    found[0].clone()
}

/// It arrived as it was: digests are `sha256sum`'s, and it went over that many legs, all of them told.
fn intact(run: &Run, from: &str, to: &str, programs: (&str, &str), legs: usize) {
    let t = way(run, from, to);
    check!(run, t.verdict() == "intact", "{}", t.shown());
    let content = std::fs::read(run.scratch.at(from)).expect("origin");
    for end in ["origin", "destination"] {
        check!(run, t.0[end]["sha256"] == sha256(&content), "{end}'s digest is {}", t.0[end]["sha256"]);
    }
    check!(run, t.origin() == Some(content.len() as u64), "{}", t.shown());
    check!(run, (t.program("origin"), t.program("destination")) == programs, "{}", t.shown());
    check!(run, t.0["assurance"] == "hash", "{}", t.0["assurance"]);
    let ids = t.0["legs"].as_array().cloned().unwrap_or_default();
    check!(run, ids.len() == legs, "{} legs, not {legs}: {}", ids.len(), t.shown());
    for id in &ids {
        let leg = run.report.transfers().into_iter().find(|t| t.0["id"] == *id);
        check!(run, leg.is_some(), "leg {id} was not told");
    }
}

/// Files `f0` … of these lengths.
fn with_files(mut session: Observed, sizes: &[usize]) -> Observed {
    for (i, size) in sizes.iter().enumerate() {
        session.scratch.write(&format!("src/f{i}"), payload(*size as u64 + 1, *size));
    }
    std::fs::create_dir_all(session.scratch.at("dst")).expect("dst");
    session = session.limit(120);
    session
}

/// `commands` beside an sshd, with files of these lengths.
fn beside_sshd(sizes: &[usize], commands: &str) -> Observed {
    let scratch = counterfoil_tests::Scratch::new();
    let script = Sshd::new(&scratch).around(commands);
    let mut session = Observed::script(&script);
    session.scratch = scratch;
    with_files(session, sizes)
}

const SIZES: &[usize] = &[0, 1, 16_384, 16_385, 1_000_000];

fn all_intact(run: &Run, sizes: &[usize], to: &str, programs: (&str, &str), legs: usize) {
    truth::blameless(run);
    for i in 0..sizes.len() {
        intact(run, &format!("src/f{i}"), &format!("{to}/f{i}"), programs, legs);
    }
    check!(run, files(run).len() == sizes.len(), "{} file transfers", files(run).len());
}

#[test]
fn scp_up() {
    need_sshd!();
    let run = beside_sshd(SIZES, "scp src/f* far:$here/dst/").go().well();
    all_intact(&run, SIZES, "dst", ("scp", "sftp-server"), 3);
}

#[test]
fn scp_down() {
    need_sshd!();
    let run = beside_sshd(SIZES, "scp \"far:$here/src/f*\" dst/").go().well();
    all_intact(&run, SIZES, "dst", ("sftp-server", "scp"), 3);
}

#[test]
fn scp_in_its_old_protocol() {
    need_sshd!();
    let run = beside_sshd(SIZES, "scp -O src/f* far:$here/dst/\nmkdir back; scp -O far:$here/dst/f4 back/f4");
    let run = run.go().well();
    truth::blameless(&run);
    for i in 0..SIZES.len() {
        intact(&run, &format!("src/f{i}"), &format!("dst/f{i}"), ("scp", "scp"), 3);
    }
    intact(&run, "dst/f4", "back/f4", ("scp", "scp"), 3);
}

#[test]
fn sftp_both_ways() {
    need_sshd!();
    let run = beside_sshd(
        &[300_000],
        "printf 'put src/f0 %s/dst/f0\\nget %s/dst/f0 back\\n' $here $here | sftp -b - far >/dev/null",
    );
    let run = run.go().well();
    truth::blameless(&run);
    intact(&run, "src/f0", "dst/f0", ("sftp", "sftp-server"), 3);
    intact(&run, "dst/f0", "back", ("sftp-server", "sftp"), 3);
}

#[test]
fn rsync_over_ssh_under_final_names() {
    need_sshd!();
    need!("rsync");
    let sizes = &SIZES[1..];
    let run = beside_sshd(sizes, "rsync -a src/ far:$here/dst/\nrsync -az far:$here/dst/ back/");
    let run = run.go().well();
    truth::blameless(&run);
    for i in 0..sizes.len() {
        intact(&run, &format!("src/f{i}"), &format!("dst/f{i}"), ("rsync", "rsync"), 3);
        intact(&run, &format!("dst/f{i}"), &format!("back/f{i}"), ("rsync", "rsync"), 3);
    }
}

#[test]
fn rsync_sends_differences() {
    need_sshd!();
    need!("rsync");
    let run = beside_sshd(
        &[1_000_000],
        "head -c 400000 src/f0 >dst/f0; printf other >>dst/f0; tail -c 500000 src/f0 >>dst/f0\n\
         rsync -a --no-whole-file src/ far:$here/dst/",
    );
    let run = run.go().well();
    truth::blameless(&run);
    let t = files(&run).into_iter().rfind(|t| t.program("destination") == "rsync");
    check!(run, t.as_ref().is_some_and(|t| t.verdict() == "intact"), "{t:?}");
}

#[test]
fn tar_through_ssh() {
    need_sshd!();
    // It opens no file that is empty.
    let run = beside_sshd(SIZES, "tar c -C src . | ssh far \"tar x -C $here/dst\"").go().well();
    all_intact(&run, SIZES, "dst", ("tar", "tar"), 3);
}

#[test]
fn compressed_by_ssh_and_with_a_mac_before_encryption() {
    need_sshd!();
    for options in ["-C", "-o Compression=yes", "-c aes128-ctr -o MACs=hmac-sha2-256", "-C -O -c aes128-ctr"]
    {
        let run = beside_sshd(
            &[300_000],
            &format!(
                "seq 60000 >src/text\nscp {options} src/text far:$here/dst/text\nscp {options} far:$here/src/f0 dst/f0\n\
                 scp {options} far:$here/dst/text back"
            ),
        );
        let run = run.go().well();
        truth::blameless(&run);
        check!(run, run.report.alarms().is_empty(), "{options}: {:?}", run.report.alarms());
        let far = if options.contains("-O") { "scp" } else { "sftp-server" };
        intact(&run, "src/text", "dst/text", ("scp", far), 3);
        intact(&run, "src/f0", "dst/f0", (far, "scp"), 3);
        intact(&run, "dst/text", "back", (far, "scp"), 3);
        check!(run, files(&run).len() == 3, "{} files", files(&run).len());
    }
}

#[test]
fn a_pipe_through_ssh() {
    need_sshd!();
    let run = beside_sshd(&[500_000], "cat src/f0 | ssh far \"cat >$here/dst/other\"").go().well();
    truth::blameless(&run);
    intact(&run, "src/f0", "dst/other", ("cat", "cat"), 3);
}

#[test]
fn curl_wget_and_nginx() {
    need!("nginx", "curl", "wget");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nurl=https://localhost:{port}\n\
         curl -sS --cacert cert.pem $url/f -o dst/curl\n\
         curl -sS --cacert cert.pem -T src/f0 $url/up/curl\n\
         wget -q --ca-certificate=cert.pem $url/f -O dst/wget\n\
         kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("www/f", payload(3, 700_000));
    let run = with_files(session, &[700_001]).go().well();
    truth::blameless(&run);
    intact(&run, "www/f", "dst/curl", ("nginx", "curl"), 1);
    intact(&run, "src/f0", "www/up/curl", ("curl", "nginx"), 1);
    intact(&run, "www/f", "dst/wget", ("nginx", "wget"), 1);
}

/// Other words, as long as those in the file: nginx was told so.
#[test]
fn a_text_that_nginx_was_told_to_serve_otherwise() {
    need!("nginx", "curl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\n\
         curl -sS --cacert cert.pem https://localhost:{port}/text -o dst/text; cmp -s www/text dst/text && echo the same\n\
         kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "sub_filter line LINE; sub_filter_once off; sub_filter_types *;");
    let text: String = (0..9000).map(|i| format!("line {i} of many\n")).collect();
    session.scratch.write("www/text", text);
    let run = with_files(session, &[1]).go().well();
    truth::blameless(&run);
    check!(run, !run.stdout.contains("the same"), "nginx served it as it is");
    let t = way(&run, "www/text", "dst/text");
    check!(run, t.verdict() == "unverified" && t.reasons() == ["transformed"], "{}", t.shown());
}

#[test]
fn a_plain_http_server_in_python() {
    need!("curl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "{} -m http.server -d src {port} >/dev/null 2>&1 & server=$!\nlistening {port}\n\
         curl -sS http://127.0.0.1:{port}/f0 -o dst/f0\nkill $server; wait $server || true",
        peers::PYTHON
    ));
    let run = with_files(session, &[300_000]).go().well();
    truth::blameless(&run);
    let t = way(&run, "src/f0", "dst/f0");
    check!(run, t.verdict() == "intact", "{}", t.shown());
}

#[test]
fn copies_within_a_host() {
    let run = with_files(
        Observed::script(
            "cp src/f0 dst/cp\ncat src/f0 >dst/cat\ndd if=src/f0 of=dst/dd bs=64k 2>/dev/null\n\
             cat src/f0 | tee dst/tee | cat >dst/cat2\ncp src/f1 dst/f1",
        ),
        &[400_000, 0],
    );
    let run = run.go().well();
    truth::blameless(&run);
    intact(&run, "src/f0", "dst/cp", ("cp", "cp"), 0);
    intact(&run, "src/f0", "dst/cat", ("cat", "cat"), 0);
    intact(&run, "src/f0", "dst/dd", ("dd", "dd"), 0);
    intact(&run, "src/f0", "dst/tee", ("cat", "tee"), 1);
    intact(&run, "src/f0", "dst/cat2", ("cat", "cat"), 2);
    intact(&run, "src/f1", "dst/f1", ("cp", "cp"), 0);
}

#[test]
fn parts_that_were_meant_are_not_cut_short() {
    need!("nginx", "curl");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nurl=https://localhost:{port}\n\
         head -c 1000 src/f0 >dst/head\ndd if=src/f0 of=dst/dd bs=1000 count=10 2>/dev/null\n\
         head -c 300000 src/f0 | tail -c 1000 >dst/tail\n\
         curl -sS --cacert cert.pem -r 0-4999 $url/f -o dst/range\n\
         head -c 300000 www/f >dst/resumed; curl -sS --cacert cert.pem -C - $url/f -o dst/resumed\n\
         kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "");
    session.scratch.write("www/f", payload(3, 700_000));
    let run = with_files(session, &[400_000]).go().well();
    truth::blameless(&run);
    for t in files(&run) {
        check!(run, t.verdict() == "intact", "{}", t.shown());
    }
    check!(run, !run.report.fired("payload-truncated"), "nothing was cut short");
    check!(run, way(&run, "src/f0", "dst/head").destination() == Some(1000), "head's part");
    // Once by head, once as a whole.
    let here = run.scratch.path().canonicalize().expect("scratch").join("dst/resumed");
    let resumed = files(&run).into_iter().rfind(|t| t.0["destination"]["path"] == *here.to_string_lossy());
    check!(run, resumed.is_some_and(|t| t.destination() == Some(700_000)), "the resumed file");
}

/// Both sessions hang together by what the listener gives to each: a few bytes.
#[test]
fn a_part_by_a_session_of_its_own_is_not_cut_short() {
    need_sshd!();
    let run = beside_sshd(
        &[3_000_000],
        "ssh far \"cat >$here/dst/whole\" <src/f0\ncp src/f0 dst/copy\n\
         ssh far \"head -c 200000 $here/src/f0\" </dev/null >dst/head\n\
         ssh far \"head -c 200000 $here/dst/copy\" </dev/null >dst/f0\n\
         ssh far \"head -c 20000 $here/src/f0\" </dev/null >dst/little\n\
         ssh far \"dd if=$here/src/f0 bs=1000 count=200 2>/dev/null\" </dev/null >dst/dd\n\
         ssh far \"cat $here/dst/head; cat $here/src/f0\" </dev/null >dst/both",
    );
    let run = run.go().well();
    truth::blameless(&run);
    check!(run, !run.report.fired("payload-truncated"), "nothing was cut short");
    check!(run, way(&run, "src/f0", "dst/whole").verdict() == "intact", "the upload");
    for t in files(&run) {
        let fine = t.verdict() == "intact" || t.verdict() == "unverified";
        check!(run, fine, "{}", t.shown());
    }
}

#[test]
fn resumed_by_sftp_and_appended_by_rsync() {
    need_sshd!();
    need!("rsync");
    let run = beside_sshd(
        &[900_000],
        "head -c 300000 src/f0 >dst/put; head -c 300000 src/f0 >dst/f0\n\
         printf 'reput %s/src/f0 %s/dst/put\\n' $here $here | sftp -b - far >/dev/null\n\
         rsync -a --append src/f0 far:$here/dst/f0",
    );
    let run = run.go().well();
    truth::blameless(&run);
    for (to, program) in [("dst/put", "sftp-server"), ("dst/f0", "rsync")] {
        let path = run.scratch.path().canonicalize().expect("scratch").join(to);
        let mine: Vec<_> = files(&run)
            .into_iter()
            .filter(|t| {
                t.0["destination"]["path"] == *path.to_string_lossy() && t.program("destination") == program
            })
            .collect();
        check!(run, mine.len() == 1 && mine[0].verdict() == "intact", "{to}: {mine:?}");
        check!(run, mine[0].destination() == Some(900_000), "{}", mine[0].shown());
    }
}

#[test]
fn resumed_after_another_beginning() {
    need_sshd!();
    need!("rsync");
    // What lay there was never this file's beginning: what came is right, and nobody on the way changed the rest.
    let run = beside_sshd(
        &[900_000],
        "mkdir dst/put; for f in put/f0 f0 inplace; do head -c 300000 /dev/urandom >dst/$f; done\n\
         printf 'reput %s/src/f0 %s/dst/put/f0\\n' $here $here | sftp -b - far >/dev/null\n\
         rsync -a --append src/f0 far:$here/dst/f0\n\
         [ $(cmp -l src/f0 dst/put/f0 | wc -l) -gt 200000 ] && [ $(cmp -l src/f0 dst/f0 | wc -l) -gt 200000 ]\n\
         rsync -a --inplace src/f0 far:$here/dst/inplace",
    );
    let run = run.go().well();
    truth::blameless(&run);
    let to = |name: &str| {
        let path = run.scratch.path().canonicalize().expect("scratch").join(name);
        let mine = |t: &Transfer| t.0["destination"]["path"] == *path.to_string_lossy();
        files(&run)
            .into_iter()
            .filter(mine)
            .filter(|t| t.program("destination") != "head")
            .collect::<Vec<_>>()
    };
    for name in ["dst/put/f0", "dst/f0"] {
        let found = to(name);
        let right = found.len() == 1 && found[0].verdict() == "unverified";
        check!(run, right, "{name}: {found:?}");
    }
    let found = to("dst/inplace");
    check!(run, found.len() == 1 && found[0].verdict() == "intact", "in place: {found:?}");
}

#[test]
fn an_rsync_daemon() {
    need!("rsync");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "printf 'use chroot = no\\n[m]\\npath = %s/src\\nuid = %s\\ngid = %s\\n' $PWD $(id -u) $(id -g) >rsyncd.conf\n\
         rsync --daemon --no-detach --config=$PWD/rsyncd.conf --address=127.0.0.1 --port={port} & server=$!\n\
         listening {port}\nrsync -a rsync://127.0.0.1:{port}/m/ dst/\nkill $server; wait $server || true"
    ));
    let run = with_files(session, &[300_000, 5]).go().well();
    truth::blameless(&run);
    intact(&run, "src/f0", "dst/f0", ("rsync", "rsync"), 1);
    intact(&run, "src/f1", "dst/f1", ("rsync", "rsync"), 1);
}

#[test]
fn names_that_are_no_text() {
    need_sshd!();
    let run = beside_sshd(&[], "printf odd >\"src/$(printf 'a\\377b c')\"; scp src/* far:$here/dst/");
    std::fs::create_dir_all(run.scratch.at("src")).expect("src");
    let run = run.go().well();
    truth::blameless(&run);
    let found = files(&run).into_iter().find(|t| t.program("origin") == "scp");
    let path = found.map(|t| t.0["destination"]["path"].as_str().unwrap_or("").to_owned());
    check!(run, path.as_ref().is_some_and(|p| p.ends_with("/dst/a\\xffb c")), "{path:?}");
}

#[test]
fn a_thousand_files_by_scp() {
    need_sshd!();
    thousand("scp -r src far:$here/dst/", "dst/src", "sftp-server");
}

#[test]
fn a_thousand_files_by_rsync() {
    need_sshd!();
    need!("rsync");
    thousand("rsync -a src/ far:$here/dst/", "dst", "rsync");
}

/// A thousand small files: a thousand transfers, each once.
fn thousand(command: &str, to: &str, receiver: &str) {
    let session = beside_sshd(&[], command);
    let name = |i: usize| format!("d{}/f{}", i % 5, i / 5);
    for i in 0..1000 {
        // Every third one has the content of others.
        let content = if i % 3 == 0 { vec![b'x'; i % 4] } else { payload(i as u64 + 1, 20 + i % 3000) };
        session.scratch.write(&format!("src/{}", name(i)), content);
    }
    let run = session.go().well();
    truth::blameless(&run);
    let here = run.scratch.path().canonicalize().expect("scratch");
    let mut seen = std::collections::BTreeMap::new();
    for t in files(&run).iter().filter(|t| t.program("destination") == receiver) {
        check!(run, t.verdict() == "intact", "{}", t.shown());
        let path = |end: &str| t.0[end]["path"].as_str().unwrap_or("").to_owned();
        let before = seen.insert(path("destination"), path("origin"));
        check!(run, before.is_none(), "twice: {}", path("destination"));
    }
    for i in 0..1000 {
        let wanted = here.join(to).join(name(i)).to_string_lossy().into_owned();
        let origin = here.join("src").join(name(i)).to_string_lossy().into_owned();
        check!(run, seen.get(&wanted) == Some(&origin), "{wanted} comes from {:?}", seen.get(&wanted));
    }
    check!(run, seen.len() == 1000, "{} files", seen.len());
}

#[test]
fn conversions_accuse_nobody() {
    need_sshd!();
    let run = beside_sshd(
        &[300_000],
        "seq 60000 >src/text\n\
         cat src/text | sed s/1/2/ | ssh far \"cat >$here/dst/text\"\n\
         tr 1 2 <src/text | ssh far \"cat >$here/dst/text2\"\n\
         gzip -c src/text | ssh far \"cat >$here/dst/text.gz\"\n\
         cat src/text | gzip | ssh far \"gunzip >$here/dst/text3\"\n\
         cat src/text | ssh far \"sed 's/$/\\r/' >$here/dst/text4\"\n\
         openssl enc -aes-256-ctr -pass pass:x -pbkdf2 -in src/text | ssh far \"cat >$here/dst/text5\"\n\
         cat src/f0 | dd conv=swab bs=64k status=none | cat >dst/swapped\n\
         cat src/f0 src/text src/f0 | ssh far \"cat >$here/dst/joined\"\n\
         mkdir dst/swab; cat src/f0 | dd conv=swab bs=64k status=none | cat >dst/swab/f0\n\
         cat src/f0 | openssl enc -aes-256-ctr -K 00 -iv 00 2>/dev/null | ssh far \"cat >$here/dst/f0\"\n\
         scp -C src/f0 far:$here/dst/C\n\
         sed -i s/2/3/ src/text",
    );
    let run = run.go().well();
    truth::blameless(&run);
    check!(run, !run.report.fired("payload-truncated"), "nothing was cut");
    intact(&run, "src/f0", "dst/C", ("scp", "sftp-server"), 3);
    for t in files(&run) {
        let fine = t.verdict() == "intact" || t.reasons() == ["transformed"];
        check!(run, fine, "{}", t.shown());
    }
}

#[test]
fn conversions_by_http_gpg_and_convert_accuse_nobody() {
    need!("nginx", "curl", "gpg", "gpg-agent", "convert");
    let port = peers::free_port();
    let session = Observed::script(&format!(
        "nginx -c \"$PWD/nginx.conf\" & server=$!\nlistening {port}\nurl=https://localhost:{port}\n\
         seq 90000 >www/text\nget=\"curl -sS --cacert cert.pem\"\n\
         $get --compressed $url/text -o dst/text\n\
         $get -H 'Accept-Encoding: gzip' $url/text -o dst/text.gz\n\
         export GNUPGHOME=$PWD/gpg; mkdir -m 700 gpg\n\
         gpg -q --batch --passphrase x -c -o - www/text | $get -T - $url/up/text.gpg\n\
         gpg -q --batch --passphrase x -c -o dst/text.gpg www/text; $get -T dst/text.gpg $url/up/text2.gpg\n\
         convert -size 200x200 plasma:red www/picture.png\n\
         convert www/picture.png dst/picture.jpg; $get -T dst/picture.jpg $url/up/picture.jpg\n\
         convert www/picture.png jpg:- | $get -T - $url/up/picture\n\
         gpgconf --kill all || true; kill -QUIT $server; wait $server"
    ));
    peers::nginx(&session.scratch, port, "gzip on; gzip_types *;");
    let run = with_files(session, &[]).go().well();
    truth::blameless(&run);
    check!(run, !run.report.fired("payload-truncated"), "nothing was cut");
    intact(&run, "dst/text.gpg", "www/up/text2.gpg", ("curl", "nginx"), 1);
    intact(&run, "dst/picture.jpg", "www/up/picture.jpg", ("curl", "nginx"), 1);
    for t in files(&run) {
        let fine = t.verdict() == "intact" || t.reasons() == ["transformed"];
        check!(run, fine, "{}", t.shown());
    }
}

#[test]
fn a_killed_scp_is_truncated() {
    need_sshd!();
    let run = beside_sshd(
        &[3_000_000],
        &format!(
            "command scp -q -F ssh_config -l 8000 src/f0 far:$here/dst/f0 & copy=$!\n\
         await test -s dst/f0\nkill -9 $copy; wait $copy || true\n{UNUSED}"
        ),
    );
    let run = run.go().well();
    cut_short(&run);
}

/// Shell for: nobody has the file open any more.
const UNUSED: &str = "await sh -c '! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q dst/f0'";

/// One file transfer, of a part.
fn cut_short(run: &Run) {
    truth::blameless(run);
    let t = way(run, "src/f0", "dst/f0");
    check!(run, t.verdict() == "truncated", "{}", t.shown());
    let arrived = std::fs::metadata(run.scratch.at("dst/f0")).expect("dst/f0").len();
    check!(run, t.destination() == Some(arrived), "{arrived} bytes arrived: {}", t.shown());
    check!(run, t.origin() == Some(3_000_000), "{}", t.shown());
    check!(run, run.report.fired("payload-truncated"), "no alarm");
}

#[test]
fn a_killed_scp_over_an_older_file_is_truncated() {
    need_sshd!();
    // What follows is the older file's: as long, longer, shorter.
    for (options, older) in [("", 3_000_000), ("-O", 3_000_000), ("-O", 5_000_000), ("-O", 150_000)] {
        let run = beside_sshd(
            &[3_000_000],
            &format!(
                "head -c {older} /dev/zero >dst/f0\n\
                 command scp {options} -q -F ssh_config -l 8000 src/f0 far:$here/dst/f0 & copy=$!\n\
                 await sh -c 'head -c 100000 dst/f0 | tail -c 1000 | tr -d \"\\000\" | grep -q .'\n\
                 kill -9 $copy; wait $copy || true\n{UNUSED}"
            ),
        );
        let run = run.go().well();
        truth::blameless(&run);
        let writes = |t: &Transfer| ["sftp-server", "scp"].contains(&t.program("destination"));
        let found: Vec<_> = files(&run).into_iter().filter(writes).collect();
        let what = format!("scp {options} over {older} bytes");
        let right = found.len() == 1 && found[0].verdict() == "truncated";
        check!(run, right, "{what}: {found:?}");
        let (sent, arrived) = (found[0].origin(), found[0].destination().unwrap_or(0));
        check!(run, sent == Some(3_000_000) && arrived < 3_000_000, "{what}: {}", found[0].shown());
        // As many as are there now.
        let there = std::fs::read(run.scratch.at("dst/f0")).expect("dst/f0");
        let same = there.iter().zip(payload(3_000_001, 3_000_000)).take_while(|(a, b)| **a == *b).count();
        check!(run, arrived == same as u64, "{what}: {same} bytes arrived: {}", found[0].shown());
    }
}

#[test]
fn a_killed_receiver_over_an_older_file_is_truncated() {
    need_sshd!();
    // It has no last word.
    for (options, receiver) in [("-O", "scp -t $here/dst/f0"), ("", "/usr/lib/openssh/sftp-server")] {
        let run = beside_sshd(
            &[3_000_000],
            &format!(
                "head -c 3000000 /dev/zero >dst/f0\n\
                 command scp {options} -q -F ssh_config -l 8000 src/f0 far:$here/dst/f0 & copy=$!\n\
                 await sh -c 'head -c 400000 dst/f0 | tail -c 1000 | tr -d \"\\000\" | grep -q .'\n\
                 kill -9 $(for p in $(pgrep -xf \"{receiver}\"); do \
                 grep -qF dst/f0 /proc/$p/cmdline || ls -l /proc/$p/fd | grep -qF $here/dst && echo $p; done)\n\
                 wait $copy || true\n{UNUSED}"
            ),
        );
        let run = run.go().well();
        truth::blameless(&run);
        let writes = |t: &Transfer| ["sftp-server", "scp"].contains(&t.program("destination"));
        let found: Vec<_> = files(&run).into_iter().filter(writes).collect();
        let right = found.len() == 1 && found[0].verdict() == "truncated";
        check!(run, right, "{receiver}: {found:?}");
        let there = std::fs::read(run.scratch.at("dst/f0")).expect("dst/f0");
        let same = there.iter().zip(payload(3_000_001, 3_000_000)).take_while(|(a, b)| **a == *b).count();
        let arrived = found[0].destination().unwrap_or(0);
        check!(run, arrived > 0 && arrived.abs_diff(same as u64) < 16_384, "{same}: {}", found[0].shown());
    }
}

#[test]
fn a_dropped_connection_is_truncated() {
    need_sshd!();
    let run = beside_sshd(
        &[3_000_000],
        &format!(
            "command scp -q -F ssh_config -l 8000 src/f0 far:$here/dst/f0 & copy=$!\n\
         await test -s dst/f0\nkill -9 $(pgrep -P $copy ssh); wait $copy || true\n{UNUSED}"
        ),
    );
    cut_short(&run.go().well());
}

#[test]
fn a_full_disk_is_truncated() {
    need_sshd!();
    if !peers::root() {
        counterfoil_tests::skip!("only root can mount a small disk");
    }
    let run = beside_sshd(
        &[3_000_000],
        "mount -t tmpfs -o size=1m none dst; trap 'umount -l dst' EXIT\n\
         ! scp src/f0 far:$here/dst/f0\ncp dst/f0 kept",
    );
    let run = run.go().well();
    truth::blameless(&run);
    let t = way(&run, "src/f0", "dst/f0");
    check!(run, t.verdict() == "truncated", "{}", t.shown());
    // Its length says nothing: the last write may have fitted again, behind a hole.
    let arrived = t.destination().unwrap_or(0);
    let kept = std::fs::read(run.scratch.at("kept")).expect("kept");
    let same = kept.iter().zip(payload(3_000_001, 3_000_000)).take_while(|(a, b)| **a == *b).count();
    check!(run, arrived > 0 && arrived.abs_diff(same as u64) < 16_384, "{same} bytes arrived: {}", t.shown());
}

/// One program copies one file to many places, faster than each reading is told in full.
#[test]
fn one_file_to_many_places() {
    const TIMES: usize = 40;
    need!("python3");
    let copies = format!(
        "for n in range({TIMES}):\n  with open('src/f0', 'rb') as a, open(f'dst/{{n}}', 'wb') as b: b.write(a.read())"
    );
    let run = with_files(Observed::new([peers::PYTHON, "-c", &copies]), &[3000]).go().well();
    truth::blameless(&run);
    check!(run, files(&run).len() == TIMES, "{} file transfers", files(&run).len());
    for n in 0..TIMES {
        let t = way(&run, "src/f0", &format!("dst/{n}"));
        check!(run, t.verdict() == "intact", "{}", t.shown());
    }
}
