//! The reflector's rules, event by event, without a server.

use std::sync::Mutex;

use futures::stream;
use k8s_openapi::api::core::v1::Pod;

use super::*;

fn pod(name: &str, revision: u64) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.namespace = Some("web".into());
    pod.metadata.name = Some(name.into());
    pod.metadata.uid = Some(format!("uid-{name}"));
    pod.metadata.resource_version = Some(revision.to_string());
    pod
}

fn listed(pods: Vec<Pod>) -> Vec<Event<Pod>> {
    let mut events = vec![Event::Init];
    events.extend(pods.into_iter().map(Event::InitApply));
    events.push(Event::InitDone);
    events
}

/// Feeds `events`, returns the changes seen as text and the cache.
fn feed(events: Vec<Event<Pod>>) -> (Vec<String>, Cache<Pod>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut reflector = Reflector::of_kind();
    let cache = reflector.cache();
    reflector.subscribe({
        let (seen, cache) = (Arc::clone(&seen), cache.clone());
        move |change: &Change<Pod>| {
            let key = ObjectKey::of(change.object().as_ref());
            let text = match change {
                Change::Applied { old: None, .. } => format!("+{}", key.name),
                Change::Applied { old: Some(_), .. } => format!("~{}", key.name),
                Change::Deleted { .. } => format!("-{}", key.name),
            };
            let deleted = matches!(change, Change::Deleted { .. });
            assert_eq!(cache.get(&key).is_none(), deleted, "the cache moves before subscribers are called");
            seen.lock().unwrap().push(text);
        }
    });
    for event in events {
        reflector.on_event(event);
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    // The sender lives in the reflector: forget it so that the cache still answers.
    std::mem::forget(reflector);
    (seen, cache)
}

#[test]
fn list_then_watch() {
    let mut events = listed(vec![pod("a", 1), pod("b", 2)]);
    events.extend([Event::Apply(pod("a", 3)), Event::Apply(pod("c", 4)), Event::Delete(pod("b", 5))]);
    let (seen, cache) = feed(events);
    assert_eq!(seen, ["+a", "+b", "~a", "+c", "-b"]);
    let snapshot = cache.snapshot();
    let names: Vec<_> = snapshot.in_namespace("web").map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["a", "c"]);
    assert_eq!(snapshot.in_namespace("we").count(), 0);
    assert!(cache.is_ready());
}

#[test]
fn a_relist_reports_only_differences() {
    let mut events = listed(vec![pod("a", 1), pod("b", 2), pod("c", 3)]);
    let mut reborn = pod("c", 3);
    reborn.metadata.uid = Some("another".into());
    events.extend(listed(vec![pod("a", 1), reborn, pod("d", 9)]));
    let (seen, cache) = feed(events);
    assert_eq!(seen, ["+a", "+b", "+c", "-b", "~c", "+d"]);
    assert_eq!(cache.snapshot().len(), 3);
}

#[test]
fn readers_see_the_old_list_until_the_new_one_is_whole() {
    let mut events = listed(vec![pod("a", 1)]);
    events.extend([Event::Init, Event::InitApply(pod("b", 2))]);
    let (_, cache) = feed(events);
    assert!(cache.get_in("web", "a").is_some() && cache.get_in("web", "b").is_none());
}

#[tokio::test]
async fn freshness_waits_for_the_own_write() {
    let mut reflector = Reflector::<Pod>::of_kind();
    let cache = reflector.cache();
    listed(vec![pod("a", 5)]).into_iter().for_each(|event| reflector.on_event(event));
    assert!(cache.wait_for_revision(5, Duration::ZERO).await);
    assert!(!cache.wait_for_revision(6, Duration::from_millis(5)).await);
    let waiting = tokio::spawn(async move { cache.wait_for_revision(6, Duration::from_secs(30)).await });
    tokio::task::yield_now().await;
    reflector.on_event(Event::Apply(pod("b", 6)));
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn errors_are_survived() {
    let reflector = Reflector::<Pod>::of_kind();
    let cache = reflector.cache();
    let mut events: Vec<watcher::Result<Event<Pod>>> = vec![Err(watcher::Error::NoResourceVersion)];
    events.extend(listed(vec![pod("a", 1)]).into_iter().map(Ok));
    events.push(Err(watcher::Error::NoResourceVersion));
    events.push(Ok(Event::Apply(pod("b", 2))));
    reflector.run(stream::iter(events), CancellationToken::new()).await;
    assert_eq!(cache.snapshot().len(), 2);
}
