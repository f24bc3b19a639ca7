//! The outbox: what is to be told to receivers of notices and to the fleet, in the order in which it
//! happened.
//!
//! Invariants
//! 1. A row gets its sequence number in the transaction that enters it: numbers grow by one from
//!    each to the next, over restarts too, and none is left out.
//! 2. An event is entered once, however often it is posted: ids are unique.
//! 3. What happened to a stream, a recording or a file is durable when the posting returns. What
//!    is only said of their quality (events 321 and 341) becomes durable with the next group sync,
//!    and so does it that a reader has a row: a power cut may have it told twice.
//! 4. At most [`NOTICES_MAX`](crate::domain::limits::NOTICES_MAX) units of 2 KiB, fewer in a small
//!    ring (a quarter of the reserve). What no reader waits for any more is kept for a replay and
//!    goes first; then the oldest goes, and is entered in the ledger ([`room`]).
//! 5. A row has one reader or two, each with its own mark: the receiver of the event's notices
//!    ([`lanes`]), and the fleet ([`fleet`]). A row that one has is still there for the other.
//!
//! An event that nobody is to be told of is not entered.

mod fleet;
mod history;
mod lanes;
mod ledgers;
mod pushes;
mod recorded;
mod replay;
mod room;
mod statuses;

use std::sync::Arc;

use rusqlite::{OptionalExtension, Transaction, params};
use tokio::sync::Notify;

use crate::domain::notice::{BoxEvent, Event, EventKind, Notice, NoticeSeq, Origin, What};
use crate::domain::service::callbacks::{Destination, destination};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::notices::room::{make_room, units_max, units_of};
use crate::ring::catalog::rows::{sql, unsql};

pub use self::fleet::FleetEvent;
pub use self::history::{HistoryPage, HistoryQuery, NoticeRecord};
pub use self::lanes::{Attempt, Verdict, WaitingNotice};
pub use self::replay::{EventRecord, Reader};
pub(in crate::ring::catalog) use self::statuses::{END_RECORDING, END_RECORDINGS, Status};

/// How long notices that were told or given up are kept, in milliseconds: 14 days.
pub const HISTORY_MS: i64 = 14 * 86_400_000;
/// The state of a row that no receiver of notices is for.
const NOBODY: u8 = 4;

/// What the outbox must know to fill in a notice and to address it.
#[derive(Debug, Clone)]
pub struct NoticeDesk {
    /// Number of the account; 0 for none.
    pub appid: u64,
    /// The box.
    pub box_id: String,
    /// Where events go for which there is no rule.
    pub default: Option<Destination>,
    /// Whether there is a fleet that is told too.
    pub fleet: bool,
}

impl NoticeDesk {
    /// A desk for what rules say alone.
    #[must_use]
    pub fn of_box(box_id: &str) -> Self {
        NoticeDesk { appid: 0, box_id: box_id.to_owned(), default: None, fleet: false }
    }
}

/// A notice with its readers, ready to be entered in a transaction.
#[derive(Debug, Clone)]
pub struct AddressedNotice {
    notice: Notice,
    to: Option<Destination>,
    desk: DeskFacts,
}

/// What every row is filled in with.
#[derive(Debug, Clone)]
pub(in crate::ring::catalog) struct DeskFacts {
    appid: u64,
    box_id: String,
    /// Whether the fleet is told of what it has a kind for.
    fleet: bool,
    units_max: u64,
}

impl CatalogState {
    /// Says how notices are filled in and addressed from now on.
    pub fn set_notice_desk(&mut self, desk: NoticeDesk) {
        self.notices = desk;
        self.notice_desk_set = true;
        self.settle_fleet();
        self.tell_statuses();
        self.tell_ledgers();
    }

    /// Told whenever a notice begins to wait.
    #[must_use]
    pub fn notice_news(&self) -> Arc<Notify> {
        self.notice_news.clone()
    }

    /// Wakes whoever reads the outbox.
    pub(in crate::ring::catalog) fn notify_readers(&self) {
        self.notice_news.notify_one();
        self.fleet_news.notify_one();
    }

    /// Enters a notice, unless nobody is to be told of it or it was entered before.
    ///
    /// # Errors
    /// The database fails.
    pub fn post_notice(&mut self, notice: Notice) -> Result<Option<NoticeSeq>, RingError> {
        let Some(addressed) = self.address_notice(notice) else { return Ok(None) };
        let what = "entering a notice";
        let enter = |transaction: &Transaction<'_>| enter_notice(transaction, &addressed);
        let entered = match addressed.notice.what {
            What::PushException(_) | What::RecordException(_) => self
                .db
                .transaction()
                .and_then(|transaction| {
                    let entered = enter(&transaction)?;
                    transaction.commit()?;
                    Ok(entered)
                })
                .map_err(RingError::catalog(what))?,
            _ => self.durably(what, enter)?,
        };
        self.notify_readers();
        Ok(entered)
    }

    /// Enters an event of the box's own, unless there is no fleet or it was entered before. Durable.
    ///
    /// # Errors
    /// The database fails.
    pub fn post_box_event(&mut self, event: &BoxEvent) -> Result<(), RingError> {
        let Some(desk) = self.fleet_desk() else { return Ok(()) };
        self.durably("entering an event", |transaction| {
            enter_box_event(transaction, event, &desk)
        })?;
        self.notify_readers();
        Ok(())
    }

    /// The notice with its readers; `None` if nobody is to be told. For callers with a
    /// transaction of their own: they go on with [`enter_notice`], and
    /// [`notify_readers`](Self::notify_readers) once it is committed.
    #[must_use]
    pub fn address_notice(&self, notice: Notice) -> Option<AddressedNotice> {
        let to = self.notice_destination(&notice.key, notice.event()).filter(|to| {
            let What::RecordException(exception) = &notice.what else { return true };
            to.levels.contains(&exception.finding.kind.level())
        });
        let desk = self.desk_facts();
        let of_fleet = desk.fleet && EventKind::from_number(notice.event().number()).is_some();
        (to.is_some() || of_fleet).then_some(AddressedNotice { notice, to, desk })
    }

    fn desk_facts(&self) -> DeskFacts {
        let NoticeDesk { appid, box_id, fleet, .. } = &self.notices;
        let (appid, box_id, fleet) = (*appid, box_id.clone(), *fleet);
        DeskFacts { appid, box_id, fleet, units_max: units_max(&self.identity) }
    }

    /// What events of the box's own are filled in with; `None` without a fleet.
    pub(in crate::ring::catalog) fn fleet_desk(&self) -> Option<DeskFacts> {
        self.notices.fleet.then(|| self.desk_facts())
    }

    /// Where events of a stream go now.
    fn notice_destination(&self, key: &StreamKey, event: Event) -> Option<Destination> {
        destination(&self.service.load(), self.notices.default.as_ref(), key, event)
    }
}

/// Enters a notice in a transaction of the caller; `None` if it was entered before.
///
/// # Errors
/// The database fails.
pub fn enter_notice(
    transaction: &Transaction<'_>,
    addressed: &AddressedNotice,
) -> rusqlite::Result<Option<NoticeSeq>> {
    let AddressedNotice { notice, to, desk } = addressed;
    let row = Row {
        id: notice.id(),
        stream: notice.key.to_string(),
        number: notice.event().number(),
        at: notice.at,
        to: to.as_ref(),
    };
    enter_row(transaction, desk, &row, |origin, seq| notice.body(origin, seq))
}

/// Enters an event of the box's own in a transaction of the caller, unless it was entered before.
pub(in crate::ring::catalog) fn enter_box_event(
    transaction: &Transaction<'_>,
    event: &BoxEvent,
    desk: &DeskFacts,
) -> rusqlite::Result<()> {
    let row = Row {
        id: event.id(),
        stream: event.key().map(StreamKey::to_string).unwrap_or_default(),
        number: event.kind().number(),
        at: event.at,
        to: None,
    };
    enter_row(transaction, desk, &row, |origin, seq| event.body(origin, seq)).map(drop)
}

/// What is entered beside the body.
struct Row<'a> {
    id: String,
    stream: String,
    number: u16,
    at: UnixMillis,
    to: Option<&'a Destination>,
}

fn enter_row(
    transaction: &Transaction<'_>,
    desk: &DeskFacts,
    row: &Row<'_>,
    body: impl FnOnce(Origin<'_>, NoticeSeq) -> String,
) -> rusqlite::Result<Option<NoticeSeq>> {
    let known = transaction
        .prepare_cached("SELECT seq FROM notice WHERE id = ?1")?
        .query_row([&row.id], |row| row.get::<_, i64>(0))
        .optional()?;
    if known.is_some() {
        return Ok(None);
    }
    let last: Option<i64> = transaction
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'notice'")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let outbox: String = transaction
        .prepare_cached("SELECT id FROM outbox")?
        .query_row([], |outbox| outbox.get(0))?;
    let seq = NoticeSeq(unsql(last.unwrap_or(0)) + 1);
    let DeskFacts { appid, box_id, fleet, units_max } = desk;
    let body = body(Origin { appid: *appid, box_id, outbox: &outbox }, seq);
    let (url, key) = row.to.map_or(("", ""), |to| (to.url.expose(), to.key.expose()));
    let units = units_of(&[&row.id, &row.stream, url, key, &body]);
    make_room(transaction, seq, row.at, (units, *units_max))?;
    let fleet = *fleet && EventKind::from_number(row.number).is_some();
    let state = if row.to.is_some() { 0 } else { NOBODY };
    transaction
        .prepare_cached(
            "INSERT INTO notice (seq, id, stream, event_type, at_ms, url, key, body, state, fleet,
             units) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            sql(seq.0),
            row.id,
            row.stream,
            row.number,
            row.at.0,
            url,
            key,
            body,
            state,
            u8::from(fleet),
            sql(units)
        ])?;
    Ok(Some(seq))
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::address::Address;
    use crate::domain::eviction::OnFull;
    use crate::domain::files::FileFormat;
    use crate::domain::ids::{BootId, RecordingId, SessionId};
    use crate::domain::limits::NOTICES_MAX;
    use crate::domain::notice::{PushBegin, PushEnd, PushEndCause, PushFacts, RecordException};
    use crate::domain::record_watch::{Level, RecordFinding, RecordTrouble};
    use crate::domain::secret::Secret;
    use crate::domain::service::callbacks::{CallbackTemplateFields, UrlField};
    use crate::domain::service::limits::ServiceLimits;
    use crate::domain::time::{BootTime, ClockQuality, Instant, WallTime};
    use crate::platform::clock::Clock;
    use crate::ring::catalog::CatalogSettings;
    use crate::ring::catalog::notices::room::CUT_EVERY;
    use crate::ring::clip::Leases;
    use crate::ring::identity::RingIdentity;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: NOW, quality: ClockQuality::Trusted };
            Instant { boot: BootTime(1_000), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([1; 16])
        }
    }

    fn destination_at(url: &str) -> Destination {
        Destination::of_all(Address::parse(url, &["http"]).expect("url"), Secret::new("K1"))
    }

    /// A receiver of every notice.
    pub(in crate::ring::catalog) fn receiver() -> Destination {
        destination_at("http://default/hook")
    }

    /// An outbox before anybody has said whom to tell.
    pub(in crate::ring::catalog) fn open_unset(path: &Path) -> CatalogState {
        let identity = RingIdentity::plan(path, 32 << 20, 1 << 20).expect("fits");
        let settings = CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false };
        let leases = Arc::new(Leases::default());
        let state = CatalogState::open(path, Arc::new(identity), Arc::new(Still), settings, leases);
        let state = state.expect("opens");
        // Of a ring whose slots were all read, and are blank.
        state.db.execute("UPDATE slot SET state = 0 WHERE state = 5", []).expect("read");
        state
    }

    /// An outbox whose every event goes to one receiver.
    pub(in crate::ring::catalog) fn open(path: &Path) -> CatalogState {
        let mut state = open_unset(path);
        let desk = NoticeDesk::of_box("box-01");
        state.set_notice_desk(NoticeDesk { appid: 7, default: Some(receiver()), ..desk });
        state
    }

    fn facts(push: u64) -> PushFacts {
        PushFacts {
            sequence: SessionId(push),
            node: String::new(),
            user_ip: "192.0.2.1".into(),
            stream_param: String::new(),
        }
    }

    pub(in crate::ring::catalog) fn begin(stream: &str, push: u64) -> Notice {
        let what = What::PushBegin(PushBegin { push: facts(push), width: 0, height: 0 });
        Notice { key: format!("d/live/{stream}").parse().expect("key"), at: NOW, what }
    }

    fn end(stream: &str, push: u64) -> Notice {
        let (errcode, errmsg) = PushEndCause::ClientClosed.told();
        let (push, duration_ms, width, height) = (facts(push), 1, 0, 0);
        let end = PushEnd { push, duration_ms, errcode, errmsg, width, height };
        Notice { what: What::PushEnd(end), ..begin(stream, 0) }
    }

    pub(in crate::ring::catalog) fn post(state: &mut CatalogState, notice: Notice) -> Option<u64> {
        state.post_notice(notice).expect("entered").map(|seq| seq.0)
    }

    pub(in crate::ring::catalog) fn ready(state: &CatalogState) -> Vec<u64> {
        let mut ready: Vec<u64> =
            state.waiting_notices().expect("read").iter().map(|notice| notice.seq.0).collect();
        ready.sort_unstable();
        ready
    }

    pub(in crate::ring::catalog) fn note(state: &mut CatalogState, seq: u64, verdict: Verdict) {
        let attempt = Attempt { at: NOW, verdict, answer: "status 500".into() };
        state.note_attempt(NoticeSeq(seq), &attempt).expect("kept");
    }

    #[test]
    fn numbers_have_no_gaps_and_an_event_is_entered_once() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        assert_eq!(post(&mut state, begin("a", 1)), Some(1));
        assert_eq!(post(&mut state, begin("a", 1)), None);
        assert_eq!(post(&mut state, end("a", 1)), Some(2));
        note(&mut state, 1, Verdict::Taken);
        drop(state);
        let mut state = open(dir.path());
        assert_eq!(ready(&state), [2]);
        assert_eq!(post(&mut state, begin("a", 2)), Some(3));
        let body: serde_json::Value =
            serde_json::from_str(&state.waiting_notices().expect("read")[0].body).expect("JSON");
        assert_eq!(body["edgerec"]["seq"], 2);
        assert_eq!((&body["edgerec"]["box"], &body["appid"]), (&"box-01".into(), &7.into()));
    }

    #[test]
    fn only_the_first_of_a_lane_is_ready_and_those_aside_let_others_pass() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        for notice in [begin("a", 1), end("a", 1), begin("b", 2), begin("a", 3)] {
            post(&mut state, notice);
        }
        assert_eq!(ready(&state), [1, 3]);
        note(&mut state, 1, Verdict::Again);
        assert_eq!(ready(&state), [1, 3]);
        note(&mut state, 1, Verdict::Aside);
        assert_eq!(ready(&state), [1, 2, 3]);
        note(&mut state, 2, Verdict::GivenUp);
        note(&mut state, 3, Verdict::Taken);
        assert_eq!(ready(&state), [1, 4]);
        assert_eq!(state.notice_counts().expect("counted"), (2, 1));
        let attempts: Vec<u32> =
            state.waiting_notices().expect("read").iter().map(|notice| notice.attempts).collect();
        assert_eq!(attempts, [0, 2]);
    }

    #[test]
    fn the_address_is_looked_up_again_and_the_stored_one_is_the_fallback() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        post(&mut state, begin("a", 1));
        let url = |state: &CatalogState| {
            state.waiting_notices().expect("read")[0].url.expose().to_owned()
        };
        state.set_notice_desk(NoticeDesk::of_box("box-01"));
        assert_eq!(url(&state), "http://default/hook");
        assert_eq!(post(&mut state, begin("a", 2)), None, "nobody is to be told");
        let fields = CallbackTemplateFields {
            name: Some("t".into()),
            urls: vec![
                (UrlField::StreamBeginNotifyUrl, "http://corrected/".into()),
                (UrlField::RecordExceptionNotifyUrl, "http://corrected/".into()),
            ],
            levels: Some(vec!["error".into()]),
            ..CallbackTemplateFields::default()
        };
        let limits = ServiceLimits::default();
        let set = state.change_service(|service, changes| {
            let number = service.callbacks.create_template(fields, &limits, changes)?;
            service.callbacks.create_rule(("d", ""), number, NOW, &limits, changes)
        });
        set.expect("stored").expect("allowed");
        assert_eq!(url(&state), "http://corrected/");
        let exception = |kind: RecordTrouble| {
            let finding = RecordFinding { kind, occurs: 1 };
            let (recording, format) = (RecordingId(1), FileFormat::Hls);
            let what = What::RecordException(RecordException { recording, format, finding });
            Notice { what, ..begin("a", 1) }
        };
        assert_eq!(RecordTrouble::NoAudio.level(), Level::Warning);
        assert_eq!(post(&mut state, exception(RecordTrouble::NoAudio)), None, "not this level");
        assert_eq!(post(&mut state, exception(RecordTrouble::NoVideo)), Some(2));
    }

    #[test]
    fn the_outbox_is_bounded_and_what_was_told_goes_first() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        let most = u32::try_from(units_max(&state.identity)).expect("few");
        assert!((1_000..2_000).contains(&most), "{most} in the smallest reserve");
        post(&mut state, begin("a", 1));
        post(&mut state, begin("b", 2));
        note(&mut state, 2, Verdict::Taken);
        let transaction = state.db.transaction().expect("begun");
        for seq in 3..=most {
            let row = "INSERT INTO notice (seq, id, stream, event_type, at_ms, url, key, body)
                       VALUES (?1, 'id' || ?1, 'd/live/c', 1, 0, 'http://h/', '', '{}')";
            transaction.prepare_cached(row).and_then(|mut r| r.execute([seq])).expect("entered");
        }
        transaction.commit().expect("committed");
        let count = |state: &CatalogState| {
            let all: u32 = state
                .db
                .query_row("SELECT count(*) FROM notice", [], |row| row.get(0))
                .expect("counted");
            all
        };
        assert_eq!(post(&mut state, begin("a", 3)), Some(u64::from(most) + 1));
        assert_eq!((count(&state), ready(&state)[0]), (most, 1), "2 was told and went");
        post(&mut state, begin("a", 4));
        assert_eq!((count(&state), ready(&state)[0]), (most, 3), "1 was the oldest");
    }

    #[test]
    fn the_history_is_listed_in_pages_and_cut_after_a_fortnight() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path());
        for push in 1..=3 {
            post(&mut state, begin("cam", push));
            note(&mut state, push, Verdict::Taken);
        }
        post(&mut state, begin("xcam", 9));
        note(&mut state, 4, Verdict::Taken);
        post(&mut state, end("cam", 3));
        let query = HistoryQuery {
            stream: "cam".into(),
            from: UnixMillis(0),
            until: NOW,
            event: None,
            taken: None,
            skip: 1,
            most: 1,
        };
        let page = state.notice_history(&query).expect("listed");
        assert_eq!((page.total, page.records.len()), (3, 1));
        assert!(page.records[0].body.contains("\"sequence\":\"2\""), "{:?}", page.records);
        note(&mut state, 5, Verdict::Again);
        let failed = HistoryQuery { taken: Some(false), skip: 0, most: 9, ..query.clone() };
        let page = state.notice_history(&failed).expect("listed");
        assert_eq!((page.total, page.records[0].event_number), (1, 0));
        let early = HistoryQuery { until: UnixMillis(NOW.0 - 1), ..query };
        assert_eq!(state.notice_history(&early).expect("listed").total, 0);
        let transaction = state.db.transaction().expect("begun");
        let later = UnixMillis(NOW.0 + HISTORY_MS + 1);
        let most = u64::from(NOTICES_MAX);
        make_room(&transaction, NoticeSeq(CUT_EVERY), later, (1, most)).expect("cut");
        transaction.commit().expect("committed");
        assert_eq!((ready(&state), state.notice_counts().expect("counted")), (vec![5], (1, 0)));
    }
}
