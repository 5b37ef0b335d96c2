//! Who can log in with SCRAM. The credentials themselves can't be asked for.

use std::collections::BTreeMap;
use std::fmt;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeUserScramCredentialsRequest;

use super::retry::{BUDGET, ask_anyone};
use super::topics::outcome;
use crate::wire::{Cluster, WireError};

const VERSION_MAX: i16 = 0;

/// A way to log in with SCRAM (`org.apache.kafka.clients.admin.ScramMechanism`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScramMechanism {
    /// `SCRAM-SHA-256`.
    Sha256,
    /// `SCRAM-SHA-512`.
    Sha512,
    /// One that we don't know, by Kafka's number.
    Other(i8),
}

impl ScramMechanism {
    fn from_number(number: i8) -> Self {
        match number {
            1 => Self::Sha256,
            2 => Self::Sha512,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ScramMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256 => f.write_str("SCRAM-SHA-256"),
            Self::Sha512 => f.write_str("SCRAM-SHA-512"),
            Self::Other(number) => write!(f, "SCRAM mechanism {number}"),
        }
    }
}

/// By user and mechanism the number of iterations.
pub type ScramUsers = BTreeMap<String, BTreeMap<ScramMechanism, i32>>;

/// All users that can log in with SCRAM. Needs DESCRIBE on the cluster
/// (`KafkaApis.handleDescribeUserScramCredentialsRequest`).
///
/// # Errors
/// `UnsupportedVersion` where the brokers keep no such users (KRaft before Kafka 3.5).
pub async fn describe_scram_users(cluster: &Cluster) -> Result<ScramUsers, WireError> {
    ask_anyone(cluster, BUDGET, |connection| async move {
        // Empty is all, as null is. But on null a broker that should refuse never answers, and with
        // that holds up all of the connection (`getErrorResponse` walks through the list).
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
        let response = connection.call(request, VERSION_MAX).await?;
        let api = "DescribeUserScramCredentials";
        let answer = Some((response.error_code, response.error_message, ()));
        outcome(cluster, &connection, api, "all", answer)?;
        let mut users = ScramUsers::new();
        for result in response.results {
            let user = result.user.to_string();
            if ResponseError::try_from_code(result.error_code)
                == Some(ResponseError::ResourceNotFound)
            {
                // Removed while the broker was looking.
                continue;
            }
            let answer = Some((result.error_code, result.error_message, ()));
            outcome(cluster, &connection, api, &user, answer)?;
            let credentials = result.credential_infos.into_iter();
            let credentials =
                credentials.map(|c| (ScramMechanism::from_number(c.mechanism), c.iterations));
            users.insert(user, credentials.collect());
        }
        Ok(users)
    })
    .await
}
