//! Programs that carry content as it is, and those that may change it by their trade.
//!
//! Comes in: a program's name and arguments. Goes out: whether a difference between what went in and
//! what came out accuses anybody. `sed` in a pipeline is its user's own edit.

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
/// They read whole files or fail.
const WHOLE: &[&str] =
    &["scp", "sftp", "sftp-server", "rsync", "cp", "install", "mv", "tar", "cpio", "curl", "wget"];

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

/// What `process` is to what passes through it.
pub fn carrier(process: &Process) -> Carrier {
    let name = name(process);
    if EXACT.contains(&name) {
        return if converts(name, process) { Carrier::No } else { Carrier::Exact };
    }
    if USUAL.contains(&name) { Carrier::Usual } else { Carrier::No }
}

/// It reads a file to its end, or did not do what it was started for.
pub fn reads_whole(process: &Process) -> bool {
    WHOLE.contains(&name(process))
}

/// It was told to convert, or to leave something out. Values in argv may be hashed: an option's name is
/// enough.
fn converts(name: &str, process: &Process) -> bool {
    let Some(argv) = &process.argv else { return false };
    let mut words = argv.iter().skip(1);
    match name {
        "cat" => words.any(|w| w.len() > 1 && w.starts_with('-') && w != "-u"),
        // Any operand beyond where from, where to and how much at once; hashed ones can't be told.
        "dd" => words.any(|w| {
            let known = ["if=", "of=", "bs=", "ibs=", "obs=", "status=", "iflag=", "oflag="];
            w.contains('=') && !known.iter().any(|k| w.starts_with(k))
        }),
        "tar" => words.any(|w| {
            let short = w.starts_with('-') && !w.starts_with("--");
            w.starts_with("--to-command")
                || short && w[1..].contains(['z', 'j', 'J', 'Z'])
                || ["--gzip", "--bzip2", "--xz", "--zstd", "--use-compress"].iter().any(|o| w.starts_with(o))
        }),
        "socat" => words.any(|w| w.contains("crnl") || w.contains("openssl")),
        "busybox" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(words: &[&str]) -> Process {
        Process {
            exe: Some(format!("/usr/bin/{}", words[0])),
            argv: Some(words.iter().map(|&w| w.to_owned()).collect()),
            ..Process::default()
        }
    }

    #[test]
    fn who_converts_is_no_carrier() {
        assert_eq!(carrier(&process(&["scp", "-C", "a", "b"])), Carrier::Exact);
        assert_eq!(carrier(&process(&["curl", "-T", "a"])), Carrier::Usual);
        assert_eq!(carrier(&process(&["sed", "s/a/b/"])), Carrier::No);
        assert_eq!(carrier(&process(&["openssl", "enc"])), Carrier::No);
        assert_eq!(carrier(&process(&["cat", "-A", "f"])), Carrier::No);
        assert_eq!(carrier(&process(&["cat", "f", "-"])), Carrier::Exact);
        assert_eq!(carrier(&process(&["dd", "if=a", "conv=ucase"])), Carrier::No);
        assert_eq!(carrier(&process(&["dd", "if=a", "bs=1M"])), Carrier::Exact);
        assert_eq!(carrier(&process(&["tar", "-czf", "-", "d"])), Carrier::No);
        assert_eq!(carrier(&process(&["tar", "-cf", "-", "d"])), Carrier::Exact);
    }
}
