//! The object storage of one session (COS): requests signed with its temporary credentials.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, Response};
use url::Url;

use crate::delivery::checksum::RunningSha256;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{HttpClient, RequestBody, retry_after};
use crate::delivery::object_store::{ObjectAt, ObjectStore, Stored, Taken};
use crate::delivery::server_clock::ServerClock;
use crate::delivery::store_answer::{begun_upload, completed_upload, etag, refusal};
use crate::delivery::vod::session::VodSession;
use crate::domain::secret::Secret;
use crate::domain::stream_key::percent_encode;
use crate::wire::cloud::Credentials;
use crate::wire::cloud::cos::{self, CosRequest, KeyTime};

/// Where the bucket of a session is, unless the settings say otherwise.
const DOMAIN: &str = "myqcloud.com";
const TOKEN: &str = "x-cos-security-token";
const CRC64: &str = "x-cos-hash-crc64ecma";
/// It puts many parts together before it answers, and may send blanks meanwhile.
const COMPLETE_ANSWER: Duration = Duration::from_secs(1_200);
/// What an answer's code is when it was our clock that was refused.
const CLOCK_CODE: &str = "RequestTimeTooSkewed";

/// The bucket of a session.
pub(super) struct Bucket {
    http: Arc<HttpClient>,
    clock: Arc<ServerClock>,
    /// Without a `/` at the end.
    origin: String,
    /// The bucket's own host, by which it is known and signed for, wherever it is reached.
    host: String,
    credentials: Credentials,
    token: Option<Secret>,
}

/// What a request is about, beside its body.
#[derive(Clone, Copy)]
struct Subject<'a> {
    method: &'a Method,
    key: &'a str,
    params: &'a [(&'a str, &'a str)],
    content_type: Option<&'static str>,
}

impl Bucket {
    /// The bucket of a session. `origin` is where it is reached, if not at its public address;
    /// `account` signs where the session has no credentials of its own.
    pub(super) fn new(
        session: &VodSession,
        origin: Option<&Url>,
        account: &Credentials,
        http: Arc<HttpClient>,
        clock: Arc<ServerClock>,
    ) -> Self {
        let host = format!("{}.cos.{}.{DOMAIN}", session.bucket, session.region);
        let origin = match origin {
            Some(origin) => origin.as_str().trim_end_matches('/').to_owned(),
            None => format!("https://{host}"),
        };
        let (credentials, token) = match &session.certificate {
            None => (account.clone(), None),
            Some(certificate) => {
                let (id, key) = (certificate.secret_id.clone(), certificate.secret_key.clone());
                let credentials = Credentials { secret_id: id, secret_key: key };
                (credentials, Some(certificate.token.clone()))
            }
        };
        Bucket { http, clock, origin, host, credentials, token }
    }

    /// Sends a request; an answer that is not 2xx is an error.
    async fn call(
        &self,
        subject: Subject<'_>,
        body: RequestBody,
        patience: Option<Duration>,
    ) -> Result<Response<Incoming>, DeliveryError> {
        let request = self.request(subject, body)?;
        let answer = match patience {
            Some(patience) => self.http.send_within(request, patience).await?,
            None => self.http.send(request).await?,
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let skewed = matches!(status, 400 | 403) && self.clock.adopt(answer.headers());
        let wait = retry_after(answer.headers());
        // The status is the news; a text that cannot be read takes nothing from it.
        let text = self.http.text(answer).await.unwrap_or_default();
        Err(judged(refusal(status, wait, &text), skewed))
    }

    fn request(
        &self,
        subject: Subject<'_>,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, DeliveryError> {
        let len = body.len().to_string();
        let mut headers = vec![(HOST.as_str(), self.host.as_str())];
        headers.push((CONTENT_LENGTH.as_str(), &len));
        headers.extend(subject.content_type.map(|kind| (CONTENT_TYPE.as_str(), kind)));
        headers.extend(self.token.as_ref().map(|token| (TOKEN, token.expose())));
        let signed = CosRequest {
            method: subject.method.as_str(),
            path: subject.key,
            params: subject.params,
            headers: &headers,
        };
        let key_time = KeyTime::around(self.clock.now());
        let authorization = cos::authorization(&signed, &self.credentials, key_time);
        let mut builder = Request::builder()
            .method(subject.method)
            .uri(self.address(subject.key, subject.params))
            .header(AUTHORIZATION, authorization);
        for (name, value) in &headers {
            builder = builder.header(*name, *value);
        }
        builder
            .body(body)
            .map_err(|_| DeliveryError::NoSense("a session that makes no address".to_owned()))
    }

    fn address(&self, key: &str, params: &[(&str, &str)]) -> String {
        let mut address = self.origin.clone();
        for step in key.split('/').skip(1) {
            address.extend(["/", &percent_encode(step)]);
        }
        for (place, (name, value)) in params.iter().enumerate() {
            let mark = if place == 0 { '?' } else { '&' };
            write!(address, "{mark}{name}={}", percent_encode(value)).expect("a text takes all");
        }
        address
    }
}

impl ObjectStore for Bucket {
    async fn put(&self, at: &ObjectAt, body: RequestBody) -> Result<Taken, DeliveryError> {
        let content_type = Some(at.content_type);
        let subject = Subject { method: &Method::PUT, key: &at.key, params: &[], content_type };
        let answer = self.call(subject, body, None).await?;
        let (etag, crc64) = (etag(answer.headers()), crc64(answer.headers()));
        self.http.text(answer).await?;
        let etag = etag.ok_or_else(|| DeliveryError::NoSense("no ETag".to_owned()))?;
        Ok(Taken { etag, crc64 })
    }

    async fn create_upload(&self, at: &ObjectAt) -> Result<String, DeliveryError> {
        let subject = Subject {
            method: &Method::POST,
            key: &at.key,
            params: &[("uploads", "")],
            content_type: Some(at.content_type),
        };
        let answer = self.call(subject, RequestBody::whole(""), None).await?;
        begun_upload(&self.http.text(answer).await?)
    }

    async fn put_part(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        number: u16,
        body: RequestBody,
    ) -> Result<String, DeliveryError> {
        let number = number.to_string();
        let params = [("partNumber", number.as_str()), ("uploadId", upload_id)];
        let subject =
            Subject { method: &Method::PUT, key: &at.key, params: &params, content_type: None };
        let answer = self.call(subject, body, None).await?;
        let etag = etag(answer.headers());
        self.http.text(answer).await?;
        etag.ok_or_else(|| DeliveryError::NoSense("a part without ETag".to_owned()))
    }

    async fn complete_upload(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        etags: &[String],
    ) -> Result<(), DeliveryError> {
        let subject = Subject {
            method: &Method::POST,
            key: &at.key,
            params: &[("uploadId", upload_id)],
            content_type: Some("application/xml"),
        };
        let body = RequestBody::whole(part_list(etags));
        let answer = self.call(subject, body, Some(COMPLETE_ANSWER)).await?;
        completed_upload(&self.http.text_within(answer, COMPLETE_ANSWER).await?)
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), DeliveryError> {
        let params = [("uploadId", upload_id)];
        let subject = Subject { method: &Method::DELETE, key, params: &params, content_type: None };
        self.call(subject, RequestBody::whole(""), None).await.map(drop)
    }

    async fn head(&self, at: &ObjectAt) -> Result<Option<Stored>, DeliveryError> {
        let subject =
            Subject { method: &Method::HEAD, key: &at.key, params: &[], content_type: None };
        let answer = match self.call(subject, RequestBody::whole(""), None).await {
            Err(DeliveryError::Refused { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        let headers = answer.headers();
        let len = headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        match (len, etag(headers)) {
            (Some(len), Some(etag)) => Ok(Some(Stored { len, etag, crc64: crc64(headers) })),
            _ => Err(DeliveryError::NoSense("an object without length or ETag".to_owned())),
        }
    }

    async fn read_back(&self, at: &ObjectAt) -> Result<String, DeliveryError> {
        let subject =
            Subject { method: &Method::GET, key: &at.key, params: &[], content_type: None };
        let answer = self.call(subject, RequestBody::whole(""), None).await?;
        let (mut sum, mut read) = (RunningSha256::default(), 0);
        let take = |bytes: &[u8]| {
            read += bytes.len() as u64;
            if read > at.len {
                return Err(DeliveryError::Corrupt("it is longer".to_owned()));
            }
            sum.update(bytes);
            Ok(())
        };
        self.http.drain(answer, take).await?;
        Ok(sum.hex())
    }
}

/// What a refusal means: our clock, credentials that are no longer good, or what it says.
fn judged(error: DeliveryError, skewed: bool) -> DeliveryError {
    let DeliveryError::Refused { status, code, message, wait } = error else { return error };
    if skewed {
        return DeliveryError::Refused { status, code: CLOCK_CODE.to_owned(), message, wait };
    }
    let over = match code.as_str() {
        "ExpiredToken" | "InvalidAccessKeyId" | "InvalidToken" => true,
        "AccessDenied" => message.contains("expired"),
        _ => false,
    };
    if over {
        return DeliveryError::SessionOver(format!("{status} {code}: {message}"));
    }
    DeliveryError::Refused { status, code, message, wait }
}

fn crc64(headers: &HeaderMap) -> Option<u64> {
    headers.get(CRC64)?.to_str().ok()?.parse().ok()
}

/// The body that puts parts together.
fn part_list(etags: &[String]) -> String {
    let mut list = "<CompleteMultipartUpload>".to_owned();
    for (number, etag) in (1..).zip(etags) {
        let etag = etag.trim_matches('"').replace('&', "&amp;").replace('<', "&lt;");
        let part = format_args!(
            "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag></Part>"
        );
        list.write_fmt(part).expect("a text takes all");
    }
    list.push_str("</CompleteMultipartUpload>");
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str) -> DeliveryError {
        DeliveryError::Refused {
            status: 403,
            code: code.into(),
            message: message.into(),
            wait: None,
        }
    }

    #[test]
    fn only_what_credentials_are_refused_for_ends_a_session() {
        let over = |error| matches!(error, DeliveryError::SessionOver(_));
        assert!(over(judged(refused("ExpiredToken", ""), false)));
        assert!(over(judged(refused("AccessDenied", "Request has expired"), false)));
        assert!(!over(judged(refused("AccessDenied", "Access Denied."), false)));
        assert!(!over(judged(refused("AccessDenied", "Request has expired"), true)));
        assert!(!over(judged(refused("SlowDown", ""), false)));
    }

    #[test]
    fn parts_are_listed_in_order_with_quoted_etags() {
        let list = part_list(&["\"a\"".to_owned(), "b<".to_owned()]);
        assert_eq!(
            list,
            "<CompleteMultipartUpload>\
             <Part><PartNumber>1</PartNumber><ETag>&quot;a&quot;</ETag></Part>\
             <Part><PartNumber>2</PartNumber><ETag>&quot;b&lt;&quot;</ETag></Part>\
             </CompleteMultipartUpload>"
        );
    }
}
