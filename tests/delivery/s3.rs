//! The straight ways to a bucket, and restarts on the way.

use std::path::PathBuf;
use std::sync::Arc;

use edgerec::delivery::http::HttpLimits;
use edgerec::delivery::s3::S3Target;
use edgerec::domain::ids::BootId;
use edgerec::domain::time::{Instant, UnixMillis};
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::platform::net::SystemNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::bench::{Running, s3_target};
use crate::support::memory_shelf::{MadeUp, MemoryShelf};
use crate::support::s3_server::S3Server;

const MIB: u64 = 1 << 20;

fn key(shelf: &MemoryShelf, file: edgerec::domain::ids::FileId, object: &str) -> String {
    format!("boxes/one/{}", shelf.path(file, object))
}

#[tokio::test]
async fn small_files_are_single_puts() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = [MadeUp::single(1, 300_001), MadeUp::single(2, 0), MadeUp::single(3, 1)];
    let files: Vec<_> = (1..).zip(&made_up).map(|(n, m)| shelf.put(n, m.clone())).collect();
    let running = Running::start_s3(&shelf, &server.settings());
    for (file, made_up) in files.iter().zip(&made_up) {
        let receipt = shelf.delivered(*file).await;
        assert_eq!(receipt.size, made_up.objects[0].len);
        assert_eq!(receipt.sha256, made_up.sha256());
        assert!(receipt.url.starts_with(&server.settings().endpoint), "{}", receipt.url);
        assert!(!receipt.url.contains('?'), "no signature in {}", receipt.url);
        let stored = server.object(&key(&shelf, *file, "")).await.expect("stored");
        assert!(stored == made_up.bytes(0), "{} bytes of {}", stored.len(), receipt.size);
    }
    assert_eq!(server.count("PUT", "object").await, 3);
    let lengths: Vec<_> = server.log().await.into_iter().filter_map(|seen| seen.declared).collect();
    assert!(lengths.contains(&"0".to_owned()), "an empty body has a length: {lengths:?}");
    running.kill().await;
}

#[tokio::test]
async fn a_large_file_goes_in_parts() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(4, 40 * MIB + 5);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    let receipt = shelf.delivered(file).await;
    assert_eq!((receipt.size, receipt.sha256), (40 * MIB + 5, made_up.sha256()));
    assert!(server.object(&key(&shelf, file, "")).await.expect("stored") == made_up.bytes(0));
    let log = server.log().await;
    let counts = ["create", "part", "complete"]
        .map(|on| log.iter().filter(|seen| seen.on == on && seen.method != "GET").count());
    assert_eq!(counts, [1, 6, 1]);
    assert_eq!(server.count("GET", "object").await, 0, "the ETag is proof enough");
    running.kill().await;
}

#[tokio::test]
async fn a_killed_upload_goes_on_where_it_stood() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(5, 40 * MIB);
    let file = shelf.put(1, made_up.clone());
    for parts in [1, 3, 4] {
        let running = Running::start_s3(&shelf, &server.settings());
        let stood = |fate: &crate::support::memory_shelf::Fate| {
            let multipart = fate.progress.as_ref().and_then(|p| p.multipart.as_ref());
            multipart.is_some_and(|multipart| multipart.etags.len() >= parts)
        };
        shelf.until("some parts", file, stood).await;
        running.kill().await;
    }
    let running = Running::start_s3(&shelf, &server.settings());
    let receipt = shelf.delivered(file).await;
    assert_eq!(receipt.sha256, made_up.sha256(), "checksum over all runs");
    assert!(server.object(&key(&shelf, file, "")).await.expect("stored") == made_up.bytes(0));
    assert_eq!(server.count("POST", "create").await, 1);
    let log = server.log().await;
    for part in 1..=5 {
        let whole = |seen: &&crate::support::s3_server::Seen| {
            seen.part.as_deref() == Some(&part.to_string()) && seen.status == 200
        };
        let sent = log.iter().filter(whole).count();
        assert!(sent <= 2, "part {part} was sent {sent} times");
    }
    // Each of the three kills costs at most the part that was on its way.
    assert!(server.count("PUT", "part").await <= 5 + 3, "{:?}", server.log().await);
    running.kill().await;
}

#[tokio::test]
async fn a_forgotten_upload_starts_over() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(6, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    shelf
        .until("a part", file, |fate| {
            let multipart = fate.progress.as_ref().and_then(|p| p.multipart.as_ref());
            multipart.is_some_and(|multipart| !multipart.etags.is_empty())
        })
        .await;
    running.kill().await;
    server.abort_uploads().await;
    let running = Running::start_s3(&shelf, &server.settings());
    let receipt = shelf.delivered(file).await;
    assert_eq!(receipt.sha256, made_up.sha256());
    assert_eq!(server.count("POST", "create").await, 2);
    assert!(shelf.fate(file).failures.is_empty(), "starting over is no failure");
    running.kill().await;
}

#[tokio::test]
async fn a_file_that_changed_starts_over_and_leaves_no_upload_behind() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(7, 20 * MIB));
    let running = Running::start_s3(&shelf, &server.settings());
    shelf
        .until("a part", file, |fate| {
            let multipart = fate.progress.as_ref().and_then(|p| p.multipart.as_ref());
            multipart.is_some_and(|multipart| !multipart.etags.is_empty())
        })
        .await;
    running.kill().await;
    let changed = MadeUp::single(8, 20 * MIB);
    shelf.replace(file, changed.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    assert_eq!(shelf.delivered(file).await.sha256, changed.sha256());
    assert!(server.object(&key(&shelf, file, "")).await.expect("stored") == changed.bytes(0));
    assert_eq!(server.open_uploads().await, 0);
    running.kill().await;
}

#[tokio::test]
async fn hls_goes_segment_by_segment_and_the_playlist_last() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::hls(9, 12, 200_000);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    shelf
        .until("five segments", file, |fate| {
            fate.progress.as_ref().is_some_and(|progress| progress.objects_done >= 5)
        })
        .await;
    running.kill().await;
    let running = Running::start_s3(&shelf, &server.settings());
    let receipt = shelf.delivered(file).await;
    assert!(receipt.url.ends_with("/index.m3u8"), "{}", receipt.url);
    assert_eq!((receipt.size, receipt.sha256), (12 * 200_000 + 100, made_up.sha256()));
    for (index, object) in made_up.objects.iter().enumerate() {
        let stored = server.object(&key(&shelf, file, &object.name)).await.expect("stored");
        assert!(stored == made_up.bytes(index), "{}", object.name);
    }
    let log = server.log().await;
    assert!(log.last().expect("requests").key.ends_with("/index.m3u8"));
    assert!(log.len() <= 13 + 1, "at most one object twice: {log:?}");
    running.kill().await;
}

#[tokio::test]
async fn a_clock_that_is_wrong_by_days_costs_one_more_request() {
    struct WrongClock(SystemClock);
    impl Clock for WrongClock {
        fn now(&self) -> Instant {
            let mut now = self.0.now();
            now.wall.unix = UnixMillis(now.wall.unix.0 - 3 * 24 * 3_600_000);
            now
        }
        fn boot_id(&self) -> BootId {
            self.0.boot_id()
        }
    }
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let files = [shelf.put(1, MadeUp::single(1, 100)), shelf.put(2, MadeUp::single(2, 100))];
    let target = s3_target(&server.settings(), Arc::new(WrongClock(SystemClock::new())));
    let running = Running::start(&shelf, target);
    for file in files {
        shelf.delivered(file).await;
    }
    let refused = server.log().await.iter().filter(|seen| seen.status == 403).count();
    assert!((1..=2).contains(&refused), "two may be on their way: {:?}", server.log().await);
    running.kill().await;
}

/// A self-made certificate for this machine as PEM files, and its DER.
fn certificate(folder: &std::path::Path) -> (PathBuf, PathBuf, CertificateDer<'static>) {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let status = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "3", "-subj", "/CN=box test", "-addext"])
        .args(["subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .stderr(std::process::Stdio::null())
        .status()
        .expect("openssl runs");
    assert!(status.success());
    let der = CertificateDer::from_pem_file(&certificate).expect("a certificate");
    (certificate, key, der)
}

#[tokio::test]
async fn tls_with_a_root_of_our_own_and_not_without() {
    let folder = tempfile::tempdir().expect("scratch");
    let (certificate, key, root) = certificate(folder.path());
    let server = S3Server::start_tls(certificate, key).await;
    let mut settings = server.settings();
    settings.endpoint = settings.endpoint.replace("http:", "https:");
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 17 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &settings);
    let fate = shelf.until("a try", file, |fate| !fate.failures.is_empty()).await;
    assert!(fate.failures[0].why.contains("certificate"), "{:?}", fate.failures);
    running.kill().await;
    let (net, clock) = (Arc::new(SystemNet), Arc::new(SystemClock::new()));
    let target = S3Target::new(&settings, net, clock, HttpLimits::default(), &[root]);
    let running = Running::start(&shelf, Arc::new(target.expect("good settings")));
    let receipt = shelf.delivered(file).await;
    assert_eq!(receipt.sha256, made_up.sha256());
    assert!(receipt.url.starts_with("https://127.0.0.1"), "{}", receipt.url);
    running.kill().await;
}
