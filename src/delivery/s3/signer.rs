//! Signed addresses of S3 requests. A signed address is a secret for an hour: it is never logged.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use url::{Host, Url};

use crate::delivery::error::DeliveryError;
use crate::delivery::server_clock::ServerClock;
use crate::delivery::settings::S3Settings;
use crate::platform::clock::Clock;

/// How long a signed address is good.
const SIGNATURE_LIFE: Duration = Duration::from_secs(3600);
/// Services that want the bucket in the host name; others have it in the path.
const BUCKET_IN_HOST: [&str; 3] = [".amazonaws.com", ".myqcloud.com", ".aliyuncs.com"];

/// Makes signed addresses for one bucket.
pub(super) struct Signer {
    pub(super) bucket: Bucket,
    pub(super) credentials: Credentials,
    pub(super) clock: ServerClock,
}

impl Signer {
    pub(super) fn new(settings: &S3Settings, clock: Arc<dyn Clock>) -> Result<Self, DeliveryError> {
        let wrong = |what: &str| DeliveryError::Settings(what.to_owned());
        let endpoint =
            Url::parse(&settings.endpoint).map_err(|_| wrong("the endpoint is no address"))?;
        if settings.bucket.is_empty() || settings.bucket.contains('/') {
            return Err(wrong("the bucket has no usable name"));
        }
        let style = url_style(&endpoint, &settings.bucket);
        let bucket = Bucket::new(endpoint, style, settings.bucket.clone(), settings.region.clone())
            .map_err(|error| DeliveryError::Settings(format!("the endpoint: {error}")))?;
        let credentials = Credentials::new(
            settings.access_key_id.clone(),
            settings.secret_access_key.expose().to_owned(),
        );
        Ok(Signer { bucket, credentials, clock: ServerClock::new(clock) })
    }

    /// The signed address of a request.
    pub(super) fn sign<'a>(&self, action: &impl S3Action<'a>) -> Url {
        let now = Timestamp::from_millisecond(self.clock.now().0).unwrap_or(Timestamp::UNIX_EPOCH);
        action.sign_with_time(SIGNATURE_LIFE, &now)
    }
}

/// Where the bucket's name goes.
fn url_style(endpoint: &Url, bucket: &str) -> UrlStyle {
    let label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match endpoint.host() {
        Some(Host::Domain(host))
            if BUCKET_IN_HOST.iter().any(|suffix| host.ends_with(suffix))
                && bucket.bytes().all(label) =>
        {
            UrlStyle::VirtualHost
        }
        _ => UrlStyle::Path,
    }
}

#[cfg(test)]
mod tests {
    use rusty_s3::actions::UploadPart;

    use super::*;
    use crate::domain::ids::BootId;
    use crate::domain::secret::Secret;
    use crate::domain::time::{BootTime, ClockQuality, Instant, UnixMillis, WallTime};

    struct FixedClock(i64);

    impl Clock for FixedClock {
        fn now(&self) -> Instant {
            let wall = WallTime { unix: UnixMillis(self.0), quality: ClockQuality::Trusted };
            Instant { boot: BootTime(0), wall }
        }

        fn boot_id(&self) -> BootId {
            BootId([1; 16])
        }
    }

    fn signer(endpoint: &str, unix_ms: i64) -> Signer {
        let settings = S3Settings {
            endpoint: endpoint.into(),
            bucket: "box-files".into(),
            region: "us-east-1".into(),
            access_key_id: "AKID".into(),
            secret_access_key: Secret::new("secret"),
            prefix: String::new(),
        };
        Signer::new(&settings, Arc::new(FixedClock(unix_ms))).expect("good settings")
    }

    fn part_url(signer: &Signer) -> Url {
        let key = "d/a/%E6%97%A5/x.mp4";
        signer.sign(&UploadPart::new(&signer.bucket, Some(&signer.credentials), key, 3, "up+/="))
    }

    /// The expected address was computed with botocore 1.44 (`S3SigV4QueryAuth`).
    #[test]
    fn address_is_the_one_botocore_computes() {
        let url = part_url(&signer("http://127.0.0.1:9000", 1_790_000_000_000));
        assert_eq!(url.as_str(), EXPECTED_PART_URL);
    }

    const EXPECTED_PART_URL: &str = "http://127.0.0.1:9000/box-files/d/a/%25E6%2597%25A5/x.mp4?\
         X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20260921%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20260921T141320Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&partNumber=3\
         &uploadId=up%2B%2F%3D&X-Amz-Signature=6924153944e5216a4b4fd2ebf573e43549b4c31a80b59ee346ddc98605b8ee7e";

    #[test]
    fn bucket_goes_where_the_service_wants_it() {
        for (endpoint, expected) in [
            ("https://cos.ap-guangzhou.myqcloud.com", "box-files.cos.ap-guangzhou.myqcloud.com/d"),
            ("https://s3.eu-west-1.amazonaws.com", "box-files.s3.eu-west-1.amazonaws.com/d"),
            ("http://10.0.0.3:9000", "10.0.0.3:9000/box-files/d"),
            ("https://minio.example.com", "minio.example.com/box-files/d"),
        ] {
            let url = signer(endpoint, 0).bucket.object_url("d");
            assert!(url.as_str().ends_with(&format!("//{expected}")), "{url}");
        }
    }
}
