//! What the trail goes by, as configured; shared by the core and by who reads the configuration again.
#![forbid(unsafe_code)]

use super::index::Printer;
use super::known::{Keeper, Known};
use super::paths::{Paths, homes};
use super::readers::Readers;
use crate::config::Egress;
use crate::tags::Tagger;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// See the module's text.
pub struct Setup {
    pub(super) known: Arc<Known>,
    pub(super) readers: Arc<RwLock<(Readers, Duration)>>,
    /// Ends with it.
    _keeper: Keeper,
}

impl Setup {
    /// Looks for the sensitive files, and goes on with that.
    ///
    /// # Errors
    /// No thread.
    pub fn start(egress: &Egress, tagger: Tagger, key: &[u8; 16]) -> std::io::Result<Self> {
        let keeper = Keeper::start(Paths::new(egress, homes()), Some((tagger, Printer::new(key))))?;
        let readers = (Readers::new(&egress.known_benign_processes), egress.time_window);
        Ok(Self { known: keeper.known.clone(), readers: Arc::new(RwLock::new(readers)), _keeper: keeper })
    }

    /// What observed processes know of the sensitive files.
    #[must_use]
    pub fn memory(&self) -> Option<Arc<super::memory::Memory>> {
        self.known.memory()
    }

    /// Another configuration holds from now on.
    pub fn reconfigure(&self, egress: &Egress) {
        let readers = (Readers::new(&egress.known_benign_processes), egress.time_window);
        if let Ok(mut current) = self.readers.write() {
            *current = readers;
        }
        self.known.reconfigure(Paths::new(egress, homes()));
    }
}
