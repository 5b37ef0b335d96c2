//! Secured clusters: TLS and SASL for clients, the standard authorizer, users and certificates
//! that are made for one cluster and gone with it.
//!
//! Brokers talk to each other, and the test to them as their operator, over a plaintext listener
//! besides, on which anybody is a super user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::certificates::{Authority, ServerCertificate};
use super::logins::{Entry, Login};
use super::users;

/// The super user of the test's own clients.
pub const ADMIN: &str = "admin";
/// Twinlog's user.
pub const TWINLOG: &str = "twinlog";

/// How a cluster is secured.
#[derive(Clone, Debug)]
pub struct Security {
    /// What the test's clients and Twinlog authenticate with: `SCRAM-SHA-256`, `SCRAM-SHA-512` or
    /// `PLAIN`. The listener takes all three.
    pub mechanism: &'static str,
    /// Who may do everything, besides [`ADMIN`]. By default [`TWINLOG`].
    pub super_users: Vec<String>,
    /// What the brokers show.
    pub server_certificate: ServerCertificate,
    /// Adds a listener that wants a client's certificate and no SASL, see
    /// [`Cluster::certificate_bootstrap`](super::Cluster::certificate_bootstrap).
    pub client_certificates: bool,
    /// Takes unsigned tokens too: SASL mechanism `OAUTHBEARER`. The principal is the claim `sub`.
    pub oauthbearer: bool,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            mechanism: "SCRAM-SHA-512",
            super_users: vec![TWINLOG.to_owned()],
            server_certificate: ServerCertificate::Valid,
            client_certificates: false,
            oauthbearer: false,
        }
    }
}

impl Security {
    /// What `TWINLOG_TEST_SECURITY` asks for, for clusters that don't say themselves.
    pub fn from_environment(cluster_name: &str) -> Option<Self> {
        is_wanted().then(|| Self::of_a_pair(cluster_name))
    }

    /// Of a pair's `source` or `target`: both kinds of SCRAM are in every pair.
    pub fn of_a_pair(cluster_name: &str) -> Self {
        match cluster_name {
            "source" => Self {
                mechanism: "SCRAM-SHA-256",
                ..Self::default()
            },
            _ => Self::default(),
        }
    }

    /// Twinlog's user has no right but those that the test gives to it.
    #[must_use]
    pub fn with_bare_twinlog(mut self) -> Self {
        self.super_users.clear();
        self
    }
}

/// Whether `TWINLOG_TEST_SECURITY` asks for secured clusters.
///
/// # Panics
/// When it has a value that nobody knows: a typing error must not test plaintext again.
pub(super) fn is_wanted() -> bool {
    match std::env::var("TWINLOG_TEST_SECURITY").as_deref() {
        Err(_) | Ok("") => false,
        Ok("sasl_ssl") => true,
        Ok(value) => panic!("TWINLOG_TEST_SECURITY={value} is unknown; expected sasl_ssl"),
    }
}

/// What a secured cluster has on disk and in mind.
#[derive(Debug)]
pub(super) struct Secured {
    options: Security,
    ca: PathBuf,
    server: PathBuf,
    java: PathBuf,
    /// By user: the password.
    passwords: Passwords,
    certificates: [Login; 2],
    /// Whether the users have been made.
    pub(super) has_users: bool,
}

struct Passwords(BTreeMap<&'static str, String>);

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secured {
    /// Makes certificates and passwords; the files go to `folder`.
    pub(super) fn prepare(options: Security, folder: &Path) -> Self {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("our folder is writable");
            path
        };
        let authority = Authority::new("test authority");
        let kind = options.server_certificate;
        let stranger = Authority::new("another authority");
        let signer = match kind {
            ServerCertificate::ForeignAuthority => &stranger,
            _ => &authority,
        };
        let ca = write("ca.crt", authority.pem());
        let server = write("server.pem", signer.server(kind).key_store(signer));
        let passwords = [ADMIN, TWINLOG].map(|user| (user, users::random_password()));
        let certificates = [ADMIN, TWINLOG].map(|user| {
            let files = authority.client(user).write(folder, user);
            Login::certificate(&files.certificate, &files.key, &ca)
        });
        Self {
            java: folder.join("java.properties"),
            options,
            ca,
            server,
            passwords: Passwords(passwords.into()),
            certificates,
            has_users: false,
        }
    }

    /// The authority's certificate.
    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// Whether clients can get in at all.
    pub(super) fn is_trusted(&self) -> bool {
        self.options.server_certificate == ServerCertificate::Valid
    }

    /// Whether there is a listener for clients with certificates.
    pub(super) fn takes_certificates(&self) -> bool {
        self.options.client_certificates
    }

    /// How a user gets in with a password.
    pub(super) fn login(&self, user: &str, password: &str) -> Login {
        Login::password(self.options.mechanism, user, password, &self.ca)
    }

    /// What clients of the SASL listener are told.
    pub(super) fn entry(&self, internal: String) -> Entry {
        let [clients, twinlog] =
            [ADMIN, TWINLOG].map(|user| self.login(user, &self.passwords.0[user]));
        std::fs::write(&self.java, clients.java()).expect("our folder is writable");
        let users = [(ADMIN, &clients), (TWINLOG, &twinlog)];
        Entry {
            internal,
            users: users
                .map(|(user, login)| (user.into(), login.clone()))
                .into(),
            java: self.java.clone(),
            clients,
            twinlog,
        }
    }

    /// What clients of the listener for certificates are told.
    pub(super) fn certificate_entry(&self, internal: String) -> Entry {
        let [clients, twinlog] = self.certificates.clone();
        let java = self.java.with_extension("certificates");
        std::fs::write(&java, clients.java()).expect("our folder is writable");
        let users = [(ADMIN, &clients), (TWINLOG, &twinlog)];
        Entry {
            internal,
            users: users
                .map(|(user, login)| (user.into(), login.clone()))
                .into(),
            java,
            clients,
            twinlog,
        }
    }

    /// Makes [`ADMIN`] and [`TWINLOG`] users. The format tool could do that before the first start,
    /// but it needs a JVM for it.
    pub(super) fn make_users(&mut self, internal_bootstrap: &str) {
        if !self.has_users {
            for (user, password) in &self.passwords.0 {
                users::set_password(internal_bootstrap, user, password);
            }
            self.has_users = true;
        }
    }

    /// The brokers' properties but for the listeners' addresses.
    pub(super) fn properties(&self) -> String {
        let mut super_users = vec!["User:ANONYMOUS".to_owned(), format!("User:{ADMIN}")];
        let more = self.options.super_users.iter();
        super_users.extend(more.map(|user| format!("User:{user}")));
        let users: String = self
            .passwords
            .0
            .iter()
            .map(|(user, password)| format!(" user_{user}=\"{password}\""))
            .collect();
        let mut mechanisms = "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN".to_owned();
        let security = "org.apache.kafka.common.security";
        let mut text = format!(
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users={super_users}
ssl.keystore.type=PEM
ssl.keystore.location={server}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
ssl.principal.mapping.rules=RULE:^CN=([^,]+).*$/$1/,DEFAULT
listener.name.certificate.ssl.client.auth=required
listener.name.client.scram-sha-256.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.client.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;
listener.name.client.plain.sasl.jaas.config={security}.plain.PlainLoginModule required{users};
",
            super_users = super_users.join(";"),
            server = self.server.display(),
            ca = self.ca.display(),
        );
        if self.options.oauthbearer {
            mechanisms.push_str(",OAUTHBEARER");
            text.push_str(&format!(
                "listener.name.client.oauthbearer.sasl.jaas.config=\
                 {security}.oauthbearer.OAuthBearerLoginModule required;\n"
            ));
        }
        text.push_str(&format!(
            "listener.name.client.sasl.enabled.mechanisms={mechanisms}\n"
        ));
        text
    }
}
