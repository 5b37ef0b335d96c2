//! Whether a copy of a topic under another name would show records to somebody who may not read
//! the topic: what denies by a name says nothing about the copy's, and what grants by a pattern does.

use super::binding::{ANY_HOST, operation};
use super::held::{is_everybody, may_be_for_one};
use crate::wire::{self, AclBinding, Cluster, ResponseError, WireError};

/// Who may read what on a cluster.
#[derive(Clone, Debug)]
pub struct Readers {
    /// `None` where there is no authorizer: everybody may read everything.
    acls: Option<Vec<AclBinding>>,
    /// What has no ACL is everybody's.
    is_open: bool,
    /// Twinlog reads anyway.
    own_principal: Option<String>,
}

impl Readers {
    /// Asks the cluster.
    ///
    /// # Errors
    /// When it doesn't tell.
    pub async fn of(cluster: &Cluster, own_principal: Option<String>) -> Result<Self, WireError> {
        let listed = wire::describe_acls(cluster).await?.acls(cluster);
        let acls = match listed {
            Err(error) if error.server_code() == Some(ResponseError::SecurityDisabled) => None,
            listed => Some(listed?),
        };
        let is_open = acls.is_some() && wire::is_open_by_default(cluster).await?;
        Ok(Self {
            acls,
            is_open,
            own_principal,
        })
    }

    /// To whom a copy called `copy` would show records of `topic` that it may not read there, and why.
    pub fn shown_to(&self, topic: &str, copy: &str) -> Option<String> {
        let acls = self.acls.as_ref()?;
        let about = |name: &str| -> Vec<&AclBinding> {
            let topics = acls.iter().filter(|acl| acl.is_topic());
            topics.filter(|acl| acl.covers(name)).collect()
        };
        let (of_topic, of_copy) = (about(topic), about(copy));
        if self.is_open && of_copy.is_empty() {
            let first = of_topic.first();
            return first.map(|acl| {
                format!(
                    "everybody could read its copy, which would have no ACL; the topic itself has some, such as {acl}"
                )
            });
        }
        let grants = of_copy.iter().filter(|acl| acl.is_allow() && reads(acl));
        let grants = grants.filter(|acl| Some(&acl.principal) != self.own_principal.as_ref());
        for grant in grants {
            // Where the topic has no ACL at all it is everybody's.
            let is_free = self.is_open && of_topic.is_empty();
            let may_read = of_topic
                .iter()
                .any(|acl| acl.is_allow() && reads(acl) && includes(acl, grant));
            if !is_free && !may_read {
                return Some(format!(
                    "{grant} would let somebody read its copy who may not read the topic"
                ));
            }
            let is_kept = |denial: &AclBinding| {
                let mut kept = of_copy.iter().filter(|acl| acl.is_deny() && reads(acl));
                kept.any(|acl| includes(acl, denial))
            };
            let mut denials = of_topic.iter().filter(|acl| acl.is_deny() && reads(acl));
            let lost = denials.find(|acl| may_be_for_one(acl, grant) && !is_kept(acl));
            if let Some(denial) = lost {
                return Some(format!(
                    "its copy could be read by somebody to whom {denial} denies the topic"
                ));
            }
        }
        None
    }
}

/// Whether it is about reading.
fn reads(acl: &AclBinding) -> bool {
    [operation::READ, operation::ALL].contains(&acl.operation)
}

/// Whether it is for all for whom the other one is.
fn includes(acl: &AclBinding, other: &AclBinding) -> bool {
    (acl.principal == other.principal || is_everybody(&acl.principal))
        && (acl.host == other.host || acl.host == ANY_HOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::binding::{pattern, permission, resource};
    use super::super::model::{OWN, Request, acls, authorize};
    use super::*;

    const COPY: &str = "__twinlog_drill.1.ab";

    fn readers(acls: Vec<AclBinding>) -> Readers {
        Readers {
            acls: Some(acls),
            is_open: false,
            own_principal: Some(OWN.to_owned()),
        }
    }

    fn acl(permission: i8, principal: &str, pattern_type: i8, name: &str) -> AclBinding {
        AclBinding {
            resource_type: resource::TOPIC,
            pattern_type,
            name: name.to_owned(),
            principal: principal.to_owned(),
            host: ANY_HOST.to_owned(),
            operation: operation::READ,
            permission,
        }
    }

    #[test]
    fn what_a_denial_keeps_from_somebody_a_copy_would_show() {
        let all = acl(permission::ALLOW, "User:bi", pattern::LITERAL, "*");
        for denial in [
            acl(permission::DENY, "User:bi", pattern::LITERAL, "ab"),
            acl(permission::DENY, "User:bi", pattern::PREFIXED, "a"),
            acl(permission::DENY, "User:*", pattern::PREFIXED, "a"),
        ] {
            let readers = readers(vec![all.clone(), denial]);
            assert!(readers.shown_to("ab", COPY).is_some());
            assert_eq!(readers.shown_to("b", COPY), None);
        }
        let others = acl(permission::DENY, "User:x", pattern::LITERAL, "ab");
        assert_eq!(
            readers(vec![all.clone(), others]).shown_to("ab", COPY),
            None
        );
        // One that is about the copy too.
        let everywhere = acl(permission::DENY, "User:bi", pattern::LITERAL, "*");
        assert_eq!(readers(vec![all, everywhere]).shown_to("ab", COPY), None);
        // A grant that is about the copy alone.
        let drills = acl(
            permission::ALLOW,
            "User:eve",
            pattern::PREFIXED,
            "__twinlog",
        );
        assert!(readers(vec![drills]).shown_to("ab", COPY).is_some());
        let ours = acl(permission::ALLOW, OWN, pattern::PREFIXED, "__twinlog");
        assert_eq!(readers(vec![ours]).shown_to("ab", COPY), None);
    }

    #[test]
    fn where_what_has_no_acl_is_everybodys_a_topic_that_has_one_is_not_copied() {
        let of = |acls| Readers {
            is_open: true,
            ..readers(acls)
        };
        let one = acl(permission::ALLOW, "User:x", pattern::LITERAL, "ab");
        assert!(of(vec![one.clone()]).shown_to("ab", COPY).is_some());
        assert_eq!(of(vec![one]).shown_to("b", COPY), None);
        let nobody_asks = Readers {
            acls: None,
            ..of(Vec::new())
        };
        assert_eq!(nobody_asks.shown_to("ab", COPY), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn nobody_reads_a_copy_who_may_not_read_the_topic(acls in acls()) {
            let readers = readers(acls.clone());
            for topic in ["a", "ab", "abc", "b"] {
                let copy = format!("__twinlog_drill.1.{topic}");
                let is_shown = ["User:x", "User:y"].iter().any(|principal| {
                    ["h1", "h2"].iter().any(|host| {
                        let read = |name: &str| authorize(&acls, &Request {
                            principal,
                            host,
                            operation: operation::READ,
                            resource_type: resource::TOPIC,
                            name: name.to_owned(),
                        });
                        read(&copy) && !read(topic)
                    })
                });
                if is_shown {
                    prop_assert!(readers.shown_to(topic, &copy).is_some(), "{topic} {acls:#?}");
                }
            }
        }
    }
}
