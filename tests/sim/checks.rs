//! What must hold: at each restart, each day, and after each eviction. The reference is what the
//! cameras sent and what the VOD platform has; the catalog is read by a connection of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edgerec::domain::eviction::OnFull;
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::{FileId, RecordingId};
use edgerec::media::clip::ClipSource;
use edgerec::media::fmp4::parse_moof;
use edgerec::platform::flash::Flash;
use edgerec::ring::catalog::database_path;
use edgerec::ring::catalog::open::FileState;
use edgerec::ring::fsck;
use rusqlite::{Connection, OpenFlags};

use crate::camera::{PAYLOAD_BYTES, Sent, named, payload};
use crate::life::{CAPACITY_BYTES, SLOTS};
use crate::tasks::YARD_INDEX;
use crate::world::World;

/// Fragment, tick and sync of the design, and four steps of the simulation.
pub const LOSS_BOUND_MS: u64 = 2_500 + 1_000;
/// How far back a restart is looked at.
const LOOK_BACK_MS: u64 = 60_000;
/// What a gap may miss at its ends: a fragment.
const GAP_SLACK_MS: i64 = 1_500;

/// A gap of the ledger: from, until, cause.
pub type Gap = (i64, Option<i64>, String);

impl World {
    fn catalog(&self) -> Connection {
        let path = database_path(self.dir.path());
        let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        opened.unwrap_or_else(|error| self.fail(&format!("state.db: {error}")))
    }

    fn number(&self, text: &str) -> u64 {
        let found = self.catalog().query_row(text, [], |row| row.get::<_, i64>(0));
        found.map(i64::cast_unsigned).unwrap_or_else(|error| self.fail(&format!("{text}: {error}")))
    }

    /// The box is up again: what was safe is there, and what is missing stands in the ledger.
    pub fn check_restart(&mut self, since_ms: u64, down_ms: u64, kill: bool) {
        let since_ms = since_ms.max(down_ms.saturating_sub(LOOK_BACK_MS));
        self.check_fsck();
        self.check_revision();
        self.check_times();
        let troubled = self.is_troubled();
        let excused = troubled || self.on_full == OnFull::KeepUndelivered;
        self.check_tasks(since_ms, down_ms, excused);
        for index in 0..self.cameras.len() {
            let present = self.pictures_of(index);
            let camera = &self.cameras[index];
            let safe = |sent: &&Sent| {
                sent.due && sent.at_ms + LOSS_BOUND_MS < down_ms && sent.at_ms > since_ms
            };
            let missing: Vec<&Sent> = camera
                .sent
                .iter()
                .rev()
                .take_while(|sent| sent.at_ms > since_ms)
                .filter(safe)
                .filter(|sent| !present.contains(&sent.number))
                .collect();
            if let Some(first) = missing.first().filter(|_| !excused) {
                let slots = self.slots_in_words();
                let (key, count) = (&camera.key, missing.len());
                self.fail(&format!("{key} lost {count} pictures: {first:?}: {slots}"));
            }
            if !self.wall_was_set {
                let gaps = self.gaps_of(index);
                // Of a session that began on failing flash nothing may be durable when the power goes.
                let began_ms = self.cameras[index].began_ms;
                let unheard = self.failed_since_ms.is_some_and(|since| began_ms >= since);
                let told = |sent: &&&Sent| !(unheard && sent.at_ms >= began_ms);
                let mut told = missing.iter().filter(told);
                if let Some(sent) = told.find(|sent| !is_in_ledger(&gaps, sent)) {
                    self.fail(&format!("{}: {sent:?} is in no gap of {gaps:?}", camera.key));
                }
            }
            let line = format!("{} {:?}", present.len(), present.last());
            self.trace.count("pictures lost to flash troubles", missing.len() as u64);
            self.trace.event(down_ms, "found", &format!("{kill} {line}"));
        }
    }

    /// Each task has what was live in its window and was safe.
    fn check_tasks(&self, since_ms: u64, down_ms: u64, excused: bool) {
        let sent = self.cameras[YARD_INDEX].sent.iter();
        let safe = |sent: &&Sent| sent.at_ms > since_ms && sent.at_ms + LOSS_BOUND_MS < down_ms;
        let safe: Vec<Sent> = sent.filter(safe).copied().collect();
        let missing = self.missing_of_tasks(&safe);
        if let Some(first) = missing.first().filter(|_| !excused) {
            self.fail(&format!("tasks lack {} pictures: {first:?}", missing.len()));
        }
    }

    /// Whether the flash has failed or been slow in this life.
    pub fn is_troubled(&self) -> bool {
        self.flash_troubles.load(Ordering::Relaxed) > 0
    }

    pub fn check_day(&mut self) {
        // What is live has media on its way, which says nothing yet.
        self.do_jobs(usize::MAX);
        self.check_fsck();
        for index in 0..self.cameras.len() {
            self.pictures_of(index);
        }
        let bytes = self.flash.used_bytes() + self.database.bytes();
        if bytes > CAPACITY_BYTES {
            self.fail(&format!("{bytes} bytes, the budget is {CAPACITY_BYTES}"));
        }
        self.check_deliveries();
        self.check_times();
    }

    /// Whatever the clock did, nothing ends before it begins or lasts longer than its media by more than
    /// its stream was away, and what can be dated is.
    fn check_times(&self) {
        for (what, text) in [
            (
                "a file",
                "file WHERE end_ms < start_ms OR format = 2
                AND end_ms - start_ms > duration_ms + 3600000",
            ),
            ("a segment", "segment WHERE last_ms < first_ms OR last_ms > first_ms + 86400000"),
            ("a session", "session WHERE ended_ms < began_ms OR ended_ms > began_ms + 864000000"),
            ("a push", "push WHERE ended_ms < began_ms OR ended_ms > began_ms + 864000000"),
            ("a gap", "gap WHERE until_ms < from_ms"),
            (
                "a session of a boot that is known",
                "session JOIN boot USING (boot_id) WHERE trusted = 0",
            ),
            (
                "a file of a boot that is known",
                "file JOIN session ON session.id = file.session
                JOIN boot USING (boot_id) WHERE file.trusted = 0",
            ),
        ] {
            let wrong = self.number(&format!("SELECT count(*) FROM {text}"));
            if wrong > 0 {
                self.fail(&format!("{what} has the wrong times, {wrong} of them"));
            }
        }
    }

    /// Catalog, loss ledger and VOD platform agree.
    fn check_deliveries(&self) {
        let unledgered = "SELECT count(*) FROM file WHERE state = 6
            AND why NOT LIKE '%window was elsewhere' AND (SELECT count(*) FROM loss WHERE loss.file = file.id) <> 1";
        if self.number(unledgered) > 0 {
            let slots = self.slots_in_words();
            self.fail(&format!(
                "a file left undelivered without one entry in the ledger of losses: {slots}"
            ));
        }
        let delivered = "SELECT count(*) FROM file WHERE state = 4
            AND EXISTS (SELECT 1 FROM loss WHERE loss.file = file.id)";
        if self.number(delivered) > 0 {
            self.fail("a file that was delivered is in the ledger of losses");
        }
        let db = self.catalog();
        let mut query =
            db.prepare("SELECT id, sha256 FROM file WHERE state = 4").expect("a good query");
        let rows = query.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
        let rows: Vec<(i64, String)> =
            rows.and_then(Iterator::collect).expect("state.db is readable");
        let vod = self.vod.state().files.clone();
        for (id, sha256) in rows {
            let stored = vod.get(&id.cast_unsigned());
            if stored.is_none_or(|stored| stored.sha256 != sha256) {
                self.fail(&format!("file {id} counts as delivered, and VOD has {stored:?}"));
            }
        }
    }

    pub fn check_all_delivered(&self) {
        let left = self.number("SELECT count(*) FROM file WHERE state IN (0, 1, 2, 3)");
        if left > 0 {
            self.fail(&format!("{left} files were never delivered"));
        }
    }

    /// What was lost undelivered was allowed to go, and nothing better could.
    pub fn check_evictions(&mut self) {
        let promises = self.life().jobs.promises();
        if promises == self.losses_checked_at {
            return;
        }
        self.losses_checked_at = promises;
        let losses = self.number("SELECT count(*) FROM loss WHERE reason LIKE 'overwritten%'");
        let more = losses.saturating_sub(self.losses_seen);
        self.losses_seen = losses;
        if more == 0 {
            return;
        }
        self.trace.event(self.now_ms(), "lost undelivered", &more.to_string());
        if self.on_full == OnFull::KeepUndelivered {
            self.fail("undelivered media was overwritten, against the policy");
        }
        // What is left of a file that has just lost its head is not meant.
        let better = self.number(
            "SELECT count(*) FROM slot WHERE state = 3 AND NOT EXISTS (SELECT 1 FROM span
             JOIN file ON file.id = span.file WHERE span.slot = slot.slot
             AND file.state IN (0, 1, 2, 3, 5, 6))",
        );
        if better > 0 {
            let slots = self.slots_in_words();
            self.fail(&format!(
                "undelivered media was overwritten, {better} slots could have gone: {slots}"
            ));
        }
    }

    /// How many lives slots have begun.
    pub fn slots_begun(&self) -> u64 {
        self.number("SELECT sum(generation) FROM slot")
    }

    /// How often slots began another life.
    pub fn slots_reused(&self) -> u64 {
        // A slot gets its age when it is closed.
        self.number("SELECT max(age) FROM slot").saturating_sub(u64::from(SLOTS))
    }

    /// Slots that are never written again.
    pub fn slots_given_up(&self) -> u64 {
        self.number("SELECT count(*) FROM slot WHERE state = 4")
    }

    /// The newest rules that arrived are in force.
    pub fn check_revision(&self) {
        let applied = self.applied();
        if applied.unwrap_or(0) != self.broker.arrived {
            let arrived = self.broker.arrived;
            self.fail(&format!("rules {applied:?} are in force, {arrived} arrived"));
        }
    }

    fn is_lost(&self, file: FileId) -> bool {
        self.number(&format!("SELECT count(*) FROM loss WHERE file = {file}")) > 0
    }

    /// What the catalog says of slots and files, for whoever has to find out.
    fn slots_in_words(&self) -> String {
        let db = self.catalog();
        let text = "SELECT 'slot ' || slot || ' state ' || state || ' age ' || age || ': ' ||
             coalesce((SELECT group_concat(file.id || ' is ' || file.state) FROM span
             JOIN file ON file.id = span.file WHERE span.slot = slot.slot), '') FROM slot
             UNION ALL SELECT 'file ' || id || ' format ' || format || ' state ' || state || ' ' || why || ' spans ' ||
             (SELECT count(*) FROM span WHERE span.file = file.id) || ' losses ' ||
             (SELECT count(*) FROM loss WHERE loss.file = file.id) FROM file WHERE state <> 4";
        let mut query = db.prepare(text).expect("a good query");
        let rows = query.query_map([], |row| row.get::<_, String>(0));
        let rows: Vec<String> = rows.and_then(Iterator::collect).expect("state.db is readable");
        rows.iter().map(|row| format!("\n  {row}")).collect()
    }

    fn check_fsck(&self) {
        let flash: Arc<dyn Flash> = Arc::new(self.flash.clone());
        match fsck::check(&flash, self.dir.path(), Duration::from_secs(1)) {
            Ok(report) if report.damages.is_empty() => {}
            other => self.fail(&format!("fsck: {other:?}: {}", self.slots_in_words())),
        }
    }

    /// The numbers of the pictures of a camera that the MP4 files in the ring have.
    pub fn pictures_of(&self, index: usize) -> BTreeSet<u64> {
        self.numbers_of(index).into_keys().map(|(_, number)| number).collect()
    }

    /// The pictures of a camera that the MP4 files in the ring have, with their file: each as it was
    /// sent, in no two files of a recording, and only if it was to be in it. Rules have one
    /// recording at a time, so what they record counts as one.
    pub fn numbers_of(&self, index: usize) -> BTreeMap<(RecordingId, u64), u64> {
        let camera = &self.cameras[index];
        let ring = &self.life().ring;
        let files = ring.catalog.call_blocking(|state| state.files());
        let files = files.unwrap_or_else(|error| self.fail(&format!("no files: {error:?}")));
        let mut found: BTreeMap<(RecordingId, u64), u64> = BTreeMap::new();
        let ours = files.iter().filter(|file| {
            file.key == camera.key
                && file.format == FileFormat::Mp4
                && file.state != FileState::Evicted
        });
        for file in ours {
            let clip = match ring.open_file_clip(file.id) {
                Ok(clip) => clip,
                // Delivered, and overwritten since; or lost, which the ledger says.
                Err(_) if file.state == FileState::Delivered || self.is_lost(file.id) => continue,
                Err(error) => self.fail(&format!("{file:?} does not open: {error:?}")),
            };
            let of_task = index == YARD_INDEX;
            let recording = if of_task { file.recording } else { RecordingId(0) };
            for number in self.pictures_in_clip(camera.index, &clip) {
                if of_task {
                    self.check_task_picture(recording, number);
                }
                if let Some(other) = found.insert((recording, number), file.id.0) {
                    let other = files.iter().find(|file| file.id.0 == other);
                    let sent = camera.sent.iter().find(|sent| sent.number == number);
                    self.fail(&format!("{sent:?} is in {other:?} and in {file:?}"));
                }
            }
        }
        found
    }

    fn pictures_in_clip(&self, camera: u8, clip: &dyn ClipSource) -> Vec<u64> {
        let mut numbers: Vec<u64> = Vec::new();
        for fragment in 0..clip.fragment_count() {
            let moof = clip.moof(fragment).map_err(|error| error.to_string());
            let moof = moof.and_then(|moof| parse_moof(&moof).map_err(|error| error.to_string()));
            let moof = moof.unwrap_or_else(|error| self.fail(&format!("no moof: {error}")));
            let mut offset = 0;
            for sample in moof.runs.iter().flat_map(|run| &run.samples) {
                let mut bytes = vec![0; PAYLOAD_BYTES];
                if let Err(error) = clip.read_payload(fragment, offset, &mut bytes) {
                    self.fail(&format!("a picture cannot be read: {error}"));
                }
                match named(&bytes) {
                    Some((of, number)) if bytes == payload(of, number) && of == camera => {
                        if numbers.last().is_some_and(|last| *last >= number) {
                            self.fail(&format!("picture {number} stands behind {numbers:?}"));
                        }
                        numbers.push(number);
                    }
                    other => self.fail(&format!("{other:?} is not what camera {camera} sent")),
                }
                offset += sample.size;
            }
        }
        numbers
    }

    pub fn gaps_of(&self, index: usize) -> Vec<Gap> {
        let db = self.catalog();
        let mut query = db
            .prepare(
                "SELECT from_ms, until_ms, cause FROM gap JOIN stream ON stream.id = gap.stream
                 WHERE stream.stream = ?1",
            )
            .expect("a good query");
        let name = self.cameras[index].key.stream();
        let rows = query.query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        rows.and_then(Iterator::collect).expect("state.db is readable")
    }
}

pub fn is_in_ledger(gaps: &[Gap], sent: &Sent) -> bool {
    gaps.iter().any(|(from, until, _)| {
        sent.wall_ms >= from - GAP_SLACK_MS
            && until.is_none_or(|until| sent.wall_ms <= until + GAP_SLACK_MS)
    })
}
