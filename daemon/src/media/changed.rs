//! Pictures of one format and size with other content: what was read of a picture, held against what was written.
//!
//! Comes in: what passed when a file was read or written ([`Closed`]), or what stands there now ([`Seen`](super::look::Seen)).
//! Goes out: a [`Link::Changed`]. Where format, size or digest of one of the two are not known nothing is said.
#![forbid(unsafe_code)]

use super::Gallery;
use super::told::Link;
use super::ways::Ways;
use crate::content::Content;
use crate::host::facts::Inode;
use crate::sensitive::Closed;
use crate::sensitive::lineage::Sending;
use counterfoil_abi::record::Magic;
use std::collections::HashMap;
use std::sync::Arc;

/// Shorter beginnings are much the same in all pictures of one format and size.
const LEAST: u32 = 4096;
/// Pictures remembered.
const SHOTS: usize = 4096;

/// What is known of a picture as it was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shot {
    /// Its format.
    pub format: Magic,
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// Its digest.
    pub sha256: [u8; 32],
    /// When the file was last changed, seconds since 1970; 0: it was seen as it passed.
    pub modified: u64,
}

impl Shot {
    fn passed(content: Option<Content>, sha256: Option<[u8; 32]>) -> Option<Self> {
        let content = content?;
        Some(Self { format: content.magic?, size: content.size?, sha256: sha256?, modified: 0 })
    }

    /// A picture like this one, and another one all the same.
    fn changed(&self, other: &Self) -> bool {
        (self.format, self.size) == (other.format, other.size) && self.sha256 != other.sha256
    }
}

/// All that were seen.
#[derive(Debug, Default)]
pub(super) struct Shots {
    /// As they were last read, by the file that a chain begins with.
    read: HashMap<Arc<str>, Shot>,
    /// As they were last written, and when: who read what they were made of may be heard of later.
    written: HashMap<Inode, (Shot, u64)>,
    /// As they were found.
    found: HashMap<String, Shot>,
    /// Format and size of those that were sent.
    sent: Ways<(Magic, (u32, u32))>,
}

impl Shots {
    /// Nobody reads a picture, or too many do: forgets all that were read or looked at.
    pub fn clear(&mut self) {
        self.read.clear();
        self.found.clear();
    }

    fn make_room(&mut self) {
        if self.read.len() + self.written.len() + self.found.len() > SHOTS {
            self.clear();
            self.written.clear();
        }
    }

    /// What was written there was a picture.
    pub fn wrote(&self, inode: Inode) -> bool {
        self.written.contains_key(&inode)
    }

    /// One was sent.
    pub fn sent(&mut self, format: Magic, size: (u32, u32), sending: &Sending) {
        self.sent.put((format, size), sending);
    }

    /// Forgets what was sent or written before `time`.
    pub fn forget_before(&mut self, time: u64) {
        self.written.retain(|_, (_, last)| *last >= time);
        self.sent.forget_before(time);
    }

    /// One was looked at where it lies.
    pub fn found(&mut self, path: &str, shot: Shot) {
        self.make_room();
        self.found.insert(path.to_owned(), shot);
    }
}

impl Gallery {
    /// A file was closed, through which one may have passed.
    pub(super) fn shot(&mut self, closed: &Closed) {
        self.shots.make_room();
        let read = Shot::passed(closed.read_content, closed.read.flatten());
        if let Some(shot) = read
            && let Some(reading) = self.origins.of(closed.arena, closed.number)
            && reading.source.way.is_empty()
        {
            self.shots.read.insert(reading.source.path.clone(), shot);
        }
        if let Some(wrote) = &closed.wrote {
            self.shots.found.remove(&wrote.path);
            match Shot::passed(closed.wrote_content, wrote.sha256) {
                Some(shot) => _ = self.shots.written.insert(wrote.inode, (shot, wrote.last)),
                None => _ = self.shots.written.remove(&wrote.inode),
            }
        }
    }

    /// What was written to `path` is the picture `root` changed, which was read until then (seconds since 1970).
    pub(super) fn changed(&self, root: &str, until: u64, path: &str, inode: Inode) -> Option<Link> {
        let shots = &self.shots;
        // What lies there now is what was read if nobody has changed it since.
        let before =
            shots.read.get(root).or_else(|| shots.found.get(root).filter(|s| s.modified <= until))?;
        let written = shots.written.get(&inode).map(|(shot, _)| shot);
        let after = written.or_else(|| shots.found.get(path).filter(|_| path != root))?;
        before.changed(after).then(|| Link::Changed {
            path: Some(path.to_owned()),
            format: after.format,
            size: after.size,
        })
    }

    /// A picture of `root`'s format and size was sent, and it is neither that one nor another one that was read. Told apart
    /// by first blocks of one length.
    pub(super) fn changed_on_the_way(&self, root: &str, sending: &Sending) -> Option<Link> {
        let shot = self.shots.read.get(root)?;
        self.shots.sent.get(sending).find(|sent| *sent == (shot.format, shot.size))?;
        let sent = self.streams.get(sending);
        let read = |length: u32| self.known.iter().any(|(first, (of, _))| first.0 == length && **of == *root);
        let another = sent.clone().all(|first| !self.known.contains_key(&first));
        let comparable = sent.clone().any(|first| first.0 >= LEAST && read(first.0));
        let (format, size) = (shot.format, shot.size);
        (another && comparable).then_some(Link::Changed { path: None, format, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_like_pictures_with_other_content() {
        let one = Shot { format: Magic::Png, size: (320, 240), sha256: [1; 32], modified: 0 };
        assert!(one.changed(&Shot { sha256: [2; 32], modified: 9, ..one }));
        assert!(!one.changed(&one), "a copy");
        assert!(!one.changed(&Shot { sha256: [2; 32], size: (160, 120), ..one }), "a thumbnail");
        assert!(!one.changed(&Shot { sha256: [2; 32], format: Magic::Jpeg, ..one }), "another format");
        assert_eq!(Shot::passed(None, Some([1; 32])), None);
    }
}
