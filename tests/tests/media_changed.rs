//! What a chain shows beside its links (issue 5): a picture of the same format and size with other content, and the
//! libraries for pictures in a process that reads one and sends.

use counterfoil_tests::studio::{LSB, Studio, alarm, every, found, link, links};
use counterfoil_tests::{check, need, need_pillow};
use serde_json::Value;

/// Changes a picture, and sends it from memory.
const SENDS: &str = "import sys, io, os, urllib.request\nfrom PIL import Image\nim = Image.open(sys.argv[1]); im.load(); p = im.load()\n\
    p[0, 0] = (1, 2, 3); b = io.BytesIO(); im.save(b, im.format)\n\
    urllib.request.urlopen('http://127.0.0.1:' + os.environ['P'] + '/', b.getvalue())\n";

fn changed(run: &counterfoil_tests::Run, of: &str, rule: &str, severity: &str) -> Value {
    link(&alarm(run, rule, severity, of), "changed")
}

#[test]
fn a_picture_changed_between_read_and_send() {
    need!("curl", "/usr/bin/python3");
    need_pillow!();
    // Into another file, and onto itself.
    for (to, format) in [("out.png", "png"), ("cover.png", "png"), ("out.bmp", "")] {
        let run = Studio::new()
            .with("lsb.py", LSB)
            .go(&format!("$PY lsb.py cover.png {to}; curl -sS -T {to} http://127.0.0.1:$P/ >/dev/null"));
        let link = changed(&run, "cover.png", "media-script", "high");
        if format.is_empty() {
            check!(run, link.is_null(), "another format: {link}");
        } else {
            check!(run, link["path"].as_str().is_some_and(|p| p.ends_with(to)), "{to}: {link}");
            check!(
                run,
                (&link["format"], &link["width"], &link["height"])
                    == (&"png".into(), &320.into(), &240.into()),
                "{link}"
            );
        }
    }
    // From memory: only what was sent shows it.
    let run = Studio::new().with("send.py", SENDS).go("$PY send.py cover.png");
    let link = changed(&run, "cover.png", "media-script", "high");
    check!(run, link["path"].is_null() && link["format"] == "png", "{link}");
}

#[test]
fn by_tools_that_no_hook_sees_read() {
    need!("steghide", "convert", "exiftool");
    need_pillow!();
    let run = Studio::new().go("steghide embed -q -cf cover.jpg -ef payload.sh -p x -sf out.jpg");
    let tool = alarm(&run, "stego-tool", "low", "cover.jpg");
    assert_eq!(links(&tool), ["tool", "changed"]);
    let run = Studio::new().go("outguess -k x -d payload.sh cover.jpg out.jpg 2>/dev/null");
    assert_eq!(links(&alarm(&run, "stego-tool", "low", "cover.jpg")), ["tool", "changed"]);
    assert_eq!(link(&found(&run)[0], "changed")["width"], 320);
}

#[test]
fn what_is_no_change() {
    need!("curl", "convert", "/usr/bin/python3");
    need_pillow!();
    let thumbnail = "import sys\nfrom PIL import Image\nim = Image.open(sys.argv[1]); im.thumbnail((24, 24)); im.save(sys.argv[2])\n";
    let send = |file: &str| format!("curl -sS -T {file} http://127.0.0.1:$P/ >/dev/null");
    let cases = [
        ("as it is", send("cover.png")),
        ("a copy", format!("cp cover.png out.png; {}", send("out.png"))),
        ("a thumbnail", format!("$PY new.py cover.png out.png; {}", send("out.png"))),
        ("another one, as it is", format!("cat cover.png >/dev/null; {}", send("other.png"))),
        ("another format", format!("convert cover.png out.jpg; {}", send("out.jpg"))),
    ];
    every(cases, |(what, commands)| {
        let run = Studio::new()
            .with("new.py", thumbnail)
            .before("convert cover.png -negate other.png")
            .go(&commands);
        check!(run, !found(&run).is_empty(), "{what}: nothing at all");
        for alarm in found(&run) {
            check!(
                run,
                !links(&alarm).contains(&"changed".into()),
                "{what}: {}",
                alarm.0["evidence"]["links"]
            );
        }
    });
}

/// Libraries for pictures are evidence in a process that reads one and then sends, and only there.
#[test]
fn libraries_in_a_process_that_sends() {
    need!("curl", "/usr/bin/python3");
    need_pillow!();
    let forks = SENDS.replace("b = io", "pid = os.fork()\nif pid: sys.exit(os.waitpid(pid, 0)[1])\nb = io");
    let late = "import sys, os, socket\ns = socket.create_connection(('127.0.0.1', int(os.environ['P'])))\ns.sendall(b'hello')\n\
        from PIL import Image\nim = Image.open(sys.argv[1]); im.load()\ns.sendall(im.tobytes()[:100]); s.close(); os._exit(0)\n";
    let cases = [
        ("encoded and sent", SENDS, &["Pillow", "libjpeg"][..]),
        ("by a forked child", forks.as_str(), &["Pillow", "libjpeg"]),
        ("connected before", late, &["Pillow", "libjpeg"]),
    ];
    every(cases, |(what, script, names)| {
        let run = Studio::new().with("send.py", script).go("$PY send.py cover.jpg");
        let sent = alarm(&run, "media-script", "high", "cover.jpg");
        let loaded = link(&sent, "image-libraries")["names"].as_array().cloned().unwrap_or_default();
        check!(run, names.iter().all(|n| loaded.contains(&(*n).into())), "{what}: {loaded:?}");
    });
    // Who sends has none; who has some sends nothing.
    let plain = "import sys, os, socket\ns = socket.create_connection(('127.0.0.1', int(os.environ['P'])))\ns.sendall(open(sys.argv[1], 'rb').read())\n";
    for (script, command) in [
        (plain, "$PY send.py cover.jpg"),
        (LSB, "$PY send.py cover.png cover.jpg; curl -sS -T cover.jpg http://127.0.0.1:$P/ >/dev/null"),
    ] {
        let run = Studio::new().with("send.py", script).go(command);
        for alarm in found(&run) {
            check!(
                run,
                !links(&alarm).contains(&"image-libraries".into()),
                "{command}: {}",
                alarm.0["evidence"]["links"]
            );
        }
        check!(run, !found(&run).is_empty(), "nothing");
    }
}
