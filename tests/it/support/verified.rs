//! `twinlog verify` run to its end, and its report.

use serde_json::Value;

use super::twinlog::Twinlog;

/// Runs `verify`, and gives its exit code and report.
///
/// # Panics
/// When it gives no report.
pub fn verify(twinlog: &Twinlog, arguments: &[&str]) -> (i32, Value) {
    let output = twinlog.command("verify", &[&["--json"], arguments].concat());
    let code = output.status.code().expect("it ended by itself");
    let errors = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("no report ({error}), exit code {code}: {errors}");
    });
    (code, report)
}

/// Runs `verify`, which must find nothing.
///
/// # Panics
/// When it finds something.
pub fn assert_verified(twinlog: &Twinlog, arguments: &[&str]) -> Value {
    let (code, report) = verify(twinlog, arguments);
    assert_eq!(report["verdict"], "same", "{report:#}");
    assert_eq!(report["differences"], serde_json::json!([]), "{report:#}");
    assert_eq!(code, 0);
    report
}

/// Runs `verify`, which must find exactly one difference, and gives it.
///
/// # Panics
/// When it finds none or more.
pub fn only_difference(twinlog: &Twinlog, arguments: &[&str]) -> Value {
    let (code, report) = verify(twinlog, arguments);
    let differences = report["differences"].as_array().expect("a list");
    assert_eq!(differences.len(), 1, "{report:#}");
    assert_eq!((code, &report["verdict"]), (1, &"different".into()));
    differences[0].clone()
}
