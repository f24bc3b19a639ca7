//! Media goes out only to a server that wants it: one that refuses at the head of a request gets
//! none of it, one that knows nothing of the question gets it all the same.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::delivery::error::DeliveryError;
use edgerec::delivery::shelf::Shelf;
use edgerec::delivery::target::{Job, Target};
use edgerec::platform::clock::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::s3_target;
use crate::support::memory_shelf::{DEADLINE, MadeUp, MemoryShelf};
use crate::support::s3_server::settings;

const LEN: u64 = 300_000;

/// When a server answers.
#[derive(Clone, Copy)]
enum Answers {
    /// With this, before the body.
    Before(&'static str),
    /// With 503, after the whole body and without a word before.
    After,
}

/// What came of a request: whether it asked, and bytes of its body.
type Seen = Arc<Mutex<Vec<(bool, usize)>>>;

async fn serve(answers: Answers) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (asked, body) = take(stream, answers).await;
            noted.lock().expect("free").push((asked, body));
        }
    });
    (port, seen)
}

/// Takes one request to its end, which is the end of the connection.
async fn take(mut stream: TcpStream, answers: Answers) -> (bool, usize) {
    let mut got = Vec::new();
    let head_end = loop {
        if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut got).await.is_ok_and(|read| read == 0) {
            break got.len();
        }
    };
    let head = String::from_utf8_lossy(&got[..head_end]).to_ascii_lowercase();
    let asked = head.contains("expect: 100-continue");
    if let Answers::Before(answer) = answers {
        stream.write_all(answer.as_bytes()).await.expect("sent");
    }
    let wanted = if let Answers::After = answers { LEN as usize } else { usize::MAX };
    while got.len() - head_end < wanted && stream.read_buf(&mut got).await.is_ok_and(|n| n > 0) {}
    if let Answers::After = answers {
        let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        stream.write_all(busy.as_bytes()).await.expect("sent");
    }
    (asked, got.len() - head_end)
}

/// The error that an attempt ends with.
async fn attempt(target: &dyn Target) -> DeliveryError {
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, LEN));
    let plan = shelf.plan(file).expect("on the shelf");
    let rendering = shelf.open(file).expect("on the shelf").into();
    let job = Job::new(plan, rendering, shelf);
    let result = tokio::time::timeout(DEADLINE, target.deliver(&job)).await.expect("an end");
    result.expect_err("nothing was stored")
}

/// What was seen of the first requests, once so many are over.
async fn seen_of(seen: &Seen, count: usize) -> Vec<(bool, usize)> {
    let look = async {
        loop {
            let now = seen.lock().expect("free").clone();
            if now.len() >= count {
                return now;
            }
            let pause = std::future::pending::<()>();
            let _ = tokio::time::timeout(Duration::from_millis(10), pause).await;
        }
    };
    tokio::time::timeout(DEADLINE, look).await.expect("the requests end")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_at_the_head_gets_no_media() {
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    let (port, seen) = serve(Answers::Before(busy)).await;
    let target = s3_target(&settings(port), Arc::new(SystemClock::new()));
    let error = attempt(&*target).await;
    assert!(error.explain().contains("503"), "{}", error.explain());
    drop(target);
    assert_eq!(seen_of(&seen, 1).await, [(true, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_gets_it_all_the_same() {
    let (port, seen) = serve(Answers::After).await;
    let target = s3_target(&settings(port), Arc::new(SystemClock::new()));
    let error = attempt(&*target).await;
    assert!(error.explain().contains("503"), "{}", error.explain());
    assert_eq!(seen_of(&seen, 1).await, [(true, LEN as usize)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_asking_is_refused_nothing_is_asked_any_more() {
    let cannot =
        "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let (port, seen) = serve(Answers::Before(cannot)).await;
    let target = s3_target(&settings(port), Arc::new(SystemClock::new()));
    for _ in 0..2 {
        attempt(&*target).await;
    }
    let asked: Vec<bool> = seen_of(&seen, 2).await.into_iter().map(|(asked, _)| asked).collect();
    assert_eq!(asked, [true, false]);
}
