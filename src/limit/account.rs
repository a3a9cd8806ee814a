//! Counts what each key uses, in all and for each source of exits, and stops a key whose budget is used up.
//!
//! A connection reserves bytes before it writes them, and gives back those that it did not write. So the sum of all
//! connections of a key never exceeds the budget, and no lock is needed: a counter is two atomic numbers.
//!
//! [`Account::settle`] moves the counted amounts into the ledger (`limit/ledger.rs`) and computes from it where the
//! counters must stop. It is called twice a second, and when a budget seems to be used up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::allowance::lock;
use super::ledger::{Budget, Ledger, Level, Period, Spent, Used};
use crate::exit::Moment;

/// The value of [`Counter::stop`] if there is no limit.
const NEVER: u64 = u64::MAX;

/// The budgets of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// The budget of all sources together.
    pub all: Budget,
    /// The budgets of single sources: the name of the source and its budget.
    pub sources: Vec<(Arc<str>, Budget)>,
}

/// One quantity: bytes or requests.
#[derive(Debug)]
struct Counter {
    /// The amount that was counted since the process started.
    total: AtomicU64,
    /// The value of `total` at which the budget is used up.
    stop: AtomicU64,
}

impl Default for Counter {
    fn default() -> Self {
        Self { total: AtomicU64::new(0), stop: AtomicU64::new(NEVER) }
    }
}

impl Counter {
    /// Counts up to `want` and returns how much was counted. The result is smaller than `want` if the budget is nearly
    /// used up, and 0 if it is used up.
    fn take(&self, want: u64) -> u64 {
        if self.stop.load(Relaxed) == NEVER {
            self.total.fetch_add(want, Relaxed);
            return want;
        }
        let mut granted = 0;
        let more = |total: u64| {
            granted = want.min(self.stop.load(Relaxed).saturating_sub(total));
            (granted > 0).then_some(total + granted)
        };
        match self.total.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => granted,
            Err(_) => 0,
        }
    }

    fn give_back(&self, amount: u64) {
        if amount > 0 {
            self.total.fetch_sub(amount, Relaxed);
        }
    }

    fn is_spent(&self) -> bool {
        self.total.load(Relaxed) >= self.stop.load(Relaxed)
    }
}

/// What is counted for a key in all, or for a key and one source.
#[derive(Debug, Default)]
struct Scope {
    bytes: Counter,
    requests: Counter,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    ledger: Ledger,
    /// The totals of the two counters at the last [`Scope::settle`].
    seen: Used,
    /// The level that was reported last.
    told: Level,
    /// True if the ledger has changed since it was stored.
    unsaved: bool,
}

impl Scope {
    /// Moves what was counted into the ledger, and sets where the counters stop.
    fn settle(&self, now: Moment) -> (Ledger, Option<Level>) {
        let mut book = lock(&self.book);
        let total = Used { bytes: self.bytes.total.load(Relaxed), requests: self.requests.total.load(Relaxed) };
        // A total may be smaller than at the last call, because connections give back what they did not write.
        let grown = |now: u64, seen: &mut u64| {
            let grown = now.saturating_sub(*seen);
            *seen = now.max(*seen);
            grown
        };
        let used = Used {
            bytes: grown(total.bytes, &mut book.seen.bytes),
            requests: grown(total.requests, &mut book.seen.requests),
        };
        let before = book.ledger;
        book.ledger.add(used, now);
        book.unsaved |= book.ledger != before;
        let left = book.ledger.left();
        self.bytes.stop.store(stop(book.seen.bytes, left.bytes), Relaxed);
        self.requests.stop.store(stop(book.seen.requests, left.requests), Relaxed);
        let level = book.ledger.level();
        let changed = (std::mem::replace(&mut book.told, level) != level).then_some(level);
        (book.ledger, changed)
    }

    fn set_budget(&self, budget: Budget, now: Moment) {
        lock(&self.book).ledger.budget = budget;
        self.settle(now);
    }

    fn is_spent(&self) -> bool {
        self.bytes.is_spent() || self.requests.is_spent()
    }
}

/// Returns the name of a source. All accounts share one copy of the name, because there are many accounts and few
/// sources.
fn interned(source: &str) -> Arc<str> {
    static NAMES: Mutex<Vec<Arc<str>>> = Mutex::new(Vec::new());
    let mut names = lock(&NAMES);
    if let Some(name) = names.iter().find(|name| ***name == *source) {
        return name.clone();
    }
    names.push(source.into());
    names[names.len() - 1].clone()
}

/// Returns the total at which a counter stops. A total that is still reserved by connections counts as used.
fn stop(total: u64, left: u64) -> u64 {
    if left == u64::MAX { NEVER } else { total.saturating_add(left).min(NEVER - 1) }
}

/// What a key uses of one source.
#[derive(Debug)]
struct SourceAccount {
    source: Arc<str>,
    own: Scope,
    all: Arc<Scope>,
}

/// What one key uses. A key keeps its account when its settings change.
#[derive(Debug, Default)]
pub struct Account {
    all: Arc<Scope>,
    /// The sources that the key has used, or for which it has a budget.
    sources: Mutex<Vec<Arc<SourceAccount>>>,
    /// True if a source has a budget of its own.
    limits_sources: AtomicBool,
}

/// A change of the level of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The source of the budget. `None` for the budget of all sources together.
    pub source: Option<Arc<str>>,
    pub level: Level,
}

/// What was used in all, or of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `None` for all sources together.
    pub source: Option<Arc<str>>,
    pub ledger: Ledger,
}

impl Account {
    /// Sets the budgets. What was used stays.
    pub(super) fn set_budgets(&self, budgets: &Budgets, now: Moment) {
        self.all.set_budget(budgets.all, now);
        self.limits_sources.store(budgets.sources.iter().any(|(_, budget)| budget.is_set()), Relaxed);
        for (source, _) in &budgets.sources {
            self.source(source);
        }
        for account in self.list() {
            let found = budgets.sources.iter().find(|(source, _)| *source == account.source);
            account.own.set_budget(found.map(|(_, budget)| *budget).unwrap_or_default(), now);
        }
    }

    /// Returns true if a source has a budget of its own.
    pub fn limits_sources(&self) -> bool {
        self.limits_sources.load(Relaxed)
    }

    /// Adds what was used before this process started. Called once for each source, and once for all sources together.
    pub fn restore(&self, source: Option<&str>, day: Period, month: Period, now: Moment) {
        let account = source.map(|source| self.source(source));
        let scope = account.as_ref().map_or(&*self.all, |account| &account.own);
        {
            let mut book = lock(&scope.book);
            let used = [book.ledger.day.used, book.ledger.month.used];
            (book.ledger.day, book.ledger.month) = (day, month);
            book.ledger.day.used.add(used[0]);
            book.ledger.month.used.add(used[1]);
        }
        scope.settle(now);
    }

    /// Moves what was counted into the ledgers, and returns the budgets whose level has changed since the last call.
    pub fn settle(&self, now: Moment) -> Vec<Crossing> {
        let all = self.all.settle(now).1.map(|level| Crossing { source: None, level });
        let sources = self.list().into_iter().filter_map(|account| {
            let level = account.own.settle(now).1?;
            Some(Crossing { source: Some(account.source.clone()), level })
        });
        all.into_iter().chain(sources).collect()
    }

    /// Returns what was used in all and of each source.
    pub fn usage(&self, now: Moment) -> Vec<Usage> {
        let all = Usage { source: None, ledger: self.all.peek(now) };
        let of =
            |account: Arc<SourceAccount>| Usage { source: Some(account.source.clone()), ledger: account.own.peek(now) };
        std::iter::once(all).chain(self.list().into_iter().map(of)).collect()
    }

    /// Returns what has changed since the last call of this function.
    pub fn take_unsaved(&self, now: Moment) -> Vec<Usage> {
        let of = |scope: &Scope, source: Option<&Arc<str>>| {
            let ledger = scope.peek(now);
            std::mem::take(&mut lock(&scope.book).unsaved).then(|| Usage { source: source.cloned(), ledger })
        };
        let all = of(&self.all, None);
        let sources = self.list();
        let sources = sources.iter().filter_map(|account| of(&account.own, Some(&account.source)));
        all.into_iter().chain(sources).collect()
    }

    /// Returns true if a budget of bytes is used up, in all or of one source.
    pub fn any_bytes_spent(&self) -> bool {
        self.all.bytes.is_spent() || self.list().iter().any(|account| account.own.bytes.is_spent())
    }

    /// Returns true if no more bytes may be written through exits of this source.
    pub fn is_out_of_bytes(&self, source: &str) -> bool {
        self.all.bytes.is_spent() || self.find(source).is_some_and(|account| account.own.bytes.is_spent())
    }

    /// Returns the highest level of all budgets of the key, as of the last [`Account::settle`].
    pub fn level(&self) -> Level {
        let told = |scope: &Scope| lock(&scope.book).told;
        self.list().iter().map(|account| told(&account.own)).fold(told(&self.all), Ord::max)
    }

    /// Returns the limit of the budget of all sources that is used up.
    pub fn spent(&self, now: Moment) -> Option<Spent> {
        spent(&self.all, now)
    }

    /// Returns the limit of the budget of this source that is used up.
    pub fn source_spent(&self, source: &str, now: Moment) -> Option<Spent> {
        let account = self.find(source)?;
        spent(&account.own, now)
    }

    /// Counts one request in the budget of all sources. Returns false if that budget is used up.
    pub fn take_request(&self) -> bool {
        !self.all.bytes.is_spent() && self.all.requests.take(1) == 1
    }

    /// Takes back a request that was counted but did not reach its target.
    pub fn give_back_request(&self) {
        self.all.requests.give_back(1);
    }

    /// Returns the counter of the bytes of one stream through an exit of this source.
    pub fn spend(&self, source: &str) -> Spend {
        Spend(self.source(source))
    }

    /// Returns an account with a budget of this number of bytes per day, for tests.
    #[cfg(test)]
    pub fn limited(bytes: u64) -> Self {
        let account = Self::default();
        let all = Budget { bytes_per_day: std::num::NonZeroU64::new(bytes), ..Budget::default() };
        account.set_budgets(&Budgets { all, sources: Vec::new() }, std::time::SystemTime::now().into());
        account
    }

    fn list(&self) -> Vec<Arc<SourceAccount>> {
        lock(&self.sources).clone()
    }

    fn find(&self, source: &str) -> Option<Arc<SourceAccount>> {
        lock(&self.sources).iter().find(|account| *account.source == *source).cloned()
    }

    fn source(&self, source: &str) -> Arc<SourceAccount> {
        let mut sources = lock(&self.sources);
        if let Some(account) = sources.iter().find(|account| *account.source == *source) {
            return account.clone();
        }
        let account = SourceAccount { source: interned(source), own: Scope::default(), all: self.all.clone() };
        let account = Arc::new(account);
        sources.reserve_exact(1);
        sources.push(account.clone());
        account
    }
}

impl Scope {
    /// Returns the ledger with all that was counted until now. A change of the level is not reported.
    fn peek(&self, now: Moment) -> Ledger {
        let told = lock(&self.book).told;
        let (ledger, _) = self.settle(now);
        lock(&self.book).told = told;
        ledger
    }
}

fn spent(scope: &Scope, now: Moment) -> Option<Spent> {
    if !scope.is_spent() {
        return None;
    }
    // A new day may have begun since the last call of `settle`.
    scope.peek(now).spent()
}

/// Counts the bytes of one stream for its key, in all and for the source of its exit.
#[derive(Clone, Debug)]
pub struct Spend(Arc<SourceAccount>);

impl Spend {
    /// Counts up to `want` bytes, and returns how many of them may be written. The result 0 means that a budget is used
    /// up.
    pub fn take(&self, want: usize) -> usize {
        let granted = self.0.all.bytes.take(want as u64);
        let own = self.0.own.bytes.take(granted);
        self.0.all.bytes.give_back(granted - own);
        usize::try_from(own).unwrap_or(want)
    }

    /// Takes back bytes that were counted but not written.
    pub fn give_back(&self, bytes: usize) {
        self.0.all.bytes.give_back(bytes as u64);
        self.0.own.bytes.give_back(bytes as u64);
    }

    /// Counts bytes that were already written.
    pub fn add(&self, bytes: usize) {
        self.0.all.bytes.total.fetch_add(bytes as u64, Relaxed);
        self.0.own.bytes.total.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts one request in the budget of the source. Returns false if that budget is used up.
    pub fn take_request(&self) -> bool {
        !self.0.own.bytes.is_spent() && self.0.own.requests.take(1) == 1
    }

    /// Returns true if a budget is used up and no more byte may be written.
    pub fn is_spent(&self) -> bool {
        self.0.all.bytes.is_spent() || self.0.own.bytes.is_spent()
    }
}

impl Budget {
    /// Returns true if one of the limits is set.
    fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    const NOW: Moment = Moment(1_796_040_000_000_000);
    const NEXT_DAY: Moment = Moment(NOW.0 + 86_400_000_000);

    fn limit(n: u64) -> Budget {
        Budget { bytes_per_day: NonZeroU64::new(n), ..Budget::default() }
    }

    fn account(all: Budget, public: Budget) -> Account {
        let account = Account::default();
        account.set_budgets(&Budgets { all, sources: vec![("public".into(), public)] }, NOW);
        account
    }

    fn used(account: &Account, source: Option<&str>) -> u64 {
        let usage = account.usage(NOW);
        usage.iter().find(|usage| usage.source.as_deref() == source).unwrap().ledger.day.used.bytes
    }

    #[test]
    fn no_byte_is_granted_beyond_a_budget() {
        let account = account(limit(100), Budget::default());
        let spend = account.spend("tor");
        assert_eq!((spend.take(60), spend.take(60), spend.take(60)), (60, 40, 0));
        assert!(spend.is_spent() && account.spent(NOW).is_some() && !account.take_request());
        spend.give_back(30);
        assert_eq!(spend.take(60), 30, "what was not written may be used by others");
        assert_eq!((used(&account, None), used(&account, Some("tor"))), (100, 100));
        account.settle(NEXT_DAY);
        assert_eq!((spend.take(70), account.spent(NEXT_DAY)), (70, None), "a new day");
    }

    #[test]
    fn a_source_has_a_budget_of_its_own() {
        let account = account(limit(100), limit(30));
        let (tor, public) = (account.spend("tor"), account.spend("public"));
        assert_eq!((public.take(50), public.take(1), tor.take(50)), (30, 0, 50));
        assert_eq!((used(&account, None), used(&account, Some("public"))), (80, 30));
        assert!(account.source_spent("public", NOW).is_some() && account.source_spent("tor", NOW).is_none());
        assert!(account.spent(NOW).is_none() && account.take_request() && !public.take_request());
        assert_eq!(tor.take(50), 20, "the budget of all sources");
    }

    #[test]
    fn what_connections_of_many_threads_use_never_exceeds_the_budget() {
        const BUDGET: u64 = 1_000_000;
        let account = account(limit(BUDGET), Budget::default());
        let written: u64 = std::thread::scope(|scope| {
            let writer = |seed: usize| {
                let spend = account.spend("tor");
                let mut written = 0;
                for round in 0.. {
                    let granted = spend.take(1000 + (round * 37 + seed) % 500);
                    if granted == 0 {
                        return written;
                    }
                    let unwritten = granted * (round % 3) / 4;
                    spend.give_back(unwritten);
                    written += (granted - unwritten) as u64;
                }
                written
            };
            let settler = scope.spawn(|| (0..2000).for_each(|_| drop(account.settle(NOW))));
            let writers: Vec<_> = (0..4).map(|seed| scope.spawn(move || writer(seed))).collect();
            settler.join().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert!(written <= BUDGET, "{written}");
        // A connection may find the budget used up while another one holds bytes that it will give back.
        assert!(written > BUDGET - 4 * 1500, "{written}");
    }

    #[test]
    fn a_level_is_reported_once() {
        let account = account(limit(100), limit(1000));
        assert_eq!(account.settle(NOW), []);
        account.spend("public").add(80);
        let near = Crossing { source: None, level: Level::Near };
        assert_eq!((account.settle(NOW), account.settle(NOW), account.level()), (vec![near], vec![], Level::Near));
        account.spend("public").add(20);
        account.usage(NOW);
        assert_eq!(account.settle(NOW), [Crossing { source: None, level: Level::Spent }], "a look does not swallow it");
        assert_eq!(account.settle(NEXT_DAY), [Crossing { source: None, level: Level::Fine }]);
    }

    #[test]
    fn a_restart_and_a_new_budget_keep_what_was_used() {
        let before = account(limit(100), limit(50));
        before.spend("public").add(40);
        let after = account(limit(100), limit(50));
        for usage in before.usage(NOW) {
            after.restore(usage.source.as_deref(), usage.ledger.day, usage.ledger.month, NOW);
        }
        assert_eq!((after.spend("public").take(20), after.spend("tor").take(80)), (10, 50));
        after.set_budgets(&Budgets { all: limit(120), sources: vec![] }, NOW);
        assert_eq!(after.spend("public").take(80), 20, "more in all, and no limit for the source");
        after.set_budgets(&Budgets { all: limit(50), sources: vec![] }, NOW);
        assert_eq!(after.spend("tor").take(1), 0, "less than was used");
    }
}
