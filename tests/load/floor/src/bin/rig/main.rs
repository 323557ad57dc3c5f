//! The measuring rig: a load generator in front of a gateway, and SCM and a collector behind it.

mod first;
mod load;
mod rate;
mod upstream;
mod watch;

use load::Rpc;

const USAGE: &str = "\
usage: rig upstream [DELAY]                        an upstream and an OTLP/HTTP collector on a free port; the
                                                   collector answers after DELAY in milliseconds
       rig load ADDRESS CONNECTIONS STREAMS CALLS save|list
                                                   makes the calls and checks each response
       rig rate ADDRESS CONNECTIONS RATE SECONDS   makes RATE calls per second
       rig watch ADDRESS CONNECTIONS WATCHES one|own
                                                   opens watches of one certificate, or of a certificate each
       rig first ADDRESS PROGRAM ARGUMENTS…        microseconds from a program's start to its first response";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upstream"] => upstream::serve(0).await,
        ["upstream", delay] => upstream::serve(delay.parse()?).await,
        ["load", address, connections, streams, calls, rpc @ ("save" | "list")] => {
            let rpc = if rpc == "list" { Rpc::List } else { Rpc::Save };
            load::run(address, connections.parse()?, streams.parse()?, calls.parse()?, rpc).await
        }
        ["rate", address, connections, rate, seconds] => {
            rate::run(address, connections.parse()?, rate.parse()?, seconds.parse()?).await
        }
        ["watch", address, connections, watches, which @ ("one" | "own")] => {
            watch::run(address, connections.parse()?, watches.parse()?, which == "own").await
        }
        ["first", address, ref program @ ..] => first::run(address, program).await,
        _ => Err(USAGE.into()),
    }
}
