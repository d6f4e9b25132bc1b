use std::net::IpAddr;

use super::super::tables::{Backend, Backends, Frontend, IpProtocol};
use super::*;

fn ruleset() -> Ruleset {
    Ruleset::new(&NetworkConfig::new("/s".into(), "/n".into(), IpAddr::V4(Ipv4Addr::LOCALHOST)))
}

fn tables(backends: &[u8]) -> Tables {
    let frontend = Frontend { address: Ipv4Addr::new(10, 96, 0, 7), protocol: IpProtocol::Tcp, port: 80 };
    let list = backends.iter().map(|last| Backend { address: Ipv4Addr::new(10, 32, 0, *last), port: 8080 }).collect();
    Tables { frontends: [(frontend, Backends { affinity: Affinity::None, list })].into() }
}

/// Sixteen bytes a line, a blank line between messages.
fn hex(batch: &[Message]) -> String {
    let dump = |message: &Message| {
        let bytes = message.encode(1);
        let lines = bytes.chunks(16).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "));
        lines.collect::<Vec<_>>().join("\n")
    };
    batch.iter().map(dump).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_whole_ruleset_in_bytes() {
    insta::assert_snapshot!(hex(&ruleset().replace(&Tables::default())));
}

#[test]
fn a_changed_service_in_bytes() {
    let (old, new) = (tables(&[2, 3]), tables(&[2, 4]));
    let batch = ruleset().change(&changes(&old, &new));
    insta::assert_snapshot!(hex(&batch));
}

#[test]
fn many_elements_are_split_so_that_each_message_fits() {
    let frontends = (0..1000u32).map(|number| {
        let frontend = Frontend { address: Ipv4Addr::from(0x0a60_0100 + number), protocol: IpProtocol::Udp, port: 53 };
        let list = vec![Backend { address: Ipv4Addr::new(10, 32, 0, 2), port: 53 }];
        (frontend, Backends { affinity: Affinity::None, list })
    });
    let tables = Tables { frontends: frontends.collect() };
    let batch = ruleset().change(&changes(&Tables::default(), &tables));
    // 16,000 rows of a thousand, the hairpin row, two brackets
    assert_eq!(batch.len(), 16 + 1 + 2);
    assert!(batch.iter().all(|message| message.encode(1).len() < 65536));
}
