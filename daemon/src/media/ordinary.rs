//! What makes work with media ordinary: an installed script, many files of a folder, somebody who answers for it.
#![forbid(unsafe_code)]

use super::ran::Code;
use super::{Doing, Gallery};
use crate::config::Media;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// More media files than this, one after the other, are a library that is worked through.
pub(super) const MANY: usize = 4;

/// A file of the system's own.
pub(super) fn system(path: &str) -> bool {
    [
        "/usr/",
        "/etc/",
        "/lib",
        "/bin/",
        "/sbin/",
        "/proc/",
        "/sys/",
        "/dev/",
        "/run/",
        "/var/lib/",
        "/var/cache/",
        "/opt/",
    ]
    .iter()
    .any(|start| path.starts_with(start))
        && !loose(path)
}

/// Folders in which everybody, or a user, puts what he likes.
fn loose(path: &str) -> bool {
    ["/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/", "/home/", "/root/"]
        .iter()
        .any(|start| path.starts_with(start))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Somebody answers for it.
pub(super) fn approved(media: &Media, doing: &Doing) -> bool {
    if media.approved_workflows.is_empty() {
        return false;
    }
    let today = jiff::Zoned::now().date();
    media.approved_workflows.iter().filter(|w| w.expires >= today).any(|w| {
        let path = w.path.to_string_lossy();
        doing.ran.script() == Some(&*path) || doing.exe == *path
    })
}

impl Gallery {
    /// A program read one more of them.
    pub(super) fn counted(&mut self, arena: u64, root: &Arc<str>) {
        let Some(doing) = self.doing.get_mut(&arena) else { return };
        if doing.media.len() <= MANY {
            doing.media.insert(root.clone());
        }
        let batch = self.batches.entry(doing.batch.clone()).or_default();
        if batch.len() <= MANY {
            batch.insert(root.clone());
        }
    }

    /// A script was given one more of them. True: it works through many, or is one of a row that do.
    pub(super) fn given_many(&mut self, arena: u64, root: &Arc<str>) -> bool {
        let Some(doing) = self.doing.get(&arena) else { return false };
        let name = doing.ran.script().unwrap_or(&doing.ran.name).into();
        let batch = self.batches.entry((doing.batch.0, name)).or_default();
        if batch.len() <= MANY {
            batch.insert(root.clone());
        }
        batch.len() > MANY
    }

    /// It works through many, or is one of a row of programs that do.
    pub(super) fn many(&self, arena: u64) -> bool {
        self.doing.get(&arena).is_some_and(|doing| {
            let batch = self.batches.get(&doing.batch);
            doing.media.len() > MANY || batch.is_some_and(|b| b.len() > MANY)
        })
    }

    /// The script is nothing that was installed. None: not known yet.
    pub(super) fn unusual(&self, doing: &Doing) -> Option<bool> {
        match &doing.ran.code {
            None | Some(Code::Module(_)) => Some(false),
            Some(Code::Inline | Code::Input) => Some(true),
            Some(Code::File(path)) if loose(path) => Some(true),
            Some(Code::File(path)) => {
                let script = self.scripts.get(path)?.as_ref()?;
                let age = self.settings().script_age.as_secs();
                Some(script.changed.is_none_or(|changed| now().saturating_sub(changed) < age))
            }
        }
    }
}
