//! Tokens for client credentials (RFC 6749, 4.4), kept until most of their life is over.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::Instant;

use super::text::{base64, form_encoded};
use super::tls;
use crate::config::OidcSection;
use crate::wire::{Lack, Token, TokenFuture, TokenSource};

/// How long a token may take, connecting included.
const ANSWER: Duration = Duration::from_secs(10);
/// More than any token that a broker takes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The life of a token whose answer doesn't say.
const LIFETIME: Duration = Duration::from_secs(300);
/// Longer makes no difference, and keeps times in range.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// After a failure: 1 s doubling to 30 s until it is tried again.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What of the server's words is repeated.
const WORDS_MAX: usize = 200;

/// The tokens of one cluster, for all of its connections in both clients.
pub(super) struct Tokens {
    section: OidcSection,
    https: OnceLock<ClientConfig>,
    /// Held while a token is on its way, so that everybody gets the same.
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Kept>,
    failed: Option<Failed>,
}

struct Kept {
    token: Token,
    /// When a new one is wanted, with a good part of this one's life left.
    renew: SystemTime,
}

struct Failed {
    failures: u32,
    not_before: Instant,
    lack: Lack,
}

/// The answer with a token.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Granted {
    /// How long the token lives. Some servers write the seconds as text (Azure AD's first version); what isn't a
    /// number says as much as nothing, and one below zero is over already.
    fn lifetime(&self) -> Duration {
        let seconds = match &self.expires_in {
            serde_json::Value::Number(seconds) => seconds.as_f64(),
            serde_json::Value::String(seconds) => seconds.trim().parse::<f64>().ok(),
            _ => None,
        };
        let seconds = seconds.filter(|seconds| !seconds.is_nan());
        let seconds = seconds.unwrap_or(LIFETIME.as_secs_f64());
        Duration::try_from_secs_f64(seconds.max(0.0))
            .unwrap_or(LIFETIME_MAX)
            .min(LIFETIME_MAX)
    }
}

/// The answer with an error (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Denied {
    error: String,
    error_description: Option<String>,
}

impl Tokens {
    pub(super) fn new(section: OidcSection) -> Self {
        Self {
            section,
            https: OnceLock::new(),
            state: tokio::sync::Mutex::default(),
        }
    }

    async fn get(&self) -> Result<Token, Lack> {
        let mut state = self.state.lock().await;
        let now = SystemTime::now();
        if let Some(kept) = state.token.as_ref().filter(|kept| now < kept.renew) {
            return Ok(kept.token.clone());
        }
        let alive = state.token.as_ref().filter(|kept| now < kept.token.expires);
        let alive = alive.map(|kept| kept.token.clone());
        if let Some(failed) = &state.failed
            && Instant::now() < failed.not_before
        {
            return alive.ok_or_else(|| failed.lack.clone());
        }
        match self.fetch().await {
            Ok((token, lifetime)) => {
                state.failed = None;
                state.token = Some(Kept {
                    token: token.clone(),
                    renew: now + lifetime.mul_f64(0.8),
                });
                Ok(token)
            }
            Err(lack) => {
                let failures = state.failed.as_ref().map_or(0, |failed| failed.failures);
                let wait = WAIT_MIN.saturating_mul(1 << failures.min(16)).min(WAIT_MAX);
                state.failed = Some(Failed {
                    failures: failures + 1,
                    not_before: Instant::now() + wait,
                    lack: lack.clone(),
                });
                if alive.is_some() {
                    tracing::warn!("no new token: {}; the old one is used", lack.message);
                }
                alive.ok_or(lack)
            }
        }
    }

    async fn fetch(&self) -> Result<(Token, Duration), Lack> {
        let now = SystemTime::now();
        let (status, body) = tokio::time::timeout(ANSWER, self.ask())
            .await
            .map_err(|_| {
                let what = format!("gave no answer within {} s", ANSWER.as_secs());
                self.lack(what, REACH)
            })??;
        if !status.is_success() {
            return Err(self.denied(status, &body));
        }
        let granted: Granted = serde_json::from_slice(&body).map_err(|_| {
            // The reason isn't repeated: it could quote the token.
            let what = "answered something that has no `access_token`".to_owned();
            self.lack(what, "check sasl.oauthbearer.token.endpoint.url")
        })?;
        let lifetime = granted.lifetime();
        let token = granted.access_token;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(self.lack("gave a token that can't be one".to_owned(), ""));
        }
        let token = Token {
            value: SecretString::from(token),
            principal: self.section.client_id.clone(),
            expires: now + lifetime,
        };
        Ok((token, lifetime))
    }

    async fn ask(&self) -> Result<(StatusCode, Bytes), Lack> {
        let section = &self.section;
        let credentials = format!(
            "{}:{}",
            form_encoded(&section.client_id),
            form_encoded(section.client_secret.expose())
        );
        let mut form = "grant_type=client_credentials".to_owned();
        if let Some(scope) = &section.scope {
            form.push_str("&scope=");
            form.push_str(&form_encoded(scope));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(&section.token_url)
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", base64(credentials.as_bytes())),
            )
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| self.lack(format!("can't be asked: {error}"), ""))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.https()?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        let response = client
            .request(request)
            .await
            .map_err(|error| self.lack(format!("can't be reached: {}", chain(&error)), REACH))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| {
                self.lack(
                    format!("broke off its answer: {}", chain(error.as_ref())),
                    "",
                )
            })?;
        Ok((status, body.to_bytes()))
    }

    fn https(&self) -> Result<ClientConfig, Lack> {
        if let Some(config) = self.https.get() {
            return Ok(config.clone());
        }
        if self.section.token_url.starts_with("http://") && self.section.ca.is_none() {
            return tls::https_unused();
        }
        let config = tls::https(self.section.ca.as_deref())?;
        Ok(self.https.get_or_init(|| config).clone())
    }

    fn denied(&self, status: StatusCode, body: &[u8]) -> Lack {
        let what = match serde_json::from_slice::<Denied>(body) {
            Ok(denied) => {
                let words = match denied.error_description {
                    Some(description) => format!("{}: {description}", denied.error),
                    None => denied.error,
                };
                let words = words.chars().take(WORDS_MAX);
                let words: String = words
                    .map(|letter| if letter.is_control() { ' ' } else { letter })
                    .collect();
                format!("refused with {status}: {words}")
            }
            Err(_) => format!("refused with {status}"),
        };
        let hint = match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                "check sasl.oauthbearer.token.endpoint.url"
            }
            _ => {
                "check sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and sasl.oauthbearer.scope"
            }
        };
        self.lack(what, hint)
    }

    fn lack(&self, what: String, hint: &str) -> Lack {
        Lack {
            message: format!("no token: {} {what}", self.section.token_url),
            hint: hint.to_owned(),
        }
    }
}

const REACH: &str = "check sasl.oauthbearer.token.endpoint.url and https.ca.location";

/// An error with its reasons: hyper's own words say little.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl TokenSource for Tokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self.get())
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("section", &self.section)
            .finish_non_exhaustive()
    }
}

/// When a token ends, in milliseconds since 1970.
pub(super) fn expires_ms(token: &Token) -> i64 {
    let since = token.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
