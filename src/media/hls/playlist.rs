//! The VOD playlist, written entry by entry.

use std::fmt::Write;

/// A playlist in the making.
#[derive(Debug, Default)]
pub struct Playlist {
    entries: String,
    longest_us: u64,
    /// A map is named: fragmented MP4.
    has_map: bool,
}

impl Playlist {
    /// The next segment does not run on from the one before.
    pub fn discontinuity(&mut self) {
        self.entries.push_str("#EXT-X-DISCONTINUITY\n");
    }

    /// The segments from here on need this init section.
    pub fn map(&mut self, name: &str) {
        self.has_map = true;
        self.put(format_args!("#EXT-X-MAP:URI=\"{name}\"\n"));
    }

    /// A segment of `length_us` microseconds.
    pub fn segment(&mut self, name: &str, length_us: u64) {
        self.longest_us = self.longest_us.max(length_us);
        let (seconds, rest) = (length_us / 1_000_000, length_us % 1_000_000);
        self.put(format_args!("#EXTINF:{seconds}.{rest:06},\n{name}\n"));
    }

    /// The whole playlist.
    #[must_use]
    pub fn finish(self) -> String {
        let version = if self.has_map { 7 } else { 3 };
        let target = self.longest_us.div_ceil(1_000_000).max(1);
        format!(
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target}\n\
             #EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n{}#EXT-X-ENDLIST\n",
            self.entries
        )
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.entries.write_fmt(text).expect("writing to a string never fails");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_reader_understands_it() {
        let mut playlist = Playlist::default();
        playlist.map("init-0.mp4");
        playlist.segment("0.m4s", 6_040_000);
        playlist.discontinuity();
        playlist.map("init-1.mp4");
        playlist.segment("1.m4s", 1);
        let text = playlist.finish();
        let read = m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap();
        assert_eq!((read.version, read.target_duration, read.end_list), (Some(7), 7, true));
        assert_eq!(read.playlist_type, Some(m3u8_rs::MediaPlaylistType::Vod));
        assert_eq!(read.segments.len(), 2);
        assert_eq!((read.segments[0].duration, read.segments[0].discontinuity), (6.04, false));
        assert!(read.segments[1].discontinuity);
        assert_eq!(read.segments[1].map.as_ref().unwrap().uri, "init-1.mp4");
    }
}
