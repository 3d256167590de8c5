//! Secret sharing: any m of n shares give the secret, fewer tell nothing of it.
//!
//! ```text
//! f_k(x)  = secret_k + a_1 x + .. + a_(m-1) x^(m-1)   in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1
//! share x = f_0(x) .. f_31(x)                         x = 1 .. n
//! ```
//!
//! Each octet of the secret has a polynomial of its own, with coefficients drawn from all 256. The
//! arithmetic has no table: what a table is asked for would tell the shares to a neighbour
//! (ATK-26, SEC-56). A share by itself carries no proof; the rooms above give it one.
//!
//! See Shamir, How to share a secret (1979).

use vsss_rs::Gf256;
use zeroize::Zeroizing;

use super::rng::{self, Rng, RngFailed};
use super::self_test::KnownAnswer;
use crate::memory::with_wiped_stack;

/// Octets of a secret, and of each share.
pub const SECRET_LEN_BYTES: usize = 32;
/// The most shares of one secret.
pub const SHARES_MAX: u8 = 16;
/// The fewest shares that give a secret: one alone would be the secret.
pub const THRESHOLD_MIN: u8 = 2;

/// Why a secret was not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The threshold is below two or above the number of shares, or these are more than 16.
    #[error("2 <= threshold <= shares <= 16 does not hold")]
    NumbersInvalid,
    /// The source of randomness failed.
    #[error(transparent)]
    Rng(#[from] RngFailed),
}

/// Shares that are too few, too many or two of one index, or an index that no share has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shares are too few or too many, or their indices can not be")]
pub struct SharesInvalid;

/// Splits a secret: the share of index i stands at place i - 1.
pub fn split(
    secret: &[u8; SECRET_LEN_BYTES],
    threshold: u8,
    shares: u8,
    rng: &dyn Rng,
) -> Result<Vec<Zeroizing<[u8; SECRET_LEN_BYTES]>>, SplitError> {
    if threshold < THRESHOLD_MIN || shares < threshold || shares > SHARES_MAX {
        return Err(SplitError::NumbersInvalid);
    }
    with_wiped_stack(|| {
        let (threshold, shares) = (usize::from(threshold), usize::from(shares));
        let split = rng::lend(rng, |source| Gf256::split_bytes(threshold, shares, secret, source))?;
        // The library checks the same numbers; it gives the index, and then the octets.
        let split = split.map_err(|_| SplitError::NumbersInvalid)?;
        let value = |share: &Vec<u8>| share.get(1..)?.try_into().ok().map(Zeroizing::new);
        split.iter().map(value).collect::<Option<_>>().ok_or(SplitError::NumbersInvalid)
    })
}

/// Combines shares, each with its index, into `secret`. Which are enough is not seen here: too few,
/// or one that is wrong, give another secret.
pub fn combine(
    shares: &[(u8, &[u8; SECRET_LEN_BYTES])],
    secret: &mut [u8; SECRET_LEN_BYTES],
) -> Result<(), SharesInvalid> {
    let indices: Vec<u8> = shares.iter().map(|(index, _)| *index).collect();
    let is_in_range = |index: &u8| (1..=SHARES_MAX).contains(index);
    let is_second = |place: usize| indices[..place].contains(&indices[place]);
    if indices.len() < usize::from(THRESHOLD_MIN)
        || !indices.iter().all(is_in_range)
        || (0..indices.len()).any(is_second)
    {
        return Err(SharesInvalid);
    }
    with_wiped_stack(|| {
        let shares = shares.iter().map(|(index, value)| [&[*index][..], &value[..]].concat());
        let shares = Zeroizing::new(shares.collect::<Vec<Vec<u8>>>());
        let combined = Gf256::combine_bytes(&*shares).map(Zeroizing::new);
        let combined = combined.map_err(|_| SharesInvalid)?;
        secret.copy_from_slice(combined.get(..SECRET_LEN_BYTES).ok_or(SharesInvalid)?);
        Ok(())
    })
}

/// The known answer: a secret out of two of its shares, and the shares out of the secret.
pub const KNOWN_ANSWERS: [KnownAnswer; 1] = [
    // FIPS 197, 4.2.1: {57} times {02} is {ae}, times {10} is {07}. With {57} as each slope the
    // share of index 2 is the secret plus {ae}, and that of index 16 the secret plus {07}.
    KnownAnswer {
        algorithm: "secret sharing",
        expected: "000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F",
        holds,
    },
];

fn holds(expected: &[u8]) -> Option<bool> {
    let mut known = [0; SECRET_LEN_BYTES];
    known.iter_mut().zip(0..).for_each(|(octet, place)| *octet = place);
    let (second, last) = (known.map(|octet| octet ^ 0xae), known.map(|octet| octet ^ 0x07));
    let mut secret = [0; SECRET_LEN_BYTES];
    combine(&[(2, &second), (16, &last)], &mut secret).ok()?;
    let shares = split(&secret, 2, 16, &Slope(0x57)).ok()?;
    Some(secret == expected && *shares[1] == second && *shares[15] == last)
}

/// A source that gives one octet for ever.
struct Slope(u8);

impl Rng for Slope {
    fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
        out.fill(self.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::crypto::digest::sha256;
    use crate::crypto::self_test::expect_each_to_bite;

    /// A source that gives the same stream in each run, so that no test fails by chance.
    #[derive(Default)]
    struct Stream(AtomicU32);

    impl Rng for Stream {
        fn fill(&self, out: &mut [u8]) -> Result<(), RngFailed> {
            for chunk in out.chunks_mut(32) {
                let count = self.0.fetch_add(1, Ordering::Relaxed);
                chunk.copy_from_slice(&sha256(&[&count.to_be_bytes()])[..chunk.len()]);
            }
            Ok(())
        }
    }

    struct Silent;

    impl Rng for Silent {
        fn fill(&self, _: &mut [u8]) -> Result<(), RngFailed> {
            Err(RngFailed)
        }
    }

    fn secret() -> [u8; 32] {
        sha256(&[b"secret"])
    }

    fn combined(shares: &[(u8, &[u8; 32])]) -> Result<[u8; 32], SharesInvalid> {
        let mut secret = [0; 32];
        combine(shares, &mut secret).map(|()| secret)
    }

    /// Shares of one split, chosen by the bits of a mask, with their indices.
    fn chosen(shares: &[Zeroizing<[u8; 32]>], mask: u32) -> Vec<(u8, &[u8; 32])> {
        let indexed = (1..).zip(shares).filter(|(index, _)| mask >> (index - 1) & 1 == 1);
        indexed.map(|(index, value)| (index, &**value)).collect()
    }

    /// Multiplication as FIPS 197, 4.2, has it: the product of polynomials, then the remainder.
    fn times(a: u8, b: u8) -> u8 {
        let product = (0..8)
            .filter(|bit| b >> bit & 1 == 1)
            .fold(0_u16, |product, bit| product ^ u16::from(a) << bit);
        let remainder = (8..16).rev().fold(product, |rest, bit| {
            if rest >> bit & 1 == 1 { rest ^ 0x11b << (bit - 8) } else { rest }
        });
        u8::try_from(remainder).unwrap()
    }

    fn inverse(a: u8) -> u8 {
        (1..=u8::MAX).find(|b| times(a, *b) == 1).unwrap()
    }

    /// Interpolation at zero, written anew for this test.
    fn combined_anew(shares: &[(u8, &[u8; 32])]) -> [u8; 32] {
        let mut secret = [0; 32];
        for (index, value) in shares {
            let others = shares.iter().map(|(other, _)| *other).filter(|other| other != index);
            let weight = others.fold(1, |weight, x| times(weight, times(x, inverse(x ^ index))));
            secret.iter_mut().zip(*value).for_each(|(sum, octet)| *sum ^= times(weight, *octet));
        }
        secret
    }

    #[test]
    fn every_answer_is_right_and_every_bit_of_it_counts() {
        expect_each_to_bite(&KNOWN_ANSWERS);
    }

    #[test]
    fn every_set_of_enough_shares_gives_the_secret_and_none_of_fewer() {
        let rng = Stream::default();
        for shares in 2..=6 {
            for threshold in 2..=shares {
                let split = split(&secret(), threshold, shares, &rng).unwrap();
                assert_eq!(split.len(), usize::from(shares));
                for mask in 0..1_u32 << shares {
                    let chosen = chosen(&split, mask);
                    if mask.count_ones() < 2 {
                        assert_eq!(combined(&chosen), Err(SharesInvalid));
                        continue;
                    }
                    let is_enough = mask.count_ones() >= u32::from(threshold);
                    let combined = combined(&chosen).unwrap();
                    assert_eq!(combined == secret(), is_enough, "{mask:b} of {threshold}");
                    assert_eq!(combined, combined_anew(&chosen));
                }
            }
        }
        let split = split(&secret(), 16, 16, &rng).unwrap();
        assert_eq!(combined(&chosen(&split, 0xffff)), Ok(secret()));
        assert_ne!(combined(&chosen(&split, 0xfffe)), Ok(secret()));
    }

    #[test]
    fn the_order_of_the_shares_is_nothing() {
        let split = split(&secret(), 3, 5, &Stream::default()).unwrap();
        for [a, b, c] in [[0, 2, 4], [4, 2, 0], [2, 0, 4], [4, 0, 2]] {
            let shares = [a, b, c].map(|at: u8| (at + 1, &*split[usize::from(at)]));
            assert_eq!(combined(&shares), Ok(secret()));
        }
    }

    /// Chi-square over the 256 octets: 255 degrees of freedom, so 255 with a deviation of 23.
    fn expect_uniform(counts: &[u32; 256], what: &str) {
        let expected = f64::from(counts.iter().sum::<u32>()) / 256.0;
        let square = |count: &u32| (f64::from(*count) - expected).powi(2) / expected;
        let chi_square: f64 = counts.iter().map(square).sum();
        assert!((165.0..345.0).contains(&chi_square), "{what}: {chi_square}");
    }

    #[test]
    fn one_share_too_few_tells_nothing_of_the_secret() {
        let rng = Stream::default();
        let (mut guessed, mut shown) = ([0_u32; 256], [0_u32; 256]);
        for _ in 0..2_000 {
            // A secret of zeros would show through any coefficient that is not from all 256.
            let split = split(&[0; 32], 3, 5, &rng).unwrap();
            let guess = combined(&[(2, &split[1]), (5, &split[4])]).unwrap();
            for (guess, share) in guess.iter().zip(&*split[0]) {
                guessed[usize::from(*guess)] += 1;
                shown[usize::from(*share)] += 1;
            }
        }
        expect_uniform(&guessed, "two of three shares");
        expect_uniform(&shown, "one share");
    }

    /// Welch's t between how long something takes over zeros and over what is drawn. The slowest
    /// tenth is left out: somebody else had a turn there.
    #[allow(clippy::disallowed_methods, reason = "a measurement is of the time that goes by")]
    fn welch_t(rounds: u32, act: impl Fn(&[[u8; 32]; 3])) -> f64 {
        let rng = Stream::default();
        let measure = |_| {
            let mut drawn = [[0; 32]; 4];
            for value in &mut drawn {
                rng.fill(value).unwrap();
            }
            let [input @ .., [choice, ..]] = drawn;
            // Without a branch, which would be measured with what comes after it.
            let mask = (choice & 1).wrapping_neg();
            let input = black_box(input.map(|value| value.map(|octet| octet & mask)));
            let begun = Instant::now();
            act(&input);
            let took = begun.elapsed().as_nanos();
            (choice & 1, f64::from(u32::try_from(took).unwrap_or(u32::MAX)))
        };
        let mut times: Vec<(u8, f64)> = (0..rounds).map(measure).collect();
        times.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        times.truncate(times.len() / 10 * 9);
        let [zeros, drawn] = [0, 1].map(|of| {
            let times = times.iter().filter(|(choice, _)| *choice == of).map(|(_, time)| *time);
            let count: f64 = times.clone().map(|_| 1.0).sum();
            let mean = times.clone().sum::<f64>() / count;
            let variance = times.map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
            (mean, variance / count)
        });
        (zeros.0 - drawn.0) / (zeros.1 + drawn.1).sqrt()
    }

    #[test]
    fn the_time_that_it_takes_tells_nothing_of_a_secret_or_its_shares() {
        // The control: a product that leaves out what is zero.
        let naive = |[a, b, c]: &[[u8; 32]; 3]| {
            let weighted = [(1, a), (2, b), (3, c)].map(|(w, value)| value.map(|y| times(w, y)));
            black_box(weighted);
        };
        assert!((0..5).any(|_| welch_t(2_000, naive).abs() > 10.0), "the control");
        let rng = Stream::default();
        let combines = |[a, b, c]: &[[u8; 32]; 3]| {
            black_box(combined(&[(1, a), (3, b), (4, c)]).unwrap());
        };
        let splits = |[secret, ..]: &[[u8; 32]; 3]| {
            black_box(split(secret, 3, 5, &rng).unwrap());
        };
        // Above 4.5 comes by chance once in 100,000 times. A busy machine is tried again; what
        // leaks does so each time.
        let is_silent =
            |act: &dyn Fn(&[[u8; 32]; 3])| (0..5).any(|_| welch_t(10_000, act).abs() < 4.5);
        assert!(is_silent(&combines), "combine");
        assert!(is_silent(&splits), "split");
    }

    #[test]
    fn numbers_that_can_not_be_are_refused() {
        for (threshold, shares) in [(0, 0), (1, 1), (1, 5), (0, 5), (6, 5), (2, 17), (255, 255)] {
            let refused = split(&secret(), threshold, shares, &Stream::default());
            assert_eq!(refused.unwrap_err(), SplitError::NumbersInvalid, "{threshold} {shares}");
        }
        let refused = split(&secret(), 2, 2, &Silent);
        assert_eq!(refused.unwrap_err(), SplitError::Rng(RngFailed));
        let value = &[1; 32];
        for indices in [&[0, 1][..], &[1, 1], &[1, 2, 1], &[3, 17], &[1, 255], &[1], &[]] {
            let shares: Vec<_> = indices.iter().map(|index| (*index, value)).collect();
            assert_eq!(combined(&shares), Err(SharesInvalid), "{indices:?}");
        }
    }
}
