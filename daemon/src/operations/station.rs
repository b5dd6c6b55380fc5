//! The station: intakes and [`Operations`] as `desk` has them, with the clock.
//!
//! Comes in: a configuration. Goes out: channels for the desk to wait at, and outcomes.
#![forbid(unsafe_code)]

use super::{Operations, Outcome};
use crate::config::Config;
use crate::intake::{self, Batch, Intakes};
use crossbeam::channel::{Receiver, never, tick};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often delays are looked at, and our own variables sampled.
const TICK: Duration = Duration::from_millis(250);

/// See the module's text.
pub struct Station {
    /// What the intakes and the stages say is made findings here.
    pub operations: Operations,
    /// What comes in.
    pub batches: Receiver<Batch>,
    /// Time to call [`Operations::tick`].
    pub clock: Receiver<Instant>,
    intakes: Option<Intakes>,
    settings: Config,
    key: Option<[u8; 16]>,
    /// Up to where each intake was read.
    places: HashMap<String, String>,
}

impl Station {
    /// Starts what is configured; mostly nothing. `recalled` is what [`intake::KIND`] has in the ledger.
    ///
    /// # Errors
    /// A thread can't be started.
    pub fn open(config: &Config, recalled: Vec<(String, String)>) -> std::io::Result<Self> {
        let operations = Operations::new(config);
        let clock = if operations.ticks() { tick(TICK) } else { never() };
        let places = recalled.iter().cloned().collect();
        let intakes = match config.intakes.is_empty() {
            true => None,
            false => Some(Intakes::start(&config.intakes, recalled)?),
        };
        let batches = intakes.as_ref().map_or_else(never, Intakes::batches);
        Ok(Self { operations, batches, clock, intakes, settings: config.clone(), key: None, places })
    }

    /// What messages are fingerprinted with.
    pub fn keyed(&mut self, key: [u8; 16]) {
        self.key = Some(key);
        self.operations.keyed(key);
    }

    /// The key, for the station that follows.
    #[must_use]
    pub fn key(&self) -> Option<[u8; 16]> {
        self.key
    }

    /// All that a batch means.
    pub fn take(&mut self, batch: &mut Batch) -> Vec<Outcome> {
        if let Some(place) = &batch.place {
            self.places.extend(place.json.clone().map(|json| (place.key.clone(), json)));
        }
        let from = batch.from.clone();
        batch.words.drain(..).flat_map(|word| self.operations.take(&from, word)).collect()
    }

    /// Up to where each intake was read.
    #[must_use]
    pub fn places(&self) -> Vec<(String, String)> {
        self.places.iter().map(|(name, json)| (name.clone(), json.clone())).collect()
    }

    /// A configuration that concerns none of this.
    #[must_use]
    pub fn is_as(&self, config: &Config) -> bool {
        let old = &self.settings;
        (&old.intakes, &old.limits, &old.carriers) == (&config.intakes, &config.limits, &config.carriers)
    }

    /// Ends the intakes. What they had handed over by then is left for the desk.
    pub fn finish(&mut self) -> Vec<Batch> {
        if let Some(intakes) = self.intakes.take() {
            intakes.finish();
        }
        self.batches.try_iter().collect()
    }

    /// What positions are kept under.
    pub const KIND: &'static str = intake::KIND;
}
