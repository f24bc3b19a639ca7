//! The writer thread: the only one that writes slots.
//!
//! It takes fragments from the lanes, puts each into the open slot of its stream, and at every
//! tick makes everything written durable in one group operation (`syncfs`). Until then fragments
//! stay in memory. After a failed group sync every slot written since the last good one is closed
//! for good (one that holds nothing durable is used anew), and the fragments that are still held are
//! written elsewhere, before anything that comes after them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::domain::files::FormatSet;
use crate::domain::ids::{RecordingId, SlotIndex};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::domain::write_pace::WritePace;
use crate::platform::clock::Clock;
use crate::platform::flash::Open;
use crate::platform::planted;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::durable::{DurableEvent, DurableFragment};
use crate::ring::desk::{ReadySlot, WriterDesk};
use crate::ring::failures::Failures;
use crate::ring::fragment::{Fragment, SegmentStart};
use crate::ring::lane::{LaneItem, Lanes, WriterLane};
use crate::ring::layout::SlotPlace;
use crate::ring::open_slot::OpenSlot;
use crate::ring::slots::Slots;

/// Spare slots to keep at hand when few streams are live, so that one that begins finds its own.
const SPARE_SLOTS_MIN: usize = 4;
/// Streams that have not ended are waited for this long at the end.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// After the answer that no slot may be reused, this long is waited before asking again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// While something waits for a slot, it is looked for again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A slot that recovery found with room behind its last good seal.
#[derive(Debug, Clone)]
pub struct ResumableSlot {
    /// Whose media it holds.
    pub key: StreamKey,
    /// Which slot, in which life.
    pub place: SlotPlace,
    /// Where writing goes on.
    pub position: u64,
}

/// What happened since the last good sync, to be told to the catalog, in order, after the next.
enum Pending {
    /// A fragment was written. It is kept until it is durable.
    Written(Box<Fragment>, Box<DurableFragment>),
    /// Anything else.
    Happened(DurableEvent),
}

impl Pending {
    fn is_in(&self, place: SlotPlace) -> bool {
        matches!(self, Pending::Written(_, durable) if durable.seal.place == place)
    }
}

/// The thread's own state.
pub struct Writer {
    slots: Slots,
    lanes: Arc<Lanes>,
    desk: Arc<WriterDesk>,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    sync_interval: Duration,
    opened: Vec<WriterLane>,
    open: BTreeMap<StreamKey, OpenSlot>,
    pending: Vec<Pending>,
    /// To be written again after a failed sync, in order, before the lanes are looked at.
    homeless: VecDeque<Box<Fragment>>,
    /// The segment that a stream's slot was closed in, until another one is begun.
    cut_short: BTreeMap<StreamKey, Arc<SegmentStart>>,
    /// Slots with media in which a write failed, until it shows whether they or the flash failed.
    suspects: Vec<SlotPlace>,
    /// Writes and syncs that failed.
    writes: Failures,
    syncs: Failures,
    /// Formats whose file was to begin with a fragment that was dropped, by recording.
    owed: BTreeMap<RecordingId, FormatSet>,
    /// Bytes written to slots since the last sync.
    dirty: bool,
    pace: WritePace,
    last_sync: BootTime,
    last_asked: BootTime,
    /// Since when it has been asked to stop.
    stopping: Option<BootTime>,
    dropped_fragments: u64,
}

/// When the writer wants to make its next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextRound {
    /// After this time, or when it is woken.
    Within(Duration),
    /// When it is woken.
    WhenWoken,
    /// Never: it was asked to stop, and everything is durable.
    Never,
}

impl Writer {
    /// A writer that goes on in the slots recovery found.
    #[must_use]
    pub fn new(
        slots: Slots,
        lanes: Arc<Lanes>,
        desk: Arc<WriterDesk>,
        catalog: Catalog,
        (clock, sync_interval): (Arc<dyn Clock>, Duration),
        resumable: Vec<ResumableSlot>,
    ) -> Self {
        let (mut open, mut pending) = (BTreeMap::new(), Vec::new());
        for slot in resumable {
            match slots.open(slot.place.slot, Open::ReadWrite) {
                Ok(file) => {
                    let mut opened = OpenSlot::new(file, slot.place);
                    opened.position = slot.position;
                    (opened.live, opened.durable) = (false, true);
                    open.insert(slot.key, opened);
                }
                Err(error) => {
                    error!(%error, "a slot with room cannot be opened");
                    pending.push(Pending::Happened(DurableEvent::SlotFailed(slot.place)));
                }
            }
        }
        let now = clock.now().boot;
        let mut writer = Writer {
            slots,
            lanes,
            desk,
            catalog,
            clock,
            sync_interval,
            opened: Vec::new(),
            open,
            pending,
            homeless: VecDeque::new(),
            cut_short: BTreeMap::new(),
            suspects: Vec::new(),
            writes: Failures::default(),
            syncs: Failures::default(),
            owed: BTreeMap::new(),
            dirty: false,
            pace: WritePace::default(),
            last_sync: now,
            last_asked: now,
            stopping: None,
            dropped_fragments: 0,
        };
        // A crash left the slots of all its streams open, and some streams never come back.
        writer.close_idle();
        writer
    }

    /// The thread's body: ends after [`WriterDesk::stop`], with everything durable.
    pub fn run(mut self) {
        self.lanes.set_writer(std::thread::current());
        loop {
            self.lanes.meters.round();
            while planted::hangs("writer") {
                std::thread::park_timeout(self.sync_interval);
            }
            match self.round() {
                NextRound::Within(left) => std::thread::park_timeout(left),
                NextRound::WhenWoken => std::thread::park(),
                NextRound::Never => break,
            }
        }
        info!(dropped_fragments = self.dropped_fragments, "writer thread ends");
    }

    /// Takes what has come, writes it, and syncs if that is due.
    pub fn round(&mut self) -> NextRound {
        let stop = self.desk.state().stop;
        self.opened.extend(self.lanes.take_opened());
        self.ask_for_slots();
        let way = self.slots.way.clone();
        let taken = way.take();
        self.drain_lanes();
        // What waits for the next sync is taken right after it.
        let held_back = self.pace.is_spent();
        let now = self.clock.now().boot;
        let due = now.since(self.last_sync) >= self.sync_interval;
        let rests = self.syncs.pause(now).is_some() && !stop;
        if (due || stop) && !rests && (self.dirty || !self.pending.is_empty()) {
            self.sync(now);
        }
        drop(taken);
        if stop {
            let since = *self.stopping.get_or_insert(now);
            if self.opened.is_empty() || now.since(since) > STOP_WITHIN {
                return NextRound::Never;
            }
        }
        let now = self.clock.now().boot;
        if let Some(left) = self.syncs.pause(now) {
            return NextRound::Within(left);
        }
        if self.dirty || !self.pending.is_empty() || stop || held_back {
            let left = self.sync_interval.saturating_sub(now.since(self.last_sync));
            return NextRound::Within(left.max(Duration::from_millis(1)));
        }
        // A lane that is full wakes nobody.
        if !self.homeless.is_empty() || self.writes.are_many() && !self.opened.is_empty() {
            return NextRound::Within(self.writes.pause(now).unwrap_or(LOOK_AGAIN));
        }
        NextRound::WhenWoken
    }

    fn drain_lanes(&mut self) {
        while let Some(fragment) = self.homeless.pop_front() {
            if let Some(still) = self.place(fragment) {
                self.homeless.push_front(still);
                return;
            }
        }
        let lanes = self.lanes.clone();
        let mut opened = std::mem::take(&mut self.opened);
        // Where not all can be written, those of one priority lose in turn.
        if self.pace.is_spent() && !opened.is_empty() {
            opened.rotate_left(1);
        }
        opened.sort_by_key(|lane| Reverse(lane.priority()));
        for lane in opened {
            match lane.drain(&lanes, |item| self.take(item)) {
                Ok(lane) => self.opened.push(lane),
                Err(end) => {
                    let paused = end.paused.iter().map(|(recording, _)| recording);
                    for recording in end.recordings.iter().chain(paused).chain(&end.interrupted) {
                        self.owed.remove(recording);
                    }
                    // The next session of the stream may be at work in the slot already.
                    let open = self.open.get_mut(&end.session.key);
                    if let Some(open) = open.filter(|open| open.is_of(&end.session)) {
                        open.live = false;
                        open.segment = None;
                    }
                    self.cut_short.remove(&end.session.key);
                    self.pending.push(Pending::Happened(DurableEvent::SessionEnded(*end)));
                    self.close_idle();
                }
            }
        }
    }

    /// Takes what came over a lane; gives it back if there is no slot yet.
    fn take(&mut self, item: LaneItem) -> Option<LaneItem> {
        match item {
            item if self.pace.is_spent() && !self.desk.state().stop => Some(item),
            LaneItem::Fragment(fragment) => self.place(fragment).map(LaneItem::Fragment),
            LaneItem::RecordingsEnded(recordings) => {
                self.owed.retain(|recording, _| !recordings.contains(recording));
                let event = DurableEvent::RecordingsEnded(recordings);
                self.pending.push(Pending::Happened(event));
                None
            }
        }
    }

    /// Keeps spare slots at hand: one for each live stream and a few, at most a quarter of the ring,
    /// and never fewer than half as many for longer than the catalog takes to answer.
    fn ask_for_slots(&mut self) {
        let most = (self.slots.identity.slots as usize / 4).max(1);
        let wanted = self.opened.len().clamp(SPARE_SLOTS_MIN.min(most), most);
        let mut state = self.desk.state();
        let now = self.clock.now().boot;
        let again = !state.refused || now.since(self.last_asked) >= REFUSED_PAUSE;
        // By the handful: each answer costs flushes. While the flash fails, what is there must do.
        let fails = self.writes.are_many() || self.syncs.are_many();
        let least = if fails { 1 } else { wanted.div_ceil(2) };
        if state.ready.len() < least && !state.asked && again {
            state.asked = true;
            self.last_asked = now;
            let count = wanted - state.ready.len();
            drop(state);
            let (desk, lanes) = (self.desk.clone(), self.lanes.clone());
            self.catalog.post(move |state| {
                let slots = state.reserve(count).unwrap_or_else(|error| {
                    error!(%error, "no slot could be reserved");
                    Vec::new()
                });
                desk.answer(slots);
                lanes.wake();
            });
        }
    }

    /// How long nothing is to be written yet, because the flash fails.
    fn pause(&self) -> Option<Duration> {
        let now = self.clock.now().boot;
        self.writes.pause(now).max(self.syncs.pause(now))
    }

    /// Writes a fragment into its stream's slot, into a new one if it does not fit or fails.
    /// Gives it back if there is no slot yet or the flash fails; drops it if there will be none.
    /// Files that begin with a dropped fragment begin with the next one that is written.
    fn place(&mut self, mut fragment: Box<Fragment>) -> Option<Box<Fragment>> {
        if self.pause().is_some() {
            return Some(fragment);
        }
        for recording in &mut fragment.recordings {
            if let Some(owed) = self.owed.remove(&recording.recording) {
                recording.begins = recording.begins.or(owed.and(recording.formats));
            }
        }
        let key = fragment.segment.session.key.clone();
        for _ in 0..2 {
            if !self.has_room(&key, &fragment) && !self.begin_slot(&key) {
                let refused = self.desk.state().refused;
                if !refused {
                    return Some(fragment);
                }
                break;
            }
            let Some(open) = self.open.get_mut(&key) else { break };
            match open.write(&fragment) {
                Ok(durable) => {
                    self.dirty = true;
                    open.live = true;
                    self.writes.worked();
                    let failed = self.suspects.drain(..).map(DurableEvent::SlotFailed);
                    self.pending.extend(failed.map(Pending::Happened));
                    self.pace.written(durable.end - durable.offset);
                    self.lanes.meters.fragment_written(fragment.media_bytes() as u64);
                    self.pending.push(Pending::Written(fragment, Box::new(durable)));
                    return None;
                }
                Err(error) => {
                    error!(%error, slot = %open.place.slot, "writing a fragment failed");
                    self.writes.failed(self.clock.now().boot);
                    let left = self.leave_slot(&key);
                    self.suspects.extend(left);
                    if self.writes.are_many() {
                        let closed = self.suspects.drain(..).map(DurableEvent::SlotClosed);
                        self.pending.extend(closed.map(Pending::Happened));
                        return Some(fragment);
                    }
                }
            }
        }
        for recording in fragment.recordings.iter().filter(|one| !one.begins.is_empty()) {
            self.owed.insert(recording.recording, recording.begins);
        }
        self.dropped_fragments += 1;
        self.lanes.meters.fragment_dropped();
        if self.dropped_fragments.is_power_of_two() {
            warn!(stream = %key, dropped = self.dropped_fragments, "no slot to write to");
        }
        let lost = DurableEvent::lost(&fragment, self.desk.state().refused);
        self.pending.push(Pending::Happened(lost));
        None
    }

    fn has_room(&self, key: &StreamKey, fragment: &Fragment) -> bool {
        let slot_bytes = self.slots.identity.slot_bytes;
        self.open.get(key).is_some_and(|open| open.has_room(fragment, slot_bytes))
    }

    /// Closes the stream's slot and opens the next ready one.
    fn begin_slot(&mut self, key: &StreamKey) -> bool {
        self.close_slot(key);
        let Some(ready) = self.desk.state().ready.pop_front() else { return false };
        let place = SlotPlace {
            directory: self.slots.identity.directory,
            slot: ready.slot,
            generation: ready.generation,
        };
        match self.slots.open(ready.slot, Open::ReadWrite) {
            Ok(file) => {
                let mut open = OpenSlot::new(file, place);
                open.runs_on = self.cut_short.remove(key);
                self.open.insert(key.clone(), open);
                true
            }
            Err(error) => {
                error!(%error, "a reserved slot cannot be opened");
                self.writes.failed(self.clock.now().boot);
                self.desk.state().ready.push_back(ready);
                false
            }
        }
    }

    /// Closes a slot: the rest of it becomes one `free` box.
    fn close_slot(&mut self, key: &StreamKey) {
        let Some(open) = self.take_open(key) else { return };
        if let Err(error) = open.close(self.slots.identity.slot_bytes) {
            warn!(slot = %open.place.slot, %error, "the rest of a closed slot is not marked free");
        }
        self.dirty = true;
        self.pending.push(Pending::Happened(DurableEvent::SlotClosed(open.place)));
    }

    /// Leaves a slot that the flash failed in. One that holds nothing yet is tried again in its turn;
    /// any other is given back.
    fn leave_slot(&mut self, key: &StreamKey) -> Option<SlotPlace> {
        let open = self.take_open(key)?;
        let SlotPlace { slot, generation, .. } = open.place;
        if open.durable || self.pending.iter().any(|pending| pending.is_in(open.place)) {
            return Some(open.place);
        }
        self.desk.state().ready.push_back(ReadySlot { slot, generation });
        None
    }

    /// Takes a stream's slot away; the next one goes on with its segment.
    fn take_open(&mut self, key: &StreamKey) -> Option<OpenSlot> {
        let open = self.open.remove(key)?;
        let segment = open.segment.as_ref().map(|(segment, _)| segment.clone());
        if let Some(segment) = segment.or_else(|| open.runs_on.clone()) {
            self.cut_short.insert(key.clone(), segment);
        }
        Some(open)
    }

    /// Streams that come and go must not hold the ring open: at most an eighth of the slots stay
    /// open without a live stream.
    fn close_idle(&mut self) {
        let most = (self.slots.identity.slots as usize / 8).max(1);
        let idle: Vec<StreamKey> =
            self.open.iter().filter(|(_, open)| !open.live).map(|(key, _)| key.clone()).collect();
        for key in idle.iter().take(idle.len().saturating_sub(most)) {
            self.close_slot(key);
        }
    }

    /// Group sync; then the catalog learns what is durable.
    fn sync(&mut self, now: BootTime) {
        self.last_sync = now;
        if let Err(error) = self.sync_file_system() {
            error!(%error, "group sync failed; slots written since the last good one are closed");
            self.syncs.failed(now);
            self.rewrite_held();
            return;
        }
        self.syncs.worked();
        self.pace.synced(self.clock.now().boot.since(now));
        self.dirty = false;
        for open in self.open.values_mut() {
            open.dirty = false;
            open.durable |= open.position > 0;
        }
        let told = self.pending.drain(..).map(|pending| match pending {
            Pending::Written(_, durable) => DurableEvent::Fragment(durable),
            Pending::Happened(event) => event,
        });
        let events: Vec<DurableEvent> = told.collect();
        self.catalog.post(move |state| {
            if let Err(error) = state.apply(events) {
                error!(%error, "the catalog did not take what became durable");
            }
        });
    }

    fn sync_file_system(&self) -> std::io::Result<()> {
        if !self.dirty || planted::is_planted("EDGEREC_PLANT_NO_SYNC") {
            return Ok(());
        }
        // One commit of the file system's journal is enough then.
        let written_out =
            self.open.values().filter(|open| open.dirty).try_for_each(|open| open.file.write_out());
        self.lanes.meters.count_sync(written_out.and_then(|()| match self.open.values().next() {
            Some(open) => open.file.sync_file_system(),
            None => {
                let slot = self.slots.open(SlotIndex(0), Open::Read);
                slot.map_err(std::io::Error::other).and_then(|slot| slot.sync_file_system())
            }
        }))
    }

    /// What is still held is written again, in order. What was durable in the slots stays good.
    fn rewrite_held(&mut self) {
        // What was written came before what still waits.
        let waiting = std::mem::take(&mut self.homeless);
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Written(fragment, _) => self.homeless.push_back(fragment),
                Pending::Happened(_) => self.pending.push(pending),
            }
        }
        self.homeless.extend(waiting);
        let failed: Vec<StreamKey> =
            self.open.iter().filter(|(_, open)| open.dirty).map(|(key, _)| key.clone()).collect();
        for key in &failed {
            let closed = self.leave_slot(key).map(DurableEvent::SlotClosed);
            self.pending.extend(closed.map(Pending::Happened));
        }
    }
}
