//! A broker that asks who we are, as strictly as Kafka's does.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{
    BrokerId, InitProducerIdRequest, InitProducerIdResponse, MetadataResponse,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::prelude::{
    Mechname, Registry, SASLConfig, SASLServer, Session, SessionError, State, Validation,
};
use rsasl::property::AuthId;
use rsasl::validate::{Validate, ValidationError};
use tokio_rustls::TlsAcceptor;

use crate::wire::tests::fake::{Asked, Fake, Peer, body};

pub(super) const USER: &str = "user";
pub(super) const PASSWORD: &str = "pencil";

/// The salt of the example in RFC 7677, whose user and password these are.
const SALT: [u8; 16] = [
    0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81,
];
/// Made with another implementation, which also gives the RFC's signatures.
const STORED_256: &str = "586e5df283e6dceb5c3e791d8b8528ec191e664045ce971792e2e6b5bb13e2a6";
const SERVER_256: &str = "c1f3cbc1c13a9d35a14c0990eed97629ea225863e566a4314ab99f3f00e5d9d5";
const STORED_512: &str = "e8002e6f7d3ae446119b216933644dc2a2be7869eb918b8459b5e7d7d2ec12606aceef106825cd735170a675fd3611f684affad1dce3f43a0ee43bd590e1dbbe";
const SERVER_512: &str = "8d91db6230b5687874fe129bc7206e1858c3ae08e02934f57ac03b6b05a229c459d28ff46f5c9611e6c179256490215ec1ff759cb0df285db89af0f99e613aac";

fn bytes_of(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(pair, 16).expect("hex")
        })
        .collect()
}

/// What the broker wants, and what it saw.
#[derive(Default)]
pub(super) struct Broker {
    /// Empty: nobody is asked.
    pub(super) mechanisms: Vec<&'static str>,
    /// How long an authentication holds; 0: for ever.
    pub(super) lifetime_ms: i64,
    /// How long each step of an authentication takes.
    pub(super) slowness: Duration,
    /// It pretends to know the password.
    pub(super) lies: bool,
    /// The iterations that it asks for in SCRAM; 0: 4096.
    pub(super) iterations: u32,
    /// From now on nobody is let in.
    pub(super) closed: AtomicBool,
    /// Authentications that were begun.
    pub(super) begun: AtomicUsize,
    /// Authentications that went well.
    pub(super) done: AtomicUsize,
    /// Those that were begun again before the session's end.
    pub(super) in_time: AtomicUsize,
    /// Connections that got through TLS.
    pub(super) connections: AtomicUsize,
    /// What a real broker would have closed the connection for.
    pub(super) offences: Mutex<Vec<String>>,
    /// The marks of ordinary requests, in the order of the wire.
    pub(super) marks: Mutex<Vec<i64>>,
    /// First messages of OAUTHBEARER.
    pub(super) tokens: Mutex<Vec<String>>,
}

/// How long a session goes on after its end. Between that and a request a machine may stand still, on which both ends run.
const STANDS_STILL_FOR: Duration = Duration::from_secs(20);

const HANDSHAKE: i16 = 17;
const AUTHENTICATE: i16 = 36;
const METADATA: i16 = 3;
const VERSIONS: [(i16, i16, i16); 4] = [
    (METADATA, 0, 12),
    (HANDSHAKE, 0, 1),
    (22, 0, 4),
    (AUTHENTICATE, 0, 2),
];

pub(super) async fn start(broker: Arc<Broker>, tls: Option<TlsAcceptor>) -> Fake {
    Fake::start_with(tls, move |peer: Peer| {
        let broker = broker.clone();
        async move { serve(peer, &broker).await }
    })
    .await
}

async fn serve(mut peer: Peer, broker: &Broker) {
    broker.connections.fetch_add(1, Ordering::SeqCst);
    let port = peer.port();
    peer.greet(&VERSIONS).await;
    let mut who = None;
    let mut until: Option<Instant> = None;
    while let Some(asked) = peer.next().await {
        let (id, version) = (
            asked.header.correlation_id,
            asked.header.request_api_version,
        );
        let api = asked.header.request_api_key;
        match api {
            HANDSHAKE => {
                broker.begun.fetch_add(1, Ordering::SeqCst);
                if until.is_some_and(|until| Instant::now() <= until) {
                    broker.in_time.fetch_add(1, Ordering::SeqCst);
                }
                let request: SaslHandshakeRequest = body(&asked);
                let known = broker.mechanisms.contains(&request.mechanism.as_str());
                let code = match (broker.mechanisms.is_empty(), known) {
                    (true, _) => 34,
                    (false, false) => 33,
                    (false, true) => 0,
                };
                let names = broker.mechanisms.iter();
                let answer = SaslHandshakeResponse::default()
                    .with_error_code(code)
                    .with_mechanisms(names.map(|name| StrBytes::from_static_str(name)).collect());
                peer.answer(id, 0, &answer, version).await;
                if code != 0 {
                    return;
                }
                who = Some(Login::new(&request.mechanism, broker));
            }
            AUTHENTICATE => {
                let Some(login) = &mut who else {
                    return broker.offence("a login without a handshake");
                };
                if !authenticate(&mut peer, &asked, login, broker).await {
                    return;
                }
                if login.finished {
                    let lifetime = u64::try_from(broker.lifetime_ms).expect("positive");
                    until =
                        (lifetime > 0).then(|| Instant::now() + Duration::from_millis(lifetime));
                }
            }
            _ => {
                let known = who.as_ref().is_some_and(|login| login.finished);
                if !broker.mechanisms.is_empty() && !known {
                    return broker.offence(format!("request {api} in the middle of a login"));
                }
                if until.is_some_and(|until| Instant::now() > until + STANDS_STILL_FOR) {
                    return broker.offence(format!("request {api} after the session was over"));
                }
                ordinary(&mut peer, &asked, port, broker).await;
            }
        }
    }
}

async fn ordinary(peer: &mut Peer, asked: &Asked, port: i32, broker: &Broker) {
    let (id, version) = (
        asked.header.correlation_id,
        asked.header.request_api_version,
    );
    if asked.header.request_api_key == METADATA {
        let node = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_static_str("127.0.0.1"))
            .with_port(port);
        let answer = MetadataResponse::default().with_brokers(vec![node]);
        peer.answer(id, 1, &answer, version).await;
    } else {
        let request: InitProducerIdRequest = body(asked);
        let mark = request.producer_id.0;
        broker.marks.lock().expect("not poisoned").push(mark);
        let answer = InitProducerIdResponse::default().with_producer_id(request.producer_id);
        peer.answer(id, 1, &answer, version).await;
    }
}

/// Whether the connection goes on.
async fn authenticate(peer: &mut Peer, asked: &Asked, login: &mut Login, broker: &Broker) -> bool {
    tokio::time::sleep(broker.slowness).await;
    let request: SaslAuthenticateRequest = body(asked);
    let version = asked.header.request_api_version;
    let said = login.step(&request.auth_bytes, broker);
    let closed = broker.closed.load(Ordering::SeqCst);
    let answer = match said {
        Ok(said) if !closed => {
            if login.finished {
                broker.done.fetch_add(1, Ordering::SeqCst);
            }
            let answer = SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from(said));
            if version > 0 && login.finished {
                answer.with_session_lifetime_ms(broker.lifetime_ms)
            } else {
                answer
            }
        }
        _ => SaslAuthenticateResponse::default()
            .with_error_code(58)
            .with_error_message(Some(StrBytes::from_static_str("Authentication failed"))),
    };
    let refused = answer.error_code != 0;
    let header = i16::from(version >= 2);
    peer.answer(asked.header.correlation_id, header, &answer, version)
        .await;
    !refused
}

impl Broker {
    fn offence(&self, what: impl Into<String>) {
        self.offences
            .lock()
            .expect("not poisoned")
            .push(what.into());
    }
}

/// One login.
struct Login {
    mechanism: String,
    scram: Option<Session<Known>>,
    finished: bool,
    refused: bool,
}

struct Known;

impl Validation for Known {
    type Value = ();
}

struct Users {
    stored: Vec<u8>,
    server: Vec<u8>,
    iterations: u32,
}

impl SessionCallback for Users {
    fn callback(
        &self,
        _session: &SessionData,
        context: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        if context.get_ref::<AuthId>() == Some(USER) {
            let password =
                ScramStoredPassword::new(self.iterations, &SALT, &self.stored, &self.server);
            request.satisfy::<ScramStoredPassword<'_>>(&password)?;
        }
        Ok(())
    }

    fn validate(
        &self,
        _session: &SessionData,
        _context: &Context<'_>,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        validate.with::<Known, _>(|| Ok(()))?;
        Ok(())
    }
}

impl Login {
    fn new(mechanism: &str, broker: &Broker) -> Self {
        let hashes = match mechanism {
            "SCRAM-SHA-256" => Some((STORED_256, SERVER_256)),
            "SCRAM-SHA-512" => Some((STORED_512, SERVER_512)),
            _ => None,
        };
        let scram = hashes.map(|(stored, server)| {
            let mut server = bytes_of(server);
            if broker.lies {
                server[0] ^= 1;
            }
            let users = Users {
                stored: bytes_of(stored),
                server,
                iterations: if broker.iterations == 0 {
                    4096
                } else {
                    broker.iterations
                },
            };
            let config = SASLConfig::builder()
                .with_registry(Registry::default())
                .with_callback(users)
                .expect("a good config");
            SASLServer::new(config)
                .start_suggested(Mechname::parse(mechanism.as_bytes()).expect("a name"))
                .expect("a mechanism")
        });
        Self {
            mechanism: mechanism.to_owned(),
            scram,
            finished: false,
            refused: false,
        }
    }

    fn step(&mut self, message: &[u8], broker: &Broker) -> Result<Vec<u8>, ()> {
        if let Some(session) = &mut self.scram {
            let mut said = Vec::new();
            let state = session.step(Some(message), &mut said).map_err(drop)?;
            if let State::Finished(_) = state {
                session.validation().ok_or(())?;
                self.finished = true;
            }
            return Ok(said);
        }
        let message = String::from_utf8_lossy(message).into_owned();
        if self.mechanism == "PLAIN" {
            self.finished = message == format!("\0{USER}\0{PASSWORD}");
            return if self.finished {
                Ok(Vec::new())
            } else {
                Err(())
            };
        }
        // OAUTHBEARER: every token that begins with `good` is one.
        if self.refused {
            return Err(());
        }
        let mut tokens = broker.tokens.lock().expect("not poisoned");
        tokens.push(message.clone());
        self.finished =
            message.starts_with("n,,\u{1}auth=Bearer good") && message.ends_with("\u{1}\u{1}");
        self.refused = !self.finished;
        Ok(if self.finished {
            Vec::new()
        } else {
            br#"{"status":"invalid_token"}"#.to_vec()
        })
    }
}
