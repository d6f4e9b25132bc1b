//! Buckets and what is in them: compare-and-set, sums, quotas, lists, deletion, who may.

mod harness;

use std::sync::Arc;

use apiserver::UserInfo;
use axum::body::Body;
use bytes::Bytes;
use harness::{Cluster, admin, pod};
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};

const BUCKETS: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/buckets";
const ENTRIES: &str = "/apis/knarr.dev/v1alpha1/namespaces/default/buckets/b/entries";

fn bucket(name: &str, bytes: &str, entries: i64) -> Value {
    json!({ "apiVersion": "knarr.dev/v1alpha1", "kind": "Bucket", "metadata": { "name": name },
        "spec": { "quota": { "maxBytes": bytes, "maxEntries": entries } } })
}

async fn with_bucket(bytes: &str, entries: i64) -> Arc<Cluster> {
    let cluster = Cluster::new().await;
    cluster.post(BUCKETS, bucket("b", bytes, entries)).await.expect(201);
    Arc::new(cluster)
}

/// A request with raw bytes.
struct Raw<'a> {
    user: UserInfo,
    header: Option<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl Raw<'_> {
    fn by(user: UserInfo) -> Self {
        Self { user, header: None, body: b"" }
    }

    /// Code, ETag and body of the answer.
    async fn send(self, cluster: &Cluster, method: &str, path: &str) -> (u16, String, Bytes) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = self.header {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(self.body.to_vec())).expect("a request");
        let (parts, body) = cluster.raw(self.user, request).await.into_parts();
        let tag = parts.headers.get("etag").map(|tag| tag.to_str().expect("text").to_owned()).unwrap_or_default();
        (parts.status.as_u16(), tag, body.collect().await.expect("a body").to_bytes())
    }
}

async fn put(cluster: &Cluster, key: &str, value: &[u8], header: Option<(&str, &str)>) -> (u16, String) {
    let (code, tag, _) =
        Raw { header, body: value, ..Raw::by(admin()) }.send(cluster, "PUT", &format!("{ENTRIES}/{key}")).await;
    (code, tag)
}

async fn usage(cluster: &Cluster) -> (u64, u64) {
    let list = cluster.get(&format!("{ENTRIES}?limit=1")).await.expect(200);
    (list["usage"]["bytes"].as_u64().expect("a number"), list["usage"]["entries"].as_u64().expect("a number"))
}

#[tokio::test]
async fn a_bucket_is_an_object_like_others() {
    let cluster = Cluster::new().await;
    let plain = json!({ "metadata": { "name": "b" } });
    let made = cluster.post(BUCKETS, plain).await.expect(201);
    assert_eq!(made["spec"]["quota"], json!({ "maxBytes": "16Mi", "maxEntries": 10000 }));
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({}), &json!(1)));
    let refused = cluster.post(BUCKETS, bucket("c", "8Gi", 1)).await;
    refused.refused(
        422,
        "Bucket.knarr.dev \"c\" is invalid: spec.quota.maxBytes: Invalid value: \"8Gi\": must be between 1 and \
         1073741824 bytes, inclusive",
    );
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = cluster.get_as_form(BUCKETS, table).await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..5],
        json!(["b", 0, 0, 10000, "16Mi"]).as_array().unwrap()[..]
    );
    let applied = cluster
        .patch(
            &format!("{BUCKETS}/b?fieldManager=me&force=true"),
            "application/apply-patch+yaml",
            json!({ "apiVersion": "knarr.dev/v1alpha1", "kind": "Bucket", "metadata": { "name": "b" },
                "spec": { "quota": { "maxEntries": 5 } } }),
        )
        .await;
    let applied = applied.expect(200);
    assert_eq!(applied["spec"]["quota"], json!({ "maxBytes": "16Mi", "maxEntries": 5 }));
    let document = cluster.get("/openapi/v3/apis/knarr.dev/v1alpha1").await.expect(200);
    let quota = &document["components"]["schemas"]["dev.knarr.v1alpha1.BucketQuota"]["properties"]["maxEntries"];
    assert_eq!(quota["type"], "integer", "{document}");
}

#[tokio::test]
async fn values_are_bytes_with_a_revision() {
    let cluster = with_bucket("1Mi", 100).await;
    let value = [0, 159, 146, 150, b'/', b'\n'];
    let (code, first) = put(&cluster, "a%2Fb%20c", &value, None).await;
    assert_eq!(code, 201);
    let path = format!("{ENTRIES}/a%2Fb%20c");
    let (code, tag, body) = Raw::by(admin()).send(&cluster, "GET", &path).await;
    assert_eq!((code, tag.as_str(), body.as_ref()), (200, first.as_str(), &value[..]));
    let (code, ..) =
        Raw { header: Some(("if-none-match", &first)), ..Raw::by(admin()) }.send(&cluster, "GET", &path).await;
    assert_eq!(code, 304);
    let (code, ..) = Raw { header: Some(("accept", "application/octet-stream")), ..Raw::by(admin()) }
        .send(&cluster, "GET", &path)
        .await;
    assert_eq!(code, 200);

    assert_eq!(put(&cluster, "a%2Fb%20c", b"x", Some(("if-none-match", "*"))).await.0, 412);
    assert_eq!(put(&cluster, "new", b"x", Some(("if-match", "*"))).await.0, 412);
    let (code, second) = put(&cluster, "a%2Fb%20c", b"2", Some(("if-match", &first))).await;
    assert_eq!(code, 200);
    assert_eq!(put(&cluster, "a%2Fb%20c", b"3", Some(("if-match", &first))).await.0, 412);
    let (code, ..) =
        Raw { header: Some(("if-match", &first)), ..Raw::by(admin()) }.send(&cluster, "DELETE", &path).await;
    assert_eq!(code, 412);
    let (code, ..) =
        Raw { header: Some(("if-match", &second)), ..Raw::by(admin()) }.send(&cluster, "DELETE", &path).await;
    assert_eq!(code, 204);
    cluster.get(&path).await.refused(404, "buckets/entries.knarr.dev \"a/b c\" not found");
    cluster.call("DELETE", &path, None).await.refused(404, "buckets/entries.knarr.dev \"a/b c\" not found");
    assert_eq!(usage(&cluster).await, (0, 0));
}

#[tokio::test]
async fn what_is_no_entry_is_refused() {
    let cluster = with_bucket("1Mi", 100).await;
    let long = "k".repeat(513);
    assert_eq!(put(&cluster, &long, b"", None).await.0, 400);
    assert_eq!(put(&cluster, &long[..512], b"", None).await.0, 201);
    assert_eq!(put(&cluster, "big", &vec![0; 256 * 1024 + 1], None).await.0, 413);
    assert_eq!(put(&cluster, "big", &vec![0; 256 * 1024], None).await.0, 201);
    assert_eq!(put(&cluster, "a", b"", Some(("if-match", "nonsense"))).await.0, 400);
    assert_eq!(put(&cluster, "", b"", None).await.0, 405);
    assert_eq!(cluster.patch(&format!("{ENTRIES}/a"), "application/merge-patch+json", json!({})).await.code, 405);
    let elsewhere = "/apis/knarr.dev/v1alpha1/namespaces/default/buckets/none/entries/a";
    cluster.get(elsewhere).await.refused(404, "buckets.knarr.dev \"none\" not found");
    let (code, ..) = Raw { body: b"x", ..Raw::by(admin()) }.send(&cluster, "PUT", elsewhere).await;
    assert_eq!(code, 404);
    // A value that looks like an object of another kind is none.
    let fake = pod("fake").to_string();
    assert_eq!(put(&cluster, "fake", fake.as_bytes(), None).await.0, 201);
    assert_eq!(cluster.get("/api/v1/pods").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn sums_lose_nothing() {
    let cluster = with_bucket("1Mi", 100).await;
    let tasks = (0..40).map(|_| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                let path = format!("{ENTRIES}/count?add=3");
                assert_eq!(Raw::by(admin()).send(&cluster, "POST", &path).await.0, 200);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let add = |n: &str| format!("{ENTRIES}/count?add={n}");
    let (code, _, sum) = Raw::by(admin()).send(&cluster, "POST", &add("-100")).await;
    assert_eq!((code, sum.as_ref()), (200, &b"500"[..]));
    assert_eq!(Raw::by(admin()).send(&cluster, "POST", &add("1.5")).await.0, 400);
    assert_eq!(put(&cluster, "text", b"seven", None).await.0, 201);
    assert_eq!(Raw::by(admin()).send(&cluster, "POST", &format!("{ENTRIES}/text?add=1")).await.0, 422);
}

/// Each of many writers reads, adds one and writes back on condition; none of their additions is lost.
#[tokio::test]
async fn compare_and_set_has_one_winner() {
    let cluster = with_bucket("1Mi", 100).await;
    put(&cluster, "n", b"0", None).await;
    let path = format!("{ENTRIES}/n");
    let writers = (0..8).map(|_| {
        let (cluster, path) = (cluster.clone(), path.clone());
        tokio::spawn(async move {
            let (mut won, mut lost) = (0, 0);
            while won < 5 {
                let (_, tag, body) = Raw::by(admin()).send(&cluster, "GET", &path).await;
                let next = std::str::from_utf8(&body).unwrap().parse::<u32>().unwrap() + 1;
                match put(&cluster, "n", next.to_string().as_bytes(), Some(("if-match", &tag))).await.0 {
                    200 => won += 1,
                    412 => lost += 1,
                    code => panic!("{code}"),
                }
            }
            lost
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(Raw::by(admin()).send(&cluster, "GET", &path).await.2, "40");
}

#[tokio::test]
async fn quotas_hold_under_concurrency() {
    let cluster = with_bucket("200", 10).await;
    let writers = (0..50).map(|number| {
        let cluster = cluster.clone();
        // Keys of 2 bytes, values of 28: six of them fit 200 bytes.
        tokio::spawn(async move { put(&cluster, &format!("{number:02}"), &[b'v'; 28], None).await.0 })
    });
    let mut codes = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        codes.push(writer.await.unwrap());
    }
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 6, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 201 | 403)), "{codes:?}");
    assert_eq!(usage(&cluster).await, (180, 6));
    let over = Raw { body: &[b'v'; 28], ..Raw::by(admin()) }.send(&cluster, "PUT", &format!("{ENTRIES}/zz")).await;
    let status: Value = serde_json::from_slice(&over.2).unwrap();
    assert_eq!(status["message"], "buckets.knarr.dev \"b\" is forbidden: exceeded quota: it may hold 200 bytes");
    assert_eq!(status["details"]["causes"][0]["reason"], "QuotaExceeded");
    // Entries without a value, until their number is the limit; then what is deleted makes room.
    for number in 0..4 {
        assert_eq!(put(&cluster, &format!("e{number}"), b"", None).await.0, 201);
    }
    assert_eq!(put(&cluster, "e4", b"", None).await.0, 403);
    assert_eq!(cluster.call("DELETE", &format!("{ENTRIES}/e0"), None).await.code, 204);
    assert_eq!(put(&cluster, "e4", b"", None).await.0, 201);
    assert_eq!(usage(&cluster).await, (188, 10));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let cluster = with_bucket("1Mi", 100).await;
    for key in ["a1", "a2", "a3", "b1"] {
        put(&cluster, key, b"xy", None).await;
    }
    let mut keys = Vec::new();
    let mut token = String::new();
    loop {
        let page = cluster.get(&format!("{ENTRIES}?prefix=a&limit=2&continue={token}")).await.expect(200);
        assert_eq!((&page["kind"], &page["items"][0]["bytes"]), (&json!("BucketEntryList"), &json!(2)));
        keys.extend(page["items"].as_array().unwrap().iter().map(|item| item["key"].as_str().unwrap().to_owned()));
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(keys, ["a1", "a2", "a3"]);
    assert_eq!(cluster.get(ENTRIES).await.expect(200)["items"].as_array().unwrap().len(), 4);
    cluster
        .get(&format!("{ENTRIES}?continue=!"))
        .await
        .refused(400, "continue key is not valid: it was not made by this server");
}

async fn eventually(check: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if check().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("did not come true within ten seconds");
}

#[tokio::test]
async fn a_deleted_bucket_takes_its_entries_along() {
    let cluster = with_bucket("16Mi", 5000).await;
    // More than one transaction of the purge, and no more at a time than the server takes.
    for round in 0..3 {
        let writers = (0..400).map(|number| {
            let cluster = cluster.clone();
            tokio::spawn(async move { put(&cluster, &format!("k{round}-{number}"), b"v", None).await.0 })
        });
        for writer in writers.collect::<Vec<_>>() {
            assert_eq!(writer.await.unwrap(), 201);
        }
    }
    let kept = || cluster.store.view().count(b"/buckets/") + cluster.store.view().count(b"/deleted-buckets/");
    assert_eq!(kept(), 1201);
    eventually(async || cluster.get(&format!("{BUCKETS}/b")).await.body["status"]["usage"]["entries"] == 1200).await;
    cluster.call("DELETE", &format!("{BUCKETS}/b"), None).await.expect(200);
    assert_eq!(put(&cluster, "late", b"", None).await.0, 404);
    // The next of that name is empty at once.
    cluster.post(BUCKETS, bucket("b", "1Mi", 10)).await.expect(201);
    assert_eq!(usage(&cluster).await, (0, 0));
    assert_eq!(put(&cluster, "fresh", b"v", None).await.0, 201);
    eventually(async || kept() == 2).await;
    assert_eq!(Raw::by(admin()).send(&cluster, "GET", &format!("{ENTRIES}/fresh")).await.2, "v");
}

#[tokio::test]
async fn roles_and_nodes() {
    let cluster = with_bucket("1Mi", 100).await;
    put(&cluster, "k", b"v", None).await;
    for (name, role) in [("vera", "view"), ("edda", "edit")] {
        let binding = json!({ "metadata": { "name": name }, "roleRef": { "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole", "name": role }, "subjects": [{ "kind": "User", "name": name,
            "apiGroup": "rbac.authorization.k8s.io" }] });
        let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
        cluster.post(path, binding).await.expect(201);
    }
    let user = |name: &str| UserInfo::authenticated(name, Vec::<String>::new());
    eventually(async || cluster.call_as(user("edda"), "GET", BUCKETS, None).await.code == 200).await;
    eventually(async || cluster.call_as(user("vera"), "GET", BUCKETS, None).await.code == 200).await;
    let key = format!("{ENTRIES}/k");
    for (method, path) in [("GET", ENTRIES), ("GET", &key), ("PUT", &key), ("POST", &key), ("DELETE", &key)] {
        assert_eq!(Raw::by(user("vera")).send(&cluster, method, path).await.0, 403, "{method} {path}");
    }
    assert_eq!(Raw::by(user("edda")).send(&cluster, "GET", ENTRIES).await.0, 200);
    assert_eq!(Raw { body: b"w", ..Raw::by(user("edda")) }.send(&cluster, "PUT", &key).await.0, 200);

    let mut granted = pod("p");
    granted["metadata"]["annotations"] = json!({ "knarr.dev/buckets": "cache=b" });
    granted["spec"]["nodeName"] = "n1".into();
    cluster.post("/api/v1/namespaces/default/pods", granted).await.expect(201);
    let node = |name: &str| UserInfo::authenticated(format!("system:node:{name}"), ["system:nodes"]);
    let check = async |name: &str, path: &str, code: u16| {
        for (method, body) in [("GET", &b""[..]), ("PUT", b"x")] {
            let code = if path.ends_with("entries") && method == "PUT" { 405 } else { code };
            assert_eq!(
                Raw { body, ..Raw::by(node(name)) }.send(&cluster, method, path).await.0,
                code,
                "{name} {method} {path}"
            );
        }
    };
    check("n1", &format!("{key}?pod=p"), 200).await;
    check("n1", &format!("{key}?pod=other"), 403).await;
    check("n1", &key, 403).await;
    check("n2", &format!("{key}?pod=p"), 403).await;
    cluster.post(BUCKETS, bucket("c", "1Mi", 10)).await.expect(201);
    check("n1", &format!("{BUCKETS}/c/entries/k?pod=p"), 403).await;
}
