//! Merkle trees over a log: RFC 6962 (2013), 2.1, with SHA-256.
//!
//! ```text
//! leaf = SHA-256(00 || bytes)      node = SHA-256(01 || left || right)
//! ```
//!
//! Which hashes a proof holds, and whether one holds, is the library's to say; what is kept of a
//! tree that grows, so that nobody has to read all of it, is ours.

use ct_merkle::{
    ConsistencyProof, InclusionProof, RootHash, indices_for_consistency_proof,
    indices_for_inclusion_proof,
};

use super::digest::sha256;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    sha256(&[&[0], leaf])
}

fn parent_hash(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], left, right])
}

/// A tree by its size and root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// How many leaves it has.
    pub size: u64,
    /// The hash at its top; of an empty tree that of nothing.
    pub hash: Hash,
}

/// The right edge of a tree that grows: the roots of its complete subtrees, the largest first.
///
/// There is one for each bit of the size that is set, so never more than 64. It is all that has to
/// be kept to add a leaf and to tell the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// Takes an edge as it was kept; none if there are not as many hashes as the size asks for.
    #[must_use]
    pub fn new(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        let wanted = usize::try_from(size.count_ones()).ok()?;
        (peaks.len() == wanted).then_some(Self { size, peaks })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the complete subtrees, the largest first.
    #[must_use]
    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf by its hash. Gives the hashes of the subtrees that it closes: its own first,
    /// then that of each twice as large as the one before.
    pub fn push(&mut self, leaf: Hash) -> Vec<Hash> {
        let mut closed = vec![leaf];
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is a peak for each bit that is set");
            hash = parent_hash(&left, &hash);
            closed.push(hash);
        }
        self.peaks.push(hash);
        self.size += 1;
        closed
    }

    /// The tree as it stands.
    #[must_use]
    pub fn root(&self) -> Root {
        let mut peaks = self.peaks.iter().rev();
        let smallest = peaks.next().copied().unwrap_or_else(|| sha256(&[]));
        let hash = peaks.fold(smallest, |right, left| parent_hash(left, &right));
        Root { size: self.size, hash }
    }
}

/// A part of a tree: the leaves from `first` on, 2 to the power of `level` of them or, at the right
/// edge, as many as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The index of its first leaf, from 0.
    pub first: u64,
    /// Its height above the leaves.
    pub level: u32,
}

impl Part {
    /// The index after its last leaf, where it is complete.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.first.saturating_add(1 << self.level)
    }

    /// Reads the library's number of a node: in the array of a tree the leaf `i` stands at `2 i`,
    /// and a node between the leaves that it covers (RFC 9420, appendix C).
    const fn at(place: u64) -> Self {
        let level = place.trailing_ones();
        Self { first: (place + 1 - (1 << level)) / 2, level }
    }
}

/// The complete parts that make up the leaves from `first` to before `end`, the largest first,
/// where `first` is the beginning of a part that is as large.
#[must_use]
pub fn complete_parts(first: u64, end: u64) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut at = first;
    while let Some(level) = end.checked_sub(at).and_then(u64::checked_ilog2) {
        parts.push(Part { first: at, level });
        at += 1 << level;
    }
    parts
}

/// The most leaves that a proof can speak of: beyond them the library's numbers end.
const SIZE_MAX: u64 = 1 << 62;

/// The parts whose hashes prove that a leaf is in the tree of a size; none where there is no such
/// leaf.
#[must_use]
pub fn parts_for_inclusion(size: u64, index: u64) -> Option<Vec<Part>> {
    (index < size && size <= SIZE_MAX)
        .then(|| indices_for_inclusion_proof(size, index).into_iter().map(Part::at).collect())
}

/// The parts whose hashes prove that the tree of the size `second` begins with that of the size
/// `first`; none where it can not.
#[must_use]
pub fn parts_for_consistency(first: u64, second: u64) -> Option<Vec<Part>> {
    (1 <= first && first <= second && second <= SIZE_MAX).then(|| {
        indices_for_consistency_proof(first, second - first).into_iter().map(Part::at).collect()
    })
}

/// A proof that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold")]
pub struct ProofInvalid;

/// Verifies that a leaf is at an index of a tree (RFC 6962, 2.1.1).
pub fn verify_inclusion(
    root: &Root,
    leaf: &[u8],
    index: u64,
    proof: &[Hash],
) -> Result<(), ProofInvalid> {
    if root.size > SIZE_MAX {
        return Err(ProofInvalid);
    }
    let proof =
        InclusionProof::try_from_bytes(proof.as_flattened().to_vec()).map_err(|_| ProofInvalid)?;
    library_root(root).verify_inclusion(&leaf, index, &proof).map_err(|_| ProofInvalid)
}

/// Verifies that a tree begins with a smaller one (RFC 6962, 2.1.2).
pub fn verify_consistency(
    smaller: &Root,
    larger: &Root,
    proof: &[Hash],
) -> Result<(), ProofInvalid> {
    if larger.size > SIZE_MAX {
        return Err(ProofInvalid);
    }
    let proof = ConsistencyProof::try_from_bytes(proof.as_flattened().to_vec())
        .map_err(|_| ProofInvalid)?;
    library_root(larger)
        .verify_consistency(&library_root(smaller), &proof)
        .map_err(|_| ProofInvalid)
}

fn library_root(root: &Root) -> RootHash<sha2::Sha256> {
    RootHash::new(root.hash.into(), root.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree hash as RFC 6962, 2.1 defines it, from all leaves.
    fn tree_hash(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => leaf_hash(leaf),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                let (left, right) = leaves.split_at(split);
                parent_hash(&tree_hash(left), &tree_hash(right))
            }
        }
    }

    fn hash_of_part(leaves: &[Vec<u8>], part: Part) -> Hash {
        let end = usize::try_from(part.end()).unwrap().min(leaves.len());
        tree_hash(&leaves[usize::try_from(part.first).unwrap()..end])
    }

    fn leaves(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("leaf {number}").into_bytes()).collect()
    }

    #[test]
    fn agrees_with_published_roots() {
        // The leaves and roots of the reference tests of certificate-transparency's Merkle tree.
        let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"];
        let roots = [
            (0, "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"),
            (1, "6E340B9CFFB37A989CA544E6BB780A2C78901D3FB33738768511A30617AFA01D"),
            (2, "FAC54203E7CC696CF0DFCB42C92A1D9DBAF70AD9E621F4BD8D98662F00E3C125"),
            (3, "AEB6BCFE274B70A14FB067A5E5578264DB0FA9B51AF5E0BA159158F329E06E77"),
            (5, "4E3BBB1F7B478DCFE71FB631631519A3BCA12C9AEFCA1612BFCE4C13A86264D4"),
            (7, "DDB89BE403809E325750D3D263CD78929C2942B7942A34B77E122C9594A74C8C"),
        ];
        for (size, expected) in roots {
            let mut frontier = Frontier::default();
            for input in &inputs[..size] {
                let leaf = data_encoding::HEXLOWER_PERMISSIVE.decode(input.as_bytes()).unwrap();
                frontier.push(leaf_hash(&leaf));
            }
            let root = frontier.root();
            assert_eq!(data_encoding::HEXUPPER.encode(&root.hash), expected, "of {size}");
        }
    }

    #[test]
    fn an_edge_tells_the_root_and_closes_what_the_definition_says() {
        let leaves = leaves(70);
        let mut frontier = Frontier::default();
        for (index, leaf) in leaves.iter().enumerate() {
            let closed = frontier.push(leaf_hash(leaf));
            for (level, hash) in closed.iter().enumerate() {
                let first = index + 1 - (1 << level);
                assert_eq!(*hash, tree_hash(&leaves[first..=index]), "{index} at {level}");
            }
            assert_eq!(frontier.root().hash, tree_hash(&leaves[..=index]));
            let again = Frontier::new(frontier.size(), frontier.peaks().to_vec());
            assert_eq!(again.as_ref(), Some(&frontier));
            let parts = complete_parts(0, frontier.size());
            let peaks: Vec<Hash> =
                parts.into_iter().map(|part| hash_of_part(&leaves[..=index], part)).collect();
            assert_eq!(peaks, frontier.peaks());
        }
        assert_eq!(Frontier::new(3, vec![[0; 32]]), None);
    }

    #[test]
    fn proofs_hold_for_what_they_prove_and_for_nothing_else() {
        let leaves = leaves(37);
        let root = |size: usize| Root {
            size: u64::try_from(size).unwrap(),
            hash: tree_hash(&leaves[..size]),
        };
        for size in 1..=leaves.len() {
            let tree = root(size);
            let of = |parts: Vec<Part>| -> Vec<Hash> {
                parts.into_iter().map(|part| hash_of_part(&leaves[..size], part)).collect()
            };
            for (index, leaf) in leaves[..size].iter().enumerate() {
                let at = u64::try_from(index).unwrap();
                let proof = of(parts_for_inclusion(tree.size, at).unwrap());
                assert_eq!(verify_inclusion(&tree, leaf, at, &proof), Ok(()));
                assert!(verify_inclusion(&tree, b"other", at, &proof).is_err());
                let other = (index + 1) % size;
                if other != index {
                    let other = u64::try_from(other).unwrap();
                    assert!(verify_inclusion(&tree, leaf, other, &proof).is_err());
                }
                let longer = [proof.as_slice(), &[[0; 32]]].concat();
                assert!(verify_inclusion(&tree, leaf, at, &longer).is_err());
            }
            for first in 1..=size {
                let smaller = root(first);
                let proof = of(parts_for_consistency(smaller.size, tree.size).unwrap());
                assert_eq!(verify_consistency(&smaller, &tree, &proof), Ok(()));
                let forked = Root { hash: [7; 32], ..smaller };
                assert!(verify_consistency(&forked, &tree, &proof).is_err());
                assert!(
                    verify_consistency(&smaller, &Root { hash: [7; 32], ..tree }, &proof).is_err()
                );
            }
        }
        assert_eq!(parts_for_inclusion(3, 3), None);
        assert_eq!(parts_for_inclusion(u64::MAX, 3), None);
        assert_eq!(parts_for_consistency(0, 3), None);
        assert_eq!(parts_for_consistency(4, 3), None);
        let boundless = Root { size: u64::MAX, hash: [0; 32] };
        assert!(verify_inclusion(&boundless, b"", 0, &[]).is_err());
        assert!(verify_consistency(&boundless, &boundless, &[]).is_err());
    }
}
