//! Command lines without their secrets.
//!
//! Comes in: argv as the kernel has it. Goes out: argv as `[privacy] argv` allows it to be stored,
//! shown and sent. Called where a process is looked up, before anything else sees its arguments.
//!
//! `redacted` keeps the program's name and the names of options, and puts `#` and eight hex digits
//! in place of every value, positional ones too: a password can stand anywhere (`-u user:pass`, a
//! header, a URL's userinfo or query, `KEY=secret`). The digits come from SHA-256 under a key that
//! the daemon draws when it starts: equal values stay recognisable as equal, and a short password
//! can't be found by trying.
#![forbid(unsafe_code)]

use crate::escape;
use sha2::{Digest, Sha256};

/// `[privacy] argv`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArgvPrivacy {
    /// Options are kept, values hashed.
    #[default]
    Redacted,
    /// As it is.
    Full,
    /// Not at all.
    None,
}

/// Redacts as it was told to.
#[derive(Clone)]
pub struct Redactor {
    mode: ArgvPrivacy,
    key: [u8; 32],
}

/// Options with one dash and a whole word (OpenSSL's style). Other words after one dash are taken
/// for a short option with its value attached, as in `-psecret`.
const WORDS: &[&str] = &[
    "accept",
    "connect",
    "servername",
    "cert",
    "key",
    "CAfile",
    "CApath",
    "quiet",
    "verify",
    "port",
    "www",
    "WWW",
    "HTTP",
    "naccept",
    "tls1_2",
    "tls1_3",
    "cipher",
    "ciphersuites",
    "alpn",
    "nocommands",
    "early_data",
    "sess_out",
    "sess_in",
    "in",
    "out",
    "pass",
    "passin",
    "passout",
    "new",
    "x509",
    "newkey",
    "nodes",
    "days",
    "subj",
    "name",
    "type",
    "exec",
    "print",
    "jar",
    "cp",
    "classpath",
    "version",
    "help",
    "bind",
    "rev",
    "ign_eof",
];

impl Redactor {
    /// A redactor with a key of its own.
    #[must_use]
    pub fn new(mode: ArgvPrivacy) -> Self {
        let mut key = [0; 32];
        // Without flags it can't fail once the kernel's pool is ready, and 32 bytes come at once
        // (getrandom(2)).
        let _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
        Self::with_key(mode, key)
    }

    /// A redactor with a given key, so that hashes stay comparable.
    #[must_use]
    pub fn with_key(mode: ArgvPrivacy, key: [u8; 32]) -> Self {
        Self { mode, key }
    }

    /// The same key under another mode, after a reload.
    #[must_use]
    pub fn mode(&self, mode: ArgvPrivacy) -> Self {
        Self { mode, key: self.key }
    }

    /// `argv` as it may be kept; None where it may not be.
    #[must_use]
    pub fn argv<A: AsRef<[u8]>>(&self, argv: &[A]) -> Option<Vec<String>> {
        match self.mode {
            ArgvPrivacy::None => None,
            ArgvPrivacy::Full => Some(argv.iter().map(|a| escape::bytes(a.as_ref())).collect()),
            ArgvPrivacy::Redacted => {
                let mut out = Vec::with_capacity(argv.len());
                let mut options = true;
                for (i, arg) in argv.iter().enumerate() {
                    let arg = arg.as_ref();
                    out.push(match i {
                        0 => self.program(arg),
                        _ if options => self.argument(arg),
                        _ => self.hash(arg),
                    });
                    options &= arg != b"--";
                }
                Some(out)
            }
        }
    }

    /// argv[0]: kept. A program that rewrites its title (`sshd: user [priv]`, `nginx: worker
    /// process`) keeps the part before the colon; the rest may name anything.
    fn program(&self, arg: &[u8]) -> String {
        match arg.iter().position(|&b| b == b' ') {
            Some(space) => {
                format!("{} {}", escape::bytes(&arg[..space]), self.hash(&arg[space + 1..]))
            }
            None => escape::bytes(arg),
        }
    }

    fn argument(&self, arg: &[u8]) -> String {
        match arg {
            b"-" | b"--" => escape::bytes(arg),
            [b'-', b'-', long @ ..] => match long.iter().position(|&b| b == b'=') {
                Some(at) if is_name(&long[..at]) => {
                    format!("--{}={}", escape::bytes(&long[..at]), self.hash(&long[at + 1..]))
                }
                None if is_name(long) => escape::bytes(arg),
                _ => self.hash(arg),
            },
            [b'-', short @ ..] => self.short(short),
            _ => match arg.iter().position(|&b| b == b'=') {
                Some(at) if is_variable(&arg[..at]) && arg.get(at + 1).is_some_and(|&b| b != b'=') => {
                    format!("{}={}", escape::bytes(&arg[..at]), self.hash(&arg[at + 1..]))
                }
                _ => self.hash(arg),
            },
        }
    }

    /// What follows one dash: a single letter, a known word, a few letters together (`-sSf`), or a
    /// letter with its value attached.
    fn short(&self, rest: &[u8]) -> String {
        let word = std::str::from_utf8(rest).unwrap_or("");
        let first_takes_a_secret = matches!(rest[0], b'p' | b'P' | b'u' | b'U' | b'w' | b'W' | b'a' | b'H');
        let cluster = rest.len() <= 3 && rest.iter().all(u8::is_ascii_alphabetic) && !first_takes_a_secret;
        if WORDS.contains(&word) || cluster || (rest.len() == 1 && rest[0].is_ascii_alphanumeric()) {
            format!("-{word}")
        } else if rest[0].is_ascii_alphanumeric() {
            format!("-{}{}", char::from(rest[0]), self.hash(&rest[1..]))
        } else {
            self.hash(rest)
        }
    }

    fn hash(&self, value: &[u8]) -> String {
        let digest = Sha256::new().chain_update(self.key).chain_update(value).finalize();
        format!("#{:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3])
    }
}

/// A long option's name: what getopt_long programs use, and short enough not to be a secret.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 40
        && name[0].is_ascii_alphabetic()
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

/// An environment variable's name. Upper case only: `hunter=2` may be a password.
fn is_variable(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 40
        && !name[0].is_ascii_digit()
        && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(line: &[&str]) -> Vec<String> {
        Redactor::with_key(ArgvPrivacy::Redacted, [7; 32]).argv(line).unwrap()
    }

    #[test]
    fn no_secret_survives_and_options_do() {
        const SECRETS: &[&str] = &["hunter2", "s3cr3t", "t0ken", "Bearer", "alice", "internal.example"];
        for line in [
            &["curl", "-u", "alice:hunter2", "https://internal.example/x"][..],
            &["curl", "-ualice:hunter2", "-sSf"],
            &["curl", "--header", "Authorization: Bearer t0ken", "--header=X-Key: s3cr3t"],
            &["curl", "https://alice:hunter2@internal.example/?token=t0ken"],
            &["mysql", "-phunter2", "-p", "hunter2", "--password=hunter2"],
            &["env", "AWS_SECRET_ACCESS_KEY=s3cr3t", "hunter2=", "hunter2==", "alice=1"],
            &["sh", "-c", "echo hunter2 | login alice"],
            &["sshd: alice [priv]"],
            &["prog", "--", "-hunter2", "--s3cr3t"],
            &["prog", "--hunter2 with spaces", "-\u{fc}hunter2", "-:hunter2"],
        ] {
            let out = redacted(line).join(" ");
            for secret in SECRETS {
                assert!(!out.contains(secret), "{line:?} leaves {secret}: {out}");
            }
        }
        let out = redacted(&["curl", "-sSf", "--upload-file", "x", "--cacert=y", "-o", "A=b", "-", "--"]);
        assert_eq!(out[..3], ["curl", "-sSf", "--upload-file"]);
        assert!(out[3].starts_with('#') && out[3].len() == 9, "{out:?}");
        assert!(out[4].starts_with("--cacert=#"), "{out:?}");
        assert!(out[6].starts_with("A=#"), "{out:?}");
        assert_eq!(out[7..], ["-", "--"]);
        assert_eq!(redacted(&["openssl", "s_client", "-connect", "h:1"])[2], "-connect");
    }

    #[test]
    fn equal_values_are_equal_under_one_key_only() {
        let line = ["p", "value"];
        let a = Redactor::with_key(ArgvPrivacy::Redacted, [1; 32]);
        assert_eq!(a.argv(&line), a.clone().argv(&line));
        assert_ne!(a.argv(&line), Redactor::with_key(ArgvPrivacy::Redacted, [2; 32]).argv(&line));
        assert_ne!(
            Redactor::new(ArgvPrivacy::Redacted).argv(&line),
            Redactor::new(ArgvPrivacy::Redacted).argv(&line)
        );
    }

    #[test]
    fn modes() {
        let line = [&b"p\xff"[..], b"a\nb"];
        assert_eq!(Redactor::new(ArgvPrivacy::None).argv(&line), None);
        assert_eq!(Redactor::new(ArgvPrivacy::Full).argv(&line).unwrap(), ["p\\xff", "a\\x0ab"]);
        assert!(Redactor::new(ArgvPrivacy::Redacted).argv::<&[u8]>(&[]).unwrap().is_empty());
    }
}
