//! Places for what goes on at once: so many for each, so many for all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what goes on at once, for each of many and for all together.
///
/// Nobody waits for a place: who finds none is refused at once, so that no queue grows.
#[derive(Debug)]
pub struct Places<K: Eq + Hash + Clone> {
    each_max: usize,
    all_max: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    by_each: HashMap<K, usize>,
    all: usize,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// So many places for each, and for all together.
    #[must_use]
    pub fn new(each_max: usize, all_max: usize) -> Arc<Self> {
        let taken = Mutex::new(Taken { by_each: HashMap::new(), all: 0 });
        Arc::new(Self { each_max, all_max, taken })
    }

    /// Takes a place for somebody; none where there is none left.
    #[must_use]
    pub fn take(self: &Arc<Self>, who: K) -> Option<Place<K>> {
        let mut taken = self.taken();
        let by_one = taken.by_each.get(&who).copied().unwrap_or(0);
        if by_one >= self.each_max || taken.all >= self.all_max {
            return None;
        }
        taken.by_each.insert(who.clone(), by_one.saturating_add(1));
        taken.all = taken.all.saturating_add(1);
        Some(Place { places: Arc::clone(self), who })
    }

    /// How many places are taken.
    #[must_use]
    pub fn taken_by_all(&self) -> usize {
        self.taken().all
    }

    fn give_back(&self, who: &K) {
        let mut taken = self.taken();
        taken.all = taken.all.saturating_sub(1);
        match taken.by_each.get_mut(who) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            // Who has none is forgotten, so that many who come and go take up no memory.
            Some(_) | None => {
                taken.by_each.remove(who);
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash + Clone> {
    places: Arc<Places<K>>,
    who: K,
}

impl<K: Eq + Hash + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.give_back(&self.who);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_all_have_theirs() {
        let places = Places::new(2, 3);
        let first = places.take("a");
        let second = places.take("a");
        assert!(first.is_some() && second.is_some());
        assert!(places.take("a").is_none(), "a has its share");
        let other = places.take("b");
        assert!(other.is_some());
        assert!(places.take("c").is_none(), "there are none left");
        drop(first);
        assert!(places.take("c").is_some());
        assert_eq!(places.taken_by_all(), 2);
    }

    #[test]
    fn who_left_is_forgotten() {
        let places = Places::new(2, 2);
        for number in 0..1_000 {
            let held = [places.take(number), places.take(number)];
            assert!(held.iter().all(Option::is_some));
        }
        assert_eq!(places.taken_by_all(), 0);
        assert!(places.taken().by_each.is_empty());
    }
}
