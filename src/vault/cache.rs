//! Records that the vault keeps at hand, with what is under way on each of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::{Record, Versioned};

/// Records kept at hand. When there are more, those on which nothing is under way are let go.
const RECORDS_MAX: usize = 50_000;

/// Records by id under one lock, which is never held across an await.
pub(super) struct Cache<R, F> {
    slots: Mutex<HashMap<String, Slot<R, F>>>,
}

/// One record and what is under way on it.
pub(super) struct Slot<R, F> {
    /// As it was last seen in the store; none after a doubt.
    pub(super) seen: Option<Versioned<R>>,
    /// What is under way.
    pub(super) under_way: F,
}

/// What can be under way on a record.
pub(super) trait UnderWay: Default {
    /// Tells whether it is nothing.
    fn is_nothing(&self) -> bool;
}

impl<R: Record + Clone, F: UnderWay> Cache<R, F> {
    pub(super) fn new() -> Self {
        Self { slots: Mutex::new(HashMap::new()) }
    }

    /// Does something with a slot, if its record is at hand.
    pub(super) fn with_seen<T>(
        &self,
        id: &str,
        use_slot: impl FnOnce(&Versioned<R>, &mut F) -> T,
    ) -> Option<T> {
        let mut slots = self.slots();
        let slot = slots.get_mut(id)?;
        let seen = slot.seen.as_ref()?;
        Some(use_slot(seen, &mut slot.under_way))
    }

    /// Takes back something that was under way.
    pub(super) fn release(&self, id: &str, release: impl FnOnce(&mut F)) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(id) {
            release(&mut slot.under_way);
        }
    }

    /// Keeps a record that was read, unless another reader was first.
    pub(super) fn keep_read(&self, record: Versioned<R>) {
        let mut slots = self.slots();
        if slots.len() >= RECORDS_MAX {
            slots.retain(|_, slot| !slot.under_way.is_nothing());
        }
        let slot = slots
            .entry(record.record.id())
            .or_insert_with(|| Slot { seen: None, under_way: F::default() });
        slot.seen.get_or_insert(record);
    }

    /// Replaces a record by what was just committed.
    pub(super) fn replace(&self, record: Versioned<R>) {
        if let Some(slot) = self.slots().get_mut(&record.record.id()) {
            slot.seen = Some(record);
        }
    }

    /// Lets go of a record about which there is doubt; what is under way on it stays.
    pub(super) fn doubt(&self, id: &str) {
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(id) {
            slot.seen = None;
        }
    }

    /// Slots are changed whole, so what a panicking thread leaves behind is still consistent.
    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot<R, F>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
