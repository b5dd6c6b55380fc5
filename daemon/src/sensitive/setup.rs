//! What the trail goes by, as configured; shared by the core and by who reads the configuration again.
#![forbid(unsafe_code)]

use super::index::Printer;
use super::known::{Keeper, Known};
use super::memory::Memory;
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
    /// Looks for the sensitive files, and goes on with that. `memory`: where programs are told which they are.
    ///
    /// # Errors
    /// No thread.
    pub fn start(
        egress: &Egress,
        tagger: Tagger,
        key: &[u8; 16],
        memory: Option<Arc<Memory>>,
    ) -> std::io::Result<Self> {
        let keeper = Keeper::start(Paths::new(egress, homes()), Some((tagger, Printer::new(key))), memory)?;
        let readers = (Readers::new(&egress.known_benign_processes), egress.time_window);
        Ok(Self { known: keeper.known.clone(), readers: Arc::new(RwLock::new(readers)), _keeper: keeper })
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
