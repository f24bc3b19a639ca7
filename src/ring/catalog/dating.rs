//! Dating: what was entered on a clock that was not set gets its wall times once it is.
//!
//! 1. A boot has one zero, the wall time of its boot time 0: by the first reading of its clock that
//!    can be believed. It is stored before anything is dated by it, and stays: neither drift nor a
//!    step of a clock that was set dates anything anew.
//! 2. What is entered later is dated on its way in: media of that boot that is found in the slots
//!    again too, whose seals have the times of before.
//! 3. What was entered before is dated in steps of a bounded number of rows, a transaction each. A
//!    row tells whether it is dated (`trusted`), so that a start goes on where a power cut left off.
//! 4. Within a boot no time is before its zero: a time that is, is of the clock of before.
//! 5. A boot whose clock was never set has no zero. Its media keeps the order it was written in.
//!
//! A name that was frozen by an attempt to deliver stays, and so does what was told to somebody.

use std::borrow::Cow;

use rusqlite::{Connection, Transaction, params};
use tracing::{error, info};

use crate::domain::ids::{BootId, FileId};
use crate::domain::time::{BootZero, Instant, Moment};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::DurableEvent;
use crate::ring::catalog::file_check::change_files;
use crate::ring::catalog::rows::{sql, unsql};
use crate::ring::fragment::SessionStart;

/// Boots that are remembered, the newest.
const BOOTS_MAX: u32 = 128;
/// Rows of a table that one transaction dates; sessions bring their segments along.
const ROWS_AT_ONCE: u32 = 512;

const FILES: &str = "SELECT file.id FROM file JOIN session ON session.id = file.session
    JOIN boot USING (boot_id) WHERE file.trusted = 0 LIMIT ?1";
/// Files begin and end in the boot of their session, or end as early as they can have.
const FILE: &str = "UPDATE file SET start_ms = zero_ms + start_boot_ms, trusted = 1,
    end_ms = CASE WHEN end_ms < zero_ms THEN zero_ms + start_boot_ms + end_ms - start_ms
        ELSE end_ms END
    FROM session JOIN boot USING (boot_id) WHERE session.id = file.session AND file.id = ?1";
const GAPS: &str = "UPDATE gap SET from_ms = zero_ms + boot_ms, trusted = 1,
    until_ms = zero_ms + boot_ms + until_ms - from_ms
    FROM boot WHERE boot.boot_id = gap.boot_id AND gap.id IN
    (SELECT gap.id FROM gap JOIN boot USING (boot_id) WHERE trusted = 0 LIMIT ?1)";
/// Ends of gaps that began when the time was known.
const GAP_ENDS: &str = "UPDATE gap SET until_ms = max(from_ms, zero_ms + until_boot_ms),
    media_ms = CASE session WHEN 0 THEN max(0, zero_ms + until_boot_ms - from_ms)
        ELSE media_ms END, until_boot_id = NULL
    FROM boot WHERE boot.boot_id = until_boot_id AND gap.id IN
    (SELECT gap.id FROM gap JOIN boot ON boot.boot_id = until_boot_id
     WHERE until_boot_id IS NOT NULL AND trusted = 1 LIMIT ?1)";
const DECISIONS: &str = "UPDATE decision SET from_ms = zero_ms + boot_ms, trusted = 1,
    until_ms = zero_ms + boot_ms + until_ms - from_ms
    FROM boot WHERE boot.boot_id = decision.boot_id AND decision.id IN
    (SELECT decision.id FROM decision JOIN boot USING (boot_id) WHERE trusted = 0 LIMIT ?1)";
const PUSHES: &str = "UPDATE push SET began_ms = zero_ms + began_boot_ms, trusted = 1,
    ended_ms = zero_ms + began_boot_ms + ended_ms - began_ms
    FROM boot WHERE boot.boot_id = push.boot_id AND push.id IN
    (SELECT push.id FROM push JOIN boot USING (boot_id) WHERE trusted = 0 LIMIT ?1)";

/// What is known of when boots began.
#[derive(Debug, Default)]
pub(super) struct Dates {
    /// The oldest first.
    zeros: Vec<(BootId, BootZero)>,
    /// The clock was set when it was looked at, and everything of before is dated.
    settled: bool,
}

impl Dates {
    pub(super) fn read(db: &Connection) -> rusqlite::Result<Dates> {
        let mut query = db.prepare("SELECT boot_id, zero_ms FROM boot ORDER BY id")?;
        let rows = query.query_map([], |row| Ok((BootId(row.get(0)?), BootZero(row.get(1)?))))?;
        Ok(Dates { zeros: rows.collect::<rusqlite::Result<_>>()?, settled: false })
    }

    fn zero(&self, boot: BootId) -> Option<BootZero> {
        let mut newest_first = self.zeros.iter().rev();
        newest_first.find(|(of, _)| *of == boot).map(|(_, zero)| *zero)
    }

    /// An instant of a boot, with the best wall time that is known of it.
    pub(super) fn instant(&self, boot: BootId, at: Instant) -> Instant {
        self.zero(boot).map_or(at, |zero| zero.date(at))
    }

    /// The same with its boot.
    pub(super) fn moment(&self, moment: Moment) -> Moment {
        Moment { at: self.instant(moment.boot_id, moment.at), ..moment }
    }

    /// A session with the best beginning that is known of it.
    pub(super) fn session<'a>(&self, session: &'a SessionStart) -> Cow<'a, SessionStart> {
        let began = self.instant(session.boot_id, session.began);
        if began == session.began {
            return Cow::Borrowed(session);
        }
        Cow::Owned(SessionStart { began, ..session.clone() })
    }
}

impl CatalogState {
    /// Dates what is to be dated, once the clock of this boot is set.
    pub(super) fn look_at_clock(&mut self) {
        if self.dates.settled {
            return;
        }
        let now = self.now();
        let Some(zero) = BootZero::of(now.at) else { return };
        match self.learn(now.boot_id, zero) {
            Ok(()) => self.dates.settled = true,
            Err(problem) => {
                error!(%problem, "what was recorded before the clock was set is not dated")
            }
        }
    }

    /// Learns when boots began from media whose wall times can be believed: of an older boot, or after
    /// the catalog was lost.
    pub(super) fn learn_from(&mut self, events: &[DurableEvent]) -> Result<(), RingError> {
        for event in events {
            let DurableEvent::Fragment(fragment) = event else { continue };
            let boot = fragment.segment.session.boot_id;
            if self.dates.zero(boot).is_none()
                && let Some(zero) = BootZero::of(fragment.seal.first_arrival)
            {
                self.learn(boot, zero)?;
            }
        }
        Ok(())
    }

    /// Keeps when a boot began, unless that is known, and dates what waits for it.
    fn learn(&mut self, boot: BootId, zero: BootZero) -> Result<(), RingError> {
        if self.dates.zero(boot).is_none() {
            self.in_transaction("keeping when a boot began", |transaction| {
                transaction.execute(
                    "INSERT INTO boot (boot_id, zero_ms) VALUES (?1, ?2)",
                    params![boot.0, zero.0],
                )?;
                let forget = "DELETE FROM boot WHERE id <= (SELECT max(id) FROM boot) - ?1";
                transaction.execute(forget, [BOOTS_MAX]).map(drop)
            })?;
            let zeros = &mut self.dates.zeros;
            zeros.push((boot, zero));
            zeros.drain(..zeros.len().saturating_sub(BOOTS_MAX as usize));
            info!(%boot, zero_ms = zero.0, "the clock of this boot is known");
            self.date_what_grows();
        }
        self.date_rows()
    }

    fn date_what_grows(&mut self) {
        for open in self.open_files.values_mut() {
            (open.start, open.end) = (self.dates.moment(open.start), self.dates.moment(open.end));
        }
        for open in self.open_segments.values_mut() {
            open.first = self.dates.moment(open.first);
        }
    }

    /// Dates the rows of all boots that are known by now.
    ///
    /// # Errors
    /// The database fails; what is left is dated by the next call.
    pub(super) fn date_rows(&mut self) -> Result<(), RingError> {
        self.in_steps(date_sessions)?;
        self.in_steps(date_files)?;
        for text in [GAPS, GAP_ENDS, DECISIONS, PUSHES] {
            self.in_steps(|transaction| transaction.prepare_cached(text)?.execute([ROWS_AT_ONCE]))?;
        }
        Ok(())
    }

    /// Takes a step until it finds no more rows, in a transaction each.
    fn in_steps(
        &mut self,
        step: impl Fn(&Transaction<'_>) -> rusqlite::Result<usize>,
    ) -> Result<(), RingError> {
        let mut dated = 1;
        while dated > 0 {
            self.in_transaction(
                "dating what was recorded before the clock was set",
                |transaction| {
                    dated = step(transaction)?;
                    Ok(())
                },
            )?;
        }
        Ok(())
    }
}

/// Sessions with what the ring holds of them.
fn date_sessions(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    let undated: Vec<(i64, i64, i64)> = transaction
        .prepare_cached(
            "SELECT session.id, zero_ms, zero_ms + began_boot_ms - began_ms FROM session
             JOIN boot USING (boot_id) WHERE trusted = 0 LIMIT ?1",
        )?
        .query_map([ROWS_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (session, zero_ms, behind_ms) in &undated {
        let segments = "UPDATE segment SET first_ms = first_ms + ?3, last_ms = last_ms + ?3
            WHERE session = ?1 AND first_ms < ?2";
        let row = "UPDATE session SET began_ms = began_ms + ?3, trusted = 1,
            ended_ms = CASE WHEN ended_ms < ?2 THEN ended_ms + ?3 ELSE ended_ms END WHERE id = ?1";
        for text in [segments, row] {
            transaction.prepare_cached(text)?.execute(params![session, zero_ms, behind_ms])?;
        }
    }
    Ok(undated.len())
}

/// Files, whose checksums cover their dates.
fn date_files(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    let undated: Vec<FileId> = transaction
        .prepare_cached(FILES)?
        .query_map([ROWS_AT_ONCE], |row| Ok(FileId(unsql(row.get(0)?))))?
        .collect::<rusqlite::Result<_>>()?;
    change_files(transaction, &undated, || {
        let mut date = transaction.prepare_cached(FILE)?;
        undated.iter().try_for_each(|file| date.execute([sql(file.0)]).map(drop))
    })?;
    Ok(undated.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::domain::due::{GapEntry, Missing};
    use crate::domain::eviction::OnFull;
    use crate::domain::files::{FileFormat, FormatSet};
    use crate::domain::ids::{
        DirectoryId, FragmentSequence, RecordingId, SessionId, SlotGeneration, SlotIndex,
    };
    use crate::domain::stream_key::StreamKey;
    use crate::domain::time::{BootTime, ClockQuality, UnixMillis, WallTime};
    use crate::platform::clock::Clock;
    use crate::ring::catalog::CatalogSettings;
    use crate::ring::catalog::durable::DurableFragment;
    use crate::ring::catalog::ledger::DecisionRecord;
    use crate::ring::catalog::pushes::{PushEnd, PushFilter, PushId, PushStart};
    use crate::ring::clip::Leases;
    use crate::ring::fragment::SegmentStart;
    use crate::ring::identity::RingIdentity;
    use crate::ring::lane::SessionEnd;
    use crate::ring::layout::{Seal, SealRecording, SealRecordings, SlotPlace};

    /// Wall time of boot time 0 of the first boot.
    const ZERO_MS: i64 = 1_800_000_000_000;
    const YEAR_MS: i64 = 365 * 86_400_000;
    const FIRST: BootId = BootId([1; 16]);
    const SECOND: BootId = BootId([2; 16]);

    struct Hand(Mutex<Moment>);

    impl Clock for Hand {
        fn now(&self) -> Instant {
            self.0.lock().expect("nobody panics").at
        }

        fn boot_id(&self) -> BootId {
            self.0.lock().expect("nobody panics").boot_id
        }
    }

    /// A clock that began in 1970 with the boot.
    fn blind(boot_ms: u64) -> Instant {
        let unix = UnixMillis(i64::try_from(boot_ms).expect("small"));
        let wall = WallTime { unix, quality: ClockQuality::Untrusted };
        Instant { boot: BootTime(boot_ms), wall }
    }

    /// A clock that was set, and is wrong by so much.
    fn set(boot_ms: u64, off_ms: i64) -> Instant {
        let unix = UnixMillis(ZERO_MS + off_ms + i64::try_from(boot_ms).expect("small"));
        let wall = WallTime { unix, quality: ClockQuality::Trusted };
        Instant { boot: BootTime(boot_ms), wall }
    }

    fn key() -> StreamKey {
        StreamKey::new("d", "live", "cam").expect("valid")
    }

    fn open(path: &Path, clock: &Arc<Hand>) -> CatalogState {
        let identity = RingIdentity::plan(path, 32 << 20, 1 << 20).expect("fits");
        let settings = CatalogSettings { on_full: OnFull::OverwriteOldest, delivers: false };
        let leases = Arc::new(Leases::default());
        CatalogState::open(path, Arc::new(identity), clock.clone(), settings, leases)
            .expect("opens")
    }

    fn hand(boot_id: BootId, at: Instant) -> Arc<Hand> {
        Arc::new(Hand(Mutex::new(Moment { at, boot_id })))
    }

    fn session(id: u64, boot_id: BootId, began: Instant) -> Arc<SessionStart> {
        let (id, key, query) = (SessionId(id), key(), String::new());
        Arc::new(SessionStart { id, key, boot_id, began, protocol: "rtmp", query })
    }

    /// A fragment of half a second in a slot of the session's own; each of three begins an FLV file.
    fn fragment(session: &Arc<SessionStart>, sequence: u32, came: Instant) -> DurableEvent {
        let flv = FormatSet::EMPTY.with(FileFormat::Flv);
        let begins = if sequence.is_multiple_of(3) { flv } else { FormatSet::EMPTY };
        let recording = RecordingId(session.id.0);
        let of_it = SealRecording { recording, formats: flv, begins };
        let (slot, generation) = (SlotIndex(session.id.0 as u32), SlotGeneration(1));
        let place = SlotPlace { directory: DirectoryId([7; 16]), slot, generation };
        let offset = 8_192 + u64::from(sequence) * 4_096;
        let media_ms = i64::from(sequence) * 500;
        let seal = Seal {
            place,
            stream_hash: 0,
            session: session.id,
            segment_offset: 4_096,
            sequence: FragmentSequence(sequence),
            media_bytes: 100,
            first_arrival: came,
            last_arrival: BootTime(came.boot.0 + 400),
            media_start_ms: media_ms,
            media_end_ms: media_ms + 500,
            key: true,
            recordings: SealRecordings::from_slice(&[of_it]).expect("fits"),
        };
        let segment = SegmentStart {
            session: session.clone(),
            number: 0,
            discontinuity: false,
            tracks: Arc::new([]),
            origins: Vec::new(),
            script_data: bytes::Bytes::new(),
            init: bytes::Bytes::new(),
        };
        let segment = Arc::new(segment);
        DurableEvent::Fragment(Box::new(DurableFragment {
            segment,
            seal,
            offset,
            end: offset + 4_096,
        }))
    }

    /// Start, end, and whether they can be believed, of each file.
    fn files(state: &CatalogState) -> Vec<(i64, i64, bool)> {
        let files = state.files().expect("listed");
        files.into_iter().map(|file| (file.start_ms, file.end_ms, file.trusted)).collect()
    }

    fn gaps(state: &CatalogState) -> Vec<(i64, Option<i64>)> {
        let gaps = state.gaps(&key(), 0, i64::MAX).expect("read");
        gaps.into_iter().rev().map(|gap| (gap.from_ms, gap.until_ms)).collect()
    }

    fn segments(state: &CatalogState) -> Vec<(i64, i64)> {
        let (found, _) = state.range_spans(&key(), i64::MIN, i64::MAX).expect("there");
        found.iter().map(|segment| (segment.first_ms, segment.last_ms)).collect()
    }

    /// Everything that has a time, in a boot whose clock is not set: three fragments and two that grow,
    /// three gaps of which one lasts, a decision and a push.
    fn live_blind(state: &mut CatalogState) -> Arc<SessionStart> {
        let cam = session(1, FIRST, blind(1_000));
        let push = PushStart {
            id: PushId(1),
            key: key(),
            began: blind(900),
            boot_id: FIRST,
            peer: String::new(),
            query: String::new(),
        };
        state.begin_push(&push).expect("entered");
        let (word, reason) = ("record".to_owned(), String::new());
        let decision = DecisionRecord {
            decision: word,
            rule: None,
            template: None,
            layer: None,
            revision: None,
            reason,
        };
        let now = Moment { at: blind(950), boot_id: FIRST };
        state.enter_decision(&key(), Some(&decision), now).expect("entered");
        state.begin_session(&cam, &[]).expect("entered");
        for (sequence, boot_ms) in (0_u32..).zip([1_000, 1_500, 2_000, 2_500, 3_000]) {
            state.apply(vec![fragment(&cam, sequence, blind(boot_ms))]).expect("entered");
        }
        state.enter_gap(&cam, blind(1_700), 80, "flash did not keep up").expect("entered");
        let promises = state.promises();
        let mut watch = |entry| state.enter_watched_gap(&key(), FIRST, entry).expect("entered");
        watch(GapEntry::Begins { from: blind(500), cause: Missing::Camera });
        watch(GapEntry::Ends { until: blind(900) });
        watch(GapEntry::Begins { from: blind(3_500), cause: Missing::NoMedia });
        assert_eq!(state.promises(), promises + 2, "a gap that begins is durable at once");
        state.end_push(PushId(1), blind(3_400), &PushEnd::default()).expect("entered");
        cam
    }

    fn assert_dated(state: &CatalogState) {
        let at = |boot_ms: i64| ZERO_MS + boot_ms;
        let both = [(at(1_000), at(2_400), true), (at(2_500), at(3_400), true)];
        assert_eq!(files(state), both);
        assert_eq!(segments(state), [(at(1_000), at(3_400))]);
        let all = [(at(500), Some(at(900))), (at(1_700), Some(at(1_780))), (at(3_500), None)];
        assert_eq!(gaps(state), all);
        assert!(state.decision_at(&key(), UnixMillis(at(950))).expect("read").is_some());
        assert!(state.decision_at(&key(), UnixMillis(at(949))).expect("read").is_none());
        assert!(state.recordings_at(&key(), UnixMillis(at(1_000))).expect("read").is_some());
        let filter = PushFilter {
            from_ms: ZERO_MS,
            until_ms: i64::MAX,
            domain: None,
            app: None,
            name_part: None,
            name: None,
            ascending: true,
        };
        let (pushes, _) = state.pushes(&filter, 0, 9).expect("listed");
        let times: Vec<_> = pushes.iter().map(|push| (push.began_ms, push.ended_ms)).collect();
        assert_eq!(times, [(at(900), Some(at(3_400)))]);
    }

    fn turn(clock: &Hand, at: Instant) {
        clock.0.lock().expect("nobody panics").at = at;
    }

    #[test]
    fn what_was_entered_before_is_dated_with_the_first_job_after_the_clock_is_set() {
        let dir = tempfile::tempdir().expect("scratch");
        let clock = hand(FIRST, blind(100));
        let mut state = open(dir.path(), &clock);
        let cam = live_blind(&mut state);
        state.take(Box::new(|_| ()));
        assert_eq!(files(&state), [(1_000, 2_400, false), (2_500, 3_400, false)]);
        turn(&clock, set(4_000, 0));
        state.take(Box::new(|_| ()));
        assert_dated(&state);

        // On its way since before the clock was set; and after it stepped by a year, twice.
        state.apply(vec![fragment(&cam, 5, blind(3_500))]).expect("entered");
        let ends_ms = |state: &CatalogState| files(state).last().map(|file| file.1 - ZERO_MS);
        assert_eq!(ends_ms(&state), Some(3_900));
        for (sequence, off_ms) in [(7, YEAR_MS), (8, -YEAR_MS)] {
            let boot_ms = u64::from(sequence) * 500 + 1_000;
            turn(&clock, set(boot_ms, off_ms));
            let event = fragment(&cam, sequence, set(boot_ms, off_ms));
            state.take(Box::new(move |state| state.apply(vec![event]).expect("entered")));
            assert_eq!(ends_ms(&state), Some(i64::try_from(boot_ms).expect("small") + 400));
            assert_eq!(
                segments(&state),
                [(ZERO_MS + 1_000, ends_ms(&state).expect("one") + ZERO_MS)]
            );
        }
        let until = set(5_300, -YEAR_MS);
        state.enter_watched_gap(&key(), FIRST, GapEntry::Ends { until }).expect("entered");
        assert_eq!(gaps(&state).last(), Some(&(ZERO_MS + 3_500, Some(ZERO_MS + 5_300))));
        let end = SessionEnd {
            session: cam,
            ended: set(6_000, YEAR_MS),
            cause: String::new(),
            recordings: vec![RecordingId(1)],
            paused: Vec::new(),
            interrupted: Vec::new(),
        };
        state.apply(vec![DurableEvent::SessionEnded(end)]).expect("entered");
        let ran =
            |boot_ms| state.recordings_at(&key(), UnixMillis(ZERO_MS + boot_ms)).expect("read");
        assert_eq!((ran(6_000).is_some(), ran(6_001).is_some()), (true, false));
    }

    #[test]
    fn a_cut_leaves_what_is_not_dated_to_the_next_start_in_whatever_boot() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path(), &hand(FIRST, blind(100)));
        let cam = live_blind(&mut state);
        state.end_recordings(&[RecordingId(1)]).expect("ended");
        let place = SlotPlace {
            directory: DirectoryId([7; 16]),
            slot: SlotIndex(1),
            generation: SlotGeneration(1),
        };
        state.apply(vec![DurableEvent::SlotClosed(place)]).expect("entered");
        let ids = ["SELECT min(id) FROM file", "SELECT max(id) FROM file"].map(|text| {
            FileId(unsql(state.db.query_row(text, [], |row| row.get(0)).expect("two files")))
        });
        let change = |state: &CatalogState, text: &str| {
            change_files(&state.db, &ids, || state.db.execute_batch(text)).expect("written");
        };
        change(&state, "UPDATE file SET storage_s = 10");
        let expires = |state: &mut CatalogState| state.slot_views().expect("weighed")[0].expires_at;
        assert_eq!(expires(&mut state), None, "nothing ages on a clock that is not set");
        // What is durable of the dating: when the boot began, and one of the files.
        let cut = format!(
            "INSERT INTO boot (boot_id, zero_ms) VALUES (x'{FIRST}', {ZERO_MS});
             UPDATE file SET start_ms = start_ms + {ZERO_MS}, end_ms = end_ms + {ZERO_MS},
             trusted = 1 WHERE start_boot_ms = 1000"
        );
        change(&state, &cut);
        drop(state);

        let mut state = open(dir.path(), &hand(SECOND, blind(50)));
        for _ in 0..2 {
            state.date_rows().expect("dated");
            assert_dated(&state);
            ids.iter().for_each(|file| state.check_file(*file).expect("its checksum holds"));
            assert_eq!(expires(&mut state), Some(UnixMillis(ZERO_MS + 3_400 + 10_000)));
        }
        // The seals of that boot, found again as recovery finds them, still have the times of before.
        state.db.execute("DELETE FROM segment", []).expect("forgotten");
        let again = (0_u32..).zip([1_000, 1_500, 2_000, 2_500, 3_000]);
        let again = again.map(|(sequence, boot_ms)| fragment(&cam, sequence, blind(boot_ms)));
        state.replay(again.collect()).expect("entered");
        assert_dated(&state);
        // Nobody knows when this boot began.
        let other = session(2, SECOND, blind(60));
        state.apply(vec![fragment(&other, 0, blind(70))]).expect("entered");
        assert_eq!(files(&state)[0], (70, 470, false));
    }

    #[test]
    fn the_seals_of_an_older_boot_tell_when_it_began() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path(), &hand(SECOND, blind(50)));
        let cam = live_blind(&mut state);
        state.replay(vec![fragment(&cam, 5, set(3_500, 0))]).expect("entered");
        assert_eq!(files(&state)[0], (ZERO_MS + 1_000, ZERO_MS + 2_400, true));
        assert_eq!(files(&state)[1], (ZERO_MS + 2_500, ZERO_MS + 3_900, true));
    }

    #[test]
    fn the_newest_boots_are_remembered() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open(dir.path(), &hand(FIRST, blind(50)));
        let boot = |number: u8| BootId([number; 16]);
        for number in 0..140 {
            state.learn(boot(number), BootZero(i64::from(number))).expect("kept");
        }
        let same = |dates: &Dates| {
            let known: Vec<u8> = dates.zeros.iter().map(|(boot, _)| boot.0[0]).collect();
            assert_eq!(known, (12..140).collect::<Vec<u8>>());
        };
        same(&state.dates);
        drop(state);
        let state = open(dir.path(), &hand(FIRST, blind(50)));
        same(&state.dates);
        assert_eq!(state.dates.zero(boot(139)), Some(BootZero(139)));
    }
}
