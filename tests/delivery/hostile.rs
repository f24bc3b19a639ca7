//! Servers that mean no good or do not work: every wait ends, every size has a bound, and nothing
//! counts as delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edgerec::delivery::error::{DeliveryError, ErrorClass};
use edgerec::delivery::http::HttpLimits;
use edgerec::delivery::s3::S3Target;
use edgerec::delivery::shelf::{DeliveryPlan, Receipt, Shelf};
use edgerec::delivery::target::{Job, Target};
use edgerec::platform::clock::SystemClock;
use edgerec::platform::net::SystemNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::memory_shelf::{DEADLINE, MadeUp, MemoryShelf};
use crate::support::s3_server::settings;

/// For servers that are to be waited for in vain.
const SHORT: HttpLimits = HttpLimits {
    connect: Duration::from_secs(15),
    answer: Duration::from_millis(500),
    window: Duration::from_millis(500),
    window_bytes_min: 16 << 10,
};

/// How the server behaves.
#[derive(Clone, Copy)]
enum Manner {
    /// Takes everything and never answers.
    Silent,
    /// Takes nothing.
    Deaf,
    /// Answers this head, then the filler for ever.
    Endless { head: &'static str, filler: &'static str },
    /// Answers this and closes.
    Says(&'static str),
}

/// A server with one manner; counts its connections.
async fn serve(manner: Manner) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(behave(stream, manner));
        }
    });
    (port, connections)
}

async fn behave(mut stream: TcpStream, manner: Manner) {
    let mut buf = vec![0; 64 << 10];
    if let Manner::Deaf = manner {
        // Held open until the client has had enough.
        stream.writable().await.expect("open");
        return std::future::pending().await;
    }
    let _ = stream.read(&mut buf).await;
    match manner {
        Manner::Deaf => {}
        Manner::Silent => while stream.read(&mut buf).await.is_ok_and(|read| read > 0) {},
        Manner::Says(answer) => {
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        Manner::Endless { head, filler } => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(filler.as_bytes()).await.is_ok() {}
        }
    }
}

/// What a delivery of a file of `len` bytes to this server comes to.
async fn deliver(manner: Manner, len: u64) -> (Result<Receipt, DeliveryError>, usize) {
    let (port, connections) = serve(manner).await;
    let clock = Arc::new(SystemClock::new());
    let limits = match manner {
        Manner::Silent | Manner::Deaf => SHORT,
        // Here another bound is to be met first, also on a busy machine.
        Manner::Endless { .. } | Manner::Says(_) => HttpLimits::default(),
    };
    let target = S3Target::new(&settings(port), Arc::new(SystemNet), clock, limits, &[]);
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, len));
    let plan: DeliveryPlan = shelf.plan(file).expect("on the shelf");
    let rendering = shelf.open(file).expect("on the shelf").into();
    let job = Job::new(plan, rendering, shelf);
    let target = target.expect("good settings");
    let result = tokio::time::timeout(DEADLINE, target.deliver(&job)).await.expect("an end");
    (result, connections.load(Ordering::SeqCst))
}

async fn refusal(manner: Manner, len: u64) -> String {
    let (result, _) = deliver(manner, len).await;
    let error = result.expect_err("nothing was stored");
    assert_eq!(error.class(), ErrorClass::Retry);
    error.explain()
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let why = refusal(Manner::Silent, 1000).await;
    assert!(why.contains("no answer"), "{why}");
    let why = refusal(Manner::Silent, 20 << 20).await;
    assert!(why.contains("no answer"), "{why}");
}

#[tokio::test]
async fn a_server_that_takes_nothing_is_given_up() {
    let why = refusal(Manner::Deaf, 15 << 20).await;
    // Whichever limit is met first: that of the body or that of the connection.
    assert!(why.contains("hardly takes any data") || why.contains("peer takes no data"), "{why}");
}

#[tokio::test]
async fn endless_heads_and_texts_are_cut() {
    let head = "HTTP/1.1 200 OK\r\n";
    let why = refusal(Manner::Endless { head, filler: "X-Filler: aaaaaaaaaaaa\r\n" }, 1000).await;
    assert!(why.contains("target unreachable"), "{why}");
    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\n\r\n";
    let filler = "8\r\n<a></a>\n\r\n";
    let why = refusal(Manner::Endless { head, filler }, 1000).await;
    assert!(why.contains("longer than 65536 bytes"), "{why}");
}

#[tokio::test]
async fn redirects_and_portals_are_not_followed_or_believed() {
    let (port, elsewhere) = serve(Manner::Silent).await;
    let moved = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{port}/\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let why = refusal(Manner::Says(moved.leak()), 1000).await;
    assert!(why.contains("307 Redirect"), "{why}");
    assert_eq!(elsewhere.load(Ordering::SeqCst), 0);
    let portal = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n<html>log in</html>\n";
    let why = refusal(Manner::Says(portal), 1000).await;
    assert!(why.contains("without ETag"), "{why}");
    let why = refusal(Manner::Says(portal), 20 << 20).await;
    assert!(why.contains("no upload was begun"), "{why}");
}

#[tokio::test]
async fn an_early_refusal_is_heard_while_the_body_still_goes_out() {
    let says = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 51\r\n\r\n\
                <Error><Code>Nope</Code><Message>a\tb</Message></Error>";
    let (result, connections) = deliver(Manner::Says(says), 15 << 20).await;
    let why = result.expect_err("refused").explain();
    assert!(why.contains("403") || why.contains("target unreachable"), "{why}");
    assert_eq!(connections, 1);
}
