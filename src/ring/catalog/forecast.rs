//! Forecasts: how much each stream writes, and how long the ring keeps it.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::domain::eviction::Content;
use crate::domain::flow::Flow;
use crate::domain::retention::Room;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::durable::{DurableEvent, DurableFragment};
use crate::ring::catalog::open::SlotState;

/// What is written a second for each stream, of late; in memory only.
#[derive(Debug, Default)]
pub struct Flows(BTreeMap<StreamKey, StreamFlow>);

#[derive(Debug)]
struct StreamFlow {
    bytes: Flow,
    /// Some of its newest media is of a file.
    of_a_file: bool,
}

/// How a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamForecast {
    /// Bytes that it writes to flash a second, the mean of the last hour.
    pub bytes_per_s: u64,
    /// What is written now is kept for so many seconds; `None` if nothing pushes it out.
    pub keeps_s: Option<u64>,
}

/// How the ring and its streams stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The streams that write.
    pub streams: BTreeMap<StreamKey, StreamForecast>,
    /// For so many seconds nothing that is to be delivered is lost without a link; `None` without a
    /// target, or if nothing is written.
    pub safe_offline_s: Option<u64>,
}

impl Flows {
    /// Counts what became durable.
    pub(super) fn count(&mut self, events: &[DurableEvent]) {
        for event in events {
            if let DurableEvent::Fragment(fragment) = event {
                self.add(fragment);
            }
        }
    }

    fn add(&mut self, fragment: &DurableFragment) {
        let (key, at) = (&fragment.segment.session.key, fragment.seal.last_arrival);
        if !self.0.contains_key(key) {
            let (bytes, of_a_file) = (Flow::new(at), false);
            self.0.insert(key.clone(), StreamFlow { bytes, of_a_file });
        }
        let flow = self.0.get_mut(key).expect("entered above");
        flow.bytes.add(at, fragment.end - fragment.offset);
        flow.of_a_file = !fragment.seal.recordings.is_empty();
    }

    /// Bytes a second of each stream, and what becomes of them where files are `delivered`.
    fn rates(&mut self, now: BootTime, delivered: bool) -> Vec<(StreamKey, Content, u64)> {
        self.0.retain(|_, flow| !flow.bytes.is_dry(now));
        let content = |of_a_file| match of_a_file && delivered {
            true => Content::Delivered,
            false => Content::RingOnly,
        };
        let rate = |(key, flow): (&StreamKey, &mut StreamFlow)| {
            Some((key.clone(), content(flow.of_a_file), flow.bytes.per_second(now)?))
        };
        self.0.iter_mut().filter_map(rate).collect()
    }
}

impl CatalogState {
    /// How long the ring keeps what is written now.
    ///
    /// # Errors
    /// The database fails.
    pub fn forecast(&mut self) -> Result<Forecast, RingError> {
        let delivers = self.settings.delivers;
        let rates = self.flows.rates(self.clock.now().boot, delivers);
        let room = self.room().map_err(RingError::catalog("forecasting"))?;
        let flows: Vec<(Content, u64)> =
            rates.iter().map(|(_, content, rate)| (*content, *rate)).collect();
        let streams = rates.into_iter().map(|(key, content, bytes_per_s)| {
            let keeps_s = room.keeps_s(content, &flows);
            (key, StreamForecast { bytes_per_s, keeps_s })
        });
        Ok(Forecast {
            streams: streams.collect(),
            safe_offline_s: room.safe_offline_s(&flows).filter(|_| delivers),
        })
    }

    fn room(&mut self) -> rusqlite::Result<Room> {
        let spare: u32 = self.db.query_row(
            "SELECT count(*) FROM slot WHERE state = ?2 OR state = ?1 AND slot < ?3",
            params![
                SlotState::Spare as u8,
                SlotState::Reserved as u8,
                self.identity.kept_blank_from().0
            ],
            |row| row.get(0),
        )?;
        let slot_bytes = self.identity.slot_bytes;
        let held = self.slot_views()?.into_iter().map(|view| (view.content, slot_bytes));
        Ok(Room { spare_bytes: u64::from(spare) * slot_bytes, held: held.collect() })
    }
}
