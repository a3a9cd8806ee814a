//! Reads why the gateway of a provider refuses a request, from the status and the headers of its answer. Pure.
//!
//! Providers use the same few statuses for different causes, and name the cause in headers of their own. The words below
//! are those of the documentation of Bright Data, Oxylabs, Decodo, IPRoyal, SOAX and Webshare, and those of RFC 9209
//! (`Proxy-Status`).

use crate::dial::public::http::status_result;
use crate::dial::{DialError, EngineFault, ExitFault};
use crate::exit::AccountFault;

/// The headers in which providers name the cause, in lower case.
const CAUSES: [&str; 8] = [
    "x-brd-err-code",
    "x-brd-err-msg",
    "x-brd-error-code",
    "x-luminati-error-code",
    "x-luminati-error",
    "x-error-description",
    "x-error",
    "proxy-status",
];

/// Words that mean that the provider has no peer for this country or session. Another session may get one.
const NO_PEER: [&str; 8] = [
    "no_peer",
    "no peer",
    "peer not found",
    "cooling_peers",
    "no_result",
    "no exit",
    "no available",
    "session not found",
];

/// Words that mean that the account has nothing left to spend.
const QUOTA: [&str; 8] =
    ["quota", "traffic", "bandwidth", "balance", "payment", "funds", "plan expired", "subscription"];

/// Why a provider refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The account is at fault, which says nothing about the session.
    Account(AccountFault),
    /// The session, the target or something unknown is at fault.
    Other(ExitFault),
}

impl From<Refusal> for DialError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Account(_) => EngineFault::Account.into(),
            Refusal::Other(fault) => fault.into(),
        }
    }
}

/// Maps the status and the head of an answer to success or the cause of the refusal.
pub(super) fn read(status: u16, head: &[u8]) -> Result<(), Refusal> {
    if (200..300).contains(&status) {
        return Ok(());
    }
    let cause = cause(head);
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    Err(match status {
        _ if says(&NO_PEER) => Refusal::Other(ExitFault::Unreachable),
        402 => Refusal::Account(AccountFault::Quota),
        // With other statuses, such as 429 or 503, these words mean a limit that passes by itself.
        400 | 401 | 403 | 407 if says(&QUOTA) => Refusal::Account(AccountFault::Quota),
        401 | 407 => Refusal::Account(AccountFault::Login),
        // Bright Data answers 403 for targets that it does not serve, and Oxylabs does too.
        403 => Refusal::Other(ExitFault::Policy),
        525 => Refusal::Other(ExitFault::Unreachable), // Oxylabs: no exit was found
        522 => Refusal::Other(ExitFault::Unclear),     // Oxylabs: the target did not answer in time
        _ => Refusal::Other(status_result(status).err().unwrap_or(ExitFault::Refused)),
    })
}

/// Returns the status line and the values of the headers that name a cause, in lower case.
fn cause(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default().to_owned();
    let values = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        CAUSES.contains(&name.trim()).then(|| value.trim())
    });
    std::iter::once(status.as_str()).chain(values).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_whose_fault_it_is() {
        use Refusal::{Account, Other};
        for (head, want) in [
            ("200 Connection established", Ok(())),
            ("407 Proxy Authentication Required", Err(Account(AccountFault::Login))),
            (
                "407 Auth Failed\r\nx-brd-err-code: client_10000\r\nx-brd-err-msg: wrong_password",
                Err(Account(AccountFault::Login)),
            ),
            ("402 Payment Required", Err(Account(AccountFault::Quota))),
            ("403 Forbidden\r\nX-Error-Description: Traffic limit reached", Err(Account(AccountFault::Quota))),
            ("502 Proxy Error\r\nX-BRD-Err-Msg: no_peers", Err(Other(ExitFault::Unreachable))),
            ("525 No Exit Found", Err(Other(ExitFault::Unreachable))),
            ("403 Forbidden\r\nX-Error-Description: Restricted target", Err(Other(ExitFault::Policy))),
            ("429 Too Many Requests", Err(Other(ExitFault::Overloaded))),
            ("429 Too Many Requests\r\nX-Error-Description: bandwidth exceeded", Err(Other(ExitFault::Overloaded))),
            ("502 Bad Gateway\r\nX-Traffic-Light: green", Err(Other(ExitFault::Unclear))),
            ("522 Timeout", Err(Other(ExitFault::Unclear))),
            ("400 Bad Request", Err(Other(ExitFault::Refused))),
            (
                "400 Bad Request\r\nProxy-Status: p.example; error=destination_ip_unroutable; details=\"zone quota\"",
                Err(Account(AccountFault::Quota)),
            ),
        ] {
            let status = head[..3].parse().unwrap();
            assert_eq!(read(status, format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()), want, "{head}");
        }
    }
}
