//! `[gateway.tls]`: a certificate chain and its private key, read and matched before any port is opened.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::file;
use super::finding::{Findings, KeyPath};
use super::gateway::Tls;
use super::secret::{is_open, read_file};

pub(super) fn settle(written: &file::Tls, findings: &mut Findings) -> Option<Tls> {
    let table = KeyPath::from("gateway.tls");
    let (cert_at, key_at) = (table.key("cert"), table.key("key"));
    let (cert, key) = match (&written.cert, &written.key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            findings.fault(
                &table,
                "is empty",
                "write cert = \"chain.pem\" and key = \"key.pem\", or remove the section",
            );
            return None;
        }
        (cert, _) => {
            let (at, other) = if cert.is_some() { (key_at, "cert") } else { (cert_at, "key") };
            findings.fault(
                at,
                format!("is missing beside gateway.tls.{other}"),
                "TLS needs both: cert and key, as PEM files",
            );
            return None;
        }
    };
    let chain = certificates(findings, &cert_at, cert);
    let secret =
        read_file(findings, &key_at, key).and_then(|text| match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
            Ok(secret) => Some(secret),
            Err(why) => {
                let what = format!("names {}, which holds no private key{}", key.display(), reason(&why));
                findings.fault(&key_at, what, "give it the unencrypted key in PEM form: -----BEGIN PRIVATE KEY-----");
                None
            }
        });
    if is_open(key) {
        let what = format!("names {}, which every user of this machine can read", key.display());
        findings.warn(&key_at, what, format!("chmod 600 {}", key.display()));
    }
    let certified = match CertifiedKey::from_der(chain?, secret?, &ring::default_provider()) {
        Ok(certified) => Arc::new(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            let what =
                format!("names {}, which is not the key of the first certificate in {}", key.display(), cert.display());
            findings.fault(
                &key_at,
                what,
                "name the key that the certificate was made for; the server's own certificate comes first",
            );
            return None;
        }
        Err(why) => {
            let what = format!("names {}, which cannot be used with {}: {why}", key.display(), cert.display());
            findings.fault(&key_at, what, "use an RSA, ECDSA (P-256, P-384) or Ed25519 key and its certificate");
            return None;
        }
    };
    Some(Tls { cert: cert.clone(), key: key.clone(), certified })
}

/// Every certificate of a PEM file; there is at least one.
pub(super) fn certificates(findings: &mut Findings, at: &KeyPath, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    let text = read_file(findings, at, path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let why = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) => String::new(),
        Err(why) => reason(&why),
    };
    let what = format!("names {}, which holds no certificate{why}", path.display());
    findings.fault(at, what, "give it certificates in PEM form: -----BEGIN CERTIFICATE-----");
    None
}

/// What to add to "which holds no …", if it says more than that.
fn reason(why: &pem::Error) -> String {
    match why {
        pem::Error::NoItemsFound => String::new(),
        other => format!(": {other}"),
    }
}
