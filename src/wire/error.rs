//! What can go wrong between us and a broker.
//!
//! Every error says which cluster, which broker and which call it came from. Errors are cheap to
//! clone, because one broken connection is reported to everyone who waits for it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use crate::shell;

/// So many letters of what a broker says are repeated: a policy's refusal is some sentences.
const WORDS_MAX: usize = 2_000;

/// Where an error happened; unknown parts are empty.
#[derive(Clone, Debug, Default)]
pub struct ErrorContext {
    /// Name of the cluster as the user gave it.
    pub cluster: String,
    /// Broker id; negative for a bootstrap address whose id isn't known.
    pub broker: Option<i32>,
    /// `host:port` that we talked to.
    pub address: Option<String>,
    /// Name of the call, for example `ListOffsets`.
    pub api: Option<&'static str>,
    /// What the call was about, for example a topic or a partition.
    pub subject: Option<String>,
}

impl ErrorContext {
    /// A context that knows the cluster only.
    pub fn cluster(name: &str) -> Self {
        Self {
            cluster: name.to_owned(),
            ..Self::default()
        }
    }
}

impl fmt::Display for ErrorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cluster {}", self.cluster)?;
        match (self.broker, &self.address) {
            (Some(broker), Some(address)) if broker >= 0 => {
                write!(f, ", broker {broker} at {}", seen(address))?;
            }
            (_, Some(address)) => write!(f, ", {}", seen(address))?,
            (Some(broker), None) => write!(f, ", broker {broker}")?,
            (None, None) => {}
        }
        if let Some(api) = self.api {
            write!(f, ", {api}")?;
        }
        if let Some(subject) = &self.subject {
            write!(f, ", {}", seen(subject))?;
        }
        Ok(())
    }
}

/// A name that came over the network.
fn seen(name: &str) -> String {
    shell::one_line(name, WORDS_MAX)
}

/// Kinds of trouble with TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    /// The broker's certificate, or one above it, is over.
    Expired,
    /// The broker's certificate isn't valid yet: perhaps a clock is wrong.
    NotYetValid,
    /// Nobody whom we trust has signed the broker's certificate.
    UnknownIssuer,
    /// The certificate is for other names than the one we connect to.
    WrongName,
    /// The broker refused, for example because it wants a certificate of ours.
    Refused,
    /// The port speaks plaintext.
    BrokerSpeaksPlaintext,
    /// The port speaks TLS, and we don't.
    BrokerWantsTls,
    /// A file or setting on our side can't be used.
    Local,
    /// Anything else.
    Other,
}

/// An error of the wire client.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WireError {
    /// The operating system refused: connect, read or write.
    #[error("{context}: {error}")]
    Io {
        /// Where.
        context: Arc<ErrorContext>,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The connection is closed: by the broker, or by us.
    #[error("{context}: disconnected")]
    Disconnected {
        /// Where.
        context: Arc<ErrorContext>,
    },
    /// No answer in time. The connection is given up, since answers come in order.
    #[error("{context}: no answer within {after:?}")]
    Timeout {
        /// Where.
        context: Arc<ErrorContext>,
        /// How long we waited.
        after: Duration,
    },
    /// Somebody took the connection and then said nothing, or nothing beyond what any stranger is told.
    #[error("{context}: {what}: nothing came within {after:.0?}; {}", SILENT_HINT)]
    Silent {
        /// Where.
        context: Arc<ErrorContext>,
        /// How far it came.
        what: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// The bytes aren't a Kafka conversation any more: length or correlation id is wrong.
    #[error("{context}: broken framing: {detail}")]
    Framing {
        /// Where.
        context: Arc<ErrorContext>,
        /// What is wrong.
        detail: String,
    },
    /// A message could not be encoded or decoded.
    #[error("{context}: cannot decode: {detail}")]
    Decode {
        /// Where.
        context: Arc<ErrorContext>,
        /// What is wrong.
        detail: String,
    },
    /// The broker and we have no version of the call in common.
    #[error("{context}: version not supported: we speak {ours:?}, the broker {broker:?}")]
    UnsupportedVersion {
        /// Where.
        context: Arc<ErrorContext>,
        /// Lowest and highest version that this client and the caller allow.
        ours: (i16, i16),
        /// Lowest and highest version of the broker; `None` when it doesn't know the call.
        broker: Option<(i16, i16)>,
    },
    /// The broker answered with an error code.
    #[error("{context}: {code}{}", message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Server {
        /// The code.
        code: ResponseError,
        /// What the broker added.
        message: Option<String>,
        /// Where.
        context: Arc<ErrorContext>,
    },
    /// Nobody to ask: no leader, no such broker, no address.
    #[error("{context}: no broker: {detail}")]
    NoBroker {
        /// Where.
        context: Arc<ErrorContext>,
        /// What is missing.
        detail: String,
    },
    /// The broker doesn't take us for who we say we are, or can't prove who it is.
    #[error(
        "{context}: authentication with {mechanism} failed: {message}{}",
        hint_text(hint)
    )]
    Authentication {
        /// Where.
        context: Arc<ErrorContext>,
        /// The SASL mechanism.
        mechanism: &'static str,
        /// What the broker said, or what is wrong with it.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// The broker takes no more connections, or not so many at once: what it says looks like a refusal of us, but
    /// isn't one.
    #[error("{context}: no more connections: {message}; {}", LIMIT_HINT)]
    Limited {
        /// Where.
        context: Arc<ErrorContext>,
        /// What the broker said or did.
        message: String,
    },
    /// There is no TLS connection that both sides are content with.
    #[error("{context}: TLS: {message}{}", hint_text(hint))]
    Tls {
        /// Where.
        context: Arc<ErrorContext>,
        /// What kind of trouble it is.
        problem: TlsProblem,
        /// What is wrong.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// A broker of another cluster answered: an advertised address that leads elsewhere, an address that
    /// was given to somebody else, a cluster that was built anew. Nothing is asked of it or sent to it.
    #[error(
        "{context}: another cluster answers there: cluster id {found}, not {expected}; {}",
        OTHER_CLUSTER_HINT
    )]
    OtherCluster {
        /// Where.
        context: Arc<ErrorContext>,
        /// The id that the cluster had before.
        expected: String,
        /// The id of the one that answers.
        found: String,
    },
    /// Every broker that we know of was tried.
    #[error("{}", all_tried(context, *attempts, last))]
    Unreachable {
        /// Where.
        context: Arc<ErrorContext>,
        /// Number of brokers tried.
        attempts: usize,
        /// The last failure.
        last: Box<WireError>,
    },
}

/// The connection was taken, and that was all.
pub(super) const ACCEPTED: &str = "accepted, but silent";
/// It told what it speaks, and that was all.
pub(super) const HALF_ALIVE: &str = "accepted, told its versions, and silent since";

/// What helps where a connection is taken and nobody answers.
const SILENT_HINT: &str = "this may be a broker that hangs, a load balancer or forwarded port with no broker behind it, or \
    another kind of server; other addresses are tried meanwhile";

/// What helps when another cluster answers.
const OTHER_CLUSTER_HINT: &str = "look at the addresses that the brokers advertise (`advertised.listeners`) and at \
    `bootstrap.servers`. If the cluster was built anew on purpose, nothing of the old one can be continued: fail over \
    to the copy, or delete the copies and run the flow under another name";

/// What helps when a broker takes no more connections.
const LIMIT_HINT: &str = "it is tried again, and what is connected goes on: look at the limits of the brokers or of their \
    provider (`max.connections`, `max.connections.per.ip`, the quota `connection_creation_rate`), or lower \
    `limits.connections_per_broker`";

/// With one address there is one reason, which says where it is from.
fn all_tried(context: &ErrorContext, attempts: usize, last: &WireError) -> String {
    match attempts {
        1 => last.to_string(),
        _ => format!("{context}: unreachable after {attempts} attempts, last: {last}"),
    }
}

/// What to look at where the system can't connect.
fn cure_of(error: &io::Error) -> &'static str {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            "the machine answers, and nothing listens on that port: see whether the broker runs, and whether this is the port of \
             its listener for clients"
        }
        ErrorKind::NotFound => {
            "look for a typo in the name; `getent hosts NAME` on this machine shows what it means here. If it is right, add it to \
             the name server or to /etc/hosts"
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            "the machine isn't reached: it is down, the address is wrong, or a firewall or a missing route is in between"
        }
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
            "the broker hung up: a TLS port needs security.protocol SSL or SASL_SSL, and the broker's log says more"
        }
        _ => {
            "check bootstrap.servers and security.protocol, and that this machine may connect to it"
        }
    }
}

fn hint_text(hint: &str) -> String {
    if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    }
}

impl WireError {
    /// An error code of a broker.
    pub fn server(context: ErrorContext, code: ResponseError, message: Option<String>) -> Self {
        Self::Server {
            code,
            // What an authorizer's refusal says is the broker's own notes on the request.
            message: message
                .filter(|message| !message.starts_with("Request Request("))
                .map(|message| shell::one_line(&message, WORDS_MAX)),
            context: Arc::new(context),
        }
    }

    /// A broker that is too old for a call: it speaks at most `found`, `least` is needed.
    pub fn unsupported(context: ErrorContext, least: i16, found: i16) -> Self {
        Self::UnsupportedVersion {
            context: Arc::new(context),
            ours: (least, i16::MAX),
            broker: Some((0, found)),
        }
    }

    /// Stable word for metrics and status pages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Disconnected { .. } => "disconnected",
            Self::Timeout { .. } => "timeout",
            Self::Silent { .. } => "silent",
            Self::Framing { .. } => "framing",
            Self::Decode { .. } => "decode",
            Self::UnsupportedVersion { .. } => "unsupported_version",
            Self::Server { .. } => "server",
            Self::NoBroker { .. } => "no_broker",
            Self::Authentication { .. } => "authentication",
            Self::Limited { .. } => "limited",
            Self::Tls { .. } => "tls",
            Self::OtherCluster { .. } => "other_cluster",
            Self::Unreachable { .. } => "unreachable",
        }
    }

    /// Where it happened.
    pub fn context(&self) -> &ErrorContext {
        match self {
            Self::Io { context, .. }
            | Self::Disconnected { context }
            | Self::Timeout { context, .. }
            | Self::Silent { context, .. }
            | Self::Framing { context, .. }
            | Self::Decode { context, .. }
            | Self::UnsupportedVersion { context, .. }
            | Self::Server { context, .. }
            | Self::NoBroker { context, .. }
            | Self::Authentication { context, .. }
            | Self::Limited { context, .. }
            | Self::Tls { context, .. }
            | Self::OtherCluster { context, .. }
            | Self::Unreachable { context, .. } => context,
        }
    }

    /// The broker's error code, if this is one.
    pub fn server_code(&self) -> Option<ResponseError> {
        match self {
            Self::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the same thing may work a moment later.
    ///
    /// For a write that was on its way this doesn't mean that it wasn't done: see
    /// [`WireError::is_transport`].
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Io { .. }
            | Self::Disconnected { .. }
            | Self::Timeout { .. }
            | Self::Silent { .. }
            | Self::NoBroker { .. }
            | Self::Unreachable { .. }
            // An address may lead to the right one again.
            | Self::OtherCluster { .. }
            // Somebody may change a password or renew a certificate; see `refusals` for how
            // seldom it is tried.
            | Self::Authentication { .. }
            | Self::Limited { .. }
            | Self::Tls { .. }
            // A new connection starts with clean framing.
            | Self::Framing { .. } => true,
            Self::Decode { .. } | Self::UnsupportedVersion { .. } => false,
            Self::Server { code, .. } => {
                code.is_retriable()
                    // Not marked in the protocol, but a controller that moved is found again.
                    || matches!(
                        code,
                        ResponseError::NotController
                            | ResponseError::StaleControllerEpoch
                            | ResponseError::BrokerNotAvailable
                    )
            }
        }
    }

    /// Whether the connection failed, so that a request on its way may or may not have been done.
    pub fn is_transport(&self) -> bool {
        matches!(
            self,
            Self::Io { .. }
                | Self::Disconnected { .. }
                | Self::Timeout { .. }
                | Self::Silent { .. }
                | Self::Framing { .. }
                | Self::Authentication { .. }
                | Self::Limited { .. }
                | Self::Tls { .. }
        )
    }

    /// Whether the connection was refused for what is configured here or there, so that trying
    /// again at once is of no use.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Authentication { .. } | Self::Tls { .. })
    }

    /// Whether somebody is there, and refuses us or takes no more connections: no word of a cluster that is gone. Whoever
    /// accepts a connection for which a secret is missing counts.
    pub fn refuses_us(&self) -> bool {
        match self {
            Self::Unreachable { last, .. } => last.refuses_us(),
            Self::Limited { .. } => true,
            error => error.is_refusal(),
        }
    }

    /// With one address there is one reason: that one, for where it is said already who isn't reached.
    #[must_use]
    pub fn of_one(self) -> Self {
        match self {
            Self::Unreachable {
                attempts: 1, last, ..
            } => *last,
            error => error,
        }
    }

    /// What an operator can do about it, if anything is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Authentication { hint, .. } | Self::Tls { hint, .. } => {
                Some(hint.as_str()).filter(|hint| !hint.is_empty())
            }
            Self::Unreachable { last, .. } => last.hint(),
            Self::OtherCluster { .. } => Some(OTHER_CLUSTER_HINT),
            Self::Limited { .. } => Some(LIMIT_HINT),
            Self::Silent { .. } => Some(SILENT_HINT),
            _ => None,
        }
    }

    /// What to look at where a cluster isn't reached: a wrong name, a dead broker and a wrong port have other cures.
    pub fn cure(&self) -> &str {
        if let Some(hint) = self.hint() {
            return hint;
        }
        match self {
            Self::Unreachable { last, .. } => last.cure(),
            Self::Io { error, .. } => cure_of(error),
            Self::Timeout { .. } => {
                "nothing comes back: the machine is down, or a firewall between here and there drops the packets"
            }
            Self::Framing { .. } | Self::Decode { .. } => {
                "something else than a Kafka broker answers: look at the port in bootstrap.servers, and whether a proxy stands in \
                 between; a TLS port needs security.protocol SSL or SASL_SSL"
            }
            Self::UnsupportedVersion { .. } => {
                "this is the port of a KRaft controller, which serves no clients, or a broker that is too old: Kafka 3.1 or \
                 later is needed"
            }
            Self::Disconnected { .. } => {
                "the broker hung up: a TLS port needs security.protocol SSL or SASL_SSL, and the broker's log says more"
            }
            _ => {
                "check bootstrap.servers and security.protocol, and that this machine may connect to it"
            }
        }
    }

    /// What to look at, where a cluster isn't reached. What other errors say has all that is known in it.
    pub fn cure_if_not_reached(&self) -> Option<&str> {
        match self {
            Self::Unreachable { last, .. } => last.hint().is_none().then(|| last.cure()),
            // A connection that breaks was there: what it needs is right.
            Self::Io { error, .. } => {
                use std::io::ErrorKind as Kind;
                let never_there = matches!(
                    error.kind(),
                    Kind::ConnectionRefused
                        | Kind::NotFound
                        | Kind::HostUnreachable
                        | Kind::NetworkUnreachable
                );
                never_there.then(|| cure_of(error))
            }
            _ => None,
        }
    }

    /// Whether somebody took a connection and said nothing.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Silent { .. })
    }

    /// A time-out on a new connection is silence, whatever was asked.
    pub(super) fn or_silent(self, what: &'static str) -> Self {
        match self {
            Self::Timeout { mut context, after } => {
                Arc::make_mut(&mut context).api = None;
                Self::Silent {
                    context,
                    what,
                    after,
                }
            }
            error => error,
        }
    }

    /// Whether it is another cluster that answers.
    pub fn is_other_cluster(&self) -> bool {
        match self {
            Self::OtherCluster { .. } => true,
            Self::Unreachable { last, .. } => last.is_other_cluster(),
            _ => false,
        }
    }

    /// The text without the hint, for where the hint has a place of its own.
    pub fn without_hint(&self) -> String {
        let text = self.to_string();
        let hint = self.hint().map(hint_text).unwrap_or_default();
        text.strip_suffix(&hint).map_or(text.clone(), str::to_owned)
    }

    /// The same error with the name of the call and its subject, where it had none.
    pub(super) fn about(mut self, api: &'static str, subject: Option<String>) -> Self {
        let context = match &mut self {
            Self::Io { context, .. }
            | Self::Disconnected { context }
            | Self::Timeout { context, .. }
            | Self::Silent { context, .. }
            | Self::Framing { context, .. }
            | Self::Decode { context, .. }
            | Self::UnsupportedVersion { context, .. }
            | Self::Server { context, .. }
            | Self::NoBroker { context, .. }
            | Self::Authentication { context, .. }
            | Self::Limited { context, .. }
            | Self::Tls { context, .. }
            | Self::OtherCluster { context, .. }
            | Self::Unreachable { context, .. } => context,
        };
        let inner = Arc::make_mut(context);
        inner.api.get_or_insert(api);
        if inner.subject.is_none() {
            inner.subject = subject;
        }
        self
    }
}
