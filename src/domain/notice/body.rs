//! Bodies of notices: exactly the members of the contract (`callbacks.md` sections 4 to 8), with
//! their types and spellings, and one of our own, `edgerec`. Without `t` and `sign`, which belong
//! to an attempt.

use serde_json::{Map, Value, json};

use crate::domain::files::FileFormat;
use crate::domain::notice::{Notice, NoticeSeq, PushFacts, RecordFile, RecordStatus, What};
use crate::domain::stream_watch::{REPORT_INTERVAL_MS, StreamReport};

/// The receiver's time limit that event 321 names, in milliseconds.
const RECEIVER_TIMEOUT_MS: u64 = 5_000;

/// What every body of a box has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Number of the account; 0 for none.
    pub appid: u64,
    /// The box.
    pub box_id: &'a str,
    /// The outbox that gives the number: another one once the catalog was lost, and counted anew.
    pub outbox: &'a str,
}

/// The members of a body while they are put together.
struct Body(Map<String, Value>);

impl Body {
    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The members by which events 321 and 341 name a stream.
    fn general(self, notice: &Notice) -> Self {
        self.with("domain", notice.key.domain())
            .with("path", notice.key.app())
            .with("stream_id", notice.key.stream())
    }

    /// The members by which events 0, 1 and 100 name a stream.
    fn classic(self, notice: &Notice) -> Self {
        self.with("app", notice.key.domain())
            .with("appname", notice.key.app())
            .with("stream_id", notice.key.stream())
            .with("channel_id", notice.key.stream())
    }
}

impl Notice {
    /// The body, as JSON text.
    #[must_use]
    pub fn body(&self, origin: Origin<'_>, seq: NoticeSeq) -> String {
        let body =
            Body(Map::new()).with("event_type", self.event().number()).with("appid", origin.appid);
        let body = match &self.what {
            What::PushBegin(begin) => push(body.classic(self), self, &begin.push)
                .with("errcode", 0)
                .with("errmsg", "ok")
                .with("width", begin.width)
                .with("height", begin.height),
            What::PushEnd(end) => push(body.classic(self), self, &end.push)
                .with("push_duration", end.duration_ms.to_string())
                .with("errcode", end.errcode)
                .with("errmsg", end.errmsg.as_str())
                .with("width", end.width)
                .with("height", end.height),
            What::RecordFile(file) => record_file(body.classic(self), file),
            What::RecordStatus(status) => record_status(body, self, status, seq),
            What::PushException(exception) => {
                let push = &exception.push;
                body.with("interface", "general_callback")
                    .general(self)
                    .with("stream_param", push.stream_param.as_str())
                    .with("user_ip", push.user_ip.as_str())
                    .with("sequence", push.sequence.to_string())
                    .with("data_time", self.at.0)
                    .with("report_interval", REPORT_INTERVAL_MS)
                    .with("timeout", RECEIVER_TIMEOUT_MS)
                    .with("abnormal_event", abnormal(&exception.report))
            }
            What::RecordException(exception) => {
                let finding = &exception.finding;
                let what = json!({"type": finding.kind.number(), "occurs": finding.occurs,
                    "desc": finding.kind.text()});
                body.with("interface", "general_callback")
                    .general(self)
                    .with("session_id", exception.recording.to_string())
                    .with("file_format", container(exception.format))
                    .with("timestamp", self.at.0.div_euclid(1_000))
                    .with("exception_level", finding.kind.level().name())
                    .with("exception", what)
            }
        };
        Value::Object(body.with("edgerec", ours(&self.id(), origin, seq)).0).to_string()
    }
}

/// The body without the secret that a push URL may have in its query: that is for receivers who were
/// given it by contract, not for topics and listings.
#[must_use]
pub fn without_push_secret(body: String) -> String {
    const SECRET: &str = "txSecret=";
    if !body.contains(SECRET) {
        return body;
    }
    let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(&body) else {
        return String::from("{}");
    };
    if let Some(Value::String(param)) = members.get_mut("stream_param") {
        let kept = |part: &&str| !part.starts_with(SECRET);
        *param = param.split('&').filter(kept).collect::<Vec<_>>().join("&");
    }
    Value::Object(members).to_string()
}

/// The member of our own.
pub(super) fn ours(id: &str, origin: Origin<'_>, seq: NoticeSeq) -> Value {
    json!({"seq": seq.0, "id": id, "box": origin.box_id, "outbox": origin.outbox})
}

/// What events 0 and 1 have in common. A box has no region class and no data centre: 0.
fn push(body: Body, notice: &Notice, push: &PushFacts) -> Body {
    body.with("event_time", notice.at.0.div_euclid(1_000))
        .with("sequence", push.sequence.to_string())
        .with("node", push.node.as_str())
        .with("user_ip", push.user_ip.as_str())
        .with("stream_param", push.stream_param.as_str())
        .with("set_id", 0)
        .with("idc_id", 0)
}

fn record_file(body: Body, file: &RecordFile) -> Body {
    let id = file.target_file_id.clone().unwrap_or_else(|| file.file.to_string());
    let (width, height) = file.resolution;
    let resolution = if width == 0 { String::new() } else { format!("{width}x{height}") };
    let extended = json!({"video_codec": file.video_codec,
        "session_id": file.recording.to_string(), "resolution": resolution});
    let micros = |ms: i64| ms.rem_euclid(1_000) * 1_000;
    let body = body
        .with("file_id", id)
        .with("record_file_id", file.file.to_string())
        .with("record_temp_id", file.template.map(|number| number.to_string()).unwrap_or_default())
        .with("file_format", file.format.name())
        .with("task_id", file.task_id.as_str())
        .with("start_time", file.started.0.div_euclid(1_000))
        .with("end_time", file.ended.0.div_euclid(1_000))
        .with("start_time_usec", micros(file.started.0))
        .with("end_time_usec", micros(file.ended.0))
        .with("duration", file.duration_ms.saturating_add(500).div_euclid(1_000))
        .with("file_size", file.size)
        .with("video_url", file.url.as_str())
        .with("media_start_time", file.media_start_ms)
        .with("record_bps", 0)
        .with("callback_ext", extended.to_string());
    match &file.stream_param {
        Some(param) => body.with("stream_param", param.as_str()),
        None => body,
    }
}

fn record_status(body: Body, notice: &Notice, status: &RecordStatus, seq: NoticeSeq) -> Body {
    let detail = json!({
        "file_format": status.format as u8 + 1,
        "record_bps": 0,
        "start_model": if status.by_task { 5 } else { 1 },
        "record_content": 1,
        "source_type": if status.pulled { 2 } else { 1 },
        "codec_temp_id": 0,
    });
    body.with("domain", notice.key.domain())
        .with("appname", notice.key.app())
        .with("stream_id", notice.key.stream())
        .with("event_time", notice.at.0.div_euclid(1_000))
        .with("record_event", status.event.name())
        .with("record_detail", detail.to_string())
        .with("task_id", status.task_id.as_str())
        .with("seq", seq.0.to_string())
        .with("session_id", status.recording.to_string())
}

fn abnormal(report: &StreamReport) -> Vec<Value> {
    report
        .iter()
        .map(|(kind, seen)| {
            let detail: Vec<Value> = seen
                .details()
                .map(|(at, figure)| json!({"desc": kind.describe(figure), "occur_time": at.0}))
                .collect();
            json!({"type": kind.number(), "count": seen.count, "customer_visible": "true",
                "event_key": "", "type_desc_cn": "", "type_desc_en": kind.text(),
                "detail": detail})
        })
        .collect()
}

/// The container of a format as event 341 names it: HLS is made of `ts`.
fn container(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Hls => "ts",
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{FileId, RecordingId, SessionId};
    use crate::domain::notice::{
        PushBegin, PushEnd, PushEndCause, PushException, RecordEvent, RecordException,
    };
    use crate::domain::record_watch::{RecordFinding, RecordTrouble};
    use crate::domain::stream_watch::StreamTrouble;
    use crate::domain::time::UnixMillis;

    fn vectors() -> Value {
        let text = include_str!("../../../tests/data/contracts/callbacks.json");
        serde_json::from_str(text).expect("JSON")
    }

    fn facts() -> PushFacts {
        PushFacts {
            sequence: SessionId(2_210_464_508_200_000_001),
            node: "192.0.2.10".into(),
            user_ip: "198.51.100.7".into(),
            stream_param: "txSecret=79c9d1b1&txTime=6553FE10".into(),
        }
    }

    fn body_of(at_ms: i64, what: What) -> Value {
        let key = "push.example.com/live/cam01".parse().expect("key");
        let notice = Notice { key, at: UnixMillis(at_ms), what };
        let origin = Origin { appid: 1_250_000_000, box_id: "box-01", outbox: "0badcafe" };
        let text = notice.body(origin, NoticeSeq(3_266_441_426_270_000_001));
        serde_json::from_str(&text).expect("JSON")
    }

    /// The body is the example, but for `t` and `sign`, for our own member, and for the members
    /// named, whose type must still be that of the example.
    fn assert_is(example: &str, mut body: Value, other: &[&str]) {
        let vectors = vectors();
        let mut expected = vectors["examples"][example].clone();
        let ours = body.as_object_mut().expect("object").remove("edgerec").expect("our member");
        assert_eq!(ours["seq"], 3_266_441_426_270_000_001_u64);
        assert_eq!((&ours["box"], &ours["outbox"]), (&json!("box-01"), &json!("0badcafe")));
        assert!(!ours["id"].as_str().expect("text").is_empty());
        for name in ["t", "sign"] {
            expected.as_object_mut().expect("object").remove(name);
        }
        for name in other {
            let kind = |value: &Value| (value.is_string(), value.is_i64(), value.is_array());
            assert_eq!(kind(&body[*name]), kind(&expected[*name]), "{example}.{name}");
            expected[*name] = body[*name].clone();
        }
        assert_eq!(body, expected, "{example}");
    }

    #[test]
    fn push_begin_and_end_are_as_in_the_contract() {
        let begin = PushBegin { push: facts(), width: 0, height: 0 };
        let body = body_of(1_700_000_000_999, What::PushBegin(begin));
        assert_is("push_begin", body, &["set_id", "idc_id"]);
        let (errcode, errmsg) = PushEndCause::ClientClosed.told();
        let (duration_ms, width, height) = (1_800_000, 1_920, 1_080);
        let end = PushEnd { push: facts(), duration_ms, errcode, errmsg, width, height };
        let body = body_of(1_700_001_800_000, What::PushEnd(end));
        assert_is("push_end", body, &["set_id", "idc_id"]);
    }

    #[test]
    fn the_secret_of_a_push_url_is_for_receivers_only() {
        let push = PushFacts { stream_param: "a=1&txSecret=5EC&txTime=6553FE10".into(), ..facts() };
        let what = What::PushBegin(PushBegin { push, width: 0, height: 0 });
        let body = body_of(0, what);
        let told: Value =
            serde_json::from_str(&without_push_secret(body.to_string())).expect("JSON");
        let mut expected = body;
        expected["stream_param"] = json!("a=1&txTime=6553FE10");
        assert_eq!(told, expected);
        let other = String::from(r#"{"stream_param": "a=1"}"#);
        assert_eq!(without_push_secret(other.clone()), other);
    }

    fn file() -> RecordFile {
        RecordFile {
            file: FileId(3_270_000_000_000_000_001),
            target_file_id: None,
            template: Some(1_000),
            format: FileFormat::Mp4,
            task_id: "1820625260470000001".into(),
            started: UnixMillis(1_700_000_004_316),
            ended: UnixMillis(1_700_001_806_618),
            duration_ms: 1_800_040,
            size: 450_123_456,
            stream_param: Some(facts().stream_param),
            url: "http://1250000000.vod2.example.com/6c0f1c00vodexample/3270000000000000001/f0.mp4"
                .into(),
            media_start_ms: 80,
            video_codec: "h264".into(),
            recording: RecordingId(1_820_625_260_470_000_001),
            resolution: (1_920, 1_080),
        }
    }

    #[test]
    fn record_file_is_as_in_the_contract() {
        let body = body_of(0, What::RecordFile(Box::new(file())));
        assert_eq!(
            (&body["start_time_usec"], &body["end_time_usec"]),
            (&json!(316_000), &json!(618_000))
        );
        assert_is("record_file", body, &["start_time_usec", "end_time_usec"]);
        let of_task = RecordFile {
            template: None,
            stream_param: None,
            target_file_id: Some("77".into()),
            video_codec: String::new(),
            resolution: (0, 0),
            ..file()
        };
        let body = body_of(0, What::RecordFile(Box::new(of_task)));
        assert!(body.get("stream_param").is_none());
        assert_eq!((&body["record_temp_id"], &body["file_id"]), (&json!(""), &json!("77")));
        assert_eq!(body["record_file_id"], "3270000000000000001");
        let extended = body["callback_ext"].as_str().expect("text");
        assert!(
            extended.contains(r#""video_codec":"""#) && extended.contains(r#""resolution":"""#)
        );
    }

    #[test]
    fn record_status_is_as_in_the_contract() {
        let status = RecordStatus {
            event: RecordEvent::Ended,
            recording: RecordingId(1_820_625_260_470_000_001),
            format: FileFormat::Mp4,
            by_task: false,
            pulled: false,
            task_id: String::new(),
        };
        let body = body_of(1_700_001_806_000, What::RecordStatus(status.clone()));
        assert_is("record_status", body, &[]);
        let (by_task, pulled, format) = (true, true, FileFormat::Flv);
        let other = RecordStatus { by_task, pulled, format, ..status };
        let body = body_of(0, What::RecordStatus(other));
        let detail: Value =
            serde_json::from_str(body["record_detail"].as_str().expect("text")).expect("JSON");
        assert_eq!(
            (&detail["file_format"], &detail["start_model"], &detail["source_type"]),
            (&json!(1), &json!(5), &json!(2))
        );
    }

    #[test]
    fn exceptions_are_as_in_the_contract() {
        let mut report = StreamReport::default();
        report.add(StreamTrouble::VideoFramesApart, UnixMillis(1_700_000_905_569), 3_046);
        let exception = PushException { push: facts(), report };
        let body = body_of(1_700_000_907_971, What::PushException(Box::new(exception)));
        assert_is("push_exception", body, &[]);
        let exception = RecordException {
            recording: RecordingId(1_820_625_260_470_000_001),
            format: FileFormat::Hls,
            finding: RecordFinding { kind: RecordTrouble::VideoJump, occurs: 2 },
        };
        let body = body_of(1_700_000_930_000, What::RecordException(exception));
        assert_is("record_exception", body, &[]);
    }
}
