//! Killed at any moment: what was acknowledged is there, and nothing is there by half.
//!
//! This very test binary is started again as a child that commits and says so on its standard output, a line a change.
//! The parent kills it at a moment of chance, opens the file, and looks for every line.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "EXITGATE_TEST_CRASH_CHILD";
const ROUNDS: usize = 60;

/// Does nothing unless [`CHILD`] names a database: then it commits until it is killed.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (store, loaded) = Store::open(Path::new(&path), Options::default()).unwrap();
    let mut stdout = std::io::stdout().lock();
    let begin = loaded.routes.len();
    for n in begin.. {
        for at in 0..20 {
            store.note(Write::Check(check_of(tor(1), "echo", at))); // so that the kill also falls on mixed batches
        }
        let name = format!("route-{n:06}");
        let ban = Ban {
            site: name.clone(),
            exit: tor(1),
            since: Moment(0),
            until: Moment(u64::MAX >> 1),
            why: String::new(),
        };
        store.commit(vec![Write::PutRoute(route(&name, None)), Write::PutBan(ban)]).await.unwrap();
        writeln!(stdout, "acknowledged {name}").unwrap();
        stdout.flush().unwrap();
    }
}

/// Runs a child for `life` and returns what it acknowledged.
fn acknowledged(path: &Path, life: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash::child_that_commits_until_it_is_killed", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(life); // the random moment is the point here: nothing is waited for
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let said = lines.map_while(Result::ok);
    let names = said.filter_map(|line| line.split_once("acknowledged ").map(|(_, name)| name.to_owned())).collect();
    killer.join().unwrap();
    names
}

#[tokio::test]
async fn no_acknowledged_change_is_missing_after_a_kill() {
    let home = Home::new();
    let mut known: Vec<String> = Vec::new();
    let mut productive = 0;
    for round in 0..ROUNDS {
        let life = Duration::from_micros(rand::random_range(2_000..120_000));
        let new = acknowledged(&home.path(), life);
        productive += usize::from(!new.is_empty());
        known.extend(new);

        let (store, loaded) = home.open();
        let routes: Vec<_> = loaded.routes.iter().map(|route| route.name.clone()).collect();
        let bans: Vec<_> = loaded.bans.iter().map(|ban| ban.site.clone()).collect();
        assert_eq!(routes, bans, "round {round}: a change was half written");
        let missing: Vec<_> = known.iter().filter(|name| routes.binary_search(name).is_err()).collect();
        assert!(missing.is_empty(), "round {round}, killed after {life:?}: acknowledged and lost: {missing:?}");
        assert_eq!(loaded.skipped, 0);
        store.close().await;
    }
    assert_eq!(check(&home.path()).unwrap().faults, Vec::<String>::new());
    assert!(productive > ROUNDS / 2 && known.len() > ROUNDS, "{productive} rounds committed {} changes", known.len());
}
