//! Who can log in, and who has: SASL with PLAIN and SCRAM (`SaslServerAuthenticator`,
//! `PlainSaslServer`, `ScramSaslServer`).

mod base64;
pub mod scram;

use std::collections::BTreeMap;

use scram::{Credential, Exchange, Mechanism};

/// Whether clients log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// A PLAINTEXT listener: everybody is `User:ANONYMOUS`.
    #[default]
    Never,
    /// Who wants to. Stands for two listeners, which a broker of the fake doesn't have.
    Optional,
    /// A SASL_PLAINTEXT listener.
    Required,
}

/// Users and the connections that they have.
#[derive(Debug, Default)]
pub struct Users {
    /// Whether clients log in.
    pub login: Login,
    /// Passwords by user, for PLAIN.
    pub plain: BTreeMap<String, String>,
    /// Credentials by user.
    pub scram: BTreeMap<String, BTreeMap<Mechanism, Credential>>,
    /// How far each connection's login is.
    connections: BTreeMap<u64, Progress>,
}

#[derive(Debug)]
enum Progress {
    Shaken(Kind),
    Scram(Exchange),
    Done(String),
    Failed,
}

/// What a client chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Scram(Mechanism),
}

/// What a listener offers (`sasl.enabled.mechanisms`).
pub const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Why a login failed, for people.
pub type Failed = String;

impl Users {
    /// A user for PLAIN and for SCRAM, with one password.
    pub fn add(&mut self, name: &str, password: &str) {
        self.plain.insert(name.to_owned(), password.to_owned());
        let credentials = Mechanism::ALL.map(|mechanism| {
            let salt = format!("salt of {name}");
            (
                mechanism,
                Credential::new(mechanism, password, salt.as_bytes(), scram::ITERATIONS_MIN),
            )
        });
        self.scram
            .insert(name.to_owned(), BTreeMap::from(credentials));
    }

    /// Whom a connection belongs to; `None` for one that hasn't logged in.
    pub fn principal(&self, connection: u64) -> Option<&str> {
        match self.connections.get(&connection)? {
            Progress::Done(principal) => Some(principal),
            _ => None,
        }
    }

    /// Whether a connection must log in before it may ask for anything else. One whose login
    /// failed has nothing more to ask.
    pub fn must_log_in(&self, connection: u64) -> bool {
        match self.connections.get(&connection) {
            Some(Progress::Done(_)) => false,
            Some(_) => true,
            None => self.login == Login::Required,
        }
    }

    /// The client chooses a mechanism; `false` if there is none of that name.
    pub(crate) fn shake_hands(&mut self, connection: u64, mechanism: &str) -> bool {
        let kind = match mechanism {
            "PLAIN" => Kind::Plain,
            name => match Mechanism::ALL.into_iter().find(|it| it.name() == name) {
                Some(mechanism) => Kind::Scram(mechanism),
                None => return false,
            },
        };
        self.connections.insert(connection, Progress::Shaken(kind));
        true
    }

    /// The client's next message; returns the answer to it.
    ///
    /// # Errors
    /// Why the login failed.
    pub(crate) fn step(
        &mut self,
        connection: u64,
        message: &[u8],
        nonce: &str,
    ) -> Result<Vec<u8>, Failed> {
        let before = self.connections.remove(&connection);
        let result = self.next(before, message, nonce);
        let (progress, answer) = match result {
            Ok((progress, answer)) => (progress, Ok(answer)),
            Err(failed) => (Progress::Failed, Err(failed)),
        };
        self.connections.insert(connection, progress);
        answer
    }

    fn next(
        &self,
        before: Option<Progress>,
        message: &[u8],
        nonce: &str,
    ) -> Result<(Progress, Vec<u8>), Failed> {
        match before {
            Some(Progress::Shaken(Kind::Plain)) => {
                let user = self.check_plain(message)?;
                Ok((Progress::Done(format!("User:{user}")), Vec::new()))
            }
            Some(Progress::Shaken(Kind::Scram(mechanism))) => {
                let credential = |user: &str| self.scram.get(user)?.get(&mechanism).cloned();
                let (exchange, answer) = Exchange::begin(message, nonce, credential)
                    .ok_or_else(|| invalid(mechanism.name()))?;
                Ok((Progress::Scram(exchange), answer))
            }
            Some(Progress::Scram(exchange)) => {
                let mechanism = exchange.mechanism();
                let (user, answer) = exchange
                    .end(message)
                    .ok_or_else(|| invalid(mechanism.name()))?;
                Ok((Progress::Done(format!("User:{user}")), answer))
            }
            Some(Progress::Done(_) | Progress::Failed) | None => {
                Err("Unexpected SaslAuthenticate request".to_owned())
            }
        }
    }

    /// `PlainSaslServer.evaluateResponse`.
    fn check_plain(&self, message: &[u8]) -> Result<String, Failed> {
        let text = std::str::from_utf8(message).unwrap_or_default();
        let mut parts = text.split('\0');
        let (Some(_), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("Invalid SASL/PLAIN response: expected 3 tokens".to_owned());
        };
        match self.plain.get(user) {
            Some(known) if known == password => Ok(user.to_owned()),
            _ => Err("Authentication failed: Invalid username or password".to_owned()),
        }
    }
}

fn invalid(mechanism: &str) -> Failed {
    format!(
        "Authentication failed during authentication due to invalid credentials with SASL \
         mechanism {mechanism}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_takes_the_password_and_nothing_else() {
        let mut users = Users::default();
        users.add("alice", "secret");
        users.login = Login::Required;
        assert!(users.must_log_in(1));
        assert!(!users.shake_hands(1, "GSSAPI") && users.shake_hands(1, "PLAIN"));
        assert_eq!(users.step(1, b"\0alice\0secret", ""), Ok(Vec::new()));
        assert_eq!(users.principal(1), Some("User:alice"));
        assert!(!users.must_log_in(1));
        for wrong in [&b"\0alice\0other"[..], b"\0bob\0secret", b"alice", b""] {
            assert!(users.shake_hands(2, "PLAIN"));
            assert!(users.step(2, wrong, "").is_err());
            assert_eq!(users.principal(2), None);
            assert!(users.must_log_in(2));
        }
    }

    #[test]
    fn who_need_not_log_in_is_anonymous() {
        let mut users = Users::default();
        assert!(!users.must_log_in(1) && users.principal(1).is_none());
        users.login = Login::Optional;
        assert!(!users.must_log_in(1));
        assert!(users.step(1, b"\0a\0b", "").is_err(), "no handshake");
        assert!(users.must_log_in(1), "it failed");
    }
}
