//! The streams that are live: pushes and pulls alike, each from its admission to its end.
//!
//! Whoever takes a stream enters it and keeps the [`OnlineEntry`]; dropped, it leaves. Each has a
//! row in the catalog. An entry may be cut from its first moment on: a ban that came between the
//! look at the publisher's right and the entering is seen here, as it is in force before streams
//! are cut.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::api::cloud::streams::{Cut, LiveEntry, LiveStreams};
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::{ClockQuality, Instant};
use crate::ingest::intake::Arrival;
use crate::platform::clock::Clock;
use crate::platform::random::random_u64;
use crate::recorder::live::LiveTable;
use crate::ring::RingError;
use crate::ring::catalog::pushes::{PUSHES_MAX, PushEnd, PushId, PushStart};
use crate::ring::catalog::service::ServiceInForce;
use crate::ring::catalog::{Catalog, CatalogState};

/// Rows are thrown away by so many, not with each push.
const PRUNE_EVERY: u64 = 256;
/// Digits of a number below the time in it.
const RANDOM_BITS: u32 = 20;
/// What is said of a stream whose end nobody told.
const UNTOLD: PushEnd = PushEnd { cause: String::new(), errcode: 0, width: 0, height: 0 };

/// The table of live streams.
pub(super) struct Online {
    table: Mutex<Table>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    service: ServiceInForce,
    decisions: Arc<LiveTable>,
    /// Bans may have been entered on a clock that was not set.
    undated: AtomicBool,
}

#[derive(Default)]
struct Table {
    last: i64,
    taken: u64,
    live: BTreeMap<PushId, Live>,
}

/// A stream that is live.
#[derive(Debug, Clone)]
pub(super) struct Live {
    /// Which one.
    pub(super) key: StreamKey,
    /// When it was taken.
    pub(super) began: Instant,
    cancelled: CancellationToken,
    cut: Option<Cut>,
}

impl Online {
    /// An empty table over the rows of earlier pushes; those that the last run left open are ended.
    ///
    /// # Errors
    /// The catalog fails.
    pub(super) async fn open(
        catalog: Catalog,
        clock: Arc<dyn Clock>,
        decisions: Arc<LiveTable>,
    ) -> Result<Arc<Self>, RingError> {
        let keep = PUSHES_MAX - PRUNE_EVERY;
        let (service, last) =
            catalog.call(move |state| Ok((state.service(), state.take_up_pushes(keep)?))).await?;
        let table = Table { last: last.map_or(0, |last| last.0), ..Table::default() };
        let undated = AtomicBool::new(true);
        let table = Mutex::new(table);
        Ok(Arc::new(Online { table, catalog, clock, service, decisions, undated }))
    }

    /// Enters a stream that comes. `cancelled` is what makes it end, cancelled here when it is cut.
    /// It is listed as a push when it is [taken](OnlineEntry::taken).
    pub(super) fn enter(
        self: &Arc<Self>,
        arrival: &Arrival,
        cancelled: CancellationToken,
    ) -> OnlineEntry {
        let began = self.clock.now();
        let live = Live { key: arrival.key.clone(), began, cancelled, cut: None };
        let id = self.table().insert(live, began);
        if self.service.load().forbids.holding(&arrival.key, began.wall).is_some() {
            self.cut(&|key| *key == arrival.key, Cut::FORBIDDEN);
        }
        OnlineEntry { online: self.clone(), id, key: arrival.key.clone(), taken: false, end: None }
    }

    /// Has the catalog do something about the rows; the times of bans are set right first, once the
    /// clock is set.
    fn post(
        &self,
        now: Instant,
        job: impl FnOnce(&mut CatalogState) -> Result<(), RingError> + Send + 'static,
    ) {
        let trusted = now.wall.quality == ClockQuality::Trusted;
        let date = trusted && self.undated.swap(false, Ordering::Relaxed);
        if !trusted {
            self.undated.store(true, Ordering::Relaxed);
        }
        self.catalog.post(move |state| {
            let dated = if date { date_bans(state, now) } else { Ok(()) };
            if let Err(problem) = dated.and_then(|()| job(state)) {
                error!(%problem, "the list of pushes is not written");
            }
        });
    }

    /// Nothing panics while it holds the lock.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bans that were entered before the clock was set get their times.
fn date_bans(state: &mut CatalogState, now: Instant) -> Result<(), RingError> {
    if state.service().load().forbids.are_undated() {
        // Dating refuses nothing.
        let _ = state.change_service(|service, changes| {
            service.forbids.date(now.wall, changes);
            Ok(())
        })?;
    }
    Ok(())
}

impl Table {
    /// Gives a stream its number.
    fn insert(&mut self, live: Live, now: Instant) -> PushId {
        // The time is in it so that numbers go on growing over a catalog that was lost, and chance
        // so that they differ when the clock was set back too.
        let random = i64::try_from(random_u64() >> (u64::BITS - RANDOM_BITS)).unwrap_or(0);
        let by_time = (now.wall.unix.0.clamp(0, i64::MAX >> RANDOM_BITS) << RANDOM_BITS) | random;
        self.last = by_time.max(self.last.saturating_add(1));
        let id = PushId(self.last);
        self.live.insert(id, live);
        id
    }
}

impl LiveStreams for Online {
    fn live(&self) -> Vec<LiveEntry> {
        let now = self.clock.now();
        let mut live: Vec<LiveEntry> = self
            .table()
            .live
            .values()
            .map(|live| {
                // By the clock as it is now: it may have been set since.
                let age_ms = i64::try_from(now.boot.since(live.began.boot).as_millis());
                let began_ms = now.wall.unix.0.saturating_sub(age_ms.unwrap_or(0));
                LiveEntry { key: live.key.clone(), began_ms }
            })
            .collect();
        live.sort_by(|a, b| a.key.cmp(&b.key));
        live
    }

    fn decision(&self, key: &StreamKey) -> Option<Decision> {
        self.decisions.get(key).map(|live| live.decision)
    }

    fn restart(&self, key: &StreamKey) -> bool {
        self.decisions.ask_restart(key)
    }

    fn cut(&self, which: &dyn Fn(&StreamKey) -> bool, cut: Cut) -> usize {
        let mut cut_off = Vec::new();
        for live in self.table().live.values_mut() {
            if live.cut.is_none() && which(&live.key) {
                live.cut = Some(cut);
                cut_off.push(live.clone());
            }
        }
        for live in &cut_off {
            info!(key = %live.key, cause = cut.cause, "the stream is ended");
            live.cancelled.cancel();
        }
        cut_off.len()
    }
}

/// A stream in the table, until this is dropped.
pub(super) struct OnlineEntry {
    online: Arc<Online>,
    id: PushId,
    key: StreamKey,
    taken: bool,
    end: Option<PushEnd>,
}

impl OnlineEntry {
    /// The number of its push or pull.
    pub(super) fn id(&self) -> PushId {
        self.id
    }

    /// The stream is taken, so that it is listed and told as a push from now on.
    pub(super) fn taken(&mut self, arrival: &Arrival) {
        let prune = {
            let mut table = self.online.table();
            table.taken += 1;
            table.taken.is_multiple_of(PRUNE_EVERY)
        };
        let Some(began) = self.online.table().live.get(&self.id).map(|live| live.began) else {
            return;
        };
        let push = PushStart {
            id: self.id,
            key: self.key.clone(),
            began,
            boot_id: self.online.clock.boot_id(),
            peer: arrival.peer.clone(),
            query: arrival.query.clone(),
        };
        self.taken = true;
        self.online.post(began, move |state| {
            if prune {
                state.prune_pushes(PUSHES_MAX - PRUNE_EVERY)?;
            }
            state.begin_push(&push)
        });
    }

    /// Why it was cut; `None`: it was not.
    pub(super) fn was_cut(&self) -> Option<Cut> {
        self.online.table().live.get(&self.id).and_then(|live| live.cut)
    }

    /// It ends: `end` is what is said of it, unless it was cut.
    pub(super) fn ended(mut self, end: PushEnd) {
        self.end = Some(end);
    }
}

impl Drop for OnlineEntry {
    fn drop(&mut self) {
        let cut = self.online.table().live.remove(&self.id).and_then(|live| live.cut);
        if !self.taken {
            return;
        }
        let mut end = self.end.take().unwrap_or(UNTOLD);
        if let Some(cut) = cut {
            (end.cause, end.errcode) = (cut.cause.to_owned(), cut.errcode);
        }
        let (id, now) = (self.id, self.online.clock.now());
        self.online.post(now, move |state| state.end_push(id, now, &end));
    }
}

impl std::fmt::Debug for OnlineEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OnlineEntry({}, {})", self.id.0, self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;
    use std::time::Duration;

    use super::*;
    use crate::domain::eviction::OnFull;
    use crate::domain::ids::BootId;
    use crate::domain::service::limits::ServiceLimits;
    use crate::domain::time::{BootTime, UnixMillis, WallTime};
    use crate::ingest::intake::Protocol;
    use crate::platform::flash::SystemFlash;
    use crate::ring::catalog::CatalogSettings;
    use crate::ring::catalog::pushes::PushFilter;
    use crate::ring::handle::{Ring, RingSettings, RingThreads};
    use crate::ring::identity::RingIdentity;

    const SET_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 86_400_000;

    /// Shows what it was set to; before that it was never set.
    struct HandClock(AtomicI64);

    impl Clock for HandClock {
        fn now(&self) -> Instant {
            let unix = UnixMillis(self.0.load(Ordering::Relaxed));
            let set = unix.0 >= SET_MS;
            let quality = if set { ClockQuality::Trusted } else { ClockQuality::Untrusted };
            Instant { boot: BootTime(7_000), wall: WallTime { unix, quality } }
        }

        fn boot_id(&self) -> BootId {
            BootId([3; 16])
        }
    }

    struct Bench {
        online: Arc<Online>,
        clock: Arc<HandClock>,
        ring: Arc<Ring>,
        threads: RingThreads,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        async fn new(clock_ms: i64) -> Bench {
            let dir = tempfile::tempdir().expect("a scratch directory");
            let identity = RingIdentity::plan(dir.path(), 16 << 20, 1 << 20).expect("fits");
            identity.create(&SystemFlash, dir.path()).expect("made");
            let settings = RingSettings {
                path: dir.path().to_owned(),
                sync_interval: Duration::from_millis(20),
                catalog: CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false },
            };
            let clock = Arc::new(HandClock(AtomicI64::new(clock_ms)));
            let (ring, threads) =
                Ring::open(&settings, Arc::new(SystemFlash), clock.clone()).expect("opens");
            let decisions = Arc::new(LiveTable::default());
            let online = Online::open(ring.catalog.clone(), clock.clone(), decisions);
            let online = online.await.expect("open");
            Bench { online, clock, ring, threads, _dir: dir }
        }

        fn enter(&self, key: &str) -> (OnlineEntry, CancellationToken) {
            let cancelled = CancellationToken::new();
            let arrival = Arrival {
                key: key.parse().expect("a key"),
                protocol: Protocol::Rtmp,
                peer: "192.0.2.7:5".to_owned(),
                query: String::new(),
            };
            let mut entry = self.online.enter(&arrival, cancelled.clone());
            if entry.was_cut().is_none() {
                entry.taken(&arrival);
            }
            (entry, cancelled)
        }

        /// Bans a stream name as ForbidLiveStream does.
        async fn forbid(&self, key: &str, until_ms: Option<i64>) {
            let (key, now) = (key.parse().expect("a key"), self.clock.now().wall);
            let until = until_ms.map(UnixMillis);
            let forbidden = self.ring.catalog.call(move |state| {
                let limits = ServiceLimits::default();
                state.change_service(|service, changes| {
                    service.forbids.forbid(&key, until, "", now, &limits, changes)
                })
            });
            forbidden.await.expect("stored").expect("made");
        }

        /// Why listed pushes ended, the newest end first; empty for one that is live.
        async fn causes(&self) -> Vec<String> {
            let filter = PushFilter {
                from_ms: 0,
                until_ms: i64::MAX,
                domain: None,
                app: None,
                name_part: None,
                name: None,
                ascending: false,
            };
            let rows = self.ring.catalog.call(move |state| state.pushes(&filter, 0, 9));
            let (rows, _) = rows.await.expect("listed");
            rows.into_iter().map(|row| row.end.cause).collect()
        }

        fn close(self) {
            self.threads.close(&self.ring);
        }
    }

    #[tokio::test]
    async fn streams_are_live_from_their_entering_to_their_end_or_until_they_are_cut() {
        let bench = Bench::new(SET_MS).await;
        let (hall, hall_cancelled) = bench.enter("d/live/hall");
        let (gate, gate_cancelled) = bench.enter("d/live/gate");
        let keys = || -> Vec<String> {
            bench.online.live().iter().map(|entry| entry.key.to_string()).collect()
        };
        assert_eq!(keys(), ["d/live/gate", "d/live/hall"]);
        // The clock was wrong by a day: what is live began a day later than it was thought.
        bench.clock.0.store(SET_MS + DAY_MS, Ordering::Relaxed);
        assert!(bench.online.live().iter().all(|entry| entry.began_ms == SET_MS + DAY_MS));

        let is_gate = |key: &StreamKey| key.stream() == "gate";
        assert_eq!(bench.online.cut(&is_gate, Cut::DROPPED), 1);
        assert_eq!(bench.online.cut(&is_gate, Cut::FORBIDDEN), 0, "it is cut once");
        assert!(gate_cancelled.is_cancelled() && !hall_cancelled.is_cancelled());
        assert_eq!((gate.was_cut(), hall.was_cut()), (Some(Cut::DROPPED), None));
        gate.ended(PushEnd { cause: "closed".to_owned(), ..PushEnd::default() });
        assert_eq!(keys(), ["d/live/hall"]);
        drop(hall);
        assert!(keys().is_empty());
        let mut causes = bench.causes().await;
        causes.sort();
        assert_eq!(causes, ["", Cut::DROPPED.cause], "the cut is told, not what came of it");
        bench.close();
    }

    #[tokio::test]
    async fn a_ban_that_comes_before_the_entering_cuts() {
        let bench = Bench::new(SET_MS).await;
        bench.forbid("other/app/gate", None).await;
        let (gate, cancelled) = bench.enter("d/live/gate");
        assert_eq!((gate.was_cut(), cancelled.is_cancelled()), (Some(Cut::FORBIDDEN), true));
        let (hall, cancelled) = bench.enter("d/live/hall");
        assert_eq!((hall.was_cut(), cancelled.is_cancelled()), (None, false));
        drop((gate, hall));
        assert_eq!(bench.causes().await, [""], "what was not taken is not listed");
        bench.close();
    }

    #[tokio::test]
    async fn bans_are_dated_with_the_first_stream_after_the_clock_is_set() {
        let bench = Bench::new(5_000).await;
        bench.forbid("d/live/gate", Some(SET_MS + 1_000 * DAY_MS)).await;
        bench.enter("d/live/hall").0.ended(UNTOLD);
        let undated = || async {
            let are =
                bench.ring.catalog.call(|state| Ok(state.service().load().forbids.are_undated()));
            are.await.expect("read")
        };
        assert!(undated().await, "the clock is not set");
        bench.clock.0.store(SET_MS, Ordering::Relaxed);
        bench.enter("d/live/hall").0.ended(UNTOLD);
        assert!(!undated().await);
        let key = "d/live/gate".parse().expect("a key");
        let holds = |ms| {
            let wall = WallTime { unix: UnixMillis(ms), quality: ClockQuality::Trusted };
            bench.online.service.load().forbids.holding(&key, wall).is_some()
        };
        let end = SET_MS + 90 * DAY_MS;
        assert!(holds(end - 1) && !holds(end), "held to 90 days");
        bench.close();
    }
}
