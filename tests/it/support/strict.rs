//! Clusters on which anonymous clients are nobody special, so that ACLs bind them.

use super::cluster::ClusterOptions;

/// A cluster whose brokers are somebody (SASL between themselves), so that anonymous clients
/// aren't. Where a resource has no ACL at all, everybody may do everything.
pub fn strict(name: &str) -> ClusterOptions {
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"broker\" password=\"only-here\" user_broker=\"only-here\";";
    ClusterOptions {
        authorizer: true,
        ..ClusterOptions::named(name)
    }
    .with("super.users", "User:broker")
    .with("allow.everyone.if.no.acl.found", true)
    .with(
        "listener.security.protocol.map",
        "PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
    )
    .with("sasl.mechanism.controller.protocol", "PLAIN")
    .with("listener.name.controller.sasl.enabled.mechanisms", "PLAIN")
    .with("listener.name.controller.plain.sasl.jaas.config", login)
}
