//! Web pages from elsewhere. A signed URL is all that a reader needs: no cookie, no password of
//! the browser is involved. So where URLs must be signed, any page may read what a URL of its own
//! opens; a player on somebody's site plays what lies on the box. Without signatures pages from
//! elsewhere are refused (see [`http`](crate::api::http)), and nothing is said here.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;

/// Headers of an answer that a page may look at, beside those it always may.
const EXPOSED: &str = "content-length, content-range, accept-ranges, etag, retry-after";

/// Lets every page read the answers of `routes`, if all of them need a signature.
pub fn readable_by_pages(routes: Router, signed: bool) -> Router {
    if !signed {
        return routes;
    }
    routes.layer(map_response(|mut response: Response| async {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        let exposed = HeaderValue::from_static(EXPOSED);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        response
    }))
}
