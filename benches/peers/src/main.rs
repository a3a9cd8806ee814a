//! Loads exitgate and its peers on loopback and prints one table.
//!
//! One process is the load and one is the target. Both use little CPU (one thread, edge-triggered, no allocation for each tunnel),
//! because on a small machine their CPU time is taken from the server under test. The servers are loaded alternately, round after
//! round, and the table shows the median of the rounds: how fast the machine is changes by the minute, and a server that is measured
//! alone in a fast minute would win unfairly.
//!
//! Next: `run.sh` starts the servers and calls `table`; `benches/README.md` says how to read the result.
#![expect(clippy::print_stdout, reason = "the table is this program's output")]

mod bulk;
mod idle;
mod rtt;
mod server;
mod syscalls;
mod table;
mod target;
mod tunnels;

use std::process::ExitCode;
use std::time::Duration;

use crate::server::Server;

const USAGE: &str = "\
peers target BASE                       echo on BASE, source on BASE+1, sink on BASE+2 (all on 127.0.0.1)
peers table  BASE ROUNDS SECONDS SERVER…
peers tunnels|open|bulk|upload|rtt|idle|syscalls BASE AMOUNT SERVER…
peers refused BASE SERVER…              the answer when nobody listens at the target
SERVER is NAME=KIND@ADDRESS[#PID], KIND is socks5 | http | plain (plain: three ports from ADDRESS on are relayed to three from BASE on)
AMOUNT: seconds; for open, tunnels a second; for idle, tunnels";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("{fault}");
            ExitCode::from(64)
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    let (what, base) = match words {
        [what, base, ..] => (*what, base.parse::<u16>().map_err(|_| USAGE)?),
        _ => return Err(USAGE.into()),
    };
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u32>().ok()).ok_or(USAGE);
    let servers = |from: usize| -> Result<Vec<Server>, String> {
        words.get(from..).unwrap_or_default().iter().map(|word| Server::parse(word)).collect()
    };
    let seconds = |number: u32| Duration::from_secs(number.into());
    match what {
        "target" => target::serve(base).map_err(|fault| fault.to_string()),
        "table" => table::print(base, number(2)?, seconds(number(3)?), servers(4)?),
        "refused" => one_by_one(servers(2)?, Server::refusal),
        "tunnels" => one_by_one(servers(3)?, |server| tunnels::closed(server, base, seconds(number(2)?))),
        "open" => one_by_one(servers(3)?, |server| tunnels::open(server, base, number(2)?, Duration::from_secs(4))),
        "bulk" => one_by_one(servers(3)?, |server| bulk::down(server, base, seconds(number(2)?))),
        "upload" => one_by_one(servers(3)?, |server| bulk::up(server, base, seconds(number(2)?))),
        "rtt" => one_by_one(servers(3)?, |server| rtt::ping(server, base, seconds(number(2)?))),
        "syscalls" => one_by_one(servers(3)?, |server| syscalls::count(server, base, seconds(number(2)?))),
        "idle" => one_by_one(servers(3)?, |server| idle::hold(server, base, number(2)? as usize)),
        _ => Err(USAGE.into()),
    }
}

fn one_by_one<T: std::fmt::Debug>(
    servers: Vec<Server>,
    measure: impl Fn(&Server) -> Result<T, String>,
) -> Result<(), String> {
    for server in &servers {
        match measure(server) {
            Ok(outcome) => println!("{:12} {outcome:?}", server.name),
            Err(fault) => println!("{:12} FAILED: {fault}", server.name),
        }
    }
    Ok(())
}
