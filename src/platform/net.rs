//! The net seam: TCP in and out. Cameras are the exception: the RTSP library opens its own
//! sockets.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A future that a seam gives back.
pub type NetFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A byte stream to a peer.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

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
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

struct SystemListener(TcpListener);

impl Listener for SystemListener {
    fn accept(&self) -> NetFuture<'_, (Box<dyn Connection>, SocketAddr)> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as Box<dyn Connection>, peer))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
