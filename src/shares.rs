//! Shares in what many have in common: each of them may have so much of it at a time, and the rest is for the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// How much each has at the moment.
#[derive(Debug, Clone)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    /// Of those that have any.
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// What one has, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    owner: Arc<str>,
    amount: usize,
}

impl Shares {
    /// Each may have so much.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, taken: Mutex::default() }))
    }

    /// So much more for this owner, if it may have it.
    pub fn take(&self, owner: &Arc<str>, amount: usize) -> Option<Share> {
        let mut share = self.none_yet(owner);
        share.more(amount).then_some(share)
    }

    /// A share for this owner in which there is nothing yet.
    pub fn none_yet(&self, owner: &Arc<str>) -> Share {
        Share { shares: self.clone(), owner: owner.clone(), amount: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.0.taken.lock().expect("nothing panics while it counts")
    }
}

impl Share {
    /// Takes so much more, if its owner may have it.
    pub fn more(&mut self, amount: usize) -> bool {
        let mut all_taken = self.shares.lock();
        let taken = all_taken.entry(self.owner.clone()).or_default(); // a zero goes with the share
        let fits = taken.saturating_add(amount) <= self.shares.0.most;
        if fits {
            *taken += amount;
            self.amount += amount;
        }
        fits
    }

    /// Parts with so much of it.
    ///
    /// # Panics
    ///
    /// If there is not so much in it.
    pub fn split(&mut self, amount: usize) -> Self {
        self.amount = self.amount.checked_sub(amount).expect("there is so much in it");
        Self { shares: self.shares.clone(), owner: self.owner.clone(), amount }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all_taken = self.shares.lock();
        if let Some(taken) = all_taken.get_mut(&self.owner) {
            *taken -= self.amount;
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
        let first = shares.take(&a, 1).unwrap();
        let second = shares.take(&a, 1).unwrap();
        assert!(shares.take(&a, 1).is_none());
        let other = shares.take(&b, 1).unwrap();
        drop(first);
        let third = shares.take(&a, 1).unwrap();
        assert!(shares.take(&a, 1).is_none());
        drop((second, third, other));
        assert!(shares.lock().is_empty(), "nobody is remembered who has nothing");
    }

    #[test]
    fn a_share_grows_as_far_as_its_owner_may_and_is_given_back_whole() {
        let shares = Shares::new(10);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let mut share = shares.take(&a, 4).unwrap();
        assert!(share.more(6));
        assert!(!share.more(1), "the owner has all of it");
        assert!(shares.take(&a, usize::MAX).is_none());
        assert!(shares.take(&b, 10).is_some());
        let part = share.split(3);
        drop(share);
        assert!(shares.take(&a, 8).is_none(), "the part is still taken");
        assert!(shares.take(&a, 7).is_some());
        drop(part);
        assert!(shares.take(&a, 10).is_some());
    }
}
