//! Fault scripts: what goes wrong with which request. Deterministic: a decision depends on the script and the request's number only.

use crate::Random;

#[derive(Debug, Clone, Copy)]
enum When {
    At(u64),
    From(u64),
    Every(u64),
}

/// Decides, for each request in the order in which a device takes them, what goes wrong; `F` is what can. An endless iterator of decisions.
#[derive(Debug, Clone)]
pub struct Script<F> {
    rules: Vec<(When, F)>,
    chance: Option<(Random, u8, Vec<F>)>,
    next: u64,
}

impl<F> Default for Script<F> {
    fn default() -> Self {
        Self { rules: Vec::new(), chance: None, next: 0 }
    }
}

impl<F: Copy> Script<F> {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a fault at request `number`, counted from 0.
    #[must_use]
    pub fn at(mut self, number: u64, fault: F) -> Self {
        self.rules.push((When::At(number), fault));
        self
    }

    /// Adds a fault at request `number` and all after it.
    #[must_use]
    pub fn from(mut self, number: u64, fault: F) -> Self {
        self.rules.push((When::From(number), fault));
        self
    }

    /// Adds a fault at every `step`-th request: number `step - 1` first.
    #[must_use]
    pub fn every(mut self, step: u64, fault: F) -> Self {
        self.rules.push((When::Every(step.max(1)), fault));
        self
    }

    /// Adds one of `faults` to `percent` of the requests, by `seed`.
    #[must_use]
    pub fn sometimes(mut self, seed: u64, percent: u8, faults: &[F]) -> Self {
        self.chance = Some((Random::new(seed), percent, faults.to_vec()));
        self
    }
}

impl<F: Copy> Iterator for Script<F> {
    type Item = Vec<F>;

    fn next(&mut self) -> Option<Vec<F>> {
        let number = self.next;
        self.next += 1;
        let applies = |when: &When| match *when {
            When::At(at) => number == at,
            When::From(from) => number >= from,
            When::Every(step) => (number + 1).is_multiple_of(step),
        };
        let mut faults: Vec<F> = self.rules.iter().filter(|(when, _)| applies(when)).map(|(_, fault)| *fault).collect();
        if let Some((random, percent, from)) = &mut self.chance
            && random.chance(*percent)
            && !from.is_empty()
        {
            faults.push(from[random.below(from.len())]);
        }
        Some(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_by_number() {
        let script = Script::none().at(1, 'n').every(3, 'e').from(4, 'b');
        let decisions: Vec<_> = script.take(6).collect();
        let expected: [&[char]; 6] = [&[], &['n'], &['e'], &[], &['b'], &['e', 'b']];
        assert_eq!(decisions, expected);
    }

    #[test]
    fn chance_replays_from_its_seed() {
        let script = Script::none().sometimes(7, 50, &['e', 'n']);
        let (a, b) = (script.clone().take(100), script.take(100));
        let faulty = a.zip(b).map(|(a, b)| {
            assert_eq!(a, b);
            a.len()
        });
        assert!((20..80).contains(&faulty.sum::<usize>()));
    }
}
