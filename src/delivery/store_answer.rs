//! What object stores answer (S3, COS), read tolerantly: stores differ in name spaces, in the order of
//! elements and in what they leave out. Texts are at most 64 KiB.

use std::time::Duration;

use hyper::header::{ETAG, HeaderMap};

use crate::delivery::error::{DeliveryError, clean};

/// Longest code or message that is kept, in characters.
const WORDS_CHARS_MAX: usize = 200;
/// Longest ETag or upload name that is kept, in bytes.
const TOKEN_BYTES_MAX: usize = 1024;

/// The text of the first element `tag` that has no elements inside; `None` if there is none.
pub(super) fn element(xml: &str, tag: &str) -> Option<String> {
    let mut rest = xml;
    loop {
        let start = rest.find('<')?;
        rest = &rest[start + 1..];
        let name_end = rest.find(|c: char| c == '>' || c == '/' || c.is_whitespace())?;
        let (name, after) = rest.split_at(name_end);
        if name != tag {
            continue;
        }
        let (tag_end, body) = after.split_once('>')?;
        if tag_end.ends_with('/') {
            return None;
        }
        let text = &body[..body.find('<')?];
        return body[text.len()..].starts_with("</").then(|| unescape(text.trim()));
    }
}

/// Whether the text has an element `tag`.
pub(super) fn has_element(xml: &str, tag: &str) -> bool {
    xml.match_indices('<').any(|(at, _)| {
        xml[at + 1..].strip_prefix(tag).is_some_and(|rest| {
            rest.starts_with(|c: char| c == '>' || c == '/' || c.is_whitespace())
        })
    })
}

fn unescape(text: &str) -> String {
    // The ampersand comes last, so that nothing is undone twice.
    text.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// The error that an answer tells of; `wait` is how long it asks to wait.
pub(super) fn refusal(status: u16, wait: Option<Duration>, text: &str) -> DeliveryError {
    let words = |tag| element(text, tag).map(|words| clean(&words, WORDS_CHARS_MAX));
    DeliveryError::Refused {
        status,
        code: words("Code").unwrap_or_else(|| default_code(status).to_owned()),
        message: words("Message").unwrap_or_else(|| "no reason given".to_owned()),
        wait,
    }
}

/// Codes for answers without a text, as those to HEAD.
fn default_code(status: u16) -> &'static str {
    match status {
        300..=399 => "Redirect",
        403 => "AccessDenied",
        404 => "NotFound",
        _ => "Unspecified",
    }
}

/// The name of the upload that an answer says was begun.
pub(super) fn begun_upload(text: &str) -> Result<String, DeliveryError> {
    has_element(text, "InitiateMultipartUploadResult")
        .then(|| element(text, "UploadId"))
        .flatten()
        .and_then(|id| usable_token(&id))
        .ok_or_else(|| DeliveryError::NoSense("no upload was begun".to_owned()))
}

/// Whether an answer of 200 says that the parts were put together: it may tell of an error.
pub(super) fn completed_upload(text: &str) -> Result<(), DeliveryError> {
    if has_element(text, "Error") {
        // The status belongs to the error that the text tells of.
        let status = if text.contains("NoSuchUpload") { 404 } else { 200 };
        return Err(refusal(status, None, text));
    }
    if has_element(text, "CompleteMultipartUploadResult") {
        return Ok(());
    }
    Err(DeliveryError::NoSense("no upload was completed".to_owned()))
}

/// Whether the store no longer knows the multipart upload.
pub(super) fn upload_is_gone(error: &DeliveryError) -> bool {
    matches!(error, DeliveryError::Refused { status: 404, code, .. } if code == "NoSuchUpload")
}

/// The ETag of an answer, as given.
pub(super) fn etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    usable_token(etag)
}

/// A name that the store made, if it is of a sane length.
pub(super) fn usable_token(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= TOKEN_BYTES_MAX).then(|| text.to_owned())
}

/// Whether an ETag, quoted or not, is this checksum.
pub(super) fn etag_is(etag: &str, checksum: &str) -> bool {
    etag.trim_matches('"').eq_ignore_ascii_case(checksum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_with_and_without_name_space() {
        let aws = "<?xml version=\"1.0\"?>\n<InitiateMultipartUploadResult xmlns=\"http://s3\">\
                   <Bucket>b</Bucket><UploadId> a&amp;b&quot; </UploadId></InitiateMultipartUploadResult>";
        assert_eq!(element(aws, "UploadId").as_deref(), Some("a&b\""));
        assert_eq!(element(aws, "Upload"), None);
        assert_eq!(element(aws, "InitiateMultipartUploadResult"), None);
        assert!(has_element(aws, "InitiateMultipartUploadResult"));
        assert!(!has_element(aws, "Initiate"));
        assert_eq!(element("<a><UploadId/></a>", "UploadId"), None);
        assert_eq!(element("&amp;lt;", "x"), None);
    }

    #[test]
    fn refusals_have_a_code_even_without_a_text() {
        let text = "<Error><Code>NoSuchUpload</Code><Message>gone\n\x1b[0m</Message></Error>";
        let error = refusal(404, None, text);
        assert!(upload_is_gone(&error));
        assert_eq!(error.explain(), "target answered 404 NoSuchUpload: gone  [0m");
        assert!(!upload_is_gone(&refusal(404, None, "")));
        assert!(refusal(307, None, "<html>").to_string().contains("307 Redirect"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[<>/A ]{0,30}|\\PC{0,60}") {
            let _ = element(&text, "A");
            let _ = has_element(&text, "A");
            let _ = refusal(500, None, &text);
        }
    }
}
