//! What a process has used, from `/proc`.

use std::time::Instant;

/// CPU and memory of a process and the children that it has waited for.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When this was read.
    pub at: Instant,
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Resident now, MB (10^6 bytes).
    pub memory_mb: f64,
    /// The most that was ever resident, MB (10^6 bytes).
    pub memory_peak_mb: f64,
}

/// Reads the usage of a running process.
///
/// # Panics
/// When there is no such process: it has ended in the middle of a measurement.
pub fn of(process_id: u32) -> Usage {
    let read = |name: &str| {
        std::fs::read_to_string(format!("/proc/{process_id}/{name}"))
            .unwrap_or_else(|error| panic!("process {process_id} has ended: {error}"))
    };
    let status = read("status");
    Usage {
        at: Instant::now(),
        cpu_seconds: cpu_seconds(&read("stat")),
        memory_mb: kilobytes(&status, "VmRSS:") * 1024.0 / 1e6,
        memory_peak_mb: kilobytes(&status, "VmHWM:") * 1024.0 / 1e6,
    }
}

/// Fields 14 to 17 (utime, stime, cutime, cstime) of `proc_pid_stat(5)`, counted behind the
/// command's closing parenthesis, because the command may hold blanks. The kernel reports them
/// in hundredths of a second on every architecture that we know.
fn cpu_seconds(stat: &str) -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let after_command = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after_command
        .split_whitespace()
        .skip(11)
        .take(4)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}

fn kilobytes(status: &str, key: &str) -> f64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(f64::NAN)
}
