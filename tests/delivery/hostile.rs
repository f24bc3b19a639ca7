//! Servers that mean no good or do not work, in the place of a bucket, of the VOD platform's API
//! and of its object storage: every wait ends, every size has a bound, nothing is followed to
//! another host, and nothing counts as delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edgerec::delivery::error::{DeliveryError, ErrorClass};
use edgerec::delivery::http::HttpLimits;
use edgerec::delivery::s3::S3Target;
use edgerec::delivery::settings::{DeliverySettings, VodSettings};
use edgerec::delivery::shelf::{DeliveryPlan, Receipt, Shelf};
use edgerec::delivery::target::{Job, Target};
use edgerec::delivery::vod::VodTarget;
use edgerec::domain::secret::Secret;
use edgerec::platform::clock::SystemClock;
use edgerec::platform::net::SystemNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{Running, s3_target};
use crate::support::fake_vod::{FakeVod, SECRET_ID, SECRET_KEY};
use crate::support::memory_shelf::{DEADLINE, MadeUp, MemoryShelf};
use crate::support::s3_server::{self, settings};

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

/// Which server is the hostile one.
#[derive(Debug, Clone, Copy)]
enum Side {
    /// A bucket.
    Bucket,
    /// The API of the VOD platform.
    Api,
    /// Object storage, in a session that the right API has opened.
    Storage,
}

const SIDES: [Side; 3] = [Side::Bucket, Side::Api, Side::Storage];

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

/// What a delivery of a file of `len` bytes comes to, how often the server was connected to, and
/// what the right part of the platform was asked.
async fn deliver(
    side: Side,
    manner: Manner,
    len: u64,
) -> (Result<Receipt, DeliveryError>, usize, Vec<String>) {
    let (port, connections) = serve(manner).await;
    let limits = match manner {
        Manner::Silent | Manner::Deaf => SHORT,
        // Here another bound is to be met first, also on a busy machine.
        Manner::Endless { .. } | Manner::Says(_) => HttpLimits::default(),
    };
    let (clock, net) = (Arc::new(SystemClock::new()), Arc::new(SystemNet));
    let platform = FakeVod::start();
    let target: Box<dyn Target> = match side {
        Side::Bucket => {
            let target = S3Target::new(&settings(port), net, clock, limits, &[]);
            Box::new(target.expect("good settings"))
        }
        Side::Api | Side::Storage => {
            let api = if let Side::Api = side { port } else { platform.port };
            let settings = VodSettings {
                endpoint: Some(format!("http://127.0.0.1:{api}")),
                storage_endpoint: Some(format!("http://127.0.0.1:{port}")),
                storage_region: None,
                sub_app_id: None,
                secret_id: SECRET_ID.into(),
                secret_key: Secret::new(SECRET_KEY),
            };
            Box::new(VodTarget::new(&settings, net, clock, limits, &[]).expect("good settings"))
        }
    };
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, len));
    let plan: DeliveryPlan = shelf.plan(file).expect("on the shelf");
    let rendering = shelf.open(file).expect("on the shelf").into();
    let job = Job::new(plan, rendering, shelf);
    let result = tokio::time::timeout(DEADLINE, target.deliver(&job)).await.expect("an end");
    assert!(platform.media().is_empty(), "nothing is committed");
    let asked = platform.log().into_iter().map(|seen| seen.on).collect();
    (result, connections.load(Ordering::SeqCst), asked)
}

async fn refusal(side: Side, manner: Manner, len: u64) -> String {
    let (result, _, asked) = deliver(side, manner, len).await;
    let error = result.expect_err("nothing was stored");
    assert_eq!(error.class(), ErrorClass::Retry);
    let expected: &[&str] = if let Side::Storage = side { &["ApplyUpload"] } else { &[] };
    assert_eq!(asked, expected, "no further than that");
    let why = error.explain();
    for secret in [SECRET_KEY, s3_server::SECRET_KEY, "TEMPSECRET", "TEMPTOKEN"] {
        assert!(!why.contains(secret), "{why}");
    }
    why
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up() {
    for side in SIDES {
        for len in [1_000, 20 << 20] {
            let why = refusal(side, Manner::Silent, len).await;
            assert!(why.contains("no answer"), "{side:?}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_nothing_is_given_up() {
    for side in [Side::Bucket, Side::Storage] {
        let why = refusal(side, Manner::Deaf, 15 << 20).await;
        // Whichever limit is met first: that of the body or that of the connection.
        let given_up = ["hardly takes any data", "peer takes no data"];
        assert!(given_up.iter().any(|words| why.contains(words)), "{side:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_heads_and_texts_are_cut() {
    for side in SIDES {
        let head = "HTTP/1.1 200 OK\r\n";
        let filler = "X-Filler: aaaaaaaaaaaa\r\n";
        let why = refusal(side, Manner::Endless { head, filler }, 1000).await;
        assert!(why.contains("no link to the target"), "{side:?}: {why}");
        let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\n\r\n";
        let filler = "8\r\n<a></a>\n\r\n";
        let why = refusal(side, Manner::Endless { head, filler }, 1000).await;
        assert!(why.contains("longer than 65536 bytes"), "{side:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_unpack_to_gigabytes_is_never_unpacked() {
    // Nobody asked for gzip: what comes is taken as it is, and makes no sense.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
                ETag: \"x\"\r\nContent-Length: 1024\r\n\r\n\u{1f}";
    let bomb: &'static str = format!("{head}{}", "\u{1}".repeat(1023)).leak();
    for side in SIDES {
        // The large one begins an upload, whose answer has to be read.
        let why = refusal(side, Manner::Says(bomb), 20 << 20).await;
        let words = ["no upload was begun", "no answer of the API"];
        assert!(words.iter().any(|words| why.contains(words)), "{side:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_and_portals_are_not_followed_or_believed() {
    let (port, elsewhere) = serve(Manner::Silent).await;
    for side in SIDES {
        for status in ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let moved = format!(
                "HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:{port}/\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            let why = refusal(side, Manner::Says(moved.leak()), 1000).await;
            let wanted = format!("the address leads elsewhere: target answered {}", &status[..3]);
            assert!(why.starts_with(&wanted), "{side:?}: {why}");
        }
        assert_eq!(elsewhere.load(Ordering::SeqCst), 0);
        let portal = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 20\r\n\r\n\
                      <html>log in</html>\n";
        for len in [1_000, 20 << 20] {
            let why = refusal(side, Manner::Says(portal), len).await;
            let words = ["ETag", "no upload was begun", "no answer of the API"];
            assert!(words.iter().any(|words| why.contains(words)), "{side:?}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_is_heard_while_the_body_still_goes_out() {
    let says = "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 51\r\n\r\n\
                <Error><Code>Nope</Code><Message>a\tb</Message></Error>";
    for side in [Side::Bucket, Side::Storage] {
        let (result, connections, _) = deliver(side, Manner::Says(says), 15 << 20).await;
        let why = result.expect_err("refused").explain();
        assert!(why.contains("403") || why.contains("no link to the target"), "{why}");
        assert_eq!(connections, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_server_wants_to_be_left_alone_is_heard() {
    let busy = "HTTP/1.1 503 Slow Down\r\nRetry-After: 45\r\nContent-Length: 0\r\n\r\n";
    for side in SIDES {
        let (result, _, _) = deliver(side, Manner::Says(busy), 0).await;
        let error = result.expect_err("busy");
        assert_eq!(error.wait(), Some(Duration::from_secs(45)), "{side:?}: {}", error.explain());
    }
    // And the queue heeds it.
    let (port, connections) = serve(Manner::Says(busy)).await;
    let shelf = MemoryShelf::new();
    let files = [1, 2].map(|number| shelf.put(number, MadeUp::single(number, 0)));
    let target = s3_target(&settings(port), Arc::new(SystemClock::new()));
    let one = DeliverySettings { parallel: 1, ..Running::settings() };
    let running = Running::start_with(&shelf, target, one);
    running.until("the wait", || running.why(files[1]).contains("next try in 4")).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    running.kill().await;
}
