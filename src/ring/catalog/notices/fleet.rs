//! The fleet as a reader of the outbox: events in the order of their numbers, each until a broker has
//! acknowledged it.

use std::sync::Arc;

use rusqlite::{Transaction, params};
use tokio::sync::Notify;
use tracing::error;

use crate::domain::notice::box_event::{BoxNews, Loss, Lost};
use crate::domain::notice::{BoxEvent, EventKind, NoticeSeq, without_push_secret};
use crate::domain::time::UnixMillis;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::notices::{NOBODY, enter_box_event};
use crate::ring::catalog::rows::{sql, unsql};

/// An event that the fleet has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetEvent {
    /// Its number.
    pub seq: NoticeSeq,
    /// Its kind.
    pub kind: EventKind,
    /// What it says, as JSON text, without the secret of a push.
    pub body: String,
}

impl CatalogState {
    /// Told whenever an event for the fleet begins to wait.
    #[must_use]
    pub fn fleet_news(&self) -> Arc<Notify> {
        self.fleet_news.clone()
    }

    /// Events that the fleet has not, after a number, in order; at most `most`.
    ///
    /// # Errors
    /// The database fails.
    pub fn events_for_fleet(
        &self,
        after: NoticeSeq,
        most: usize,
    ) -> Result<Vec<FleetEvent>, RingError> {
        self.db
            .prepare_cached(
                "SELECT seq, event_type, body FROM notice WHERE fleet = 1 AND seq > ?1 ORDER BY seq",
            )
            .and_then(|mut query| {
                let rows = query.query_map([sql(after.0)], |row| {
                    let seq = NoticeSeq(unsql(row.get(0)?));
                    // A newer version may have entered other kinds before it was taken back.
                    let kind = EventKind::from_number(row.get(1)?);
                    let body = without_push_secret(row.get(2)?);
                    Ok(kind.map(|kind| FleetEvent { seq, kind, body }))
                })?;
                rows.filter_map(Result::transpose).take(most).collect()
            })
            .map_err(RingError::catalog("reading events for the fleet"))
    }

    /// The broker of the fleet has acknowledged these events. Durable with the next group sync. Once
    /// it takes any again, the fleet is told of those that fell out meanwhile, durably: a number that
    /// it may have seen is not given again.
    ///
    /// # Errors
    /// The database fails.
    pub fn fleet_has(&mut self, events: &[NoticeSeq]) -> Result<(), RingError> {
        let what = "keeping what the fleet has";
        let now = self.clock.now().wall.unix;
        let desk = self.fleet_desk();
        let overflow = self.overflow(now).map_err(RingError::catalog(what))?;
        let keep = |transaction: &Transaction<'_>| {
            for seq in events {
                transaction
                    .prepare_cached(
                        "UPDATE notice SET fleet = 2, last_ms = ?2 WHERE seq = ?1 AND fleet = 1",
                    )?
                    .execute(params![sql(seq.0), now.0])?;
            }
            if let Some((event, desk)) = overflow.as_ref().zip(desk) {
                transaction
                    .execute("UPDATE loss SET told = 2 WHERE told = 0 AND events > 0", [])?;
                enter_box_event(transaction, event, &desk)?;
            }
            Ok(())
        };
        if overflow.is_none() {
            return self.in_transaction(what, keep);
        }
        self.durably(what, keep)?;
        self.fleet_news.notify_one();
        Ok(())
    }

    /// The entry of events that fell out and of which the fleet was not told.
    fn overflow(&self, now: UnixMillis) -> rusqlite::Result<Option<BoxEvent>> {
        let mut query = self.db.prepare_cached(
            "SELECT id, reason, events, first_seq, last_seq FROM loss
             WHERE told = 0 AND events > 0",
        )?;
        let mut rows = query.query([])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let lost = Lost::Events {
            first: NoticeSeq(unsql(row.get(3)?)),
            last: NoticeSeq(unsql(row.get(4)?)),
            count: unsql(row.get(2)?),
        };
        let loss = Loss { number: unsql(row.get(0)?), reason: row.get(1)?, lost };
        Ok(Some(BoxEvent { at: now, what: BoxNews::Loss(loss) }))
    }

    /// A box that is in no fleet, or not any more, keeps nothing for one.
    pub(super) fn settle_fleet(&mut self) {
        if self.notices.fleet {
            return;
        }
        let settled = self.in_transaction("forgetting what was for a fleet", |transaction| {
            transaction.execute("DELETE FROM notice WHERE fleet = 1 AND state = ?1", [NOBODY])?;
            transaction.execute("UPDATE notice SET fleet = 0 WHERE fleet = 1", [])?;
            Ok(())
        });
        if let Err(problem) = settled {
            error!(%problem, "what was for a fleet stays in the outbox");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::due::{GapEntry, Missing};
    use crate::domain::ids::SessionId;
    use crate::domain::time::Instant;
    use crate::ring::catalog::notices::room::units_max;
    use crate::ring::catalog::notices::tests::{begin, note, open_unset, post, ready, receiver};
    use crate::ring::catalog::notices::{NoticeDesk, Reader, Verdict};
    use crate::ring::fragment::SessionStart;

    /// The outbox of a box in a fleet, with a receiver of notices too or without.
    fn in_fleet(path: &Path, with_receiver: bool) -> CatalogState {
        let mut state = open_unset(path);
        let default = with_receiver.then(receiver);
        let desk = NoticeDesk { fleet: true, default, ..NoticeDesk::of_box("box-01") };
        state.set_notice_desk(desk);
        state
    }

    fn for_fleet(state: &CatalogState) -> Vec<(u64, &'static str)> {
        let events = state.events_for_fleet(NoticeSeq(0), 100).expect("read");
        events.iter().map(|event| (event.seq.0, event.kind.word())).collect()
    }

    fn readers(state: &CatalogState) -> Vec<(Reader, Reader)> {
        let rows = state.events_from(NoticeSeq(0), 100).expect("read");
        rows.iter().map(|row| (row.receiver, row.fleet)).collect()
    }

    /// Fills the outbox with rows in these states of their two readers; gives how many they are.
    fn fill(state: &mut CatalogState, (receiver, fleet): (u8, u8)) -> u64 {
        let most = units_max(&state.identity);
        let transaction = state.db.transaction().expect("begun");
        for seq in 1..=most {
            let row = "INSERT INTO notice (seq, id, stream, event_type, at_ms, url, key, body,
                       state, fleet)
                       VALUES (?1, 'id' || ?1, 'd/live/c', 1, 0, '', '', '{}', ?2, ?3)";
            let row = transaction.prepare_cached(row);
            row.and_then(|mut row| row.execute(params![sql(seq), receiver, fleet])).expect("in");
        }
        transaction.commit().expect("committed");
        most
    }

    /// How many events each entry of the ledger has, its first and its last.
    fn losses(state: &CatalogState) -> Vec<(u64, u64, u64)> {
        let text = "SELECT events, first_seq, last_seq FROM loss WHERE events > 0 ORDER BY id";
        let mut query = state.db.prepare(text).expect("asked");
        let rows = query
            .query_map([], |row| Ok((unsql(row.get(0)?), unsql(row.get(1)?), unsql(row.get(2)?))));
        rows.expect("asked").collect::<rusqlite::Result<_>>().expect("read")
    }

    #[test]
    fn each_reader_has_its_own_mark() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = in_fleet(dir.path(), true);
        post(&mut state, begin("a", 1));
        post(&mut state, begin("b", 2));
        assert_eq!(for_fleet(&state), [(1, "push_begin"), (2, "push_begin")]);
        state.fleet_has(&[NoticeSeq(1)]).expect("kept");
        note(&mut state, 2, Verdict::Taken);
        assert_eq!((for_fleet(&state), ready(&state)), (vec![(2, "push_begin")], vec![1]));
        use Reader::{Has, Waits};
        assert_eq!(readers(&state), [(Waits, Has), (Has, Waits)]);
        let outbox = state.outbox_id().expect("read");
        drop(state);
        let state = in_fleet(dir.path(), true);
        assert_eq!(for_fleet(&state), [(2, "push_begin")]);
        assert_eq!((state.outbox_id().expect("read"), outbox.len()), (outbox, 16));
    }

    #[test]
    fn a_box_that_leaves_its_fleet_keeps_nothing_for_it() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = in_fleet(dir.path(), false);
        post(&mut state, begin("a", 1));
        assert_eq!(readers(&state), [(Reader::No, Reader::Waits)]);
        state.set_notice_desk(NoticeDesk::of_box("box-01"));
        assert_eq!(readers(&state), []);
        assert_eq!(post(&mut state, begin("a", 2)), None, "nobody is told");
    }

    #[test]
    fn entries_of_the_ledgers_are_told_once_also_those_made_before_a_fleet_is_known() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open_unset(dir.path());
        let (key, now) = ("d/live/cam".parse().expect("a key"), state.clock.now());
        let boot_id = state.clock.boot_id();
        let begins = GapEntry::Begins { from: now, cause: Missing::Camera };
        state.enter_watched_gap(&key, boot_id, begins).expect("entered");
        let in_fleet = NoticeDesk { fleet: true, ..NoticeDesk::of_box("box-01") };
        state.set_notice_desk(NoticeDesk::of_box("box-01"));
        state.set_notice_desk(in_fleet.clone());
        assert_eq!(for_fleet(&state), [], "what was there when no fleet was is not told");
        // As recovery does it.
        state.notice_desk_set = false;
        state.enter_watched_gap(&key, boot_id, begins).expect("entered");
        assert_eq!(for_fleet(&state), []);
        state.set_notice_desk(in_fleet);
        assert_eq!(for_fleet(&state), [(1, "gap")]);
        state.tell_ledgers();
        let until = Instant { boot: crate::domain::time::BootTime(now.boot.0 + 500), ..now };
        state.enter_watched_gap(&key, boot_id, GapEntry::Ends { until }).expect("entered");
        let file = "INSERT INTO loss (file, at_ms, media_ms, reason) VALUES (7, 0, 60, 'gone')";
        state.db.execute(file, []).expect("entered");
        state.tell_ledgers();
        state.tell_ledgers();
        let kinds: Vec<&str> = for_fleet(&state).iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, ["gap", "gap", "loss"]);
    }

    #[test]
    fn what_overflows_is_one_entry_of_the_ledger_and_told_when_the_fleet_takes_again() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = in_fleet(dir.path(), false);
        let most = fill(&mut state, (NOBODY, 1));
        for push in 1..=3 {
            post(&mut state, begin("a", push));
        }
        assert_eq!(losses(&state), [(3, 1, 3)]);
        let events = for_fleet(&state);
        assert_eq!((events[0].0, events.len()), (4, 100));
        state
            .db
            .execute_batch(
                "CREATE TEMP TABLE entered (synchronous);
                 CREATE TEMP TRIGGER watch AFTER INSERT ON notice BEGIN
                 INSERT INTO entered SELECT synchronous FROM pragma_synchronous; END;",
            )
            .expect("watched");
        state.fleet_has(&[NoticeSeq(4)]).expect("kept");
        let entered = "SELECT synchronous FROM entered";
        let full: u32 = state.db.query_row(entered, [], |row| row.get(0)).expect("entered");
        assert_eq!(full, 2, "what the fleet sees has its number for good");
        let last = state.events_for_fleet(NoticeSeq(most + 3), 9).expect("read");
        assert_eq!((last.len(), last[0].kind), (1, EventKind::Loss), "{last:?}");
        assert!(last[0].body.contains(r#""count":3"#), "{last:?}");
        // The one that was told made room for it, and a new overflow is a new entry.
        post(&mut state, begin("a", 4));
        assert_eq!(losses(&state), [(3, 1, 3), (1, 5, 5)]);
    }

    #[test]
    fn what_overflows_and_the_fleet_has_is_one_entry_of_which_it_is_not_told() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = in_fleet(dir.path(), true);
        let most = fill(&mut state, (0, 2));
        for push in 1..=3 {
            let seq = post(&mut state, begin("a", push)).expect("entered");
            state.fleet_has(&[NoticeSeq(seq)]).expect("kept");
        }
        assert_eq!((losses(&state), for_fleet(&state)), (vec![(3, 1, 3)], vec![]));
        // Beside it an entry of what the fleet misses grows and is told; that takes one more place.
        state.db.execute("UPDATE notice SET fleet = 1 WHERE seq IN (4, 5)", []).expect("set");
        post(&mut state, begin("a", 4));
        post(&mut state, begin("a", 5));
        assert_eq!(losses(&state), [(3, 1, 3), (2, 4, 5)]);
        state.fleet_has(&[NoticeSeq(most + 4), NoticeSeq(most + 5)]).expect("kept");
        assert_eq!(for_fleet(&state), [(most + 6, "loss")]);
        assert_eq!(losses(&state), [(4, 1, 6), (2, 4, 5)]);
    }

    #[test]
    fn a_box_that_joins_a_fleet_tells_it_nothing_of_the_time_before() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = open_unset(dir.path());
        let alone = NoticeDesk { default: Some(receiver()), ..NoticeDesk::of_box("box-01") };
        state.set_notice_desk(alone.clone());
        fill(&mut state, (0, 0));
        post(&mut state, begin("a", 1));
        let (key, from) = ("d/live/cam".parse().expect("a key"), state.clock.now());
        let boot_id = state.clock.boot_id();
        let begins = GapEntry::Begins { from, cause: Missing::Camera };
        state.enter_watched_gap(&key, boot_id, begins).expect("entered");
        let file = "INSERT INTO loss (file, at_ms, media_ms, reason) VALUES (7, 0, 60, 'gone')";
        state.db.execute(file, []).expect("entered");
        state.tell_ledgers();
        state.set_notice_desk(NoticeDesk { fleet: true, ..alone });
        state.fleet_has(&[]).expect("kept");
        assert_eq!(for_fleet(&state), []);
        state.enter_watched_gap(&key, boot_id, begins).expect("entered");
        let kinds: Vec<&str> = for_fleet(&state).iter().map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, ["gap"], "from here on it is told");
    }

    #[test]
    fn dropped_fragments_are_told_together_with_what_becomes_durable() {
        let dir = tempfile::tempdir().expect("scratch");
        let mut state = in_fleet(dir.path(), false);
        let session = SessionStart {
            id: SessionId(1),
            key: "d/live/cam".parse().expect("a key"),
            boot_id: state.clock.boot_id(),
            began: state.clock.now(),
            protocol: "rtmp",
            query: String::new(),
        };
        for _ in 0..3 {
            state.enter_gap(&session, state.clock.now(), 500, "too slow").expect("entered");
        }
        assert_eq!(for_fleet(&state), [], "no flush for each of them");
        state.apply(Vec::new()).expect("entered");
        assert_eq!(for_fleet(&state), [(1, "gap"), (2, "gap"), (3, "gap")]);
    }
}
