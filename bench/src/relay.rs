//! Copies bytes from a socket to another and back, nothing else: what every relay pays at least.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Listens on the first port of loopback and copies to the second.
pub fn run(ports: &[String]) {
    let [listen, target] = ports else { return eprintln!("usage: weir-bench relay LISTEN TARGET") };
    let listener = TcpListener::bind(format!("127.0.0.1:{listen}")).expect("the port is free");
    for client in listener.incoming().flatten() {
        let Ok(server) = TcpStream::connect(format!("127.0.0.1:{target}")) else { continue };
        let (Ok(back_from), Ok(back_to)) = (server.try_clone(), client.try_clone()) else { continue };
        std::thread::spawn(move || copy(client, server));
        std::thread::spawn(move || copy(back_from, back_to));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 256 << 10];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may have closed first.
    let _ = to.shutdown(Shutdown::Write);
}
