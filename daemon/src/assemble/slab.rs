//! A table whose keys are never used twice: a key that outlived its entry finds nothing.

/// A key: generation and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    generation: u32,
    place: u32,
}

/// Entries by [`Key`].
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts an entry in.
    pub fn insert(&mut self, entry: T) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            (self.entries.len() - 1) as u32
        });
        let slot = &mut self.entries[place as usize];
        slot.0 = slot.0.wrapping_add(1);
        slot.1 = Some(Box::new(entry));
        Key { generation: slot.0, place }
    }

    /// The entry, if it is still there.
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.place as usize)? {
            (generation, Some(entry)) if *generation == key.generation => Some(entry),
            _ => None,
        }
    }

    /// The entry, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.place as usize)? {
            (generation, Some(entry)) if *generation == key.generation => Some(entry),
            _ => None,
        }
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.free.push(key.place);
        self.entries[key.place as usize].1.take().map(|entry| *entry)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All keys.
    pub fn keys(&self) -> Vec<Key> {
        let of = |(place, (generation, entry)): (usize, &(u32, Option<Box<T>>))| {
            entry.as_ref().map(|_| Key { generation: *generation, place: place as u32 })
        };
        self.entries.iter().enumerate().filter_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_dies_with_its_entry() {
        let mut slab = Slab::default();
        let a = slab.insert(1);
        assert_eq!(slab.remove(a), Some(1));
        let b = slab.insert(2);
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&2)));
        assert_eq!((slab.len(), slab.keys()), (1, vec![b]));
    }
}
