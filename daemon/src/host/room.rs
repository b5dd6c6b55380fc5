//! Room for arenas: how many there may be, and how many of one user.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Shared between `listen`, which takes room, and the core, which gives it back.
#[derive(Clone)]
pub struct Room {
    limit: usize,
    /// Users that may take all of it: root and the daemon's own.
    free: [u32; 2],
    taken: Arc<Mutex<(usize, HashMap<u32, usize>)>>,
}

impl Room {
    /// For so many arenas.
    pub fn new(limit: usize) -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self { limit, free: [0, own], taken: Arc::default() }
    }

    /// Takes room for one arena of a user: one user alone gets at most half.
    pub fn take(&self, uid: u32) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.1.get(&uid).copied().unwrap_or(0);
        if taken.0 >= self.limit || (own >= self.limit / 2 && !self.free.contains(&uid)) {
            return false;
        }
        taken.0 += 1;
        *taken.1.entry(uid).or_default() += 1;
        true
    }

    /// Gives it back.
    pub fn give(&self, uid: u32) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.0 = taken.0.saturating_sub(1);
        if let Some(own) = taken.1.get_mut(&uid) {
            *own -= 1;
            if *own == 0 {
                taken.1.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_it_all() {
        let mut room = Room::new(4);
        room.free = [0, 0];
        assert!(room.take(7) && room.take(7));
        assert!(!room.take(7));
        assert!(room.take(0) && room.take(8));
        assert!(!room.take(0), "full");
        room.give(7);
        assert!(room.take(0));
    }
}
