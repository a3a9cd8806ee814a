//! `[[sources.upstream]]`: proxies that the operator owns or pays for.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::choice::UpstreamKind;
use super::findings::Findings;
use super::key_path::KeyPath;
use super::secret::{Hidden, check_file, is_open};
use super::text_value::List;
use super::upstream_gateway::{self, UpstreamGateway};
use super::{schema, tls};
use crate::exit::upstream::{LONGEST_NAME, UpstreamName};
use crate::net::Secret;

/// A source of exits of one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub name: UpstreamName,
    /// Where the proxies come from.
    pub proxies: ProxiesFrom,
    /// The URL scheme of entries that have none: `http`, `https` (TLS to the proxy), `socks4` or `socks5`.
    pub scheme: &'static str,
    /// True if the proxies may have private addresses.
    pub allow_private: bool,
    /// A file with certificates that are trusted for TLS connections to the proxies, in addition to the public roots.
    pub ca_file: Option<PathBuf>,
}

/// Where a list of proxies is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxiesFrom {
    /// The entries are in the configuration.
    Here(Vec<Secret>),
    /// The list is a file, which is read again when it changes.
    File(PathBuf),
    /// The list is fetched. The URL is a secret, because the URLs of sellers contain a token.
    Url { url: Secret, every: Duration },
    /// The gateway of a provider, where each session is an exit.
    Gateway(Box<UpstreamGateway>),
}

/// Validates the upstream sources. `taken` are the names of the other sources.
pub(super) fn validate(
    written: &List<schema::SourceUpstream>,
    taken: &[&str],
    findings: &mut Findings,
) -> Vec<Upstream> {
    let mut all: Vec<Upstream> = Vec::new();
    for (index, source) in written.iter() {
        let at = KeyPath::from("sources.upstream").index(index);
        let name = name(source, &at, taken, &all, findings);
        let proxies = match source.kind {
            UpstreamKind::List => {
                upstream_gateway::refuse_keys(source, &at, findings);
                proxies_from(source, &at, findings)
            }
            UpstreamKind::Gateway => {
                upstream_gateway::validate(source, &at, findings).map(|gateway| ProxiesFrom::Gateway(Box::new(gateway)))
            }
        };
        if let Some(path) = &source.ca_file {
            tls::certificates(findings, &at.key("ca_file"), path);
        }
        let (Some(name), Some(proxies)) = (name, proxies) else { continue };
        let (scheme, ca_file) = (source.protocol.as_str(), source.ca_file.clone());
        all.push(Upstream { name, proxies, scheme, allow_private: source.allow_private, ca_file });
    }
    all
}

fn name(
    source: &schema::SourceUpstream,
    at: &KeyPath,
    taken: &[&str],
    earlier: &[Upstream],
    findings: &mut Findings,
) -> Option<UpstreamName> {
    let at = at.key("name");
    let Some(text) = &source.name else {
        findings.fault(at, "is missing", "write name = \"acme\": usernames say it as `source-acme`");
        return None;
    };
    let Some(name) = UpstreamName::configured(text) else {
        let hint = format!(
            "use up to {LONGEST_NAME} lower-case letters, digits and `_`, a letter first; the names of other sources are taken"
        );
        findings.fault(at, format!("is {text:?}"), hint);
        return None;
    };
    if earlier.iter().any(|other| other.name == name) || taken.contains(&text.as_str()) {
        findings.fault(at, format!("is {text:?}, which another source has already"), "choose another name");
    }
    Some(name)
}

/// Returns where the list of proxies is. Reports a fault unless exactly one of the three keys is set.
fn proxies_from(source: &schema::SourceUpstream, at: &KeyPath, findings: &mut Findings) -> Option<ProxiesFrom> {
    let given = [!source.proxies.is_empty(), source.file.is_some(), source.url.is_some()];
    match given.into_iter().filter(|given| *given).count() {
        1 => {}
        0 => {
            let hint =
                "write proxies = [\"http://user:password@host:port\"], or file = \"/path\", or url = \"https://…\"";
            findings.fault(at.key("proxies"), "is missing", hint);
            return None;
        }
        _ => {
            findings.fault(at, "has more than one of `proxies`, `file` and `url`", "keep one of them");
            return None;
        }
    }
    if let Some(path) = &source.file {
        let at = at.key("file");
        check_file(findings, &at, path);
        if is_open(path) {
            let what = format!("names {}, which every user of this machine can read", path.display());
            findings.warn(&at, what, format!("chmod 600 {}: it contains logins", path.display()));
        }
        return Some(ProxiesFrom::File(path.clone()));
    }
    if let Some(Hidden(url)) = &source.url {
        let is_url = |uri: Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
        if !url.expose().parse::<Uri>().is_ok_and(is_url) {
            // The report does not show the value, because it may contain a token.
            findings.fault(at.key("url"), "is not a URL", "write url = \"https://…\"");
        }
        return Some(ProxiesFrom::Url { url: url.clone(), every: source.every.0 });
    }
    let key = at.key("proxies");
    let entries: Vec<Secret> = source.proxies.iter().map(|(_, Hidden(entry))| entry.clone()).collect();
    let has_login = |entry: &Secret| {
        let text = entry.expose();
        text.contains('@')
    };
    if entries.iter().any(has_login) && findings.in_open_file(&key) {
        let hint = "chmod 600 the file, or keep the proxies in a file of their own (`file`)";
        findings.warn(&key, "contains logins and is in a file that every user of this machine can read", hint);
    }
    Some(ProxiesFrom::Here(entries))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Faults, parse};

    fn read(text: &str) -> Result<Config, Faults> {
        parse("t.toml", text, [], None).map(|(config, _)| config)
    }

    fn fault(text: &str) -> String {
        read(text).map(|_| ()).unwrap_err().to_string()
    }

    const ACME: &str = "[[sources.upstream]]\nname = 'acme'\n";

    #[test]
    fn a_source_has_a_name_and_one_list_and_routes_can_name_it() {
        let list = "proxies = ['planted-login@a.example:80']\n";
        let route = "[[routes]]\nname = 'shop'\nselector = 'us'\nsource = ['tor', 'acme']\n";
        let config = read(&format!("{ACME}{list}{route}")).unwrap();
        let source = &config.sources.upstream[0];
        assert_eq!((source.name.as_str(), source.scheme, source.allow_private), ("acme", "http", false));
        assert_eq!(config.routes[0].source[1].as_str(), "acme");
        assert!(!format!("{config:?}").contains("planted"));
        for (text, want) in [
            (ACME.to_owned(), "sources.upstream[0].proxies is missing"),
            (format!("[[sources.upstream]]\n{list}"), "sources.upstream[0].name is missing"),
            (format!("{ACME}{list}{ACME}{list}"), "which another source has already"),
            (format!("[[sources.upstream]]\nname = 'tor'\n{list}"), "sources.upstream[0].name is \"tor\""),
            (format!("[[sources.upstream]]\nname = 'proxifly'\n{list}"), "which another source has already"),
            (format!("{ACME}{list}url = 'https://a.example/x'\n"), "more than one of `proxies`, `file` and `url`"),
            (format!("{ACME}url = 'planted'\n"), "sources.upstream[0].url is not a URL"),
            (format!("{ACME}file = '/nowhere/list'\n"), "which does not exist"),
            (format!("{ACME}{list}{}", route.replace("acme", "acne")), "routes[0].source contains \"acne\""),
            (format!("{ACME}{list}ca_file = '/nowhere/ca'\n"), "ca_file"),
        ] {
            let fault = fault(&text);
            assert!(fault.contains(want) && !fault.contains("planted"), "{text}: {fault}");
        }
    }
}
