//! A test CA that makes a certificate for any name that a client asks for, so that a test may invent names.
//!
//! Three names get a bad certificate on purpose: `expired.test`, `wronghost.test` (for another name) and `selfsigned.test` (from nobody
//! that a client trusts).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// A certificate authority of one run.
pub(crate) struct CertificateAuthority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// One key for all certificates, so that a new certificate takes only a signature.
    key: KeyPair,
    /// The name in the certificate for clients that send none.
    default_name: String,
    issued: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").finish_non_exhaustive() // keys
    }
}

impl CertificateAuthority {
    /// A new CA. A client that sends no host name gets a certificate for `ip`.
    pub(crate) fn new(ip: Ipv4Addr) -> Result<Arc<Self>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "exitgate test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let (key, default_name) = (KeyPair::generate()?, ip.to_string());
        Ok(Arc::new(Self { issuer, key, default_name, issued: Mutex::default() }))
    }

    /// The certificate of the CA.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Accepts TLS 1.2 and 1.3, with HTTP/1.1 by ALPN.
    pub(crate) fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("ring supports the default versions")
                .with_no_client_auth()
                .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = issued.get(name) {
            return Some(known.clone());
        }
        let new = Arc::new(self.issue(name).ok()?);
        issued.insert(name.into(), new.clone());
        Some(new)
    }

    fn issue(&self, name: &str) -> anyhow::Result<CertifiedKey> {
        let subject = if name == "wronghost.test" { "somebody-else.test" } else { name };
        let mut params = CertificateParams::new([subject.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, subject);
        params.use_authority_key_identifier_extension = true;
        if name == "expired.test" {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 2, 1);
        }
        let certificate = match name {
            "selfsigned.test" => params.self_signed(&self.key)?,
            _ => params.signed_by(&self.key, &self.issuer)?,
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
    }
}

impl ResolvesServerCert for CertificateAuthority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(hello.server_name().unwrap_or(&self.default_name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_made_once_for_each_name() {
        let authority = CertificateAuthority::new(Ipv4Addr::LOCALHOST).unwrap();
        let first = authority.certificate("a.test").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.certificate("a.test").unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.certificate("b.test").unwrap()));
        assert!(authority.certificate("127.0.0.1").is_some());
        assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
