//! Tests with a file that fails: full disk, locked, read-only. No acknowledged write is lost, callers get an error, and
//! the store writes again when the file can be written again.

use std::future::Future;
use std::task::Poll;

use super::*;

async fn meddle(store: &Store, meddle: fn(&rusqlite::Connection)) {
    store.jobs.send(Job::Meddle(meddle)).await.unwrap();
}

fn big_note(n: u64) -> Write {
    Write::Check(Check { detail: "x".repeat(2000), ..check_of(tor(1), "echo", n) })
}

fn failing(fault: &Fault) -> impl Fn(&Health) -> bool + '_ {
    move |health| matches!(health, Health::Failing { fault: now, .. } if now == fault)
}

#[tokio::test]
async fn on_a_full_disk_commits_are_refused_and_notes_kept_until_there_is_room() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutRoute(route("before", None))]).await.unwrap();
    meddle(&store, |db| db.pragma_update(None, "max_page_count", 1).unwrap()).await;

    let large = || Write::PutMeta("large", "x".repeat(100_000));
    assert_eq!(store.commit(vec![large()]).await, Err(StoreError::Refused(Fault::Full)));
    (0..50).for_each(|n| store.note(big_note(n)));
    healthy(&store, |health| matches!(health, Health::Failing { fault: Fault::Full, behind: 50, .. })).await;
    let small = store.commit(vec![Write::PutRoute(route("small", None))]).await;
    assert_eq!(small, Ok(()), "a commit that fits is written although notes wait");

    meddle(&store, |db| db.pragma_update(None, "max_page_count", 1_000_000).unwrap()).await;
    healthy(&store, |health| *health == Health::Ok).await;
    store.commit(vec![large()]).await.unwrap();
    let history = store.checks(&tor(1), None, Page { limit: 100, before: None }).await.unwrap();
    assert_eq!(history.len(), 50, "kept notes are written when there is room");
    store.close().await;
    let names: Vec<_> = home.open().1.routes.into_iter().map(|route| route.name).collect();
    assert_eq!(names, ["before", "small"]);
}

fn pin_to(exit: ExitId) -> PinRecord {
    PinRecord {
        holder: Holder { key: "team-a".into(), scope: "us-strict".into(), session: None },
        to: Pinned { exit, ip: [203, 0, 113, 7].into() },
        made: Moment(2),
        used: Moment(3),
        term: Term { span: Duration::from_secs(30 * 86_400), fixed: false },
        exclusive: false,
    }
}

#[tokio::test]
async fn a_note_that_waits_for_the_disk_does_not_undo_a_later_commit() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutPin(pin_to(tor(1)))]).await.unwrap();
    meddle(&store, |db| db.pragma_update(None, "max_page_count", 1).unwrap()).await;
    let large = Write::PutMeta("large", "x".repeat(100_000));
    assert_eq!(store.commit(vec![large]).await, Err(StoreError::Refused(Fault::Full)));
    store.note(Write::PutPin(pin_to(tor(2)))); // this note is older than the next commit of the same pin
    (0..50).for_each(|n| store.note(big_note(n)));
    healthy(&store, |health| matches!(health, Health::Failing { behind: 51, .. })).await;
    assert_eq!(store.commit(vec![Write::PutPin(pin_to(tor(3)))]).await, Ok(()), "a commit that fits is written");
    meddle(&store, |db| db.pragma_update(None, "max_page_count", 1_000_000).unwrap()).await;
    healthy(&store, |health| *health == Health::Ok).await;
    store.close().await;
    let pins: Vec<_> = home.open().1.pins.into_iter().map(|pin| pin.to.exit).collect();
    assert_eq!(pins, [tor(3)], "the acknowledged pin is the one that a restart finds");
}

#[tokio::test]
async fn a_read_only_file_is_reported_and_used_again_when_it_is_writable() {
    let home = Home::new();
    let (store, _) = home.open();
    meddle(&store, |db| db.pragma_update(None, "query_only", true).unwrap()).await;
    let refused = store.commit(vec![Write::PutRoute(route("a", None))]).await;
    assert_eq!(refused, Err(StoreError::Refused(Fault::ReadOnly)));
    healthy(&store, failing(&Fault::ReadOnly)).await;
    let page = Page { limit: 9, before: None };
    assert_eq!(store.checks(&tor(1), None, page).await, Ok(vec![]), "queries still work");
    meddle(&store, |db| db.pragma_update(None, "query_only", false).unwrap()).await;
    healthy(&store, |health| *health == Health::Ok).await;
    assert_eq!(store.commit(vec![Write::PutRoute(route("a", None))]).await, Ok(()));
}

#[tokio::test]
async fn a_store_without_its_file_refuses_commits_and_keeps_nothing() {
    let home = Home::new();
    let store = Store::refusing(&home.path(), Fault::Corrupt, Options::default()).unwrap();
    let second = Store::refusing(&home.path(), Fault::Corrupt, Options::default());
    assert!(matches!(second, Err(StoreError::InUse { .. })), "one gateway at a time, also beside a damaged file");
    let refused = store.commit(vec![Write::PutRoute(route("a", None))]).await;
    assert_eq!(refused, Err(StoreError::Refused(Fault::Corrupt)));
    store.note(big_note(1));
    assert!(failing(&Fault::Corrupt)(&store.health.borrow()));
    assert!(store.checks(&tor(1), None, Page { limit: 9, before: None }).await.is_err());
    store.close().await;
    assert_eq!(store.commit(vec![]).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn another_processs_lock_is_waited_for_and_then_reported() {
    let home = Home::new();
    let (store, _) = home.open();
    meddle(&store, |db| db.busy_timeout(Duration::from_millis(20)).unwrap()).await;
    store.commit(vec![]).await.unwrap();
    let other = raw(&home.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.commit(vec![Write::PutRoute(route("a", None))]).await;
    assert_eq!(refused, Err(StoreError::Refused(Fault::Locked)));
    store.note(Write::PutRoute(route("b", None)));
    healthy(&store, failing(&Fault::Locked)).await;
    other.execute_batch("ROLLBACK").unwrap();
    healthy(&store, |health| *health == Health::Ok).await;
    store.close().await;
    assert_eq!(home.open().1.routes, [route("b", None)], "the note was kept, the refused commit was not written");
}

#[tokio::test]
async fn a_file_that_is_locked_at_the_start_is_still_read() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutRoute(route("a", None))]).await.unwrap();
    store.close().await;
    let other = raw(&home.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (store, loaded) = home.open();
    assert_eq!(loaded.routes, [route("a", None)]);
    assert!(failing(&Fault::Locked)(&store.health.borrow()));
}

#[tokio::test]
async fn a_full_queue_drops_notes_and_leaves_room_for_changes() {
    let home = Home::new();
    let (store, _) = Store::open(&home.path(), Options { queue: 64, ..Options::default() }).unwrap();
    let other = raw(&home.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap(); // the writer waits two seconds for this lock
    let mut first = std::pin::pin!(store.commit(vec![Write::PutRoute(route("first", None))]));
    assert!(std::future::poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await);
    let queued = || store.jobs.max_capacity() - store.jobs.capacity();
    while queued() > 0 {
        tokio::task::yield_now().await; // until the writer has received the commit and waits for the lock
    }
    (0..1000).for_each(|at| store.note(Write::Check(check_of(tor(1), "echo", at))));
    assert_eq!(queued(), 64 - 64 / FOR_CHANGES);
    let second = store.commit(vec![Write::PutRoute(route("second", None))]);
    let unlock = async { other.execute_batch("ROLLBACK").unwrap() };
    assert_eq!(tokio::join!(first, second, unlock), (Ok(()), Ok(()), ()));
    let history = store.checks(&tor(1), None, Page { limit: 1000, before: None }).await.unwrap();
    assert_eq!(history.len(), 56);
}

#[tokio::test]
async fn a_disk_that_hangs_refuses_commits_after_a_deadline_and_nothing_of_them_stays() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![Write::PutRoute(route("before", None))]).await.unwrap();
    meddle(&store, |db| db.busy_timeout(Duration::from_secs(3600)).unwrap()).await;
    let other = raw(&home.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap(); // the writer hangs at this lock
    tokio::time::pause(); // from here on, each deadline passes as soon as nothing else happens
    let hung = || Err(StoreError::Refused(Fault::Hung));
    while !store.stall.hangs() {
        assert_eq!(store.commit(vec![Write::PutRoute(route("refused", None))]).await, hung());
    }
    assert_eq!(store.commit(vec![Write::PutRoute(route("refused", None))]).await, hung(), "and now without a wait");
    let late = store.commit_or_note(Duration::from_secs(1), || vec![Write::PutPin(pin_to(tor(1)))]).await;
    assert_eq!(late, hung());
    store.note(Write::PutRoute(route("noted", None)));
    tokio::time::resume();
    other.execute_batch("ROLLBACK").unwrap();
    while store.stall.hangs() {
        tokio::task::yield_now().await;
    }
    store.commit(vec![Write::PutRoute(route("after", None))]).await.unwrap();
    store.close().await;
    let (_store, loaded) = home.open();
    let names: Vec<_> = loaded.routes.into_iter().map(|route| route.name).collect();
    assert_eq!(names, ["after", "before", "noted"], "refused changes are not written when the disk answers");
    assert_eq!(loaded.pins, [pin_to(tor(1))], "a pin is written late, and not lost");
}

#[tokio::test]
async fn a_pin_that_fails_to_be_written_does_not_overwrite_its_newer_state() {
    let home = Home::new();
    let (store, _) = home.open();
    meddle(&store, |db| db.pragma_update(None, "query_only", true).unwrap()).await;
    let older = || vec![Write::PutPin(pin_to(tor(1)))];
    assert_eq!(store.commit_or_note(Duration::from_secs(20), older).await, Err(StoreError::Refused(Fault::ReadOnly)));
    store.note(Write::PutPin(pin_to(tor(2))));
    healthy(&store, |health| matches!(health, Health::Failing { behind: 2, .. })).await;
    meddle(&store, |db| db.pragma_update(None, "query_only", false).unwrap()).await;
    healthy(&store, |health| *health == Health::Ok).await;
    store.close().await;
    assert_eq!(home.open().1.pins, [pin_to(tor(2))]);
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_disk_that_hangs() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit(vec![]).await.unwrap();
    meddle(&store, |db| db.busy_timeout(Duration::from_secs(3600)).unwrap()).await;
    let other = raw(&home.path());
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    tokio::time::pause();
    while !store.stall.hangs() {
        let _ = store.commit(vec![]).await; // the loop ends when the store has noticed that the disk hangs
    }
    store.close().await;
    other.execute_batch("ROLLBACK").unwrap();
}
