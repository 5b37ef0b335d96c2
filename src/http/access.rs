//! Who may call what: tokens, and the headers that keep other pages out.
//!
//! There are no cookies and no CORS headers, so a page from elsewhere can neither bring a token
//! nor read an answer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::config::{HttpConfig, Secret};

/// Answered without a token: whether the process lives says nothing else, and the page has no
/// data of its own.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/"];

/// The tokens that calls must bring.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// For changing calls; reads everything too.
    token: Option<Secret>,
    /// For reading calls.
    read_token: Option<Secret>,
}

/// Why a call isn't answered.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// No token would help.
    NoTokenConfigured,
    /// The right token would help; it is under this key of the config.
    TokenNeeded(&'static str),
}

impl Access {
    pub(super) fn of(config: &HttpConfig) -> Self {
        Self {
            token: config.token.clone(),
            read_token: config.read_token.clone(),
        }
    }

    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let brings = |token: &Option<Secret>| {
            token
                .as_ref()
                .is_some_and(|token| bearer(headers).is_some_and(|brought| same(brought, token)))
        };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return match &self.token {
                None => Err(Refusal::NoTokenConfigured),
                Some(_) if brings(&self.token) => Ok(()),
                Some(_) => Err(Refusal::TokenNeeded("http.token")),
            };
        }
        if self.read_token.is_none()
            || OPEN_PATHS.contains(&path)
            || brings(&self.read_token)
            || brings(&self.token)
        {
            Ok(())
        } else {
            Err(Refusal::TokenNeeded("http.read_token"))
        }
    }
}

/// The token of `Authorization: Bearer TOKEN`; the scheme's name has no case (RFC 9110).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| rest.trim_ascii())
}

/// Compares without telling by its duration where the difference is. The length may show.
fn same(brought: &[u8], token: &Secret) -> bool {
    brought.ct_eq(token.expose().as_bytes()).into()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::NoTokenConfigured => (
                StatusCode::FORBIDDEN,
                "changing calls are off: set http.token in the config, restart, and send it as \
                 `Authorization: Bearer TOKEN`\n",
            )
                .into_response(),
            Self::TokenNeeded(key) => (
                StatusCode::UNAUTHORIZED,
                [(WWW_AUTHENTICATE, "Bearer realm=\"twinlog\"")],
                format!("send the {key} of the config as `Authorization: Bearer TOKEN`\n"),
            )
                .into_response(),
        }
    }
}

/// Lets through what [`Access`] allows, and puts the protecting headers on every answer.
pub(super) async fn guard(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let judged = access.judge(request.method(), request.uri().path(), request.headers());
    let mut answer = match judged {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    protect(answer.headers_mut());
    answer
}

/// What a route has set itself, it knows better.
fn protect(headers: &mut HeaderMap) {
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const READ: &str = "fedcba9876543210";

    fn access(token: Option<&str>, read_token: Option<&str>) -> Access {
        let secret = |text: &str| Secret::from(text.to_owned());
        Access {
            token: token.map(secret),
            read_token: read_token.map(secret),
        }
    }

    fn judge(
        access: &Access,
        method: &Method,
        path: &str,
        authorization: &str,
    ) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            let value = HeaderValue::from_str(authorization).expect("a header");
            headers.insert(AUTHORIZATION, value);
        }
        access.judge(method, path, &headers)
    }

    #[test]
    fn only_the_very_token_is_taken() {
        let access = access(Some(TOKEN), None);
        let post = |header: &str| judge(&access, &Method::POST, "/api/v1/x", header);
        for right in [
            format!("Bearer {TOKEN}"),
            format!("bearer {TOKEN}"),
            format!("Bearer  {TOKEN} "),
        ] {
            assert_eq!(post(&right), Ok(()), "{right}");
        }
        let longer = format!("Bearer {TOKEN}0");
        let shorter = format!("Bearer {}", &TOKEN[..15]);
        let other_case = format!("Bearer {}", TOKEN.to_uppercase());
        let no_scheme = TOKEN.to_owned();
        let basic = format!("Basic {TOKEN}");
        let nothing = ["".to_owned(), "Bearer".to_owned(), "Bearer ".to_owned()];
        for wrong in [longer, shorter, other_case, no_scheme, basic]
            .iter()
            .chain(&nothing)
        {
            assert_eq!(
                post(wrong),
                Err(Refusal::TokenNeeded("http.token")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn without_a_token_nothing_can_be_changed() {
        let access = access(None, Some(READ));
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            for header in ["", "Bearer ", &format!("Bearer {READ}")] {
                let judged = judge(&access, &method, "/healthz", header);
                assert_eq!(judged, Err(Refusal::NoTokenConfigured), "{method} {header}");
            }
        }
    }

    #[test]
    fn reading_takes_either_token_but_changing_takes_one() {
        let access = access(Some(TOKEN), Some(READ));
        let refused = |key| Err(Refusal::TokenNeeded(key));
        for (method, path, token, judged) in [
            (Method::GET, "/metrics", READ, Ok(())),
            (Method::HEAD, "/metrics", TOKEN, Ok(())),
            (Method::GET, "/metrics", "", refused("http.read_token")),
            (Method::GET, "/readyz", "", refused("http.read_token")),
            (Method::GET, "//", "", refused("http.read_token")),
            (Method::GET, "/healthz", "", Ok(())),
            (Method::GET, "/", "", Ok(())),
            (Method::POST, "/api/v1/x", READ, refused("http.token")),
            (Method::POST, "/", READ, refused("http.token")),
            (Method::POST, "/api/v1/x", TOKEN, Ok(())),
        ] {
            let header = format!("Bearer {token}");
            assert_eq!(
                judge(&access, &method, path, &header),
                judged,
                "{method} {path} {token}"
            );
        }
    }
}
