//! A quota per key: limits what each caller may use of a shared resource at the same time.

use std::{collections::HashMap, sync::Arc};

use crate::sync::{Mutex, MutexGuard};

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
    use std::{collections::HashMap, sync::Arc};

    use proptest::{prelude::*, sample::Index};
    use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

    use super::{KeyedPermit, KeyedQuota};

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

    const MAX: usize = 10;

    #[derive(Debug, Clone)]
    enum Event {
        Acquire(&'static str, usize),
        Grow(Index, usize),
        Split(Index, usize),
        Drop(Index),
    }

    /// The permits: key and amount of each.
    struct Reference;

    type Permits = Vec<(&'static str, usize)>;

    fn fits(permits: &Permits, key: &str, amount: usize) -> bool {
        permits.iter().filter(|(other, _)| *other == key).map(|(_, amount)| amount).sum::<usize>() + amount <= MAX
    }

    impl ReferenceStateMachine for Reference {
        type State = Permits;
        type Transition = Event;

        fn init_state() -> BoxedStrategy<Permits> {
            Just(Vec::new()).boxed()
        }

        fn transitions(_: &Permits) -> BoxedStrategy<Event> {
            let amount = || 0..=MAX + 1;
            prop_oneof![
                (prop_oneof![Just("a"), Just("b")], amount()).prop_map(|(key, amount)| Event::Acquire(key, amount)),
                (any::<Index>(), amount()).prop_map(|(index, amount)| Event::Grow(index, amount)),
                (any::<Index>(), amount()).prop_map(|(index, amount)| Event::Split(index, amount)),
                any::<Index>().prop_map(Event::Drop),
            ]
            .boxed()
        }

        fn preconditions(permits: &Permits, event: &Event) -> bool {
            match event {
                Event::Acquire(..) => true,
                Event::Grow(..) | Event::Drop(_) => !permits.is_empty(),
                Event::Split(index, amount) => !permits.is_empty() && *amount <= index.get(permits).1,
            }
        }

        fn apply(mut permits: Permits, event: &Event) -> Permits {
            match event {
                Event::Acquire(key, amount) if fits(&permits, key, *amount) => permits.push((key, *amount)),
                Event::Grow(index, amount) => {
                    let index = index.index(permits.len());
                    if fits(&permits, permits[index].0, *amount) {
                        permits[index].1 += amount;
                    }
                }
                Event::Split(index, amount) => {
                    let index = index.index(permits.len());
                    permits[index].1 -= amount;
                    permits.push((permits[index].0, *amount));
                }
                Event::Drop(index) => drop(permits.remove(index.index(permits.len()))),
                Event::Acquire(..) => {}
            }
            permits
        }
    }

    struct Quota(KeyedQuota, Vec<KeyedPermit>);

    impl StateMachineTest for Quota {
        type SystemUnderTest = Self;
        type Reference = Reference;

        fn init_test(_: &Permits) -> Self {
            Self(KeyedQuota::new(MAX), Vec::new())
        }

        fn apply(Self(quota, mut permits): Self, expected: &Permits, event: Event) -> Self {
            let index = |index: Index, permits: &Vec<_>| index.index(permits.len());
            match event {
                Event::Acquire(key, amount) => permits.extend(quota.try_acquire(&key.into(), amount)),
                Event::Grow(at, amount) => {
                    let at = index(at, &permits);
                    permits[at].try_grow(amount);
                }
                Event::Split(at, amount) => {
                    let at = index(at, &permits);
                    let part = permits[at].split(amount);
                    permits.push(part);
                }
                Event::Drop(at) => drop(permits.remove(index(at, &permits))),
            }
            let actual: Vec<_> = permits.iter().map(|permit| (&*permit.key, permit.amount)).collect();
            assert_eq!(actual, *expected);
            let mut in_use = HashMap::<Arc<str>, usize>::new();
            expected.iter().for_each(|(key, amount)| *in_use.entry((*key).into()).or_default() += amount);
            let counted = quota.lock().clone();
            assert!(counted.iter().all(|(key, amount)| in_use.get(key).copied().unwrap_or_default() == *amount));
            assert!(in_use.iter().all(|(key, amount)| counted.get(key).copied().unwrap_or_default() == *amount));
            Self(quota, permits)
        }

        fn teardown(Self(quota, permits): Self, _: Permits) {
            drop(permits);
            assert!(quota.lock().is_empty(), "no entry stays for a key without permits");
        }
    }

    prop_state_machine! {
        #[test]
        fn quotas_are_exact_and_leave_nothing_behind(sequential 1..40 => Quota);
    }

    #[cfg(feature = "shuttle")]
    #[test]
    fn interleavings_of_permits_never_exceed_the_quota() {
        shuttle::check_dfs(
            || {
                let quota = KeyedQuota::new(3);
                let key = Arc::<str>::from("a");
                let threads = [2, 2].map(|amount| {
                    let (quota, key) = (quota.clone(), key.clone());
                    shuttle::thread::spawn(move || {
                        let mut permit = quota.try_acquire(&key, amount);
                        let part = permit.as_mut().map(|permit| permit.split(1));
                        assert!(quota.lock().values().sum::<usize>() <= 3);
                        drop(permit);
                        drop(part);
                    })
                });
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert!(quota.lock().is_empty());
            },
            None,
        );
    }
}
