//! Counts transaction counters: which have few enough one bits, and the how-manieth each is.
//!
//! A DUKPT counter may have only so many one bits, so that each derivation ends after as many
//! steps. Genuine terminals therefore skip values, and a distance between two counters means
//! something only when it is counted in valid ones. With `S(b, w)` the number of `b`-bit values
//! of at most `w` one bits,
//!
//! ```text
//! rank(c) = S(i, w - ones above i), summed over the set bits i of c
//!           + 1 if c is valid itself - 1 for zero, which is no counter
//! ```

/// The counters of one DUKPT family: their width and how many one bits they may have.
#[derive(Clone, Copy)]
pub(super) struct CounterSet {
    bits: usize,
    weight_max: usize,
}

impl CounterSet {
    pub(super) const fn new(bits: usize, weight_max: usize) -> Self {
        Self { bits, weight_max }
    }

    /// How many valid counters there are.
    pub(super) const fn rank_max(self) -> u64 {
        at_most(self.bits, Some(self.weight_max)) - 1
    }

    /// How many valid counters are not above `counter`; a valid counter's own place, from 1.
    pub(super) fn rank(self, counter: u32) -> u64 {
        let mut below = 0;
        let mut weight_left = Some(self.weight_max);
        for bit in (0..self.bits).rev() {
            if (counter >> bit) & 1 == 1 {
                below += at_most(bit, weight_left);
                weight_left = weight_left.and_then(|weight| weight.checked_sub(1));
            }
        }
        // `below` counts from zero, which is no counter; the value itself was not counted yet.
        below + u64::from(weight_left.is_some()) - 1
    }

    /// The valid counter of that rank, from 1; nothing outside of `1..=rank_max`.
    pub(super) fn counter_at(self, rank: u64) -> Option<u32> {
        if rank == 0 || rank > self.rank_max() {
            return None;
        }
        let mut left = rank;
        let mut counter = 0;
        let mut weight_left = Some(self.weight_max);
        for bit in (0..self.bits).rev() {
            let below = at_most(bit, weight_left);
            if left >= below {
                left -= below;
                counter |= 1_u32 << bit;
                weight_left = weight_left.and_then(|weight| weight.checked_sub(1));
            }
        }
        Some(counter)
    }
}

/// `S(bits, weight)`; none where even zero one bits would be too many.
const fn at_most(bits: usize, weight: Option<usize>) -> u64 {
    match weight {
        Some(weight) => AT_MOST[bits][weight],
        None => 0,
    }
}

const BITS_MAX: usize = 32;

/// `S` for every width and weight, by `S(b, w) = S(b - 1, w) + S(b - 1, w - 1)`: the highest bit
/// is zero or it is one.
const AT_MOST: [[u64; BITS_MAX + 1]; BITS_MAX + 1] = {
    let mut table = [[1; BITS_MAX + 1]; BITS_MAX + 1];
    let mut bits = 1;
    while bits <= BITS_MAX {
        let mut weight = 1;
        while weight <= BITS_MAX {
            table[bits][weight] = table[bits - 1][weight] + table[bits - 1][weight - 1];
            weight += 1;
        }
        bits += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    const TDES: CounterSet = CounterSet::new(21, 10);
    const AES: CounterSet = CounterSet::new(32, 16);

    #[test]
    fn the_ranks_of_all_tdes_counters_are_what_counting_gives() {
        let mut counted = 0;
        for counter in 1..1_u32 << 21 {
            let valid = counter.count_ones() <= 10;
            counted += u64::from(valid);
            assert_eq!(TDES.rank(counter), counted, "{counter:06X}");
            if valid {
                assert_eq!(TDES.counter_at(counted), Some(counter));
            }
        }
        assert_eq!(counted, 1_048_575);
        assert_eq!(TDES.rank_max(), 1_048_575);
    }

    #[test]
    fn the_number_of_aes_counters_is_that_of_the_standard() {
        assert_eq!(AES.rank_max(), 2_448_023_842);
        assert_eq!(AES.rank(0xFFFF_0000), AES.rank_max());
        assert_eq!(AES.rank(0xFFFF_FFFF), AES.rank_max());
        assert_eq!(AES.counter_at(AES.rank_max()), Some(0xFFFF_0000));
    }

    #[test]
    fn aes_ranks_are_exact_at_boundaries_and_in_samples() {
        for counter in 1..0x2_0000_u32 {
            let expected = if counter < 0x1_FFFF { u64::from(counter) } else { 0x1_FFFE };
            assert_eq!(AES.rank(counter), expected, "{counter:08X}");
        }
        assert_eq!(AES.counter_at(0x1_FFFE), Some(0x1_FFFE));
        assert_eq!(AES.counter_at(0x1_FFFF), Some(0x2_0000));
        let mut rank = 1;
        while rank <= AES.rank_max() {
            let counter = AES.counter_at(rank).expect("the rank is within the set");
            assert!(counter.count_ones() <= 16);
            assert_eq!(AES.rank(counter), rank);
            rank += 7_919;
        }
    }

    #[test]
    fn ranks_outside_the_set_name_no_counter() {
        for set in [TDES, AES] {
            assert_eq!(set.counter_at(0), None);
            assert_eq!(set.counter_at(set.rank_max() + 1), None);
            assert_eq!(set.rank(0), 0);
        }
    }
}
