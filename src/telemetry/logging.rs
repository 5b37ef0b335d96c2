//! Logs: to stderr, for a person by default, as JSON lines for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event, coloured on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level or filter can't be read.
    #[error(
        "{origin} {filter:?} is no log filter: write a level (error, warn, info, debug, trace) \
         or a list such as info,twinlog::wire=debug"
    )]
    Filter {
        /// Where the filter came from.
        origin: &'static str,
        /// The filter as written.
        filter: String,
        /// What the parser said.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another subscriber is already in place.
    #[error("logging is already set up")]
    AlreadySet(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sets up logging for the process. `level` (from `--log-level`) wins over `RUST_LOG`,
/// which wins over `default_level`.
///
/// # Errors
/// When the filter can't be read or logging was set up before.
pub fn init(
    format: LogFormat,
    level: Option<&str>,
    default_level: &str,
) -> Result<(), LoggingError> {
    let from_env = std::env::var("RUST_LOG").ok().filter(|s| !s.is_empty());
    let filter = filter(level, from_env.as_deref(), default_level)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Human => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::AlreadySet)
}

fn filter(
    level: Option<&str>,
    from_env: Option<&str>,
    default_level: &str,
) -> Result<EnvFilter, LoggingError> {
    let (origin, text) = match (level, from_env) {
        (Some(level), _) => ("--log-level", level),
        (None, Some(text)) => ("RUST_LOG", text),
        (None, None) => ("the default level", default_level),
    };
    EnvFilter::builder()
        .parse(text)
        .map_err(|source| LoggingError::Filter {
            origin,
            filter: text.to_owned(),
            source,
        })
}

/// An error with its causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some errors already name their cause.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_environment_and_that_over_the_default() {
        let text = |level, env| filter(level, env, "info").expect("valid").to_string();
        assert_eq!(text(Some("debug"), Some("trace")), "debug");
        assert_eq!(text(None, Some("trace")), "trace");
        assert_eq!(text(None, None), "info");
    }

    #[test]
    fn a_wrong_filter_names_its_origin() {
        let error = filter(Some("a=b=c"), None, "info").expect_err("not a filter");
        assert!(error.to_string().contains("--log-level"), "{error}");
    }
}
