//! By which network interface traffic leaves: the one of the best default route.
//!
//! # Specification
//! Linux `/proc/net/route` and `/proc/net/ipv6_route`.

use std::fs;

/// Where traffic leaves by.
pub trait Links: Send + Sync {
    /// The name of the interface; `None` if there is no default route.
    fn outgoing(&self) -> Option<String>;
}

/// The machine's own routes.
#[derive(Debug, Default)]
pub struct SystemLinks;

impl Links for SystemLinks {
    fn outgoing(&self) -> Option<String> {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        best_v4(&text("/proc/net/route")).or_else(|| best_v6(&text("/proc/net/ipv6_route")))
    }
}

/// Interface, destination, gateway, flags, counts, metric, mask.
fn best_v4(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        let metric: u32 = fields.get(6)?.parse().ok()?;
        default.then(|| (metric, fields[0].to_owned()))
    });
    routes.min().map(|(_, name)| name)
}

/// Destination, its length, source, its length, next hop, metric, counts, flags, interface.
fn best_v6(table: &str) -> Option<String> {
    let routes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let metric = u32::from_str_radix(fields.get(5)?, 16).ok()?;
        let name = *fields.get(9)?;
        let default = fields.get(1) == Some(&"00") && name != "lo";
        default.then(|| (metric, name.to_owned()))
    });
    routes.min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                     wwan0\t00000000\t0100000A\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
                     eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                     eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(best_v4(table).as_deref(), Some("eth0"));
        let without: String = table
            .lines()
            .filter(|line| !line.starts_with("eth0"))
            .flat_map(|l| [l, "\n"])
            .collect();
        assert_eq!(best_v4(&without).as_deref(), Some("wwan0"));
        assert_eq!(best_v4("Iface\n"), None);
    }

    #[test]
    fn an_ipv6_route_counts_where_there_is_no_other() {
        let zero = "0".repeat(32);
        let line = |len: &str, metric: &str, name: &str| {
            format!("{zero} {len} {zero} 00 {zero} {metric} 00000001 00000000 00000003 {name}\n")
        };
        let table = [line("00", "ffffffff", "lo"), line("00", "00000400", "wwan0")].concat();
        assert_eq!(best_v6(&table).as_deref(), Some("wwan0"));
        assert_eq!(best_v6(&line("40", "00000100", "eth0")), None);
    }
}
