//! Shares in what many have in common: each of them may have so much of it at a time, and the rest is for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// How much each has at the moment.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    /// Of those that have any.
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// One piece, given back when it is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    shares: &'a Shares,
    owner: Arc<str>,
}

impl Shares {
    /// Each may have so many.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// One more for this owner, if it may have it.
    pub fn take(&self, owner: &Arc<str>) -> Option<Share<'_>> {
        let mut all_taken = self.lock();
        let taken = all_taken.entry(owner.clone()).or_default();
        if *taken >= self.most {
            return None; // with `most` above zero there is an entry that somebody gives back
        }
        *taken += 1;
        Some(Share { shares: self, owner: owner.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.taken.lock().expect("nothing panics while it counts")
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut all_taken = self.shares.lock();
        if let Some(taken) = all_taken.get_mut(&self.owner) {
            *taken -= 1;
            if *taken == 0 {
                all_taken.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Shares;

    #[test]
    fn each_has_its_share_and_what_is_given_back_can_be_taken() {
        let shares = Shares::new(2);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let first = shares.take(&a).unwrap();
        let second = shares.take(&a).unwrap();
        assert!(shares.take(&a).is_none());
        let other = shares.take(&b).unwrap();
        drop(first);
        let third = shares.take(&a).unwrap();
        assert!(shares.take(&a).is_none());
        drop((second, third, other));
        assert!(shares.lock().is_empty(), "nobody is remembered who has nothing");
    }
}
