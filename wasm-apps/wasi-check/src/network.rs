//! Sockets: prints what came of each attempt; what has to come of it, the test knows.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use crate::Report;

pub fn all(_: &mut Report, address: &str) {
    tell("connect", TcpStream::connect(address).and_then(|stream| talk(stream)));
    tell("listen", TcpListener::bind("127.0.0.1:0").map(|_| "listening".to_owned()));
    tell("listen-everywhere", TcpListener::bind("0.0.0.0:0").map(|_| "listening".to_owned()));
    let sent = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"datagram", address));
    tell("datagram", sent.map(|bytes| bytes.to_string()));
    tell("metadata", TcpStream::connect("169.254.169.254:80").map(|_| "connected".to_owned()));
    tell("resolve", ("localhost", 80).to_socket_addrs().map(|found| format!("{:?}", found.collect::<Vec<_>>())));
}

fn talk(mut stream: TcpStream) -> std::io::Result<String> {
    stream.write_all(b"ping\n")?;
    let mut said = [0; 4];
    stream.read_exact(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn tell(name: &str, done: std::io::Result<String>) {
    match done {
        Ok(what) => println!("{name}: {what}"),
        Err(error) => println!("{name} failed: {:?} {error}", error.kind()),
    }
}
