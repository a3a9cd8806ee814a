//! A process is killed at a random moment: its acknowledged commits must be in the file, and no commit may be there
//! partly.
//!
//! The test starts its own test binary again as a child process. The child commits changes, and writes one line to its
//! standard output after each commit. The parent kills the child at a random moment, opens the file, and looks for the
//! change of every line.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

const CHILD: &str = "EXITGATE_TEST_CRASH_CHILD";
const ROUNDS: usize = 60;

/// Does nothing unless the environment variable [`CHILD`] contains the path of a database. Then this test commits until
/// it is killed.
#[tokio::test]
async fn child_that_commits_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let (store, loaded) = Store::open(Path::new(&path), Options::default()).unwrap();
    let mut stdout = std::io::stdout().lock();
    let begin = loaded.routes.len();
    for n in begin.. {
        for at in 0..20 {
            // some notes, so the kill can also hit a batch of commits and notes
            store.note(Write::Check(check_of(tor(1), "echo", at)));
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

/// Runs a child process for the time `life`, and returns what the child acknowledged.
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
        std::thread::sleep(life); // this is no wait for a condition: the test needs a random moment
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
