//! Several members over real streams: what is asked of any is done, ids are used once, and the membership can be
//! changed in every way the cluster needs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, dump, put, until, write};
use store::{Guard, MemberError, MemberId, ProposeError, Revision, Role, Start, Txn, TxnOutcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_are_one_store() {
    let cluster = Cluster::of(3).await;
    for (number, id) in [1u64, 2, 3, 2, 1].into_iter().enumerate() {
        let store = cluster.store(id);
        let revision = write(&store, &format!("/k/{number}"), "x").await.unwrap();
        assert_eq!(revision, Revision(number as u64 + 1));
        assert!(store.view().get(format!("/k/{number}").as_bytes()).is_some(), "its own write at once");
        for other in [1, 2, 3] {
            let other = cluster.store(other);
            assert!(other.linearize().await.unwrap() >= revision);
            assert!(other.view().get(format!("/k/{number}").as_bytes()).is_some());
        }
    }
    // Guards and what was there are told as if the leader had been asked.
    let follower = cluster.store(2);
    let create = Txn { guards: vec![Guard::Absent { key: "/k/0".into() }], ..put("/k/0", "y") };
    let outcome = follower.propose(create).await.unwrap();
    assert!(matches!(outcome, TxnOutcome::GuardFailed { index: 0, current: Some(entry) } if entry.value == "x"));
    let TxnOutcome::Applied { entries, .. } = follower.propose(put("/k/0", "y")).await.unwrap() else { panic!() };
    let entry = entries[0].as_ref().unwrap();
    assert_eq!((entry.value.as_ref(), entry.create_revision), (b"y".as_slice(), Revision(1)));
    let members = cluster.store(1).members();
    assert_eq!(
        members.members.iter().map(|m| (m.id.0, m.role)).collect::<Vec<_>>(),
        [1, 2, 3].map(|id| (id, Role::Voter))
    );
    assert!(members.members.iter().all(|m| m.log_end.is_some() && m.leads == (Some(m.id) == members.leader)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writes_of_a_follower_are_each_done_for_themselves() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.wait_for_leader().await;
    let follower = cluster.store(if leader == 1 { 2 } else { 1 });
    write(&follower, "/k/7", "there before").await.unwrap();
    // Enough to go in several requests; one of them is refused, one is too large to go with others.
    let one = |number: usize| {
        let store = follower.clone();
        let (key, large) = (format!("/k/{number}"), "x".repeat(2 << 20));
        let value = if number == 100 { large } else { number.to_string() };
        let txn = Txn { guards: vec![Guard::Absent { key: key.clone().into() }], ..put(&key, &value) };
        tokio::spawn(async move { store.propose(txn).await.unwrap() })
    };
    let all: Vec<_> = (0..600).map(one).collect();
    let mut revisions = Vec::new();
    for (number, write) in all.into_iter().enumerate() {
        match write.await.unwrap() {
            TxnOutcome::Applied { revision, entries } => {
                let entry = entries[0].as_ref().unwrap();
                assert_eq!(entry.key, format!("/k/{number}"), "the answer to this write");
                revisions.push(revision.0);
            }
            TxnOutcome::GuardFailed { .. } => assert_eq!(number, 7),
        }
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..601).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_is_followed_by_another() {
    let mut cluster = Cluster::of(3).await;
    for round in 0..3 {
        let leader = cluster.wait_for_leader().await;
        let other = cluster.store(cluster.members.keys().copied().find(|id| *id != leader).unwrap());
        let before = write(&other, "/k", "x").await.unwrap();
        cluster.stop(leader).await;
        let began = Instant::now();
        // A write that is certain not to have happened waits for the next leader.
        let revision = loop {
            match write(&other, "/k", "y").await {
                Ok(revision) => break revision,
                Err(ProposeError::Unknown(_)) => {}
                Err(error) => panic!("round {round}: {error:?}"),
            }
        };
        assert!(revision > before);
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: {:?}", began.elapsed());
        cluster.start(leader, Start::Found, BTreeMap::new()).await;
        let back = cluster.store(leader);
        assert!(back.linearize().await.unwrap() >= revision);
        assert_eq!(dump(&back), dump(&other));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_is_used_once() {
    let mut cluster = Cluster::of(2).await;
    let store = cluster.store(1);
    let nowhere = || vec!["127.0.0.1:1".to_owned()];
    assert!(matches!(store.add_learner(MemberId(2), nowhere()).await, Err(MemberError::IdUsed { .. })), "a member");
    assert!(matches!(store.add_learner(MemberId(9), nowhere()).await, Err(MemberError::IdUnknown { .. })));
    let third = cluster.add_learner().await;
    assert_eq!(third, MemberId(3));
    store.remove_member(third).await.unwrap();
    cluster.stop(3).await;
    std::fs::remove_dir_all(cluster.path(3)).unwrap();
    // The same id on an empty disk: two disks under one id could form two majorities.
    assert!(matches!(store.add_learner(third, nowhere()).await, Err(MemberError::IdUsed { .. })));
    // Nor after everybody has forgotten the log.
    for i in 0..200 {
        write(&store, "/fill", &"x".repeat(1000 + i)).await.unwrap();
    }
    for id in [1, 2] {
        cluster.stop(id).await;
    }
    cluster.start(1, Start::Found, BTreeMap::new()).await;
    let first = BTreeMap::from([(MemberId(1), vec![cluster.members[&1].address.clone()])]);
    cluster.start(2, Start::Found, first).await;
    let store = cluster.store(cluster.wait_for_leader().await);
    assert!(matches!(store.add_learner(third, nowhere()).await, Err(MemberError::IdUsed { .. })));
    assert_eq!(store.reserve_member().await.unwrap(), MemberId(4));
    assert!(matches!(store.add_learner(MemberId(4), vec![]).await, Err(MemberError::Addresses)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_member_is_replaced_and_a_new_one_is_sent_a_snapshot() {
    let mut cluster = Cluster::of(3).await;
    // More than is kept behind a snapshot.
    for i in 0..900 {
        write(&cluster.store(1), &format!("/k/{}", i % 50), &"x".repeat(500)).await.unwrap();
    }
    cluster.stop(3).await;
    let store = cluster.store(1);
    let by = cluster.add_learner().await;
    store.replace_dead(MemberId(3), by).await.unwrap();
    let voters: Vec<u64> = store.members().members.iter().filter(|m| m.role == Role::Voter).map(|m| m.id.0).collect();
    assert_eq!(voters, [1, 2, by.0]);
    let newcomer = cluster.store(by.0);
    newcomer.linearize().await.unwrap();
    assert_eq!(dump(&newcomer), dump(&store));
    assert!(std::fs::read_dir(cluster.path(by.0).join("snapshots")).unwrap().next().is_some(), "by way of a snapshot");
    assert_eq!(std::fs::read_dir(cluster.path(by.0).join("incoming")).unwrap().count(), 0, "nothing is left of it");
    // The new one counts.
    cluster.stop(2).await;
    write(&newcomer, "/after", "x").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_a_leader_can_be_removed() {
    let mut cluster = Cluster::of(3).await;
    for to in [2, 3, 1] {
        // Asked of any member.
        cluster.store(3).transfer_leadership(MemberId(to)).await.unwrap();
        until("the leader says so", || cluster.leader() == Some(to)).await;
        write(&cluster.store(to), "/k", "x").await.unwrap();
    }
    for asked in [1, 2, 3] {
        let error = cluster.store(asked).remove_member(MemberId(9)).await.unwrap_err();
        assert!(matches!(error, MemberError::NotAMember { member: MemberId(9) }), "member {asked}: {error:?}");
    }
    cluster.store(2).remove_member(MemberId(1)).await.unwrap();
    cluster.stop(1).await;
    let leader = cluster.wait_for_leader().await;
    write(&cluster.store(leader), "/k", "y").await.unwrap();
    cluster.store(leader).remove_member(MemberId(if leader == 2 { 3 } else { 2 })).await.unwrap();
    let last = cluster.store(leader).remove_member(MemberId(leader)).await;
    assert!(matches!(last, Err(MemberError::LastVoter { .. })), "{last:?}");
    write(&cluster.store(leader), "/k", "alone again").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_addresses_change_at_once() {
    let mut cluster = Cluster::of(3).await;
    let revision = write(&cluster.store(1), "/k", "x").await.unwrap();
    for id in [1, 2, 3] {
        cluster.stop(id).await;
    }
    // Each listens elsewhere now. The second and the third are told where the first is, and nothing else.
    cluster.start(1, Start::Found, BTreeMap::new()).await;
    let first = BTreeMap::from([(MemberId(1), vec![cluster.members[&1].address.clone()])]);
    cluster.start(2, Start::Found, first.clone()).await;
    cluster.start(3, Start::Found, first).await;
    cluster.wait_for_leader().await;
    for id in [1, 2, 3] {
        assert!(cluster.store(id).linearize().await.unwrap() >= revision);
    }
    let agreed = |id: u64, of: &crate::cluster::Running| {
        of.store.members().members.iter().any(|m| m.id.0 == id && m.addresses == [cluster.members[&id].address.clone()])
    };
    until("everybody's new address is agreed on", || {
        cluster.members.values().all(|of| (1..=3).all(|id| agreed(id, of)))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_promised() {
    let cluster = Cluster::of(3).await;
    let leader = cluster.wait_for_leader().await;
    write(&cluster.store(leader), "/k", "x").await.unwrap();
    for other in [1, 2, 3] {
        cluster.cuts.cut(leader, other);
        cluster.cuts.cut(other, leader);
    }
    until("somebody else leads", || {
        cluster.members.iter().any(|(id, of)| *id != leader && *of.store.leadership().borrow())
    })
    .await;
    let other = cluster.members.keys().copied().find(|id| *id != leader).unwrap();
    write(&cluster.store(other), "/k", "y").await.unwrap();
    cluster.cuts.heal();
    until("the old leader follows", || cluster.store(leader).view().get(b"/k").unwrap().value == "y").await;
}
