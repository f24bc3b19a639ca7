//! The target `directory`: a folder, for instance of a USB disk.
//!
//! Order of steps for each object: missing folders are made one by one, each durable in its
//! parent; the bytes go to a temporary name beside the final one; they are made durable; they are
//! read back and compared; the file gets its name; the name is made durable. The playlist of an
//! HLS file comes last, so a playlist never names what is not there. The root is never made: if it
//! is missing, its disk is not there, and the file waits.
//!
//! One attempt at a time writes a file. A thread cannot be cut off in a call that a slow disk holds
//! up: the next attempt waits until it is through, as both use one temporary name.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Mutex as AsyncMutex;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::delivery::checksum::RunningSha256;
use crate::delivery::error::DeliveryError;
use crate::delivery::progress::Progress;
use crate::delivery::shelf::Receipt;
use crate::delivery::target::{DeliveryFuture, Job, Meter, Target};
use crate::delivery::valve::Valve;
use crate::domain::ids::FileId;
use crate::media::render::Rendering;
use crate::platform::flash::{Flash, Open};

/// Bytes that are rendered, written and compared at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A folder.
pub struct DirectoryTarget {
    name: String,
    root: PathBuf,
    flash: Arc<dyn Flash>,
    /// Held by the attempts at these files, and by what their threads still do.
    turns: Mutex<HashMap<FileId, Weak<AsyncMutex<()>>>>,
}

impl DirectoryTarget {
    /// A target in the folder `root`. Nothing is touched yet.
    #[must_use]
    pub fn new(root: PathBuf, flash: Arc<dyn Flash>) -> Self {
        let (name, turns) = (format!("directory {}", root.display()), Mutex::default());
        DirectoryTarget { name, root, flash, turns }
    }

    /// What an attempt at a file holds as long as it may write.
    fn turn(&self, file: FileId) -> Arc<AsyncMutex<()>> {
        // No holder leaves the table half changed.
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        turns.get(&file).and_then(Weak::upgrade).unwrap_or_else(|| {
            let turn = Arc::new(AsyncMutex::new(()));
            turns.insert(file, Arc::downgrade(&turn));
            turn
        })
    }

    async fn deliver_file(&self, job: &Job) -> Result<Receipt, DeliveryError> {
        let mut turn = self.turn(job.plan.file_id).lock_owned().await;
        let mut progress = job.load_progress(&self.name).await?;
        let objects = job.rendering.objects();
        if !self.holds_first(job, progress.objects_done).await? {
            progress = Progress::begin(&progress.place);
        }
        if job.plan.maybe_there && progress.is_fresh() {
            self.find_objects(job, &mut progress).await?;
        }
        // Dropping this future tells the thread that writes to stop.
        let given_up = CancellationToken::new();
        let _guard = given_up.clone().drop_guard();
        for (index, object) in objects.iter().enumerate().skip(progress.objects_done) {
            job.meter.check()?;
            job.meter.set(job.bytes_of_first(index));
            let copy = Copy {
                flash: Arc::clone(&self.flash),
                root: self.root.clone(),
                relative: job.plan.object_path.object(&object.name)?,
                rendering: Arc::clone(&job.rendering),
                index,
                len: object.len,
                meter: Arc::clone(&job.meter),
                valve: Arc::clone(&job.valve),
                given_up: given_up.clone(),
            };
            let file_sum = progress.file_sum();
            let copied;
            (copied, turn) = on_thread(move || Ok((copy.run(file_sum), turn))).await?;
            let file_sum = copied?;
            progress.objects_done = index + 1;
            progress.file_sha256 = file_sum.save();
            if progress.objects_done < objects.len() {
                job.save_progress(&progress).await?;
            }
        }
        let last_name = objects.last().map_or("", |object| object.name.as_str());
        let path = self.root.join(job.plan.object_path.object(last_name)?);
        Ok(Receipt {
            url: Url::from_file_path(&path)
                .map_or_else(|()| path.display().to_string(), |url| url.to_string()),
            size: job.rendering.total_len(),
            sha256: progress.file_sum().hex(),
            target_file_id: None,
        })
    }

    /// Looks for objects that are there already, the first ones first, and counts them as done if
    /// they are, byte for byte, what would be written.
    async fn find_objects(&self, job: &Job, progress: &mut Progress) -> Result<(), DeliveryError> {
        while let Some(object) = job.rendering.objects().get(progress.objects_done) {
            let path = self.root.join(job.plan.object_path.object(&object.name)?);
            let (flash, len) = (Arc::clone(&self.flash), object.len);
            let stored = on_thread(move || Ok(stored_sum(&*flash, &path, len))).await?;
            let Some(stored) = stored else { break };
            let index = progress.objects_done;
            let (sums, _) = job.checksums(index, progress.file_sum(), u64::MAX).await?;
            if stored != sums.object.hex() {
                break;
            }
            tracing::info!(object = object.name, "was there already");
            progress.objects_done += 1;
            progress.file_sha256 = sums.file.save();
        }
        Ok(())
    }

    /// Whether the first `count` objects are still there: the disk may be another one by now.
    async fn holds_first(&self, job: &Job, count: usize) -> Result<bool, DeliveryError> {
        let mut expected = Vec::new();
        for object in job.rendering.objects().iter().take(count) {
            let path = self.root.join(job.plan.object_path.object(&object.name)?);
            expected.push((path, object.len));
        }
        let flash = Arc::clone(&self.flash);
        on_thread(move || {
            Ok(expected.iter().all(|(path, len)| {
                flash.open(path, Open::Read).and_then(|file| file.len()).is_ok_and(|n| n == *len)
            }))
        })
        .await
    }
}

impl Target for DirectoryTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        Box::pin(self.deliver_file(job))
    }
}

/// SHA-256 of the file at `path` as it is on the medium; `None` if it is not of this length or
/// cannot be read.
fn stored_sum(flash: &dyn Flash, path: &Path, len: u64) -> Option<String> {
    let file = flash.open(path, Open::Read).ok()?;
    if file.len().ok()? != len {
        return None;
    }
    file.forget_cached();
    let mut sum = RunningSha256::default();
    let mut buf = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    while offset < len {
        let left = usize::try_from(len - offset).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        file.read_exact_at(&mut buf[..left], offset).ok()?;
        sum.update(&buf[..left]);
        offset += left as u64;
    }
    Some(sum.hex())
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DeliveryError> + Send + 'static,
) -> Result<T, DeliveryError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(DeliveryError::Cancelled))
}

/// One object on its way into the folder.
struct Copy {
    flash: Arc<dyn Flash>,
    root: PathBuf,
    /// Path below the root; its parts are safe by the type it comes from.
    relative: String,
    rendering: Arc<dyn Rendering>,
    index: usize,
    len: u64,
    meter: Arc<Meter>,
    valve: Arc<Valve>,
    given_up: CancellationToken,
}

impl Copy {
    /// Stores the object; gives back `file_sum` with its bytes taken in.
    fn run(&self, file_sum: RunningSha256) -> Result<RunningSha256, DeliveryError> {
        let (folders, name) = self.relative.rsplit_once('/').unwrap_or(("", &self.relative));
        self.check_root()?;
        let folder = self.make_folders(folders)?;
        let temporary = folder.join(format!(".{name}.part"));
        let last = folder.join(name);
        let result = self.write_and_compare(&temporary, file_sum).and_then(|sum| {
            self.check_given_up()?;
            self.flash.rename(&temporary, &last).map_err(failed("naming", &last))?;
            self.flash.sync_dir(&folder).map_err(failed("making durable", &folder))?;
            Ok(sum)
        });
        if result.is_err() {
            // A leftover does no harm: the next attempt begins by removing it.
            let _ = self.flash.remove_file(&temporary);
        }
        result
    }

    fn check_root(&self) -> Result<(), DeliveryError> {
        if !self.flash.exists(&self.root) {
            return Err(failed("finding", &self.root)(io::ErrorKind::NotFound.into()));
        }
        let space = self.flash.space(&self.root).map_err(failed("measuring", &self.root))?;
        if space.free_bytes < self.len {
            return Err(DeliveryError::NoRoom {
                needed_bytes: self.len,
                free_bytes: space.free_bytes,
            });
        }
        Ok(())
    }

    /// Makes the folders below the root that are missing. A link that leads out is refused.
    fn make_folders(&self, folders: &str) -> Result<PathBuf, DeliveryError> {
        let resolve = |path: &Path| self.flash.resolve(path).map_err(failed("resolving", path));
        let real_root = resolve(&self.root)?;
        let mut folder = self.root.clone();
        for part in folders.split('/').filter(|part| !part.is_empty()) {
            let parent = folder.clone();
            folder.push(part);
            if !self.flash.exists(&folder) {
                self.flash.create_dir_all(&folder).map_err(failed("making", &folder))?;
                self.flash.sync_dir(&parent).map_err(failed("making durable", &parent))?;
            }
            if !resolve(&folder)?.starts_with(&real_root) {
                return Err(DeliveryError::LeadsOut(folder));
            }
        }
        Ok(folder)
    }

    /// Writes the object under a temporary name, durably, and reads it back.
    fn write_and_compare(
        &self,
        temporary: &Path,
        mut file_sum: RunningSha256,
    ) -> Result<RunningSha256, DeliveryError> {
        match self.flash.remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", temporary)(error));
            }
            _ => {}
        }
        let file =
            self.flash.open(temporary, Open::CreateNew).map_err(failed("opening", temporary))?;
        let mut written = RunningSha256::default();
        self.for_chunks(|offset, buf| {
            self.rendering.read_at(self.index, offset, buf).map_err(DeliveryError::Render)?;
            written.update(buf);
            file_sum.update(buf);
            self.let_out(buf.len() as u64)?;
            file.write_all_at(&[IoSlice::new(buf)], offset)
                .map_err(failed("writing", temporary))?;
            self.meter.add(buf.len() as u64);
            Ok(())
        })?;
        file.sync_data().map_err(failed("making durable", temporary))?;
        file.forget_cached();
        let mut stored = RunningSha256::default();
        self.for_chunks(|offset, buf| {
            file.read_exact_at(buf, offset).map_err(failed("reading back", temporary))?;
            stored.update(buf);
            Ok(())
        })?;
        let (stored, written) = (stored.hex(), written.hex());
        if stored != written {
            let what = format!("SHA-256 {stored} instead of {written}");
            return Err(DeliveryError::Corrupt(what));
        }
        Ok(file_sum)
    }

    /// Waits until so many bytes may go.
    fn let_out(&self, bytes: u64) -> Result<(), DeliveryError> {
        let waits = async {
            tokio::select! {
                () = self.valve.pass(bytes) => Ok(()),
                () = self.given_up.cancelled() => Err(DeliveryError::Cancelled),
            }
        };
        Handle::current().block_on(waits)
    }

    fn check_given_up(&self) -> Result<(), DeliveryError> {
        if self.given_up.is_cancelled() { Err(DeliveryError::Cancelled) } else { Ok(()) }
    }

    /// Goes through the object piece by piece, until given up.
    fn for_chunks(
        &self,
        mut each: impl FnMut(u64, &mut [u8]) -> Result<(), DeliveryError>,
    ) -> Result<(), DeliveryError> {
        let mut buf = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        while offset < self.len {
            self.check_given_up()?;
            let left = self.len - offset;
            let len = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            each(offset, &mut buf[..len])?;
            offset += len as u64;
        }
        Ok(())
    }
}

/// An error of a file system operation, with its path.
fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> DeliveryError + 'a {
    move |source| DeliveryError::Folder { what, path: path.to_owned(), source }
}
