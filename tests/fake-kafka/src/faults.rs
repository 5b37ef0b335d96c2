//! What goes wrong on order: rules that requests are held against.

use std::fmt;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use crate::api::Subject;
use crate::state::State;

/// No test lasts so long.
const HELD_MS: i64 = 86_400_000;

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub struct Fault {
    key: Option<ApiKey>,
    broker: Option<i32>,
    subject: Option<Subject>,
    client_id: Option<String>,
    skip: u64,
    times: u64,
}

impl Fault {
    /// For requests of one API.
    pub fn on(key: ApiKey) -> Self {
        Self {
            key: Some(key),
            ..Self::on_anything()
        }
    }

    /// For every request.
    pub fn on_anything() -> Self {
        Self {
            key: None,
            broker: None,
            subject: None,
            client_id: None,
            skip: 0,
            times: u64::MAX,
        }
    }

    /// Only at this broker.
    #[must_use]
    pub fn broker(mut self, broker: i32) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Only if the request is about this.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Only if the request is about this topic.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        self.subject = Some(Subject::Topic(topic.to_owned()));
        self
    }

    /// Only if the request is about this partition.
    #[must_use]
    pub fn partition(mut self, topic: &str, partition: i32) -> Self {
        self.subject = Some(Subject::Partition(topic.to_owned(), partition));
        self
    }

    /// Only if the request is about this group.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        self.subject = Some(Subject::Group(group.to_owned()));
        self
    }

    /// Only from clients with this id.
    #[must_use]
    pub fn client_id(mut self, client_id: &str) -> Self {
        self.client_id = Some(client_id.to_owned());
        self
    }

    /// From the nth such request on; the first is 1.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.skip = nth.saturating_sub(1);
        self
    }

    /// So often, then never again. Without it: until it is cleared.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    fn is_for(&self, seen: &Seen) -> bool {
        self.key.is_none_or(|key| key == seen.key)
            && self.broker.is_none_or(|broker| broker == seen.broker)
            && self
                .client_id
                .as_ref()
                .is_none_or(|id| *id == seen.client_id)
            && self
                .subject
                .as_ref()
                .is_none_or(|wanted| seen.about.iter().any(|subject| wanted.covers(subject)))
    }
}

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its API.
    pub key: ApiKey,
    /// Its version.
    pub version: i16,
    /// Who got it.
    pub broker: i32,
    /// The connection's number.
    pub connection: u64,
    /// Who sent it.
    pub client_id: String,
    /// What it is about.
    pub about: Vec<Subject>,
}

/// Told of a request while the cluster's lock is held; it may change the cluster through the state that it gets.
pub type Hook = Box<dyn FnMut(&mut State, &Seen) + Send>;

/// What happens to the request.
pub enum Action {
    /// Answered with this error, without effect: in each partition that the fault is for, or whole.
    Refuse(ResponseError),
    /// Handled later; the connection's other requests wait.
    Delay(i64),
    /// Handled when the fault is cleared; the connection's other requests wait.
    Hold,
    /// Never handled nor answered.
    Swallow,
    /// Handled, but never answered.
    SwallowAfter,
    /// The connection is closed before the effect.
    CutBefore,
    /// The connection is closed after the effect, without an answer.
    CutAfter,
    /// Handled at once, answered later.
    AnswerLate(i64),
    /// Metadata answers as if this were the cluster's id.
    OtherCluster(String),
    /// Nothing, but the test is told before the effect.
    Arrives(Hook),
    /// Nothing, but the test is told after the effect, before the answer leaves.
    HasTakenEffect(Hook),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse(error) => write!(f, "Refuse({error:?})"),
            Self::Delay(ms) => write!(f, "Delay({ms})"),
            Self::Hold => f.write_str("Hold"),
            Self::Swallow => f.write_str("Swallow"),
            Self::SwallowAfter => f.write_str("SwallowAfter"),
            Self::CutBefore => f.write_str("CutBefore"),
            Self::CutAfter => f.write_str("CutAfter"),
            Self::AnswerLate(ms) => write!(f, "AnswerLate({ms})"),
            Self::OtherCluster(id) => write!(f, "OtherCluster({id})"),
            Self::Arrives(_) => f.write_str("Arrives"),
            Self::HasTakenEffect(_) => f.write_str("HasTakenEffect"),
        }
    }
}

/// Names a fault, to ask after it or to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultId(u64);

#[derive(Debug)]
struct Rule {
    id: FaultId,
    fault: Fault,
    action: Action,
    matched: u64,
    fired: u64,
}

/// All faults of a cluster.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Vec<Rule>,
    added: u64,
}

/// What the faults make of one request.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) refuse: Option<(ResponseError, Option<Subject>)>,
    pub(crate) delay_ms: i64,
    held_by: Option<FaultId>,
    pub(crate) late_ms: i64,
    pub(crate) fate: Fate,
    pub(crate) cluster_id: Option<String>,
}

/// Whether a request has an effect and an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    #[default]
    Answered,
    Swallowed,
    SwallowedAfter,
    CutBefore,
    CutAfter,
}

impl Faults {
    /// From now on.
    pub fn add(&mut self, fault: Fault, action: Action) -> FaultId {
        self.added += 1;
        let id = FaultId(self.added);
        self.rules.push(Rule {
            id,
            fault,
            action,
            matched: 0,
            fired: 0,
        });
        id
    }

    /// No longer.
    pub fn clear(&mut self, id: FaultId) {
        self.rules.retain(|rule| rule.id != id);
    }

    /// None of them any longer.
    pub fn clear_all(&mut self) {
        self.rules.clear();
    }

    /// Whether a request was held, and isn't any more.
    pub(crate) fn has_let_go(&self, verdict: &Verdict) -> bool {
        let is_there = |id| self.rules.iter().any(|rule| rule.id == id);
        verdict.held_by.is_some_and(|id| !is_there(id))
    }

    /// How often it happened; a fault that was cleared never did.
    pub fn fired(&self, id: FaultId) -> u64 {
        self.rules
            .iter()
            .find(|rule| rule.id == id)
            .map_or(0, |rule| rule.fired)
    }
}

impl Rule {
    /// Counts a request that the rule is for; says whether it is one of those that are hit.
    fn hits(&mut self, seen: &Seen) -> bool {
        if !self.fault.is_for(seen) {
            return false;
        }
        self.matched += 1;
        let hit = self.matched > self.fault.skip && self.fired < self.fault.times;
        if hit {
            self.fired += 1;
        }
        hit
    }

    fn add_to(&self, verdict: &mut Verdict) {
        match &self.action {
            Action::Refuse(error) => {
                verdict
                    .refuse
                    .get_or_insert((*error, self.fault.subject.clone()));
            }
            Action::Delay(ms) => verdict.delay_ms += ms,
            Action::Hold => {
                verdict.delay_ms += HELD_MS;
                verdict.held_by = Some(self.id);
            }
            Action::AnswerLate(ms) => verdict.late_ms += ms,
            Action::Swallow => verdict.fate = Fate::Swallowed,
            Action::SwallowAfter => verdict.fate = Fate::SwallowedAfter,
            Action::CutBefore => verdict.fate = Fate::CutBefore,
            Action::CutAfter => verdict.fate = Fate::CutAfter,
            Action::OtherCluster(id) => verdict.cluster_id = Some(id.clone()),
            Action::Arrives(_) | Action::HasTakenEffect(_) => {}
        }
    }
}

/// A request arrived: what the rules make of it. Those who want to be told are told.
pub(crate) fn arrives(state: &mut State, seen: &Seen) -> Verdict {
    let mut verdict = Verdict::default();
    told(state, seen, |rule, state| {
        if matches!(rule.action, Action::HasTakenEffect(_)) || !rule.hits(seen) {
            return;
        }
        rule.add_to(&mut verdict);
        if let Action::Arrives(hook) = &mut rule.action {
            hook(state, seen);
        }
    });
    verdict
}

/// A request has taken effect: those who want to be told are told.
pub(crate) fn has_taken_effect(state: &mut State, seen: &Seen) {
    told(state, seen, |rule, state| {
        if let Action::HasTakenEffect(_) = &rule.action
            && rule.hits(seen)
            && let Action::HasTakenEffect(hook) = &mut rule.action
        {
            hook(state, seen);
        }
    });
}

/// Shows every rule the state, in which a hook may add and clear rules meanwhile.
fn told(state: &mut State, _seen: &Seen, mut each: impl FnMut(&mut Rule, &mut State)) {
    let mut rules = std::mem::take(&mut state.faults.rules);
    for rule in &mut rules {
        each(rule, state);
    }
    rules.append(&mut state.faults.rules);
    state.faults.rules = rules;
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use kafka_protocol::messages::{
        CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, MetadataResponse, TopicName,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::client::Direct;
    use crate::cluster::Cluster;
    use crate::state::{Condition, Options};
    use crate::topics::NewTopic;

    const TOPIC: &str = "t";

    fn cluster() -> Cluster {
        let cluster = Cluster::new(Options {
            brokers: 2,
            ..Options::default()
        });
        let new = NewTopic {
            partitions: 1,
            replication: 1,
            ..NewTopic::default()
        };
        for name in [TOPIC, "other"] {
            cluster
                .control(|state| state.create_topic(name, &new))
                .expect("made");
        }
        cluster
    }

    fn delete(topic: &'static str) -> DeleteTopicsRequest {
        let name = TopicName(StrBytes::from_static_str(topic));
        DeleteTopicsRequest::default().with_topic_names(vec![name])
    }

    fn describe(topic: &'static str) -> MetadataRequest {
        let name = TopicName(StrBytes::from_static_str(topic));
        let topic = MetadataRequestTopic::default().with_name(Some(name));
        MetadataRequest::default().with_topics(Some(vec![topic]))
    }

    fn exists(cluster: &Cluster) -> bool {
        cluster.look(|state| state.topics.contains_key(TOPIC))
    }

    fn on_delete() -> Fault {
        Fault::on(ApiKey::DeleteTopics)
    }

    #[test]
    fn a_request_is_refused_as_often_as_it_is_wanted() {
        let cluster = cluster();
        let fault = Fault::on(ApiKey::DeleteTopics).topic(TOPIC).nth(2).times(1);
        let id = cluster.fault(fault, Action::Refuse(ResponseError::PolicyViolation));
        let mut client = Direct::connect(&cluster, 1);
        assert_eq!(
            client.call(&delete("nowhere"), 5).responses[0].error_code,
            3
        );
        assert_eq!(
            client.call(&delete(TOPIC), 5).responses[0].error_code,
            0,
            "the first"
        );
        let new = NewTopic {
            partitions: 1,
            replication: 1,
            ..NewTopic::default()
        };
        cluster
            .control(|state| state.create_topic(TOPIC, &new))
            .expect("made");
        assert_eq!(
            client.call(&delete(TOPIC), 5).responses[0].error_code,
            44,
            "the second"
        );
        assert!(exists(&cluster), "without effect");
        assert_eq!(
            client.call(&delete(TOPIC), 5).responses[0].error_code,
            0,
            "the third"
        );
        assert_eq!(cluster.fired(id), 1);
    }

    #[test]
    fn only_what_the_fault_is_for_is_refused() {
        let cluster = cluster();
        let fault = Fault::on(ApiKey::Metadata).broker(1).topic(TOPIC);
        cluster.fault(fault, Action::Refuse(ResponseError::LeaderNotAvailable));
        let code = |answer: MetadataResponse| answer.topics[0].error_code;
        let mut first = Direct::connect(&cluster, 1);
        let mut second = Direct::connect(&cluster, 2);
        assert_eq!(code(first.call(&describe(TOPIC), 12)), 5);
        assert_eq!(code(first.call(&describe("other"), 12)), 0);
        assert_eq!(code(second.call(&describe(TOPIC), 12)), 0);
    }

    #[test]
    fn a_swallowed_request_has_no_effect_or_no_answer() {
        for (action, has_effect) in [(Action::Swallow, false), (Action::SwallowAfter, true)] {
            let cluster = cluster();
            cluster.fault(on_delete(), action);
            let mut client = Direct::connect(&cluster, 1);
            assert!(client.try_call(&delete(TOPIC), 5).is_none());
            assert_eq!(exists(&cluster), !has_effect);
            assert!(!client.is_closed());
            assert!(
                client.try_call(&describe(TOPIC), 12).is_none(),
                "the channel is mute"
            );
        }
    }

    #[test]
    fn a_connection_is_cut_before_or_after_the_effect() {
        for (action, has_effect) in [(Action::CutBefore, false), (Action::CutAfter, true)] {
            let cluster = cluster();
            cluster.fault(on_delete(), action);
            let mut client = Direct::connect(&cluster, 1);
            assert!(client.try_call(&delete(TOPIC), 5).is_none());
            assert_eq!(exists(&cluster), !has_effect);
            assert!(client.is_closed());
        }
    }

    #[test]
    fn a_request_or_its_answer_comes_late() {
        for (action, at_once) in [(Action::Delay(500), false), (Action::AnswerLate(500), true)] {
            let cluster = cluster();
            cluster.fault(on_delete().times(1), action);
            let mut client = Direct::connect(&cluster, 1);
            assert!(client.try_call(&delete(TOPIC), 5).is_none());
            assert_eq!(exists(&cluster), !at_once);
            client.now_ms += 499;
            assert!(client.answer::<DeleteTopicsRequest>(5).is_none());
            client.now_ms += 1;
            assert!(client.answer::<DeleteTopicsRequest>(5).is_some());
            assert!(!exists(&cluster));
        }
    }

    #[test]
    fn a_request_is_held_until_its_fault_is_cleared() {
        let cluster = cluster();
        let fault = cluster.fault(on_delete().times(1), Action::Hold);
        let mut client = Direct::connect(&cluster, 1);
        assert!(client.try_call(&delete(TOPIC), 5).is_none());
        client.now_ms += 3_600_000;
        assert!(client.answer::<DeleteTopicsRequest>(5).is_none());
        assert!(exists(&cluster));
        cluster.clear(fault);
        assert!(client.answer::<DeleteTopicsRequest>(5).is_some());
        assert!(!exists(&cluster));
    }

    #[test]
    fn another_cluster_seems_to_answer() {
        let cluster = cluster();
        let fault = Fault::on(ApiKey::Metadata).times(1);
        cluster.fault(fault, Action::OtherCluster("somebody-else".to_owned()));
        let mut client = Direct::connect(&cluster, 1);
        let mut id = || client.call(&describe(TOPIC), 12).cluster_id.expect("an id");
        assert_eq!(id().as_str(), "somebody-else");
        assert_eq!(id().as_str(), "fake-cluster");
    }

    #[test]
    fn hooks_are_called_before_and_after_the_effect() {
        let cluster = cluster();
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |name: &'static str| -> Hook {
            let seen = seen.clone();
            Box::new(move |state, _| {
                let exists = state.topics.contains_key(TOPIC);
                seen.lock().expect("no panic").push((name, exists));
            })
        };
        cluster.fault(on_delete(), Action::Arrives(note("before")));
        cluster.fault(on_delete(), Action::HasTakenEffect(note("after")));
        Direct::connect(&cluster, 1).call(&delete(TOPIC), 5);
        assert_eq!(
            *seen.lock().expect("no panic"),
            [("before", true), ("after", false)]
        );
    }

    #[test]
    fn a_broker_can_be_frozen_when_a_request_arrives() {
        let cluster = cluster();
        let freeze: Hook = Box::new(|state, seen| state.freeze_broker(seen.broker));
        cluster.fault(on_delete().times(1), Action::Arrives(freeze));
        let mut client = Direct::connect(&cluster, 1);
        assert!(client.try_call(&delete(TOPIC), 5).is_none());
        assert!(exists(&cluster), "not handled yet");
        cluster.control(|state| {
            assert_eq!(state.condition(1), Condition::Frozen);
            state.thaw_broker(1);
        });
        assert!(client.answer::<DeleteTopicsRequest>(5).is_some());
        assert!(!exists(&cluster));
    }

    #[test]
    #[should_panic(expected = "never asks after")]
    fn a_refusal_that_nobody_can_give_is_a_defect_of_the_test() {
        let cluster = cluster();
        let fault = Fault::on(ApiKey::CreateTopics);
        cluster.fault(fault, Action::Refuse(ResponseError::PolicyViolation));
        // About no topic at all, so there is nothing to refuse.
        Direct::connect(&cluster, 1).call(&CreateTopicsRequest::default(), 7);
    }
}
