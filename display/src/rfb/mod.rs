//! A VNC server: the Remote Framebuffer protocol, versions 3.3 to 3.8, without authentication.
//!
//! | file | holds |
//! |---|---|
//! | `pixel.rs` | pixel formats |
//! | `encode.rs` | rectangles: raw and ZRLE, what has changed |
//! | `message.rs` | what clients say |
//! | `client.rs` | one client: a thread that listens, and one that sends pictures when asked |
//!
//! Anybody who can connect sees the screen and types: the caller binds to an address that only
//! trusted people reach.
//!
//! Encodings: raw, ZRLE; pseudo-encodings DesktopSize, QEMU Pointer Motion Change and QEMU
//! Extended Key Event. Sources: RFC 6143; "The RFB Protocol" (rfbproto) for QEMU's extensions.

mod client;
mod encode;
mod message;
mod pixel;
#[cfg(test)]
mod tests;

use crate::Source;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Most clients at once.
const MAX_CLIENTS: usize = 16;
/// How long to wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server, until dropped.
pub struct Server {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

impl Server {
    /// Listens at `address` and serves the screen of `source`.
    ///
    /// # Errors
    /// The host's, if the address cannot be had or there is no thread.
    pub fn start(address: SocketAddr, source: Source) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        std::thread::Builder::new()
            .name("vnc".into())
            .spawn(move || accept(&listener, &source, &stop))?;
        Ok(Server { address, stopping })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Lets the thread look.
        let _ = std::net::TcpStream::connect_timeout(&self.address, ACCEPT_PAUSE);
    }
}

fn accept(listener: &TcpListener, source: &Source, stopping: &AtomicBool) {
    let clients = Arc::new(AtomicUsize::new(0));
    while !stopping.load(Ordering::SeqCst) {
        let (stream, peer) = match listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a VNC connection was not accepted");
                std::thread::sleep(ACCEPT_PAUSE);
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%peer, "a VNC client too many was turned away");
            continue;
        }
        let (source, count) = (source.clone(), clients.clone());
        let served = std::thread::Builder::new().name("vnc client".into()).spawn(move || {
            if let Err(error) = client::serve(stream, &source) {
                tracing::debug!(%peer, %error, "a VNC client left");
            }
            count.fetch_sub(1, Ordering::SeqCst);
        });
        if served.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
