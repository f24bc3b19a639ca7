//! The target `tencent-vod`: a file becomes media of the VOD platform.
//!
//! The order of steps: ApplyUpload opens a session, which is saved; the objects are stored in its
//! bucket, each proved, progress saved after each part and object; once all are there the session
//! is marked as one that is only to be committed; CommitUpload. A restart at any point goes on in
//! the same session and sends at most the part again that was on its way.
//!
//! Invariants: an upload has one identity (SourceContext), whatever session it is in; a session
//! that may have been committed is never filled again, and given up only after the commit was
//! refused several times and no media of that identity was found. So what was committed is not
//! sent twice, also where the answer was lost.

mod actions;
mod api;
mod bucket;
mod session;

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use url::Url;

use self::actions::{Found, Media, PAGE};
use self::api::VodApi;
use self::bucket::Bucket;
pub use self::session::{Certificate, VodSession};
use crate::delivery::checksum::RunningSha256;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{HttpClient, HttpLimits};
use crate::delivery::object_store::{ObjectStore, find_objects, store_objects};
use crate::delivery::progress::Progress;
use crate::delivery::server_clock::ServerClock;
use crate::delivery::settings::VodSettings;
use crate::delivery::shelf::Receipt;
use crate::delivery::target::{DeliveryFuture, Job, Target};
use crate::domain::time::{ClockQuality, UnixMillis};
use crate::platform::clock::Clock;
use crate::platform::net::Net;
use crate::wire::cloud::Credentials;

/// Where the API is.
const ENDPOINT: &str = "https://vod.tencentcloudapi.com";
/// A commit must be refused so often, each time without media to be found, before all is sent
/// anew: what was committed may be found only after a while.
const REFUSALS_MAX: u32 = 5;

/// The platform, as one account uses it.
pub struct VodTarget {
    name: String,
    api: VodApi,
    settings: VodSettings,
    storage: Option<Url>,
    clock: Arc<dyn Clock>,
}

impl VodTarget {
    /// A target for these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// The settings cannot work.
    pub fn new(
        settings: &VodSettings,
        net: Arc<dyn Net>,
        clock: Arc<dyn Clock>,
        limits: HttpLimits,
        extra_roots: &[CertificateDer<'static>],
    ) -> Result<Self, DeliveryError> {
        let address = |text: &str, what: &str| {
            Url::parse(text)
                .ok()
                .filter(|url| url.path() == "/" && url.query().is_none())
                .ok_or_else(|| DeliveryError::Settings(format!("{what} is no address of a host")))
        };
        let endpoint = address(settings.endpoint.as_deref().unwrap_or(ENDPOINT), "the endpoint")?;
        let storage = settings.storage_endpoint.as_deref();
        let storage = storage.map(|text| address(text, "the storage endpoint")).transpose()?;
        // Not the key: a transfer goes on when the account gets another one.
        let name = format!("tencent-vod {endpoint}");
        let credentials = Credentials {
            secret_id: settings.secret_id.clone(),
            secret_key: settings.secret_key.clone(),
        };
        let http = Arc::new(HttpClient::new(net, limits, extra_roots)?);
        let server_clock = Arc::new(ServerClock::new(Arc::clone(&clock)));
        let api = VodApi { http, endpoint, credentials, clock: server_clock };
        Ok(VodTarget { name, api, settings: settings.clone(), storage, clock })
    }

    async fn deliver_file(&self, job: &Job) -> Result<Receipt, DeliveryError> {
        let mut progress = job.load_progress(&self.name).await?;
        let now = self.trusted_now();
        if now.is_some_and(|now| job.plan.terms.is_over(now)) && !may_be_committed(&progress) {
            return Err(DeliveryError::Expired);
        }
        if let Some(session) = &progress.session
            && !session.committing
            && now.is_some()
            && !session.can_be_filled(self.api.clock.now())
        {
            tracing::info!("credentials of the upload are over, starting over");
            self.start_over(job, &mut progress).await?;
        }
        if job.plan.maybe_there && progress.is_fresh() {
            // What has an identity there was proved before it was committed.
            if let Some(media) = self.find(job, &mut progress).await? {
                tracing::info!(file_id = media.file_id, "was there already");
                return receipt(job, media).await;
            }
        }
        match self.go_on(job, &mut progress).await {
            Err(error @ DeliveryError::SessionOver(_)) => {
                tracing::info!(why = error.explain(), "starting over");
                self.start_over(job, &mut progress).await?;
                self.go_on(job, &mut progress).await
            }
            result => result,
        }
    }

    /// Goes on in the session at hand, or in a new one.
    async fn go_on(&self, job: &Job, progress: &mut Progress) -> Result<Receipt, DeliveryError> {
        let mut session = match progress.session.clone() {
            Some(session) if session.committing => session,
            Some(session) => {
                // Begun by an attempt that failed or was killed: what it sent last may be there.
                let key = object_key(job, &session);
                find_objects(&self.bucket(&session), job, progress, key).await?;
                session
            }
            None => {
                let region = self.settings.storage_region.as_deref();
                let session =
                    self.api.apply_upload(&job.plan, region, self.sub_app_id(job)).await?;
                self.save(job, progress, &session).await?;
                session
            }
        };
        if !session.committing {
            self.fill(job, progress, &session).await?;
            session.committing = true;
            self.save(job, progress, &session).await?;
        }
        job.meter.set(job.rendering.total_len());
        let media = self.commit(job, progress, session).await?;
        Ok(Receipt {
            url: media.url,
            size: job.rendering.total_len(),
            sha256: progress.file_sum().hex(),
            target_file_id: Some(media.file_id),
        })
    }

    /// Stores what is not in the session's bucket yet.
    async fn fill(
        &self,
        job: &Job,
        progress: &mut Progress,
        session: &VodSession,
    ) -> Result<(), DeliveryError> {
        store_objects(&self.bucket(session), job, progress, object_key(job, session)).await
    }

    /// Commits; where that is refused, looks for what an earlier commit made.
    async fn commit(
        &self,
        job: &Job,
        progress: &mut Progress,
        mut session: VodSession,
    ) -> Result<Media, DeliveryError> {
        if progress.searched > 0 {
            // Goes on first: once the commit is asked for again, the file may be where it has been.
            if let Some(found) = self.find(job, progress).await? {
                tracing::info!(file_id = found.file_id, "was committed before");
                return Ok(found);
            }
            let why = "the commit was refused";
            self.count_refusal(job, progress, &mut session, why.to_owned()).await?;
        }
        let error = match self.api.commit_upload(&session, self.sub_app_id(job)).await {
            Err(error) if is_about_the_session(&error) => error,
            result => return result,
        };
        if let Some(found) = self.find(job, progress).await? {
            tracing::info!(file_id = found.file_id, "was committed before");
            return Ok(found);
        }
        self.count_refusal(job, progress, &mut session, error.explain()).await?;
        Err(error)
    }

    /// A commit was refused and the file is not there: a few times that may be for a while.
    async fn count_refusal(
        &self,
        job: &Job,
        progress: &mut Progress,
        session: &mut VodSession,
        why: String,
    ) -> Result<(), DeliveryError> {
        session.refusals += 1;
        if session.refusals >= REFUSALS_MAX {
            return Err(DeliveryError::SessionOver(why));
        }
        self.save(job, progress, session).await
    }

    /// Looks for the file among what was committed before. On a bad link a search that began anew
    /// each time would never come to its end: it goes on where it failed or was cut off, a page
    /// earlier in case that some were deleted. What is committed meanwhile comes before that.
    async fn find(
        &self,
        job: &Job,
        progress: &mut Progress,
    ) -> Result<Option<Media>, DeliveryError> {
        let mut offset = progress.searched.saturating_sub(PAGE);
        loop {
            match self.api.find(&job.plan, self.sub_app_id(job), offset).await? {
                Found::Media(media) => return Ok(Some(media)),
                Found::More(next) => offset = next,
                Found::Nothing => {
                    progress.searched = 0;
                    return Ok(None);
                }
            }
            if offset > progress.searched {
                progress.searched = offset;
                job.save_progress(progress).await?;
            }
        }
    }

    /// Forgets the session at hand; an upload that is open in it is given up.
    async fn start_over(&self, job: &Job, progress: &mut Progress) -> Result<(), DeliveryError> {
        let before = std::mem::replace(progress, Progress::begin(&progress.place));
        job.save_progress(progress).await?;
        let (Some(session), Some(upload)) = (before.session, before.multipart) else {
            return Ok(());
        };
        let object = job.rendering.objects().get(before.objects_done);
        let name = object.map_or("", |object| object.name.as_str());
        let playlist = job.rendering.objects().last().map_or("", |object| object.name.as_str());
        let key = session.object_path(name, playlist);
        if let Err(error) = self.bucket(&session).abort_upload(&key, &upload.upload_id).await {
            tracing::info!(why = error.explain(), "old upload not given up");
        }
        Ok(())
    }

    async fn save(
        &self,
        job: &Job,
        progress: &mut Progress,
        session: &VodSession,
    ) -> Result<(), DeliveryError> {
        progress.session = Some(session.clone());
        job.save_progress(progress).await
    }

    fn bucket(&self, session: &VodSession) -> Bucket {
        let (http, clock) = (Arc::clone(&self.api.http), Arc::clone(&self.api.clock));
        Bucket::new(session, self.storage.as_ref(), &self.api.credentials, http, clock)
    }

    /// The sub-application that takes a file: the template's, else that of the settings.
    fn sub_app_id(&self, job: &Job) -> Option<i64> {
        job.plan.terms.sub_app_id.or(self.settings.sub_app_id)
    }

    fn trusted_now(&self) -> Option<UnixMillis> {
        let wall = self.clock.now().wall;
        (wall.quality == ClockQuality::Trusted).then_some(wall.unix)
    }
}

impl Target for VodTarget {
    fn name(&self) -> &str {
        &self.name
    }

    fn deliver<'a>(&'a self, job: &'a Job) -> DeliveryFuture<'a> {
        Box::pin(self.deliver_file(job))
    }
}

/// Where the objects of a file lie in a session.
fn object_key(
    job: &Job,
    session: &VodSession,
) -> impl Fn(&str) -> Result<String, DeliveryError> + Send + use<> {
    // The playlist comes last; a file of one object has no name.
    let playlist = job.rendering.objects().last().map_or("", |object| object.name.as_str());
    let (session, playlist) = (session.clone(), playlist.to_owned());
    move |name| Ok(session.object_path(name, &playlist))
}

/// The receipt of a file that was committed in a session that nobody remembers.
async fn receipt(job: &Job, media: Media) -> Result<Receipt, DeliveryError> {
    let mut file = RunningSha256::default();
    for index in 0..job.rendering.objects().len() {
        file = job.checksums(index, file, u64::MAX).await?.0.file;
    }
    Ok(Receipt {
        url: media.url,
        size: job.rendering.total_len(),
        sha256: file.hex(),
        target_file_id: Some(media.file_id),
    })
}

/// Whether the platform may have the file already.
fn may_be_committed(progress: &Progress) -> bool {
    progress.session.as_ref().is_some_and(|session| session.committing)
}

/// Whether a refused commit is about the session: it is not known any more, it was committed
/// before, or its objects are not there.
fn is_about_the_session(error: &DeliveryError) -> bool {
    let DeliveryError::Refused { status: 200, code, .. } = error else { return false };
    ["InvalidParameterValue", "ResourceNotFound", "FailedOperation"]
        .iter()
        .any(|begin| code.starts_with(begin))
}
