//! `[api]`: the admin API and the console.

use std::net::SocketAddr;

use http::Uri;

use super::clash::addresses;
use super::finding::{Findings, KeyPath};
use super::schema;
use super::secret::Written;
use crate::net::{Host, Secret};

/// Where the admin API listens and who may use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// At least one address; port 0 asks for any free one.
    pub listen: Vec<SocketAddr>,
    /// May do everything.
    pub token: Option<Secret>,
    /// May read metrics, lists and statistics.
    pub read_token: Option<Secret>,
    /// Names, lower case, that the Host header may carry beside the loopback ones.
    pub hosts: Vec<Host>,
    /// Whether the web console is served.
    pub console: bool,
    /// The page that lines to paste ask.
    pub example_url: Uri,
}

impl Api {
    pub(super) fn settle(file: &schema::Api, findings: &mut Findings) -> Self {
        let table = KeyPath::from("api");
        let token =
            Written { table: &table, key: "token", inline: file.token.as_ref(), file: file.token_file.as_ref() };
        let token = token.settle(findings);
        let (inline, read_file) = (file.read_token.as_ref(), file.read_token_file.as_ref());
        let read_token = Written { table: &table, key: "read_token", inline, file: read_file }.settle(findings);
        if token.is_some() && token == read_token {
            findings.fault("api.read_token", "is the same as api.token", "give readers a token of their own");
        }
        Self {
            listen: addresses(&file.listen, "api.listen", findings),
            token,
            read_token,
            hosts: hosts(file, findings),
            console: file.console,
            example_url: file.example_url.0.clone(),
        }
    }
}

fn hosts(file: &schema::Api, findings: &mut Findings) -> Vec<Host> {
    let mut hosts = Vec::new();
    for (index, host) in file.hosts.iter() {
        match Host::parse(host) {
            Ok(host) => hosts.push(host),
            Err(why) => {
                let hint = "write a bare name or address, such as \"gate.example.com\", without http:// and port";
                findings.fault(KeyPath::from("api.hosts").index(index), format!("is {host:?}: {why}"), hint);
            }
        }
    }
    hosts
}
