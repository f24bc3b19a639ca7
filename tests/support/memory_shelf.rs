//! A shelf in memory and a rendering of made-up bytes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edgerec::delivery::path::ObjectPath;
use edgerec::delivery::progress::Progress;
use edgerec::delivery::shelf::{DeliveryPlan, Failure, Receipt, Shelf, ShelfError, Wanted};
use edgerec::domain::files::FileFormat;
use edgerec::domain::ids::FileId;
use edgerec::domain::media_terms::MediaTerms;
use edgerec::domain::stream_key::StreamKey;
use edgerec::domain::time::BootTime;
use edgerec::domain::upload_order::{UploadKind, WaitingFile};
use edgerec::domain::upload_plan::{Admitted, DayAccount};
use edgerec::media::clip::ClipError;
use edgerec::media::render::{Object, RenderError, Rendering};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// The template that every file is of.
pub const TEMPLATE: &str = "all";

/// Everything that a test waits for happens within this time.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A file of made-up bytes: a pure function of seed, object and offset.
#[derive(Debug, Clone)]
pub struct MadeUp {
    pub seed: u64,
    pub objects: Vec<Object>,
    /// Reading at or after this offset of an object says that the clip is damaged.
    pub damaged_at: Option<u64>,
}

impl MadeUp {
    /// A file of one object.
    pub fn single(seed: u64, len: u64) -> Self {
        let object = Object { name: String::new(), len, content_type: "video/mp4" };
        MadeUp { seed, objects: vec![object], damaged_at: None }
    }

    /// An HLS file with segments of this length.
    pub fn hls(seed: u64, segments: usize, len: u64) -> Self {
        let segment =
            |n: usize| Object { name: format!("{n}.ts"), len, content_type: "video/mp2t" };
        let mut objects: Vec<Object> = (0..segments).map(segment).collect();
        let content_type = "application/vnd.apple.mpegurl";
        objects.push(Object { name: "index.m3u8".into(), len: 100, content_type });
        MadeUp { seed, objects, damaged_at: None }
    }

    /// The bytes of an object.
    pub fn bytes(&self, object: usize) -> Vec<u8> {
        let len = usize::try_from(self.objects[object].len).expect("fits");
        let mut bytes = vec![0; len];
        self.fill(object, 0, &mut bytes);
        bytes
    }

    /// SHA-256 of all objects, one after the other.
    pub fn sha256(&self) -> String {
        let mut sum = Sha256::new();
        (0..self.objects.len()).for_each(|object| sum.update(self.bytes(object)));
        sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn fill(&self, object: usize, offset: u64, buf: &mut [u8]) {
        let mut word = (u64::MAX, [0; 8]);
        for (at, byte) in (offset..).zip(buf) {
            if word.0 != at / 8 {
                word = (at / 8, mix(self.seed ^ ((object as u64) << 40) ^ (at / 8)).to_le_bytes());
            }
            *byte = word.1[(at % 8) as usize];
        }
    }
}

/// SplitMix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Rendering for MadeUp {
    fn objects(&self) -> &[Object] {
        &self.objects
    }

    fn read_at(&self, object: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError> {
        assert!(offset + buf.len() as u64 <= self.objects[object].len, "read past the end");
        if self.damaged_at.is_some_and(|at| offset + buf.len() as u64 > at) {
            return Err(ClipError::Damaged { fragment: 3, what: "crc" }.into());
        }
        self.fill(object, offset, buf);
        Ok(())
    }

    fn dropped_tracks(&self) -> &[String] {
        &[]
    }
}

/// What became of a file.
#[derive(Debug, Clone, Default)]
pub struct Fate {
    pub progress: Option<Progress>,
    pub receipt: Option<Receipt>,
    pub failures: Vec<Failure>,
}

/// A shelf whose content lasts as long as the value: a new worker on it is a restart.
pub struct MemoryShelf {
    files: watch::Sender<BTreeMap<FileId, (DeliveryPlan, MadeUp, Fate)>>,
    asked: Mutex<BTreeMap<FileId, (UploadKind, bool)>>,
    account: Mutex<Option<DayAccount>>,
    looks: AtomicU64,
}

impl MemoryShelf {
    pub fn new() -> Arc<Self> {
        let (asked, account, looks) = Default::default();
        Arc::new(MemoryShelf { files: watch::Sender::default(), asked, account, looks })
    }

    /// Puts a file on the shelf; its place in the queue is its number.
    pub fn put(&self, number: u64, file: MadeUp) -> FileId {
        self.put_with(number, file, MediaTerms { name: "clip".into(), ..MediaTerms::default() })
    }

    /// As [`put`](Self::put), with what is asked of the file.
    pub fn put_with(&self, number: u64, file: MadeUp, terms: MediaTerms) -> FileId {
        // The first digits, which are part of the path, tell files apart.
        let file_id = FileId(number << 32);
        let format = if file.objects.len() > 1 { FileFormat::Hls } else { FileFormat::Mp4 };
        let key = StreamKey::new("cams", "live", "gate 日").expect("valid");
        let object_path = ObjectPath::new(&key, "clip", file_id, format);
        let plan = DeliveryPlan { file_id, object_path, format, terms, maybe_there: false };
        self.files.send_modify(|files| {
            files.insert(file_id, (plan, file, Fate::default()));
        });
        file_id
    }

    /// What asked for a file, and whether a person wants it at once.
    pub fn ask(&self, file: FileId, kind: UploadKind, urgent: bool) {
        self.asked.lock().expect("free").insert(file, (kind, urgent));
    }

    /// How often the queue was read.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }

    /// The path of one object of a file.
    pub fn path(&self, file: FileId, object: &str) -> String {
        self.files.borrow()[&file].0.object_path.object(object).expect("a plain name")
    }

    pub fn fate(&self, file: FileId) -> Fate {
        self.files.borrow()[&file].2.clone()
    }

    /// All that is known of deliveries is lost: the files wait, and the target may have them.
    pub fn lose_state(&self) {
        self.files.send_modify(|files| {
            for (plan, _, fate) in files.values_mut() {
                plan.maybe_there = true;
                *fate = Fate::default();
            }
        });
    }

    /// The target may have a file, for all that is known.
    pub fn expect_there(&self, file: FileId) {
        self.files.send_modify(|files| files.get_mut(&file).expect("there").0.maybe_there = true);
    }

    /// Replaces a file's bytes, as a changed clip would.
    pub fn replace(&self, file: FileId, made_up: MadeUp) {
        self.files.send_modify(|files| files.get_mut(&file).expect("there").1 = made_up);
    }

    /// Waits until a file's fate satisfies `when`.
    pub async fn until(&self, what: &str, file: FileId, when: impl Fn(&Fate) -> bool) -> Fate {
        let mut files = self.files.subscribe();
        let found = tokio::time::timeout(DEADLINE, files.wait_for(|files| when(&files[&file].2)));
        match found.await {
            Ok(files) => files.expect("the shelf lives")[&file].2.clone(),
            Err(_) => panic!("in time: {what}; now {:?}", self.fate(file)),
        }
    }

    /// As [`delivered`](Self::delivered), with another deadline.
    pub async fn delivered_within(&self, file: FileId, within: Duration) -> Receipt {
        let mut files = self.files.subscribe();
        let found = files.wait_for(|files| files[&file].2.receipt.is_some());
        match tokio::time::timeout(within, found).await {
            Ok(files) => files.expect("the shelf lives")[&file].2.receipt.clone(),
            Err(_) => panic!("not delivered within {within:?}: {:?}", self.fate(file)),
        }
        .expect("delivered")
    }

    /// Waits until a file is delivered.
    pub async fn delivered(&self, file: FileId) -> Receipt {
        let fate = self.until("delivered", file, |fate| fate.receipt.is_some()).await;
        fate.receipt.expect("delivered")
    }

    fn change(&self, file: FileId, change: impl FnOnce(&mut Fate)) -> Result<(), ShelfError> {
        let mut found = false;
        self.files.send_modify(|files| {
            if let Some((_, _, fate)) = files.get_mut(&file) {
                change(fate);
                found = true;
            }
        });
        if found { Ok(()) } else { Err(ShelfError::Gone) }
    }
}

impl Shelf for MemoryShelf {
    fn waiting(&self, wanted: &Wanted, limit: usize) -> Result<Vec<WaitingFile>, ShelfError> {
        use edgerec::delivery::error::ErrorClass::{Drop, Lose, Quarantine};
        self.looks.fetch_add(1, Ordering::SeqCst);
        let files = self.files.borrow();
        let waits = |fate: &Fate| {
            let ended = |failure: &Failure| matches!(failure.class, Drop | Lose | Quarantine);
            fate.receipt.is_none() && !fate.failures.iter().any(ended)
        };
        let admits = |file: &WaitingFile| match &wanted.admitted {
            Admitted::Everything => true,
            Admitted::Templates(names) => file.urgent || names.iter().any(|name| name == TEMPLATE),
            Admitted::Nothing => file.urgent,
        };
        let asked = self.asked.lock().expect("free");
        let waiting = files.iter().filter(|(_, (_, _, fate))| waits(fate)).map(|(id, _)| {
            let (kind, urgent) = asked.get(id).copied().unwrap_or((UploadKind::Template, false));
            WaitingFile { file: *id, urgent, kind, queue_number: id.0, not_before: None }
        });
        Ok(waiting.filter(admits).take(limit).collect())
    }

    fn day_account(&self) -> Result<DayAccount, ShelfError> {
        let kept = *self.account.lock().expect("free");
        Ok(kept.unwrap_or(DayAccount { day: None, bytes: 0, since: BootTime(0) }))
    }

    fn keep_day_account(&self, account: &DayAccount) -> Result<(), ShelfError> {
        *self.account.lock().expect("free") = Some(*account);
        Ok(())
    }

    fn plan(&self, file: FileId) -> Result<DeliveryPlan, ShelfError> {
        self.files.borrow().get(&file).map(|found| found.0.clone()).ok_or(ShelfError::Gone)
    }

    fn open(&self, file: FileId) -> Result<Box<dyn Rendering>, ShelfError> {
        let files = self.files.borrow();
        let (_, made_up, _) = files.get(&file).ok_or(ShelfError::Gone)?;
        Ok(Box::new(made_up.clone()))
    }

    fn load_progress(&self, file: FileId) -> Result<Option<Progress>, ShelfError> {
        Ok(self.fate(file).progress)
    }

    fn save_progress(&self, file: FileId, progress: &Progress) -> Result<(), ShelfError> {
        // Through its stored form, as a real shelf would.
        let text = serde_json::to_string(progress).expect("serialises");
        let progress = serde_json::from_str(&text).expect("comes back");
        self.change(file, |fate| fate.progress = Some(progress))
    }

    fn delivered(&self, file: FileId, receipt: &Receipt) -> Result<(), ShelfError> {
        self.change(file, |fate| {
            assert!(fate.receipt.is_none(), "delivered twice");
            fate.receipt = Some(receipt.clone());
            fate.progress = None;
        })
    }

    fn failed(&self, file: FileId, failure: &Failure) -> Result<(), ShelfError> {
        self.change(file, |fate| fate.failures.push(failure.clone()))
    }
}
