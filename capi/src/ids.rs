//! Ids of chains, as C has them.

use httpstream::ChainId;

/// Between an engine's ids and C's. The engine's own are small numbers, the same ones in each
/// engine; here those of different engines differ, so that one which is handed to the wrong engine
/// ends nobody else's chain: it is taken for one that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    /// Of 31 bits, since the uppermost is set in no id that C gets: so none becomes 0. Two engines
    /// mistake an id for one of their own once in 2³¹ times.
    key: u64,
}

impl Ids {
    pub(crate) fn of_engine(number: u64) -> Self {
        // Fibonacci hashing: neighbours lie far apart.
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33 << 32;
        Self { key }
    }

    /// 0 is none.
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
                // Of what generation the slot would have to be.
                assert!(there.to_u64() >> 32 > 100, "{a} {b}");
            }
        }
    }
}
