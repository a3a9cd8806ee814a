//! A test CA that mints a certificate for whatever name a client asks for, so that a test may invent names.
//!
//! Three names get a bad one on purpose: `expired.test`, `wronghost.test` (a certificate for another name) and
//! `selfsigned.test` (from nobody that a client trusts).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// A certificate authority of one run.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// One key for all certificates: minting one is then only a signature.
    key: KeyPair,
    /// The name of a client that sends none.
    nameless: String,
    minted: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive() // keys
    }
}

impl Authority {
    /// A new CA; a client that names no host gets a certificate for `ip`.
    pub(crate) fn new(ip: Ipv4Addr) -> Result<Arc<Self>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "exitgate test CA");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let (key, nameless) = (KeyPair::generate()?, ip.to_string());
        Ok(Arc::new(Self { issuer, key, nameless, minted: Mutex::default() }))
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Serves TLS 1.2 and 1.3 with HTTP/1.1.
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
        let mut minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = minted.get(name) {
            return Some(known.clone());
        }
        let new = Arc::new(self.mint(name).ok()?);
        minted.insert(name.into(), new.clone());
        Some(new)
    }

    fn mint(&self, name: &str) -> anyhow::Result<CertifiedKey> {
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

impl ResolvesServerCert for Authority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificate(hello.server_name().unwrap_or(&self.nameless))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_minted_once() {
        let authority = Authority::new(Ipv4Addr::LOCALHOST).unwrap();
        let first = authority.certificate("a.test").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.certificate("a.test").unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.certificate("b.test").unwrap()));
        assert!(authority.certificate("127.0.0.1").is_some());
        assert!(authority.pem().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
