//! Sizes as people read them.

/// Bytes in binary units, such as `1.5 MiB`.
pub fn bytes(value: f64) -> String {
    const KIB: f64 = 1_024.0;
    let mut value = value.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
        if value < 1_023.95 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= KIB;
    }
    format!("{value:.1} PiB")
}
