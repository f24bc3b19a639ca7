//! Where a file lies in a directory or bucket: a relative path of percent-encoded parts, one for
//! every file, the same whatever the target.
//!
//! `{domain}/{app}/{stream}/{name}-{id8}.{ext}`; HLS is a folder `{name}-{id8}/` with
//! `index.m3u8` and the segments in it. Every part is percent-encoded outside `[A-Za-z0-9._-]`,
//! an empty part is `_`, `.` and `..` are encoded, and a part has at most [`PART_BYTES_MAX`]
//! bytes: the name is cut, never the suffix that keeps two files apart.

use std::fmt;
use std::str::FromStr;

use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::stream_key::{StreamKey, percent_encode};

/// Longest part of a path, in bytes as written.
pub const PART_BYTES_MAX: usize = 200;
/// The playlist of an HLS folder.
const PLAYLIST_NAME: &str = "index.m3u8";
/// Parts in front of the file: domain, app, stream.
const KEY_PARTS: usize = 3;

/// The relative path of a file, or of the playlist of an HLS file. Parts are between slashes;
/// none is empty, `.` or `..`, and none has a character that a file system or URL could misread.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectPath(String);

/// A text is no object path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectPathError {
    /// Not the number of parts that a path has.
    #[error("`{0}` is not DOMAIN/APP/STREAM/FILE or DOMAIN/APP/STREAM/FOLDER/FILE")]
    PartCount(String),
    /// A part that could lead out of the folder or is not in its encoded form.
    #[error("`{0}` is not a name in a path")]
    BadPart(String),
}

impl ObjectPath {
    /// The path of a file. `name` is the expanded file name, in plain text.
    #[must_use]
    pub fn new(key: &StreamKey, name: &str, file: FileId, format: FileFormat) -> Self {
        let folder = [key.domain(), key.app(), key.stream()]
            .map(|part| encode_part(part, PART_BYTES_MAX))
            .join("/");
        let suffix = match format {
            FileFormat::Hls => format!("-{}", file.short_hex()),
            FileFormat::Flv | FileFormat::Mp4 | FileFormat::Aac => {
                format!("-{}.{}", file.short_hex(), format.name())
            }
        };
        let stem = encode_part(name, PART_BYTES_MAX - suffix.len());
        match format {
            FileFormat::Hls => ObjectPath(format!("{folder}/{stem}{suffix}/{PLAYLIST_NAME}")),
            FileFormat::Flv | FileFormat::Mp4 | FileFormat::Aac => {
                ObjectPath(format!("{folder}/{stem}{suffix}"))
            }
        }
    }

    /// The path as text, parts between slashes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of one object of the file: the path itself for an empty name, else a neighbour
    /// of the playlist.
    ///
    /// # Errors
    /// The name is no plain file name.
    pub fn object(&self, name: &str) -> Result<String, ObjectPathError> {
        if name.is_empty() {
            return Ok(self.0.clone());
        }
        check_part(name)?;
        let folder = self.0.rsplit_once('/').map_or("", |(folder, _)| folder);
        Ok(format!("{folder}/{name}"))
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A path as stored; everything that [`ObjectPath::new`] cannot have made is refused.
impl FromStr for ObjectPath {
    type Err = ObjectPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').take(KEY_PARTS + 3).collect();
        if parts.len() != KEY_PARTS + 1 && parts.len() != KEY_PARTS + 2 {
            return Err(ObjectPathError::PartCount(text.to_owned()));
        }
        parts.into_iter().try_for_each(check_part)?;
        Ok(ObjectPath(text.to_owned()))
    }
}

/// Refuses what is no encoded part.
fn check_part(part: &str) -> Result<(), ObjectPathError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-%".contains(&byte);
    let harmless = !part.is_empty()
        && part.len() <= PART_BYTES_MAX
        && part != "."
        && part != ".."
        && part.bytes().all(plain);
    if harmless { Ok(()) } else { Err(ObjectPathError::BadPart(part.escape_debug().to_string())) }
}

/// One part, encoded and cut to `bytes_max` between two characters.
fn encode_part(text: &str, bytes_max: usize) -> String {
    match text {
        "" => return "_".to_owned(),
        "." | ".." => return text.replace('.', "%2E"),
        _ => {}
    }
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut buffer = [0; 4];
    for character in text.chars() {
        let encoded = percent_encode(character.encode_utf8(&mut buffer));
        if out.len() + encoded.len() > bytes_max {
            break;
        }
        out.push_str(&encoded);
    }
    // What is left of a long name may be dots only.
    if out == "." || out == ".." { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::stream_key::percent_decode;

    const FILE: FileId = FileId(0x1234_abcd_0000_0001);

    fn path(key: (&str, &str, &str), name: &str, format: FileFormat) -> String {
        let key = StreamKey::new(key.0, key.1, key.2).expect("valid");
        ObjectPath::new(&key, name, FILE, format).to_string()
    }

    #[test]
    fn forms_of_every_format() {
        let key = ("cams", "live", "gate");
        assert_eq!(path(key, "a b", FileFormat::Mp4), "cams/live/gate/a%20b-1234abcd.mp4");
        assert_eq!(path(key, "x", FileFormat::Flv), "cams/live/gate/x-1234abcd.flv");
        assert_eq!(path(key, "", FileFormat::Aac), "cams/live/gate/_-1234abcd.aac");
        assert_eq!(path(key, "x", FileFormat::Hls), "cams/live/gate/x-1234abcd/index.m3u8");
    }

    #[test]
    fn names_never_become_steps() {
        let up = path(("..", ".", "a/../b"), "../../etc/cron.d/x", FileFormat::Mp4);
        assert_eq!(up, "%2E%2E/%2E/a%2F..%2Fb/..%2F..%2Fetc%2Fcron.d%2Fx-1234abcd.mp4");
    }

    #[test]
    fn a_long_name_is_cut_and_keeps_its_suffix() {
        let key = "s".repeat(255);
        let long = path(("d", "a", &key), &"日".repeat(300), FileFormat::Mp4);
        let parts: Vec<&str> = long.split('/').collect();
        assert_eq!(parts[2].len(), 200);
        assert!(parts[3].len() <= 200 && parts[3].ends_with("-1234abcd.mp4"), "{}", parts[3]);
        let stem = parts[3].strip_suffix("-1234abcd.mp4").expect("suffix");
        assert_eq!(percent_decode(stem).expect("whole characters"), "日".repeat(20));
    }

    #[test]
    fn neighbours_of_the_playlist() {
        let hls: ObjectPath = "d/a/s/x-00000000/index.m3u8".parse().expect("own form");
        assert_eq!(hls.object("0.ts").expect("plain"), "d/a/s/x-00000000/0.ts");
        assert_eq!(hls.object("").expect("itself"), "d/a/s/x-00000000/index.m3u8");
        for bad in ["..", ".", "a/b", "a\0", "../x", " "] {
            assert!(hls.object(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stored_text_is_checked() {
        for bad in [
            "",
            "/etc/passwd",
            "a/b/c",
            "a/../b/c",
            "a/b/c/d/e/f",
            "a/b/c/",
            "a/b//d",
            "a/b/c/d e",
            "a/b/c/d\n",
        ] {
            assert!(bad.parse::<ObjectPath>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_names_the_path_is_its_own_form(
            domain in "\\PC{1,80}", app in "[./%a\u{7f}-\u{ff}]{1,9}", name in "\\PC{0,300}",
        ) {
            let Ok(key) = StreamKey::new(&domain, &app, "s") else { return Ok(()) };
            for format in FileFormat::ALL {
                let path = ObjectPath::new(&key, &name, FILE, format);
                prop_assert_eq!(path.as_str().parse::<ObjectPath>(), Ok(path.clone()));
                prop_assert!(path.as_str().contains("-1234abcd"));
            }
        }
    }
}
