//! `[[sources.upstream]]` with `kind = "gateway"`: the gateway of a provider, where the username names a session.

use std::time::Duration;

use super::choice::{Provider, UpstreamProtocol};
use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::secret::{Hidden, SecretKeys};
use crate::exit::Protocol;
use crate::net::{Secret, Target};

/// The settings of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamGateway {
    pub protocol: Protocol,
    /// True if the connection to the gateway is encrypted with TLS.
    pub tls: bool,
    pub at: Target,
    /// The name of the account.
    pub user: Secret,
    pub password: Secret,
    /// The template of usernames, with the fields `{user}`, `{country}`, `{session}`, `{minutes}` and `{seconds}`.
    pub username: String,
    /// The template of passwords, with the same fields and `{password}`.
    pub password_template: String,
    /// The largest number of sessions at the same time.
    pub sessions: usize,
    /// How long a session lasts.
    pub session_time: Duration,
    /// The time between two checks of a session in use.
    pub check_every: Duration,
}

impl UpstreamGateway {
    /// Returns true if a session can be ordered for a country.
    pub fn has_country(&self) -> bool {
        self.username.contains("{country}") || self.password_template.contains("{country}")
    }
}

/// What is known of a provider: the host and port of its gateway, and its templates for username and password. They are
/// those of the provider's own documentation.
struct Preset {
    at: &'static str,
    username: &'static str,
    password: &'static str,
}

fn preset(provider: Provider) -> Preset {
    let (at, username, password) = match provider {
        Provider::Brightdata => {
            ("brd.superproxy.io:33335", "{user}[-country-{country}]-session-{session}", "{password}")
        }
        Provider::Oxylabs => {
            ("pr.oxylabs.io:7777", "customer-{user}[-cc-{country}]-sessid-{session}-sesstime-{minutes}", "{password}")
        }
        Provider::Decodo => (
            "gate.decodo.com:7000",
            "user-{user}[-country-{country}]-sessionduration-{minutes}-session-{session}",
            "{password}",
        ),
        Provider::Iproyal => {
            ("geo.iproyal.com:12321", "{user}", "{password}[_country-{country}]_session-{session}_lifetime-{minutes}m")
        }
        Provider::Soax => (
            "proxy.soax.com:5000",
            "package-{user}[-country-{country}]-sessionid-{session}-sessionlength-{seconds}",
            "{password}",
        ),
        Provider::Webshare => ("p.webshare.io:80", "{user}[-{country}]-{session}", "{password}"),
    };
    Preset { at, username, password }
}

/// Reports keys of a gateway that stand in a source of another kind.
pub(super) fn refuse_keys(source: &schema::SourceUpstream, at: &KeyPath, findings: &mut Findings) {
    let keys = [
        ("provider", source.provider.is_some()),
        ("at", source.at.is_some()),
        ("user", source.user.is_some()),
        ("password", source.password.is_some() || source.password_file.is_some()),
        ("username", source.username.is_some()),
        ("password_template", source.password_template.is_some()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, is_given)| *is_given) {
        findings.fault(at.key(key), "belongs to a gateway", "write kind = \"gateway\", or remove the key");
    }
}

/// Validates the keys of a gateway.
pub(super) fn validate(
    source: &schema::SourceUpstream,
    table: &KeyPath,
    findings: &mut Findings,
) -> Option<UpstreamGateway> {
    if !source.proxies.is_empty() || source.file.is_some() || source.url.is_some() {
        findings.fault(table, "is a gateway and also has a list", "remove `proxies`, `file` and `url`");
    }
    let preset = source.provider.map(preset);
    let at = source.at.as_deref().or(preset.as_ref().map(|preset| preset.at));
    if at.is_none() {
        findings.fault(table.key("at"), "is missing", "write at = \"host:port\", or provider = \"oxylabs\"");
    }
    let target = at.and_then(|text| match text.parse::<Target>() {
        Ok(target) => Some(target),
        Err(why) => {
            findings.fault(table.key("at"), format!("is {text:?}: {why}"), "write at = \"host:port\"");
            None
        }
    });
    let (inline, file) = (source.password.as_ref(), source.password_file.as_ref());
    let password = SecretKeys { table, key: "password", inline, file }.validate(findings);
    if inline.is_none() && file.is_none() {
        findings.fault(table.key("password"), "is missing", "write password_file = \"/path\" or password = \"…\"");
    }
    let user = source.user.as_ref().map(|Hidden(user)| user.clone());
    if user.is_none() {
        findings.fault(table.key("user"), "is missing", "write the name of your account at the provider");
    }
    let username = source.username.clone().or(preset.as_ref().map(|preset| preset.username.to_owned()));
    let password_template = source.password_template.clone();
    let password_template = password_template.or(preset.map(|preset| preset.password.to_owned()));
    let password_template = password_template.unwrap_or_else(|| "{password}".to_owned());
    check_templates(username.as_deref(), &password_template, table, findings);
    let (protocol, tls) = match source.protocol {
        UpstreamProtocol::Http => (Protocol::Http, false),
        UpstreamProtocol::Https => (Protocol::Http, true),
        UpstreamProtocol::Socks5 => (Protocol::Socks5, false),
        UpstreamProtocol::Socks4 => {
            let hint = "use \"http\", \"https\" or \"socks5\"";
            findings.fault(table.key("protocol"), "is \"socks4\", which cannot carry a password", hint);
            return None;
        }
    };
    Some(UpstreamGateway {
        protocol,
        tls,
        at: target?,
        user: user?,
        password: password?,
        username: username?,
        password_template,
        sessions: source.sessions.positive().get() as usize,
        session_time: source.session_time.0,
        check_every: source.check_every.0,
    })
}

fn check_templates(username: Option<&str>, password: &str, table: &KeyPath, findings: &mut Findings) {
    let Some(username) = username else {
        let hint = "write username = \"…{user}…{session}…\" as your provider documents it, or provider = \"oxylabs\"";
        findings.fault(table.key("username"), "is missing", hint);
        return;
    };
    if !username.contains("{session}") && !password.contains("{session}") {
        let hint = "put {session} where the provider expects the name of a session: each session is an exit";
        findings.fault(table.key("username"), "has no {session}", hint);
    }
    if !username.contains("{user}") {
        let hint = "put {user} where the provider expects the name of the account: `user` has the name itself";
        findings.fault(table.key("username"), "has no {user}", hint);
    }
    if !password.contains("{password}") {
        let hint = "put {password} where the provider expects the password: `password_file` has the password itself";
        findings.fault(table.key("password_template"), "has no {password}", hint);
    }
    for (key, template, fields) in
        [("username", username, &FIELDS[..FIELDS.len() - 1]), ("password_template", password, &FIELDS[..])]
    {
        if let Some(field) = unknown_field(template, fields) {
            // The report shows the field and not the template, because a template may contain parts of a login.
            let known: Vec<_> = fields.iter().map(|field| format!("{{{field}}}")).collect();
            findings.fault(table.key(key), format!("has {field}"), format!("use {}", known.join(", ")));
        }
        if !has_whole_brackets(template) {
            let hint =
                "write [ and ] around the one part that a session without a country omits, as in [-cc-{country}]";
            findings.fault(table.key(key), "has a [ without ], or the other way round", hint);
        }
        if has_bare_country(template) {
            let hint = "write [-cc-{country}] with the brackets, because some sessions may leave in any country";
            findings.fault(table.key(key), "has {country} outside of [ ]", hint);
        }
    }
}

/// The fields of templates. The last one is for passwords only.
const FIELDS: [&str; 6] = ["user", "country", "session", "minutes", "seconds", "password"];

/// Returns the first part in braces that is no field. Returns `None` if all are fields.
fn unknown_field<'a>(template: &'a str, fields: &[&str]) -> Option<&'a str> {
    let parts = template.match_indices('{').map(|(at, _)| {
        let rest = &template[at..];
        rest.find('}').map_or(rest, |end| &rest[..=end])
    });
    parts.into_iter().find(|part| {
        let field = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        !field.is_some_and(|field| fields.contains(&field))
    })
}

/// Returns true if each `[` has its `]` behind it, and no pair of brackets is inside another.
fn has_whole_brackets(template: &str) -> bool {
    let brackets = template.chars().filter(|c| matches!(c, '[' | ']')).collect::<Vec<_>>();
    brackets.chunks(2).all(|pair| pair == ['[', ']'])
}

/// Returns true if the country is also in the username of a session without a country, where it would be empty.
fn has_bare_country(template: &str) -> bool {
    template.split('[').enumerate().any(|(index, part)| {
        let outside = if index == 0 { part } else { part.split_once(']').map_or("", |(_, outside)| outside) };
        outside.contains("{country}")
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Faults, ProxiesFrom, parse};

    fn read(text: &str) -> Result<Config, Faults> {
        let head = "[[sources.upstream]]\nname = 'acme'\nkind = 'gateway'\n";
        parse("t.toml", &format!("{head}{text}"), [], None).map(|(config, _)| config)
    }

    const LOGIN: &str = "user = 'planted-user'\npassword = 'planted-password'\n";

    #[test]
    fn each_provider_has_its_templates_and_they_can_be_replaced() {
        for provider in ["brightdata", "oxylabs", "decodo", "iproyal", "soax", "webshare"] {
            let config = read(&format!("{LOGIN}provider = '{provider}'\n")).unwrap();
            let ProxiesFrom::Gateway(gateway) = &config.sources.upstream[0].proxies else { panic!("{provider}") };
            assert!(gateway.has_country() && gateway.at.port > 0, "{provider}");
            assert!(!format!("{config:?}").contains("planted"));
        }
        let own = format!("{LOGIN}at = 'a.example:80'\nusername = '{{user}}-{{session}}'\nprotocol = 'https'\n");
        let config = read(&own).unwrap();
        let ProxiesFrom::Gateway(gateway) = &config.sources.upstream[0].proxies else { panic!("no gateway") };
        assert_eq!((gateway.has_country(), gateway.tls, gateway.sessions), (false, true, 16));
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said() {
        for (text, want) in [
            (LOGIN.to_owned(), "at is missing"),
            ("provider = 'soax'\npassword = 'planted-password'\n".to_owned(), "user is missing"),
            ("provider = 'soax'\nuser = 'a'\n".to_owned(), "password is missing"),
            (format!("{LOGIN}provider = 'soax'\nat = 'nowhere'\n"), "at is \"nowhere\""),
            (format!("{LOGIN}at = 'a.example:80'\n"), "username is missing"),
            (format!("{LOGIN}at = 'a.example:80'\nusername = '{{user}}'\n"), "has no {session}"),
            (format!("{LOGIN}provider = 'soax'\nusername = '{{user}}[-{{session}}'\n"), "has a [ without ]"),
            (format!("{LOGIN}provider = 'soax'\nusername = '{{user}}]-{{session}}['\n"), "has a [ without ]"),
            (format!("{LOGIN}provider = 'soax'\nusername = 'planted-{{session}}'\n"), "username has no {user}"),
            (format!("{LOGIN}provider = 'soax'\nusername = '{{user}}-{{session}}-{{zone}}'\n"), "has {zone}"),
            (format!("{LOGIN}provider = 'soax'\nusername = '{{user}}-{{session}}-{{password}}'\n"), "has {password}"),
            (format!("{LOGIN}provider = 'soax'\nusername = '{{user}}-{{session'\n"), "has {session"),
            (format!("{LOGIN}provider = 'soax'\npassword_template = 'planted'\n"), "has no {password}"),
            (
                format!("{LOGIN}provider = 'soax'\nusername = '{{user}}-{{country}}-{{session}}'\n"),
                "has {country} outside",
            ),
            (format!("{LOGIN}provider = 'soax'\nprotocol = 'socks4'\n"), "cannot carry a password"),
            (format!("{LOGIN}provider = 'soax'\nfile = '/x'\n"), "also has a list"),
        ] {
            let fault = read(&text).map(|_| ()).unwrap_err().to_string();
            assert!(fault.contains(want) && !fault.contains("planted"), "{text}: {fault}");
        }
        let list = "[[sources.upstream]]\nname = 'acme'\nproxies = ['a.example:80']\nprovider = 'soax'\n";
        let fault = parse("t.toml", list, [], None).map(|_| ()).unwrap_err().to_string();
        assert!(fault.contains("provider belongs to a gateway"), "{fault}");
    }
}
