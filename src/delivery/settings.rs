//! Settings of delivery as used: where files go and how many at a time. Secrets never show.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::secret::Secret;
use crate::domain::upload_plan::UploadPlan;

/// Where files go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSettings {
    /// A folder, for instance of a USB disk or a network share.
    Directory {
        /// The folder; it must exist, it is never made.
        root: PathBuf,
    },
    /// A bucket behind the S3 protocol.
    S3(S3Settings),
    /// The VOD platform.
    TencentVod(VodSettings),
}

/// A bucket and the right to write to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// `http://` or `https://` address of the service, without the bucket.
    pub endpoint: String,
    /// Name of the bucket.
    pub bucket: String,
    /// Region for the signature.
    pub region: String,
    /// Public half of the key.
    pub access_key_id: String,
    /// Secret half of the key.
    pub secret_access_key: Secret,
    /// In front of every key, without slashes at the ends; empty for none.
    pub prefix: String,
}

/// The VOD platform and the right to upload to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VodSettings {
    /// Address of the API, if not its public one.
    pub endpoint: Option<String>,
    /// Address of object storage, if not its public one.
    pub storage_endpoint: Option<String>,
    /// Where files are stored; `None` lets the platform choose.
    pub storage_region: Option<String>,
    /// The sub-application of files whose template names none.
    pub sub_app_id: Option<i64>,
    /// Public half of the account's key.
    pub secret_id: String,
    /// Secret half of the account's key.
    pub secret_key: Secret,
}

/// How delivery works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySettings {
    /// Files on their way at the same time, at least 1, each with one part or object; one more
    /// sets out if it is more pressing than all of them.
    pub parallel: usize,
    /// When and in which order.
    pub plan: UploadPlan,
    /// Uploads together take at most so many bytes a second.
    pub cap_bytes_per_s: Option<u64>,
    /// What is on its way when it is held up has so much time to come to the end of a part or
    /// object; then it is cut off.
    pub stop_grace: Duration,
    /// How long a target rests that failed.
    pub target_rest: Rest,
    /// How long a file rests that failed.
    pub file_rest: Rest,
}

/// Bounds of a rest after failures: random between zero and a bound that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The bound after the first failure.
    pub first: Duration,
    /// The bound never grows over this.
    pub longest: Duration,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        DeliverySettings {
            parallel: 2,
            plan: UploadPlan::default(),
            cap_bytes_per_s: None,
            stop_grace: Duration::from_secs(60),
            target_rest: Rest { first: Duration::from_secs(1), longest: Duration::from_secs(60) },
            file_rest: Rest { first: Duration::from_secs(5), longest: Duration::from_secs(600) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_has_no_secret() {
        let settings = TargetSettings::S3(S3Settings {
            endpoint: "https://s3.example.com".into(),
            bucket: "b".into(),
            region: "r".into(),
            access_key_id: "id".into(),
            secret_access_key: Secret::new("canary-5f2e"),
            prefix: String::new(),
        });
        assert!(!format!("{settings:?}").contains("canary"));
    }
}
