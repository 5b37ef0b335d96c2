//! Our own Kafka client: connections, versions, routing to leaders, typed calls. It knows no flows.
//!
//! - [`Cluster`] knows brokers and leaders and keeps one [`Connection`] per broker and [`Role`].
//! - [`Connection`] pipelines requests; the order in which they were started is the order on the
//!   wire, and the first failure closes it for everyone.
//! - `calls` are typed questions that find the right broker, and answer per partition.
//!
//! Nothing that a broker sends can make it panic or take more memory than the answer's own size makes plausible: lengths
//! are bounded by what is left of the frame, and no answer is larger than 256 MiB, or 1 MiB before we know who it is.

mod authenticate;
mod backoff;
mod by_most;
mod calls;
mod cluster;
mod codec;
mod config;
mod connection;
mod error;
mod handshake;
mod heartbeat;
mod io_tasks;
mod metadata;
mod moves;
mod names;
mod news;
mod reauthenticate;
mod refusals;
mod same_answer;
mod sasl;
mod security;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod tls;
mod traffic;
mod transport;
mod versions;

pub use by_most::MostSay;
pub use calls::*;
pub use cluster::{Cluster, Role};
pub use config::ClusterConfig;
pub use connection::{Connection, Pending, RawAnswer};
pub use error::{ErrorContext, TlsProblem, WireError};
pub use kafka_protocol::ResponseError;
pub use metadata::{
    BrokerAddress, Metadata, PartitionMetadata, TopicMetadata, is_other_topic, is_same_topic,
};
pub use news::{Looked, News, Pace, Rate, uneven};
pub use security::{Lack, Sasl, ScramHash, Security, TlsSettings, Token, TokenFuture, TokenSource};
pub use tls::{TlsFacts, VERSION_3_HINT, is_of_version_1};
pub use traffic::{Carried, Traffic};
pub use transport::{Dial, Dialing, ReadHalf, Tcp, WriteHalf};
