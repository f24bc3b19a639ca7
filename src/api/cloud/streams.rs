//! Streams that are live, and who may be: DescribeLiveStreamOnlineList, DescribeLiveStreamState,
//! DropLiveStream, ForbidLiveStream, ResumeLiveStream.
//!
//! Cameras that the box pulls count like pushes. One that is dropped is pulled again after a while;
//! one that is forbidden is not taken until the ban is over. On a box whose clock was never set a
//! ban is taken with any ResumeTime to come; its 90 days count from when the clock is set.

use serde_json::{Map, Value, json};
use tracing::info;

use crate::api::cloud::params::{Codes, Params};
use crate::api::cloud::{Answer, CloudDesk, utc_time};
use crate::domain::document::Fields;
use crate::domain::faults::Faults;
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::matching::Decision;
use crate::domain::stream_key::StreamKey;

/// Longest reason of a ban, in bytes.
const REASON_BYTES_MAX: usize = 2_048;
/// Entries of a page of the online list.
const ONLINE_PAGE: std::ops::RangeInclusive<i64> = 10..=300_000;

/// Why the box ends a stream that somebody pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// In words.
    pub cause: &'static str,
    /// Disconnect code of the callbacks' contract (section 4).
    pub errcode: u32,
}

impl Cut {
    /// By DropLiveStream.
    pub const DROPPED: Cut = Cut { cause: "stream cut", errcode: 21 };
    /// By RestartLiveStream: its source is to connect anew.
    pub const RESTARTED: Cut = Cut { cause: "stream restarted", errcode: 21 };
    /// By ForbidLiveStream.
    pub const FORBIDDEN: Cut = Cut { cause: "stream forbidden", errcode: 21 };
}

/// A stream that is live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveEntry {
    /// Which one.
    pub key: StreamKey,
    /// Since when, in Unix milliseconds by the clock as it is now.
    pub began_ms: i64,
}

/// The streams that are live: known outside of the ring.
pub trait LiveStreams: Send + Sync {
    /// All of them, in the order of their keys.
    fn live(&self) -> Vec<LiveEntry>;
    /// What was decided about the live session of a stream; `None`: there is none.
    fn decision(&self, key: &StreamKey) -> Option<Decision>;
    /// Has a stream restarted at its next key frame, so that nothing of it is lost; `false`: it is
    /// not live.
    fn restart(&self, key: &StreamKey) -> bool;
    /// Ends those that `which` likes; tells how many.
    fn cut(&self, which: &dyn Fn(&StreamKey) -> bool, cut: Cut) -> usize;
}

/// Answers an action of this family.
pub(super) async fn answer(desk: &CloudDesk, action: &str, params: &Params) -> Option<Answer> {
    Some(match action {
        "DescribeLiveStreamOnlineList" => online(desk, params),
        "DescribeLiveStreamState" => state(desk, params),
        "DropLiveStream" => drop_stream(desk, params),
        "ForbidLiveStream" => forbid(desk, params).await,
        "ResumeLiveStream" => resume(desk, params).await,
        _ => return None,
    })
}

/// Which page of a list, from 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Page {
    pub(super) number: u64,
    pub(super) size: u64,
}

impl Page {
    /// From the members that every list has.
    pub(super) fn read(
        fields: &mut Fields<'_>,
        sizes: std::ops::RangeInclusive<i64>,
        faults: &mut Faults,
    ) -> Page {
        let number = fields.integer("PageNum", 1..=i64::from(u32::MAX), faults);
        let size = fields.integer("PageSize", sizes, faults);
        let whole = |number: Option<i64>, default| {
            number.map_or(default, |number| u64::try_from(number).expect("inside the range"))
        };
        Page { number: whole(number, 1), size: whole(size, 10) }
    }

    /// How many entries come before it.
    pub(super) fn offset(self) -> u64 {
        (self.number - 1) * self.size
    }

    /// The members about the list as a whole.
    pub(super) fn members(self, total: u64) -> Map<String, Value> {
        let members = json!({
            "PageNum": self.number,
            "PageSize": self.size,
            "TotalNum": total,
            "TotalPage": total.div_ceil(self.size),
        });
        members.as_object().cloned().unwrap_or_default()
    }
}

/// Absent or empty parts of the key stand for all.
fn online(desk: &CloudDesk, params: &Params) -> Answer {
    let (domain, app, name, page) = params.read(Codes::Full, |fields, faults| {
        let mut part = |name| {
            let text = fields.text(name, STREAM_KEY_PART_BYTES_MAX, faults);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let domain = part("DomainName").map(|domain| domain.to_lowercase());
        let (app, name) = (part("AppName"), part("StreamName"));
        (domain, app, name, Page::read(fields, ONLINE_PAGE, faults))
    })?;
    let is = |wanted: &Option<String>, part: &str| wanted.as_ref().is_none_or(|w| w == part);
    let live: Vec<LiveEntry> = desk
        .online
        .live()
        .into_iter()
        .filter(|LiveEntry { key, .. }| {
            is(&domain, key.domain()) && is(&app, key.app()) && is(&name, key.stream())
        })
        .collect();
    // A mixer feeds a stream beside its publisher: one row with a time for each.
    let streams: Vec<&[LiveEntry]> = live.chunk_by(|a, b| a.key == b.key).collect();
    let skip = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    let take = usize::try_from(page.size).unwrap_or(usize::MAX);
    let rows: Vec<Value> = streams
        .iter()
        .skip(skip)
        .take(take)
        .map(|pushes| {
            let key = &pushes[0].key;
            let times: Vec<Value> = pushes
                .iter()
                .map(|push| json!({"PublishTime": utc_time::show(push.began_ms)}))
                .collect();
            json!({
                "StreamName": key.stream(),
                "PublishTimeList": times,
                "AppName": key.app(),
                "DomainName": key.domain(),
                "PushToDelay": 0,
            })
        })
        .collect();
    let mut members = page.members(streams.len() as u64);
    members.insert("OnlineInfo".to_owned(), Value::Array(rows));
    Ok(members)
}

fn state(desk: &CloudDesk, params: &Params) -> Answer {
    let key = params.read(Codes::Full, key)?;
    let Some(key) = key else { return Ok(Map::new()) };
    let forbidden = desk.service.load().forbids.holding(&key, desk.clock.now().wall).is_some();
    let state = match forbidden {
        true => "forbid",
        false if desk.online.live().iter().any(|entry| entry.key == key) => "active",
        false => "inactive",
    };
    Ok(Map::from_iter([("StreamState".to_owned(), json!(state))]))
}

fn drop_stream(desk: &CloudDesk, params: &Params) -> Answer {
    if let Some(key) = params.read(Codes::Full, key)? {
        desk.online.cut(&|live| *live == key, Cut::DROPPED);
    }
    Ok(Map::new())
}

async fn forbid(desk: &CloudDesk, params: &Params) -> Answer {
    let (key, until, reason) = params.read(Codes::Full, |fields, faults| {
        let key = key(fields, faults);
        let until = utc_time::field(fields, "ResumeTime", faults);
        let reason = fields.text("Reason", REASON_BYTES_MAX, faults).unwrap_or_default();
        (key, until, reason.to_owned())
    })?;
    let Some(key) = key else { return Ok(Map::new()) };
    let (now, limits) = (desk.clock.now().wall, desk.limits.clone());
    let (banned, why) = (key.clone(), reason.clone());
    desk.change(move |service, changes| {
        service.forbids.forbid(&banned, until, &why, now, &limits, changes)
    })
    .await?;
    info!(stream = key.stream(), reason, "pushes of this name are forbidden");
    // The ban is in force: who enters from now on is looked at there.
    desk.online.cut(&|live| live.stream() == key.stream(), Cut::FORBIDDEN);
    Ok(Map::new())
}

async fn resume(desk: &CloudDesk, params: &Params) -> Answer {
    if let Some(key) = params.read(Codes::Full, key)? {
        desk.change(move |service, changes| {
            service.forbids.resume(&key, changes);
            Ok(())
        })
        .await?;
    }
    Ok(Map::new())
}

/// The stream key that an action is about; `None` only beside a fault.
pub(super) fn key(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<StreamKey> {
    let mut part = |name| fields.required_text(name, STREAM_KEY_PART_BYTES_MAX, faults);
    let (domain, app, name) = (part("DomainName"), part("AppName"), part("StreamName"));
    let key = StreamKey::new(domain?, app?, name?);
    key.map_err(|error| faults.add("", error.to_string())).ok()
}
