//! Whether every broker of a cluster shows the fence.
//!
//! A controller that has taken an ACL is no proof: each broker refuses by its own image of the metadata, and
//! one whose image is late goes on accepting (KAFKA-14535, KAFKA-19586). `DescribeAcls` is answered from that
//! very image (`AclApis.handleDescribeAcls` asks the broker's own authorizer), so each is asked itself.
//!
//! Nor is who answers all that there is: a broker that is cut off from the controller vanishes from the others' lists, and
//! goes on taking what clients send with acks=1. It is asked at the address that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tasks::brought;
use crate::wire::{self, Cluster};

/// How long one may take that the others don't count any more: mostly it is gone.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// Brokers, and why each doesn't show the fence.
pub type Late = BTreeMap<i32, Why>;

/// Why a broker doesn't show the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It would take records of this topic.
    Takes(String),
    /// The same; the others don't count it any more.
    CutOff {
        /// Where it answers.
        address: String,
        /// The topic.
        topic: String,
    },
    /// It doesn't say.
    Unknown(String),
}

impl Why {
    /// Whether it says itself that it would take records.
    pub fn is_told(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Takes(topic) => write!(f, "it would take records of {topic}"),
            Self::CutOff { address, topic } => write!(
                f,
                "it is cut off from the others at {address}, and would take records of {topic}"
            ),
            Self::Unknown(why) => f.write_str(why),
        }
    }
}

/// Those that say themselves that they would take records, in words.
pub fn told(late: &Late) -> Vec<String> {
    let told = late.iter().filter(|(_, why)| why.is_told());
    told.map(|(broker, why)| format!("broker {broker} doesn't refuse writers ({why})"))
        .collect()
}

/// Which brokers have shown a fence so far.
#[derive(Debug, Default)]
pub struct Shown {
    by_id: BTreeSet<i32>,
    /// Brokers that the cluster has, or had while this looked, with their addresses.
    addresses: BTreeMap<i32, String>,
    /// Addresses that nobody is behind who takes records, by what was answered there.
    idle: BTreeSet<String>,
    /// Addresses at which nobody has let us in so far. Who refuses a login is tried more and more seldom by one and the
    /// same client.
    closed: BTreeMap<String, Cluster>,
}

impl Shown {
    /// Asks those that haven't shown it so far. Who would still take records of one of these topics, or doesn't answer
    /// within `patience`.
    pub async fn look(
        &mut self,
        cluster: &Cluster,
        wanted: &BTreeSet<String>,
        patience: Duration,
    ) -> Late {
        let known = cluster.cached();
        let listed: BTreeMap<i32, String> = known
            .brokers
            .iter()
            .map(|(id, broker)| (*id, broker.address()))
            .collect();
        self.addresses.extend(listed.clone());
        let open = listed.keys().filter(|id| !self.by_id.contains(id));
        let (of_listed, of_others) = tokio::join!(
            ask(cluster, open.copied().collect(), wanted, patience),
            ask_others(cluster, self.others(cluster, &listed), wanted),
        );
        let mut late = of_listed.1;
        self.by_id.extend(of_listed.0);
        self.idle.extend(of_others.idle);
        self.closed = of_others.closed;
        late.extend(of_others.late);
        if listed.is_empty() {
            // A broker that has just begun may answer with a cluster of nobody.
            late.insert(-1, Why::Unknown("no broker is known".to_owned()));
        }
        late
    }

    /// Nobody is believed any longer: each is asked again, at the addresses that are known.
    pub fn ask_all_again(&mut self) {
        self.by_id.clear();
        self.idle.clear();
    }

    /// Where a broker may be that isn't listed, each with a client that knows nothing but this address.
    fn others(&self, cluster: &Cluster, listed: &BTreeMap<i32, String>) -> Vec<(String, Cluster)> {
        let mut others: BTreeSet<String> = cluster.config().bootstrap.iter().cloned().collect();
        others.extend(self.addresses.values().cloned());
        let is_open = |address: &String| {
            !self.idle.contains(address) && listed.values().all(|it| it != address)
        };
        let alone = |address: String| {
            let known = self.closed.get(&address).cloned();
            let alone = known.unwrap_or_else(|| {
                let mut config = cluster.config().clone();
                config.bootstrap = vec![address.clone()];
                Cluster::new(config)
            });
            (address, alone)
        };
        others.into_iter().filter(is_open).map(alone).collect()
    }
}

/// Asks each of these: who shows the fence, and who doesn't.
async fn ask(
    cluster: &Cluster,
    brokers: Vec<i32>,
    wanted: &BTreeSet<String>,
    patience: Duration,
) -> (Vec<i32>, Late) {
    let mut asking = JoinSet::new();
    for broker in brokers {
        let cluster = cluster.clone();
        asking.spawn(async move {
            let asked = wire::denied_topics_at(&cluster, broker);
            (broker, timeout(patience, asked).await)
        });
    }
    let (mut fenced, mut late) = (Vec::new(), Late::new());
    while let Some(done) = asking.join_next().await {
        let (broker, answer) = brought(done);
        let why = match answer {
            Ok(Ok(denied)) => match wanted.difference(&denied).next() {
                None => {
                    fenced.push(broker);
                    continue;
                }
                Some(topic) => Why::Takes(topic.clone()),
            },
            Ok(Err(error)) => Why::Unknown(format!("it can't be asked: {error}")),
            Err(_) => Why::Unknown(format!("no answer within {} s", patience.as_secs())),
        };
        late.insert(broker, why);
    }
    (fenced, late)
}

/// What was found at addresses of which the cluster doesn't speak.
#[derive(Default)]
struct Others {
    /// At which nobody takes records by what was answered there.
    idle: Vec<String>,
    /// Who does.
    late: Late,
    /// Where nobody has let us in.
    closed: BTreeMap<String, Cluster>,
}

/// Asks at these addresses, each by the client that knows nothing else.
async fn ask_others(
    cluster: &Cluster,
    addresses: Vec<(String, Cluster)>,
    wanted: &BTreeSet<String>,
) -> Others {
    let mut asking = JoinSet::new();
    for (address, alone) in addresses {
        let id = cluster.cached().cluster_id.clone();
        asking.spawn(async move {
            let found = timeout(REST_WITHIN, alone_at(&alone, &address, id)).await;
            (address, alone, found.unwrap_or(Alone::Silent))
        });
    }
    let mut others = Others::default();
    while let Some(done) = asking.join_next().await {
        let (address, alone, found) = brought(done);
        match found {
            // It may be on its way back. Who has answered may have told of others, and is asked by a new client.
            Alone::Silent if alone.cached().brokers.is_empty() => {
                others.closed.insert(address, alone);
            }
            Alone::Silent => {}
            Alone::Nobody => others.idle.push(address),
            Alone::Denies(broker, denied) => match wanted.difference(&denied).next() {
                None => others.idle.push(address),
                Some(topic) => {
                    let topic = topic.clone();
                    others.late.insert(broker, Why::CutOff { address, topic });
                }
            },
        }
    }
    others
}

/// What is found at an address of which the cluster doesn't speak.
enum Alone {
    /// No answer, or none to all that was asked.
    Silent,
    /// Another cluster, or a name under which others answer.
    Nobody,
    /// A broker that takes itself for a part of this cluster, and what it denies.
    Denies(i32, BTreeSet<String>),
}

async fn alone_at(alone: &Cluster, address: &str, id: Option<String>) -> Alone {
    // About no topic: who answers is all that counts.
    let Ok(there) = alone.metadata(Some(&[])).await else {
        return Alone::Silent;
    };
    // Where one of them has no id it isn't known to be another.
    let is_another = there.cluster_id.as_ref().zip(id.as_ref());
    if is_another.is_some_and(|(there, id)| there != id) {
        return Alone::Nobody;
    }
    let mut brokers = there.brokers.iter();
    let Some((broker, _)) = brokers.find(|(_, it)| it.address() == address) else {
        return Alone::Nobody;
    };
    match wire::denied_topics_at(alone, *broker).await {
        Ok(denied) => Alone::Denies(*broker, denied),
        Err(_) => Alone::Silent,
    }
}
