//! The future-key registers of a DUKPT terminal.

use std::fmt;

use crate::key::Material;

/// What tells the two families of DUKPT apart, seen from the registers.
pub(super) trait Family {
    /// How many registers there are: the bits of the transaction counter.
    const REGISTERS: u8;
    /// The most one bits that a counter of this family has.
    const WEIGHT_MAX: u32;

    /// Derives, from the key of a counter, the key of a counter that has one more bit.
    fn child(&self, parent: &Material, counter: u32) -> Material;
}

/// The keys of the counters to come, each erased as it is used.
///
/// Register *i* holds the key of the next counter whose lowest one bit is bit *i*. When a key is
/// taken, the keys of all counters below it in the tree are derived first; then it is gone. From
/// what a terminal holds, therefore, no key of an earlier transaction can be computed.
///
/// ```text
/// counter 011000   its key stands in register 3, for bit 3 is its lowest one bit
///         011001   before that is erased, the keys of these three are derived from it
///         011010   and put into registers 0, 1 and 2
///         011100
/// ```
///
/// Counters with more one bits than the family allows are skipped: a key of the greatest weight
/// has no keys below it, and the counter moves on by its lowest one bit.
///
/// See ANSI X9.24-1:2009, A.2, and ANSI X9.24-3:2017, 6.4.
pub(super) struct Registers<F: Family> {
    family: F,
    /// The counter of the next transaction; one beyond the last when all are used.
    next: u64,
    keys: Vec<Option<Material>>,
}

/// Every counter of the initial key was used: the terminal needs a new one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the transaction counter of the initial key is exhausted")]
pub struct CountersExhausted;

impl<F: Family> Registers<F> {
    /// Fills the registers from an initial key, which is not kept.
    pub(super) fn load(family: F, initial_key: &Material) -> Self {
        let keys = (0..F::REGISTERS).map(|bit| Some(family.child(initial_key, 1 << bit)));
        let keys = keys.collect();
        Self { family, next: 1, keys }
    }

    /// Takes registers that a device kept while it was switched off.
    pub(super) fn resume(family: F, next: u64, keys: Vec<Option<Material>>) -> Option<Self> {
        let fits = keys.len() == usize::from(F::REGISTERS) && next > 0 && next <= Self::END;
        let resumed = Self { family, next, keys };
        // A counter to come without its key is no state that a terminal can be in.
        let whole = resumed.peek().is_err()
            || resumed.keys.get(resumed.lowest_bit()).is_some_and(Option::is_some);
        (fits && whole).then_some(resumed)
    }

    /// The family.
    pub(super) fn family(&self) -> &F {
        &self.family
    }

    /// The counter of the next transaction, as it is kept.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The registers, to be kept.
    pub(super) fn keys(&self) -> &[Option<Material>] {
        &self.keys
    }

    /// The counter of the next transaction.
    pub(super) fn peek(&self) -> Result<u32, CountersExhausted> {
        let usable = (1..Self::END).contains(&self.next);
        u32::try_from(self.next).ok().filter(|_| usable).ok_or(CountersExhausted)
    }

    /// Takes the key of the next transaction out of its register and moves on.
    pub(super) fn take(&mut self) -> Result<(u32, Material), CountersExhausted> {
        let counter = self.peek()?;
        let lowest = self.lowest_bit();
        let key = self.keys.get_mut(lowest).and_then(Option::take).ok_or(CountersExhausted)?;
        if counter.count_ones() < F::WEIGHT_MAX {
            for (bit, register) in self.keys.iter_mut().take(lowest).enumerate() {
                *register = Some(self.family.child(&key, counter | 1 << bit));
            }
            self.next += 1;
        } else {
            self.next += 1 << lowest;
        }
        Ok((counter, key))
    }

    /// The key of the counter that has all bits set, beyond every transaction's.
    ///
    /// The way there sets one bit after the other, from the highest down. The first counter on it
    /// that is not used up is the next one with that lowest bit: its key stands in its register.
    pub(super) fn beyond_all(&self) -> Result<Material, CountersExhausted> {
        let next = self.peek()?;
        let mut reached = 0;
        let mut key: Option<Material> = None;
        for (bit, register) in self.keys.iter().enumerate().rev() {
            reached |= 1 << bit;
            key = match (key, register) {
                (Some(key), _) => Some(self.family.child(&key, reached)),
                (None, _) if reached < next => None,
                (None, Some(held)) => Some(Material::copied_from(held.expose_bytes())),
                (None, None) => return Err(CountersExhausted),
            };
        }
        key.ok_or(CountersExhausted)
    }

    /// One beyond the greatest counter.
    const END: u64 = 1 << F::REGISTERS;

    fn lowest_bit(&self) -> usize {
        usize::try_from(self.next.trailing_zeros()).expect("at most 64")
    }
}

impl<F: Family> fmt::Debug for Registers<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Registers(next {:X})", self.next)
    }
}
