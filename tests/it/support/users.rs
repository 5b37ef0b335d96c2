//! Users of secured clusters, made and removed while the cluster runs.

use std::num::NonZeroU32;

use bytes::Bytes;
use kafka_protocol::messages::AlterUserScramCredentialsRequest;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use ring::pbkdf2;

use super::admin::client_with;
use super::logins::{self, Login};
use super::operator::{call, text};
use super::wait::eventually;
use rdkafka::consumer::{BaseConsumer, Consumer};
use std::time::Duration;

/// The fewest that Kafka takes: these passwords are random and short-lived.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).unwrap();
const SCRAM_SHA_256: i8 = 1;
const SCRAM_SHA_512: i8 = 2;

/// Letters and digits that nobody can guess.
pub fn random_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Makes a user with a random password, for both kinds of SCRAM, and waits until it gets in.
pub fn create(bootstrap: &str, user: &str) -> Login {
    let password = random_password();
    set_password(bootstrap, user, &password);
    let login = logins::user(bootstrap, super::security::ADMIN);
    let login = login
        .with("sasl.username", user)
        .with("sasl.password", password);
    logins::add_user(bootstrap, user, &login);
    await_login(bootstrap, &login);
    login
}

/// Sets a user's password, and makes the user if there is none.
pub fn set_password(bootstrap: &str, user: &str, password: &str) {
    let upsertion = |mechanism, algorithm, bytes| {
        let salt = rand::random::<[u8; 16]>();
        let mut salted = vec![0; bytes];
        pbkdf2::derive(
            algorithm,
            ITERATIONS,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        ScramCredentialUpsertion::default()
            .with_name(text(user))
            .with_mechanism(mechanism)
            .with_iterations(ITERATIONS.get().cast_signed())
            .with_salt(Bytes::copy_from_slice(&salt))
            .with_salted_password(salted.into())
    };
    // A request may name a user once only.
    for upsertion in [
        upsertion(SCRAM_SHA_256, pbkdf2::PBKDF2_HMAC_SHA256, 32),
        upsertion(SCRAM_SHA_512, pbkdf2::PBKDF2_HMAC_SHA512, 64),
    ] {
        let request = AlterUserScramCredentialsRequest::default();
        change(bootstrap, request.with_upsertions(vec![upsertion]));
    }
}

/// Removes a user. Connections that it has stay open.
pub fn delete(bootstrap: &str, user: &str) {
    let deletion = |mechanism| {
        ScramCredentialDeletion::default()
            .with_name(text(user))
            .with_mechanism(mechanism)
    };
    for deletion in [SCRAM_SHA_256, SCRAM_SHA_512].map(deletion) {
        let request = AlterUserScramCredentialsRequest::default();
        change(bootstrap, request.with_deletions(vec![deletion]));
    }
}

fn change(bootstrap: &str, request: AlterUserScramCredentialsRequest) {
    // A controller that has just been elected may not be ready to write yet.
    eventually(super::operator::DEADLINE, "users are changed", || {
        let response = call(bootstrap, request.clone(), 0);
        let refused = response.results.iter().find(|user| user.error_code != 0);
        refused.map_or(Ok(()), |refused| Err(refused.clone()))
    });
}

/// Waits until a login is taken: brokers learn of a user a moment after the controller.
pub fn await_login(bootstrap: &str, login: &Login) {
    for address in bootstrap.split(',') {
        eventually(super::operator::DEADLINE, "the user gets in", || {
            // A client that was refused tries again ever more slowly.
            let consumer: BaseConsumer = client_with(address, login)
                .create()
                .expect("valid settings");
            consumer
                .fetch_metadata(None, Duration::from_secs(2))
                .map(drop)
        });
    }
}
