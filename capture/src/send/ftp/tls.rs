//! TLS for FTP, by OpenSSL, which libssh2 has brought along anyway.
//!
//! In: a connection and who may vouch for the server. Out: a secured one. May surprise: servers want the connections of
//! data to continue the TLS session of the commands, so that nobody else can put data in between (`require_ssl_reuse` of
//! vsftpd, RFC 4217 section 10.2); so each session is kept for the next connection.
//!
//! # Safety
//! The one unsafe call is `SSL_set_session`, of which OpenSSL demands that the session comes from the same context. Both
//! the session and the connection are made by one [`Connector`], which has one context and hands out neither.

#![expect(unsafe_code, reason = "see # Safety")]

use crate::send::trust;
use openssl::ssl::{SslConnector, SslSession, SslSessionCacheMode, SslStream};
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use suppaftp::{FtpError, FtpResult, TlsConnector, TlsStream};

/// Makes connections secure, and each the continuation of the one before.
pub(super) struct Connector {
    context: SslConnector,
    session: Arc<Mutex<Option<SslSession>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// One that believes the certificates in `ca_file`, be they of authorities or of the server itself.
    pub(super) fn new(ca_file: Option<&Path>) -> anyhow::Result<Connector> {
        let mut builder = trust::connector(ca_file)?;
        let session = Arc::new(Mutex::new(None));
        let kept = session.clone();
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |_, session| {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        });
        Ok(Connector { context: builder.build(), session })
    }
}

impl TlsConnector for Connector {
    type Stream = Secured;

    fn connect(&self, domain: &str, stream: TcpStream) -> FtpResult<Secured> {
        let wrong = |error: &dyn fmt::Display| FtpError::SecureError(error.to_string());
        let configured = self.context.configure().and_then(|configuration| configuration.into_ssl(domain));
        let mut ssl = configured.map_err(|error| wrong(&error))?;
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(session) = session {
            // SAFETY: the session was made by a connection of `self.context`, and so is `ssl`.
            unsafe { ssl.set_session(&session) }.map_err(|error| wrong(&error))?;
        }
        ssl.connect(stream).map(Secured).map_err(|error| wrong(&error))
    }
}

/// A secured connection; when it is dropped, the server is told that this was all.
#[derive(Debug)]
pub(super) struct Secured(SslStream<TcpStream>);

impl TlsStream for Secured {
    type InnerStream = SslStream<TcpStream>;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        self.0.get_ref().try_clone().map_err(FtpError::ConnectionError)
    }

    fn get_ref(&self) -> &TcpStream {
        self.0.get_ref()
    }

    fn mut_ref(&mut self) -> &mut SslStream<TcpStream> {
        &mut self.0
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // It may be gone already.
        let _: Result<_, io::Error> = self.0.shutdown().map_err(io::Error::other);
    }
}
