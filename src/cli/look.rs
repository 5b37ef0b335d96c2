//! `twinlog look`: the running process compares the clusters' metadata now.

use std::path::Path;

use clap::Args;

use super::http_get::GetError;
use super::{Exit, http_get, output, running};
use crate::config::Config;
use crate::http;

/// What is missing where the config has no token.
const NO_TOKEN: &str = "the running process refuses calls that change something: no http.token is set\n\
     set one in the config (`openssl rand -hex 32` makes one) and restart `twinlog run`; it looks by itself every metadata_interval";

/// The options of `look`.
#[derive(Debug, Args)]
pub(super) struct LookArgs {
    /// Only this flow; else every one.
    #[arg(long, value_name = "NAME")]
    flow: Option<String>,
}

/// Asks for it, and doesn't wait until it is done.
pub(super) async fn run(config: &Config, path: &Path, args: &LookArgs, json: bool) -> Exit {
    let flows: Vec<&String> = match &args.flow {
        None => config.flows.keys().collect(),
        Some(name) if config.flows.contains_key(name) => vec![name],
        Some(name) => return output::fail(Exit::Usage, &format!("there is no flow {name}")),
    };
    let running = match running::find(config, path, "look") {
        Ok(running) => running,
        Err(exit) => return exit,
    };
    for flow in &flows {
        match http_get::post(&running, &http::look_path(flow)).await {
            Ok(_) => {}
            // The command brings the token by itself.
            Err(GetError::Refused { status: 403, .. }) if config.http.token.is_none() => {
                return output::fail(Exit::Failed, &NO_TOKEN);
            }
            Err(error) => return output::fail(Exit::Failed, &error),
        }
    }
    if json {
        return output::print_answer(serde_json::json!({ "asked": flows }));
    }
    let lines: String = flows
        .iter()
        .map(|flow| format!("flow {flow}: looks now\n"))
        .collect();
    output::print(&lines)
}
