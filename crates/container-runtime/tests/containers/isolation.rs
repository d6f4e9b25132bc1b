//! What a container sees and may do. The rows of the reliability page that need a real container.

use std::fs;
use std::os::unix::fs::symlink;

use cri::{Mount, Resources, RuntimeError, RuntimeService, SecurityContext};

use crate::bench::{Bench, can_run};

fn mount(host: impl Into<std::path::PathBuf>, container: &str, read_only: bool) -> Mount {
    Mount { host_path: host.into(), container_path: container.to_owned(), read_only }
}

#[tokio::test]
async fn namespaces_and_files() {
    if !can_run("namespaces_and_files") {
        return;
    }
    let bench = Bench::new().await;
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let script = "echo pid $$; hostname; cat /etc/hostname /etc/resolv.conf; ls -x /proc/self/fd; \
                  for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done; ls /dev; \
                  cat /proc/1/mountinfo | wc -l; pwd; echo $HOME $HOSTNAME";
    let (code, log) = bench.run(bench.script("app", script)).await;
    assert_eq!(code, 0, "{log}");
    assert!(log.starts_with("pid 1\nweb-0\nweb-0\nnameserver 10.96.0.10\n"), "{log}");
    for name in ["mnt", "pid", "uts", "ipc", "cgroup"] {
        assert!(!log.contains(&own(name)), "{name} is the host's: {log}");
    }
    assert!(log.contains(&own("net")), "host network was asked for: {log}");
    assert!(log.contains("/\n/root web-0\n"), "{log}");
    let devices = ["core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout"];
    assert!(log.contains(&devices.join("\n")), "{log}");
    assert!(!log.contains("kmsg") && !log.contains("vda"), "{log}");
}

#[tokio::test]
async fn network_namespace_of_the_pod() {
    if !can_run("network_namespace_of_the_pod") {
        return;
    }
    let bench = Bench::new().await;
    // A thread with a network namespace of its own lends it by path, as the network crate does.
    let path = bench.path("netns");
    fs::write(&path, "").unwrap();
    let bound = path.clone();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some("/proc/thread-self/ns/net"), &bound, None::<&str>, flags, None::<&str>).unwrap();
    })
    .join()
    .unwrap();
    let mut pod = bench.pod("u1");
    pod.network = cri::NetworkAttachment::Namespace { ip: [10, 0, 0, 1].into(), path: path.clone() };
    let sandbox = bench.runtime.run_pod_sandbox(pod).await.unwrap();
    let id = bench.start(&sandbox, bench.script("app", "cat /proc/net/dev; ls /sys/class/net")).await;
    assert_eq!(bench.ended(&id).await.0, 0);
    let log = bench.log("app");
    assert!(log.contains("lo:") && log.trim_end().ends_with("lo"), "{log}");
    assert_eq!(log.matches(':').count(), 1, "{log}");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    nix::mount::umount(&path).unwrap();
}

#[tokio::test]
async fn environment_directory_and_user() {
    if !can_run("environment_directory_and_user") {
        return;
    }
    let bench = Bench::new().await;
    let mut config = bench.script("app", "id; pwd; echo $A $B $HOME; touch /x || echo denied; echo fine >/dev/stdout");
    config.image.config.env = vec!["A=image".to_owned(), "B=image".to_owned()];
    config.env = vec![("B".to_owned(), "pod".to_owned())];
    config.working_dir = Some("/made/for/it".to_owned());
    config.image.config.user = Some("web".to_owned());
    config.security.supplemental_groups = vec![2000];
    let (code, log) = bench.run(config.clone()).await;
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("uid=33(web) gid=34(www) groups=34(www),70(log),2000"), "{log}");
    assert!(log.contains("/made/for/it\nimage pod /srv\n") && log.contains("denied\nfine\n"), "{log}");

    config.security.run_as_user = Some(1234);
    config.security.run_as_group = Some(99);
    let (_, log) = bench.run(config.clone()).await;
    assert!(log.contains("uid=1234 gid=99 groups=99,2000"), "{log}");
    assert_eq!(fs::read_to_string(bench.path("layer/etc/passwd")).unwrap().lines().count(), 2);
}

#[tokio::test]
async fn capabilities_and_filter() {
    if !can_run("capabilities_and_filter") {
        return;
    }
    let bench = Bench::new().await;
    let status = "grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'";
    let status = status.replace("tr -d '\\t'", "cat");
    let check = async |security: SecurityContext, expect: &[&str]| {
        let (code, log) = bench.run(cri::ContainerConfig { security, ..bench.script("app", &status) }).await;
        let _ = fs::remove_file(bench.path("logs/app.log"));
        let log = log.replace('\t', "");
        assert_eq!(code, 0, "{log}");
        for line in expect {
            assert!(log.contains(line), "{line} not in {log}");
        }
    };
    check(
        SecurityContext::default(),
        &[
            "CapInh:0000000000000000",
            "CapPrm:00000000a80425fb",
            "CapEff:00000000a80425fb",
            "CapBnd:00000000a80425fb",
            "CapAmb:0000000000000000",
            "NoNewPrivs:0",
            "Seccomp:2",
        ],
    )
    .await;
    check(
        SecurityContext {
            run_as_user: Some(1000),
            no_new_privileges: true,
            capabilities_drop: vec!["ALL".to_owned()],
            capabilities_add: vec!["NET_BIND_SERVICE".to_owned()],
            ..SecurityContext::default()
        },
        &["CapPrm:0000000000000000", "CapBnd:0000000000000400", "NoNewPrivs:1", "Seccomp:2"],
    )
    .await;
    check(
        SecurityContext { seccomp: cri::SeccompProfile::Unconfined, ..SecurityContext::default() },
        &["CapEff:00000000a80425fb", "Seccomp:0"],
    )
    .await;
    check(
        SecurityContext { privileged: true, ..SecurityContext::default() },
        &["CapInh:0000000000000000", "Seccomp:0"],
    )
    .await;
}

#[tokio::test]
async fn escapes_are_closed() {
    if !can_run("escapes_are_closed") {
        return;
    }
    let bench = Bench::new().await;
    for (what, attempt) in [
        ("mount", "mount -t tmpfs none /tmp"),
        ("user namespace", "unshare -U true"),
        ("block device node", "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk"),
        ("char device node in /dev", "mknod /dev/m c 1 1 && head -c 1 /dev/m"),
        ("remount of /proc/sys", "echo 1 >/proc/sys/kernel/sysrq"),
        ("sysrq trigger", "echo h >/proc/sysrq-trigger"),
        ("cgroup files", "mkdir /sys/fs/cgroup/x || mkdir /sys/fs/cgroup/memory/x"),
        ("sysfs", "echo 1 >/sys/kernel/uevent_helper"),
        ("kernel log", "head -c 1 /dev/kmsg"),
        ("hostname", "hostname other"),
        ("root of pid 1 in the host", "test -e /proc/1/root/sandbox.json || ls /old-root"),
    ] {
        let (code, log) = bench.run(bench.script("app", attempt)).await;
        assert_ne!(code, 0, "{what} worked: {log}");
    }
    let masked = "cat /proc/keys /proc/timer_list /proc/interrupts | wc -c; ls /proc/acpi /sys/firmware | grep -vc :";
    let (_, log) = bench.run(bench.script("masked", masked)).await;
    assert!(log.starts_with("0\n"), "{log}");
    let (_, log) = bench.run(bench.script("firmware", "ls /sys/firmware /proc/acpi 2>/dev/null | wc -w")).await;
    assert!(log == "2\n" || log == "1\n", "{log}");
}

#[tokio::test]
async fn read_only_root() {
    if !can_run("read_only_root") {
        return;
    }
    let bench = Bench::new().await;
    fs::create_dir(bench.path("volume")).unwrap();
    let mut config =
        bench.script("app", "touch /x; touch /etc/x; touch /volume/written; echo ok >/dev/shm/x; cat /dev/shm/x");
    config.security.read_only_root_filesystem = true;
    config.mounts = vec![mount(bench.path("volume"), "/volume", false)];
    let (code, log) = bench.run(config).await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    assert!(bench.path("volume/written").exists());
}

#[tokio::test]
async fn volumes_and_termination_message() {
    if !can_run("volumes_and_termination_message") {
        return;
    }
    let bench = Bench::new().await;
    fs::create_dir_all(bench.path("volume/sub")).unwrap();
    fs::write(bench.path("volume/file"), "from host\n").unwrap();
    fs::write(bench.path("message"), "").unwrap();
    let script = "cat /ro/file; touch /ro/x; touch /ro/sub/x; touch /rw/x && echo written; \
                  cat /etc/motd; echo goodbye >/dev/termination-log";
    let mut config = bench.script("app", script);
    config.mounts = vec![
        mount(bench.path("volume"), "/ro", true),
        mount(bench.path("volume"), "/rw/", false),
        mount(bench.path("volume/file"), "/etc/motd", true),
    ];
    config.termination_message = Some(mount(bench.path("message"), "/dev/termination-log", false));
    let (code, log) = bench.run(config).await;
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.matches("Read-only file system").count(), 2, "{log}");
    assert_eq!(log.matches("from host").count(), 2, "{log}");
    assert_eq!(fs::read_to_string(bench.path("message")).unwrap(), "goodbye\n");
    assert!(bench.path("volume/x").exists() && log.contains("written"));
}

#[tokio::test]
async fn images_cannot_lead_mounts_outside() {
    if !can_run("images_cannot_lead_mounts_outside") {
        return;
    }
    let bench = Bench::new().await;
    let outside = bench.path("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(bench.path("volume")).unwrap();
    let layer = bench.path("layer");
    symlink(&outside, layer.join("absolute")).unwrap();
    symlink("../../../../../../..".to_owned() + outside.to_str().unwrap(), layer.join("relative")).unwrap();
    let refused = async |target: &str| {
        let sandbox = bench.sandbox("u1").await;
        let config = cri::ContainerConfig {
            mounts: vec![mount(bench.path("volume"), target, false)],
            ..bench.script("app", "true")
        };
        let outcome = bench.runtime.create_container(&sandbox, config).await;
        assert!(matches!(outcome, Err(RuntimeError::CreateContainer { .. })), "{target}: {outcome:?}");
        bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
        assert_eq!(bench.traces(), Vec::<String>::new());
    };
    refused("/absolute/x").await;
    refused("/relative").await;
    refused("/proc/self/x").await;
    refused("/bin/busybox").await;
    // An image whose /proc or /dev is a link is not started at all.
    symlink("/tmp", layer.join("dev")).unwrap();
    refused("/fine").await;
    fs::remove_file(layer.join("dev")).unwrap();
    symlink("/tmp", layer.join("proc")).unwrap();
    refused("/fine").await;
}

#[tokio::test]
async fn working_directories_outside_are_refused() {
    if !can_run("working_directories_outside_are_refused") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    for (attempt, dir) in ["/proc/self/fd/3", "/proc/self/fd/8", "/proc/1/root"].into_iter().enumerate() {
        let config = cri::ContainerConfig {
            working_dir: Some(dir.to_owned()),
            attempt: attempt as u32,
            ..bench.script("app", "pwd")
        };
        assert!(bench.runtime.create_container(&sandbox, config).await.is_err(), "{dir}");
    }
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn writable_layers_are_apart_and_memory_is_shared() {
    if !can_run("writable_layers_are_apart_and_memory_is_shared") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("u1").await;
    let first = bench.script("first", "echo mine >/data/new; rm /data/from-image; echo pod >/dev/shm/x; sleep 60");
    let first = bench.start(&sandbox, first).await;
    while bench
        .runtime
        .exec_sync(&first, &["test".into(), "-s".into(), "/dev/shm/x".into()], crate::bench::LONG)
        .await
        .unwrap()
        .exit_code
        != 0
    {}
    let second = bench.start(&sandbox, bench.script("second", "ls /data; cat /dev/shm/x")).await;
    assert_eq!(bench.ended(&second).await.0, 0);
    assert_eq!(bench.log("second"), "from-image\npod\n");
    assert!(!bench.path("layer/data/new").exists() && bench.path("layer/data/from-image").exists());
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn pods_may_share_their_processes() {
    if !can_run("pods_may_share_their_processes") {
        return;
    }
    let bench = Bench::new().await;
    let mut pod = bench.pod("u1");
    pod.share_process_namespace = true;
    let sandbox = bench.runtime.run_pod_sandbox(pod).await.unwrap();
    let first = bench.start(&sandbox, bench.script("first", "sleep 1234 & sleep 4321")).await;
    let second = bench.start(&sandbox, bench.script("second", "sleep 0.3; ps; echo me $$")).await;
    assert_eq!(bench.ended(&second).await.0, 0);
    let log = bench.log("second");
    assert!(log.contains("sleep 1234") && log.contains("sleep 4321") && !log.contains("me 1\n"), "{log}");
    bench.runtime.stop_container(&first, std::time::Duration::ZERO).await.unwrap();
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn a_container_may_enter_the_processes_of_another() {
    if !can_run("a_container_may_enter_the_processes_of_another") {
        return;
    }
    let bench = Bench::new().await;
    let sandbox = bench.sandbox("debugged").await;
    let app = bench.start(&sandbox, bench.script("app", "exec sleep 1234")).await;
    let beside = |name: &str, script: &str| cri::ContainerConfig {
        process_namespace_of: Some(app.clone()),
        ..bench.script(name, script)
    };
    // Its own root, the other's processes; what it leaves behind is ended with it, the other is not.
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; sleep 4321 & ls /proc/1/root/bin/sh; exit 3";
    let debugger = bench.start(&sandbox, beside("debugger", script)).await;
    assert_eq!(bench.ended(&debugger).await.0, 3);
    let log = bench.log("debugger");
    assert!(log.contains("sleep 1234"), "{log}");
    let left = bench.runtime.exec_sync(&app, &["ps".to_owned()], std::time::Duration::from_secs(10)).await.unwrap();
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    assert!(left.contains("sleep 1234") && !left.contains("sleep 4321"), "{left}");
    // A terminal is handed out as in any container.
    let terminal = beside("terminal", "test -t 0 && ps");
    let terminal = cri::ContainerConfig { stdio: cri::Stdio { tty: true, ..cri::Stdio::default() }, ..terminal };
    let terminal = bench.start(&sandbox, terminal).await;
    assert_eq!(bench.ended(&terminal).await.0, 0);
    assert!(bench.log("terminal").contains("sleep 1234"), "{}", bench.log("terminal"));
    // Whoever waits in there ends with the first process, as the kernel has it.
    let waits = bench.start(&sandbox, beside("waits", "exec sleep 99")).await;
    bench.runtime.stop_container(&app, std::time::Duration::ZERO).await.expect("it stops");
    assert_eq!(bench.ended(&waits).await.0, 137);
    let refused = bench.runtime.create_container(&sandbox, beside("late", "true")).await;
    let refused = refused.expect_err("there is nobody to see").to_string();
    assert!(refused.contains("is not running"), "{refused}");
    bench.runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    assert_eq!(bench.traces(), Vec::<String>::new());
}

#[tokio::test]
async fn privileged_sees_the_machine() {
    if !can_run("privileged_sees_the_machine") {
        return;
    }
    let bench = Bench::new().await;
    let mut config = bench.script("app", "ls /dev | wc -l; mount -t tmpfs none /tmp && echo mounted; mkdir /sys/fs/cgroup/pids/x || mkdir /sys/fs/cgroup/x; rmdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x");
    config.security.privileged = true;
    config.resources = Resources { pids_limit: Some(50), ..Resources::default() };
    let (_, log) = bench.run(config).await;
    assert!(log.contains("mounted"), "{log}");
}
