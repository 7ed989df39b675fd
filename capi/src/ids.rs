//! Ids of chains, as C sees them.

use httpstream::ChainId;

/// Converts between the ids of an engine and those given to C. The engine's own are small numbers,
/// the same in every engine. The ids given to C differ between engines, so passing one to the wrong
/// engine does not end another chain there: that engine treats it as the id of a chain that has
/// ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    /// The key has 31 bits: the uppermost bit is clear in every id that C gets, so adding 1 never
    /// wraps to 0. The chance that two engines share a key, and so accept each other's ids, is 1 in
    /// 2³¹.
    key: u64,
}

impl Ids {
    pub(crate) fn of_engine(number: u64) -> Self {
        // Fibonacci hashing: consecutive numbers get keys far apart.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 << 32;
        Self { key }
    }

    /// Returns the id given to C, which is never 0.
    pub(crate) fn to_c(self, id: ChainId) -> u64 {
        (id.to_u64() ^ self.key).wrapping_add(1)
    }

    pub(crate) fn of_c(self, id: u64) -> ChainId {
        ChainId::from_u64(id.wrapping_sub(1) ^ self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_and_none_is_0() {
        for ids in (1..1000).map(Ids::of_engine) {
            for number in [0, 1, 7 << 32, u64::MAX >> 1] {
                let id = ChainId::from_u64(number);
                assert_ne!(ids.to_c(id), 0);
                assert_eq!(ids.of_c(ids.to_c(id)), id);
            }
        }
    }

    #[test]
    fn ids_of_one_engine_are_none_of_anothers() {
        for a in 1..200 {
            for b in (1..200).filter(|b| *b != a) {
                let there = Ids::of_engine(b).of_c(Ids::of_engine(a).to_c(ChainId::from_u64(0)));
                // The upper half is the generation that the slot would need.
                assert!(there.to_u64() >> 32 > 100, "{a} {b}");
            }
        }
    }
}
