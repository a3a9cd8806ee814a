//! The memory of keys that the API created.

use std::time::SystemTime;

use exitgate::admin::keys::restore_keys;
use exitgate::exit::Moment;
use exitgate::limit::{Amounts, Damping, Limits};
use exitgate::net::Secret;
use exitgate::store;

/// More keys than any gateway has, so that the memory of one key shows.
const KEYS: u32 = 20_000;

/// The most memory that a key with budgets may take, in bytes.
const MOST: u64 = 1024;

/// The memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn stored(n: u32) -> store::Key {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&n.to_be_bytes());
    let asked = r#"{"ttl":2592000,"limits":{"connections":50},"budget":{"bytes_per_day":1000000,"bytes_per_month":10000000},"source_budgets":{"tor":{"bytes_per_day":1000}}}"#;
    let expires = Some(Moment::from(SystemTime::now()).after(std::time::Duration::from_secs(2_592_000)));
    store::Key { name: format!("team-{n}"), digest, asked: asked.to_owned(), created: Moment(1), expires }
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement shows its figure")]
fn a_key_takes_less_than_a_kilobyte() {
    let damping = Damping { failures: 10.try_into().unwrap(), pause: std::time::Duration::from_secs(60) };
    let limits = Limits::new(Vec::new(), Amounts::default(), damping);
    // The gateway drops what it has read from the store.
    let all: Vec<_> = (0..KEYS).map(stored).collect();
    let before = memory();
    restore_keys(&limits, &all, Some(&Secret::new("the key file")), SystemTime::now().into());
    for key in limits.keys() {
        assert_eq!(key.account.spend("tor").take(100), 100);
    }
    let each = memory().saturating_sub(before) / u64::from(KEYS);
    assert_eq!(limits.keys().len(), all.len());
    println!("a key takes {each} bytes");
    assert!(each > 100 && each <= MOST, "{each} bytes");
}
