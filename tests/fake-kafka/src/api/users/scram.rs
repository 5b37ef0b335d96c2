//! DescribeUserScramCredentials and AlterUserScramCredentials (`ScramImage.describe`,
//! `ScramControlManager`).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResult,
};
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use super::{Asked, Reply, text};
use crate::acls::Operation;
use crate::api::Served;
use crate::state::State;
use crate::users::scram::{Credential, ITERATIONS_MIN, Mechanism};

/// `ScramControlManager.MAX_ITERATIONS`.
const ITERATIONS_MAX: u32 = 16_384;

impl Served for DescribeUserScramCredentialsRequest {
    fn refuse(&self, error: ResponseError) -> Option<DescribeUserScramCredentialsResponse> {
        Some(refused(error))
    }
}

impl Served for AlterUserScramCredentialsRequest {
    fn refuse(&self, error: ResponseError) -> Option<AlterUserScramCredentialsResponse> {
        Some(answer(self, |_| Some(error)))
    }
}

fn refused(error: ResponseError) -> DescribeUserScramCredentialsResponse {
    DescribeUserScramCredentialsResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(text("Cluster authorization failed.")))
}

pub(in crate::api) fn handle(
    state: &mut State,
    asked: &Asked<'_>,
    request: DescribeUserScramCredentialsRequest,
) -> Reply {
    if !state.allows_on_cluster(asked, Operation::Describe) {
        return match request.users {
            // `getErrorResponse` walks through a list that isn't there, and nobody is answered.
            None => Reply::Silence,
            Some(_) => asked.send(&refused(ResponseError::ClusterAuthorizationFailed)),
        };
    }
    let mut users: BTreeMap<String, usize> = BTreeMap::new();
    for user in request.users.iter().flatten() {
        *users.entry(user.name.to_string()).or_default() += 1;
    }
    if users.is_empty() {
        let all = state.users.scram.keys().cloned();
        users = all.map(|user| (user, 1)).collect();
    }
    let results = users.into_iter().map(|(user, times)| {
        let result = DescribeUserScramCredentialsResult::default().with_user(text(user.clone()));
        let failed = |error: ResponseError, message: &str| {
            result
                .clone()
                .with_error_code(error.code())
                .with_error_message(Some(text(format!("{message}{user}"))))
        };
        match state.users.scram.get(&user) {
            _ if times > 1 => failed(
                ResponseError::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request: ",
            ),
            None => failed(
                ResponseError::ResourceNotFound,
                "Attempt to describe a user credential that does not exist: ",
            ),
            Some(credentials) => {
                let infos = credentials.iter().map(|(mechanism, credential)| {
                    CredentialInfo::default()
                        .with_mechanism(mechanism.number())
                        .with_iterations(i32::try_from(credential.iterations).unwrap_or(i32::MAX))
                });
                result.with_credential_infos(infos.collect())
            }
        }
    });
    let results = results.collect();
    asked.send(&DescribeUserScramCredentialsResponse::default().with_results(results))
}

fn names(request: &AlterUserScramCredentialsRequest) -> BTreeMap<String, usize> {
    let deleted = request.deletions.iter().map(|it| &it.name);
    let mut names = BTreeMap::new();
    for name in deleted.chain(request.upsertions.iter().map(|it| &it.name)) {
        *names.entry(name.to_string()).or_default() += 1;
    }
    names
}

fn answer(
    request: &AlterUserScramCredentialsRequest,
    mut error: impl FnMut(&str) -> Option<ResponseError>,
) -> AlterUserScramCredentialsResponse {
    let results = names(request).into_keys().map(|user| {
        let error = error(&user);
        AlterUserScramCredentialsResult::default()
            .with_error_code(error.map_or(0, |error| error.code()))
            .with_error_message(None)
            .with_user(text(user))
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

pub(in crate::api) fn handle_alter(
    state: &mut State,
    asked: &Asked<'_>,
    request: AlterUserScramCredentialsRequest,
) -> Reply {
    if !state.allows_on_cluster(asked, Operation::Alter) {
        let error = Some(ResponseError::ClusterAuthorizationFailed);
        return asked.send(&answer(&request, |_| error));
    }
    let times = names(&request);
    let answer = answer(&request, |user| {
        if times.get(user).is_some_and(|times| *times > 1) {
            return Some(ResponseError::DuplicateResource);
        }
        alter(state, &request, user).err()
    });
    asked.send(&answer)
}

fn alter(
    state: &mut State,
    request: &AlterUserScramCredentialsRequest,
    user: &str,
) -> Result<(), ResponseError> {
    let mut deletions = request.deletions.iter();
    if let Some(deletion) = deletions.find(|it| it.name.as_str() == user) {
        let mechanism = Mechanism::from_number(deletion.mechanism)
            .ok_or(ResponseError::UnsupportedSaslMechanism)?;
        let known = state.users.scram.get_mut(user);
        let known = known.ok_or(ResponseError::ResourceNotFound)?;
        let gone = known.remove(&mechanism);
        gone.ok_or(ResponseError::ResourceNotFound)?;
        if known.is_empty() {
            state.users.scram.remove(user);
        }
    }
    let mut upsertions = request.upsertions.iter();
    if let Some(upsertion) = upsertions.find(|it| it.name.as_str() == user) {
        let (mechanism, credential) = credential(upsertion)?;
        let known = state.users.scram.entry(user.to_owned()).or_default();
        known.insert(mechanism, credential);
    }
    Ok(())
}

/// `ScramControlManager.validateUpsertion`.
fn credential(
    upsertion: &ScramCredentialUpsertion,
) -> Result<(Mechanism, Credential), ResponseError> {
    if upsertion.name.is_empty() {
        return Err(ResponseError::UnacceptableCredential);
    }
    let mechanism = Mechanism::from_number(upsertion.mechanism)
        .ok_or(ResponseError::UnsupportedSaslMechanism)?;
    let iterations = u32::try_from(upsertion.iterations)
        .ok()
        .filter(|it| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(it))
        .ok_or(ResponseError::UnacceptableCredential)?;
    let credential = Credential::of_salted(
        mechanism,
        &upsertion.salted_password,
        &upsertion.salt,
        iterations,
    );
    Ok((mechanism, credential))
}
