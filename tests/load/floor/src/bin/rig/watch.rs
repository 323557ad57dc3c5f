//! Idle watches, whose memory and CPU time are measured from outside.

use std::io::stdin;

use floor::proto::WatchCertificateRequest;
use tokio::task::spawn_blocking;

use crate::load;

/// Opens a watch on each connection and prints a line, opens the others after a line of standard input, and keeps all
/// until the input ends. They watch one certificate, or certificates of their own.
pub async fn run(
    address: &str,
    connections: usize,
    watches: usize,
    own: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut clients = load::connect(address, connections).await?;
    let mut open = Vec::new();
    for number in 0..watches {
        if number == connections {
            println!("{number} watches");
            spawn_blocking(|| stdin().read_line(&mut String::new())).await??;
        }
        let cert_id = format!("scs{:013}", if own { number } else { 0 });
        let request = WatchCertificateRequest { cert_id, ..WatchCertificateRequest::default() };
        let mut watch = clients[number % connections].watch_certificate(request).await?.into_inner();
        watch.message().await?.ok_or("no state")?;
        open.push(watch);
    }
    println!("{watches} watches");
    spawn_blocking(|| stdin().read_line(&mut String::new())).await??;
    Ok(())
}
