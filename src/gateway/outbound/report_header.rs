//! The request field `X-Exitgate-Report`: a client of plain HTTP reports with its next request that the site refused the
//! previous one, so it needs no request to exit.gate.
//!
//! The value is what went wrong, such as `banned`. The exit is the one that served the previous request of the client's
//! connection. If the client opens a new connection for each request, or sends requests to several sites through one
//! connection, it adds the exit: `banned; exit=ID`, with the value of `X-Exitgate-Exit` or `X-Exitgate-Exit-Ip` from the
//! refused answer.

use super::{AdmittedClient, Outbound, Wish};
use crate::exit::ExitId;
use crate::gateway::failure::{ClientFault, Failure};
use crate::gateway::gate::Refusal;
use crate::net::Host;

impl Outbound {
    /// Bans the exit that the report names for the site of `host`.
    pub(super) async fn take_header(
        &self,
        client: &AdmittedClient,
        wish: &Wish,
        host: &Host,
        report: &str,
        last: Option<&ExitId>,
    ) -> Result<(), Refusal> {
        let (outcome, exit) = parse(report);
        let last = last.map(ToString::to_string);
        let exit = exit.or(last.as_deref());
        let banned = self.report(client.key(), wish, host, exit, Some(outcome)).await;
        let wrong = |why| Refusal::because(Failure::Client(ClientFault::Head), format!("X-Exitgate-Report: {why}"));
        banned.map(|_| ()).map_err(|fault| wrong(fault.to_string()))
    }
}

/// Splits a report into what went wrong and the exit, if the report names one.
fn parse(report: &str) -> (&str, Option<&str>) {
    let (outcome, rest) = report.split_once(';').unwrap_or((report, ""));
    let exit = rest.trim().strip_prefix("exit=").map(str::trim).filter(|exit| !exit.is_empty());
    (outcome.trim(), exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_went_wrong_and_maybe_where() {
        for (report, want) in [
            ("banned", ("banned", None)),
            (" captcha ; exit=192.0.2.7 ", ("captcha", Some("192.0.2.7"))),
            ("banned;exit=acme:9f2c31ab44d0e1f2", ("banned", Some("acme:9f2c31ab44d0e1f2"))),
            ("banned; exit=", ("banned", None)),
            ("banned; other=1", ("banned", None)),
            ("", ("", None)),
        ] {
            assert_eq!(parse(report), want, "{report:?}");
        }
    }
}
