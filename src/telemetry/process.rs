//! What this process uses, read from Linux's `/proc`. Elsewhere it is simply unknown.

/// Memory that is resident in RAM, in bytes.
pub fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// User and system CPU time used so far, in milliseconds.
pub fn cpu_ms() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    parse_cpu_ms(&stat)
}

/// `/proc/<pid>/stat` counts in ticks of 10 ms (`USER_HZ` is 100 on every Linux
/// architecture that we build for). The process name, field 2, may hold spaces and
/// brackets, so fields are counted from the last bracket.
fn parse_cpu_ms(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_an_odd_process_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5";
        assert_eq!(parse_cpu_ms(stat), Some(3_000));
        assert_eq!(parse_cpu_ms("nonsense"), None);
    }
}
