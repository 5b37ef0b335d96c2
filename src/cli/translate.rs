//! `twinlog translate`: where an offset is on the other cluster.
//!
//! Answered from what is kept on the target alone, so that it also works with the source gone.

use clap::Args;
use serde::Serialize;

use super::{Exit, output};
use crate::config::Config;
use crate::flow::{self, Translated};

/// The options of `translate`.
#[derive(Debug, Args)]
pub(super) struct TranslateArgs {
    /// The flow; needed only if the config has several.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
    /// The topic, by its name on the source.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// The partition.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// The offset that would be read next.
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,
    /// From the target to the source.
    #[arg(long)]
    reverse: bool,
}

impl TranslateArgs {
    /// The flow that is named.
    pub(super) fn flow(&self) -> Option<&str> {
        self.flow.as_deref()
    }
}

/// The answer as JSON. `answer` is `exact`, `not_yet_copied` or `before_start`.
#[derive(Serialize)]
struct Answer<'a> {
    flow: &'a str,
    topic: &'a str,
    partition: i32,
    reverse: bool,
    asked: i64,
    answer: &'static str,
    /// The offset on the other side, when exact.
    offset: Option<i64>,
    /// The nearest position that can be answered, on the side asked about, when not.
    limit: Option<i64>,
    /// `identical` or `mapped`.
    offsets: &'static str,
}

/// Translates one position and prints it. Exit code 1 when there is no exact answer.
pub(super) async fn run(config: &Config, args: &TranslateArgs, json: bool) -> Exit {
    let flow = match config.flow(args.flow.as_deref()) {
        Ok(flow) => flow,
        Err(problem) => return output::fail(Exit::Usage, &problem),
    };
    let Some(target) = config.clusters.get(&flow.target) else {
        return output::fail(Exit::Usage, &format!("there is no cluster {}", flow.target));
    };
    let known = match flow::position_map(flow, target, &args.topic, args.partition).await {
        Ok(known) => known,
        Err(error) => {
            let cure = error.cure_if_not_reached();
            return output::fail(
                Exit::Failed,
                &output::with_cure(output::chain(&error), cure),
            );
        }
    };
    let translated = known.translate(args.offset, args.reverse);
    let (answer, offset, limit) = match translated {
        Translated::Exact(offset) => ("exact", Some(offset), None),
        Translated::NotYetCopied(end) => ("not_yet_copied", None, Some(end)),
        Translated::BeforeStart(first) => ("before_start", None, Some(first)),
    };
    let exit = if offset.is_some() {
        Exit::Done
    } else {
        Exit::Failed
    };
    if json {
        let printed = output::print_answer(Answer {
            flow: &flow.name,
            topic: &args.topic,
            partition: args.partition,
            reverse: args.reverse,
            asked: args.offset,
            answer,
            offset,
            limit,
            offsets: if known.is_mapped() {
                "mapped"
            } else {
                "identical"
            },
        });
        return if printed == Exit::Done { exit } else { printed };
    }
    match translated {
        Translated::Exact(offset) => output::print(&format!("{offset}\n")),
        Translated::NotYetCopied(end) => output::fail(
            Exit::Failed,
            &format!(
                "offset {} isn't copied yet: the copy ends at {end}",
                args.offset
            ),
        ),
        Translated::BeforeStart(first) => output::fail(
            Exit::Failed,
            &format!(
                "offset {} was never copied: the copy begins at {first}",
                args.offset
            ),
        ),
    }
}
