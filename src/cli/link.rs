//! The way to the media: through the running box's socket, else to the ring itself, read-only.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::api::ApiError;
use crate::api::control::{EVENTS_AT_ONCE, socket_path};
use crate::api::export::{Export, PIECE_BYTES};
use crate::api::report::{EventRow, ExplainReport, ExportHeader, FileRow};
use crate::api::request::{ExportOrder, Listed, Refusal, Request};
use crate::cli::landing::Landing;
use crate::cli::outcome::{Failure, printable};
use crate::config::Config;
use crate::domain::ids::FileId;
use crate::domain::notice::NoticeSeq;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::platform::clock::{Clock, SystemClock};
use crate::platform::flash::SystemFlash;
use crate::platform::local_socket;
use crate::ring::catalog::CatalogSettings;
use crate::ring::handle::Ring;
use crate::ring::read_only::ReadOnlyRing;

/// The box may be silent for this long, while it looks through a long clip.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Longest line of an answer, in bytes.
const LINE_BYTES_MAX: u64 = 8 << 20;
/// Rows that are read from the catalog at once.
const ROWS_AT_ONCE: u32 = 2_048;

/// Media and what is known of it, for one question.
pub enum Link {
    /// Of the running box.
    Running(RunningBox),
    /// Of a ring that no box works on.
    Still(Box<ReadOnlyRing>),
}

impl Link {
    /// Reaches the running box, else opens its ring.
    ///
    /// # Errors
    /// Neither can be done.
    pub fn open(config: &Config) -> Result<Link, Failure> {
        match RunningBox::reach(&config.ring.path)? {
            Some(running) => Ok(Link::Running(running)),
            None => Ok(Link::Still(Box::new(open_ring(config)?))),
        }
    }

    /// Gives all files to `take`, the oldest first.
    ///
    /// # Errors
    /// The list cannot be read, or what `take` says.
    pub fn files(
        self,
        take: &mut dyn FnMut(FileRow) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Link::Running(running) => running.files(take),
            Link::Still(still) => files_of(still.ring(), take),
        }
    }

    /// Gives all events from a number on to `take`, in order.
    ///
    /// # Errors
    /// They cannot be read, or what `take` says.
    pub fn events(
        self,
        from: NoticeSeq,
        take: &mut dyn FnMut(EventRow) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Link::Running(running) => running.rows(&Request::Events { from: from.0 }, take),
            Link::Still(still) => events_of(still.ring(), from, take),
        }
    }

    /// Writes what is ordered to `path`, whole or not at all.
    ///
    /// # Errors
    /// There is no such media, or it cannot be read or written.
    pub fn export(self, order: &ExportOrder, path: &Path) -> Result<ExportHeader, Failure> {
        match self {
            Link::Running(running) => running.export(order, path),
            Link::Still(still) => {
                let export = Export::open(still.ring(), order).map_err(said_by)?;
                let header = export.header();
                let mut landing = Landing::begin(path, header.clone())?;
                export.read::<Failure>(|piece| landing.take(&piece))?;
                landing.finish()?;
                Ok(header)
            }
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        said_by(error)
    }
}

fn said_by(error: ApiError) -> Failure {
    Failure::Failed(error.line())
}

/// Opens the ring of the configuration for reading.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn open_ring(config: &Config) -> Result<ReadOnlyRing, Failure> {
    let settings =
        CatalogSettings { on_full: config.ring.on_full, delivers: config.upload.is_some() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Ring::open_read_only(&config.ring.path, settings, Arc::new(SystemFlash), &clock)
        .map_err(|error| Failure::of(&error))
}

fn files_of(
    ring: &Ring,
    take: &mut dyn FnMut(FileRow) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut last = (i64::MIN, FileId(0));
    loop {
        let page = ring.catalog.call_blocking(move |state| state.files_after(last, ROWS_AT_ONCE));
        let page = page.map_err(|error| Failure::of(&error))?;
        let Some(end) = page.last() else { return Ok(()) };
        last = (end.start_ms, end.id);
        page.iter().try_for_each(|record| take(FileRow::new(record, None)))?;
    }
}

fn events_of(
    ring: &Ring,
    mut from: NoticeSeq,
    take: &mut dyn FnMut(EventRow) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let page = ring.catalog.call_blocking(move |state| state.events_from(from, EVENTS_AT_ONCE));
        let page = page.map_err(|error| Failure::of(&error))?;
        let Some(last) = page.last() else { return Ok(()) };
        from = NoticeSeq(last.seq.0 + 1);
        page.iter().try_for_each(|record| take(EventRow::new(record)))?;
    }
}

/// The running box, for one question.
pub struct RunningBox {
    stream: BufReader<UnixStream>,
}

/// One line of a listing.
#[derive(Deserialize)]
#[serde(untagged)]
enum ListLine<T> {
    Row(Box<T>),
    End(Listed),
    Refused(Refusal),
}

/// One line that answers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Given(T),
    Refused(Refusal),
}

impl RunningBox {
    /// Connects to the box that works on the ring at `ring`; `None` if none does.
    ///
    /// # Errors
    /// A box runs and cannot be reached.
    pub fn reach(ring: &Path) -> Result<Option<Self>, Failure> {
        let path = socket_path(ring);
        match local_socket::connect(&path) {
            Ok(stream) => {
                let limited = stream
                    .set_read_timeout(Some(SILENCE_MAX))
                    .and_then(|()| stream.set_write_timeout(Some(SILENCE_MAX)));
                limited.map_err(lost)?;
                Ok(Some(RunningBox { stream: BufReader::with_capacity(PIECE_BYTES, stream) }))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(Failure::failed(format!("{} cannot be used: {error}", path.display()))),
            },
        }
    }

    /// Asks for an explanation.
    ///
    /// # Errors
    /// The box gives none.
    pub fn explain(
        mut self,
        key: &StreamKey,
        at: Option<UnixMillis>,
    ) -> Result<ExplainReport, Failure> {
        self.ask(&Request::Explain { stream: key.to_string(), at: at.map(|at| at.0) })?;
        self.answer()
    }

    fn files(self, take: &mut dyn FnMut(FileRow) -> Result<(), Failure>) -> Result<(), Failure> {
        self.rows(&Request::Ls {}, take)
    }

    fn rows<T: DeserializeOwned>(
        mut self,
        request: &Request,
        take: &mut dyn FnMut(T) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.ask(request)?;
        let mut rows = 0;
        loop {
            match self.line()? {
                ListLine::Row(row) => {
                    rows += 1;
                    take(*row)?;
                }
                ListLine::End(end) if end.listed == rows => return Ok(()),
                ListLine::End(_) => return Err(Failure::failed("the listing is not whole")),
                ListLine::Refused(refusal) => return Err(refused(&refusal)),
            }
        }
    }

    fn export(mut self, order: &ExportOrder, path: &Path) -> Result<ExportHeader, Failure> {
        self.ask(&order.request())?;
        let header: ExportHeader = self.answer()?;
        let mut landing = Landing::begin(path, header.clone())?;
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let len = self.stream.read(&mut piece).map_err(lost)?;
            if len == 0 {
                break;
            }
            landing.take(&piece[..len])?;
        }
        landing.finish()?;
        Ok(header)
    }

    fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request).expect("plain fields");
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(lost)
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        match self.line()? {
            Answer::Given(answer) => Ok(answer),
            Answer::Refused(refusal) => Err(refused(&refusal)),
        }
    }

    fn line<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(lost)?;
        if line.last() != Some(&b'\n') {
            return Err(Failure::failed("the box broke off its answer"));
        }
        serde_json::from_slice(&line)
            .map_err(|_| Failure::failed("the box gave an answer of another version"))
    }
}

/// The box may repeat what others have sent it.
fn refused(refusal: &Refusal) -> Failure {
    Failure::Failed(printable(&refusal.error))
}

fn lost(error: io::Error) -> Failure {
    Failure::failed(format!("the box was lost: {error}"))
}
