//! A simulated VOD platform behind the port of a target, with a link that comes and goes: it looks
//! for what it has under the identity of a file before it takes it anew, fails before and after it
//! has committed, loses answers and stores bytes wrongly, and checks what it is given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edgerec::delivery::error::DeliveryError;
use edgerec::delivery::shelf::Receipt;
use edgerec::delivery::target::{DeliveryFuture, Job, Target};
use edgerec::sim::clock::SimClock;
use edgerec::sim::random::Random;
use edgerec::sim::timers;
use sha2::{Digest, Sha256};

use crate::camera::pictures_in;

/// What was promised is durable within this.
const SETTLED_MS: u64 = 10_000;

/// A file that was committed.
#[derive(Debug, Clone)]
pub struct Stored {
    pub sha256: String,
    pub size: u64,
    /// When the box was told, and in which of its lives.
    told: Option<(u64, u64)>,
}

pub struct SimVod {
    clock: Arc<SimClock>,
    state: Mutex<State>,
}

pub struct State {
    pub link_up: bool,
    /// One in so many requests fails in each way; 0: none.
    pub trouble: u64,
    pub files: BTreeMap<u64, Stored>,
    pub faults: Vec<String>,
    /// What happened since it was last looked at.
    pub news: Vec<(u64, &'static str, String)>,
    /// Number of the life of the box, and when it began.
    pub life: (u64, u64),
    random: Random,
}

impl SimVod {
    pub fn new(clock: Arc<SimClock>, random: Random) -> Arc<SimVod> {
        let state = State {
            link_up: true,
            trouble: 6,
            files: BTreeMap::new(),
            faults: Vec::new(),
            news: Vec::new(),
            life: (0, 0),
            random,
        };
        Arc::new(SimVod { clock, state: Mutex::new(state) })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, job: &Job) -> Result<Receipt, DeliveryError> {
        let file = job.plan.file_id.0;
        let lost = || DeliveryError::Unreachable("no link".into());
        let (fault, takes_ms) = {
            let mut state = self.state();
            if !state.link_up {
                return Err(lost());
            }
            let trouble = state.trouble;
            let fault = if trouble == 0 { u64::MAX } else { state.random.below(trouble * 4) };
            (fault, state.random.between(200, 20_000))
        };
        let mut content = Vec::new();
        for (index, object) in job.rendering.objects().iter().enumerate() {
            let mut bytes = vec![0; usize::try_from(object.len).expect("small")];
            job.rendering.read_at(index, 0, &mut bytes).map_err(DeliveryError::Render)?;
            content.extend(bytes);
        }
        timers::pass(Duration::from_millis(takes_ms)).await;
        job.meter.add(content.len() as u64);
        let at_ms = self.clock.true_ms();
        let mut state = self.state();
        if !state.link_up {
            return Err(lost());
        }
        let refused = |status, code: &str| DeliveryError::Refused {
            status,
            code: code.to_owned(),
            message: String::new(),
            wait: None,
        };
        let sha256: String =
            Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        match fault {
            0 => return Err(refused(503, "ServiceUnavailable")),
            1 => return Err(DeliveryError::Corrupt("a bit is not what was sent".to_owned())),
            _ => {}
        }
        state.commit(at_ms, file, &sha256, &content);
        match fault {
            2 => return Err(lost()),
            3 => return Err(refused(500, "InternalError")),
            _ => {}
        }
        let told = Some((at_ms, state.life.0));
        let stored = state.files.get_mut(&file).expect("committed above");
        stored.told = told;
        Ok(Receipt {
            url: format!("https://vod.example/{file}"),
            size: stored.size,
            sha256: stored.sha256.clone(),
            target_file_id: Some(file.to_string()),
        })
    }
}

impl State {
    /// Takes a file, unless it has it.
    fn commit(&mut self, at_ms: u64, file: u64, sha256: &str, content: &[u8]) {
        let (life, began_ms) = self.life;
        if let Some(stored) = self.files.get(&file).cloned() {
            if stored.sha256 != sha256 {
                self.faults.push(format!("file {file} came a second time with other bytes"));
            }
            let forgotten = stored.told.is_some_and(|(told_ms, told_life)| {
                told_life == life || told_ms + SETTLED_MS < began_ms
            });
            if forgotten {
                self.faults.push(format!("file {file} is delivered twice"));
            }
            self.news.push((at_ms, "found", file.to_string()));
            return;
        }
        match pictures_in(content) {
            Ok(found) if found.is_empty() => self.faults.push(format!("file {file} is empty")),
            Ok(found) => self.news.push((at_ms, "upload", format!("{file} {}", found.len()))),
            Err(what) => self.faults.push(format!("file {file} is corrupt: {what}")),
        }
        let size = content.len() as u64;
        self.files.insert(file, Stored { sha256: sha256.to_owned(), size, told: None });
    }
}

impl Target for SimVod {
    fn name(&self) -> &str {
        "simulated"
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        Box::pin(self.take(job))
    }
}
