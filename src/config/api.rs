//! `[api]`: the admin API and the console.

use std::net::SocketAddr;

use http::Uri;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::listen_address::addresses;
use super::schema;
use super::secret::SecretKeys;
use crate::net::{Host, Secret};

/// The settings of `[api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The addresses that the API listens on, at least one. Port 0 means any free port.
    pub listen: Vec<SocketAddr>,
    /// The token that allows every request.
    pub token: Option<Secret>,
    /// The token that allows only to read metrics, lists and statistics.
    pub read_token: Option<Secret>,
    /// Host names in lower case that are accepted in the Host header. Loopback names are always accepted.
    pub hosts: Vec<Host>,
    pub console: bool,
    /// The URL of the page that the example commands in the API and the console fetch.
    pub example_url: Uri,
}

impl Api {
    pub(super) fn validate(file: &schema::Api, findings: &mut Findings) -> Self {
        let table = KeyPath::from("api");
        let token =
            SecretKeys { table: &table, key: "token", inline: file.token.as_ref(), file: file.token_file.as_ref() };
        let token = token.validate(findings);
        let (inline, read_file) = (file.read_token.as_ref(), file.read_token_file.as_ref());
        let read_token = SecretKeys { table: &table, key: "read_token", inline, file: read_file }.validate(findings);
        if token.is_some() && token == read_token {
            findings.fault("api.read_token", "is the same as api.token", "write a different token");
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
                let hint = "write a host name or address alone, such as \"gate.example.com\", without http:// and port";
                findings.fault(KeyPath::from("api.hosts").index(index), format!("is {host:?}: {why}"), hint);
            }
        }
    }
    hosts
}
