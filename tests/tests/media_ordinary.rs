//! Ordinary work with media raises nothing (issue 5): a library that is worked through, what is served, fetched,
//! transcoded, backed up; and the same rule finds a new script that reads one picture.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::observed::{Observed, Run};
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::studio::{Studio, alarm, links, nothing};
use counterfoil_tests::{check, need, need_pillow, need_sshd, peers, pictures, product, wait};
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes thumbnails of a folder, or of one picture.
const RESIZE: &str = "import os, sys\nfrom PIL import Image\nfolder = sys.argv[1]; os.makedirs('small', exist_ok=True)\n\
    names = [folder + '/' + n for n in sorted(os.listdir(folder))] if os.path.isdir(folder) else [folder]\n\
    for n in names:\n  im = Image.open(n); im.thumbnail((24, 24)); im.save('small/' + os.path.basename(n))\n";

/// A script where an administrator installs one, as old as he says. Taken away with this.
struct Installed(PathBuf);

impl Installed {
    fn new(script: &str, age: &str) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let folder = PathBuf::from(format!("/opt/counterfoil-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let installed = Self(folder);
        std::fs::write(installed.path(), script).expect("script");
        let aged = std::process::Command::new("touch").args(["-d", age]).arg(installed.path()).status();
        assert!(aged.is_ok_and(|s| s.success()), "touch");
        installed
    }

    fn path(&self) -> PathBuf {
        self.0.join("resize.py")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One rule: what is installed may do its work, with five hundred pictures or with one; what is new is found.
#[test]
fn an_installed_script_and_a_new_one() {
    need!("/usr/bin/python3");
    need_pillow!();
    if !peers::root() {
        counterfoil_tests::skip!("only root installs a script");
    }
    let old = Installed::new(RESIZE, "10 days ago");
    let command = |script: &Installed, what: &str| format!("$PY {} {what}", script.path().display());
    nothing(
        &Studio::library(500).go(&format!("{}; test $(ls small | wc -l) = 500", command(&old, "photos"))),
    );
    nothing(&Studio::new().go(&command(&old, "cover.jpg")));
    // The same script, installed a moment ago; and an old one where everybody may put what he likes.
    let new = Installed::new(RESIZE, "now");
    let run = Studio::new().go(&command(&new, "cover.jpg"));
    assert_eq!(links(&alarm(&run, "media-script", "medium", "cover.jpg")), ["script"]);
    let loose = Studio::new().with("resize.py", RESIZE).before("touch -d '10 days ago' resize.py");
    alarm(&loose.go("$PY resize.py cover.jpg"), "media-script", "medium", "cover.jpg");
    // A new script over five hundred is a library that is worked through.
    nothing(
        &Studio::library(500)
            .with("resize.py", RESIZE)
            .go("$PY resize.py photos; test $(ls small | wc -l) = 500"),
    );
}

#[test]
fn a_folder_is_worked_through() {
    need!("convert", "mogrify", "identify", "exiftool", "exiv2");
    need_pillow!();
    // One program over many, and one program after the other.
    nothing(
        &Studio::library(500)
            .go("mkdir small; mogrify -path small -resize 24x24 photos/*; test $(ls small | wc -l) = 500"),
    );
    nothing(
        &Studio::library(12)
            .go("mkdir small; for p in photos/*; do convert $p -resize 50% small/${p##*/}; done; identify small/* >/dev/null"),
    );
    nothing(&Studio::library(12).go(
        "exiftool -q -r photos >/dev/null; exiftool -q -overwrite_original -AllDates='2026:01:01 00:00:00' photos >/dev/null; \
         exiftool -q -overwrite_original -Copyright='Ann, all rights reserved' photos >/dev/null; \
         for p in photos/*; do exiv2 -q pr $p >/dev/null || true; done",
    ));
    // One by one, by one who looks at what he has.
    nothing(&Studio::library(3).go(
        "exiftool photos/picture001.jpg >/dev/null; convert photos/picture002.jpg -resize 50% small.jpg",
    ));
    nothing(&Studio::library(3).go(
        "for p in photos/*; do cp $p copy.jpg; cmp $p copy.jpg; done; convert cover.png cover2.jpg; sha256sum photos/* >/dev/null; \
         tar cz photos >photos.tgz; tar xzf photos.tgz; ls -l photos >/dev/null",
    ));
}

#[test]
fn served_and_fetched() {
    need!("curl", "wget", "nginx", "/usr/bin/python3");
    need_pillow!();
    let port = peers::free_port();
    nothing(&Studio::library(3).go(&format!(
        "$PY -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & server=$!\nlistening {port}\n\
         for p in photos/*; do curl -sS http://127.0.0.1:{port}/$p -o got.jpg; done; kill $server"
    )));
    let port = peers::free_port();
    let studio = Studio::library(3);
    peers::nginx(&studio.scratch, port, "");
    let nginx = peers::find("nginx").expect("nginx");
    // As a browser does: a page, then what it shows, into a cache, from where it is looked at.
    let commands = format!(
        "cp -r photos www/; for p in photos/*; do echo \"<img src=$p>\"; done >www/index.html; chmod -R a+rX .\n\
         {} -p $PWD -c nginx.conf & server=$!\nlistening {port}\n\
         mkdir cache; cd cache; wget -q --no-check-certificate -p -nd https://127.0.0.1:{port}/index.html\n\
         for i in 0 1 2; do curl -sSk https://127.0.0.1:{port}/photos/picture00$i.jpg -o $i.cached; done; cd ..\n\
         ls -l cache >/dev/null; kill $server; wait $server || true",
        nginx.display()
    );
    nothing(&studio.go(&commands));
}

#[test]
fn transcoded() {
    need!("ffmpeg");
    need_pillow!();
    nothing(&Studio::new().go(
        "ffmpeg -v quiet -y -f lavfi -i testsrc=d=1:s=64x64 one.mp4 </dev/null; ffmpeg -v quiet -y -i one.mp4 two.mkv </dev/null; \
         ffmpeg -v quiet -y -i two.mkv -frames:v 1 still.png </dev/null; ffmpeg -v quiet -y -i one.mp4 'frame%02d.jpg' </dev/null",
    ));
}

#[test]
fn many_pictures_to_one_host() {
    need!("curl");
    need_pillow!();
    nothing(
        &Studio::library(40)
            .go("curl -sS $(for p in photos/*; do echo -T $p http://127.0.0.1:$P/; done) >/dev/null"),
    );
    need_sshd!();
    need!("rsync");
    let studio = Studio::library(40);
    let script = Sshd::new(&studio.scratch).around("rsync -a photos far:$here/got");
    nothing(&studio.go(&script));
}

fn raised(daemon: &Daemon) -> usize {
    daemon.report().alarms().iter().filter(|a| a.0["analytic"] == "AN0332").count()
}

/// A photo library is sent to its host whenever a few pictures are new: what was learnt, or approved, is in order; once
/// that is taken back it is raised again.
#[test]
fn a_library_to_its_usual_host() {
    need_sshd!();
    need!("rsync");
    need_pillow!();
    let mut daemon = Daemon::watching("baseline_days = 7");
    let server = Sshd::new(&daemon.scratch);
    pictures::library(&daemon.scratch, "photos", 2);
    let here = daemon.scratch.path().canonicalize().expect("scratch").display().to_string();
    let mut command = std::process::Command::new(peers::find("sshd").expect("sshd"));
    command.args(["-D", "-f"]).arg(daemon.scratch.at("sshd_config")).env_remove("LD_PRELOAD");
    let mut serving = command.stdin(std::process::Stdio::null()).spawn().expect("sshd");
    wait::until(PATIENCE, "sshd listens", || std::net::TcpStream::connect(("127.0.0.1", server.port())).ok());
    let send = |daemon: &Daemon| {
        let words = format!("cd {here}; rm -rf got; rsync -a -e 'ssh -F ssh_config' photos far:{here}/got");
        daemon.observing(&["sh", "-euc", &words]).limit(90).go().well();
    };
    let baseline = |daemon: &Daemon, words: &[&str]| -> Run {
        let (program, state) =
            (product::program().display().to_string(), daemon.state().display().to_string());
        let all = [&[program.as_str(), "baseline"], words, &["--state", &state]].concat();
        Observed::new(all).plain().go()
    };
    // It learns: what it would have raised is listed, if it was no proof.
    send(&daemon);
    // Learning is over. The same again is usual; the daemon's end judges all of it.
    daemon.again_watching("baseline_days = 0");
    let before = raised(&daemon);
    send(&daemon);
    daemon.stop();
    assert_eq!(raised(&daemon), before, "{}", daemon.shown("it was learnt"));
    // Nobody knows it any more.
    baseline(&daemon, &["reset", "--all"]).well();
    daemon.launch();
    send(&daemon);
    daemon.stop();
    let all = daemon.report().alarms();
    let egress = all.iter().any(|a| {
        a.rule() == "media-egress" && a.0["connection"]["remote"] == format!("127.0.0.1:{}", server.port())
    });
    assert!(egress, "{}", daemon.shown("it is new"));
    if !peers::root() {
        println!("skipped: an approved program must be root's alone");
    } else {
        let (ssh, port) = (peers::find("ssh").expect("ssh").display().to_string(), server.port().to_string());
        let approved = baseline(
            &daemon,
            &[
                "approve",
                "--exe",
                &ssh,
                "--destination",
                "127.0.0.1",
                "--port",
                &port,
                "--owner",
                "ann",
                "--reason",
                "photo library",
                "--expires",
                "90d",
            ],
        );
        approved.well();
        let before = raised(&daemon);
        daemon.launch();
        send(&daemon);
        daemon.stop();
        assert_eq!(raised(&daemon), before, "{}", daemon.shown("it is approved"));
        // That is about where it goes: a tool that hides things is found all the same.
        if peers::find("steghide").is_some() {
            daemon.launch();
            let words = format!(
                "cd {here}; steghide embed -q -cf photos/picture001.jpg -ef user_key.pub -p x -sf photos/new.jpg -f; rm -rf got; \
                 rsync -a -e 'ssh -F ssh_config' photos/new.jpg far:{here}/got"
            );
            let run = daemon.observing(&["sh", "-euc", &words]).limit(90).go();
            if run.status.success() {
                daemon.stop();
                assert!(raised(&daemon) > before, "{}", daemon.shown("a tool"));
            } else {
                check!(run, run.stderr.contains("too short"), "steghide");
            }
        }
    }
    serving.kill().expect("kill");
    let _ = serving.wait();
}
