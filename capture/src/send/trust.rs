//! Who may vouch for a server. In: a file of certificates. Out: what begins TLS with nobody else.

use anyhow::Context;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod};
use openssl::x509::verify::X509VerifyFlags;
use std::path::Path;

/// TLS with servers that the certificates in `ca_file` vouch for, be they of authorities or of the server itself.
///
/// # Errors
/// The file cannot be read, or has no certificate in it.
pub(super) fn connector(ca_file: Option<&Path>) -> anyhow::Result<SslConnectorBuilder> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).context("cannot begin TLS")?;
    if let Some(file) = ca_file {
        builder.set_ca_file(file).with_context(|| format!("cannot read certificates from {}", file.display()))?;
        builder
            .verify_param_mut()
            .set_flags(X509VerifyFlags::PARTIAL_CHAIN)
            .context("cannot trust a server's own certificate")?;
    }
    Ok(builder)
}
