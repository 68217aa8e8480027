//! Sockets and connections: HTTP/1.1 and HTTP/2 on one port, and real TCP resets.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::exchange::{self, Service};
use super::tls::ServerTls;

/// Accepts until it is aborted; the connections end with it.
pub async fn run(listener: TcpListener, tls: Option<ServerTls>, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        // An error here is about one connection, or passes (too many open files).
        match listener.accept().await {
            Ok((stream, _)) => connections.spawn(open(stream, tls.clone(), service.clone())),
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
    }
}

async fn open(stream: TcpStream, tls: Option<ServerTls>, service: Arc<Service>) {
    // Each chunk leaves as it is written: tests look at when they arrive.
    let _ = stream.set_nodelay(true);
    let fuse = Fuse::default();
    let socket = Socket {
        stream,
        fuse: fuse.clone(),
    };
    match tls {
        None => serve(socket, fuse, service).await,
        Some(tls) => {
            // A client that does not trust us is no error of the service.
            if let Ok(stream) = tls.acceptor().accept(socket).await {
                serve(stream, fuse, service).await;
            }
        }
    }
}

async fn serve<S>(stream: S, fuse: Fuse, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .max_concurrent_streams(10_000)
        // Many cancelled streams are what gateways under test make; they are no attack.
        .max_pending_accept_reset_streams(100_000)
        .max_local_error_reset_streams(None);
    let answer = service_fn(|request| exchange::answer(service.clone(), fuse.clone(), request));
    // Errors are clients that went away and faults that were asked for; the log has both.
    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
}

/// Blown: the connection ends in a TCP reset, not in an orderly close.
#[derive(Clone, Default)]
pub struct Fuse(Arc<AtomicBool>);

impl Fuse {
    pub fn blow(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_blown(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn check(&self) -> io::Result<()> {
        match self.is_blown() {
            true => Err(ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }
}

/// A TCP stream that can be reset from elsewhere.
struct Socket {
    stream: TcpStream,
    fuse: Fuse,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.fuse.is_blown() {
            // The kernel answers a close without lingering with RST.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.fuse.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.fuse.check()?;
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fuse.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly shutdown would send FIN before the reset.
        self.fuse.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
