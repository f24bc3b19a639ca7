//! Signed URLs: who has one may read what lies at and below a path until a time.
//!
//! `?expires=UNIX_SECONDS&sig=HEX`, where `sig` is the HMAC-SHA256, keyed with the SecretKey, of
//! `PATH?expires=UNIX_SECONDS`. PATH is the path of the URL as it is sent, percent-encoding
//! included, without query and host.
//!
//! A signature holds for its path and for every path below it: signing `/files/ID` covers the
//! redirect, the file, and playlist and segments of an HLS file. What a signature is made for must
//! have at least two parts, so that nothing opens all files at once. A path with an empty part,
//! `.` or `..` is never accepted, so `below` means what it says. While the clock of the box was
//! never set, the time cannot be judged and is not.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::secret::Secret;
use crate::domain::time::{ClockQuality, UnixMillis, WallTime};

/// Parts that a signed path has at least.
const PARTS_MIN: usize = 2;
/// Parts that a path has at most; one HMAC is computed for each.
const PARTS_MAX: usize = 8;
/// Hex digits of a signature.
const SIG_DIGITS: usize = 64;

/// Why a URL is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not both of them, or one twice, or not in their form.
    #[error("the URL needs `expires` and `sig`, once each")]
    Missing,
    /// Made with another key, for another path or time.
    #[error("the signature does not fit")]
    Wrong,
    /// Too late.
    #[error("the URL has expired")]
    Expired,
}

/// The query that opens `path` and what lies below it until `expires_s` (Unix seconds).
#[must_use]
pub fn sign(key: &Secret, path: &str, expires_s: u64) -> String {
    let digest = mac(key, path, expires_s).finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("expires={expires_s}&sig={hex}")
}

/// Checks the query of a request for `path`; gives the time until which it holds (Unix seconds).
///
/// # Errors
/// Says what is wrong; an expired signature is only told from a wrong one if it is right.
pub fn verify(
    key: &Secret,
    path: &str,
    query: Option<&str>,
    now: WallTime,
) -> Result<u64, SignatureError> {
    let (expires_s, sig) = read_query(query.unwrap_or_default()).ok_or(SignatureError::Missing)?;
    let fits = |signed: &str| mac(key, signed, expires_s).verify_slice(&sig).is_ok();
    // All are tried, whichever fits: how long it takes tells nothing.
    let found = signable(path).filter(|signed| fits(signed)).count();
    if found == 0 {
        return Err(SignatureError::Wrong);
    }
    let UnixMillis(now_ms) = now.unix;
    let over = u128::from(expires_s) * 1_000 <= u128::try_from(now_ms).unwrap_or(0);
    if over && now.quality == ClockQuality::Trusted {
        return Err(SignatureError::Expired);
    }
    Ok(expires_s)
}

/// The path and those above it, as far as one may be signed.
fn signable(path: &str) -> impl Iterator<Item = &str> {
    let parts: Vec<&str> = path.strip_prefix('/').unwrap_or("").split('/').collect();
    let sound = parts.len() <= PARTS_MAX
        && path.starts_with('/')
        && parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
    let count = if sound { parts.len() } else { 0 };
    let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
    ends.take(count).skip(PARTS_MIN - 1).map(|end| &path[..end])
}

fn mac(key: &Secret, path: &str, expires_s: u64) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes());
    let mut mac = mac.expect("a key may have any length");
    mac.update(format!("{path}?expires={expires_s}").as_bytes());
    mac
}

/// Time and signature, each given once; other parameters do not matter.
fn read_query(query: &str) -> Option<(u64, Vec<u8>)> {
    let value = |name: &str| {
        let mut found = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(key, value)| (key == name).then_some(value));
        let value = found.next()?;
        found.next().is_none().then_some(value)
    };
    let expires = value("expires")?;
    // One text for one time: what is signed is the text.
    let expires_s: u64 =
        expires.parse().ok().filter(|number: &u64| number.to_string() == expires)?;
    Some((expires_s, read_hex(value("sig")?)?))
}

fn read_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() != SIG_DIGITS {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPIRES_S: u64 = 1_800_000_000;

    fn at(unix_s: i64) -> WallTime {
        WallTime { unix: UnixMillis(unix_s * 1_000), quality: ClockQuality::Trusted }
    }

    fn key() -> Secret {
        Secret::new("canary")
    }

    fn check(path: &str, query: &str) -> Result<u64, SignatureError> {
        verify(&key(), path, Some(query), at(1_799_999_999))
    }

    #[test]
    fn the_signature_is_what_openssl_says() {
        // printf %s '/files/7?expires=1800000000' | openssl dgst -sha256 -hmac canary
        let query = sign(&key(), "/files/7", EXPIRES_S);
        assert_eq!(query, EXPECTED_QUERY);
    }

    const EXPECTED_QUERY: &str = "expires=1800000000&sig=\
        c7e6c0c55a6a4139d272763a440f06e924fb9beee29bbe5849fab6eed7844fb4";

    #[test]
    fn a_signature_holds_for_its_path_and_below_until_its_time() {
        let query = sign(&key(), "/files/7", EXPIRES_S);
        for path in ["/files/7", "/files/7/index.m3u8", "/files/7/0.ts", "/files/7/a%2Fb.mp4"] {
            assert_eq!(check(path, &query), Ok(EXPIRES_S), "{path}");
            assert_eq!(check(path, &format!("x=y&{query}&z")), Ok(EXPIRES_S), "{path}");
            let late = verify(&key(), path, Some(&query), at(1_800_000_000));
            assert_eq!(late, Err(SignatureError::Expired));
            let other = verify(&Secret::new("other"), path, Some(&query), at(0));
            assert_eq!(other, Err(SignatureError::Wrong));
        }
        // A clock that was never set says nothing about age, as with the cloud API's signatures.
        let blind = WallTime { quality: ClockQuality::Untrusted, ..at(1_900_000_000) };
        assert_eq!(verify(&key(), "/files/7", Some(&query), blind), Ok(EXPIRES_S));
        for path in ["/files/77", "/files/8", "/files", "/", "", "files/7", "/files/7/../8"] {
            assert_eq!(check(path, &query), Err(SignatureError::Wrong), "{path}");
        }
        for path in ["/files/7/", "/files//7", "/files/7//a", "/files/7/./a", "/a/b/c/d/e/f/g/h/i"]
        {
            let own = sign(&key(), path, EXPIRES_S);
            assert_eq!(check(path, &own), Err(SignatureError::Wrong), "{path}");
        }
    }

    #[test]
    fn nothing_opens_all_files_and_a_file_does_not_open_its_folder() {
        for short in ["/files", "/", ""] {
            let query = sign(&key(), short, EXPIRES_S);
            for path in ["/files/7", "/files", short] {
                assert_eq!(check(path, &query), Err(SignatureError::Wrong), "{short} {path}");
            }
        }
        let query = sign(&key(), "/files/7/0.ts", EXPIRES_S);
        assert!(check("/files/7/0.ts", &query).is_ok());
        for path in ["/files/7", "/files/7/1.ts", "/files/7/index.m3u8"] {
            assert_eq!(check(path, &query), Err(SignatureError::Wrong), "{path}");
        }
    }

    #[test]
    fn both_parameters_are_needed_once_and_in_their_form() {
        let query = sign(&key(), "/files/7", EXPIRES_S);
        let (expires, sig) = query.split_once('&').expect("both");
        let hex = sig.strip_prefix("sig=").expect("hex");
        for bad in [
            String::new(),
            expires.to_owned(),
            sig.to_owned(),
            format!("{query}&{sig}"),
            format!("{query}&{expires}"),
            format!("expires=+1800000000&{sig}"),
            format!("expires=01800000000&{sig}"),
            format!("expires=99999999999999999999999&{sig}"),
            format!("{expires}&sig={}", &hex[1..]),
            format!("{expires}&sig=0x{}", &hex[2..]),
            format!("{expires}&sig=é{}", &hex[2..]),
        ] {
            assert_eq!(check("/files/7", &bad), Err(SignatureError::Missing), "{bad}");
        }
        assert_eq!(verify(&key(), "/files/7", None, at(0)), Err(SignatureError::Missing));
        // Later by one second: signed was something else.
        let tampered = query.replace("1800000000", "1800000001");
        assert_eq!(check("/files/7", &tampered), Err(SignatureError::Wrong));
    }

    proptest! {
        #[test]
        fn no_query_or_path_panics_or_opens(path in "/?[a-z./%]{0,40}", query in "[a-z0-9=&+%é]{0,120}") {
            prop_assert!(check(&path, &query).is_err());
        }
    }
}
