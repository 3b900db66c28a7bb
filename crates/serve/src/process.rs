//! What the system says about this process, under the names that all programs use for Prometheus.
//! Only Linux says it.

/// Calls `metric` with a name, whether it only grows, what it is, and its value.
#[cfg(target_os = "linux")]
pub(crate) fn write(mut metric: impl FnMut(&str, bool, &str, f64)) {
    use std::fs;
    /// Ticks of a second and bytes of a page on every Linux that programs are built for.
    const TICKS: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may hold anything, from field 3 on.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    let field = |number: usize| fields.get(number - 3).copied();
    if let (Some(user), Some(system)) = (field(14), field(15)) {
        let help = "Seconds of processors' time.";
        metric("process_cpu_seconds_total", true, help, (user + system) / TICKS);
    }
    if let Some(threads) = field(20) {
        metric("process_threads", false, "Threads.", threads);
    }
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot =
        boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    if let (Some(boot), Some(start)) = (boot, field(22)) {
        let help = "When the process began, in unix seconds.";
        metric("process_start_time_seconds", false, help, boot + start / TICKS);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()
    };
    for (name, help, line) in [
        ("process_resident_memory_bytes", "Bytes of memory in use.", "VmRSS:"),
        ("process_virtual_memory_bytes", "Bytes of address space in use.", "VmSize:"),
    ] {
        if let Some(kilobytes) = kilobytes(line) {
            metric(name, false, help, kilobytes * 1024.0);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        metric("process_open_fds", false, "Open files.", open.count() as f64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = soft.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(soft) = soft {
        metric("process_max_fds", false, "Most open files.", soft);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn write(_metric: impl FnMut(&str, bool, &str, f64)) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_process_says_what_it_is() {
        let mut found = std::collections::BTreeMap::new();
        super::write(|name, _, _, value| {
            found.insert(name.to_owned(), value);
        });
        assert_eq!(found.len(), 7, "{found:?}");
        assert!(found["process_resident_memory_bytes"] > 1e6);
        assert!(found["process_threads"] >= 1.0);
        assert!(found["process_open_fds"] <= found["process_max_fds"]);
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let age = now.unwrap().as_secs_f64() - found["process_start_time_seconds"];
        assert!((-60.0..86_400.0).contains(&age), "{age}");
    }
}
