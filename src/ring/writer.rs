//! The writer thread: the only one that writes slots.
//!
//! It takes fragments from the lanes, puts each into the open slot of its stream, and at every
//! tick makes everything written durable in one group operation (`syncfs`). Until then fragments
//! stay in memory. After a failed group sync every slot written since the last good one is closed
//! for good and the fragments that are still held are written elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{error, info, warn};

use crate::domain::files::FormatSet;
use crate::domain::ids::{RecordingId, SlotGeneration, SlotIndex};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::platform::clock::Clock;
use crate::platform::flash::Open;
use crate::platform::planted;
use crate::ring::RingError;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::durable::{DurableEvent, DurableFragment};
use crate::ring::fragment::Fragment;
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

/// A slot whose new life is reserved, durably, in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadySlot {
    /// Which slot.
    pub slot: SlotIndex,
    /// The life it begins.
    pub generation: SlotGeneration,
}

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

/// What the rest of the box shares with the writer thread.
#[derive(Default)]
pub struct WriterDesk {
    state: Mutex<DeskState>,
}

#[derive(Default)]
struct DeskState {
    ready: VecDeque<ReadySlot>,
    asked: bool,
    /// The last answer: no slot may be reused.
    refused: bool,
    stop: bool,
}

impl WriterDesk {
    /// Slots that were reserved before the thread began.
    pub fn supply(&self, slots: Vec<ReadySlot>) {
        self.state().ready.extend(slots);
    }

    /// The catalog's answer to the thread's asking; none means that no slot may be reused.
    fn answer(&self, slots: Vec<ReadySlot>) {
        let mut state = self.state();
        state.refused = slots.is_empty();
        state.asked = false;
        state.ready.extend(slots);
    }

    /// Asks the thread to write what it has, sync, and end.
    pub fn stop(&self) {
        self.state().stop = true;
    }

    fn state(&self) -> MutexGuard<'_, DeskState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened since the last good sync, to be told to the catalog, in order, after the next.
enum Pending {
    /// A fragment was written. It is kept until it is durable.
    Written(Box<Fragment>, Box<DurableFragment>),
    /// Anything else.
    Happened(DurableEvent),
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
    /// To be written again after a failed sync, once there are slots.
    #[expect(clippy::vec_box, reason = "they come boxed from the lanes and go on boxed")]
    homeless: Vec<Box<Fragment>>,
    /// Formats whose file was to begin with a fragment that was dropped, by recording.
    owed: BTreeMap<RecordingId, FormatSet>,
    /// Bytes written to slots since the last sync.
    dirty: bool,
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
    ///
    /// # Errors
    /// A slot cannot be opened.
    pub fn new(
        slots: Slots,
        lanes: Arc<Lanes>,
        desk: Arc<WriterDesk>,
        catalog: Catalog,
        (clock, sync_interval): (Arc<dyn Clock>, Duration),
        resumable: Vec<ResumableSlot>,
    ) -> Result<Self, RingError> {
        let mut open = BTreeMap::new();
        for slot in resumable {
            let file = slots.open(slot.place.slot, Open::ReadWrite)?;
            let mut opened = OpenSlot::new(file, slot.place);
            opened.position = slot.position;
            opened.live = false;
            open.insert(slot.key, opened);
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
            pending: Vec::new(),
            homeless: Vec::new(),
            owed: BTreeMap::new(),
            dirty: false,
            last_sync: now,
            last_asked: now,
            stopping: None,
            dropped_fragments: 0,
        };
        // A crash left the slots of all its streams open, and some streams never come back.
        writer.close_idle();
        Ok(writer)
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
        let now = self.clock.now().boot;
        let due = now.since(self.last_sync) >= self.sync_interval;
        if (due || stop) && (self.dirty || !self.pending.is_empty()) {
            self.sync(now);
        }
        drop(taken);
        if stop {
            let since = *self.stopping.get_or_insert(now);
            if self.opened.is_empty() || now.since(since) > STOP_WITHIN {
                return NextRound::Never;
            }
        }
        if self.dirty || !self.pending.is_empty() || stop {
            let passed = self.clock.now().boot.since(self.last_sync);
            let left = self.sync_interval.saturating_sub(passed);
            return NextRound::Within(left.max(Duration::from_millis(1)));
        }
        NextRound::WhenWoken
    }

    fn drain_lanes(&mut self) {
        for fragment in std::mem::take(&mut self.homeless) {
            let still = self.place(fragment);
            self.homeless.extend(still);
        }
        let lanes = self.lanes.clone();
        for lane in std::mem::take(&mut self.opened) {
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
                    self.pending.push(Pending::Happened(DurableEvent::SessionEnded(*end)));
                    self.close_idle();
                }
            }
        }
    }

    /// Takes what came over a lane; gives it back if there is no slot yet.
    fn take(&mut self, item: LaneItem) -> Option<LaneItem> {
        match item {
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
        // Each answer costs flushes of the device, so they are asked for by the handful.
        if state.ready.len() < wanted.div_ceil(2) && !state.asked && again {
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

    /// Writes a fragment into its stream's slot, into a new one if it does not fit or fails.
    /// Gives it back if there is no slot yet; drops it if there will be none. Files that begin with
    /// a dropped fragment begin with the next one that is written.
    fn place(&mut self, mut fragment: Box<Fragment>) -> Option<Box<Fragment>> {
        for recording in &mut fragment.recordings {
            if let Some(owed) = self.owed.remove(&recording.recording) {
                recording.begins = recording.begins.or(owed.and(recording.formats));
            }
        }
        let key = fragment.segment.session.key.clone();
        let mut failed = Vec::new();
        for _ in 0..2 {
            if !self.has_room(&key, &fragment) && !self.begin_slot(&key) {
                let refused = self.desk.state().refused;
                if !refused {
                    self.keep_slots(failed);
                    return Some(fragment);
                }
                break;
            }
            let Some(open) = self.open.get_mut(&key) else { break };
            match open.write(&fragment) {
                Ok(durable) => {
                    let places = failed.iter().map(|failed: &OpenSlot| failed.place);
                    let given_up = places.map(DurableEvent::SlotFailed).map(Pending::Happened);
                    self.pending.extend(given_up);
                    self.dirty = true;
                    open.live = true;
                    self.lanes.meters.fragment_written(fragment.media_bytes() as u64);
                    self.pending.push(Pending::Written(fragment, Box::new(durable)));
                    return None;
                }
                Err(error) => {
                    error!(%error, slot = %open.place.slot, "writing a fragment failed");
                    failed.extend(self.open.remove(&key));
                }
            }
        }
        self.keep_slots(failed);
        for recording in fragment.recordings.iter().filter(|one| !one.begins.is_empty()) {
            self.owed.insert(recording.recording, recording.begins);
        }
        self.dropped_fragments += 1;
        self.lanes.meters.fragment_dropped();
        if self.dropped_fragments.is_power_of_two() {
            warn!(stream = %key, dropped = self.dropped_fragments, "no slot to write to");
        }
        self.pending.push(Pending::Happened(DurableEvent::FragmentLost {
            session: fragment.segment.session.clone(),
            first_arrival: fragment.first_arrival,
            media_ms: fragment.media_end_ms - fragment.media_start_ms,
        }));
        None
    }

    fn has_room(&self, key: &StreamKey, fragment: &Fragment) -> bool {
        let slot_bytes = self.slots.identity.slot_bytes;
        self.open.get(key).is_some_and(|open| open.has_room(fragment, slot_bytes))
    }

    /// Closes the stream's slot and opens the next ready one.
    fn begin_slot(&mut self, key: &StreamKey) -> bool {
        let before = self.open.get(key).and_then(|open| open.segment.clone());
        self.close_slot(key);
        loop {
            let Some(ready) = self.desk.state().ready.pop_front() else { return false };
            let place = SlotPlace {
                directory: self.slots.identity.directory,
                slot: ready.slot,
                generation: ready.generation,
            };
            match self.slots.open(ready.slot, Open::ReadWrite) {
                Ok(file) => {
                    let mut open = OpenSlot::new(file, place);
                    open.runs_on = before.map(|(segment, _)| segment);
                    self.open.insert(key.clone(), open);
                    return true;
                }
                Err(error) => {
                    error!(%error, "a reserved slot cannot be opened");
                    self.pending.push(Pending::Happened(DurableEvent::SlotFailed(place)));
                }
            }
        }
    }

    /// Closes a slot: the rest of it becomes one `free` box.
    fn close_slot(&mut self, key: &StreamKey) {
        let Some(open) = self.open.remove(key) else { return };
        if let Err(error) = open.close(self.slots.identity.slot_bytes) {
            warn!(slot = %open.place.slot, %error, "the rest of a closed slot is not marked free");
        }
        self.dirty = true;
        self.pending.push(Pending::Happened(DurableEvent::SlotClosed(open.place)));
    }

    /// No slot took the fragment: the flash is at fault, and not the slots. What holds nothing is
    /// tried again; what holds something is closed, as it may be torn at its end.
    fn keep_slots(&mut self, failed: Vec<OpenSlot>) {
        for slot in failed {
            let SlotPlace { slot: index, generation, .. } = slot.place;
            if slot.position == 0 {
                let ready = ReadySlot { slot: index, generation };
                self.desk.state().ready.push_back(ready);
            } else {
                self.pending.push(Pending::Happened(DurableEvent::SlotClosed(slot.place)));
            }
        }
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
            self.rewrite_held();
            return;
        }
        self.dirty = false;
        for open in self.open.values_mut() {
            open.dirty = false;
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
        if !self.dirty || sync_is_switched_off() {
            return Ok(());
        }
        self.lanes.meters.count_sync(match self.open.values().next() {
            Some(open) => open.file.sync_file_system(),
            None => {
                let slot = self.slots.open(SlotIndex(0), Open::Read);
                slot.map_err(std::io::Error::other).and_then(|slot| slot.sync_file_system())
            }
        })
    }

    fn rewrite_held(&mut self) {
        let failed: Vec<StreamKey> =
            self.open.iter().filter(|(_, open)| open.dirty).map(|(key, _)| key.clone()).collect();
        for key in &failed {
            // What was durable in it stays good; nothing more is written to it in this life.
            if let Some(open) = self.open.remove(key) {
                self.pending.push(Pending::Happened(DurableEvent::SlotClosed(open.place)));
            }
        }
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Written(fragment, _) => {
                    let homeless = self.place(fragment);
                    self.homeless.extend(homeless);
                }
                Pending::Happened(event) => self.pending.push(Pending::Happened(event)),
            }
        }
    }
}

/// Only in builds that plant faults for the proof rigs.
fn sync_is_switched_off() -> bool {
    planted::is_planted("EDGEREC_PLANT_NO_SYNC")
}
