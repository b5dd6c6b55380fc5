//! What is known of a delivered file, as the ledger keeps it.
#![forbid(unsafe_code)]

use crate::model::{Process, Transfer};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use uuid::Uuid;

/// One delivered file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// What it must have; None: an observed process wrote it, and the next look says what.
    pub(super) sha256: Option<String>,
    /// Its length.
    pub(super) bytes: u64,
    /// When it was delivered, or last written by an observed process.
    pub(super) delivered: Timestamp,
    /// By whom.
    pub(super) by: By,
    /// The transfer is from before the path was opted in, and the file was not looked at yet.
    pub(super) from_ledger: bool,
    /// The last look at which it was as expected.
    pub(super) seen: Option<Seen>,
    /// What was found instead, and said.
    pub(super) said: Option<String>,
}

/// Who delivered or wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct By {
    pub(super) pid: Option<u32>,
    pub(super) exe: Option<String>,
    pub(super) uid: Option<u32>,
    /// The transfer, where it was one.
    pub(super) transfer: Option<Uuid>,
    /// Where it came from: host and path.
    pub(super) from: Option<String>,
}

/// The word of a write may be so much younger than the transfer that it belongs to (a rename at its end).
const OWN: SignedDuration = SignedDuration::from_secs(2);

impl Entry {
    /// A transfer is told when both its ends are known, which may be after other words about its file. It counts if it is
    /// later than what is known, or says more of the very write that is known.
    pub(super) fn yields_to(&self, transfer: &Transfer, pid: u32) -> bool {
        let own = self.by.transfer.is_none() && self.by.pid == Some(pid);
        transfer.ended > self.delivered || (own && self.delivered.duration_since(transfer.ended) <= OWN)
    }
}

impl Entry {
    /// The file is as it was when it was last seen, as far as the kernel tells.
    pub(super) fn untouched(&self, path: &str) -> bool {
        let path = std::ffi::OsString::from_vec(bytes_of(path));
        let (Some(seen), Ok(m)) = (&self.seen, std::fs::symlink_metadata(path)) else { return false };
        let nanos =
            |s: i64, n: i64| u64::try_from(s).unwrap_or(0) * 1_000_000_000 + u64::try_from(n).unwrap_or(0);
        seen.inode == (m.dev(), m.ino())
            && seen.size == m.size()
            && seen.modified == nanos(m.mtime(), m.mtime_nsec())
            && seen.changed == nanos(m.ctime(), m.ctime_nsec())
    }
}

/// Something has that name.
pub(super) fn is_there(path: &str) -> bool {
    std::fs::symlink_metadata(std::ffi::OsString::from_vec(bytes_of(path))).is_ok()
}

impl By {
    pub(super) fn of_transfer(transfer: &Transfer) -> Self {
        let end = transfer.destination.as_ref();
        let from = transfer.origin.as_ref().map(|o| match &o.path {
            Some(path) => format!("{}:{path}", o.host),
            None => o.host.clone(),
        });
        Self {
            pid: end.map(|e| e.pid),
            exe: end.and_then(|e| e.exe.clone()),
            uid: end.and_then(|e| e.uid),
            transfer: Some(transfer.id),
            from,
        }
    }

    pub(super) fn of_process(process: &Process) -> Self {
        Self {
            pid: Some(process.pid),
            exe: process.exe.clone(),
            uid: process.uid,
            transfer: None,
            from: None,
        }
    }
}

/// A look at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) at: Timestamp,
    pub(super) size: u64,
    /// Nanoseconds since 1970.
    pub(super) modified: u64,
    /// Likewise: of anything about it, its owner included.
    pub(super) changed: u64,
    /// Device and inode.
    pub(super) inode: (u64, u64),
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a path in text, where `\xNN` stands for a byte that is no UTF-8.
pub(super) fn bytes_of(path: &str) -> Vec<u8> {
    let text = path.as_bytes();
    // A name may have a backslash and an x of its own.
    if !path.contains("\\x") || std::path::Path::new(path).exists() {
        return text.to_vec();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let code = path.get(at + 2..at + 4).and_then(|h| u8::from_str_radix(h, 16).ok());
        match code.filter(|c| text[at..].starts_with(b"\\x") && *c >= 0x80) {
            Some(code) => {
                out.push(code);
                at += 4;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::path_text;

    #[test]
    fn a_path_in_text_and_back() {
        for raw in [&b"/srv/a"[..], b"/srv/\xff\xfe\xc3\xa4x", b"/\xe4\\", b"/srv/\xc3"] {
            assert_eq!(bytes_of(&path_text(raw)), raw);
        }
        assert_eq!(bytes_of("/none/\\x41"), b"/none/\\x41", "that would have been valid");
    }
}
