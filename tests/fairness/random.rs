//! Random numbers that are the same on every machine, with the distributions that loads are made of.

use std::f64::consts::TAU;

/// `SplitMix64` (Steele, Lea and Flood, 2014).
pub(crate) struct Random(u64);

impl Random {
    /// Those of one client in one run.
    pub(crate) fn new(seed: u64, stream: usize) -> Self {
        let mut mixed = Self(seed.wrapping_mul(0xD134_2543_DE82_EF95) ^ u64::try_from(stream).unwrap());
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        let high = u32::try_from(self.next() >> 32).unwrap();
        (f64::from(high) + 0.5) / 4_294_967_296.0
    }

    pub(crate) fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(most).unwrap()).unwrap()
    }

    /// The time to the next of those that come independently of each other.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    /// With this mean; `sigma` is the deviation of its logarithm.
    pub(crate) fn log_normal(&mut self, mean: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (TAU * self.unit()).cos();
        mean * (sigma * normal - sigma * sigma / 2.0).exp()
    }
}

#[test]
fn draws_have_the_mean_that_they_are_asked_for() {
    let mut random = Random::new(1, 0);
    let mut mean =
        |draw: fn(&mut Random) -> f64| (0..20_000).map(|_| draw(&mut random)).sum::<f64>() / 20_000.0;
    let means = [mean(Random::unit), mean(|it| it.exponential(3.0)), mean(|it| it.log_normal(5.0, 0.8))];
    let near = means.iter().zip([0.5, 3.0, 5.0]).all(|(mean, wanted)| (mean / wanted - 1.0).abs() < 0.03);
    assert!(near, "{means:?}");
}
