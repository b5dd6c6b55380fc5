//! A day's ordinary work raises no process anomaly (issue 3, item 7): package manager, version control,
//! compiler, a web server under load, logins and copies, all observed by one daemon. Twice: while it
//! learns what is ordinary, and after that.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::{need, peers, scratch, service_sshd, skip, wait};
use std::time::Duration;

/// No alarm about a process, nor about a sensitive file. (What can't be verified or observed is another matter.)
fn quiet(daemon: &Daemon, after: &str) {
    let report = daemon.report();
    let anomalies: Vec<_> = report
        .alarms()
        .into_iter()
        .filter(|a| ["process-anomaly", "sensitive-egress"].contains(&a.rule()))
        .collect();
    assert!(anomalies.is_empty(), "after {after}: {}", daemon.shown(&format!("{anomalies:#?}")));
}

fn work(daemon: &Daemon, what: &str, script: &str) {
    let run = daemon.observing(&["sh", "-euc", script]).limit(120).go();
    assert!(run.status.success(), "{what}: {}", run.shown());
    quiet(daemon, what);
}

/// apt looks for packages and looks at what is there; dpkg and its helpers.
fn packages(daemon: &Daemon) {
    if peers::find("apt-get").is_none() {
        println!("skipped: no apt-get");
        return;
    }
    work(
        daemon,
        "apt",
        "apt-get -s install curl >/dev/null; apt list --installed >/dev/null 2>&1; dpkg -S /usr/bin/curl; dpkg -V curl",
    );
    // With a network it also downloads; without, it tries to.
    work(
        daemon,
        "apt-get download",
        "mkdir archives; apt-get -o Acquire::Retries=0 -o Acquire::http::Timeout=5 download hello >/dev/null 2>&1 || true",
    );
}

fn repositories(daemon: &Daemon, folder: &str, port: u16) {
    let ssh: Vec<String> = service_sshd::options(folder);
    let script = format!(
        "export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=$PWD\n\
         git init -q -b main one; cd one; seq 5000 >file; git add file; git commit -qm first; cd ..\n\
         git clone -q one two; cd two; git gc -q; cd ..\n\
         export GIT_SSH_COMMAND='ssh -p {port} {}'\n\
         git clone -q 127.0.0.1:$PWD/one three; cd three; seq 6000 >file; git commit -qam second; git push -q origin HEAD:other",
        ssh.join(" ")
    );
    work(daemon, "git", &script);
}

/// A small program by every compiler that is there.
fn building(daemon: &Daemon) {
    let script = "printf '#include <stdio.h>\\nint main(void) { return puts(\"built\") < 0; }\\n' >a.c\n\
        printf 'all: a\\na: a.c\\n\\tcc -O2 -o a a.c\\n' >Makefile\nmake -s; ./a; strip a; ar rc a.a a.c\n\
        if command -v cargo >/dev/null; then cargo -q init --vcs none --name b b && cd b && CARGO_TARGET_DIR=target cargo -q build --offline && ./target/debug/b; fi";
    work(daemon, "a build", script);
}

/// An nginx with a worker, and clients that come and go.
fn serving(daemon: &Daemon) {
    let port = peers::free_port();
    let words = ["nginx", "-p", ".", "-e", "nginx.log", "-c", "nginx.conf"];
    let nginx = daemon.observing(&words);
    peers::nginx(&nginx.scratch, port, "");
    nginx.scratch.write("www/file", scratch::payload(1, 300_000));
    let certificate = nginx.scratch.at("cert.pem");
    let running = nginx.start();
    let script = format!(
        "n=0; until curl -s --cacert {0} https://localhost:{port}/file -o got; do n=$((n+1)); [ $n -lt 100 ]; sleep 0.05; done\n\
         for round in 1 2 3; do for i in 1 2 3 4 5 6 7 8; do curl -s --cacert {0} https://localhost:{port}/file -o got$i & done; wait; done\n\
         curl -s --cacert {0} -T got https://localhost:{port}/up/file; wget -q --ca-certificate={0} -O got https://localhost:{port}/file\n\
         {1} -c \"import ssl, urllib.request as u; u.urlopen('https://localhost:{port}/file', context=ssl.create_default_context(cafile='{0}')).read()\"",
        certificate.display(),
        peers::PYTHON,
    );
    work(daemon, "nginx under load", &script);
    let master = rustix::process::Pid::from_raw(running.child.id() as i32).expect("pid");
    rustix::process::kill_process(master, rustix::process::Signal::QUIT).expect("kill");
    running.finish();
    quiet(daemon, "the end of nginx");
}

fn copying(daemon: &Daemon, folder: &str, port: u16) {
    let options = service_sshd::options(folder).join(" ");
    let script = format!(
        "seq 100000 >file; mkdir many; for i in 1 2 3 4 5; do cp file many/$i; done\n\
         ssh -p {port} {options} 127.0.0.1 'cat >/dev/null; uname; ls / | head -3' <file >/dev/null\n\
         scp -q -P {port} {options} file 127.0.0.1:$PWD/copied; cmp file copied\n\
         scp -q -O -P {port} {options} 127.0.0.1:$PWD/file back; cmp file back\n\
         scp -q -r -P {port} {options} many 127.0.0.1:$PWD/many2\n\
         printf 'put file sent\\nls\\nget sent got\\n' | sftp -q -b - -P {port} {options} 127.0.0.1:$PWD >/dev/null; cmp file got\n\
         if command -v rsync >/dev/null; then rsync -a -e 'ssh -p {port} {options}' many/ 127.0.0.1:$PWD/many3/; fi\n\
         tar c many | ssh -p {port} {options} 127.0.0.1 'tar t >/dev/null'"
    );
    work(daemon, "logins and copies", &script);
}

#[test]
fn a_days_work() {
    need!("sshd", "ssh", "scp", "sftp", "ssh-keygen", "nginx", "curl", "wget", "git", "gcc", "make");
    if !peers::root() {
        skip!("sshd with privilege separation needs root");
    }
    let mut daemon = Daemon::start("");
    for days in [7, 0] {
        daemon.again_watching(&format!("baseline_days = {days}"));
        let (mut server, port) = service_sshd::start(&daemon);
        let folder = server.scratch.path().display().to_string();
        quiet(&daemon, "sshd's start");
        copying(&daemon, &folder, port);
        repositories(&daemon, &folder, port);
        serving(&daemon);
        building(&daemon);
        packages(&daemon);
        // The process that listens; those that serve end with their clients.
        server.child.kill().expect("kill");
        wait::until(Duration::from_secs(20), "the transfers are told", || {
            daemon.report().transfers().iter().any(|t| t.program("destination") == "nginx").then_some(())
        });
        quiet(&daemon, "all of it");
    }
}
