//! `edgerec export`: a range of the ring, or a file, to a path.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::api::request::ExportOrder;
use crate::cli::link::Link;
use crate::cli::outcome::{Failure, bytes_for_people, note, print, print_json, printable};
use crate::config::Config;

/// Writes what is ordered to `path` and says what was written.
///
/// # Errors
/// There is no such media, or it cannot be read or written; then nothing is left at `path`.
pub fn export(
    config: &Config,
    order: &ExportOrder,
    path: &Path,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let header = Link::open(config)?.export(order, path)?;
    let bytes: u64 = header.objects.iter().map(|object| object.bytes).sum();
    if json {
        return print_json(
            out,
            &json!({
                "path": path.to_string_lossy(), "format": header.format, "bytes": bytes,
                "objects": header.objects.len(), "dropped_tracks": header.dropped_tracks,
            }),
        );
    }
    for track in &header.dropped_tracks {
        note(format_args!("left out: {}", printable(track)));
    }
    let size = bytes_for_people(bytes);
    print(out, format_args!("{}: {}, {size}", path.display(), header.format))
}
