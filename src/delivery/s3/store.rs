//! The S3 requests that delivery makes, one method each.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use rusty_s3::actions::{
    AbortMultipartUpload, CompleteMultipartUpload, CreateMultipartUpload, GetObject, HeadObject,
    PutObject, UploadPart,
};
use url::Url;

use crate::delivery::checksum::RunningSha256;
use crate::delivery::error::DeliveryError;
use crate::delivery::http::{HttpClient, RequestBody};
use crate::delivery::s3::answer::{element, etag, has_element, refusal, usable_token};
use crate::delivery::s3::signer::Signer;

/// Stores put many parts together before they answer.
const COMPLETE_ANSWER: Duration = Duration::from_secs(600);

/// A bucket, reached over HTTP.
pub(super) struct Store {
    pub(super) http: HttpClient,
    pub(super) signer: Signer,
}

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) len: u64,
    pub(super) etag: String,
}

impl Store {
    /// Stores an object in one request; its ETag.
    pub(super) async fn put(
        &self,
        key: &str,
        content_type: &'static str,
        body: RequestBody,
    ) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&PutObject::new(&signer.bucket, Some(&signer.credentials), key));
        let answer = self.call(Method::PUT, &url, Some(content_type), body).await?;
        self.etag_of(answer).await
    }

    /// Begins a multipart upload; its name.
    pub(super) async fn create_upload(
        &self,
        key: &str,
        content_type: &'static str,
    ) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let action = CreateMultipartUpload::new(&signer.bucket, Some(&signer.credentials), key);
        let url = signer.sign(&action);
        let answer =
            self.call(Method::POST, &url, Some(content_type), RequestBody::whole("")).await?;
        let text = self.http.text(answer).await?;
        has_element(&text, "InitiateMultipartUploadResult")
            .then(|| element(&text, "UploadId"))
            .flatten()
            .and_then(|id| usable_token(&id))
            .ok_or_else(|| DeliveryError::NoSense("no upload was begun".to_owned()))
    }

    /// Sends one part; its ETag.
    pub(super) async fn put_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u16,
        body: RequestBody,
    ) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let (bucket, credentials) = (&signer.bucket, Some(&signer.credentials));
        let url = signer.sign(&UploadPart::new(bucket, credentials, key, number, upload_id));
        let answer = self.call(Method::PUT, &url, None, body).await?;
        self.etag_of(answer).await
    }

    /// Puts the parts together. A store may begin to answer 200 and still fail: only the right
    /// answer counts.
    pub(super) async fn complete_upload(
        &self,
        key: &str,
        upload_id: &str,
        etags: &[String],
    ) -> Result<(), DeliveryError> {
        let signer = &self.signer;
        let action = CompleteMultipartUpload::new(
            &signer.bucket,
            Some(&signer.credentials),
            key,
            upload_id,
            etags.iter().map(String::as_str),
        );
        let url = signer.sign(&action);
        let request = request(Method::POST, &url, None, RequestBody::whole(action.body()))?;
        let answer = self.http.send_within(request, COMPLETE_ANSWER).await?;
        let answer = self.accept(answer).await?;
        // Some stores send blanks while they are at it.
        let text = self.http.text_within(answer, COMPLETE_ANSWER).await?;
        if has_element(&text, "CompleteMultipartUploadResult") && !has_element(&text, "Error") {
            return Ok(());
        }
        if has_element(&text, "Error") {
            // The status belongs to the error that the text tells of.
            let status = if text.contains("NoSuchUpload") { 404 } else { 200 };
            return Err(refusal(status, &text));
        }
        Err(DeliveryError::NoSense("no upload was completed".to_owned()))
    }

    /// Gives an upload up, so that its parts take no room.
    pub(super) async fn abort_upload(
        &self,
        key: &str,
        upload_id: &str,
    ) -> Result<(), DeliveryError> {
        let signer = &self.signer;
        let action =
            AbortMultipartUpload::new(&signer.bucket, Some(&signer.credentials), key, upload_id);
        let url = signer.sign(&action);
        self.call(Method::DELETE, &url, None, RequestBody::whole("")).await.map(drop)
    }

    /// Length and ETag of an object; `None` if there is none.
    pub(super) async fn head(&self, key: &str) -> Result<Option<Stored>, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&HeadObject::new(&signer.bucket, Some(&signer.credentials), key));
        let answer = match self.call(Method::HEAD, &url, None, RequestBody::whole("")).await {
            Err(DeliveryError::Refused { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        let len =
            answer.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        match (len, etag(answer.headers())) {
            (Some(len), Some(etag)) => Ok(Some(Stored { len, etag })),
            _ => Err(DeliveryError::NoSense("an object without length or ETag".to_owned())),
        }
    }

    /// The SHA-256 of what is stored under a key, read back whole; at most `len` bytes are read.
    pub(super) async fn read_back(&self, key: &str, len: u64) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&GetObject::new(&signer.bucket, Some(&signer.credentials), key));
        let answer = self.call(Method::GET, &url, None, RequestBody::whole("")).await?;
        let mut sum = RunningSha256::default();
        let mut read: u64 = 0;
        self.http
            .drain(answer, |bytes| {
                read += bytes.len() as u64;
                if read > len {
                    return Err(DeliveryError::Corrupt("it is longer".to_owned()));
                }
                sum.update(bytes);
                Ok(())
            })
            .await?;
        Ok(sum.hex())
    }

    /// The address of an object, without a signature.
    pub(super) fn public_url(&self, key: &str) -> String {
        self.signer.bucket.object_url(key).to_string()
    }

    /// Sends a request; an answer that is not 2xx is an error.
    async fn call(
        &self,
        method: Method,
        url: &Url,
        content_type: Option<&'static str>,
        body: RequestBody,
    ) -> Result<Response<Incoming>, DeliveryError> {
        let answer = self.http.send(request(method, url, content_type, body)?).await?;
        self.accept(answer).await
    }

    /// An answer that is not 2xx is an error, and may tell us that our clock is wrong.
    async fn accept(
        &self,
        answer: Response<Incoming>,
    ) -> Result<Response<Incoming>, DeliveryError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        if status == StatusCode::FORBIDDEN || status == StatusCode::BAD_REQUEST {
            self.signer.adopt_clock(answer.headers());
        }
        // The status is the news; a text that cannot be read takes nothing from it.
        let text = self.http.text(answer).await.unwrap_or_default();
        Err(refusal(status.as_u16(), &text))
    }

    /// The ETag of an answer, whose body is read so that the connection can be used again.
    async fn etag_of(&self, answer: Response<Incoming>) -> Result<String, DeliveryError> {
        let etag = etag(answer.headers());
        self.http.text(answer).await?;
        etag.ok_or_else(|| DeliveryError::NoSense("an answer without ETag".to_owned()))
    }
}

fn request(
    method: Method,
    url: &Url,
    content_type: Option<&'static str>,
    body: RequestBody,
) -> Result<Request<RequestBody>, DeliveryError> {
    let mut builder = Request::builder().method(method).uri(url.as_str());
    if let Some(content_type) = content_type {
        builder = builder.header(CONTENT_TYPE, content_type);
    }
    builder
        .body(body)
        .map_err(|_| DeliveryError::Settings("endpoint and bucket make no address".to_owned()))
}
