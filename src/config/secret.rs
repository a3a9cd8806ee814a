//! Secrets. They can be written in the configuration, but a separate file is better. A secret never appears in a
//! message.

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::findings::Findings;
use super::key_path::KeyPath;
use crate::net::Secret;

/// The length of the longest secret in bytes. SOCKS5 does not allow longer passwords (RFC 1929).
const LONGEST: usize = 255;

/// A secret with fewer characters gets a warning. 12 characters hold eight random bytes in base 64.
const SHORT: usize = 12;

/// The command that makes a good secret. Hints show it.
pub(super) const MAKE_ONE: &str = "make one with: openssl rand -hex 24";

/// A secret as it is written in the configuration. If the value has a wrong type, the report does not show the value. A
/// secret is serialized as its digest, so that two secrets can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hidden(pub(super) Secret);

/// Returns the digest of a secret, for comparisons. The digest is never shown.
pub(super) fn digest(secret: &Secret) -> String {
    digest_of(secret.expose().as_bytes())
}

/// Returns the digest of a file's content, for comparisons.
pub(super) fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SecretVisitor)
    }
}

struct SecretVisitor;

impl Visitor<'_> for SecretVisitor {
    type Value = Hidden;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hidden, E> {
        Ok(Hidden(Secret::new(text)))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Hidden, E> {
        Err(E::invalid_type(Unexpected::Other("not text"), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Hidden, E> {
        Err(E::invalid_type(Unexpected::Other("a number without quotes"), &self))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Hidden, E> {
        Err(E::invalid_type(Unexpected::Other("a number without quotes"), &self))
    }
}

/// A secret, and the two keys that can set it: `key` contains the secret itself, and `key_file` the path of a file with
/// it.
pub(super) struct SecretKeys<'a> {
    pub(super) table: &'a KeyPath,
    pub(super) key: &'static str,
    pub(super) inline: Option<&'a Hidden>,
    pub(super) file: Option<&'a PathBuf>,
}

impl SecretKeys<'_> {
    /// Returns the secret, if the configuration sets a valid one. Faults are reported.
    pub(super) fn validate(self, findings: &mut Findings) -> Option<Secret> {
        let file_key = format!("{}_file", self.key);
        let (at, secret) = match (self.inline, self.file) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                let what = format!("is given in addition to `{}`", self.key);
                findings.fault(
                    self.table.key(&file_key),
                    what,
                    format!("keep only one of `{}` and `{file_key}`", self.key),
                );
                return None;
            }
            (Some(Hidden(secret)), None) => {
                let at = self.table.key(self.key);
                if findings.in_open_file(&at) {
                    let hint = format!("chmod 600 the file, or keep the secret in a file of its own (`{file_key}`)");
                    findings.warn(&at, "is in a file that every user of this machine can read", hint);
                }
                (at, secret.clone())
            }
            (None, Some(path)) => {
                let at = self.table.key(&file_key);
                let text = read_file(findings, &at, path)?;
                if is_open(path) {
                    let what = format!("names {}, which every user of this machine can read", path.display());
                    findings.warn(&at, what, format!("chmod 600 {}", path.display()));
                }
                (at, Secret::new(text.trim()))
            }
        };
        check_secret(findings, &at, secret)
    }
}

fn check_secret(findings: &mut Findings, at: &KeyPath, secret: Secret) -> Option<Secret> {
    let text = secret.expose();
    if text.is_empty() {
        findings.fault(at, "is empty", MAKE_ONE);
    } else if text.len() > LONGEST {
        findings.fault(
            at,
            format!("is {} bytes long", text.len()),
            "use at most 255 bytes, which is the limit of SOCKS5",
        );
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let hint = format!("use visible ASCII characters without spaces; {MAKE_ONE}");
        findings.fault(at, "contains a character that cannot be sent in every header", hint);
    } else {
        if text.len() < SHORT {
            findings.warn(at, format!("has only {} characters", text.len()), MAKE_ONE);
        }
        return Some(secret);
    }
    None
}

/// Reads a text file whose path is in the configuration. Reports the error if that fails.
pub(super) fn read_file(findings: &mut Findings, at: &KeyPath, path: &Path) -> Option<String> {
    std::fs::read_to_string(path).map_err(|why| unreadable(findings, at, path, &why)).ok()
}

/// Reports a file that cannot be opened.
pub(super) fn check_file(findings: &mut Findings, at: &KeyPath, path: &Path) {
    let opened = std::fs::metadata(path).and_then(|meta| {
        if meta.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { std::fs::File::open(path) }
    });
    if let Err(why) = opened {
        unreadable(findings, at, path, &why);
    }
}

fn unreadable(findings: &mut Findings, at: &KeyPath, path: &Path, why: &io::Error) {
    let why = match why.kind() {
        io::ErrorKind::NotFound => "which does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "which this user cannot read".to_owned(),
        io::ErrorKind::IsADirectory => "which is a folder".to_owned(),
        io::ErrorKind::InvalidData => "which is not text".to_owned(),
        _ => format!("which cannot be read: {why}"),
    };
    let hint = if path.is_absolute() {
        "correct the path, or make the file readable for the user that runs exitgate"
    } else {
        "correct the path; a relative path starts at the folder in which exitgate is started"
    };
    findings.fault(at, format!("names {}, {why}", path.display()), hint);
}

/// Returns true if every user of this machine can read the file.
pub(super) fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0)
}
