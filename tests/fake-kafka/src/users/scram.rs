//! SCRAM from the broker's side (RFC 5802, `ScramSaslServer`, `ScramFormatter`).

use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};

use super::base64;

/// `ScramMechanism.minIterations`.
pub const ITERATIONS_MIN: u32 = 4_096;

/// A hash to log in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// `SCRAM-SHA-256`.
    Sha256,
    /// `SCRAM-SHA-512`.
    Sha512,
}

impl Mechanism {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As SASL has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// `org.apache.kafka.clients.admin.ScramMechanism`.
    pub fn number(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    /// By Kafka's number.
    pub fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.number() == number)
    }

    fn hash(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }

    fn sign(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(algorithm, key);
        hmac::sign(&key, bytes).as_ref().to_vec()
    }

    fn salted(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut salted = vec![0; length];
        let iterations = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(
            algorithm,
            iterations,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        salted
    }
}

/// What a broker keeps of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// How often it was hashed.
    pub iterations: u32,
    mechanism: Mechanism,
    salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Credential {
    /// Of a password.
    pub fn new(mechanism: Mechanism, password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = mechanism.salted(password, salt, iterations);
        Self::of_salted(mechanism, &salted, salt, iterations)
    }

    /// Of a password that was salted elsewhere, as clients send it
    /// (`ScramControlManager.ScramCredentialValue`).
    pub fn of_salted(mechanism: Mechanism, salted: &[u8], salt: &[u8], iterations: u32) -> Self {
        let client_key = mechanism.sign(salted, b"Client Key");
        Self {
            iterations,
            mechanism,
            salt: salt.to_vec(),
            stored_key: mechanism.hash(&client_key),
            server_key: mechanism.sign(salted, b"Server Key"),
        }
    }
}

/// A login between its two messages.
#[derive(Debug)]
pub struct Exchange {
    user: String,
    credential: Credential,
    nonce: String,
    /// What both have said so far, without the client's header.
    said: String,
}

impl Exchange {
    /// The client's first message: `n,,n=user,r=nonce`. `None` if it isn't one, or the user is
    /// unknown.
    pub(super) fn begin(
        message: &[u8],
        server_nonce: &str,
        credential: impl Fn(&str) -> Option<Credential>,
    ) -> Option<(Self, Vec<u8>)> {
        let message = std::str::from_utf8(message).ok()?;
        let bare = message.strip_prefix("n,")?.split_once(',')?.1;
        let user = field(bare, "n=")?.replace("=2C", ",").replace("=3D", "=");
        let credential = credential(&user)?;
        let nonce = format!("{}{server_nonce}", field(bare, "r=")?);
        let salt = base64::encode(&credential.salt);
        let answer = format!("r={nonce},s={salt},i={}", credential.iterations);
        let exchange = Self {
            said: format!("{bare},{answer}"),
            user,
            credential,
            nonce,
        };
        Some((exchange, answer.into_bytes()))
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.credential.mechanism
    }

    /// The client's last message: `c=biws,r=nonce,p=proof`. Returns the user and the proof that
    /// the broker knows the password, too; `None` if the client doesn't.
    pub(super) fn end(self, message: &[u8]) -> Option<(String, Vec<u8>)> {
        let message = std::str::from_utf8(message).ok()?;
        let (without_proof, _) = message.rsplit_once(",p=")?;
        if field(message, "r=")? != self.nonce {
            return None;
        }
        let mechanism = self.credential.mechanism;
        let said = format!("{},{without_proof}", self.said);
        let signature = mechanism.sign(&self.credential.stored_key, said.as_bytes());
        let proof = base64::decode(field(message, "p=")?)?;
        if proof.len() != signature.len() {
            return None;
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if mechanism.hash(&client_key) != self.credential.stored_key {
            return None;
        }
        let ours = mechanism.sign(&self.credential.server_key, said.as_bytes());
        let answer = format!("v={}", base64::encode(&ours));
        Some((self.user, answer.into_bytes()))
    }
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.split(',').find_map(|part| part.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677.
    #[test]
    fn the_rfc_s_client_gets_in() {
        let salt = base64::decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let credential = Credential::new(Mechanism::Sha256, "pencil", &salt, 4_096);
        let begin = |user: &str| {
            let first = format!("n,,n={user},r=rOprNGfwEbeRWgbNEkqO");
            Exchange::begin(first.as_bytes(), "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", |user| {
                (user == "user").then(|| credential.clone())
            })
        };
        let (exchange, answer) = begin("user").expect("a user");
        assert_eq!(
            answer,
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (user, answer) = exchange.end(last.as_bytes()).expect("the right proof");
        assert_eq!(user, "user");
        assert_eq!(answer, b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

        let (exchange, _) = begin("user").expect("a user");
        let wrong = last.replace("p=dH", "p=dI");
        assert!(exchange.end(wrong.as_bytes()).is_none());
        assert!(begin("other").is_none());
    }
}
