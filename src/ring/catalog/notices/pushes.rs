//! Events 1, 0 and 321: what is told of a push.

use std::net::SocketAddr;

use rusqlite::params;

use crate::domain::ids::SessionId;
use crate::domain::notice::{Notice, PushBegin, PushEnd, PushException, PushFacts, What};
use crate::domain::stream_watch::StreamReport;
use crate::ring::RingError;
use crate::ring::catalog::CatalogState;
use crate::ring::catalog::files::stream_key;
use crate::ring::catalog::pushes::PushId;
use crate::ring::catalog::rows::unsql;

impl CatalogState {
    /// Posts the notice that a push, which has its row, began.
    pub(in crate::ring::catalog) fn tell_push_begin(
        &mut self,
        id: PushId,
    ) -> Result<(), RingError> {
        self.tell_push(id, |push, _| What::PushBegin(PushBegin { push, width: 0, height: 0 }))
    }

    /// Posts the notice that a push, whose row has its end, ended.
    pub(in crate::ring::catalog) fn tell_push_end(&mut self, id: PushId) -> Result<(), RingError> {
        self.tell_push(id, |push, end| What::PushEnd(PushEnd { push, ..end }))
    }

    /// Tells what was wrong with a push in one interval.
    ///
    /// # Errors
    /// The database fails.
    pub fn tell_push_exception(
        &mut self,
        id: PushId,
        report: StreamReport,
    ) -> Result<(), RingError> {
        self.tell_push(id, |push, _| What::PushException(Box::new(PushException { push, report })))
    }

    fn tell_push(
        &mut self,
        id: PushId,
        what: impl FnOnce(PushFacts, PushEnd) -> What,
    ) -> Result<(), RingError> {
        let read = RingError::catalog("reading what to tell of a push");
        let notice = self.push_notice(id, what).map_err(read)?;
        notice.map_or(Ok(()), |notice| self.post_notice(notice).map(drop))
    }

    fn push_notice(
        &self,
        id: PushId,
        what: impl FnOnce(PushFacts, PushEnd) -> What,
    ) -> rusqlite::Result<Option<Notice>> {
        let mut query = self.db.prepare_cached(
            "SELECT domain, app, stream, peer, query, coalesce(ended_ms, began_ms) - began_ms,
             errcode, cause, width, height FROM push WHERE id = ?1",
        )?;
        let mut rows = query.query(params![id.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let peer: String = row.get(3)?;
        let user_ip = peer.parse::<SocketAddr>().map_or(peer, |peer| peer.ip().to_string());
        let push = PushFacts {
            sequence: SessionId(unsql(id.0)),
            node: String::new(),
            user_ip,
            stream_param: row.get(4)?,
        };
        let end = PushEnd {
            push: push.clone(),
            duration_ms: unsql(row.get(5)?),
            errcode: row.get(6)?,
            errmsg: row.get(7)?,
            width: row.get(8)?,
            height: row.get(9)?,
        };
        let (key, at) = (stream_key(row, 0)?, self.clock.now().wall.unix);
        Ok(Some(Notice { key, at, what: what(push, end) }))
    }
}
