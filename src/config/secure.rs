//! Reads the security keys of a cluster section. What can't work together is a problem, at the key
//! that is too much, or at `security.protocol` when one is missing.

use std::path::PathBuf;

use super::reader::{Reader, Table};
use super::refused;
use super::secret::{self, Properties, Secret};
use super::security::{
    IdentitySection, Note, OidcSection, PasswordMechanism, Pem, SaslSection, SecuritySection,
    TlsCheck, TlsSection,
};
use super::tree::{Kind, Place};
use super::values;

const PROTOCOLS: [(&str, (bool, bool)); 4] = [
    ("PLAINTEXT", (false, false)),
    ("SSL", (true, false)),
    ("SASL_PLAINTEXT", (false, true)),
    ("SASL_SSL", (true, true)),
];

const TLS_KEYS: [&str; 9] = [
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.key.location",
    "ssl.key.pem",
    "ssl.key.password",
    HOST_CHECK,
    VERIFICATION,
];

const HOST_CHECK: &str = "ssl.endpoint.identification.algorithm";
const VERIFICATION: &str = "enable.ssl.certificate.verification";

const PASSWORD_KEYS: [&str; 2] = ["sasl.username", "sasl.password"];
const OIDC_KEYS: [&str; 6] = [
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.scope",
    "https.ca.location",
];

/// What the section says, its properties for librdkafka, and what somebody should know.
pub(super) struct Read {
    pub(super) security: SecuritySection,
    pub(super) notes: Vec<Note>,
    /// The secret that can't be had, and why.
    pub(super) lacks: Option<String>,
}

pub(super) fn read(reader: &mut Reader, table: &Table, properties: &mut Properties) -> Read {
    let mut section = Section {
        reader,
        table,
        properties,
        notes: Vec::new(),
        lacks: None,
    };
    let security = section.read();
    let Section { notes, lacks, .. } = section;
    Read {
        security,
        notes,
        lacks,
    }
}

struct Section<'r, 'e, 't, 'n> {
    reader: &'r mut Reader<'e>,
    table: &'t Table<'n>,
    properties: &'r mut Properties,
    notes: Vec<Note>,
    lacks: Option<String>,
}

impl Section<'_, '_, '_, '_> {
    fn read(&mut self) -> SecuritySection {
        let protocol = self.text("security.protocol");
        let wanted = protocol.as_deref().unwrap_or("PLAINTEXT").to_uppercase();
        let found = values::choice(&wanted, &PROTOCOLS);
        let (tls, sasl) = match found {
            Ok(kind) => kind,
            Err(message) => {
                self.problem("security.protocol", message);
                // The rest can't be judged.
                return SecuritySection::default();
            }
        };
        self.properties.set("security.protocol", wanted.clone());
        let tls = if tls {
            Some(self.tls())
        } else {
            self.too_much(&TLS_KEYS, &format!("has no effect with `{wanted}`; set `security.protocol` to `SSL` or `SASL_SSL`, or remove it"));
            None
        };
        let sasl = if sasl {
            self.sasl(tls.is_some())
        } else {
            let keys = ["sasl.mechanism", "sasl.mechanisms"];
            let keys: Vec<&str> = keys
                .into_iter()
                .chain(PASSWORD_KEYS)
                .chain(OIDC_KEYS)
                .collect();
            self.too_much(&keys, &format!("has no effect with `{wanted}`; set `security.protocol` to `SASL_SSL` or `SASL_PLAINTEXT`, or remove it"));
            None
        };
        SecuritySection { tls, sasl }
    }

    fn tls(&mut self) -> TlsSection {
        let ca = self.pem("ssl.ca", Visibility::Open);
        let certificate = self.pem("ssl.certificate", Visibility::Open);
        let key = self.pem("ssl.key", Visibility::Secret);
        let key_password = self.or_lack(|section| section.secret("ssl.key.password"));
        if let Some(password) = &key_password {
            self.properties
                .set_secret("ssl.key.password", password.clone());
        }
        if key.is_none() && self.given("ssl.key.password") {
            self.problem(
                "ssl.key.password",
                "is for a key, and none is given; add `ssl.key.location`",
            );
        }
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(IdentitySection {
                certificate,
                key,
                key_password,
            }),
            (Some(_), None) => {
                let key = self.which("ssl.certificate");
                self.problem(&key, "needs its key; add `ssl.key.location` (librdkafka doesn't look for it in the certificate's file)");
                None
            }
            (None, Some(_)) => {
                let key = self.which("ssl.key");
                self.problem(
                    &key,
                    "needs its certificate; add `ssl.certificate.location`",
                );
                None
            }
            (None, None) => None,
        };
        let host = self.choice(HOST_CHECK, "https", &[("https", true), ("none", false)]);
        let verify = self.choice(VERIFICATION, "true", &[("true", true), ("false", false)]);
        let check = match (verify, host) {
            (true, true) => TlsCheck::ChainAndHost,
            (true, false) => TlsCheck::Chain,
            (false, _) => TlsCheck::Nothing,
        };
        match check {
            TlsCheck::ChainAndHost => {}
            TlsCheck::Chain => self.note(
                "the brokers' certificates are accepted for any host",
                "set ssl.endpoint.identification.algorithm to https and use the names in them",
            ),
            TlsCheck::Nothing => self.note(
                "the brokers' certificates are not checked: anybody can pretend to be one",
                "remove enable.ssl.certificate.verification and set ssl.ca.location",
            ),
        }
        TlsSection {
            ca,
            identity,
            check,
        }
    }

    fn sasl(&mut self, tls: bool) -> Option<SaslSection> {
        let key = if self.given("sasl.mechanisms") {
            if self.given("sasl.mechanism") {
                self.problem(
                    "sasl.mechanisms",
                    "is the same as `sasl.mechanism`; give one of them",
                );
            }
            "sasl.mechanisms"
        } else {
            "sasl.mechanism"
        };
        let name = self.required(key, "SCRAM-SHA-512")?;
        let password = match name.as_str() {
            "PLAIN" => Some(PasswordMechanism::Plain),
            "SCRAM-SHA-256" => Some(PasswordMechanism::ScramSha256),
            "SCRAM-SHA-512" => Some(PasswordMechanism::ScramSha512),
            "OAUTHBEARER" => None,
            _ => {
                let known = "`PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`";
                let message = match refused::mechanism(&name) {
                    Some(why) => format!("`{name}`: {why}"),
                    None => format!("unknown value `{name}`; expected {known}"),
                };
                self.problem(key, message);
                return None;
            }
        };
        self.properties.set("sasl.mechanism", name.clone());
        let Some(mechanism) = password else {
            self.too_much(
                &PASSWORD_KEYS,
                "has no effect with `OAUTHBEARER`; remove it",
            );
            return self.oidc().map(SaslSection::Oidc);
        };
        self.too_much(
            &OIDC_KEYS,
            &format!("has no effect with `{name}`; remove it"),
        );
        if mechanism == PasswordMechanism::Plain && !tls {
            self.note(
                "the password travels unencrypted (PLAIN over SASL_PLAINTEXT)",
                "set security.protocol to SASL_SSL, or sasl.mechanism to SCRAM-SHA-512",
            );
        }
        let username = self.required_name("sasl.username", "twinlog");
        let password = self.required_secret("sasl.password");
        if let Some(username) = &username {
            self.properties.set("sasl.username", username.clone());
        }
        if let Some(password) = &password {
            if password.expose().contains('\0') {
                self.problem("sasl.password", "has a zero byte in it");
            }
            self.properties
                .set_secret("sasl.password", password.clone());
        }
        Some(SaslSection::Password {
            mechanism,
            username: username?,
            password: password?,
        })
    }

    /// librdkafka gets its tokens from us, so none of this goes to it.
    fn oidc(&mut self) -> Option<OidcSection> {
        if let Some(method) = self.required("sasl.oauthbearer.method", "oidc")
            && method != "oidc"
        {
            let message = format!(
                "`{method}`: librdkafka can take unsigned or handed over tokens, Twinlog's own client can't; use `oidc`"
            );
            self.problem("sasl.oauthbearer.method", message);
        }
        let url_key = "sasl.oauthbearer.token.endpoint.url";
        let token_urls = self.required(url_key, "https://login.example.com/oauth2/token");
        let token_urls = token_urls.map(|text| urls(&text));
        for url in token_urls.iter().flatten() {
            self.token_url(url_key, url);
        }
        let client_id = self.required_name("sasl.oauthbearer.client.id", "twinlog");
        let client_secret = self.required_secret("sasl.oauthbearer.client.secret");
        let scope = self.text("sasl.oauthbearer.scope");
        let ca = self.text("https.ca.location").map(PathBuf::from);
        Some(OidcSection {
            token_urls: token_urls?,
            client_id: client_id?,
            client_secret: client_secret?,
            scope,
            ca,
        })
    }

    fn token_url(&mut self, key: &str, url: &str) {
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        if has_user(url) {
            // The URL itself stays unsaid, here and wherever it would be part of an error.
            self.problem(
                key,
                "has a user or a password in it; remove them, and use \
                 `sasl.oauthbearer.client.id` and `sasl.oauthbearer.client.secret`",
            );
        } else if host.is_none_or(|host| host.is_empty() || host.starts_with('/')) {
            self.problem(
                key,
                format!("`{url}` is not a URL; write `https://host/path`"),
            );
        } else if url.starts_with("http://") {
            self.note(
                "the client secret travels unencrypted to the token's URL",
                "use https in sasl.oauthbearer.token.endpoint.url",
            );
        }
    }

    /// `NAME.location` or `NAME.pem`.
    fn pem(&mut self, name: &str, visibility: Visibility) -> Option<Pem> {
        let (location, inline) = (format!("{name}.location"), format!("{name}.pem"));
        let file = self.text(&location);
        let text = match visibility {
            Visibility::Open => self.text(&inline).map(Secret::from),
            Visibility::Secret => self.or_lack(|section| section.secret(&inline)),
        };
        match (file, text) {
            (Some(_), Some(_)) => {
                let message = format!("`{location}` is given too; remove one of them");
                self.problem(&inline, message);
                None
            }
            (Some(file), None) => {
                self.properties.set(&location, file.clone());
                Some(Pem::File(file.into()))
            }
            (None, Some(text)) => {
                // One that can't be had is empty.
                if !text.is_empty() && !text.expose().contains("-----BEGIN ") {
                    let message =
                        format!("is not PEM (`-----BEGIN ...`); for a file use `{location}`");
                    self.problem(&inline, message);
                }
                self.properties.set_secret(&inline, text.clone());
                Some(Pem::Inline(text))
            }
            (None, None) => None,
        }
    }

    /// Which of the two keys of `pem` is there.
    fn which(&self, name: &str) -> String {
        let inline = format!("{name}.pem");
        if self.given(&inline) {
            inline
        } else {
            format!("{name}.location")
        }
    }

    fn choice(&mut self, key: &str, default: &str, choices: &[(&str, bool)]) -> bool {
        let text = self.text(key).unwrap_or_else(|| default.to_owned());
        match values::choice(&text, choices) {
            Ok(value) => {
                self.properties.set(key, text);
                value
            }
            Err(message) => {
                self.problem(key, message);
                true
            }
        }
    }

    /// A value that isn't secret; an empty one counts as not given.
    fn text(&mut self, key: &str) -> Option<String> {
        let text = self
            .reader
            .value(self.table, key, |text| Ok(text.to_owned()));
        text.filter(|text| !text.is_empty())
    }

    fn required(&mut self, key: &str, example: &str) -> Option<String> {
        if !self.given(key) {
            self.missing(key, example);
        }
        self.text(key)
    }

    /// Who we are, which is often kept beside what proves it.
    fn required_name(&mut self, key: &str, example: &str) -> Option<String> {
        if !self.given(key) {
            self.missing(key, example);
            return None;
        }
        let name = self.or_lack(|section| section.text(key).map(Secret::from));
        name.map(|name| name.expose().to_owned())
    }

    fn required_secret(&mut self, key: &str) -> Option<Secret> {
        if !self.given(key) {
            self.missing(key, "${NAME_OF_A_VARIABLE}");
            return None;
        }
        self.or_lack(|section| section.secret(key))
    }

    /// A secret that is given. One that can't be had is empty: nobody needs it where nobody needs the cluster.
    fn or_lack(&mut self, read: impl FnOnce(&mut Self) -> Option<Secret>) -> Option<Secret> {
        let before = self.reader.problems.len();
        read(self).or_else(|| {
            let lacks = self.reader.problems.split_off(before);
            let first = lacks.first()?;
            let why = format!("{}: {}", first.path, first.message);
            self.lacks.get_or_insert(why);
            self.reader.missing_secrets.extend(lacks);
            // Never sent: our own client ends where it would be (`wire::ClusterConfig::lacks`).
            Some(Secret::from(String::new()))
        })
    }

    fn missing(&mut self, key: &str, example: &str) {
        let message = format!("missing; for example `{key}: {example}`");
        self.problem(key, message);
    }

    /// A secret value: as written, `${VARIABLE}`, or `file:PATH` for the file's content without
    /// its last line end. An empty one counts as not given. Never part of a message.
    fn secret(&mut self, key: &str) -> Option<Secret> {
        let node = self.table.get(key)?;
        let text = self.text(key)?;
        if let Some(path) = secret::path_of(&text) {
            return match secret::read(path) {
                Ok(secret) => Some(secret),
                Err(message) => {
                    self.problem(key, message);
                    None
                }
            };
        }
        if let Kind::Text(written) = &node.kind
            && *written == text
            && node.place.variable.is_none()
        {
            self.note(
                &format!("{key} stands in the config file itself"),
                "write ${VARIABLE} or file:PATH instead",
            );
        }
        Some(Secret::from(text))
    }

    /// Whether there is anything at the key.
    fn given(&self, key: &str) -> bool {
        let node = self.table.get(key);
        node.is_some_and(|node| !matches!(&node.kind, Kind::Text(text) if text.is_empty()))
    }

    /// Keys that have no effect, except with their default.
    fn too_much(&mut self, keys: &[&str], message: &str) {
        for key in keys {
            let is_default = match (*key, self.table.get(key).map(|node| &node.kind)) {
                (HOST_CHECK, Some(Kind::Text(text))) => text == "https",
                (VERIFICATION, Some(Kind::Text(text))) => text == "true",
                _ => false,
            };
            if self.given(key) && !is_default {
                self.problem(key, message);
            }
        }
    }

    /// At the key's value; at the section, if it isn't there.
    fn problem(&mut self, key: &str, message: impl Into<String>) {
        let place: Place = match self.table.get(key) {
            Some(node) => node.place.clone(),
            None => self.table.place.clone(),
        };
        let path = self.table.path_of(key);
        self.reader.problem(&place, &path, message);
    }

    fn note(&mut self, message: &str, hint: &str) {
        self.notes.push(Note {
            message: message.to_owned(),
            hint: hint.to_owned(),
        });
    }
}

#[derive(Clone, Copy)]
enum Visibility {
    Open,
    Secret,
}

/// One URL, or several with commas between them. A URL may have commas itself: what comes behind one is another where it
/// begins as one.
fn urls(text: &str) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = ["http://", "https://"]
            .iter()
            .any(|it| part.trim_start().starts_with(it));
        match urls.last_mut() {
            Some(last) if !begins => {
                last.push(',');
                last.push_str(part);
            }
            _ => urls.push(part.to_owned()),
        }
    }
    urls.iter().map(|url| url.trim().to_owned()).collect()
}

/// Whether there is something before an `@` in front of the host.
fn has_user(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next();
    authority.is_some_and(|authority| authority.contains('@'))
}
