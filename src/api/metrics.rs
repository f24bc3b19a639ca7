//! `/metrics`: the box in figures, in the text format of Prometheus. No stream has a name here,
//! so that nobody learns what is recorded from it.
//!
//! # Specification
//! Prometheus exposition formats, text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tracing::error;

use crate::domain::time::Instant;
use crate::domain::wear::WearFigures;
use crate::platform::clock::Clock;
use crate::platform::sandbox::{self, Reach};
use crate::ring::catalog::figures::CatalogFigures;
use crate::ring::catalog::forecast::Forecast;
use crate::ring::catalog::open::FileState;
use crate::ring::handle::Ring;
use crate::ring::meters::RingReading;

/// The words of a decision, of which each has its line, also with nothing to count.
const DECISIONS: [&str; 3] = ["record", "norecord", "unmatched"];
/// The states of slots by their numbers.
const SLOT_STATES: [&str; 6] = ["spare", "reserved", "open", "closed", "failed", "unread"];

/// What is delivered and what is live: known outside of the ring.
pub trait BoxFigures: Send + Sync {
    /// Live sessions by the word of their decision.
    fn live(&self) -> BTreeMap<&'static str, u64>;
    /// What was delivered since the start.
    fn delivered(&self) -> DeliveryFigures;
    /// How worn the disk of the ring is; `None` where that is not known.
    fn wear(&self) -> Option<WearFigures>;
    /// Temperatures of the board in degrees Celsius, by thermal zone.
    fn temperatures(&self) -> Vec<(String, f64)>;
}

/// What was delivered since the program started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryFigures {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Files on their way now.
    pub moving: u64,
    /// Their bytes a second of late.
    pub bytes_per_s: u64,
}

/// Gathers the figures when they are asked for.
pub struct MetricsDesk {
    ring: Arc<Ring>,
    clock: Arc<dyn Clock>,
    started: Instant,
    figures: Arc<dyn BoxFigures>,
}

impl MetricsDesk {
    /// Figures of a box that starts now.
    #[must_use]
    pub fn new(ring: Arc<Ring>, clock: Arc<dyn Clock>, figures: Arc<dyn BoxFigures>) -> Arc<Self> {
        let started = clock.now();
        Arc::new(MetricsDesk { ring, clock, started, figures })
    }

    /// The route `/metrics`.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new().route("/metrics", get(metrics)).with_state(self)
    }

    /// When the box started, in Unix seconds, by what the clock says now: it may have been set
    /// since.
    fn start_time_s(&self) -> f64 {
        let now = self.clock.now();
        let up_ms = i64::try_from(now.boot.since(self.started.boot).as_millis()).unwrap_or(0);
        (now.wall.unix.0.saturating_sub(up_ms)) as f64 / 1_000.0
    }
}

async fn metrics(State(desk): State<Arc<MetricsDesk>>) -> Response {
    let (catalog, forecast) =
        match desk.ring.catalog.call(|state| Ok((state.figures()?, state.forecast()?))).await {
            Ok(figures) => figures,
            Err(problem) => {
                error!(%problem, "no figures");
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        };
    let mut page = Page::default();
    page.process(desk.start_time_s(), &desk.figures.live());
    page.ring(&desk.ring.lanes.meters.read());
    page.catalog(&catalog);
    page.forecast(&forecast);
    page.wear(desk.figures.wear());
    page.delivery(&catalog, desk.figures.delivered());
    page.board(&desk.figures.temperatures());
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, page.0).into_response()
}

/// The page as it is written.
#[derive(Default)]
struct Page(String);

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        })
    }
}

impl Page {
    fn process(&mut self, start_time_s: f64, live: &BTreeMap<&'static str, u64>) {
        let version = [("version", env!("CARGO_PKG_VERSION"), 1_u8)];
        self.labelled("edgerec_build_info", Kind::Gauge, "The program, always 1.", version);
        let help = "When the program started, in Unix time.";
        self.one("edgerec_start_time_seconds", Kind::Gauge, help, start_time_s);
        let (paths, calls) = sandbox::reached()
            .map_or((Reach::None, Reach::None), |level| (level.paths, level.calls));
        let help = "How far the sandbox is in force: 0 not, 1 as far as this kernel can, 2 whole.";
        let reach = [("part", "paths", paths as u8), ("part", "calls", calls as u8)];
        self.labelled("edgerec_sandbox_reach", Kind::Gauge, help, reach);
        let help = "Sessions that are live, by what was decided about them.";
        let live = DECISIONS
            .map(|decision| ("decision", decision, live.get(decision).copied().unwrap_or(0)));
        self.labelled("edgerec_live_sessions", Kind::Gauge, help, live);
    }

    fn board(&mut self, temperatures: &[(String, f64)]) {
        if !temperatures.is_empty() {
            let zones =
                temperatures.iter().map(|(zone, celsius)| ("zone", zone.as_str(), *celsius));
            let help = "Temperatures of the board, by thermal zone.";
            self.labelled("edgerec_temperature_celsius", Kind::Gauge, help, zones);
        }
    }

    fn ring(&mut self, ring: &RingReading) {
        let help = "Fragments written to slots.";
        self.count("edgerec_fragments_written_total", help, ring.fragments_written);
        let help = "Bytes of the fragments written to slots.";
        self.count("edgerec_media_written_bytes_total", help, ring.media_bytes_written);
        let help = "Fragments that flash was too slow for or had no slot for.";
        self.count("edgerec_fragments_dropped_total", help, ring.fragments_dropped);
        let help = "Group syncs that made something durable.";
        self.count("edgerec_syncs_total", help, ring.syncs);
        self.count("edgerec_sync_failures_total", "Group syncs that failed.", ring.sync_failures);
        let help = "Time since the last good group sync; grows while nothing is recorded.";
        self.one("edgerec_sync_age_seconds", Kind::Gauge, help, ring.sync_age.as_secs_f64());
    }

    fn catalog(&mut self, catalog: &CatalogFigures) {
        let slots = SLOT_STATES.into_iter().zip(catalog.slots);
        let slots = slots.map(|(state, count)| ("state", state, count));
        self.labelled("edgerec_slots", Kind::Gauge, "Slots of the ring, by state.", slots);
        let files = (0..).zip(catalog.files);
        let files =
            files.map(|(number, count)| ("state", FileState::from_number(number).name(), count));
        self.labelled("edgerec_files", Kind::Gauge, "Files that are listed, by state.", files);
        let help = "Gaps ever entered into the ledger of this ring.";
        self.count("edgerec_gaps_total", help, catalog.gaps);
        let help = "Files ever overwritten before they were delivered, by the ledger of this ring.";
        self.count("edgerec_losses_total", help, catalog.losses);
        let help = "Size of the catalog without its log.";
        self.one("edgerec_catalog_bytes", Kind::Gauge, help, catalog.database_bytes);
    }

    fn forecast(&mut self, forecast: &Forecast) {
        let rates = forecast.streams.values().map(|stream| stream.bytes_per_s);
        let help = "Bytes a second written to slots, the mean of the last hour.";
        self.one("edgerec_written_bytes_per_second", Kind::Gauge, help, rates.sum::<u64>());
        if let Some(keeps_s) = forecast.streams.values().filter_map(|stream| stream.keeps_s).min() {
            let help =
                "Time for which the ring keeps what is written now, of the stream kept shortest.";
            self.one("edgerec_ring_keeps_seconds", Kind::Gauge, help, keeps_s);
        }
        if let Some(safe_s) = forecast.safe_offline_s {
            let help = "Time for which nothing is lost if nothing is delivered any more.";
            self.one("edgerec_ring_safe_offline_seconds", Kind::Gauge, help, safe_s);
        }
    }

    fn wear(&mut self, wear: Option<WearFigures>) {
        let Some(wear) = wear else { return };
        let help = "Bytes written to the disk of the ring since it is counted, by the kernel.";
        self.count("edgerec_flash_written_bytes_total", help, wear.total.bytes);
        let help = "Flushes of the disk of the ring since it is counted, by the kernel.";
        self.count("edgerec_flash_flushes_total", help, wear.total.flushes);
        let help = "Whether the card is worn out before the time that is wanted of it.";
        self.one("edgerec_flash_wear_warning", Kind::Gauge, help, u8::from(wear.warning));
        if let Some(health) = wear.health {
            let help = "Of the card's life, as it says itself.";
            self.one("edgerec_flash_used_percent", Kind::Gauge, help, health.used_percent);
        }
        let by = [("by", "rate", wear.days_left), ("by", "rules", wear.days_left_by_rules)];
        let known: Vec<_> =
            by.into_iter().filter_map(|(by, of, days)| Some((by, of, days?))).collect();
        if !known.is_empty() {
            let help =
                "Days until the card is worn out: at the rate of late, and by the rules in force.";
            self.labelled("edgerec_flash_days_left", Kind::Gauge, help, known);
        }
    }

    fn delivery(&mut self, catalog: &CatalogFigures, delivered: DeliveryFigures) {
        let help = "Finished files that wait to be delivered or are on their way.";
        self.one("edgerec_upload_queue_files", Kind::Gauge, help, catalog.queued());
        let help = "Media of the files that wait to be delivered, as it is on flash.";
        self.one("edgerec_upload_queue_bytes", Kind::Gauge, help, catalog.queued_bytes);
        let help = "Files that the target has confirmed.";
        self.count("edgerec_delivered_files_total", help, delivered.files);
        let help = "Bytes of the files that the target has confirmed.";
        self.count("edgerec_delivered_bytes_total", help, delivered.bytes);
        let help = "Attempts to deliver a file that failed.";
        self.count("edgerec_delivery_failures_total", help, delivered.failures);
        let help = "Files that are on their way to the target.";
        self.one("edgerec_uploading_files", Kind::Gauge, help, delivered.moving);
        let help = "Bytes a second that went out of late.";
        self.one("edgerec_upload_bytes_per_second", Kind::Gauge, help, delivered.bytes_per_s);
    }

    fn count(&mut self, name: &str, help: &str, value: u64) {
        self.one(name, Kind::Counter, help, value);
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.begin(name, kind, help);
        self.line(format_args!("{name} {value}"));
    }

    /// Label values are words of ours or of the board's file: nothing in them has to be escaped.
    fn labelled<'a, V: Display>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (&'static str, &'a str, V)>,
    ) {
        self.begin(name, kind, help);
        for (label, word, value) in samples {
            self.line(format_args!("{name}{{{label}=\"{word}\"}} {value}"));
        }
    }

    fn begin(&mut self, name: &str, kind: Kind, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to memory does not fail");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_page_is_as_prometheus_reads_it() {
        let mut page = Page::default();
        page.process(1.5, &BTreeMap::from([("record", 2)]));
        page.ring(&RingReading {
            fragments_written: 3,
            media_bytes_written: 400,
            fragments_dropped: 0,
            syncs: 5,
            sync_failures: 0,
            sync_age: Duration::from_millis(250),
        });
        let mut catalog = CatalogFigures { slots: [1, 2, 3, 4, 5, 6], ..CatalogFigures::default() };
        catalog.files[FileState::Queued as usize] = 6;
        page.catalog(&catalog);
        page.delivery(
            &catalog,
            DeliveryFigures { files: 1, bytes: 20, failures: 0, moving: 2, bytes_per_s: 30 },
        );
        let text = page.0;
        for line in [
            "# TYPE edgerec_live_sessions gauge",
            "edgerec_live_sessions{decision=\"record\"} 2",
            "edgerec_live_sessions{decision=\"norecord\"} 0",
            "edgerec_start_time_seconds 1.5",
            "# TYPE edgerec_media_written_bytes_total counter",
            "edgerec_media_written_bytes_total 400",
            "edgerec_sync_age_seconds 0.25",
            "edgerec_slots{state=\"closed\"} 4",
            "edgerec_files{state=\"queued\"} 6",
            "edgerec_files{state=\"evicted\"} 0",
            "edgerec_upload_queue_files 6",
            "edgerec_delivered_bytes_total 20",
            "edgerec_uploading_files 2",
            "edgerec_upload_bytes_per_second 30",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(words[2].ends_with("_total"), words[3] == "counter", "{line}");
        }
    }
}
