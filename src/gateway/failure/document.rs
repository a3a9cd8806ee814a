//! Compares `docs/usernames.md` with the codes and texts of all failures. A change of only one of the two fails a test.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::CONTRACT;
use super::{ClientFault, Denial, Failure};

const PAGE: &str = include_str!("../../../docs/usernames.md");

/// One line of the tables below "All failures": the heading above it, and its cells under the names of their columns.
struct Line {
    heading: &'static str,
    cells: BTreeMap<&'static str, String>,
}

/// The cells of a line of a table. A pipe in a cell is written `\|`.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|').replace(r"\|", "\0");
    line.split('|').map(|cell| cell.trim().replace('\0', "|")).collect()
}

/// The text of a section, up to the next heading of the same level.
fn section(heading: &str) -> &'static str {
    let level = heading.split(' ').next().unwrap();
    let (_, rest) = PAGE.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
    rest.split(&format!("\n{level} ")).next().unwrap()
}

/// The lines of the failure tables, by the name of the failure.
fn documented() -> BTreeMap<String, Line> {
    let (mut heading, mut columns, mut lines) = ("", Vec::new(), BTreeMap::new());
    for text in section("## All failures").lines() {
        if let Some(found) = text.strip_prefix("### ") {
            heading = found;
        } else if text.starts_with("| name |") {
            columns = text.trim_matches('|').split('|').map(str::trim).collect();
        } else if text.starts_with("| `") && !columns.is_empty() {
            let cells = cells(text);
            assert_eq!(cells.len(), columns.len(), "{text}");
            let line = Line { heading, cells: columns.iter().copied().zip(cells).collect() };
            let name = line.cells["name"].trim_matches('`').to_owned();
            assert!(lines.insert(name, line).is_none(), "two lines for one failure: {text}");
        } else if !text.starts_with('|') {
            columns.clear();
        }
    }
    lines
}

/// The heading under which a failure stands. It says who is at fault.
fn heading(failure: Failure) -> &'static str {
    match failure {
        Failure::Client(_) => "Your request",
        Failure::Auth(_) | Failure::Denied(_) | Failure::Limited(_) => "Key, permission, limit",
        Failure::NoExit(_) => "No exit",
        Failure::Engine(_) | Failure::Deadline | Failure::Draining => "Tor and this machine",
        Failure::Exit(_) => "The exit",
        Failure::Target(_) => "The target",
        Failure::Answer(_) => "The answer of the target",
    }
}

/// Returns whether a client can see the HTTP status, and whether it can see the SOCKS5 code. The other one is a dash in
/// the table.
fn seen(failure: Failure) -> (bool, bool) {
    match failure {
        // The client speaks TLS or sends no PROXY header, or is gone: no answer would reach it.
        Failure::Client(ClientFault::Tls | ClientFault::ProxyHeader | ClientFault::Left) => (false, false),
        Failure::Client(ClientFault::Command | ClientFault::AddressType) => (false, true),
        Failure::Client(
            ClientFault::Head
            | ClientFault::HeadTooLarge
            | ClientFault::Version
            | ClientFault::Body
            | ClientFault::Scheme
            | ClientFault::Expectation,
        ) => (true, false),
        _ => (true, true),
    }
}

/// The replies that a SOCKS5 client can get for a failure, as the table writes them. A failure that is noticed before
/// the request refuses the method (`05 FF`) or the credentials (`01 01`).
fn socks5(failure: Failure) -> Vec<String> {
    let code = failure.socks5().to_string();
    let texts: Vec<&str> = match failure {
        Failure::Auth(super::AuthFault::Wrong) => vec!["`01 01`"],
        Failure::Auth(_) => vec!["`05 FF`", "`01 01`"],
        Failure::Denied(Denial::Address) | Failure::Limited(_) => vec![&code, "`01 01`"],
        _ => vec![&code],
    };
    texts.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_page_lists_each_failure_with_its_codes_its_text_and_whose_fault_it_is() {
    let lines = documented();
    let names: BTreeSet<&str> = CONTRACT.iter().map(|row| row.0.label()).collect();
    let on_page: BTreeSet<&str> = lines.keys().map(String::as_str).collect();
    assert_eq!(on_page, names, "left: docs/usernames.md, right: src/gateway/failure/rows.rs");
    for &(failure, ..) in CONTRACT {
        let line = &lines[failure.label()];
        let (http, socks) = seen(failure);
        let dash = |seen: bool, text: String| if seen { text } else { "–".to_owned() };
        assert_eq!(line.heading, heading(failure), "{failure:?} stands under another heading");
        assert_eq!(line.cells["HTTP"], dash(http, failure.status().to_string()), "{failure:?}: HTTP");
        let token = if http || socks { format!("`{}`", failure.token()) } else { "–".to_owned() };
        let token = if matches!(failure, Failure::Client(_)) { dash(http, token) } else { token };
        assert_eq!(line.cells["error"], token, "{failure:?}: error");
        assert_eq!(line.cells["text"].replace(r"\`", "`"), failure.sentence(), "{failure:?}: text");
        match failure {
            Failure::Answer(_) => assert!(!line.cells.contains_key("SOCKS5"), "only plain HTTP can fail so"),
            _ => assert_eq!(line.cells["SOCKS5"], dash(socks, socks5(failure).join(", ")), "{failure:?}: SOCKS5"),
        }
        if let (Failure::Engine(_), Some(pause)) = (failure, failure.retry_after()) {
            let advice = &line.cells["what to do"];
            let seconds = format!("`Retry-After` ({} s)", pause.as_secs());
            assert!(advice.contains(&seconds), "{failure:?}: {advice:?} does not say {seconds}");
        }
    }
}

#[test]
fn the_page_explains_each_status_and_each_code() {
    let first_cells = |heading: &str| -> BTreeSet<String> {
        section(heading).lines().filter(|line| line.starts_with("| ")).map(|line| cells(line).remove(0)).collect()
    };
    let (statuses, codes) = (first_cells("## HTTP statuses"), first_cells("## SOCKS reply codes"));
    for &(failure, ..) in CONTRACT {
        let (http, socks) = seen(failure);
        let status = failure.status().to_string();
        assert!(!http || statuses.contains(&status), "{failure:?}: {status} is not in the table of statuses");
        for code in socks5(failure).into_iter().filter(|_| socks) {
            assert!(codes.contains(&code), "{failure:?}: {code} is not in the tables of SOCKS5 codes");
        }
        let socks4 = if matches!(failure, Failure::Auth(_)) { 0x5D } else { 0x5B };
        assert_eq!(failure.socks4(), socks4, "{failure:?}: docs/usernames.md says another SOCKS4 code");
    }
    let socks4 = "**SOCKS4 and 4a**: 0x5A is success, 0x5D a missing or wrong key, 0x5B every other failure.";
    assert!(section("## SOCKS reply codes").contains(socks4), "the sentence about SOCKS4 has changed");
}
