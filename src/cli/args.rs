//! The arguments as clap reads them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;

use crate::api::request::{ExportOrder, Subject, file_id};
use crate::cli::demo::DemoArguments;
use crate::cli::factory_reset::FactoryReset;
use crate::cli::fleet::FleetCommand;
use crate::cli::outcome::Failure;
use crate::cli::provision::Provision;
use crate::domain::files::FileFormat;
use crate::domain::ids::FileId;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;

/// Records camera and encoder streams to a flash ring, applies rules, delivers the files.
#[derive(Debug, Parser)]
#[command(name = "edgerec", version = env!("EDGEREC_VERSION"))]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The configuration.
    #[arg(long, global = true, value_name = "F", default_value = "/etc/edgerec/edgerec.toml")]
    pub config: PathBuf,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service. Prints `ready rtmp=ADDR api=ADDR` when it listens.
    Run {
        /// The board that it runs on: a name in /usr/share/edgerec/board, or the path of a folder.
        #[arg(long, value_name = "NAME")]
        board: Option<String>,
    },
    /// Show the whole way, from a stream to delivered files, with nothing but this program.
    Demo(DemoArguments),
    /// Make the ring that the configuration describes.
    Format {
        /// Report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Check the configuration and its rules.
    CheckConfig {
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Say which rule decides about a stream, and why.
    Explain {
        /// The stream, each part percent-encoded.
        #[arg(value_name = "DOMAIN/APP/STREAM")]
        stream: StreamKey,
        /// At that time (RFC 3339) instead of now.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        at: Option<UnixMillis>,
        /// Report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// List what happened, as the fleet and the receivers of callbacks are told it.
    Events {
        /// From this number on.
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        from: u64,
        /// Go on with what happens from now on.
        #[arg(long)]
        follow: bool,
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// List the files.
    Ls {
        /// Go on showing them.
        #[arg(long)]
        watch: bool,
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Write a range of the ring, or a file, to a path (a folder for HLS).
    Export(Export),
    /// The operator's side of a fleet: rule sets to boxes, and how boxes stand.
    #[command(subcommand)]
    Fleet(FleetCommand),
    /// Look for damage; nothing is written. Exits with 1 if there is any.
    Fsck {
        /// Report as JSON, one object a line.
        #[arg(long)]
        json: bool,
    },
    /// Give a new box its identity, broker, certificates, ring and first key of the API.
    Provision(Provision),
    /// Wipe everything that was recorded, queued and set; a configuration that `provision` made goes
    /// too, with its keys and rules.
    FactoryReset(FactoryReset),
}

/// What to export, and where to.
#[derive(Debug, Args)]
pub struct Export {
    /// The stream, each part percent-encoded.
    #[arg(value_name = "DOMAIN/APP/STREAM", required_unless_present = "file")]
    stream: Option<StreamKey>,
    /// Start of the range (RFC 3339); all there is without it.
    #[arg(long, value_name = "T", value_parser = parse_time, conflicts_with = "file")]
    from: Option<UnixMillis>,
    /// End of the range (RFC 3339); all there is without it.
    #[arg(long, value_name = "T", value_parser = parse_time, conflicts_with = "file")]
    to: Option<UnixMillis>,
    /// flv, hls, mp4 or aac; a file has its own.
    #[arg(long, value_name = "F", required_unless_present = "file")]
    format: Option<FileFormat>,
    /// A file of `ls` by its id, instead of a range.
    #[arg(long, value_name = "ID", value_parser = file_id, conflicts_with = "stream")]
    file: Option<FileId>,
    /// Where to write.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

impl Export {
    /// What is ordered, where it goes, and whether to report as JSON.
    ///
    /// # Errors
    /// The range ends before it begins.
    pub fn order(self) -> Result<(ExportOrder, PathBuf, bool), Failure> {
        let from_ms = self.from.map_or(i64::MIN, |time| time.0);
        let until_ms = self.to.map_or(i64::MAX, |time| time.0);
        if from_ms >= until_ms {
            return Err(Failure::Usage("--to is not after --from".to_owned()));
        }
        let subject = match (self.file, self.stream) {
            (Some(file), _) => Subject::File(file),
            (None, Some(key)) => Subject::Range { key, from_ms, until_ms },
            (None, None) => return Err(Failure::Usage("a stream or --file is needed".to_owned())),
        };
        Ok((ExportOrder { subject, format: self.format }, self.output, self.json))
    }
}

fn parse_time(text: &str) -> Result<UnixMillis, String> {
    let time: Result<Timestamp, _> = text.parse();
    time.map(|time| UnixMillis(time.as_millisecond()))
        .map_err(|_| "this is no RFC 3339 time like 2026-11-23T06:25:00+08:00".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(words.split_whitespace()).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_stand_behind_the_command() {
        let cli = Cli::try_parse_from(["edgerec", "run", "--config", "/x.toml"]).expect("parsed");
        assert_eq!(cli.config, PathBuf::from("/x.toml"));
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(parse_time("1970-01-01T08:00:01.5+08:00"), Ok(UnixMillis(1_500)));
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Ok(UnixMillis(0)));
        for bad in ["", "yesterday", "1970-01-01T00:00:00", "1970-01-01"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_export_is_of_a_range_or_a_file() {
        let Ok(Command::Export(export)) = parse("edgerec export a/b/c --format mp4 -o x") else {
            panic!("an export");
        };
        let (order, output, json) = export.order().expect("sound");
        let all = Subject::Range {
            key: "a/b/c".parse().expect("a key"),
            from_ms: i64::MIN,
            until_ms: i64::MAX,
        };
        assert_eq!(order, ExportOrder { subject: all, format: Some(FileFormat::Mp4) });
        assert_eq!((output, json), (PathBuf::from("x"), false));
        for bad in [
            "edgerec export -o x",
            "edgerec export a/b/c -o x",
            "edgerec export a/b/c --format mp4",
            "edgerec export a/b --format mp4 -o x",
            "edgerec export a/b/c --format avi -o x",
            "edgerec export a/b/c --file 7 --format mp4 -o x",
            "edgerec export --file 7 --from 1970-01-01T00:00:00Z -o x",
            "edgerec export --file x -o x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let backwards = "edgerec export a/b/c --format mp4 -o x --from 1970-01-01T00:00:01Z \
            --to 1970-01-01T00:00:01Z";
        let Ok(Command::Export(export)) = parse(backwards) else { panic!("an export") };
        assert_eq!(export.order().expect_err("refused").code(), Failure::USAGE);
    }
}
