//! Who may push: the keys of the domain, the ban of the stream, the clock, and the log of refusals.
//!
//! The keys come first, so that a stranger does not learn which streams are banned. Refusals are
//! logged at most once in [`LOG_EVERY`](crate::domain::log_pace::LOG_EVERY), with the number of
//! those in between, so that guessing does not fill the log; neither secrets nor the query are in
//! it.

use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::domain::log_pace::LogPace;
use crate::domain::secret::Secret;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::BootTime;
use crate::ingest::rtmp::PublishCheck;
use crate::platform::clock::Clock;
use crate::ring::catalog::service::ServiceInForce;
use crate::wire::cloud::AgeCheck;
use crate::wire::cloud::push_auth::PushKeys;

/// What a publisher of a banned stream is told.
const FORBIDDEN: &str = "the stream is forbidden (18/305)";

/// Lets those publish who have a right URL, if the domain asks for one, and no ban.
pub(super) struct Publishers {
    push_key: Secret,
    service: ServiceInForce,
    clock: Arc<dyn Clock>,
    refusals: Mutex<LogPace>,
    skipped: Mutex<LogPace>,
}

impl Publishers {
    /// Looks at what callers have set; `push_key` is the key of domains without one of their own,
    /// empty for none.
    pub(super) fn new(push_key: Secret, service: ServiceInForce, clock: Arc<dyn Clock>) -> Self {
        let (refusals, skipped) = (Mutex::default(), Mutex::default());
        Publishers { push_key, service, clock, refusals, skipped }
    }

    /// Why a push is refused, in words with the code of the contract.
    fn refusal(&self, key: &StreamKey, query: &str) -> Option<String> {
        let (now, service) = (self.clock.now(), self.service.load());
        if let Some(domain) = service.push_keys.asked_for(key.domain(), &self.push_key) {
            let keys = PushKeys::new([domain.master, domain.backup], u64::from(domain.delta_s));
            match keys.check(key.stream(), query, now.wall) {
                Ok(AgeCheck::Passed) => {}
                Ok(AgeCheck::Skipped) => {
                    if let Some(unlogged) = pace(&self.skipped, now.boot) {
                        warn!(key = %shown(key), unlogged, "publish let in without a look at txTime: the clock is not set");
                    }
                }
                Err(refusal) => return Some(refusal.to_string()),
            }
        }
        service.forbids.holding(key, now.wall).map(|_| FORBIDDEN.to_owned())
    }
}

impl PublishCheck for Publishers {
    fn check(&self, key: &StreamKey, query: &str) -> Result<(), String> {
        let Some(why) = self.refusal(key, query) else { return Ok(()) };
        if let Some(unlogged) = pace(&self.refusals, self.clock.now().boot) {
            warn!(key = %shown(key), why, unlogged, "publish refused");
        }
        Err(why)
    }
}

/// The key for the log. A stream name in which somebody wrote `&txSecret=` for `?txSecret=` holds
/// a secret.
fn shown(key: &StreamKey) -> String {
    if key.to_string().to_ascii_lowercase().contains("txsecret") {
        return "(not shown: it holds a txSecret)".to_owned();
    }
    key.to_string()
}

fn pace(pace: &Mutex<LogPace>, now: BootTime) -> Option<u64> {
    // Two counters are never half changed.
    pace.lock().unwrap_or_else(PoisonError::into_inner).take(now)
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use serde_json::Value;

    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::service::limits::ServiceLimits;
    use crate::domain::service::push_keys::PushKeyEdit;
    use crate::domain::service::{Changes, Service};
    use crate::domain::time::{ClockQuality, Instant, UnixMillis, WallTime};
    use crate::wire::cloud::push_auth::push_query;

    const DOMAIN: &str = "push.example.com";
    const KEY: &str = "pushkeyexample0001";
    const EXPIRES_S: u32 = 1_700_003_600;

    struct FixedClock(ClockQuality, i64);

    impl Clock for FixedClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(self.1 * 1_000), quality: self.0 };
            Instant { boot: BootTime(0), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
    }

    fn key(stream: &str) -> StreamKey {
        StreamKey::new(DOMAIN, "live", stream).expect("a key")
    }

    fn publishers(push_key: &str, service: Service, clock: FixedClock) -> Publishers {
        let service = Arc::new(ArcSwap::from_pointee(service));
        Publishers::new(Secret::new(push_key), service, Arc::new(clock))
    }

    fn check(push_key: &str, clock: FixedClock, stream: &str, query: &str) -> Result<(), String> {
        publishers(push_key, Service::default(), clock).check(&key(stream), query)
    }

    fn at(unix_s: i64) -> FixedClock {
        FixedClock(ClockQuality::Trusted, unix_s)
    }

    fn before() -> FixedClock {
        at(i64::from(EXPIRES_S))
    }

    #[test]
    fn only_a_url_made_with_the_key_is_let_in() {
        let right = push_query(&Secret::new(KEY), "cam01", EXPIRES_S);
        assert_eq!(check(KEY, before(), "cam01", &right), Ok(()));
        let refused = |clock, stream, query| check(KEY, clock, stream, query).expect_err("refused");
        assert!(refused(before(), "cam02", &right).contains("18/503"));
        assert!(refused(before(), "cam01", "").contains("18/500"));
        let late = at(i64::from(EXPIRES_S) + 1);
        assert!(refused(late, "cam01", &right).contains("18/501"));
        let never_set = FixedClock(ClockQuality::Untrusted, i64::from(EXPIRES_S) + 1);
        assert_eq!(check(KEY, never_set, "cam01", &right), Ok(()));
    }

    #[test]
    fn without_a_key_everybody_is_let_in() {
        assert_eq!(check("", before(), "cam01", ""), Ok(()));
    }

    #[test]
    fn keys_of_the_domain_decide_every_case_of_the_vectors() {
        let vectors = include_str!("../../tests/data/contracts/push_auth.json");
        let vectors: Value = serde_json::from_str(vectors).expect("JSON");
        let cases = vectors["verification"].as_array().expect("cases");
        assert_eq!(cases.len(), 10, "the vectors are complete");
        for case in cases {
            let secret = |name: &str| Some(Secret::new(case[name].as_str().expect("text")));
            let delta_s = case["auth_delta"].as_u64().and_then(|delta| u32::try_from(delta).ok());
            let edit = PushKeyEdit {
                enabled: Some(true),
                master: secret("master_key"),
                backup: secret("backup_key"),
                delta_s,
            };
            let mut service = Service::default();
            let edited =
                service.push_keys.edit(DOMAIN, edit, &Secret::default(), &mut Changes::new());
            edited.expect("made");
            let pair = |field, name| case[field].as_str().map(|value| format!("{name}={value}"));
            let pairs = [pair("tx_secret", "txSecret"), pair("tx_time", "txTime")];
            let query = pairs.into_iter().flatten().collect::<Vec<_>>().join("&");
            let stream = case["stream_name"].as_str().expect("text");
            // The key of the configuration is another one: the domain's own win.
            let publishers = publishers("boxkey", service, at(case["now"].as_i64().expect("s")));
            let checked = publishers.check(&key(stream), &query);
            assert_eq!(checked.is_ok(), case["expect"] == "accept", "{case}");
            if let Err(why) = checked {
                assert!(why.contains(case["cloud_error_code"].as_str().expect("text")), "{case}");
            }
        }
    }

    #[test]
    fn a_banned_stream_is_refused_after_a_look_at_its_keys() {
        let banned = |clock: FixedClock| {
            let mut service = Service::default();
            let limits = ServiceLimits::default();
            let now = before().now().wall;
            let (forbids, changes) = (&mut service.forbids, &mut Changes::new());
            forbids.forbid(&key("cam01"), None, "", now, &limits, changes).expect("made");
            publishers(KEY, service, clock)
        };
        let right = |stream| push_query(&Secret::new(KEY), stream, u32::MAX);
        let why = banned(before()).check(&key("cam01"), &right("cam01")).expect_err("banned");
        assert!(why.contains("18/305"), "{why}");
        let why = banned(before()).check(&key("cam01"), "").expect_err("a stranger");
        assert!(why.contains("18/500"), "{why}");
        assert_eq!(banned(before()).check(&key("cam02"), &right("cam02")), Ok(()));
        let after = i64::from(EXPIRES_S) + 7 * 86_400;
        assert_eq!(banned(at(after)).check(&key("cam01"), &right("cam01")), Ok(()));
        let never_set = FixedClock(ClockQuality::Untrusted, after);
        assert!(banned(never_set).check(&key("cam01"), &right("cam01")).is_err());
    }

    #[test]
    fn a_secret_in_a_stream_name_is_not_shown() {
        assert_eq!(shown(&key("cam01")), "push.example.com/live/cam01");
        assert!(!shown(&key("cam01&txSecret=abcd")).contains("abcd"));
    }
}
