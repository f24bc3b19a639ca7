//! Seeded chance: a failing run prints its seed, and the seed replays it.

/// A small generator (SplitMix64); good enough to choose instants and subsets.
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The seed in `EDGEREC_SEED`, else a fresh one; printed either way.
    pub fn from_env(what: &str) -> Chance {
        let seed = match std::env::var("EDGEREC_SEED") {
            Ok(text) => text.parse().expect("EDGEREC_SEED is a number"),
            Err(_) => getrandom::u64().expect("the system has random bytes"),
        };
        println!("{what}: EDGEREC_SEED={seed}");
        Chance::new(seed)
    }

    /// A generator that always gives the same numbers for the same seed.
    pub fn new(seed: u64) -> Chance {
        Chance { state: seed }
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}
