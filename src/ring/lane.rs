//! Lanes: the bounded hand-over from streams to the writer thread.
//!
//! A lane is a fixed queue of [`LANE_FRAGMENTS`] - 1 fragments with one producer (the stream) and
//! one consumer (the writer). A full lane refuses the fragment: the stream drops it whole, counts
//! it and enters it in the gap ledger; ingest never waits for flash. At most [`STREAMS_MAX`] lanes
//! are ever made; their queues live as long as the process and are used again and again.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use heapless::spsc::{Consumer, Producer, Queue};

use crate::domain::ids::RecordingId;
use crate::domain::limits::{LANE_FRAGMENTS, STREAMS_MAX};
use crate::domain::splice::Pause;
use crate::domain::time::Instant;
use crate::domain::write_pace::WritePriority;
use crate::ring::fragment::{Fragment, SessionStart};
use crate::ring::meters::RingMeters;

type LaneQueue = Queue<LaneItem, LANE_FRAGMENTS>;
type LaneProducer = Producer<'static, LaneItem>;
type LaneConsumer = Consumer<'static, LaneItem>;

/// What goes over a lane.
#[derive(Debug)]
pub enum LaneItem {
    /// Media.
    Fragment(Box<Fragment>),
    /// Recordings to which nothing belongs that comes after this.
    RecordingsEnded(Box<[RecordingId]>),
}

/// The last thing a stream says on its lane.
#[derive(Debug)]
pub struct SessionEnd {
    /// Which session.
    pub session: Arc<SessionStart>,
    /// When it ended.
    pub ended: Instant,
    /// Why, in words.
    pub cause: String,
    /// Recordings that end with it.
    pub recordings: Vec<RecordingId>,
    /// Recordings that wait for the stream to come back: their HLS files stay open.
    pub paused: Vec<(RecordingId, Pause)>,
    /// Recordings that wait, and whose files all end.
    pub interrupted: Vec<RecordingId>,
}

/// All lanes of the box.
#[derive(Default)]
pub struct Lanes {
    /// What went over the lanes and to flash.
    pub meters: RingMeters,
    table: Mutex<Table>,
    writer: OnceLock<Thread>,
}

#[derive(Default)]
struct Table {
    made: usize,
    free: Vec<(LaneProducer, LaneConsumer)>,
    opened: Vec<WriterLane>,
}

/// What both ends of a lane share.
#[derive(Default)]
struct Ending {
    /// A number of [`WritePriority`].
    priority: AtomicU8,
    ended: AtomicBool,
    end: Mutex<Option<(SessionEnd, LaneProducer)>>,
}

/// The stream's end of a lane.
pub struct StreamLane {
    producer: Option<LaneProducer>,
    ending: Arc<Ending>,
    lanes: Arc<Lanes>,
}

/// The writer's end of a lane.
pub struct WriterLane {
    consumer: LaneConsumer,
    ending: Arc<Ending>,
    /// Taken from the queue, but there was no slot for it yet.
    stalled: Option<LaneItem>,
}

impl Lanes {
    /// Gives a stream a lane; `None` if all are in use.
    #[must_use]
    pub fn open(self: &Arc<Self>) -> Option<StreamLane> {
        let mut table = self.table();
        let (producer, consumer) = match table.free.pop() {
            Some(pair) => pair,
            None if table.made < STREAMS_MAX => {
                table.made += 1;
                // At most STREAMS_MAX times in the life of the process: the fixed table.
                let queue: &'static mut LaneQueue = Box::leak(Box::default());
                queue.split()
            }
            None => return None,
        };
        let ending = Arc::new(Ending::default());
        table.opened.push(WriterLane { consumer, ending: ending.clone(), stalled: None });
        drop(table);
        // So that a slot is ready when the first fragment comes.
        self.wake();
        Some(StreamLane { producer: Some(producer), ending, lanes: self.clone() })
    }

    /// Names the writer thread, to be woken when there is something to write.
    pub fn set_writer(&self, thread: Thread) {
        let _ = self.writer.set(thread);
    }

    /// Wakes the writer thread.
    pub fn wake(&self) {
        if let Some(thread) = self.writer.get() {
            thread.unpark();
        }
    }

    /// Lanes opened since the last call.
    #[must_use]
    pub fn take_opened(&self) -> Vec<WriterLane> {
        std::mem::take(&mut self.table().opened)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamLane {
    /// Hands a fragment to the writer.
    ///
    /// # Errors
    /// Gives the fragment back if the lane is full.
    pub fn push(&mut self, fragment: Box<Fragment>) -> Result<(), Box<Fragment>> {
        match self.enqueue(LaneItem::Fragment(fragment)) {
            Err(LaneItem::Fragment(fragment)) => {
                self.lanes.meters.fragment_dropped();
                Err(fragment)
            }
            _ => Ok(()),
        }
    }

    /// How important what is handed over from now on is. What waits already has it too.
    pub fn set_priority(&self, priority: WritePriority) {
        self.ending.priority.store(priority as u8, Ordering::Relaxed);
    }

    /// Tells that nothing that comes after this belongs to the recordings.
    ///
    /// # Errors
    /// The lane is full: to be said again before anything else.
    pub fn end_recordings(&mut self, recordings: &[RecordingId]) -> Result<(), LaneItem> {
        self.enqueue(LaneItem::RecordingsEnded(recordings.into()))
    }

    fn enqueue(&mut self, item: LaneItem) -> Result<(), LaneItem> {
        let producer = self.producer.as_mut().expect("only `end` takes the producer");
        producer.enqueue(item)?;
        self.lanes.wake();
        Ok(())
    }

    /// Ends the lane. What was pushed before is still written.
    pub fn end(mut self, end: SessionEnd) {
        let producer = self.producer.take().expect("only `end` takes the producer");
        *self.ending.end.lock().unwrap_or_else(PoisonError::into_inner) = Some((end, producer));
        self.ending.ended.store(true, Ordering::Release);
        self.lanes.wake();
    }
}

impl WriterLane {
    /// How important its stream is.
    #[must_use]
    pub fn priority(&self) -> WritePriority {
        WritePriority::from_number(self.ending.priority.load(Ordering::Relaxed))
    }

    /// Passes everything waiting to `take`, until it gives one back because it cannot take it
    /// yet; that one comes first the next time. When the stream has ended and all is taken, puts
    /// the queue back into the table.
    ///
    /// # Errors
    /// Not a failure: the lane is over, and this is its end.
    pub fn drain(
        mut self,
        lanes: &Lanes,
        mut take: impl FnMut(LaneItem) -> Option<LaneItem>,
    ) -> Result<Self, Box<SessionEnd>> {
        // Read before draining: whatever was pushed before the end is then seen.
        let ended = self.ending.ended.load(Ordering::Acquire);
        while let Some(item) = self.stalled.take().or_else(|| self.consumer.dequeue()) {
            self.stalled = take(item);
            if self.stalled.is_some() {
                return Ok(self);
            }
        }
        if !ended {
            return Ok(self);
        }
        let end = self.ending.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (end, producer) = end.expect("set before the flag");
        lanes.table().free.push((producer, self.consumer));
        Err(Box::new(end))
    }
}
