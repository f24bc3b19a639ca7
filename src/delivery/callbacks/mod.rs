//! Notices out: tells receivers over HTTP what happened, from the outbox of the catalog.
//!
//! A notice is told by a POST of its JSON; status 200 within the time limit is success, whatever
//! the answer says; a redirect is none. `t` and `sign` are made for each attempt, everything else
//! is the same each time. Receivers do not hold up one another, nor do streams: one attempt a lane
//! (a stream at a receiver) is on its way, and a lane keeps its order.
//!
//! The outbox is durable and the sender can be dropped and started anew at any time: what waits is
//! tried at once then. What was on its way may be told twice, once a lane, with the same `edgerec`
//! member.

mod attempt;
pub mod schedule;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use self::attempt::{Outcome, Teller};
use self::schedule::Schedule;
use crate::delivery::error::DeliveryError;
use crate::domain::notice::NoticeSeq;
use crate::domain::time::BootTime;
use crate::platform::clock::Clock;
use crate::platform::net::Net;
use crate::platform::random::random_u64;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::notices::{Attempt, Verdict, WaitingNotice};

/// The outbox is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How notices are told.
#[derive(Debug, Clone, Copy)]
pub struct SenderSettings {
    /// An attempt fails after this.
    pub time_limit: Duration,
    /// When the next attempt is made.
    pub schedule: Schedule,
    /// Attempts at the same time, at least 1.
    pub parallel: usize,
}

impl Default for SenderSettings {
    fn default() -> Self {
        SenderSettings {
            time_limit: Duration::from_secs(20),
            schedule: Schedule::default(),
            parallel: 32,
        }
    }
}

/// Tells notices.
pub struct Sender {
    outbox: Catalog,
    news: Arc<Notify>,
    clock: Arc<dyn Clock>,
    teller: Arc<Teller>,
    settings: SenderSettings,
}

/// Attempts on their way, and notices that rest after one that failed.
#[derive(Default)]
struct Lanes {
    tasks: JoinSet<Outcome>,
    on_their_way: HashMap<Id, WaitingNotice>,
    rests: HashMap<NoticeSeq, Rest>,
}

struct Rest {
    until: BootTime,
    /// Of the receiver that did not answer; empty if it did.
    silent: String,
}

impl Sender {
    /// A sender over the outbox of a catalog. `news` is told when a notice begins to wait
    /// ([`notice_news`](crate::ring::catalog::CatalogState::notice_news)); `extra_roots` are
    /// certificate authorities trusted besides the public ones.
    ///
    /// # Errors
    /// An extra root is no certificate.
    pub fn new(
        (outbox, news): (Catalog, Arc<Notify>),
        net: Arc<dyn Net>,
        clock: Arc<dyn Clock>,
        settings: SenderSettings,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, DeliveryError> {
        let teller = Teller::new(net, clock.clone(), settings.time_limit, extra_roots)?;
        Ok(Sender { outbox, news, clock, teller: Arc::new(teller), settings })
    }

    /// Tells until shutdown; attempts are then dropped where they stand and made anew next time.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut lanes = Lanes::default();
        loop {
            let pause = self.set_out(&mut lanes).await;
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = lanes.tasks.join_next_with_id() => {
                    self.settle(ended, &mut lanes).await;
                }
                () = self.news.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        lanes.tasks.shutdown().await;
    }

    /// Begins every attempt that is due; gives how long to wait before looking again.
    async fn set_out(&self, lanes: &mut Lanes) -> Duration {
        let waiting = match self.outbox.call(|state| state.waiting_notices()).await {
            Ok(waiting) => waiting,
            Err(problem) => {
                error!(%problem, cause = ?std::error::Error::source(&problem),
                    "the outbox cannot be read");
                return LOOK_AGAIN;
            }
        };
        let now = self.clock.now().boot;
        let mut pause = LOOK_AGAIN;
        let busy: HashSet<NoticeSeq> =
            lanes.on_their_way.values().map(|notice| notice.seq).collect();
        for notice in waiting {
            if lanes.tasks.len() >= self.settings.parallel.max(1) {
                break;
            }
            let left = lanes.rests.get(&notice.seq).map(|rest| rest.until.since(now));
            if let Some(left) = left.filter(|left| !left.is_zero()) {
                pause = pause.min(left);
            } else if !busy.contains(&notice.seq) {
                let (teller, told) = (self.teller.clone(), notice.clone());
                let id = lanes.tasks.spawn(async move { teller.tell(&told).await }).id();
                lanes.on_their_way.insert(id, notice);
            }
        }
        pause
    }

    /// Draws the consequences of an attempt that ended.
    async fn settle(&self, ended: Result<(Id, Outcome), JoinError>, lanes: &mut Lanes) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            // A panic concerns this attempt only.
            Err(panic) => (panic.id(), Outcome::NoAnswer(panic.to_string())),
        };
        let Some(notice) = lanes.on_their_way.remove(&id) else { return };
        let seq = notice.seq;
        lanes.rests.remove(&seq);
        let (verdict, answer) = match outcome {
            Outcome::Taken(answer) => {
                info!(seq = seq.0, stream = %notice.key, event = notice.event.number(), "told");
                let origin = notice.url.origin();
                // Who is back is told everything at once.
                lanes.rests.retain(|_, rest| rest.silent != origin);
                (Verdict::Taken, answer)
            }
            Outcome::Refused(why) => (self.after_failure(&notice, &why, true, lanes), why),
            Outcome::NoAnswer(why) => (self.after_failure(&notice, &why, false, lanes), why),
        };
        let attempt = Attempt { at: self.clock.now().wall.unix, verdict, answer };
        let noted = self.outbox.call(move |state| state.note_attempt(seq, &attempt)).await;
        if let Err(problem) = noted {
            error!(seq = seq.0, %problem, "what became of a notice cannot be stored");
            let until = BootTime(now_ms(&*self.clock) + millis(self.settings.schedule.interval));
            lanes.rests.insert(seq, Rest { until, silent: String::new() });
        }
    }

    /// Has a notice rest after an attempt that failed, or gives it up.
    fn after_failure(
        &self,
        notice: &WaitingNotice,
        why: &str,
        answered: bool,
        lanes: &mut Lanes,
    ) -> Verdict {
        let failed = notice.attempts.saturating_add(1);
        let (seq, stream, event) = (notice.seq.0, &notice.key, notice.event.number());
        let schedule = &self.settings.schedule;
        let Some(delay) = schedule.delay(failed, random_u64()) else {
            error!(seq, %stream, event, url = %notice.url, failed, why, "notice given up");
            return Verdict::GivenUp;
        };
        if failed == 1 {
            warn!(seq, %stream, event, url = %notice.url, why, "notice not taken, will try again");
        } else {
            debug!(seq, %stream, event, url = %notice.url, failed, why, "notice not taken");
        }
        let silent = if answered { String::new() } else { notice.url.origin() };
        let until = BootTime(now_ms(&*self.clock) + millis(delay));
        lanes.rests.insert(notice.seq, Rest { until, silent });
        if answered && schedule.is_over_for_the_contract(failed) {
            Verdict::Aside
        } else {
            Verdict::Again
        }
    }
}

fn now_ms(clock: &dyn Clock) -> u64 {
    clock.now().boot.0
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
