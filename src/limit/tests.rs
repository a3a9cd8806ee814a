use super::*;

const PAUSE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn ip(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn some(n: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(n)
}

fn key(name: &str, amounts: Amounts) -> Key {
    Key { name: name.into(), secret: Secret::new(format!("{name}-secret")), amounts, budgets: Budgets::default() }
}

fn damping() -> Damping {
    Damping { failures: some(3).unwrap(), pause: PAUSE }
}

fn limits(keys: Vec<Key>, each_client: Amounts) -> Limits {
    Limits::new(keys, each_client, damping())
}

#[test]
fn a_password_identifies_its_key_and_without_keys_anybody_is_anonymous() {
    let (now, open) = (Instant::now(), limits(vec![], Amounts::default()));
    assert!(open.identify(ip(1), Some(b"whatever"), now).unwrap().key().is_none());
    let locked = limits(vec![key("a", Amounts::default()), key("b", Amounts::default())], Amounts::default());
    let name = |password: Option<&[u8]>| locked.identify(ip(1), password, now).map(|id| id.key().unwrap().to_string());
    assert_eq!((name(Some(b"a-secret")), name(Some(b"b-secret"))), (Ok("a".into()), Ok("b".into())));
    assert_eq!((name(None), name(Some(b""))), (Err(KeyRefusal::NoKey), Err(KeyRefusal::NoKey)));
    assert_eq!((name(Some(b"a-secre")), name(Some(b"a"))), (Err(KeyRefusal::WrongKey), Err(KeyRefusal::WrongKey)));
}

#[test]
fn a_guesser_is_paused_and_other_clients_of_its_address_work_on() {
    let (start, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    let ask = |client, key: &str, after| limits.identify(client, Some(key.as_bytes()), start + after).map(drop);
    ask(ip(1), "a-secret", Duration::ZERO).unwrap();
    for n in 0..3 {
        assert_eq!(ask(ip(1), &format!("guess {n}"), Duration::ZERO), Err(KeyRefusal::WrongKey));
    }
    let damped = Err(KeyRefusal::Damped { retry_after: PAUSE - SECOND });
    assert_eq!(ask(ip(1), "guess 4", SECOND), damped);
    assert_eq!(ask(ip(1), "a-secret", SECOND), Ok(()), "known to be good from here");
    assert_eq!(ask(ip(2), "a-secret", SECOND), Ok(()), "another address is not paused");
    assert_eq!(ask(ip(1), "guess 4", PAUSE + SECOND), Err(KeyRefusal::WrongKey), "the count starts again");
    for n in 0..3 {
        let _ = ask(ip(3), &format!("guess {n}"), Duration::ZERO);
    }
    assert!(matches!(ask(ip(3), "a-secret", SECOND), Err(KeyRefusal::Damped { .. })), "a right guess looks wrong");
}

#[test]
fn a_reload_keeps_good_keys_good_and_drops_those_that_it_removed() {
    let (now, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    let ask = |key: &str| limits.identify(ip(1), Some(key.as_bytes()), now).map(drop);
    ask("a-secret").unwrap();
    limits.replace(vec![key("a", Amounts::default())], Amounts::default(), damping());
    (0..3).for_each(|n| assert_eq!(ask(&format!("guess {n}")), Err(KeyRefusal::WrongKey)));
    assert_eq!(ask("a-secret"), Ok(()), "used before the reload, from this address");
    limits.replace(vec![key("b", Amounts::default())], Amounts::default(), damping());
    assert!(matches!(ask("a-secret"), Err(KeyRefusal::Damped { .. })), "no longer a key");
}

#[test]
fn one_wrong_key_sent_many_times_is_one_guess() {
    let (now, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    for _ in 0..1000 {
        assert_eq!(limits.identify(ip(1), Some(b"last month's"), now).map(drop), Err(KeyRefusal::WrongKey));
    }
    assert!(limits.identify(ip(1), Some(b"a-secret"), now).is_ok());
}

#[test]
fn strangers_cannot_fill_memory() {
    let (now, limits) = (Instant::now(), limits(vec![key("a", Amounts::default())], Amounts::default()));
    for n in 0..40_000_u32 {
        let _ = limits.identify(IpAddr::V4(n.into()), Some(b"x"), now);
    }
    assert!(limits.0.throttle.addresses() <= 16_384);
    limits.tidy(now + Duration::from_secs(7200));
    assert_eq!(limits.0.throttle.addresses(), 0);
    let one_subscriber = |n: u128| IpAddr::V6(((0x2001_0db8_u128 << 96) + n).into());
    (0..100).for_each(|n| _ = limits.identify(one_subscriber(n), Some(b"x"), now));
    assert_eq!(limits.0.throttle.addresses(), 1, "a /64 is one client");
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let two = Amounts { connections: some(2), ..Amounts::default() };
    let (now, limits) = (Instant::now(), limits(vec![key("a", two)], Amounts::default()));
    let identity = limits.identify(ip(1), Some(b"a-secret"), now).unwrap();
    let first = limits.admit(&identity, ip(1)).unwrap();
    let _second = limits.admit(&identity, ip(2)).unwrap();
    let full = Denied::Connections { of: LimitOf::Key, limit: some(2).unwrap() };
    assert_eq!(limits.admit(&identity, ip(3)).unwrap_err(), full);
    assert_eq!(full.to_string(), "this key has its 2 connections open already");
    drop(first);
    limits.admit(&identity, ip(3)).unwrap();
}

#[test]
fn new_connections_are_held_to_their_rate() {
    let amounts = Amounts { per_second: some(4), ..Amounts::default() };
    for of in [LimitOf::Key, LimitOf::Client] {
        let limits = match of {
            LimitOf::Key => limits(vec![key("a", amounts)], Amounts::default()),
            LimitOf::Client => limits(vec![], amounts),
        };
        let identity = limits.identify(ip(1), Some(b"a-secret"), Instant::now()).unwrap();
        let admit = || limits.admit(&identity, ip(1)).map(drop);
        let wait = |millis| limits.0.clock.advance(Duration::from_millis(millis));
        (0..4).for_each(|_| admit().unwrap());
        let denied = Denied::PerSecond { of, limit: some(4).unwrap(), retry_after: Duration::from_millis(250) };
        assert_eq!(admit(), Err(denied));
        let other = limits.admit(&Identity::anonymous(), ip(2));
        assert!(other.is_ok(), "each has a rate of its own");
        wait(250);
        assert_eq!(admit(), Ok(()));
        wait(249);
        assert!(admit().is_err());
        wait(1);
        assert_eq!(admit(), Ok(()));
        // One second after a burst, another burst of the same size is allowed. After ten seconds, the allowed burst is
        // not larger.
        wait(10_000);
        assert_eq!((0..9).filter(|_| admit().is_ok()).count(), 4);
    }
}

#[test]
fn a_connection_that_comes_too_fast_does_not_stay_counted() {
    let amounts = Amounts { connections: some(2), per_second: some(1), ..Amounts::default() };
    let limits = limits(vec![], amounts);
    let admit = || limits.admit(&Identity::anonymous(), ip(1));
    let _open = admit().unwrap();
    (0..9).for_each(|_| assert!(matches!(admit(), Err(Denied::PerSecond { .. }))));
    limits.0.clock.advance(SECOND);
    assert!(admit().is_ok());
}

#[test]
fn an_address_without_connections_is_forgotten_once_its_rate_allows_all_again() {
    let amounts = Amounts { connections: some(9), per_second: some(9), ..Amounts::default() };
    let (now, limits) = (Instant::now(), limits(vec![], amounts));
    let open: Vec<_> = (0..100).map(|n| limits.admit(&Identity::anonymous(), ip(n)).unwrap()).collect();
    limits.tidy(now);
    assert_eq!(limits.0.clients.len(), (100, 100));
    drop(open);
    limits.tidy(now);
    assert_eq!(limits.0.clients.len(), (0, 100), "the rate still holds");
    limits.0.clock.advance(10 * SECOND);
    limits.tidy(now);
    assert_eq!(limits.0.clients.len(), (0, 0));
}

#[test]
fn a_reload_changes_amounts_and_keeps_counting() {
    let of = |n| {
        vec![key("a", Amounts { connections: some(n), bytes_per_second: NonZeroU64::new(1000), ..Amounts::default() })]
    };
    let (now, limits) = (Instant::now(), limits(of(5), Amounts::default()));
    let identity = limits.identify(ip(1), Some(b"a-secret"), now).unwrap();
    let open: Vec<_> = (0..3).map(|_| limits.admit(&identity, ip(1)).unwrap()).collect();
    limits.replace(of(3), Amounts::default(), damping());
    assert!(limits.admit(&identity, ip(1)).is_err(), "also for a client that was identified before");
    let bucket = open[0].rate().unwrap();
    drop(open);
    assert!(Arc::ptr_eq(&limits.admit(&identity, ip(1)).unwrap().rate().unwrap(), &bucket));
    limits.replace(vec![key("b", Amounts::default())], Amounts::default(), damping());
    assert_eq!(limits.identify(ip(1), Some(b"a-secret"), now).map(drop), Err(KeyRefusal::WrongKey));
}

#[test]
fn a_reload_changes_the_rate_of_addresses() {
    let rate = |n| Amounts { per_second: some(n), ..Amounts::default() };
    let limits = limits(vec![], rate(1));
    let admitted = || (0..9).filter(|_| limits.admit(&Identity::anonymous(), ip(1)).is_ok()).count();
    assert_eq!(admitted(), 1);
    limits.replace(vec![], rate(3), damping());
    assert_eq!(admitted(), 3);
    limits.replace(vec![], Amounts::default(), damping());
    assert_eq!(admitted(), 9);
}
