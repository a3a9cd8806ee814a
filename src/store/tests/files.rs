//! Tests of the database file: versions, damage, copies, moving the file aside, and the indexes that queries need.

use std::io::{Seek, SeekFrom, Write as _};

use super::*;

/// A database as schema version 1 wrote it, with a row in every table. Never edit this file: it stands for the files
/// that users have.
const VERSION_1: &str = include_str!("../../../tests/data/store-v1.sql");

fn opened(path: &Path) -> Result<Loaded, StoreError> {
    Store::open(path, Options::default()).map(|(_, loaded)| loaded)
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date() {
    let home = Home::new();
    raw(&home.path()).execute_batch(VERSION_1).unwrap();
    let loaded = opened(&home.path()).unwrap();
    let (_, mut wanted) = one_of_each();
    wanted.meta = loaded.meta.clone();
    // Sets the fields that schema version 1 did not have.
    let Public { login, through, several, asked, passed, .. } = &mut wanted.public[0];
    (*login, *through, *several, *asked, *passed) = (None, Through::Direct, false, 0, 0);
    (wanted.keys, wanted.key_usage) = (Vec::new(), Vec::new());
    assert_eq!(loaded, wanted);
    assert_eq!(check(&home.path()).unwrap().faults, Vec::<String>::new());
}

#[test]
fn a_newer_file_is_left_alone() {
    let home = Home::new();
    raw(&home.path()).execute_batch("CREATE TABLE future (x); PRAGMA user_version = 99").unwrap();
    let before = std::fs::read(home.path()).unwrap();
    let refused = opened(&home.path()).unwrap_err();
    assert!(matches!(refused, StoreError::Newer { theirs: 99, .. }), "{refused}");
    let (mut before, mut after) = (before, std::fs::read(home.path()).unwrap());
    // These bytes may differ and are not compared: bytes 18 and 19 of the file say that there is a write-ahead log, and
    // bytes 24 to 27 and 92 to 99 count changes of the file.
    for bytes in [&mut before, &mut after] {
        bytes[18..20].fill(0);
        bytes[24..28].fill(0);
        bytes[92..100].fill(0);
    }
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_skipped_and_counted() {
    let home = Home::new();
    home.open().0.close().await;
    let edit = "INSERT INTO bans VALUES ('a.test', 'no exit at all', 1, 2, ''), ('b.test', 'direct', 1, 2, '')";
    raw(&home.path()).execute_batch(edit).unwrap();
    let loaded = opened(&home.path()).unwrap();
    assert_eq!((loaded.bans.len(), loaded.skipped), (1, 1));
}

#[tokio::test]
async fn damage_is_reported_and_the_file_is_moved_only_on_request() {
    let home = Home::new();
    std::fs::write(home.path(), "this is no database, it is a love letter".repeat(500)).unwrap();
    let refused = opened(&home.path()).unwrap_err();
    assert_eq!(refused, StoreError::Open { path: home.path(), fault: Fault::Corrupt });
    assert!(refused.to_string().contains("store reset"), "{refused}");
    assert!(std::fs::read_to_string(home.path()).unwrap().contains("love letter"));
    let aside = set_aside(&home.path()).unwrap();
    assert!(std::fs::read_to_string(aside).unwrap().contains("love letter"));
    assert_eq!(opened(&home.path()).unwrap().routes, []);
}

#[tokio::test]
async fn a_check_finds_a_damaged_page() {
    let home = Home::new();
    let (store, _) = home.open();
    let filler = |n: u64| Write::Check(Check { detail: "y".repeat(500), ..check_of(tor(1), "echo", n) });
    store.commit((0..200).map(filler).collect()).await.unwrap();
    assert_eq!(check(&home.path()).unwrap().faults, Vec::<String>::new(), "beside a gateway at work");
    store.close().await;
    let mut file = std::fs::OpenOptions::new().write(true).open(home.path()).unwrap();
    file.seek(SeekFrom::End(-3 * 4096)).unwrap();
    file.write_all(&[0xA5; 4096]).unwrap();
    let faults = check(&home.path()).map_or_else(|error| vec![error.to_string()], |report| report.faults);
    assert!(!faults.is_empty());
}

#[tokio::test]
async fn a_backup_is_whole_and_overwrites_nothing() {
    let home = Home::new();
    let (store, _) = home.open();
    let (writes, wanted) = one_of_each();
    store.commit(writes).await.unwrap();
    let copy = home.0.path().join("copy.db");
    let size = backup(&home.path(), &copy).unwrap();
    assert_eq!(size, std::fs::metadata(&copy).unwrap().len());
    assert_eq!(opened(&copy).unwrap(), wanted);
    assert_eq!(backup(&home.path(), &copy), Err(StoreError::Exists { path: copy.clone() }));
    assert!(backup(&home.0.path().join("none.db"), &home.0.path().join("c.db")).is_err());
    assert!(!home.0.path().join("c.db.partial").exists());
}

#[test]
fn every_query_has_its_index() {
    let home = Home::new();
    let _store = home.open();
    let db = raw(&home.path());
    for (sql, index) in [
        ("SELECT * FROM checks WHERE exit = 1 AND id < 9 ORDER BY id DESC LIMIT 9", "checks_of_exit"),
        ("SELECT id FROM checks WHERE exit = 1 ORDER BY id DESC LIMIT 1 OFFSET 99", "checks_of_exit"),
        ("SELECT id FROM checks WHERE at < 9 ORDER BY at LIMIT 9", "checks_by_age"),
        ("DELETE FROM bans WHERE until <= 9", "bans_by_end"),
        ("DELETE FROM sessions WHERE ends <= 9", "sessions_by_end"),
    ] {
        let explain = format!("EXPLAIN QUERY PLAN {sql}");
        let plan: Vec<String> =
            db.prepare(&explain).unwrap().query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{sql} sorts: {plan:?}");
    }
}

#[tokio::test]
async fn old_checks_are_deleted() {
    let home = Home::new();
    let (store, _) = home.open();
    store.commit((1..=10).map(|at| Write::Check(check_of(tor(1), "echo", at))).collect()).await.unwrap();
    let db = raw(&home.path());
    assert_eq!(super::super::checks::forget(&db, Moment(8), 4).unwrap(), 4);
    assert_eq!(super::super::checks::forget(&db, Moment(8), 4).unwrap(), 3);
    assert_eq!(super::super::checks::forget(&db, Moment(8), 4).unwrap(), 0);
    let left = store.checks(&tor(1), None, Page { limit: 99, before: None }).await.unwrap();
    assert_eq!(left.len(), 3);
}
