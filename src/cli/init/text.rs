//! The texts of `exitgate init`: the configuration, and the commands that the user needs next.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{DATA, FILE};
use crate::app::secrets::{KEY_FILE, TOKEN_FILE};
use crate::config::Config;

/// The files and addresses of the new configuration. All paths are absolute.
pub(super) struct Plan {
    file: String,
    data: String,
    key: String,
    token: String,
    listen: SocketAddr,
    api_listen: SocketAddr,
}

impl Plan {
    /// Returns `None` if the path of the folder is not UTF-8, because a configuration file cannot contain such a path.
    pub(super) fn new(folder: &Path, listen: SocketAddr, api_listen: SocketAddr) -> Option<Self> {
        let data = folder.join(DATA);
        let text = |path: &Path| path.to_str().map(str::to_owned);
        Some(Self {
            file: text(&folder.join(FILE))?,
            key: text(&data.join(KEY_FILE))?,
            token: text(&data.join(TOKEN_FILE))?,
            data: text(&data)?,
            listen,
            api_listen,
        })
    }

    /// Returns the text of the configuration file.
    pub(super) fn configuration(&self) -> String {
        let (data, key, token) = (quoted(&self.data), quoted(&self.key), quoted(&self.token));
        let (listen, api_listen) = (self.listen, self.api_listen);
        let (repository, version) = (env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION"));
        format!(
            r#"# The configuration of exitgate, written by `exitgate init`.
#
# Keys that do not stand here have their defaults:
# {repository}/blob/v{version}/docs/configuration.md
#
# A line that begins with `#` and no space is an example: remove the `#` to use it. After a change, run
# `exitgate check-config` and then `exitgate reload`, both with `--config` and the path of this file. Keys marked
# (restart) take effect at the next start.

# The folder of the database, tor's data, the key and the token: everything that must survive a restart. (restart)
data_dir = {data}

[gateway]
# The shared port, for SOCKS4, SOCKS4a, SOCKS5 and HTTP. "127.0.0.1" is for this machine only; "0.0.0.0" opens the port
# to other machines. (restart)
listen = "{listen}"

# The password of clients. The username of a client says which exits it wants: us, nonus-strict, de+fr-session-cart42.
# For one more client add another section like this one.
[[gateway.keys]]
name = "default"
key_file = {key}

[api]
# The address of the API, the metrics and the console. (restart)
listen = "{api_listen}"
# The token that the API and the console ask for.
token_file = {token}

# A route with a port of its own, for clients that cannot send a username.
#[[routes]]
#name = "shop"
#selector = "us-strict"
#port = 20001

# Free public proxies, for usernames with `source-public`. Their owners can read what is not encrypted. (restart)
#[sources.proxifly]
#enabled = true
"#
        )
    }

    /// Returns the commands that the user needs next, for a POSIX shell. `tor` is true if the program tor was found.
    pub(super) fn next_commands(&self, tor: bool) -> String {
        let (file, key, token) = (shell_word(&self.file), shell_word(&self.key), shell_word(&self.token));
        let (shared, api) = (reachable(self.listen), reachable(self.api_listen));
        let example = Config::default().api.example_url;
        let mut text = String::new();
        if !tor {
            text.push_str("The program tor was not found. Install tor 0.4.9 or newer, or set tor.binary.\n\n");
        }
        text.push_str(&format!(
            r#"Start the gateway:
    exitgate serve --config {file}
Wait until it is ready (the first start downloads Tor's directory):
    curl http://{api}/ready
Send a request through an exit in the US:
    curl -x "socks5h://us:$(cat {key})@{shared}" {example}

The console is at http://{api}/ and asks for the token:
    cat {token}
"#
        ));
        text
    }
}

/// Returns a text as a string of TOML, in quotes.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Returns a text as one word for a POSIX shell, in quotes if it needs them.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns an address for clients on this machine: the loopback address if the gateway listens on all addresses.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::app::secrets;
    use crate::config;

    fn plan(folder: &Path) -> Plan {
        Plan::new(folder, "0.0.0.0:1080".parse().unwrap(), "[::]:8080".parse().unwrap()).unwrap()
    }

    /// A folder whose name needs quotes in TOML and in a shell, with both secrets.
    fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("it's \"my\" gate");
        secrets::make_data_dir(&folder.join(DATA)).unwrap();
        for name in [KEY_FILE, TOKEN_FILE] {
            secrets::load_or_make(&folder.join(DATA), name).unwrap();
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        (root, folder)
    }

    #[test]
    fn the_configuration_is_valid_with_and_without_its_examples() {
        let (_root, folder) = folder();
        let text = plan(&folder).configuration();
        let (config, warnings) = config::parse("t", &text, [], None).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(warnings.len(), 0, "{}", warnings[0]);
        assert_eq!(config.data_dir, folder.join(DATA));
        let (key, new) = secrets::load_or_make(&folder.join(DATA), KEY_FILE).unwrap();
        assert!(!new && config.gateway.keys.len() == 1 && config.gateway.keys[0].secret == key);
        assert_eq!(config.api.token, Some(secrets::load_or_make(&folder.join(DATA), TOKEN_FILE).unwrap().0));
        assert!(!text.contains(key.expose()), "the configuration contains the key itself");
        assert!(!config.exposure.make_key && !config.exposure.make_token, "no second key and no second token");

        let example =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
        let all = text.lines().map(example).collect::<Vec<_>>().join("\n");
        let (config, _) = config::parse("t", &all, [], None).unwrap_or_else(|faults| panic!("{faults}"));
        assert!(config.routes.len() == 1 && config.sources.any_public(), "an example has no effect");
    }

    #[test]
    fn the_comments_fit_a_terminal() {
        let long: Vec<_> =
            plan(Path::new("/gate")).configuration().lines().map(str::len).filter(|len| *len > 120).collect();
        assert_eq!(long, [0_usize; 0]);
    }

    #[test]
    fn the_next_commands_read_the_secrets_from_their_files() {
        let (_root, folder) = folder();
        let text = plan(&folder).next_commands(true);
        let (key, _) = secrets::load_or_make(&folder.join(DATA), KEY_FILE).unwrap();
        let (token, _) = secrets::load_or_make(&folder.join(DATA), TOKEN_FILE).unwrap();
        assert!(!text.contains(key.expose()) && !text.contains(token.expose()), "a secret is printed");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("curl -x ")).unwrap();
        let shown = std::process::Command::new("sh").args(["-c", &format!("echo {line}")]).output().unwrap();
        let wanted = format!("socks5h://us:{}@127.0.0.1:1080 https://check.torproject.org/api/ip\n", key.expose());
        assert_eq!(String::from_utf8_lossy(&shown.stdout), wanted);
        assert!(text.contains("curl http://[::1]:8080/ready"), "{text}");
        assert!(!text.contains("tor was not found"));
        assert!(plan(&folder).next_commands(false).starts_with("The program tor was not found."));
    }

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        for text in ["/srv/gate", "/a b/$HOME", "it's", "*", ""] {
            let shown =
                std::process::Command::new("sh").args(["-c", &format!("printf %s {}", shell_word(text))]).output();
            assert_eq!(String::from_utf8_lossy(&shown.unwrap().stdout), text);
        }
        assert_eq!(shell_word("/srv/gate-1/x.toml"), "/srv/gate-1/x.toml");
    }
}
