//! The table: every measure of every server, in alternated rounds.

use std::time::Duration;

use exitgate_bench_shared::stats::median;
use exitgate_bench_shared::table;

use crate::server::Server;
use crate::{bulk, idle, rtt, syscalls, tunnels};

/// Idle tunnels that are held at once: fewer than any peer is configured for.
const IDLE: usize = 4000;

/// How long each server runs under strace: long enough for a thousand tunnels.
const COUNTED: Duration = Duration::from_secs(2);

/// A pause before each measurement, in which the last one's connections are closed.
const PAUSE: Duration = Duration::from_millis(300);

/// One measurement: its titles, separated by `|`, and its values in one round.
type Column = (&'static str, fn(&Server, u16, Duration) -> Result<Vec<f64>, String>);

const COLUMNS: [Column; 4] = [
    ("tunnels/s | CPU µs a tunnel | failed", |server, base, span| {
        tunnels::closed(server, base, span).map(|run| vec![run.per_second, run.cpu, run.failed as f64])
    }),
    ("GiB/s down | CPU s a GiB", |server, base, span| {
        bulk::down(server, base, span).map(|run| vec![run.rate, run.cpu])
    }),
    ("GiB/s up | CPU s a GiB", |server, base, span| bulk::up(server, base, span).map(|run| vec![run.rate, run.cpu])),
    ("round trip p50 µs | p99 µs", |server, base, span| {
        rtt::ping(server, base, span).map(|run| vec![run.p50, run.p99])
    }),
];

/// Prints the table as Markdown.
pub fn print(base: u16, rounds: u32, span: Duration, servers: Vec<Server>) -> Result<(), String> {
    for (title, measure) in COLUMNS {
        let values = in_rounds(rounds, &servers, title, |server| {
            std::thread::sleep(PAUSE);
            measure(server, base, span)
        });
        print_medians(title, &servers, &values);
    }
    connect_at_half_load(base, rounds, &servers);
    idle_tunnels(base, &servers);
    system_calls(base, &servers);
    for server in &servers {
        println!("{}: nobody listens at the target: {:?}", server.name, server.refusal());
    }
    Ok(())
}

/// The rate is half of what the slowest server carries, and the same for all.
fn connect_at_half_load(base: u16, rounds: u32, servers: &[Server]) {
    let span = Duration::from_secs(3);
    let best = servers.iter().filter_map(|server| tunnels::closed(server, base, span).ok()).map(|run| run.per_second);
    let slowest = best.fold(f64::INFINITY, f64::min);
    let rate = (slowest / 2.0) as u32;
    let title = "connect p50 µs | p99 µs";
    let values = in_rounds(rounds, servers, title, |server| {
        tunnels::open(server, base, rate, span).map(|run| vec![run.p50, run.p99])
    });
    println!("\nopen loop at {rate} tunnels/s (half of what the slowest carries)");
    print_medians(title, servers, &values);
}

/// Memory does not depend on how fast the machine is now, so each server is measured once.
fn idle_tunnels(base: u16, servers: &[Server]) {
    once("KiB an idle tunnel | held | % of a core", servers, |server| {
        idle::hold(server, base, IDLE).map(|run| vec![run.kib, run.open as f64, 100.0 * run.cpu])
    });
}

fn system_calls(base: u16, servers: &[Server]) {
    once("system calls a tunnel", servers, |server| syscalls::count(server, base, COUNTED).map(|calls| vec![calls]));
}

/// The values of one server, a row for each round that did not fail.
type Rounds = Vec<Vec<f64>>;

/// Measures every server in every round, each round beginning with another server.
fn in_rounds(
    rounds: u32,
    servers: &[Server],
    title: &str,
    measure: impl Fn(&Server) -> Result<Vec<f64>, String>,
) -> Vec<Rounds> {
    let mut values = vec![Rounds::new(); servers.len()];
    for round in 0..rounds as usize {
        for number in 0..servers.len() {
            let at = (number + round) % servers.len();
            match measure(&servers[at]) {
                Ok(numbers) => values[at].push(numbers),
                Err(fault) => println!("{}: {title}: {fault}", servers[at].name),
            }
        }
    }
    values
}

/// Measures once every server that has a process, and prints the table.
fn once(title: &str, servers: &[Server], measure: impl Fn(&Server) -> Result<Vec<f64>, String>) {
    let own: Vec<Server> = servers.iter().filter(|server| server.pid.is_some()).cloned().collect();
    let values = in_rounds(1, &own, title, measure);
    print_medians(title, &own, &values);
}

fn print_medians(title: &str, servers: &[Server], values: &[Rounds]) {
    let heads: Vec<&str> = ["server"].into_iter().chain(title.split(" | ")).chain(["rounds"]).collect();
    let row = |(server, rounds): (&Server, &Rounds)| {
        let columns = rounds.first().map_or(0, Vec::len);
        let middle = |column: usize| median(&mut rounds.iter().map(|round| round[column]).collect::<Vec<_>>());
        let cells = (0..columns).map(|column| format!("{:.2}", middle(column)));
        [server.name.clone()].into_iter().chain(cells).chain([rounds.len().to_string()]).collect()
    };
    println!();
    table::print(&heads, &servers.iter().zip(values).map(row).collect::<Vec<_>>());
}
