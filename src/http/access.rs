//! Who may call what: tokens, and what keeps other pages out.
//!
//! There are no cookies and no CORS headers, so a page from elsewhere can neither bring a token
//! nor read an answer. Nor can it become a page from here: whoever owns a name may let it mean this
//! address (DNS rebinding), and a browser then takes its page for one of ours. It still says the
//! name, in `Host`, so only names that are known to be ours are answered.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::config::{HttpConfig, Secret};

/// Answered without a token: whether the process lives says nothing else, and the page has no
/// data of its own.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/"];

/// Answered by whatever name: whether the process lives, and is ready.
const PROBED_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The tokens that calls must bring.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    /// For changing calls; reads everything too.
    token: Option<Secret>,
    /// For reading calls.
    read_token: Option<Secret>,
    /// What we are called besides `localhost` and by address.
    hosts: Vec<String>,
}

/// Why a call isn't answered.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It is for somebody else.
    StrangeHost,
    /// A page from elsewhere makes it.
    StrangeOrigin,
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
            hosts: config.hosts.clone(),
        }
    }

    /// Whether a call is meant for us.
    fn judge_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        // A page that took a name can't bring a token.
        if PROBED_PATHS.contains(&uri.path())
            || brings(headers, self.read_token.as_ref())
            || brings(headers, self.token.as_ref())
        {
            return Ok(());
        }
        // In the line of the call (HTTP/2, proxies) or in a header: each that is there counts. What is no
        // browser may leave both out.
        let mut named: Vec<&[u8]> = headers
            .get_all(HOST)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        if let Some(authority) = uri.authority() {
            named.push(authority.as_str().as_bytes());
        }
        if named.iter().all(|name| self.is_ours(name)) {
            Ok(())
        } else {
            Err(Refusal::StrangeHost)
        }
    }

    /// Whether what changes something isn't made by a page from elsewhere. (What only reads may be sent by
    /// any page: none but ours is shown the answer.)
    fn judge_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let is_ours = |origin: &HeaderValue| {
            let origin = origin.as_bytes();
            let rest = [&b"http://"[..], b"https://"]
                .iter()
                .find_map(|scheme| origin.strip_prefix(*scheme));
            // `null`: a page of nowhere in particular. By a name of ours, or by the one that it was
            // called by: the same page on another port could read nothing either.
            rest.is_some_and(|rest| self.is_ours(rest))
        };
        if headers.get_all(ORIGIN).iter().all(is_ours) {
            Ok(())
        } else {
            Err(Refusal::StrangeOrigin)
        }
    }

    /// Whether `host` or `host:port` is a name of ours. An address is never somebody else's name, and one
    /// without a dot is nobody's to register: only this network's own resolvers give it a meaning
    /// (a container's name, a service's, a machine's).
    fn is_ours(&self, authority: &[u8]) -> bool {
        let authority = std::str::from_utf8(authority).ok();
        let authority = authority.and_then(|text| text.parse::<Authority>().ok());
        let Some(authority) = authority.filter(|it| !it.as_str().contains('@')) else {
            return false;
        };
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        // A dot at the end says that nothing follows; it is the same name.
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        bare.parse::<IpAddr>().is_ok() || !name.contains('.') || self.hosts.contains(&name)
    }

    fn judge(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let brings = |token: &Option<Secret>| brings(headers, token.as_ref());
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

/// Whether a token is configured, and brought.
fn brings(headers: &HeaderMap, token: Option<&Secret>) -> bool {
    token.is_some_and(|token| bearer(headers).is_some_and(|brought| same(brought, token)))
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
            Self::StrangeHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the host that was asked for: add its name to http.hosts in the config if it is, \
                 or use the address\n",
            )
                .into_response(),
            Self::StrangeOrigin => (
                StatusCode::FORBIDDEN,
                "a page from elsewhere may not call this: add its host to http.hosts in the config if it is \
                 Twinlog's own\n",
            )
                .into_response(),
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
    let (uri, headers) = (request.uri(), request.headers());
    let method = request.method();
    let judged = access
        .judge_host(uri, headers)
        .and_then(|()| access.judge(method, uri.path(), headers))
        .and_then(|()| access.judge_origin(method, headers));
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
            hosts: vec!["twinlog.example.com".to_owned()],
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

    fn names(uri: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        named(&Method::GET, uri, headers)
    }

    fn named(method: &Method, uri: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let uri: Uri = uri.parse().expect("a path or a URI");
        let access = access(None, None);
        access
            .judge_host(&uri, &map)
            .and_then(|()| access.judge_origin(method, &map))
    }

    #[test]
    fn only_names_of_ours_are_answered() {
        for host in [
            "127.0.0.1:8088",
            "10.1.2.3",
            "[::1]:8088",
            "localhost:8088",
            "LOCALHOST.",
            "twinlog:8088",
            "twinlog.example.com",
            "Twinlog.Example.com:443",
        ] {
            assert_eq!(names("/metrics", &[("host", host)]), Ok(()), "{host}");
            let absolute = format!("http://{host}/metrics");
            assert_eq!(names(&absolute, &[]), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8088",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.twinlog.example.com",
            "localhost@evil.example",
            "twinlog.example.com@evil.example:1",
            "x@localhost",
            "",
            "localhost, evil.example",
        ] {
            let judged = names("/api/v1/status", &[("host", host)]);
            assert_eq!(judged, Err(Refusal::StrangeHost), "{host}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(names("/", &both), Err(Refusal::StrangeHost));
        let absolute = names("http://evil.example/metrics", &[("host", "localhost")]);
        assert_eq!(absolute, Err(Refusal::StrangeHost));
        for path in ["/healthz", "/readyz"] {
            let judged = names(path, &[("host", "twinlog.ns.svc.cluster.local")]);
            assert_eq!(judged, Ok(()), "{path}");
        }
        // No browser, and what says nothing.
        assert_eq!(names("/metrics", &[]), Ok(()));
        assert_eq!(names("/healthz", &[("host", "evil.example")]), Ok(()));
    }

    /// A page can't know it, whatever name it took.
    #[test]
    fn who_brings_the_token_may_call_by_any_name() {
        let access = access(Some(TOKEN), Some(READ));
        let judged = |token: &str| {
            let mut headers = HeaderMap::new();
            let host = HeaderValue::from_static("twinlog.ns.svc.cluster.local:8088");
            headers.insert(HOST, host);
            let bearer = HeaderValue::from_str(&format!("Bearer {token}"));
            headers.insert(AUTHORIZATION, bearer.expect("a header"));
            access.judge_host(&Uri::from_static("/metrics"), &headers)
        };
        assert_eq!(judged(READ), Ok(()));
        assert_eq!(judged(TOKEN), Ok(()));
        assert_eq!(judged("0000000000000000"), Err(Refusal::StrangeHost));
        assert_eq!(judged(""), Err(Refusal::StrangeHost));
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        let from = |origin| {
            let headers = [("host", "localhost:8088"), ("origin", origin)];
            // What only reads is answered to any page, and shown to none.
            assert_eq!(names("/api/v1/look", &headers), Ok(()));
            named(&Method::POST, "/api/v1/look", &headers)
        };
        for ours in [
            "http://localhost:8088",
            "https://twinlog.example.com",
            "http://127.0.0.1:8088",
        ] {
            assert_eq!(from(ours), Ok(()), "{ours}");
        }
        for strange in [
            "http://evil.example",
            "null",
            "",
            "localhost",
            "file://",
            "http://localhost.evil.example:8088",
        ] {
            assert_eq!(from(strange), Err(Refusal::StrangeOrigin), "{strange}");
        }
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
