//! The table: every measure of every server, in alternated rounds.

use std::time::Duration;

use crate::server::Server;
use crate::stats::median;
use crate::{bulk, idle, rtt, speak, syscalls, tunnels};

/// Idle tunnels that are held at once. Arbitrary: below what every peer is configured for.
const IDLE: usize = 4000;

/// How long each server is counted under strace: long enough for a thousand tunnels.
const COUNTED: Duration = Duration::from_secs(2);

/// One column: its title and its value in one round.
type Column = (&'static str, fn(&Server, u16, Duration) -> Result<Vec<f64>, String>);

/// Columns with more than one number have one title for each, by `/`.
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
        let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); servers.len()];
        for round in 0..rounds as usize {
            for turn in 0..servers.len() {
                let at = (turn + round) % servers.len();
                match measure(&servers[at], base, span) {
                    Ok(numbers) => values[at].push(numbers),
                    Err(fault) => println!("{}: {title}: {fault}", servers[at].name),
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        }
        tell(title, &servers, &values);
    }
    connect_at_half_load(base, rounds, &servers);
    idle_tunnels(base, &servers);
    system_calls(base, &servers);
    for server in &servers {
        println!("{}: a closed port is answered with {:?}", server.name, speak::refusal(server));
    }
    Ok(())
}

/// Half the load is half of what the slowest server carries, so that the same rate is fair to all.
fn connect_at_half_load(base: u16, rounds: u32, servers: &[Server]) {
    let span = Duration::from_secs(3);
    let best = servers.iter().filter_map(|server| tunnels::closed(server, base, span).ok()).map(|run| run.per_second);
    let slowest = best.fold(f64::INFINITY, f64::min);
    let rate = (slowest / 2.0) as u32;
    let mut values: Vec<Vec<Vec<f64>>> = vec![Vec::new(); servers.len()];
    for round in 0..rounds as usize {
        for turn in 0..servers.len() {
            let at = (turn + round) % servers.len();
            if let Ok(run) = tunnels::open(&servers[at], base, rate, span) {
                values[at].push(vec![run.p50, run.p99]);
            }
        }
    }
    println!("\nopen loop at {rate} tunnels/s (half of what the slowest carries)");
    tell("connect p50 µs | p99 µs", servers, &values);
}

/// Idle tunnels of each server that is one process tree of its own: memory is not a matter of mood, so once is enough.
fn idle_tunnels(base: u16, servers: &[Server]) {
    let own: Vec<Server> = servers.iter().filter(|server| server.pid.is_some()).cloned().collect();
    let hold = |server: &Server| match idle::hold(server, base, IDLE) {
        Ok(run) => vec![vec![run.kib, run.open as f64, 100.0 * run.cpu]],
        Err(fault) => {
            println!("{}: idle tunnels: {fault}", server.name);
            Vec::new()
        }
    };
    let values: Vec<_> = own.iter().map(hold).collect();
    tell("KiB an idle tunnel | held | % of a core", &own, &values);
}

/// A count, and no matter of mood either.
fn system_calls(base: u16, servers: &[Server]) {
    let own: Vec<Server> = servers.iter().filter(|server| server.pid.is_some()).cloned().collect();
    let count = |server: &Server| match syscalls::count(server, base, COUNTED) {
        Ok(calls) => vec![vec![calls]],
        Err(fault) => {
            println!("{}: system calls: {fault}", server.name);
            Vec::new()
        }
    };
    let values: Vec<_> = own.iter().map(count).collect();
    tell("system calls a tunnel", &own, &values);
}

fn tell(title: &str, servers: &[Server], values: &[Vec<Vec<f64>>]) {
    println!("\n| server | {title} | rounds |\n|---|{}---|", "---|".repeat(title.split('|').count()));
    for (server, rounds) in servers.iter().zip(values) {
        let columns = rounds.first().map_or(0, Vec::len);
        let middle = |column: usize| median(&mut rounds.iter().map(|round| round[column]).collect::<Vec<_>>());
        let cells: String = (0..columns).map(|column| format!(" {:.2} |", middle(column))).collect();
        println!("| {} |{cells} {} |", server.name, rounds.len());
    }
}
