//! Quotas and users (`ClientQuotaControlManager`, `ScramControlManager`).

use bytes::Bytes;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterUserScramCredentialsRequest, DescribeClientQuotasRequest,
    DescribeUserScramCredentialsRequest,
};

use super::{Stage, text};

const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const NOT_FOUND: i16 = 91;
const DUPLICATE: i16 = 92;
const UNACCEPTABLE: i16 = 93;

pub(super) type Entity<'a> = &'a [(&'a str, Option<&'a str>)];

fn change(entity: Entity<'_>, key: &str, value: Option<f64>) -> EntryData {
    let components = entity.iter().map(|(kind, name)| {
        EntityData::default()
            .with_entity_type(text(kind))
            .with_entity_name(name.map(text))
    });
    let operation = OpData::default()
        .with_key(text(key))
        .with_value(value.unwrap_or_default())
        .with_remove(value.is_none());
    EntryData::default()
        .with_entity(components.collect())
        .with_ops(vec![operation])
}

impl Stage {
    pub(super) fn set_quota(&mut self, entity: Entity<'_>, key: &str, value: Option<f64>) -> i16 {
        let request =
            AlterClientQuotasRequest::default().with_entries(vec![change(entity, key, value)]);
        self.call(&request, 1).entries[0].error_code
    }

    /// What is set of entities with this user, and others as asked.
    fn quotas(&mut self, user: &str, strict: bool) -> Vec<(usize, String, f64)> {
        let component = ComponentData::default()
            .with_entity_type(text("user"))
            .with_match_type(0)
            .with_match(Some(text(user)));
        let request = DescribeClientQuotasRequest::default()
            .with_components(vec![component])
            .with_strict(strict);
        let answer = self.call(&request, 1);
        assert_eq!(answer.error_code, 0);
        let entries = answer.entries.expect("a list").into_iter();
        let mut quotas: Vec<_> = entries
            .flat_map(|entry| {
                let components = entry.entity.len();
                let values = entry.values.into_iter();
                values.map(move |value| (components, value.key.to_string(), value.value))
            })
            .collect();
        quotas.sort_by(|a, b| a.1.cmp(&b.1));
        quotas
    }
}

pub(super) fn quotas(stage: &mut Stage) {
    let name = stage.name("user");
    let user = &[("user", Some(name.as_str()))][..];
    let both = &[("user", Some(name.as_str())), ("client-id", None)][..];
    let rate = "producer_byte_rate";
    assert_eq!(stage.set_quota(user, rate, Some(1_000.0)), 0);
    assert_eq!(stage.set_quota(both, "request_percentage", Some(1.5)), 0);
    let all = [
        (1, rate.to_owned(), 1_000.0),
        (2, "request_percentage".to_owned(), 1.5),
    ];
    stage.until(|stage| stage.quotas(&name, false).len() == 2);
    assert_eq!(stage.quotas(&name, false), all);
    assert_eq!(stage.quotas(&name, true), all[..1]);
    for (entity, key, value) in [
        (user, rate, 0.0),
        (user, rate, 1.5),
        (user, "connection_creation_rate", 1.0),
        (user, "odd", 1.0),
        (&[("ip", Some("127.0.0.9"))], rate, 1.0),
        (&[("user", None), ("ip", None)], rate, 1.0),
        (&[("odd", None)], rate, 1.0),
        (&[], rate, 1.0),
    ] {
        let code = stage.set_quota(entity, key, Some(value));
        assert_eq!(code, INVALID_REQUEST, "{entity:?} {key} {value}");
    }
    let only_checked = AlterClientQuotasRequest::default()
        .with_entries(vec![change(user, rate, Some(5.0))])
        .with_validate_only(true);
    assert_eq!(stage.call(&only_checked, 1).entries[0].error_code, 0);
    assert_eq!(stage.quotas(&name, true), all[..1]);
    let odd = ComponentData::default().with_entity_type(text("odd"));
    let request = DescribeClientQuotasRequest::default().with_components(vec![odd]);
    assert_eq!(stage.call(&request, 1).error_code, UNSUPPORTED_VERSION);
    assert_eq!(stage.set_quota(user, rate, None), 0);
    assert_eq!(stage.set_quota(user, rate, None), 0, "again");
    assert_eq!(stage.set_quota(both, "request_percentage", None), 0);
    stage.until(|stage| stage.quotas(&name, false).is_empty());
}

impl Stage {
    pub(super) fn add_user(&mut self, user: &str, iterations: i32) -> i16 {
        let upsertion = ScramCredentialUpsertion::default()
            .with_name(text(user))
            .with_mechanism(1)
            .with_iterations(iterations)
            .with_salt(Bytes::from_static(b"salt"))
            .with_salted_password(Bytes::from_static(&[7; 32]));
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
        self.call(&request, 0).results[0].error_code
    }

    fn remove_user(&mut self, user: &str) -> i16 {
        let deletion = ScramCredentialDeletion::default()
            .with_name(text(user))
            .with_mechanism(1);
        let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]);
        self.call(&request, 0).results[0].error_code
    }

    /// The error, and mechanism and iterations of each credential.
    fn user(&mut self, user: &str, times: usize) -> (i16, Vec<(i8, i32)>) {
        let users = vec![UserName::default().with_name(text(user)); times];
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(users));
        let mut answer = self.call(&request, 0);
        assert_eq!(answer.error_code, 0);
        let result = answer.results.remove(0);
        let credentials = result.credential_infos.iter();
        let credentials = credentials.map(|it| (it.mechanism, it.iterations));
        (result.error_code, credentials.collect())
    }
}

pub(super) fn users(stage: &mut Stage) {
    let user = stage.name("user");
    assert_eq!(stage.user(&user, 1), (NOT_FOUND, Vec::new()));
    assert_eq!(stage.remove_user(&user), NOT_FOUND);
    assert_eq!(stage.add_user(&user, 1_000), UNACCEPTABLE);
    assert_eq!(stage.add_user(&user, 20_000), UNACCEPTABLE);
    assert_eq!(stage.add_user(&user, 8_192), 0);
    stage.until(|stage| stage.user(&user, 1).0 == 0);
    assert_eq!(stage.user(&user, 1), (0, vec![(1, 8_192)]));
    assert_eq!(stage.user(&user, 2).0, DUPLICATE);
    let all = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
    let answer = stage.call(&all, 0);
    assert!(answer.results.iter().any(|it| it.user.as_str() == user));
    assert_eq!(stage.remove_user(&user), 0);
    stage.until(|stage| stage.user(&user, 1).0 == NOT_FOUND);
}
