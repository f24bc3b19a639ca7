//! What callers of the API have set, kept in the catalog: changed one after the other, durable
//! before anybody is answered, and shown to the rest of the box as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rusqlite::params;
use tracing::warn;

use crate::domain::notice::BoxEvent;
use crate::domain::service::{Changes, Kind, Refusal, Service};
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::notices::enter_box_event;

/// The state as everybody sees it, swapped whole after each change.
pub type ServiceInForce = Arc<ArcSwap<Service>>;

/// Called with the new state after each change, on the catalog thread: must not wait.
pub type ServiceWatcher = Box<dyn Fn(&Arc<Service>) + Send>;

impl CatalogState {
    /// The state, to be looked at by anybody at any time.
    #[must_use]
    pub fn service(&self) -> ServiceInForce {
        self.service.clone()
    }

    /// Has `watcher` called now and after each change, before the change is answered.
    pub fn watch_service(&mut self, watcher: ServiceWatcher) {
        watcher(&self.service.load_full());
        self.service_watchers.push(watcher);
    }

    /// Makes a change. It is durable and in force when this returns; a refused one changes
    /// nothing.
    ///
    /// # Errors
    /// The database fails: nothing has changed then. The inner error is the refusal.
    pub fn change_service<T>(
        &mut self,
        change: impl FnOnce(&mut Service, &mut Changes) -> Result<T, Refusal>,
    ) -> Result<Result<T, Refusal>, RingError> {
        self.change_service_and_tell(change, None)
    }

    /// Like [`change_service`](Self::change_service), and has the fleet told of it: neither is there
    /// without the other.
    ///
    /// # Errors
    /// As [`change_service`](Self::change_service).
    pub fn change_service_and_tell<T>(
        &mut self,
        change: impl FnOnce(&mut Service, &mut Changes) -> Result<T, Refusal>,
        event: Option<BoxEvent>,
    ) -> Result<Result<T, Refusal>, RingError> {
        let told = event.zip(self.fleet_desk());
        let mut next = Service::clone(&self.service.load());
        let mut changes = Changes::new();
        let value = match change(&mut next, &mut changes) {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if !changes.is_empty() {
            self.durably("storing what the API has set", |transaction| {
                for change in changes.iter() {
                    let name = change.kind.name();
                    match &change.content {
                        Some(content) => transaction
                            .prepare_cached(
                                "INSERT OR REPLACE INTO entry (kind, key, content)
                                 VALUES (?1, ?2, ?3)",
                            )?
                            .execute(params![name, change.key, content])?,
                        None => transaction
                            .prepare_cached("DELETE FROM entry WHERE kind = ?1 AND key = ?2")?
                            .execute(params![name, change.key])?,
                    };
                }
                if let Some((event, desk)) = &told {
                    enter_box_event(transaction, event, desk)?;
                }
                Ok(())
            })?;
            self.notify_readers();
        }
        next.number += 1;
        let next = Arc::new(next);
        self.service.store(next.clone());
        for watcher in &self.service_watchers {
            watcher(&next);
        }
        Ok(Ok(value))
    }

    /// Reads the state from its entries. What is none of this program's is left alone.
    pub(super) fn read_service(db: &rusqlite::Connection) -> rusqlite::Result<Service> {
        let mut service = Service::default();
        let mut query = db.prepare("SELECT kind, key, content FROM entry ORDER BY kind, key")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (name, key, content): (String, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else {
                warn!(kind = name, "an entry of an unknown kind is left alone");
                continue;
            };
            if let Err(why) = service.restore(kind, &key, &content) {
                warn!(kind = name, key, why, "an entry cannot be read and counts for nothing");
            }
        }
        Ok(service)
    }
}
