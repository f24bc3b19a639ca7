//! What a recorder costs: processor time and memory of its processes.

use std::collections::HashSet;
use std::fs;
use std::io;

/// Ticks of /proc/PID/stat in a second: USER_HZ, the same on every Linux platform of ours.
const TICKS_PER_S: f64 = 100.0;

/// Processor time and memory of a process and all below it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// User and system time, in seconds.
    pub cpu_s: f64,
    /// Peak resident memory, in KiB; of several processes the sum.
    pub rss_kib_max: u64,
}

/// Measures the processes `roots` and their descendants.
pub fn processes(roots: &[u32]) -> io::Result<Cost> {
    let mut all: HashSet<u32> = roots.iter().copied().collect();
    let stats: Vec<(u32, u32, f64)> = fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id: u32| read_stat(id).map(|(parent, cpu_s)| (id, parent, cpu_s)))
        .collect();
    let mut before = 0;
    while before != all.len() {
        before = all.len();
        all.extend(
            stats
                .iter()
                .filter(|(_, parent, _)| all.contains(parent))
                .map(|stat| stat.0)
                .collect::<Vec<_>>(),
        );
    }
    let mut cost = Cost::default();
    for (id, _, cpu_s) in stats.iter().filter(|(id, _, _)| all.contains(id)) {
        cost.cpu_s += cpu_s;
        cost.rss_kib_max += read_rss_kib_max(*id).unwrap_or(0);
    }
    Ok(cost)
}

/// Parent, and processor seconds with those of children already waited for.
fn read_stat(id: u32) -> Option<(u32, f64)> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks as f64 / TICKS_PER_S))
}

fn read_rss_kib_max(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
