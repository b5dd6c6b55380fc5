//! Programs that carry content as it is, and those that may change it by their trade.
//!
//! Comes in: a program's name, and its arguments as it says hello (later they are redacted). Goes out: whether a difference between what went in and
//! what came out accuses anybody. `sed` in a pipeline is its user's own edit.

use crate::host::facts::Facts;
use crate::model::Process;

/// They write what they read. A length can't change on the way through them.
const EXACT: &[&str] = &[
    "ssh",
    "sshd",
    "sshd-session",
    "sshd-auth",
    "scp",
    "sftp",
    "sftp-server",
    "rsync",
    "cat",
    "dd",
    "tee",
    "tar",
    "cp",
    "cpio",
    "pv",
    "mbuffer",
    "nc",
    "nc.openbsd",
    "nc.traditional",
    "ncat",
    "socat",
    "install",
    "mv",
    "busybox",
];
/// They write what they read, unless they are told to convert: then the length shows it.
const USUAL: &[&str] =
    &["curl", "wget", "nginx", "apache2", "httpd", "haproxy", "stunnel", "stunnel4", "lftp", "vsftpd"];
/// Of these, who may be set up to put other words in the place of some of a text that they serve, which may be as long: `sub_filter`, SSI,
/// character sets, scripts.
const REWRITES: &[&str] = &["nginx", "apache2", "httpd"];
/// They read whole files or fail.
const WHOLE: &[&str] =
    &["scp", "sftp", "sftp-server", "rsync", "cp", "install", "mv", "tar", "cpio", "curl", "wget"];

/// They do nothing with files but send them and write what they are sent.
const SENDS: &[&str] = &["scp", "sftp", "sftp-server"];

/// What a program is to what passes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// It may do anything.
    No,
    /// It passes on what it gets, but could have been told to convert.
    Usual,
    /// It passes on what it gets.
    Exact,
}

/// The name of a program: the last part of its path.
pub fn name(process: &Process) -> &str {
    let base = process.exe.as_deref().and_then(|e| e.rsplit('/').next()).unwrap_or("");
    base.strip_suffix(" (deleted)").unwrap_or(base)
}

/// What a program is to what passes through it.
pub fn carrier(facts: &Facts) -> Carrier {
    let name = name(&facts.process);
    match facts.converts {
        true => Carrier::No,
        false if EXACT.contains(&name) => Carrier::Exact,
        false if USUAL.contains(&name) => Carrier::Usual,
        false => Carrier::No,
    }
}

/// It reads a file to its end, or did not do what it was started for.
pub fn reads_whole(process: &Process) -> bool {
    WHOLE.contains(&name(process))
}

/// It may have been set up to serve other text than it reads.
pub fn rewrites_text(process: &Process) -> bool {
    REWRITES.contains(&name(process))
}

/// Whatever file it reads it sends, and whatever it writes was sent to it.
pub fn sends_files(process: &Process) -> bool {
    SENDS.contains(&name(process))
}

/// A file that it reads as it is, it sends; what it writes came by a connection.
pub fn fetches_files(process: &Process) -> bool {
    name(process) == "curl"
}

/// It sends what differs from what is there already, and may compress it.
pub fn sends_differences(process: &Process) -> bool {
    name(process) == "rsync"
}

/// What goes over its connections may be compressed (`ssh -C`).
pub fn compresses(process: &Process) -> bool {
    ["ssh", "sshd", "sshd-session", "sshd-auth"].contains(&name(process))
}

/// It was told to convert, or to leave something out. Its arguments must be the real ones, not redacted.
pub fn converts(process: &Process) -> bool {
    let Some(argv) = &process.argv else { return true };
    let words: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    let any = |is: &dyn Fn(&str) -> bool| words.iter().any(|w| is(w));
    // `-xyz`, and whether one of these letters is among them.
    let short = |letters: &str| {
        any(&|w| {
            let flags = w.strip_prefix('-').filter(|f| !f.starts_with('-') && f.len() < 5);
            flags.is_some_and(|f| f.chars().any(|c| letters.contains(c)))
        })
    };
    let long = |options: &[&str]| any(&|w| options.iter().any(|o| w.starts_with(o)));
    match name(process) {
        "cat" => any(&|w| w.len() > 1 && w.starts_with('-') && w != "-u"),
        // All but where from, where to and how much at once.
        "dd" => any(&|w| {
            let known = ["if=", "of=", "bs=", "ibs=", "obs=", "status=", "iflag=", "oflag=", "--"];
            let harmless = ["conv=notrunc", "conv=fsync", "conv=fdatasync", "conv=excl", "conv=nocreat"];
            !known.iter().any(|k| w.starts_with(k)) && !harmless.contains(&w)
        }),
        // Compressed, or all files in one.
        "tar" => {
            let telling = |letters: &str| letters.contains(['z', 'j', 'J', 'Z', 'I', 'O']);
            let old = words.first().is_some_and(|w| !w.starts_with('-') && telling(w));
            // After these letters comes a word of their own.
            let own = |w: &str| {
                w.split(['f', 'C', 'T', 'X', 'b', 'g', 'H', 'K', 'L', 'N', 'V']).next().is_some_and(telling)
            };
            let bundled = any(&|w| w.strip_prefix('-').is_some_and(|w| !w.starts_with('-') && own(w)));
            let options = [
                "--gz",
                "--gunzip",
                "--bz",
                "--xz",
                "--lz",
                "--zstd",
                "--use-comp",
                "--to-command",
                "--to-stdout",
            ];
            old || bundled || long(&options)
        }
        "cpio" => short("bsS") || long(&["--to-stdout", "--swap"]),
        // A terminal turns ends of lines round.
        "ssh" => ssh_terminal(&words),
        "nc" | "nc.openbsd" | "nc.traditional" | "ncat" => short("C") || long(&["--crlf"]),
        "socat" => {
            let telling = [",cr", "OPENSSL", "openssl", "readbytes", "seek"];
            any(&|w| telling.iter().any(|told| w.contains(told)))
        }
        // It may stop where it was told to.
        "pv" => short("S") || long(&["--stop"]),
        "install" => short("s") || long(&["--strip"]),
        "wget" => short("kE") || long(&["--convert", "--adjust"]),
        "busybox" => true,
        _ => false,
    }
}

/// Do ssh's options ask for a terminal? What follows the host's name is not ours.
fn ssh_terminal(words: &[&str]) -> bool {
    const TAKE_A_WORD: &str = "BbcDEeFIiJLlmOopQRSWw";
    let mut words = words.iter();
    while let Some(flags) = words.next().and_then(|w| w.strip_prefix('-')) {
        for (at, letter) in flags.char_indices() {
            if letter == 't' {
                return true;
            }
            if TAKE_A_WORD.contains(letter) {
                let rest = &flags[at + 1..];
                let value = if rest.is_empty() { words.next().copied().unwrap_or("") } else { rest };
                let value = value.to_ascii_lowercase();
                let no = value.ends_with("no") || value.ends_with("auto");
                if letter == 'o' && value.starts_with("requesttty") && !no {
                    return true;
                }
                break;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Carrier {
        let words: Vec<&str> = line.split(' ').collect();
        let mut facts = Facts::default();
        facts.process.exe = Some(format!("/usr/bin/{}", words[0]));
        facts.process.argv = Some(words.iter().map(|&w| w.to_owned()).collect());
        facts.converts = converts(&facts.process);
        carrier(&facts)
    }

    #[test]
    fn who_converts_is_no_carrier() {
        for line in [
            "sed s/a/b/",
            "openssl enc",
            "cat -A f",
            "dd if=a conv=ucase",
            "dd if=a count=3",
            "tar -czf - d",
            "tar czf - d",
            "tar --zstd -cf - d",
            "tar -cvvpzf - d",
            "tar -xOf - d",
            "tar xf - --to-stdout",
            "cpio -i --to-stdout",
            "cpio -ib",
            "ssh -t host cat f",
            "ssh -o RequestTTY=force host cat f",
            "nc -NC host 80",
            "wget -k http://host/",
            "busybox dos2unix",
            "pv -Ss 1000 f",
            "socat -u OPEN:f,readbytes=1000 CREATE:g",
        ] {
            assert_eq!(of(line), Carrier::No, "{line}");
        }
        for line in [
            "scp -C a host:b",
            "cat f -",
            "cat -u f",
            "dd if=a bs=1M conv=notrunc",
            "tar -cf - d",
            "tar xf -",
            "tar -xC /zoo -f/OO",
            "ssh -F config -p22 host cat",
            "ssh -x -oPermitLocalCommand=no -oRequestTTY=no -i test -s host sftp",
            "ssh -l t host rsync --server -t . d",
            "nc -N host 80",
        ] {
            assert_eq!(of(line), Carrier::Exact, "{line}");
        }
        assert_eq!(of("curl -T a https://host/"), Carrier::Usual);
        // Taken up after a restart: nobody knows its arguments.
        assert!(converts(&Process::default()));
    }
}
