//! The net seam: TCP in and out. Cameras are the exception: the RTSP library opens its own
//! sockets.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use crate::platform::beats::Beats;

/// A future that a seam gives back.
pub type NetFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A byte stream to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {
    /// From now on what comes is read in beats ([`beats`](crate::platform::beats)).
    fn read_in_beats(&mut self) {}
}

/// Both ends are in this process.
impl Connection for DuplexStream {}

/// A socket that peers connect to.
pub trait Listener: Send + Sync {
    /// The next peer and its address.
    fn accept(&self) -> NetFuture<'_, (Box<dyn Connection>, SocketAddr)>;
    /// The address as bound.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Where connections come from and go to.
pub trait Net: Send + Sync {
    /// Binds a listener; port 0 takes any free one.
    fn listen(&self, addr: SocketAddr) -> NetFuture<'_, Box<dyn Listener>>;
    /// Connects to a host (name or address, without brackets) and port.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> NetFuture<'a, Box<dyn Connection>>;
}

/// The machine's network.
#[derive(Debug, Default)]
pub struct SystemNet;

impl Net for SystemNet {
    fn listen(&self, addr: SocketAddr) -> NetFuture<'_, Box<dyn Listener>> {
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            Ok(Box::new(SystemListener(listener)) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, host: &'a str, port: u16) -> NetFuture<'a, Box<dyn Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(SystemStream { socket: stream, beats: None }) as Box<dyn Connection>)
        })
    }
}

struct SystemListener(TcpListener);

impl Listener for SystemListener {
    fn accept(&self) -> NetFuture<'_, (Box<dyn Connection>, SocketAddr)> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            let stream = SystemStream { socket: stream, beats: None };
            Ok((Box::new(stream) as Box<dyn Connection>, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct SystemStream {
    socket: TcpStream,
    /// `None`: what comes is read at once.
    beats: Option<Beats>,
}

impl Connection for SystemStream {
    fn read_in_beats(&mut self) {
        self.beats.get_or_insert_default();
    }
}

impl AsyncRead for SystemStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let SystemStream { socket, beats } = self.get_mut();
        match beats {
            Some(beats) => beats.poll_read(socket, context, into),
            None => Pin::new(socket).poll_read(context, into),
        }
    }
}

impl AsyncWrite for SystemStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
