use super::*;

fn frontend(last: u8, protocol: IpProtocol) -> Frontend {
    Frontend { address: Ipv4Addr::new(10, 96, 0, last), protocol, port: 80 }
}

fn backends(affinity: Affinity, lasts: impl IntoIterator<Item = u8>) -> Backends {
    let backend = |last| Backend { address: Ipv4Addr::new(10, 32, 0, last), port: 8080 };
    Backends { affinity, list: lasts.into_iter().map(backend).collect() }
}

fn tables(rows: impl IntoIterator<Item = (Frontend, Backends)>) -> Tables {
    Tables { frontends: rows.into_iter().collect() }
}

#[test]
fn no_backend_gets_much_more_than_another() {
    for count in 1..=BACKENDS_MAX {
        let list = (0..count).map(|i| Backend { address: Ipv4Addr::from(0x0a20_0000 + i as u32), port: 1 }).collect();
        let backends = Backends { affinity: Affinity::None, list };
        let buckets = backends.map().buckets as usize;
        assert!(buckets >= count, "{count} backends, {buckets} buckets");
        let (most, least) = (buckets.div_ceil(count), buckets / count);
        if count <= 200 {
            assert!(most * 3 <= least * 4, "{count} backends: {most} against {least} buckets");
        }
    }
}

#[test]
fn every_bucket_is_filled_from_every_backend() {
    let tables = tables([(frontend(1, IpProtocol::Tcp), backends(Affinity::None, 1..=3))]);
    let elements = tables.elements_of(frontend(1, IpProtocol::Tcp));
    assert_eq!(elements.len(), 16);
    let of = |last| elements.iter().filter(|e| e.backend.address.octets()[3] == last).count();
    assert_eq!([of(1), of(2), of(3)], [6, 5, 5]);
}

#[test]
fn a_client_keeps_its_backend_when_another_goes() {
    let key = frontend(1, IpProtocol::Tcp);
    let before = tables([(key, backends(Affinity::ClientIp, 1..=4))]).elements_of(key);
    let after = tables([(key, backends(Affinity::ClientIp, 1..=3))]).elements_of(key);
    let moved: Vec<_> = before.difference(&after).collect();
    assert!(moved.iter().all(|element| element.backend.address.octets()[3] == 4), "{moved:?}");
    for last in 1..=4 {
        let share = before.iter().filter(|e| e.backend.address.octets()[3] == last).count();
        assert!((16..=48).contains(&share), "backend {last} has {share} of 128 buckets");
    }
}

#[test]
fn only_what_changed_is_changed() {
    let (a, b) = (frontend(1, IpProtocol::Tcp), frontend(2, IpProtocol::Udp));
    let old = tables([(a, backends(Affinity::None, [1])), (b, backends(Affinity::None, [1, 2]))]);
    let new = tables([(a, backends(Affinity::None, [1])), (b, backends(Affinity::None, [1, 3]))]);
    assert_eq!(changes(&old, &old), Changes::default());
    let found = changes(&old, &new);
    assert_eq!((found.deleted.len(), found.added.len()), (8, 8));
    assert!(found.deleted.iter().chain(&found.added).all(|element| element.frontend == b && element.bucket % 2 == 1));
    assert_eq!(found.backends_deleted, [Ipv4Addr::new(10, 32, 0, 2)]);
    assert_eq!(found.backends_added, [Ipv4Addr::new(10, 32, 0, 3)]);
    assert_eq!(found.lost_udp, [(b, Backend { address: Ipv4Addr::new(10, 32, 0, 2), port: 8080 })]);
    assert!(!found.is_empty());
}

#[test]
fn a_frontend_moves_to_a_wider_map_as_a_whole() {
    let key = frontend(1, IpProtocol::Tcp);
    let old = tables([(key, backends(Affinity::None, 1..=5))]);
    let new = tables([(key, backends(Affinity::None, 1..=6))]);
    let found = changes(&old, &new);
    assert_eq!((found.deleted.len(), found.added.len()), (16, 128));
    let gone = changes(&new, &Tables::default());
    assert_eq!((gone.deleted.len(), gone.added.len(), gone.lost_udp.len()), (128, 0, 0));
}
