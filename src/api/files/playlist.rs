//! A playlist for a client that came with a signature: each address in it gets the query that
//! opens the file's folder, because players send the query of a playlist to nothing else.

/// The playlist with `query` behind every address.
#[must_use]
pub fn with_query(playlist: &str, query: &str) -> String {
    let mut out = String::with_capacity(playlist.len() * 4);
    for line in playlist.lines() {
        match line.split_once("URI=\"").and_then(|(head, rest)| Some((head, rest.split_once('"')?)))
        {
            Some((head, (address, tail))) if line.starts_with('#') => {
                out.push_str(&format!("{head}URI=\"{address}?{query}\"{tail}"));
            }
            _ if line.starts_with('#') || line.is_empty() => out.push_str(line),
            _ => out.push_str(&format!("{line}?{query}")),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_maps_get_the_query_and_nothing_else_changes() {
        let playlist = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-MAP:URI=\"init-0.mp4\"\n#EXTINF:4.000,\n\
                        0.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000,\n1.m4s\n#EXT-X-ENDLIST\n";
        let expected = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-MAP:URI=\"init-0.mp4?a=b\"\n\
                        #EXTINF:4.000,\n0.m4s?a=b\n#EXT-X-DISCONTINUITY\n#EXTINF:2.000,\n\
                        1.m4s?a=b\n#EXT-X-ENDLIST\n";
        assert_eq!(with_query(playlist, "a=b"), expected);
    }
}
