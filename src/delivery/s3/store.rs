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
use crate::delivery::http::{HttpClient, RequestBody, retry_after};
use crate::delivery::object_store::{ObjectAt, ObjectStore, Stored, Taken};
use crate::delivery::s3::signer::Signer;
use crate::delivery::store_answer::{begun_upload, completed_upload, etag, refusal};

/// Stores put many parts together before they answer.
const COMPLETE_ANSWER: Duration = Duration::from_secs(600);

/// A bucket, reached over HTTP.
pub(super) struct Store {
    pub(super) http: HttpClient,
    pub(super) signer: Signer,
}

impl ObjectStore for Store {
    async fn put(&self, at: &ObjectAt, body: RequestBody) -> Result<Taken, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&PutObject::new(&signer.bucket, Some(&signer.credentials), &at.key));
        let answer = self.call(Method::PUT, &url, Some(at.content_type), body).await?;
        Ok(Taken { etag: self.etag_of(answer).await?, crc64: None })
    }

    async fn create_upload(&self, at: &ObjectAt) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let action = CreateMultipartUpload::new(&signer.bucket, Some(&signer.credentials), &at.key);
        let url = signer.sign(&action);
        let answer =
            self.call(Method::POST, &url, Some(at.content_type), RequestBody::whole("")).await?;
        let text = self.http.text(answer).await?;
        begun_upload(&text)
    }

    async fn put_part(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        number: u16,
        body: RequestBody,
    ) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let (bucket, credentials) = (&signer.bucket, Some(&signer.credentials));
        let url = signer.sign(&UploadPart::new(bucket, credentials, &at.key, number, upload_id));
        let answer = self.call(Method::PUT, &url, None, body).await?;
        self.etag_of(answer).await
    }

    async fn complete_upload(
        &self,
        at: &ObjectAt,
        upload_id: &str,
        etags: &[String],
    ) -> Result<(), DeliveryError> {
        let signer = &self.signer;
        let action = CompleteMultipartUpload::new(
            &signer.bucket,
            Some(&signer.credentials),
            &at.key,
            upload_id,
            etags.iter().map(String::as_str),
        );
        let url = signer.sign(&action);
        let request = request(Method::POST, &url, None, RequestBody::whole(action.body()))?;
        let answer = self.http.send_within(request, COMPLETE_ANSWER).await?;
        let answer = self.accept(answer).await?;
        // Some stores send blanks while they are at it.
        let text = self.http.text_within(answer, COMPLETE_ANSWER).await?;
        completed_upload(&text)
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<(), DeliveryError> {
        let signer = &self.signer;
        let action =
            AbortMultipartUpload::new(&signer.bucket, Some(&signer.credentials), key, upload_id);
        let url = signer.sign(&action);
        self.call(Method::DELETE, &url, None, RequestBody::whole("")).await.map(drop)
    }

    async fn head(&self, at: &ObjectAt) -> Result<Option<Stored>, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&HeadObject::new(&signer.bucket, Some(&signer.credentials), &at.key));
        let answer = match self.call(Method::HEAD, &url, None, RequestBody::whole("")).await {
            Err(DeliveryError::Refused { status: 404, .. }) => return Ok(None),
            answer => answer?,
        };
        let len =
            answer.headers().get(CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
        match (len, etag(answer.headers())) {
            (Some(len), Some(etag)) => Ok(Some(Stored { len, etag, crc64: None })),
            _ => Err(DeliveryError::NoSense("an object without length or ETag".to_owned())),
        }
    }

    async fn read_back(&self, at: &ObjectAt) -> Result<String, DeliveryError> {
        let signer = &self.signer;
        let url = signer.sign(&GetObject::new(&signer.bucket, Some(&signer.credentials), &at.key));
        let answer = self.call(Method::GET, &url, None, RequestBody::whole("")).await?;
        let mut sum = RunningSha256::default();
        let mut read: u64 = 0;
        self.http
            .drain(answer, |bytes| {
                read += bytes.len() as u64;
                if read > at.len {
                    return Err(DeliveryError::Corrupt("it is longer".to_owned()));
                }
                sum.update(bytes);
                Ok(())
            })
            .await?;
        Ok(sum.hex())
    }
}

impl Store {
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
            self.signer.clock.adopt(answer.headers());
        }
        let wait = retry_after(answer.headers());
        // The status is the news; a text that cannot be read takes nothing from it.
        let text = self.http.text(answer).await.unwrap_or_default();
        Err(refusal(status.as_u16(), wait, &text))
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
