//! What a target that refuses a new topic takes instead.
//!
//! Managed clusters have creation policies (`create.topic.policy.class.name`, KIP-108), and brokers
//! of other versions refuse other settings. One setting, or another number of replicas, must not keep
//! a topic from being copied: what is refused is left out, one by one, and named. A request that only
//! validates asks the same controller code, policy included, and makes nothing
//! (`ReplicationControlManager.createTopics`).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::wire::WireError;

/// A way to make a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// -1 is what the brokers make of it.
    pub replicas: i16,
    pub configs: BTreeMap<String, String>,
}

/// What the target takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fitting {
    pub shape: Shape,
    /// The settings that it refuses, with its words.
    pub left_out: Vec<(String, String)>,
}

/// Whether the topic may be taken in another shape.
pub(super) fn is_refusal(error: &WireError) -> bool {
    use ResponseError as E;
    let code = error.server_code();
    code.is_some_and(|code| {
        matches!(
            code,
            E::InvalidConfig | E::PolicyViolation | E::InvalidReplicationFactor
        )
    })
}

/// Finds what the target takes: of the first of `shapes` whose replicas it takes, as many settings as
/// may be, those of `first` before others. `probe` asks whether a shape would be taken.
///
/// # Errors
/// `refused` if nothing is taken; what else goes wrong with asking.
pub(super) async fn fit<F, Fut>(
    shapes: Vec<Shape>,
    first: &BTreeMap<String, String>,
    refused: WireError,
    probe: F,
) -> Result<Fitting, WireError>
where
    F: Fn(Shape) -> Fut,
    Fut: Future<Output = Result<(), WireError>>,
{
    for shape in shapes {
        if let Some(fitting) = fit_one(shape, first, &probe).await? {
            return Ok(fitting);
        }
    }
    Err(refused)
}

/// `None` if no settings help.
async fn fit_one<F, Fut>(
    shape: Shape,
    first: &BTreeMap<String, String>,
    probe: &F,
) -> Result<Option<Fitting>, WireError>
where
    F: Fn(Shape) -> Fut,
    Fut: Future<Output = Result<(), WireError>>,
{
    let all = shape.configs.clone();
    // Most words name the setting.
    let mut named = Fitting {
        shape,
        left_out: Vec::new(),
    };
    let refusal = loop {
        let Some(refusal) = refusal_of(probe(named.shape.clone()).await)? else {
            return Ok(Some(named));
        };
        let words = words(&refusal);
        let Some(key) = key_in(&words, &named.shape.configs) else {
            break refusal;
        };
        named.shape.configs.remove(&key);
        named.left_out.push((key, words));
    };
    if refusal.server_code() == Some(ResponseError::InvalidReplicationFactor) {
        return Ok(None);
    }
    // Else by trying.
    let mut tried = Fitting {
        shape: Shape {
            configs: BTreeMap::new(),
            ..named.shape
        },
        left_out: Vec::new(),
    };
    if refusal_of(probe(tried.shape.clone()).await)?.is_some() {
        return Ok(None);
    }
    let (important, others): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(key, _)| first.contains_key(key));
    for (key, value) in important.into_iter().chain(others) {
        tried.shape.configs.insert(key.clone(), value);
        if let Some(refusal) = refusal_of(probe(tried.shape.clone()).await)? {
            tried.shape.configs.remove(&key);
            tried.left_out.push((key, words(&refusal)));
        }
    }
    Ok(Some(tried))
}

/// Adds what the topic needs because of what was left out, as far as the target takes it.
///
/// # Errors
/// What goes wrong with asking.
pub(super) async fn with_more<F, Fut>(
    mut fitting: Fitting,
    more: BTreeMap<String, String>,
    probe: F,
) -> Result<Fitting, WireError>
where
    F: Fn(Shape) -> Fut,
    Fut: Future<Output = Result<(), WireError>>,
{
    for (key, value) in more {
        let mut shape = fitting.shape.clone();
        shape.configs.insert(key.clone(), value);
        match refusal_of(probe(shape.clone()).await)? {
            None => fitting.shape = shape,
            Some(refusal) => fitting.left_out.push((key, words(&refusal))),
        }
    }
    Ok(fitting)
}

fn refusal_of(answer: Result<(), WireError>) -> Result<Option<WireError>, WireError> {
    match answer {
        Ok(()) => Ok(None),
        Err(error) if is_refusal(&error) => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// The broker's own words, where it said any.
pub(super) fn words(error: &WireError) -> String {
    match error {
        WireError::Server {
            message: Some(message),
            ..
        } => message.clone(),
        other => other.to_string(),
    }
}

/// The key that the words name: the longest, for some begin with another.
fn key_in(words: &str, configs: &BTreeMap<String, String>) -> Option<String> {
    let named = configs.keys().filter(|key| words.contains(key.as_str()));
    named.max_by_key(|key| key.len()).cloned()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::future::ready;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::ErrorContext;

    const KEYS: [&str; 6] = [
        "cleanup.policy",
        "retention.ms",
        "segment.bytes",
        "segment.ms",
        "local.retention.ms",
        "compression.type",
    ];

    /// A target that refuses some settings, and all numbers of replicas but some.
    #[derive(Clone, Debug)]
    struct Target {
        refused: BTreeSet<&'static str>,
        replicas: BTreeSet<i16>,
        names_keys: bool,
    }

    impl Target {
        fn answer(&self, shape: &Shape) -> Result<(), WireError> {
            let refuse = |message| Err(refusal(message));
            let mut refused = self.refused.iter();
            if !self.replicas.contains(&shape.replicas) {
                return refuse(None);
            }
            match refused.find(|key| shape.configs.contains_key(**key)) {
                Some(key) if self.names_keys => refuse(Some(format!("{key} can't be set"))),
                Some(_) => refuse(None),
                None => Ok(()),
            }
        }
    }

    fn refusal(message: Option<String>) -> WireError {
        let context = ErrorContext::cluster("standby");
        WireError::server(context, ResponseError::PolicyViolation, message)
    }

    fn target() -> impl Strategy<Value = Target> {
        let some_keys = proptest::sample::subsequence(KEYS.to_vec(), 0..KEYS.len());
        let some_replicas = proptest::sample::subsequence(vec![3, 2, -1], 1..=3);
        (some_keys, some_replicas, any::<bool>()).prop_map(|(refused, replicas, names_keys)| {
            Target {
                refused: refused.into_iter().collect(),
                replicas: replicas.into_iter().collect(),
                names_keys,
            }
        })
    }

    proptest! {
        #[test]
        fn exactly_what_is_refused_is_left_out(target in target()) {
            let configs: BTreeMap<String, String> =
                KEYS.iter().map(|key| ((*key).to_owned(), "1".to_owned())).collect();
            let shapes = [3, 2, -1].map(|replicas| Shape { replicas, configs: configs.clone() });
            let asked = Cell::new(0);
            let probe = |shape: Shape| {
                asked.set(asked.get() + 1);
                ready(target.answer(&shape))
            };
            let found = block_on(fit(shapes.to_vec(), &BTreeMap::new(), refusal(None), probe));
            let found = found.expect("it takes some number of replicas");
            let left_out: BTreeSet<&str> = found.left_out.iter().map(|(key, _)| key.as_str()).collect();
            prop_assert_eq!(&left_out, &target.refused);
            prop_assert_eq!(found.shape.configs.len(), KEYS.len() - left_out.len());
            let first = [3, 2, -1].into_iter().find(|replicas| target.replicas.contains(replicas));
            prop_assert_eq!(Some(found.shape.replicas), first);
            prop_assert!(asked.get() <= 2 * 3 + KEYS.len() + 1, "{} requests", asked.get());
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn what_no_shape_helps_against_is_told() {
        let target = Target {
            refused: BTreeSet::new(),
            replicas: BTreeSet::new(),
            names_keys: false,
        };
        let shape = Shape {
            replicas: 3,
            configs: BTreeMap::new(),
        };
        let probe = |shape: Shape| ready(target.answer(&shape));
        let first = refusal(Some("no topics today".to_owned()));
        let found = block_on(fit(vec![shape], &BTreeMap::new(), first, probe));
        let error = found.expect_err("it is refused");
        assert_eq!(words(&error), "no topics today");
    }

    #[test]
    fn what_is_needed_more_is_taken_as_far_as_it_may_be() {
        let target = Target {
            refused: BTreeSet::from(["segment.ms"]),
            replicas: BTreeSet::from([1]),
            names_keys: true,
        };
        let fitting = Fitting {
            shape: Shape {
                replicas: 1,
                configs: BTreeMap::new(),
            },
            left_out: Vec::new(),
        };
        let more = ["retention.ms", "segment.ms"].map(|key| (key.to_owned(), "-1".to_owned()));
        let probe = |shape: Shape| ready(target.answer(&shape));
        let found = block_on(with_more(fitting, more.into(), probe)).expect("it answers");
        let taken: Vec<&String> = found.shape.configs.keys().collect();
        assert_eq!(taken, ["retention.ms"]);
        assert_eq!(found.left_out[0].0, "segment.ms");
    }
}
