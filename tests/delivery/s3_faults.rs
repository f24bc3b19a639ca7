//! What goes wrong at a store: nothing counts as delivered that is not there as rendered.

use std::net::TcpListener;

use edgerec::delivery::error::ErrorClass;
use edgerec::domain::secret::Secret;

use crate::bench::Running;
use crate::support::memory_shelf::{MadeUp, MemoryShelf};
use crate::support::s3_server::{S3Server, settings};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_wrong_key_leaves_the_file_waiting_with_a_reason() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1000));
    let mut wrong = server.settings();
    wrong.secret_access_key = Secret::new("canary-wrong-key");
    let running = Running::start_s3(&shelf, &wrong);
    let fate = shelf.until("three tries", file, |fate| fate.failures.len() >= 3).await;
    let why = running.why(file);
    running.kill().await;
    assert!(fate.receipt.is_none());
    for failure in &fate.failures {
        assert_eq!(failure.class, ErrorClass::Retry);
        assert!(failure.why.contains("403 SignatureDoesNotMatch"), "{}", failure.why);
        assert!(!failure.why.contains("canary"), "{}", failure.why);
    }
    assert!(why.contains("403") || why.contains("uploading") || why.contains("turn"), "{why}");
    let running = Running::start_s3(&shelf, &server.settings());
    shelf.delivered(file).await;
    running.kill().await;
}

#[tokio::test]
async fn a_store_that_comes_up_later_gets_the_files() {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("bound");
        free.local_addr().expect("bound").port()
    };
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 1000));
    let running = Running::start_s3(&shelf, &settings(port));
    let fate = shelf.until("three tries", file, |fate| fate.failures.len() >= 3).await;
    for failure in &fate.failures {
        assert_eq!(failure.why, "no link to the target: connection refused");
    }
    let server = S3Server::start_on(port).await;
    // A file that is queued meanwhile waits for the same target.
    let second = shelf.put(2, MadeUp::single(2, 1000));
    running.wake.notify_one();
    shelf.delivered(file).await;
    shelf.delivered(second).await;
    assert_eq!(server.count("PUT", "object").await, 2);
    running.kill().await;
}

#[tokio::test]
async fn a_corrupted_object_is_not_delivered() {
    let server = S3Server::start().await;
    server.fault("flip", "PUT", "object", 1000).await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 5000);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    let fate = shelf.until("three tries", file, |fate| fate.failures.len() >= 3).await;
    assert!(fate.receipt.is_none());
    assert!(fate.failures[0].why.contains("not what was sent"), "{}", fate.failures[0].why);
    server.clear_faults().await;
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    running.kill().await;
}

#[tokio::test]
async fn a_corrupted_part_is_sent_again() {
    let server = S3Server::start().await;
    server.fault_on_part("flip", "2", 1).await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 20 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    assert_eq!(server.count("PUT", "part").await, 4, "three parts, one twice");
    let key = format!("boxes/one/{}", shelf.path(file, ""));
    assert!(server.object(&key).await.expect("stored") == made_up.bytes(0));
    running.kill().await;
}

#[tokio::test]
async fn a_store_with_its_own_etags_is_read_back() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    for method in ["PUT", "HEAD", "GET"] {
        server.fault("opaque-etag", method, "object", 1000).await;
    }
    let file = shelf.put(1, MadeUp::single(1, 5000));
    let running = Running::start_s3(&shelf, &server.settings());
    shelf.delivered(file).await;
    assert_eq!(server.count("GET", "object").await, 1);
    // In parts: the answers to the completion and to HEAD have foreign ETags.
    let large = shelf.put(2, MadeUp::single(2, 17 * MIB));
    running.wake.notify_one();
    shelf.delivered(large).await;
    assert_eq!(server.count("GET", "object").await, 2);
    assert!(shelf.fate(large).failures.is_empty());
    running.kill().await;
}

#[tokio::test]
async fn a_200_with_an_error_inside_is_a_failure() {
    let server = S3Server::start().await;
    server.fault("error-in-200", "POST", "complete", 2).await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 17 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    let fate = shelf.fate(file);
    assert_eq!(fate.failures.len(), 2, "{:?}", fate.failures);
    assert!(fate.failures[0].why.contains("InternalError"), "{}", fate.failures[0].why);
    assert_eq!(server.count("PUT", "part").await, 3, "no part twice");
    running.kill().await;
}

#[tokio::test]
async fn a_lost_answer_to_the_completion_costs_no_second_upload() {
    let server = S3Server::start().await;
    server.fault("drop-answer", "POST", "complete", 1).await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 17 * MIB);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    assert_eq!(server.count("PUT", "part").await, 3);
    assert_eq!(server.count("POST", "create").await, 1);
    assert_eq!(server.count("POST", "complete").await, 1);
    assert_eq!(shelf.fate(file).failures.len(), 1);
    running.kill().await;
}

#[tokio::test]
async fn a_busy_store_is_tried_again_and_loses_no_part() {
    let server = S3Server::start().await;
    server.fault("busy", "PUT", "part", 3).await;
    server.fault("busy", "POST", "create", 2).await;
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 17 * MIB));
    let running = Running::start_s3(&shelf, &server.settings());
    shelf.delivered(file).await;
    assert_eq!(shelf.fate(file).failures.len(), 5);
    assert_eq!(server.count("PUT", "part").await, 3 + 3);
    running.kill().await;
}

/// S3 answers HEAD of a missing object with 403 if the key may not list.
#[tokio::test]
async fn a_key_that_may_only_put_gets_its_file_through_a_bad_day() {
    let server = S3Server::start().await;
    server.fault("busy", "PUT", "object", 1).await;
    server.fault("forbidden", "HEAD", "object", 1000).await;
    let shelf = MemoryShelf::new();
    let made_up = MadeUp::single(1, 5000);
    let file = shelf.put(1, made_up.clone());
    let running = Running::start_s3(&shelf, &server.settings());
    assert_eq!(shelf.delivered(file).await.sha256, made_up.sha256());
    let counts = (server.count("PUT", "object").await, server.count("HEAD", "object").await);
    assert_eq!(counts, (2, 1), "looked for once, in vain");
    assert_eq!(shelf.fate(file).failures.len(), 1, "{:?}", shelf.fate(file).failures);
    running.kill().await;
}

#[tokio::test]
async fn what_may_not_be_asked_for_is_not_proved() {
    let server = S3Server::start().await;
    server.fault("opaque-etag", "PUT", "object", 1000).await;
    server.fault("forbidden", "HEAD", "object", 1000).await;
    let shelf = MemoryShelf::new();
    let file = shelf.put(1, MadeUp::single(1, 5000));
    let running = Running::start_s3(&shelf, &server.settings());
    let fate = shelf.until("three tries", file, |fate| fate.failures.len() >= 3).await;
    running.kill().await;
    assert!(fate.receipt.is_none());
    assert!(fate.failures[0].why.contains("403 AccessDenied"), "{}", fate.failures[0].why);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_others_go_on() {
    let server = S3Server::start().await;
    let shelf = MemoryShelf::new();
    let mut damaged = MadeUp::single(1, 17 * MIB);
    damaged.damaged_at = Some(10 * MIB);
    let bad = shelf.put(1, damaged);
    let good = shelf.put(2, MadeUp::single(2, 1000));
    let running = Running::start_s3(&shelf, &server.settings());
    shelf.delivered(good).await;
    let fate = shelf.until("set aside", bad, |fate| !fate.failures.is_empty()).await;
    assert_eq!(fate.failures[0].class, ErrorClass::Quarantine);
    assert!(fate.failures[0].why.contains("damaged: crc"), "{}", fate.failures[0].why);
    assert!(server.object(&shelf.path(bad, "")).await.is_none());
    running.kill().await;
}
