//! The program `simtor`: an engine with tor's own arguments, or the network with `simtor world`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(word) if exitgate_simtor::command::is_one(word) => exitgate_simtor::command::run(),
        _ => exitgate_simtor::tor::run(&arguments),
    }
}
