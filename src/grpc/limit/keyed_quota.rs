//! A quota per key: limits what each caller may use of a shared resource at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// The amounts in use, by key.
#[derive(Debug, Clone)]
pub(in crate::grpc) struct KeyedQuota(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    /// Only keys with an amount above 0.
    in_use: Mutex<HashMap<Arc<str>, usize>>,
}

/// An amount of one key's quota, returned on drop.
#[derive(Debug)]
pub(in crate::grpc) struct KeyedPermit {
    quota: KeyedQuota,
    key: Arc<str>,
    amount: usize,
}

impl KeyedQuota {
    /// Creates a quota of `max` for each key.
    pub(in crate::grpc) fn new(max: usize) -> Self {
        Self(Arc::new(Inner { max, in_use: Mutex::default() }))
    }

    /// Returns a permit for this amount, if the key's quota allows it.
    pub(in crate::grpc) fn try_acquire(&self, key: &Arc<str>, amount: usize) -> Option<KeyedPermit> {
        let mut permit = self.empty(key);
        permit.try_grow(amount).then_some(permit)
    }

    /// Returns a permit for nothing, which can grow.
    pub(in crate::grpc) fn empty(&self, key: &Arc<str>) -> KeyedPermit {
        KeyedPermit { quota: self.clone(), key: key.clone(), amount: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.0.in_use.lock().expect("no panic while the lock is held")
    }
}

impl KeyedPermit {
    /// Adds an amount to the permit. Returns whether the key's quota allows it.
    pub(in crate::grpc) fn try_grow(&mut self, amount: usize) -> bool {
        let mut all_in_use = self.quota.lock();
        let in_use = all_in_use.entry(self.key.clone()).or_default(); // an entry of 0 is removed with the permit
        let fits = in_use.saturating_add(amount) <= self.quota.0.max;
        if fits {
            *in_use += amount;
            self.amount += amount;
        }
        fits
    }

    /// Moves an amount into a permit of its own.
    ///
    /// # Panics
    ///
    /// If the permit has less than `amount`.
    pub(in crate::grpc) fn split(&mut self, amount: usize) -> Self {
        self.amount = self.amount.checked_sub(amount).expect("the permit has that much");
        Self { quota: self.quota.clone(), key: self.key.clone(), amount }
    }
}

impl Drop for KeyedPermit {
    fn drop(&mut self) {
        let mut all_in_use = self.quota.lock();
        if let Some(in_use) = all_in_use.get_mut(&self.key) {
            *in_use -= self.amount;
            if *in_use == 0 {
                all_in_use.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::KeyedQuota;

    #[test]
    fn each_key_has_its_quota_and_permits_are_returned() {
        let quota = KeyedQuota::new(2);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let first = quota.try_acquire(&a, 1).unwrap();
        let second = quota.try_acquire(&a, 1).unwrap();
        assert!(quota.try_acquire(&a, 1).is_none());
        let other = quota.try_acquire(&b, 1).unwrap();
        drop(first);
        let third = quota.try_acquire(&a, 1).unwrap();
        assert!(quota.try_acquire(&a, 1).is_none());
        drop((second, third, other));
        assert!(quota.lock().is_empty(), "no entry stays for a key without permits");
    }

    #[test]
    fn a_permit_grows_to_the_quota_and_splits() {
        let quota = KeyedQuota::new(10);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let mut permit = quota.try_acquire(&a, 4).unwrap();
        assert!(permit.try_grow(6));
        assert!(!permit.try_grow(1), "the whole quota is in use");
        assert!(quota.try_acquire(&a, usize::MAX).is_none());
        assert!(quota.try_acquire(&b, 10).is_some());
        let part = permit.split(3);
        drop(permit);
        assert!(quota.try_acquire(&a, 8).is_none(), "the split permit is still in use");
        assert!(quota.try_acquire(&a, 7).is_some());
        drop(part);
        assert!(quota.try_acquire(&a, 10).is_some());
    }
}
