//! A cluster section for librdkafka: its configuration, and a context that brings it tokens.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use secrecy::ExposeSecret;

use super::oidc::{Tokens, expires_ms};
use crate::config::ClusterSection;
use crate::wire::{Lack, Token, TokenSource};

/// How long a connection of librdkafka's may be idle until it closes it itself.
const IDLE_MS_MAX: &str = "180000";

/// The context of an rdkafka client of any kind: consumer, producer or admin. It must be polled
/// for tokens to be brought, as clients of librdkafka must.
#[derive(Clone, Debug)]
pub struct Context {
    cluster: String,
    tokens: Option<Arc<Tokens>>,
    last_error: Arc<Mutex<Option<String>>>,
}

pub(super) fn client(
    section: &ClusterSection,
    tokens: Option<Arc<Tokens>>,
) -> (ClientConfig, Context) {
    let mut config = ClientConfig::new();
    // What stands in between forgets idle connections without a word: sooner than the clouds' do (4 to 6 min).
    config
        .set("socket.keepalive.enable", "true")
        .set("connections.max.idle.ms", IDLE_MS_MAX);
    config.extend(section.properties.expose());
    let context = Context {
        cluster: section.name.clone(),
        tokens,
        last_error: Arc::default(),
    };
    (config, context)
}

impl Context {
    /// What librdkafka complained about last: its calls report a timeout, and the reason comes
    /// here.
    pub fn last_error(&self) -> Option<String> {
        self.last().clone()
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(cluster = %self.cluster, ?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(cluster = %self.cluster, %error, "librdkafka: {reason}");
        *self.last() = Some(reason.to_owned());
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let tokens = self
            .tokens
            .as_deref()
            .ok_or("OAUTHBEARER isn't configured")?;
        let token = token_from_anywhere(tokens).map_err(|lack| {
            let message = format!("{}; {}", lack.message, lack.hint).replace('\0', " ");
            *self.last() = Some(message.clone());
            message
        })?;
        Ok(OAuthToken {
            token: token.value.expose_secret().to_owned(),
            principal_name: token.principal.clone(),
            lifetime_ms: expires_ms(&token),
        })
    }
}

/// librdkafka asks on whichever thread polls it, which may be one of a runtime, where nobody may
/// block on a future. A thread of its own may.
fn token_from_anywhere(tokens: &Tokens) -> Result<Token, Lack> {
    let unable = |message: String| Lack {
        message,
        hint: String::new(),
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| unable(error.to_string()))?;
            runtime.block_on(tokens.token())
        });
        asking
            .join()
            .unwrap_or_else(|_| Err(unable("no token: asking for it failed".to_owned())))
    })
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, _result: &DeliveryResult<'_>, _opaque: Self::DeliveryOpaque) {}
}
