//! Tokens for client credentials (RFC 6749, 4.4), kept until most of their life is over.
//!
//! The server that gives them may go down with a whole region. So a token that is still good is given to whoever asks,
//! at once, while a new one is asked for beside; and several servers are asked in turn.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
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
use crate::shell;
use crate::wire::{Lack, Token, TokenFuture, TokenSource};

/// How long a token may take, connecting included.
const ANSWER: Duration = Duration::from_secs(10);
/// The same of a server behind which another one comes.
const ANSWER_BEFORE_ANOTHER: Duration = Duration::from_secs(3);
/// More than any token that a broker takes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// The life of a token whose answer doesn't say.
const LIFETIME: Duration = Duration::from_secs(300);
/// Longer makes no difference, and keeps times in range.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 86_400);
/// After a failure: 1 s doubling to 30 s until it is tried again.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// What a connection must have left of its token: of its life,
const LEFT: f64 = 0.1;
/// and that is enough for any login, however slow the line and wrong the broker's clock.
const LEFT_MAX: Duration = Duration::from_secs(60);
/// What of the server's words is repeated.
const WORDS_MAX: usize = 200;

/// The tokens of one cluster, for all of its connections in both clients.
pub(super) struct Tokens {
    endpoint: Arc<Endpoint>,
}

/// Where they come from, and what came.
struct Endpoint {
    section: OidcSection,
    https: OnceLock<ClientConfig>,
    /// Held while a token is on its way, so that everybody gets the same.
    gate: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Kept>,
    failed: Option<Failed>,
    /// Which of the servers gave the last one.
    giver: usize,
}

impl State {
    /// A token that needn't be renewed yet.
    fn fresh(&self) -> Option<Token> {
        let now = SystemTime::now();
        let fresh = self.token.as_ref().filter(|kept| now < kept.renew);
        fresh.map(|kept| kept.token.clone())
    }

    /// One that is good, though it is time for another.
    fn living(&self) -> Option<Token> {
        let now = SystemTime::now();
        let living = self.token.as_ref().filter(|kept| now < kept.nearly_over);
        living.map(|kept| kept.token.clone())
    }

    /// One that is good for a moment: better than none.
    fn last(&self) -> Option<Token> {
        let now = SystemTime::now();
        let last = self.token.as_ref().filter(|kept| now < kept.token.expires);
        last.map(|kept| kept.token.clone())
    }

    /// Why there is none, as long as it is too early to ask again.
    fn too_early(&self) -> Option<Lack> {
        let failed = self.failed.as_ref();
        let failed = failed.filter(|failed| Instant::now() < failed.not_before);
        failed.map(|failed| failed.lack.clone())
    }
}

struct Kept {
    token: Token,
    /// When a new one is wanted, with a good part of this one's life left.
    renew: SystemTime,
    /// From then on the broker may find it too old when it gets it.
    nearly_over: SystemTime,
}

impl Kept {
    /// Asked for at that time, with so long a life.
    fn new(token: Token, asked_at: SystemTime, lifetime: Duration) -> Self {
        let left = lifetime.mul_f64(LEFT).min(LEFT_MAX);
        Self {
            renew: asked_at + lifetime.mul_f64(0.8),
            nearly_over: token.expires - left,
            token,
        }
    }
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
        let endpoint = Endpoint {
            section,
            https: OnceLock::new(),
            gate: Arc::default(),
            state: Mutex::default(),
        };
        Self {
            endpoint: Arc::new(endpoint),
        }
    }

    /// As if the token that is kept were so much older.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        let mut state = self.endpoint.state();
        let kept = state.token.as_mut().expect("there is one");
        for time in [
            &mut kept.renew,
            &mut kept.nearly_over,
            &mut kept.token.expires,
        ] {
            *time -= by;
        }
    }

    async fn get(&self) -> Result<Token, Lack> {
        let endpoint = &self.endpoint;
        let (fresh, living) = {
            let state = endpoint.state();
            (state.fresh(), state.living())
        };
        if let Some(fresh) = fresh {
            return Ok(fresh);
        }
        if let Some(living) = living {
            endpoint.renew_beside();
            return Ok(living);
        }
        let _one_at_a_time = endpoint.gate.lock().await;
        {
            // Whoever was in front may have brought one, or heard that there is none.
            let state = endpoint.state();
            if let Some(fresh) = state.fresh() {
                return Ok(fresh);
            }
            if let Some(lack) = state.too_early() {
                return state.last().ok_or(lack);
            }
        }
        let brought = endpoint.bring().await;
        brought.or_else(|lack| endpoint.state().last().ok_or(lack))
    }
}

impl Endpoint {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a new token while the old one is used, unless that is under way or was in vain a moment ago. On a thread of
    /// its own: who asks may be one of librdkafka's, whose runtime ends with the answer.
    fn renew_beside(self: &Arc<Self>) {
        if self.state().too_early().is_some() {
            return;
        }
        let Ok(guard) = self.gate.clone().try_lock_owned() else {
            return;
        };
        let endpoint = self.clone();
        let renewing = std::thread::Builder::new().name("token".to_owned());
        let spawned = renewing.spawn(move || {
            let _one_at_a_time = guard;
            if endpoint.state().fresh().is_some() {
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => {
                    if let Err(lack) = runtime.block_on(endpoint.bring()) {
                        tracing::warn!("no new token: {}; the old one is used", lack.message);
                    }
                }
                Err(error) => tracing::warn!(%error, "no new token: nobody can ask for one"),
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no new token: nobody can ask for one");
        }
    }

    /// Asks for a token, and keeps what comes. Only who holds the gate does so.
    async fn bring(&self) -> Result<Token, Lack> {
        let now = SystemTime::now();
        let first = self.state().giver;
        let fetched = self.fetch_of_any(first).await;
        let mut state = self.state();
        match fetched {
            Ok((giver, token, lifetime)) => {
                state.failed = None;
                state.giver = giver;
                state.token = Some(Kept::new(token.clone(), now, lifetime));
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
                Err(lack)
            }
        }
    }

    /// Asks the servers in turn, the one that gave the last token first.
    async fn fetch_of_any(&self, first: usize) -> Result<(usize, Token, Duration), Lack> {
        let count = self.section.token_urls.len();
        let mut lacks: Vec<Lack> = Vec::new();
        for turn in 0..count {
            let index = (first + turn) % count;
            let is_last = turn + 1 == count;
            let patience = if is_last {
                ANSWER
            } else {
                ANSWER_BEFORE_ANOTHER
            };
            let url = &self.section.token_urls[index];
            match self.fetch(url, patience).await {
                Ok((token, lifetime)) => return Ok((index, token, lifetime)),
                Err(lack) => lacks.push(lack),
            }
        }
        Err(all_of(lacks))
    }

    async fn fetch(&self, url: &str, patience: Duration) -> Result<(Token, Duration), Lack> {
        let now = SystemTime::now();
        let (status, body) = tokio::time::timeout(patience, self.ask(url))
            .await
            .map_err(|_| {
                let what = format!("gave no answer within {} s", patience.as_secs());
                lack(url, what, REACH)
            })??;
        self.judge(url, status, &body, now)
    }

    /// What the server's answer is to somebody who asked then.
    fn judge(
        &self,
        url: &str,
        status: StatusCode,
        body: &[u8],
        now: SystemTime,
    ) -> Result<(Token, Duration), Lack> {
        if !status.is_success() {
            return Err(denied(url, status, body));
        }
        let granted: Granted = serde_json::from_slice(body).map_err(|_| {
            // The reason isn't repeated: it could quote the token.
            let what = "answered something that has no `access_token`".to_owned();
            lack(url, what, "check sasl.oauthbearer.token.endpoint.url")
        })?;
        let lifetime = granted.lifetime();
        let token = granted.access_token;
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(lack(url, "gave a token that can't be one".to_owned(), ""));
        }
        let token = Token {
            value: SecretString::from(token),
            principal: self.section.client_id.clone(),
            expires: now + lifetime,
        };
        Ok((token, lifetime))
    }

    async fn ask(&self, url: &str) -> Result<(StatusCode, Bytes), Lack> {
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
            .uri(url)
            .header(
                header::AUTHORIZATION,
                format!("Basic {}", base64(credentials.as_bytes())),
            )
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::from(form)))
            .map_err(|error| lack(url, format!("can't be asked: {error}"), ""))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.https(url)?)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        let response = client
            .request(request)
            .await
            .map_err(|error| lack(url, format!("can't be reached: {}", chain(&error)), REACH))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| {
                lack(
                    url,
                    format!("broke off its answer: {}", chain(error.as_ref())),
                    "",
                )
            })?;
        Ok((status, body.to_bytes()))
    }

    fn https(&self, url: &str) -> Result<ClientConfig, Lack> {
        if let Some(config) = self.https.get() {
            return Ok(config.clone());
        }
        if url.starts_with("http://") && self.section.ca.is_none() {
            return tls::https_unused();
        }
        let config = tls::https(self.section.ca.as_deref())?;
        Ok(self.https.get_or_init(|| config).clone())
    }
}

/// Why none of the servers gave one.
fn all_of(mut lacks: Vec<Lack>) -> Lack {
    if lacks.len() == 1 {
        return lacks.remove(0);
    }
    let messages: Vec<&str> = lacks.iter().map(|lack| lack.message.as_str()).collect();
    let mut hints = lacks.iter().map(|lack| &lack.hint);
    Lack {
        message: messages.join("; "),
        hint: hints
            .find(|hint| !hint.is_empty())
            .cloned()
            .unwrap_or_default(),
    }
}

fn denied(url: &str, status: StatusCode, body: &[u8]) -> Lack {
    let what = match serde_json::from_slice::<Denied>(body) {
        Ok(denied) => {
            let words = match denied.error_description {
                Some(description) => format!("{}: {description}", denied.error),
                None => denied.error,
            };
            let words = shell::one_line(&words, WORDS_MAX);
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
    lack(url, what, hint)
}

fn lack(url: &str, what: String, hint: &str) -> Lack {
    Lack {
        message: format!("no token: {url} {what}"),
        hint: hint.to_owned(),
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
            .field("section", &self.endpoint.section)
            .finish_non_exhaustive()
    }
}

/// When a token ends, in milliseconds since 1970.
pub(super) fn expires_ms(token: &Token) -> i64 {
    let since = token.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::fuzz::{Dice, Input, Target};

    const URL: &str = "http://127.0.0.1:1/token";

    fn tokens() -> Tokens {
        Tokens::new(OidcSection {
            token_urls: vec![URL.to_owned()],
            client_id: "twinlog".to_owned(),
            client_secret: Secret::from("s3cret".to_owned()),
            scope: None,
            ca: None,
        })
    }

    /// With a status of 200 and with one of 401.
    #[test]
    fn fuzz_token_answers() {
        const ANSWERS: Target = Target {
            name: "token-answers",
            rounds: 4_000,
            bytes_base: 64 << 10,
            bytes_per_byte: 64,
        };
        let make = |dice: &mut Dice| {
            let good = *dice.one(&[
                &br#"{"access_token":"a.b.c","expires_in":3600,"token_type":"Bearer"}"#[..],
                br#"{"access_token":"a.b.c","expires_in":"1e300"}"#,
                br#"{"error":"invalid_client","error_description":"no such client"}"#,
            ]);
            Input::new("", dice.damage(good))
        };
        let tokens = tokens();
        ANSWERS.hunt(make, |input| {
            for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
                match tokens
                    .endpoint
                    .judge(URL, status, &input.bytes, SystemTime::now())
                {
                    Ok((token, lifetime)) => {
                        assert!(expires_ms(&token) > 0 && lifetime <= LIFETIME_MAX);
                    }
                    Err(lack) => assert!(!lack.message.chars().any(shell::is_unseen)),
                }
            }
        });
    }

    /// In a place of its own: the life of a token would have to pass.
    #[test]
    fn a_token_that_is_nearly_over_is_given_only_where_there_is_no_other() {
        let now = SystemTime::now();
        // How old it is of its life, in seconds; whether it is fresh, and good enough.
        for (age, life, is_fresh, is_good) in [
            (0, 600, true, true),
            (481, 600, false, true),
            (535, 600, false, true),
            (541, 600, false, false),
            (3_535, 3_600, false, true),
            (3_541, 3_600, false, false),
        ] {
            let (asked_at, life) = (now - Duration::from_secs(age), Duration::from_secs(life));
            let token = Token {
                value: SecretString::from("good"),
                principal: "twinlog".to_owned(),
                expires: asked_at + life,
            };
            let state = State {
                token: Some(Kept::new(token, asked_at, life)),
                ..State::default()
            };
            let found = (state.fresh().is_some(), state.living().is_some());
            assert_eq!(found, (is_fresh, is_good), "{age} s of {life:?}");
            assert!(state.last().is_some(), "{age} s of {life:?}");
        }
    }

    #[test]
    fn a_server_s_words_are_shown_in_the_order_in_which_they_are() {
        let body = "{\"error\":\"no\u{202e}x\\u001b[2J\"}";
        let message = denied(URL, StatusCode::BAD_REQUEST, body.as_bytes()).message;
        assert!(message.ends_with(": no x [2J"), "{message}");
    }
}
