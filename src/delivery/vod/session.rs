//! An upload session as the platform opened it: where the objects go, with which credentials, and
//! the key that commits it. Saved with the progress of a file, so that a restart goes on in it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::delivery::error::DeliveryError;
use crate::domain::secret::Secret;
use crate::domain::time::UnixMillis;

/// Longest key of an object, in bytes.
const KEY_BYTES_MAX: usize = 850;
/// Credentials that are good for less than this are no longer used, in seconds.
const LIFE_LEFT_S_MIN: i64 = 60;

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VodSession {
    /// What commits it; a secret of a kind, as nobody else may.
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    pub key: Secret,
    /// Complete name of the bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Path of the file or playlist, with its leading `/`.
    pub path: String,
    /// Temporary credentials; `None`: those of the account.
    pub certificate: Option<Certificate>,
    /// All objects are there: from here on the session is only committed, never filled.
    pub committing: bool,
    /// How often the commit was refused and a search found nothing.
    pub refusals: u32,
}

/// Temporary credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Names the key.
    pub secret_id: String,
    /// Signs.
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    pub secret_key: Secret,
    /// Goes with each request.
    #[serde(serialize_with = "expose", deserialize_with = "hide")]
    pub token: Secret,
    /// Until when, Unix seconds.
    pub expires_s: i64,
}

impl VodSession {
    /// A session that was just opened.
    ///
    /// # Errors
    /// Bucket, region or path are not what they can be: what is asked for them would go anywhere.
    pub(super) fn open(
        key: &str,
        (bucket, region): (&str, &str),
        path: &str,
        certificate: Option<Certificate>,
    ) -> Result<Self, DeliveryError> {
        let label = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let steps = path.strip_prefix('/').unwrap_or_default();
        let plain = steps.len() <= KEY_BYTES_MAX
            && !steps.chars().any(char::is_control)
            && !steps.split('/').any(|step| matches!(step, "" | "." | ".."));
        if key.is_empty() || !label(bucket) || !label(region) || !plain {
            return Err(DeliveryError::NoSense("an upload session that leads nowhere".to_owned()));
        }
        Ok(VodSession {
            key: Secret::new(key),
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            path: path.to_owned(),
            certificate,
            committing: false,
            refusals: 0,
        })
    }

    /// Where an object lies: the file or playlist itself, the others in its folder.
    pub(super) fn object_path(&self, object: &str, playlist: &str) -> String {
        if object.is_empty() || object == playlist {
            return self.path.clone();
        }
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{object}")
    }

    /// Whether objects can still be sent at `now`.
    pub(super) fn can_be_filled(&self, now: UnixMillis) -> bool {
        let certificate = self.certificate.as_ref();
        certificate.is_none_or(|c| c.expires_s - now.0.div_euclid(1_000) >= LIFE_LEFT_S_MIN)
    }
}

fn expose<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

fn hide<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(|text| Secret::new(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(path: &str) -> Result<VodSession, DeliveryError> {
        let certificate = Certificate {
            secret_id: "AKID".into(),
            secret_key: Secret::new("canary"),
            token: Secret::new("canary"),
            expires_s: 1_000,
        };
        VodSession::open("canary", ("box-1250000000", "ap-guangzhou"), path, Some(certificate))
    }

    #[test]
    fn it_is_saved_whole_and_shows_no_secret() {
        let session = session("/a/1/f0.m3u8").expect("good");
        assert!(!format!("{session:?}").contains("canary"), "{session:?}");
        let saved = serde_json::to_string(&session).expect("plain fields");
        assert_eq!(serde_json::from_str::<VodSession>(&saved).expect("own form"), session);
    }

    #[test]
    fn segments_lie_beside_the_playlist() {
        let session = session("/a/1/f0.m3u8").expect("good");
        assert_eq!(session.object_path("index.m3u8", "index.m3u8"), "/a/1/f0.m3u8");
        assert_eq!(session.object_path("3.ts", "index.m3u8"), "/a/1/3.ts");
        assert_eq!(session.object_path("", ""), "/a/1/f0.m3u8");
    }

    #[test]
    fn a_session_that_leads_elsewhere_is_refused() {
        for path in ["", "a/b", "/a/../b", "//b", "/a/", "/a\n/b"] {
            assert!(session(path).is_err(), "{path:?}");
        }
        for bucket in ["", "evil.example.com/", "a@b", "a.b"] {
            assert!(VodSession::open("k", (bucket, "r"), "/a", None).is_err(), "{bucket:?}");
        }
    }

    #[test]
    fn credentials_are_not_used_in_their_last_minute() {
        let session = session("/a/b").expect("good");
        assert!(session.can_be_filled(UnixMillis(940_000)));
        assert!(!session.can_be_filled(UnixMillis(941_000)));
    }
}
