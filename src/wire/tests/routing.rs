//! Finding the broker that can answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, MetadataRequest,
    MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpSocket;

use super::fake::{Asked, Fake, Peer, body};
use crate::wire::{Cluster, ClusterConfig, OffsetSpec, TopicPartition, fetch_one, list_offsets};

const VERSIONS: [(i16, i16, i16); 2] = [(2, 1, 7), (3, 0, 12)];
const METADATA: i16 = 3;

fn metadata(fake_port: i32, leader_epoch: i32) -> MetadataResponse {
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(1))
            .with_leader_epoch(leader_epoch)
    };
    let topic = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
        // Not in order: the client sorts.
        .with_partitions(vec![partition(1), partition(0)]);
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("127.0.0.1"))
        .with_port(fake_port);
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_topics(vec![topic])
}

/// Offset 10 + index for each partition asked about; partition 0 is refused at epochs below `epoch`.
fn offsets(asked: &Asked, epoch: i32) -> ListOffsetsResponse {
    let request: ListOffsetsRequest = body(asked);
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|p| {
            let answer =
                ListOffsetsPartitionResponse::default().with_partition_index(p.partition_index);
            if p.partition_index == 0 && p.current_leader_epoch < epoch {
                answer.with_error_code(ResponseError::FencedLeaderEpoch.code())
            } else {
                answer.with_offset(10 + i64::from(p.partition_index))
            }
        });
        ListOffsetsTopicResponse::default()
            .with_name(topic.name)
            .with_partitions(partitions.collect())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

async fn ask(cluster: &Cluster, partitions: &[TopicPartition]) -> HashMap<TopicPartition, String> {
    let asking = list_offsets(cluster, partitions, OffsetSpec::Latest);
    let answers = tokio::time::timeout(Duration::from_secs(20), asking)
        .await
        .expect("in time");
    answers
        .into_iter()
        .map(|(p, a)| {
            (
                p,
                a.map_or_else(|e| e.kind().to_owned(), |offset| offset.to_string()),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_stale_leader_is_looked_up_again_and_others_keep_their_answers() {
    let lookups = Arc::new(AtomicUsize::new(0));
    let counter = lookups.clone();
    let fake = Fake::start(move |mut peer: Peer| {
        let lookups = counter.clone();
        async move {
            let port = peer.port();
            peer.greet(&VERSIONS).await;
            while let Some(asked) = peer.next().await {
                let (id, version) = (
                    asked.header.correlation_id,
                    asked.header.request_api_version,
                );
                if asked.header.request_api_key == METADATA {
                    let request: MetadataRequest = body(&asked);
                    assert!(!request.allow_auto_topic_creation);
                    let epoch = i32::try_from(lookups.fetch_add(1, Ordering::SeqCst)).expect("few");
                    peer.answer(id, 1, &metadata(port, epoch), version).await;
                } else {
                    peer.answer(id, 1, &offsets(&asked, 2), version).await;
                }
            }
        }
    })
    .await;
    let cluster = Cluster::new(ClusterConfig::new("test", vec![fake.address.clone()]));
    let partitions: Vec<_> = [0, 1, 5].map(|p| TopicPartition::new("t", p)).to_vec();
    let answers = ask(&cluster, &partitions).await;
    assert_eq!(answers[&partitions[0]], "10");
    assert_eq!(answers[&partitions[1]], "11");
    assert_eq!(
        answers[&partitions[2]], "server",
        "a partition that doesn't exist"
    );
    assert!(lookups.load(Ordering::SeqCst) >= 3);
    assert_eq!(cluster.cached().leader("t", 5), None);
}

/// Over quota a broker answers a fetch without any partition.
#[tokio::test]
async fn a_fetch_that_a_quota_holds_back_is_asked_again() {
    let fake = Fake::start(move |mut peer: Peer| async move {
        let port = peer.port();
        peer.greet(&[(1, 4, 12), (3, 0, 12)]).await;
        let mut is_throttled = true;
        while let Some(asked) = peer.next().await {
            let (id, version) = (
                asked.header.correlation_id,
                asked.header.request_api_version,
            );
            if asked.header.request_api_key == METADATA {
                peer.answer(id, 1, &metadata(port, 1), version).await;
                continue;
            }
            let answer = if std::mem::take(&mut is_throttled) {
                FetchResponse::default().with_throttle_time_ms(20)
            } else {
                let partition = PartitionData::default()
                    .with_partition_index(0)
                    .with_high_watermark(7);
                let topic = FetchableTopicResponse::default()
                    .with_topic(TopicName(StrBytes::from_static_str("t")))
                    .with_partitions(vec![partition]);
                FetchResponse::default().with_responses(vec![topic])
            };
            peer.answer(id, 1, &answer, version).await;
        }
    })
    .await;
    let cluster = Cluster::new(ClusterConfig::new("test", vec![fake.address.clone()]));
    let partition = TopicPartition::new("t", 0);
    let fetching = fetch_one(&cluster, &partition, 0, 1_000);
    let fetched = tokio::time::timeout(Duration::from_secs(20), fetching).await;
    let fetched = fetched.expect("in time").expect("the second answer");
    assert_eq!(fetched.high_watermark, 7);
}

#[tokio::test]
async fn a_lagging_broker_does_not_bring_an_old_leader_back() {
    let fake = Fake::start(move |mut peer: Peer| async move {
        let port = peer.port();
        peer.greet(&VERSIONS).await;
        // Opening the connection asks, too.
        let mut epoch = 8;
        while let Some(asked) = peer.next().await {
            let (id, version) = (
                asked.header.correlation_id,
                asked.header.request_api_version,
            );
            peer.answer(id, 1, &metadata(port, epoch), version).await;
            epoch -= 1;
        }
    })
    .await;
    let mut config = ClusterConfig::new("test", vec![fake.address.clone()]);
    config.request_timeout = Duration::from_secs(10);
    let cluster = Cluster::new(config);
    for _ in 0..4 {
        let known = cluster.metadata(None).await.expect("answers");
        assert_eq!(known.leader("t", 1), Some((1, 7)));
    }
}

#[tokio::test]
async fn an_unreachable_cluster_says_so() {
    // Nobody listens there, and nobody else gets it.
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any).expect("a free port");
    let address = socket.local_addr().expect("bound").to_string();
    let mut config = ClusterConfig::new("test", vec![address.clone(), address]);
    config.backoff_max = Duration::from_millis(50);
    let error = Cluster::new(config)
        .metadata(None)
        .await
        .expect_err("nobody there");
    assert_eq!(error.kind(), "unreachable");
    assert!(error.to_string().contains("after 2 attempts"), "{error}");
    let none = Cluster::new(ClusterConfig::new("test", Vec::new()));
    assert_eq!(
        none.any_connection().await.expect_err("no address").kind(),
        "no_broker"
    );
}
