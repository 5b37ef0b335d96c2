//! The page at `/`: one file, no outside assets, fed by the status API.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

/// The page. All names reach the document as text nodes, never as HTML; the policy below
/// is the second lock.
const PAGE: &str = include_str!("page.html");

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) async fn page() -> Response {
    (
        [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-cache"),
        ],
        Html(PAGE),
    )
        .into_response()
}
