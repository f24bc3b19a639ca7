//! Notices: what the outbox must know of the configuration, and the sender over it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::{AppError, Platform};
use crate::config::Config;
use crate::delivery::callbacks::{Sender, SenderSettings};
use crate::domain::service::callbacks::Destination;
use crate::ring::catalog::notices::NoticeDesk;
use crate::ring::handle::Ring;

/// Has notices filled in and addressed as the configuration says. Whatever posts one comes after
/// this.
pub(super) fn address(config: &Config, ring: &Ring) {
    let callback = config.callback.as_ref();
    let desk = NoticeDesk {
        appid: callback.map_or(0, |callback| u64::from(callback.appid)),
        box_id: config.identity.id.clone().unwrap_or_else(|| ring.identity.box_id.clone()),
        default: callback.and_then(|callback| {
            let url = callback.url.clone()?;
            Some(Destination::of_all(url, callback.key.clone()))
        }),
        fleet: config.mqtt.is_some(),
    };
    ring.catalog.post(move |state| state.set_notice_desk(desk));
}

/// Has notices told until `shutdown`.
///
/// # Errors
/// The catalog fails.
pub(super) async fn start(
    ring: &Arc<Ring>,
    platform: &Platform,
    tasks: &TaskTracker,
    shutdown: CancellationToken,
) -> Result<(), AppError> {
    let news = ring.catalog.call(|state| Ok(state.notice_news())).await?;
    let outbox = (ring.catalog.clone(), news);
    let (net, clock) = (platform.net.clone(), platform.clock.clone());
    let sender = Sender::new(outbox, net, clock, SenderSettings::default(), &[])
        .map_err(|error| AppError::Callbacks(error.explain()))?;
    tasks.spawn(sender.run(shutdown));
    Ok(())
}
