//! What stands around a gateway that is measured: the load before it, SCM and a collector behind it.

mod around;
mod first;
mod load;

const USAGE: &str = "\
usage: rig around                                  an upstream and an OTLP/HTTP collector on a port of the system's choice
       rig load ADDRESS CONNECTIONS STREAMS CALLS  so many calls, each answer checked
       rig first ADDRESS PROGRAM ARGUMENTS…        microseconds from its start to its first answer";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["around"] => around::serve().await,
        ["load", address, connections, streams, calls] => {
            load::run(address, connections.parse()?, streams.parse()?, calls.parse()?).await
        }
        ["first", address, ref program @ ..] => first::run(address, program).await,
        _ => Err(USAGE.into()),
    }
}
