//! What the bodies of all uploads go through: counts their bytes and keeps them together under a
//! cap.
//!
//! Only media goes through it. What steers (opening and committing uploads, callbacks, MQTT) never
//! waits here; the cap leaves room for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::domain::token_bucket::TokenBucket;

/// The way out.
pub struct Valve {
    bucket: Option<Mutex<TokenBucket>>,
    opened: Instant,
    passed: AtomicU64,
}

impl Valve {
    /// A valve for at most so many bytes a second; `None` is no limit. Must be made inside the
    /// runtime.
    #[must_use]
    pub fn new(cap_bytes_per_s: Option<u64>) -> Self {
        Valve {
            bucket: cap_bytes_per_s.map(|cap| Mutex::new(TokenBucket::for_cap(cap))),
            opened: Instant::now(),
            passed: AtomicU64::new(0),
        }
    }

    /// Bytes that went through, whatever became of them.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Takes a piece of at most `wanted` bytes, when there is room for it; `rest` belongs to the
    /// caller.
    pub(super) fn poll_take(
        &self,
        wanted: u64,
        rest: &mut Option<Pin<Box<Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<u64> {
        loop {
            if let Some(waiting) = rest {
                std::task::ready!(waiting.as_mut().poll(context));
                *rest = None;
            }
            match self.take(wanted) {
                Ok(taken) => return Poll::Ready(taken),
                Err(until) => *rest = Some(Box::pin(tokio::time::sleep_until(until))),
            }
        }
    }

    /// Waits until all of `bytes` have gone through.
    pub(super) async fn pass(&self, mut bytes: u64) {
        while bytes > 0 {
            match self.take(bytes) {
                Ok(taken) => bytes -= taken,
                Err(until) => tokio::time::sleep_until(until).await,
            }
        }
    }

    fn take(&self, wanted: u64) -> Result<u64, Instant> {
        let taken = match &self.bucket {
            None => wanted,
            Some(bucket) => {
                let now = Instant::now();
                let since = now.saturating_duration_since(self.opened);
                let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
                bucket.take(since, wanted).map_err(|wait| now + wait)?
            }
        };
        self.passed.fetch_add(taken, Ordering::Relaxed);
        Ok(taken)
    }
}
