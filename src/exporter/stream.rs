//! Connections, whatever carries them.

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection in the clear or through TLS. In a box, so that HTTP/1.1 is in the binary once for each side, and not once for each kind
/// of connection: that is fifty kilobytes in every pod.
pub(super) type Stream = Box<dyn Duplex>;

/// What can be read and written.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}
