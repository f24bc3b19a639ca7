//! The fleet over MQTT v5: rule sets and commands come in, answers and the state of the box go out.
//!
//! Five tasks. The [`link`] owns the connection and is the only one that polls it; it never waits
//! for anything else, so that acknowledgements and pings go on whatever the box does. The [`keeper`]
//! takes documents one after the other: durable and in force, or refused. The [`errands`] are
//! commands, done and answered in turn. The [`voice`] says that the box is there and how it stands,
//! the [`herald`] what happened. What the fleet needs of the box is the port [`FleetBox`].
//!
//! Nothing depends on what the broker keeps of a session: rules and state are retained messages. A
//! document that could not be held while others were at work is asked for again.

mod errands;
mod herald;
mod keeper;
mod link;
mod notebook;
pub mod operator;
mod outbound;
mod port;
mod presence;
mod state;
mod tls;
mod topics;
mod voice;

use std::sync::Arc;
use std::time::Duration;

use rumqttc::Transport;
use rumqttc::v5::{AsyncClient, MqttOptions};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::domain::address::Address;
use crate::domain::fleet::document::Addressee;
use crate::domain::ids::BootId;
use crate::domain::secret::Secret;
use crate::fleet::errands::Errands;
use crate::fleet::herald::{EVENTS_IN_FLIGHT_MAX, Herald, Teller};
use crate::fleet::keeper::Keeper;
use crate::fleet::link::{Link, LinkStatus};
use crate::fleet::notebook::Notebook;
use crate::fleet::outbound::Outbound;
pub use crate::fleet::port::{
    BoxFigures, FleetBox, FleetFuture, NotTaken, OutgoingEvent, QueueFigures, Restart,
    RetentionFigures, RingFigures, StreamReport,
};
use crate::fleet::presence::Presence;
use crate::fleet::topics::Topics;
use crate::fleet::voice::Voice;
use crate::platform::clock::Clock;
use crate::platform::planted;
use crate::platform::random::random_u64;

/// Packets of more bytes are not taken; the broker is told so and keeps them.
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Messages that may be on their way to us, or from us, unacknowledged.
const IN_FLIGHT_MAX: u16 = 16;
/// Requests between our tasks and the link; who has one more waits, and that is never the link.
const REQUESTS_MAX: usize = 32;
/// Documents that wait for the keeper; one more is left with the broker and asked for again.
const DOCUMENTS_WAITING_MAX: usize = 4;
/// Commands that wait for their turn; one more is not done, and its sender is told.
const COMMANDS_WAITING_MAX: usize = 8;
/// What a packet has beside topic and payload, generously.
const PACKET_OVERHEAD_BYTES: usize = 128;
/// A silent link is probed after this time, and given up after twice that.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A connection must stand within this time, its TLS and MQTT greeting included, in seconds.
const CONNECT_WITHIN_S: u64 = 20;
/// A broker that does not acknowledge a message for so long is connected to anew.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
/// How long the broker keeps what was sent to the box while it is away, in seconds.
const SESSION_EXPIRY_S: u32 = 7_200;

/// How a broker is reached.
#[derive(Debug, Clone)]
pub struct BrokerAccess {
    /// The broker, `mqtt://` or `mqtts://`, with user name and password if it wants them.
    pub url: Address,
    /// Certificates of the authorities to trust, PEM; `None` is the public ones.
    pub ca: Option<Secret>,
    /// Our own certificate chain and key, PEM.
    pub identity: Option<(Secret, Secret)>,
}

/// Where the fleet is and who the box is in it.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// How the broker is reached.
    pub broker: BrokerAccess,
    /// Who the box is.
    pub us: Addressee,
    /// In which boot.
    pub boot_id: BootId,
}

/// The link cannot be made as configured.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A certificate or key cannot be used.
    #[error("{what} cannot be used: {why}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// Why not.
        why: String,
    },
}

/// The tasks, each to be run until shutdown.
pub struct Fleet {
    /// Owns the connection.
    pub link: Link,
    /// Takes documents.
    pub keeper: Keeper,
    /// Does commands.
    pub errands: Errands,
    /// Tells of the box.
    pub voice: Voice,
    /// Tells what happened.
    pub herald: Herald,
}

impl Fleet {
    /// Makes the tasks over the box's own side.
    ///
    /// # Errors
    /// A certificate or key cannot be used.
    pub fn new(
        settings: &FleetSettings,
        us: Arc<dyn FleetBox>,
        clock: Arc<dyn Clock>,
    ) -> Result<Fleet, FleetError> {
        let topics = Arc::new(Topics::new(&settings.us));
        let presence = Arc::new(Presence::new(settings.boot_id, random_u64()));
        let Addressee { fleet, box_id } = &settings.us;
        let mut options = options(&settings.broker, format!("edgerec-{fleet}-{box_id}"))?;
        options.set_clean_start(false).set_session_expiry_interval(Some(SESSION_EXPIRY_S));
        let (client, events) = AsyncClient::new(options, REQUESTS_MAX);
        let notebook = Arc::new(Notebook::default());
        let (documents, arriving) = mpsc::channel(DOCUMENTS_WAITING_MAX);
        let (commands, asked) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (status_in, status) = watch::channel(LinkStatus::Away);
        // Those of a lost connection may still lie there.
        let (acknowledged_in, acknowledged) = mpsc::channel(2 * EVENTS_IN_FLIGHT_MAX);
        let outbound = Arc::new(Outbound::new(client.clone(), acknowledged_within()));
        let link = Link::new(
            (client.clone(), outbound.clone(), events),
            (topics.clone(), presence.clone()),
            (documents, commands, acknowledged_in, status_in),
            notebook.clone(),
            clock.clone(),
        );
        let keeper = Keeper {
            arriving,
            us: us.clone(),
            client,
            topics: topics.clone(),
            notebook: notebook.clone(),
            clock: clock.clone(),
        };
        let told_by = Teller {
            outbound: outbound.clone(),
            us: us.clone(),
            news: us.event_news(),
            topics: topics.clone(),
            clock: clock.clone(),
        };
        let herald = Herald { status: status.clone(), acknowledged, told_by };
        let errands = Errands {
            arriving: asked,
            us: us.clone(),
            outbound: outbound.clone(),
            status: status.clone(),
            topics: topics.clone(),
        };
        let voice = Voice::new((outbound, status), (topics, presence), notebook, us, clock);
        Ok(Fleet { link, keeper, errands, voice, herald })
    }
}

fn acknowledged_within() -> Duration {
    planted::number("EDGEREC_PLANT_ACK_S").map_or(ACKNOWLEDGED_WITHIN, Duration::from_secs)
}

/// Waits for a time; for ever if there is none.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Looks at certificates and key without making a link.
///
/// # Errors
/// One of them cannot be used.
pub fn check_certificates(
    ca: Option<&Secret>,
    identity: Option<(&Secret, &Secret)>,
) -> Result<(), FleetError> {
    tls::client_config(ca, identity).map(drop)
}

/// How the link is made. Each of these settings is there for a defect or a default that hurts:
/// without a packet limit a document of 10 KiB ends the connection, again and again, and the table
/// of messages in flight is 14 MiB large.
fn options(access: &BrokerAccess, client_id: String) -> Result<MqttOptions, FleetError> {
    let broker = &access.url;
    let secure = broker.scheme() == "mqtts";
    let port = broker.port().unwrap_or(if secure { 8883 } else { 1883 });
    // Without the brackets of an IPv6 address: as a name in a certificate it has none, and the
    // library takes the port from behind the last colon.
    let host = broker.host().trim_matches(['[', ']']);
    let mut options = MqttOptions::new(client_id, host, port);
    if secure {
        let tls = tls::client_config(
            access.ca.as_ref(),
            access.identity.as_ref().map(|(chain, key)| (chain, key)),
        )?;
        options.set_transport(Transport::tls_with_config(tls.into()));
    }
    if let Some((user, password)) = broker.credentials() {
        options.set_credentials(user, password.expose());
    }
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_WITHIN_S)
        .set_max_packet_size(Some(PACKET_BYTES_MAX))
        .set_receive_maximum(Some(IN_FLIGHT_MAX))
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX);
    Ok(options)
}
