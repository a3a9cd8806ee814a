//! A bounded table that evicts the least recently used entry. The table consists of shards, so that threads rarely wait
//! for each other.
//!
//! This table stores what clients create by their usernames: sessions, pins, implicit routes and rotations. A client
//! can write any number of usernames, so the table needs a bound, and a full table must lose idle entries and not busy
//! ones. A lock is held for one look-up or insertion, which takes tens of nanoseconds.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

/// The number of shards of a large table. Not tuned: a few times the number of CPU cores of typical machines.
const SHARDS: usize = 16;

/// The smallest number of entries in a shard. A small table has fewer shards, because otherwise chance would fill some
/// shards long before the table is full. Not tuned.
const SHARD_MIN: usize = 256;

/// The index that marks the end of the linked list.
const NONE: u32 = u32::MAX;

/// The number of entries that are allocated together. A table that grows adds a block and moves no entry, so no
/// insertion is slow. Not tuned.
const BLOCK: usize = 64;

/// One shard of a table: a hash table, and a linked list of its entries in the order of their use.
#[derive(Debug)]
pub(super) struct Lru<K, V> {
    /// The hash and the index of each entry. Because the hash is stored, the table can grow without reading the
    /// entries.
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

    /// The number of places for entries, taken or free.
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

    /// Returns the value of the key with this hash for which `is` returns true. The entry becomes the most recently
    /// used entry.
    pub(super) fn get(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&mut V> {
        let at = self.find(hash, is)?;
        if self.newest != at {
            self.unlink(at);
            self.link(at);
        }
        self.node_mut(at).map(|node| &mut node.value)
    }

    /// Returns the value of the key with this hash for which `is` returns true. The order of use does not change.
    pub(super) fn peek(&self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&V> {
        self.find(hash, is).and_then(|at| self.node(at)).map(|node| &node.value)
    }

    /// Returns the value of the key with this hash for which `is` returns true, for writing. The order of use does not
    /// change.
    pub(super) fn find_mut(&mut self, hash: u64, is: impl Fn(&K) -> bool) -> Option<&mut V> {
        let at = self.find(hash, is)?;
        self.node_mut(at).map(|node| &mut node.value)
    }

    /// Inserts a key that is not in the table. Returns the entry that was evicted, if the table was full.
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
                // The first block starts with room for one entry and grows, because most tables hold only a few
                // entries.
                let mut block = Vec::with_capacity(first.map_or(1, |_| BLOCK));
                block.push(Some(node));
                self.blocks.push(block);
            }
        }
        self.places() as u32 - 1
    }

    /// Iterates over every entry, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.blocks.iter().flatten().flatten().map(|node| (&node.key, &node.value))
    }

    /// Removes and returns the entries for which `gone` returns true. Frees memory if few entries are left.
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

    /// Frees the memory that a burst of entries took, after most of these entries are gone.
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

/// A bounded table that consists of shards. If a shard is full, it evicts its own least recently used entry, which is
/// about the oldest entry of the whole table.
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

    /// Returns the hash of a key. A borrowed form of the key must have the same hash.
    pub(super) fn hash(&self, key: impl Hash) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Locks and returns the shard to which a hash belongs.
    pub(super) fn lock(&self, hash: u64) -> MutexGuard<'_, Lru<K, V>> {
        // The bits are from the middle of the hash, because the hash table uses the bits at both ends.
        open(&self.shards[(hash >> 24) as usize % self.shards.len()])
    }

    /// Iterates over all shards. Only one shard is locked at a time.
    pub(super) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Lru<K, V>>> {
        self.shards.iter().map(open)
    }

    pub(super) fn len(&self) -> usize {
        self.each().map(|shard| shard.len()).sum()
    }
}

/// Locks a mutex, even if it is poisoned. This is safe because a panic leaves no table of this room half changed.
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
        /// Compares the table with a slow reference: a list whose last entry is the newest.
        #[test]
        fn it_behaves_as_a_list_in_order_of_use(ops in prop::collection::vec(op(), 0..400), bound in 1usize..150) {
            let mut lru = Lru::new(bound);
            let mut list: Vec<u8> = Vec::new();
            // There are only a few different hashes, so keys collide.
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
