//! `[gateway.tls]`: a certificate chain and its private key. Before any port is opened, both files are read, and the
//! key must match the certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::findings::Findings;
use super::key_path::KeyPath;
use super::schema;
use super::secret::{is_open, read_file};

/// A certificate chain with the private key that matches it.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The file of the certificate chain.
    pub cert: PathBuf,
    /// The chain and the key in the form that rustls uses.
    pub certified: Arc<CertifiedKey>,
}

/// Reads the certificate and the key. Returns `None` if one of them is missing or wrong, which is reported.
pub(super) fn validate(written: &schema::Tls, findings: &mut Findings) -> Option<Tls> {
    let table = KeyPath::from("gateway.tls");
    match (&written.cert, &written.key) {
        (Some(cert), Some(key)) => return pair(cert, key, &table, findings),
        (None, None) => {
            let hint = "write cert = \"chain.pem\" and key = \"key.pem\", or remove the section";
            findings.fault(&table, "is empty", hint);
        }
        (cert, _) => {
            let (missing, other) = if cert.is_some() { ("key", "cert") } else { ("cert", "key") };
            let what = format!("is missing, but gateway.tls.{other} is set");
            findings.fault(table.key(missing), what, "TLS needs both: cert and key, as PEM files");
        }
    }
    None
}

fn pair(cert: &Path, key: &Path, table: &KeyPath, findings: &mut Findings) -> Option<Tls> {
    let (cert_at, key_at) = (table.key("cert"), table.key("key"));
    let chain = certificates(findings, &cert_at, cert);
    let secret = private_key(findings, &key_at, key);
    let (cert_name, key_name) = (cert.display(), key.display());
    if is_open(key) {
        let what = format!("names {key_name}, which every user of this machine can read");
        findings.warn(&key_at, what, format!("chmod 600 {key_name}"));
    }
    let (what, hint) = match CertifiedKey::from_der(chain?, secret?, &ring::default_provider()) {
        Ok(certified) => {
            return Some(Tls { cert: cert.to_owned(), certified: Arc::new(certified) });
        }
        Err(rustls::Error::InconsistentKeys(_)) => (
            format!("names {key_name}, which is not the key of the first certificate in {cert_name}"),
            "name the key that the certificate was made for; the server's own certificate must be the first in the chain",
        ),
        Err(why) => (
            format!("names {key_name}, which cannot be used with {cert_name}: {why}"),
            "use an RSA, ECDSA (P-256, P-384) or Ed25519 key and its certificate",
        ),
    };
    findings.fault(&key_at, what, hint);
    None
}

fn private_key(findings: &mut Findings, at: &KeyPath, path: &Path) -> Option<PrivateKeyDer<'static>> {
    let text = read_file(findings, at, path)?;
    let read = PrivateKeyDer::from_pem_slice(text.as_bytes());
    let why = match read {
        Ok(key) => return Some(key),
        Err(why) => reason(&why),
    };
    let what = format!("names {}, which contains no private key{why}", path.display());
    findings.fault(at, what, "name a file with the unencrypted key in PEM format: -----BEGIN PRIVATE KEY-----");
    None
}

/// Returns the certificates of a PEM file. A file without a certificate is reported.
pub(super) fn certificates(findings: &mut Findings, at: &KeyPath, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let text = read_file(findings, at, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let why = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => String::new(),
        Err(why) => reason(&why),
    };
    let what = format!("names {}, which contains no certificate{why}", path.display());
    findings.fault(at, what, "name a file with certificates in PEM format: -----BEGIN CERTIFICATE-----");
    None
}

/// Returns a text with the details of the error, which reports show after "which contains no …". The text is empty if
/// the error has no details.
fn reason(why: &pem::Error) -> String {
    match why {
        pem::Error::NoItemsFound => String::new(),
        other => format!(": {other}"),
    }
}
