//! Asks the host, from inside, whether it keeps what WASI 0.3 promises. See `README.md`.

use std::fmt::Debug;

use wasip3::cli::{environment, exit, stdin, stdout};
use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::random::random;
use wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket};
use wasip3::wit_stream;

const NAP_NANOS: u64 = 30_000_000;
const TOLERANCE_SECONDS: i64 = 120;
/// More than one piece of a stream.
const BIG: usize = 300_000;

wasip3::cli::command::export!(Check);

struct Check;

impl wasip3::exports::cli::run::Guest for Check {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        let group = arguments.get(1).map_or("", String::as_str);
        let argument = arguments.get(2).map_or("", String::as_str);
        let mut report = Report::default();
        match group {
            "all" => {
                clocks(&mut report, argument).await;
                entropy(&mut report);
                input(&mut report).await;
                files(&mut report).await;
            }
            "escape" => escape(&mut report).await,
            "sockets" => sockets(&mut report, argument, arguments.get(3).map_or("", String::as_str)).await,
            "exit" => exit::exit_with_code(argument.parse().unwrap_or(99)),
            "fail" => return Err(()),
            _ => report.is("the group is known", false),
        }
        report.lines.push_str("done\n");
        say(report.lines).await;
        if report.is_broken { Err(()) } else { Ok(()) }
    }
}

#[derive(Default)]
struct Report {
    lines: String,
    is_broken: bool,
}

impl Report {
    fn is(&mut self, name: &str, kept: bool) {
        self.equals(name, kept, true);
    }

    fn works<T, E: Debug>(&mut self, name: &str, done: Result<T, E>) -> Option<T> {
        self.equals(name, done.as_ref().err().map(|error| format!("{error:?}")), None);
        done.ok()
    }

    fn refused<T, E>(&mut self, name: &str, done: Result<T, E>) {
        self.is(name, done.is_err());
    }

    fn equals<T: PartialEq + Debug>(&mut self, name: &str, found: T, expect: T) {
        if found == expect {
            self.lines.push_str(&format!("kept {name}\n"));
        } else {
            self.is_broken = true;
            self.lines.push_str(&format!("BROKEN {name}: {found:?} and not {expect:?}\n"));
        }
    }
}

async fn say(text: String) {
    let (mut writer, reader) = wit_stream::new();
    let written = stdout::write_via_stream(reader);
    writer.write_all(text.into_bytes()).await;
    drop(writer);
    let _ = written.await;
}

async fn clocks(report: &mut Report, now: &str) {
    let told: i64 = now.parse().unwrap_or(0);
    report.is("system-clock", (system_clock::now().seconds - told).abs() < TOLERANCE_SECONDS);
    let before = monotonic_clock::now();
    monotonic_clock::wait_for(NAP_NANOS).await;
    let waited = monotonic_clock::now() - before;
    report.is("wait-for", (NAP_NANOS..NAP_NANOS * 100).contains(&waited));
    monotonic_clock::wait_until(before).await;
    report.is("wait-until-what-was", monotonic_clock::now() - before < NAP_NANOS * 100);
}

fn entropy(report: &mut Report) {
    report.is("random-differs", random::get_random_u64() != random::get_random_u64());
    report.equals("random-bytes", random::get_random_bytes(64).len(), 64);
}

async fn input(report: &mut Report) {
    let (stream, end) = stdin::read_via_stream();
    report.equals("stdin-is-empty", stream.collect().await.len(), 0);
    report.works("stdin-ends", end.await);
}

async fn open(dir: &Descriptor, path: &str, open: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    dir.open_at(PathFlags::SYMLINK_FOLLOW, path.to_owned(), open, flags).await
}

async fn write(dir: &Descriptor, path: &str, bytes: Vec<u8>) -> Result<(), ErrorCode> {
    let file = open(dir, path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await?;
    let (mut writer, reader) = wit_stream::new();
    let written = file.write_via_stream(reader, 0);
    writer.write_all(bytes).await;
    drop(writer);
    written.await
}

async fn read(dir: &Descriptor, path: &str) -> Result<Vec<u8>, ErrorCode> {
    let file = open(dir, path, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let (stream, end) = file.read_via_stream(0);
    let bytes = stream.collect().await;
    end.await.map(|()| bytes)
}

async fn files(report: &mut Report) {
    let Some((dir, _)) = preopens::get_directories().into_iter().next() else {
        return report.is("there is a mount", false);
    };
    let big: Vec<u8> = (0..BIG).map(|number| number as u8).collect();
    report.works("write", write(&dir, "a", big.clone()).await);
    let found = read(&dir, "a").await;
    report.is("read", found.is_ok_and(|bytes| bytes == big));
    report.works("rename", dir.rename_at("a".to_owned(), &dir, "b".to_owned()).await);
    report.refused("old-name-is-gone", read(&dir, "a").await);
    report.works("hard-link", dir.link_at(PathFlags::empty(), "b".to_owned(), &dir, "hard".to_owned()).await);
    report.works("symlink", dir.symlink_at("b".to_owned(), "soft".to_owned()).await);
    report.equals("through-symlink", read(&dir, "soft").await.map(|bytes| bytes.len()).ok(), Some(BIG));
    report.works("make", dir.create_directory_at("dir".to_owned()).await);
    let (stream, end) = dir.read_directory();
    let mut names: Vec<String> = stream.collect().await.into_iter().map(|entry| entry.name).collect();
    names.sort();
    report.equals("list", names, ["b", "dir", "hard", "soft"].map(str::to_owned).to_vec());
    report.works("list-ends", end.await);
    for name in ["b", "hard", "soft"] {
        report.works("remove", dir.unlink_file_at(name.to_owned()).await);
    }
    report.works("remove-directory", dir.remove_directory_at("dir".to_owned()).await);
}

/// As the module `escape` of `wasi-check` says.
async fn escape(report: &mut Report) {
    let Some((dir, _)) = preopens::get_directories().into_iter().next() else {
        return report.is("there is a mount", false);
    };
    let outside = [
        "../secret",
        "./../secret",
        "to-secret",
        "to-etc",
        "to-parent/secret",
        "to-root/etc/passwd",
        "/etc/passwd",
        "..",
    ];
    for path in outside {
        report.refused(&format!("read {path}"), read(&dir, path).await);
        report.refused(&format!("write {path}"), write(&dir, path, b"taken".to_vec()).await);
        report.refused(
            &format!("link {path}"),
            dir.link_at(PathFlags::SYMLINK_FOLLOW, path.to_owned(), &dir, "stolen".to_owned()).await,
        );
    }
    report.works("something to move", write(&dir, "mine", b"m".to_vec()).await);
    report.refused("move outside", dir.rename_at("mine".to_owned(), &dir, "../mine".to_owned()).await);
    report.refused("make outside", dir.create_directory_at("to-parent/made".to_owned()).await);
    report.refused("remove outside", dir.unlink_file_at("../secret".to_owned()).await);
}

async fn sockets(report: &mut Report, host: &str, port: &str) {
    let numbers: Vec<u8> = host.split('.').filter_map(|number| number.parse().ok()).collect();
    let (&[a, b, c, d], Ok(port)) = (numbers.as_slice(), port.parse()) else {
        return report.is("the address is one", false);
    };
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) });
    let connected = match TcpSocket::create(IpAddressFamily::Ipv4) {
        Ok(socket) => socket.connect(address).await.map_err(|error| format!("{error:?}")),
        Err(error) => Err(format!("create: {error:?}")),
    };
    report.lines.push_str(&format!("connect: {connected:?}\n"));
}
