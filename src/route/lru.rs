//! A bounded table that evicts the least recently used entry, in shards so that threads rarely wait for one another.
//!
//! Clients create sessions, pins, implicit routes and rotations by their usernames, so each of these tables needs a
//! bound, and a full table must lose idle entries and not busy ones. A lock is held for one look-up or insertion, tens
//! of nanoseconds.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// Shards of a large table. Not tuned: a few times the cores of the machines that this runs on.
const SHARDS: usize = 16;

/// A table has fewer shards if they would hold fewer entries than this: chance would then fill some shards long before
/// the table is full. Not tuned.
const SHARD_MIN: usize = 256;

/// The end of the list.
const NONE: u32 = u32::MAX;

/// Entries that are allocated together. A table that grows adds a block and moves no entry, so that no insertion is slow.
/// Not tuned.
const BLOCK: usize = 64;

/// One shard: a hash table over a linked list in order of use.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    /// Hash and index of each entry. With the hash the table can grow without looking at the entries.
    table: HashTable<(u64, u32)>,
    blocks: Vec<Vec<Option<Node<K, V>>>>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    bound: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    hash: u64,
    newer: u32,
    older: u32,
    key: K,
    value: V,
}

impl<K, V> Lru<K, V> {
    fn new(bound: usize) -> Self {
        let bound = bound.clamp(1, NONE as usize - 1);
        Self { table: HashTable::new(), blocks: Vec::new(), free: Vec::new(), newest: NONE, oldest: NONE, bound }
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    /// The number of places, taken or free.
    fn places(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    fn node(&self, at: u32) -> Option<&Node<K, V>> {
        self.blocks.get(at as usize / BLOCK)?.get(at as usize % BLOCK)?.as_ref()
    }

    fn place(&mut self, at: u32) -> Option<&mut Option<Node<K, V>>> {
        self.blocks.get_mut(at as usize / BLOCK)?.get_mut(at as usize % BLOCK)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node<K, V>> {
        self.place(at)?.as_mut()
    }

    fn find(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<u32> {
        self.table.find(hash, |(_, at)| self.node(*at).is_some_and(|node| is(&node.key))).map(|(_, at)| *at)
    }

    /// The value; it becomes the most recently used.
    pub(super) fn get(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&mut V> {
        let at = self.find(hash, is)?;
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
        self.node_mut(at).map(|node| &mut node.value)
    }

    /// The value; the order of use stays.
    pub(super) fn peek(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&V> {
        self.find(hash, is).and_then(|at| self.node(at)).map(|node| &node.value)
    }

    /// The value, mutable; the order of use stays.
    pub(super) fn find_mut(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&mut V> {
        let at = self.find(hash, is)?;
        self.node_mut(at).map(|node| &mut node.value)
    }

    /// Inserts a key that the table does not have, and returns the entry that was evicted for it.
    pub(super) fn insert(&mut self, hash: u64, key: K, value: V) -> Option<(K, V)> {
        let evicted = if self.len() >= self.bound { self.take(self.oldest) } else { None };
        let node = Node { hash, newer: NONE, older: NONE, key, value };
        let at = self.put(node);
        self.table.insert_unique(hash, (hash, at), |(hash, _)| *hash);
        self.link(at);
        evicted
    }

    fn put(&mut self, node: Node<K, V>) -> u32 {
        if let Some(at) = self.free.pop()
            && let Some(place) = self.place(at)
        {
            *place = Some(node);
            return at;
        }
        match self.blocks.last_mut() {
            Some(last) if last.len() < BLOCK => last.push(Some(node)),
            first => {
                // The first block grows from one entry: most tables hold a few.
                let mut block = Vec::with_capacity(first.map_or(1, |_| BLOCK));
                block.push(Some(node));
                self.blocks.push(block);
            }
        }
        self.places() as u32 - 1
    }

    /// Every entry, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.blocks.iter().flatten().flatten().map(|node| (&node.key, &node.value))
    }

    /// Removes and returns the entries for which `gone` is true, and frees memory if few are left.
    pub(super) fn take_if(&mut self, mut gone: impl FnMut(&K, &V) -> bool) -> Vec<(K, V)> {
        let marked = |(at, node): (u32, &Option<Node<K, V>>)| {
            node.as_ref().is_some_and(|n| gone(&n.key, &n.value)).then_some(at)
        };
        let marked: Vec<u32> = (0u32..).zip(self.blocks.iter().flatten()).filter_map(marked).collect();
        let taken = marked.into_iter().filter_map(|at| self.take(at)).collect();
        self.shrink();
        taken
    }

    fn take(&mut self, at: u32) -> Option<(K, V)> {
        let hash = self.node(at)?.hash;
        self.unlink(at);
        if let Ok(entry) = self.table.find_entry(hash, |(_, other)| *other == at) {
            entry.remove();
        }
        self.free.push(at);
        let node = self.place(at)?.take()?;
        Some((node.key, node.value))
    }

    /// Frees the memory that a burst of entries took, once most of them are gone.
    fn shrink(&mut self) {
        if self.places() < BLOCK || self.len() * 4 > self.places() {
            return;
        }
        let mut next = Self::new(self.bound);
        let mut at = self.oldest;
        while let Some(node) = self.place(at).and_then(Option::take) {
            at = node.newer;
            next.insert(node.hash, node.key, node.value);
        }
        *self = next;
    }

    fn unlink(&mut self, at: u32) {
        let Some(node) = self.node(at) else { return };
        let (newer, older) = (node.newer, node.older);
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, at: u32) {
        let before = std::mem::replace(&mut self.newest, at);
        if let Some(node) = self.node_mut(at) {
            (node.newer, node.older) = (NONE, before);
        }
        match self.node_mut(before) {
            Some(node) => node.newer = at,
            None => self.oldest = at,
        }
    }
}

/// A bounded table in shards. It evicts the least recently used entry of the shard that is full, which is about the
/// oldest of all.
#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    hasher: RandomState,
    shards: Box<[Mutex<Lru<K, V>>]>,
}

impl<K, V> Sharded<K, V> {
    pub(super) fn new(bound: usize) -> Self {
        let shards = (bound / SHARD_MIN).clamp(1, SHARDS);
        let shard = |_| Mutex::new(Lru::new(bound.div_ceil(shards)));
        Self { hasher: RandomState::new(), shards: (0..shards).map(shard).collect() }
    }

    /// The hash of a key, or of a borrowed form of it that hashes alike.
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The shard of a hash, locked.
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, Lru<K, V>> {
        // Bits from the middle: the hash table uses those at both ends.
        open(&self.shards[(hash >> 24) as usize % self.shards.len()])
    }

    /// Every shard, locked one at a time.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Lru<K, V>>> {
        self.shards.iter().map(open)
    }

    pub(super) fn len(&self) -> usize {
        self.each().map(|shard| shard.len()).sum()
    }
}

/// Locks a mutex, poisoned or not: a panic leaves no table of this room half changed.
pub(super) fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Get(u8),
        Put(u8),
        TakeOdd,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => any::<u8>().prop_map(Op::Get),
            8 => any::<u8>().prop_map(Op::Put),
            1 => Just(Op::TakeOdd),
        ]
    }

    proptest! {
        /// The slow reference is a list, newest last.
        #[test]
        fn it_behaves_as_a_list_in_order_of_use(ops in prop::collection::vec(op(), 0..400), bound in 1usize..150) {
            let mut lru = Lru::new(bound);
            let mut list: Vec<u8> = Vec::new();
            // Few hashes, so that keys meet.
            let hash = |key: u8| u64::from(key % 16) << 57 | u64::from(key % 16);
            for op in ops {
                match op {
                    Op::Get(key) => {
                        let there = list.iter().position(|k| *k == key).map(|at| list.remove(at));
                        list.extend(there);
                        prop_assert_eq!(lru.get(hash(key), |k| *k == key).copied(), there);
                    }
                    Op::Put(key) if list.contains(&key) => prop_assert_eq!(lru.peek(hash(key), |k| *k == key), Some(&key)),
                    Op::Put(key) => {
                        let evicted = (list.len() == bound).then(|| list.remove(0));
                        list.push(key);
                        prop_assert_eq!(lru.insert(hash(key), key, key), evicted.map(|key| (key, key)));
                    }
                    Op::TakeOdd => {
                        let mut taken: Vec<u8> = lru.take_if(|key, _| key % 2 == 1).into_iter().map(|(key, _)| key).collect();
                        let mut odd: Vec<u8> = list.extract_if(.., |key| *key % 2 == 1).collect();
                        taken.sort_unstable();
                        odd.sort_unstable();
                        prop_assert_eq!(taken, odd);
                    }
                }
                prop_assert_eq!(lru.len(), list.len());
                prop_assert_eq!(lru.iter().count(), list.len());
            }
        }
    }

    #[test]
    fn the_memory_of_a_burst_is_freed() {
        let mut lru = Lru::new(100_000);
        assert!((0..100_000u64).all(|key| lru.insert(key, key, ()).is_none()));
        lru.take_if(|key, _| *key >= 10);
        assert!(lru.blocks.len() == 1 && lru.blocks[0].capacity() < 100 && lru.table.capacity() < 100);
        assert_eq!(lru.len(), 10);
        assert!((0..10).all(|key| lru.get(key, |k| *k == key).is_some()));
    }

    #[test]
    fn the_bound_holds_over_all_shards() {
        let table = Sharded::new(10_000);
        for key in 0..50_000u32 {
            let hash = table.hash(key);
            table.lock(hash).insert(hash, key, ());
        }
        assert!((9_900..=10_016).contains(&table.len()), "{}", table.len());
    }
}
