//! TLS to the broker: ring, the authorities that the configuration names or the public ones, and the
//! box's own certificate where it has one.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::domain::secret::Secret;
use crate::fleet::FleetError;

/// The configuration of the client side.
///
/// # Errors
/// A certificate or key cannot be used.
pub(super) fn client_config(
    ca: Option<&Secret>,
    identity: Option<(&Secret, &Secret)>,
) -> Result<ClientConfig, FleetError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has the default versions")
        .with_root_certificates(roots(ca)?);
    let Some((chain, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates("cert", chain)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| refuse("key", "it is no private key in PEM"))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| refuse("cert", &error.to_string()))
}

fn roots(ca: Option<&Secret>) -> Result<RootCertStore, FleetError> {
    let Some(ca) = ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", ca)? {
        roots.add(certificate).map_err(|error| refuse("ca", &error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(
    what: &'static str,
    pem: &Secret,
) -> Result<Vec<CertificateDer<'static>>, FleetError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.expose().as_bytes()).collect();
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(refuse(what, "it holds no certificate in PEM")),
    }
}

fn refuse(what: &'static str, why: &str) -> FleetError {
    FleetError::Certificate { what, why: why.to_owned() }
}

/// Whether a connection failed because a certificate is not valid at this time: with a clock that
/// was never set that says nothing about the certificate.
pub(super) fn is_about_time(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error hides what it wraps from `source`.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(inner) = inner
            && is_about_time(inner)
        {
            return true;
        }
        if let Some(Error::InvalidCertificate(why)) = error.downcast_ref::<Error>() {
            use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
            return matches!(
                why,
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. }
            );
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_certificate_that_is_not_valid_yet_is_told_from_one_that_is_wrong() {
        let wrapped = |why| io::Error::other(Error::InvalidCertificate(why));
        assert!(is_about_time(&wrapped(CertificateError::NotValidYet)));
        assert!(is_about_time(&wrapped(CertificateError::Expired)));
        assert!(!is_about_time(&wrapped(CertificateError::UnknownIssuer)));
        assert!(!is_about_time(&io::Error::other("something else")));
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let nonsense = Secret::new("-----BEGIN NONSENSE-----");
        let refused = client_config(Some(&nonsense), None).expect_err("no certificate");
        assert_eq!(refused.to_string(), "ca cannot be used: it holds no certificate in PEM");
        let refused =
            client_config(None, Some((&nonsense, &nonsense))).expect_err("no certificate");
        assert!(refused.to_string().starts_with("cert cannot be used"), "{refused}");
    }
}
