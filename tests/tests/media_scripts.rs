//! A media file, and scripts that refer to it (issue 5): by argument, link, standard input, a name in their text, a
//! variable; in several languages and formats.

use counterfoil_tests::studio::{LSB, Studio, alarm, every, found, link, links, nothing};
use counterfoil_tests::{check, need, need_pillow, peers};

const OPENS: &str = "import sys; d = open(sys.argv[1], 'rb').read()\n";
const INPUT: &str = "import sys; d = sys.stdin.buffer.read()\n";

#[test]
fn every_way_to_name_a_picture() {
    need!("/usr/bin/python3", "bash");
    need_pillow!();
    let names = "d = open('cover.png', 'rb').read()\n";
    let cases = [
        ("an argument", OPENS, "$PY new.py \"$PWD/cover.png\""),
        ("a relative path", OPENS, "mkdir -p x; cd x; $PY ../new.py ../cover.png"),
        ("a link", OPENS, "ln -s cover.png link; $PY new.py link"),
        ("a hard link", OPENS, "ln cover.png other; $PY new.py other"),
        ("a folder's link", OPENS, "ln -s . there; $PY there/new.py there/cover.png"),
        ("standard input", INPUT, "$PY new.py <cover.png"),
        ("a pipe", INPUT, "cat cover.png | $PY new.py"),
        ("a descriptor", "import os; d = os.fdopen(5, 'rb').read()\n", "$PY new.py 5<cover.png"),
        ("a name in its text", names, "$PY new.py"),
        ("inline code", "", "$PY -c \"open('cover.png','rb').read()\""),
        ("a variable", "import os; open(os.environ['F'], 'rb').read()\n", "F=cover.png $PY new.py"),
        (
            "here, in a document",
            "",
            "$PY - cover.png <<'E'\nimport sys; d = open(sys.argv[1], 'rb').read()\nE",
        ),
        (
            "by its own name",
            "#!/usr/bin/python3\nd = open('cover.png', 'rb').read()\n",
            "chmod +x new.py; ./new.py",
        ),
        ("through env", OPENS, "/usr/bin/env python3 new.py cover.png"),
        ("through bash -c", OPENS, "bash -c '$PY new.py cover.png; :'"),
        (
            "a folder that is read",
            "import glob; [open(f, 'rb').read() for f in glob.glob('*.png')]\n",
            "$PY new.py",
        ),
        (
            "a mapping",
            "import mmap; f = open('cover.png', 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); d = m[:]\n",
            "$PY new.py",
        ),
    ];
    every(cases, |(what, script, command)| {
        let run = Studio::new().with("new.py", script).go(command);
        let all = found(&run);
        check!(run, all.len() == 1, "{what}: {} alarms", all.len());
        let name = if what == "a hard link" { "other" } else { "cover.png" };
        let alarm = alarm(&run, "media-script", "medium", name);
        check!(run, links(&alarm) == ["script"], "{what}: {:?}", links(&alarm));
        let script = link(&alarm, "script");
        let runs = script["runs"].as_str().unwrap_or("");
        let right = match what {
            "inline code" => "code on its command line",
            "here, in a document" => "its standard input",
            _ => "/new.py",
        };
        check!(run, runs.ends_with(right), "{what}: {script}");
        check!(run, script["interpreter"].as_str().is_some_and(|i| i.starts_with("python3")), "{script}");
    });
}

#[test]
fn other_languages() {
    need!("perl", "bash");
    need_pillow!();
    let perl = "open my $f, '<', $ARGV[0]; binmode $f; local $/; my $d = <$f>;\n";
    let shell = "tail -c 10 \"$1\" >tail.bin\n";
    let node = "require('fs').readFileSync(process.argv[2])\n";
    let cases = [
        ("perl", "new.pl", perl, "perl new.pl cover.jpg"),
        ("perl", "", "", "perl -ne 'print if /secret/' cover.jpg"),
        ("sh", "new.sh", shell, "sh new.sh cover.jpg"),
        ("bash", "new.sh", shell, "bash new.sh cover.jpg"),
        ("sh", "new.sh", "cat cover.jpg | tail -c 10 >tail.bin\n", "sh new.sh"),
        ("node", "new.js", node, "node new.js cover.jpg"),
        ("ruby", "new.rb", "File.binread(ARGV[0])\n", "ruby new.rb cover.jpg"),
        ("php", "new.php", "<?php file_get_contents($argv[1]);\n", "php new.php cover.jpg"),
        ("lua", "new.lua", "io.open(arg[1], 'rb'):read('*a')\n", "lua new.lua cover.jpg"),
    ];
    every(cases, |(program, name, script, command)| {
        // Languages that CI may lack; Perl and the shells are always there.
        if peers::find(program).is_none() {
            println!("skipped: {program} is not installed");
            return;
        }
        let studio = if name.is_empty() { Studio::new() } else { Studio::new().with(name, script) };
        let run = studio.go(command);
        let alarm = alarm(&run, "media-script", "medium", "cover.jpg");
        check!(run, links(&alarm) == ["script"], "{command}: {:?}", links(&alarm));
    });
}

#[test]
fn every_format_and_name() {
    need!("ffmpeg", "/usr/bin/python3");
    need_pillow!();
    let sound = "ffmpeg -v quiet -y -f lavfi -i sine=d=1 cover.wav </dev/null; ffmpeg -v quiet -y -i cover.wav cover.mp3 </dev/null; \
        ffmpeg -v quiet -y -i cover.wav cover.ogg </dev/null; ffmpeg -v quiet -y -f lavfi -i testsrc=d=1:s=64x64 cover.mp4 </dev/null";
    let studio = || Studio::new().with("new.py", OPENS).before(sound);
    // Four at most by one shell: more would be a library that is worked through.
    let cases = [
        &["cover.png", "cover.jpg", "cover.gif", "cover.webp"][..],
        &["cover.tiff", "cover.bmp", "cover.mp4", "cover.ogg"],
        &["cover.wav", "cover.mp3", "COVER.JPG", "cover"],
    ];
    every(cases, |group| {
        let commands: String = group.iter().map(|name| format!("$PY new.py {name}\n")).collect();
        let run = studio().before("cp cover.jpg COVER.JPG; cp cover.webp cover").go(&commands);
        for name in group {
            alarm(&run, "media-script", "medium", name);
        }
        check!(run, found(&run).len() == group.len(), "{} alarms", found(&run).len());
    });
    let run = Studio::new()
        .with("new.py", OPENS)
        .before("d=$(mktemp -d /dev/shm/XXXXXX); echo $d >where; cp cover.png $d/picture")
        .go("d=$(cat where); $PY new.py $d/picture; rm -r $d");
    alarm(&run, "media-script", "medium", "picture");
}

#[test]
fn somebody_answers_for_it() {
    need!("/usr/bin/python3");
    need_pillow!();
    let approved = |expires: &str| {
        let text = format!(
            "[[media.approved_workflows]]\npath = \"$HERE/lsb.py\"\nowner = \"ann\"\nreason = \"tests\"\nexpires = \"{expires}\"\n"
        );
        Studio::new().with("lsb.py", LSB).config(&text)
    };
    let command = "$PY lsb.py cover.png out.png";
    nothing(&approved("2100-01-01").go(command));
    alarm(&approved("2001-01-01").go(command), "media-script", "medium", "cover.png");
    // Another tool, and a tolerance.
    let studio = Studio::new().config("[media]\nmonitored_tools_list = [\"md5sum\"]\n");
    let run = studio.go("md5sum cover.jpg >/dev/null");
    alarm(&run, "stego-tool", "low", "cover.jpg");
    let tail = || Studio::new().before("cp cover.png in.png; printf 'a few words more' >>in.png");
    nothing(&tail().go("cat in.png >/dev/null"));
    let run = tail().config("[media]\nmime_header_mismatch_tolerance = 4\n").go("cat in.png >/dev/null");
    alarm(&run, "media-mismatch", "low", "in.png");
}
