//! Sources: the cameras that the box pulls, as a rule set names them.

use crate::domain::address::Address;
use crate::domain::document::Fields;
use crate::domain::eviction::OnFull;
use crate::domain::faults::{Faults, quoted};
use crate::domain::limits::STREAM_KEY_PART_BYTES_MAX;
use crate::domain::stream_key::StreamKey;

/// Longest text of a field with few values, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// How RTP comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// Datagrams beside it.
    Udp,
}

/// A configured camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The stream it becomes.
    pub key: StreamKey,
    /// Where it is, with credentials; shows itself without them.
    pub url: Address,
    /// How its media comes.
    pub transport: Transport,
    /// What happens to its undelivered media when the ring is full; `None` is `[ring] on_full`.
    pub on_full: Option<OnFull>,
}

impl Source {
    /// Whether a connection for the other serves this one: same place, credentials and transport.
    #[must_use]
    pub fn is_reached_as(&self, other: &Source) -> bool {
        self.url == other.url && self.transport == other.transport
    }

    /// Reads one entry of `sources`. `None` comes with at least one fault.
    pub fn read(mut fields: Fields<'_>, faults: &mut Faults) -> Option<Source> {
        let key = read_key(&mut fields, faults);
        let place = fields.place_of("Url");
        let url = fields.required_text("Url", usize::MAX, faults).and_then(|text| {
            Address::parse(text, &["rtsp"])
                .map_err(|error| faults.add(place, error.to_string()))
                .ok()
        });
        let place = fields.place_of("Transport");
        let transport = match fields.text("Transport", WORD_BYTES_MAX, faults) {
            None | Some("tcp") => Transport::Tcp,
            Some("udp") => Transport::Udp,
            Some(other) => {
                faults.add(place, format!("{} is neither `tcp` nor `udp`", quoted(other)));
                Transport::Tcp
            }
        };
        let place = fields.place_of("OnFull");
        let on_full = fields
            .text("OnFull", WORD_BYTES_MAX, faults)
            .and_then(|text| text.parse().map_err(|error: String| faults.add(place, error)).ok());
        fields.finish(faults);
        Some(Source { key: key?, url: url?, transport, on_full })
    }
}

/// All three parts must be given: a camera is one stream.
fn read_key(fields: &mut Fields<'_>, faults: &mut Faults) -> Option<StreamKey> {
    let names = ["DomainName", "AppName", "StreamName"];
    let parts =
        names.map(|name| (name, fields.required_text(name, STREAM_KEY_PART_BYTES_MAX, faults)));
    for (name, part) in parts {
        if part == Some("") {
            faults.add(fields.place_of(name), "is empty; a source is one stream");
        }
    }
    let [(_, domain), (_, app), (_, stream)] = parts;
    StreamKey::new(domain?, app?, stream?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Json;

    fn read(text: &str) -> Result<Source, String> {
        let json = Json::parse(text.as_bytes(), 1 << 20).expect("JSON");
        let mut faults = Faults::new();
        let fields = Fields::open(&json, "", &mut faults).expect("object");
        let source = Source::read(fields, &mut faults);
        let source = faults.into_result(source).map_err(|faults| faults.to_string())?;
        Ok(source.expect("no fault, so a source"))
    }

    #[test]
    fn defaults_and_what_must_be_given() {
        let source = read(
            r#"{"DomainName": "Cams", "AppName": "live", "StreamName": "gate",
            "Url": "rtsp://u:canary@10.0.0.8/main"}"#,
        )
        .expect("valid");
        assert_eq!(source.key.to_string(), "cams/live/gate");
        assert_eq!((source.transport, source.on_full), (Transport::Tcp, None));
        assert!(!format!("{source:?}").contains("canary"));
        let faults = read(r#"{"AppName": "", "StreamName": "s", "OnFull": "no"}"#);
        assert_eq!(
            faults.expect_err("faulty"),
            "DomainName: is missing\n\
             AppName: is empty; a source is one stream\n\
             Url: is missing\n\
             OnFull: `no` is neither `overwrite_oldest` nor `keep_undelivered`"
        );
    }
}
