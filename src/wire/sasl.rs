//! The messages of one authentication: what to send first, and what to answer. No I/O.

use std::sync::Arc;

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::config::SASLConfig;
use rsasl::mechanisms::{oauthbearer, plain, scram};
use rsasl::prelude::{Mechanism, Registry, SASLClient, Session, SessionError, State};
use rsasl::property::{AuthId, OAuthBearerToken, Password};
use secrecy::{ExposeSecret, SecretString};

use super::security::{Lack, Sasl, ScramHash};

/// What a broker may ask for in SCRAM. Brokers use 4,096 (the least that RFC 7677 allows, and the
/// Java client accepts) to 16,384; each round costs time on our side, so a broker can't ask for
/// any number.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;

/// One authentication under way.
pub(super) struct Exchange {
    session: Session,
    state: Progress,
    scram: bool,
    bearer: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// More is to be said.
    Running,
    /// Said all.
    Finished,
    /// The broker refused the token and got our nod; its error follows.
    Refused,
}

/// What comes next.
pub(super) enum Step {
    /// Send this and step again with the answer.
    Send(Vec<u8>),
    /// The broker has proven what it must, if the mechanism asks for it.
    Done,
}

/// What the mechanism asks for.
struct Answers {
    username: Option<String>,
    secret: SecretString,
}

impl SessionCallback for Answers {
    fn callback(
        &self,
        _session: &SessionData,
        _context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        if let Some(username) = &self.username {
            request.satisfy::<AuthId>(username)?;
            request.satisfy::<Password>(self.secret.expose_secret().as_bytes())?;
        } else {
            request.satisfy::<OAuthBearerToken>(self.secret.expose_secret())?;
        }
        Ok(())
    }
}

impl Exchange {
    /// Gets a token, if one is needed, and begins.
    pub(super) async fn begin(sasl: &Sasl) -> Result<Self, Lack> {
        let answers = match sasl {
            Sasl::Plain { username, password }
            | Sasl::Scram {
                username, password, ..
            } => Answers {
                username: Some(username.clone()),
                secret: password.clone(),
            },
            Sasl::OauthBearer { tokens } => Answers {
                username: None,
                secret: tokens.token().await?.value,
            },
        };
        let unusable = |error: &dyn std::fmt::Display| Lack {
            message: error.to_string(),
            hint: String::new(),
        };
        let config: Arc<SASLConfig> = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(std::slice::from_ref(mechanism(
                sasl,
            ))))
            .with_callback(answers)
            .map_err(|error| unusable(&error))?;
        let session = SASLClient::new(config)
            .start_suggested(&[mechanism(sasl).mechanism])
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            session,
            state: Progress::Running,
            scram: matches!(sasl, Sasl::Scram { .. }),
            bearer: matches!(sasl, Sasl::OauthBearer { .. }),
        })
    }

    /// What to send after `received`; nothing was received before the first message.
    ///
    /// # Errors
    /// What is wrong with the broker's message. It isn't who it says, perhaps.
    pub(super) fn step(&mut self, received: Option<&[u8]>) -> Result<Step, String> {
        if self.state != Progress::Running {
            return match received {
                Some([]) | None if self.state == Progress::Finished => Ok(Step::Done),
                _ => Err("the broker goes on after the end".to_owned()),
            };
        }
        if let Some(received) = received {
            if self.bearer {
                return Ok(self.bearer_answer(received));
            }
            if self.scram {
                check_form(received)?;
                check_iterations(received)?;
            }
        }
        let mut message = Vec::new();
        match self.session.step(received, &mut message) {
            Ok(State::Running) => Ok(Step::Send(message)),
            Ok(State::Finished(sent)) => {
                self.state = Progress::Finished;
                match sent {
                    rsasl::prelude::MessageSent::Yes => Ok(Step::Send(message)),
                    rsasl::prelude::MessageSent::No => Ok(Step::Done),
                }
            }
            Err(SessionError::MutualAuthenticationFailed) => {
                Err("the broker could not prove that it knows the password".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Nothing means yes. Anything else is an error, which is acknowledged with a single 0x01 (RFC
    /// 7628), and then the broker says it in words.
    fn bearer_answer(&mut self, received: &[u8]) -> Step {
        if received.is_empty() {
            self.state = Progress::Finished;
            return Step::Done;
        }
        self.state = Progress::Refused;
        Step::Send(vec![1])
    }
}

fn mechanism(sasl: &Sasl) -> &'static Mechanism {
    match sasl {
        Sasl::Plain { .. } => &plain::PLAIN,
        Sasl::Scram { hash, .. } => match hash {
            ScramHash::Sha256 => &scram::SCRAM_SHA256,
            ScramHash::Sha512 => &scram::SCRAM_SHA512,
        },
        Sasl::OauthBearer { .. } => &oauthbearer::OAUTHBEARER,
    }
}

/// Fields are a letter, `=` and a value (RFC 5802, 7). rsasl looks at the first two bytes of each
/// without asking whether they are there.
fn check_form(message: &[u8]) -> Result<(), String> {
    let mut fields = message.split(|byte| *byte == b',');
    if fields.all(|field| matches!(field, [_, b'=', ..])) {
        Ok(())
    } else {
        Err("the broker's message isn't one of SCRAM".to_owned())
    }
}

/// The iterations of a broker's first message: `r=...,s=...,i=4096`.
fn check_iterations(message: &[u8]) -> Result<(), String> {
    let mut fields = message.split(|byte| *byte == b',');
    let Some(count) = fields.find_map(|field| field.strip_prefix(b"i=")) else {
        // Not a first message.
        return Ok(());
    };
    let count = std::str::from_utf8(count).ok().and_then(|c| c.parse().ok());
    match count {
        Some(count) if ITERATIONS.contains(&count) => Ok(()),
        _ => Err(format!(
            "the broker asks for a number of SCRAM iterations that is not between {} and {}",
            ITERATIONS.start(),
            ITERATIONS.end()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Dice, Input, Target};
    use crate::wire::security::{Token, TokenFuture, TokenSource};

    async fn begun() -> Exchange {
        let sasl = Sasl::Scram {
            hash: ScramHash::Sha256,
            username: "user".to_owned(),
            password: SecretString::from("pencil"),
        };
        let mut exchange = Exchange::begin(&sasl).await.expect("it can begin");
        let first = exchange.step(None).expect("it speaks first");
        assert!(matches!(first, Step::Send(_)));
        exchange
    }

    /// Whatever a broker sends in an authentication: an error or the next step, in time.
    #[test]
    fn fuzz_sasl_messages() {
        const SASL: Target = Target {
            name: "sasl",
            rounds: 300,
            bytes_base: 1 << 20,
            bytes_per_byte: 64,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        let make = |dice: &mut Dice| {
            let (mechanism, good): (&str, &[u8]) = match dice.below(5) {
                0 | 1 => ("scram", b"r=NONCEmore,s=c2FsdHNhbHQ=,i=4096"),
                2 => ("scram", b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="),
                3 => ("plain", b""),
                _ => ("bearer", b"{\"status\":\"invalid_token\"}"),
            };
            Input::new(mechanism, dice.damage(good))
        };
        SASL.hunt(make, |input| runtime.block_on(answered(input)));
    }

    /// Its first message is the input, with our nonce where it has one, and its second is the input as well.
    async fn answered(input: &Input) {
        let (username, password) = ("user".to_owned(), SecretString::from("pencil"));
        let sasl = match input.of.as_str() {
            "scram" => Sasl::Scram {
                hash: ScramHash::Sha256,
                username,
                password,
            },
            "plain" => Sasl::Plain { username, password },
            _ => Sasl::OauthBearer {
                tokens: Arc::new(NoTokens),
            },
        };
        let mut exchange = Exchange::begin(&sasl).await.expect("it can begin");
        let Ok(Step::Send(first)) = exchange.step(None) else {
            panic!("it speaks first")
        };
        let first = String::from_utf8_lossy(&first).into_owned();
        let nonce = first.split("r=").nth(1).unwrap_or_default();
        let said = replaced(&input.bytes, b"NONCE", nonce.as_bytes());
        if asks_for_much(&said) {
            return;
        }
        if let Ok(Step::Send(_)) = exchange.step(Some(&said)) {
            let _ = exchange.step(Some(&input.bytes));
        }
    }

    /// More rounds than a test has time for, and fewer than are refused.
    fn asks_for_much(said: &[u8]) -> bool {
        let said = String::from_utf8_lossy(said);
        let count = said.split("i=").nth(1).unwrap_or_default();
        let digits = count.chars().take_while(char::is_ascii_digit).count();
        (5..=7).contains(&digits)
    }

    fn replaced(bytes: &[u8], what: &[u8], by: &[u8]) -> Vec<u8> {
        match bytes.windows(what.len()).position(|window| window == what) {
            Some(at) => [&bytes[..at], by, &bytes[at + what.len()..]].concat(),
            None => bytes.to_vec(),
        }
    }

    #[derive(Debug)]
    struct NoTokens;

    impl TokenSource for NoTokens {
        fn token(&self) -> TokenFuture<'_> {
            let token = Token {
                value: SecretString::from("a.b.c"),
                principal: "user".to_owned(),
                expires: std::time::SystemTime::now(),
            };
            Box::pin(async move { Ok(token) })
        }
    }

    /// Whatever a broker sends instead of its first message is an error, never a panic.
    #[tokio::test]
    async fn a_broken_message_of_scram_is_an_error() {
        for message in [
            "",
            ",",
            "r",
            "r=",
            "r=x,",
            "r=x,s",
            "r=x,s=eA==,",
            "r=x,s=eA==,i",
            "v",
        ] {
            let step = begun().await.step(Some(message.as_bytes()));
            assert!(step.is_err(), "{message}");
        }
    }
}
