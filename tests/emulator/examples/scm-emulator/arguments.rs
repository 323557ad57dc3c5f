//! The arguments of the program.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use scm_emulator::{Account, Options, Seed};

pub(crate) const HELP: &str = "\
Emulates the SCM endpoint: verifies signatures, checks requests, and keeps certificates and CSRs in memory.

Usage: scm-emulator [--listen ADDR] [--tls FILE] [--key AK:SK] [--delay MS] [--review MS]
                    [--certificate ID=STATE]… [--csr ID]…
                    [--sts ADDR] [--pod-identity ADDR] [--metadata ADDR]
                    [--token-folder FOLDER] [--token-validity S] [--validity S]

  --listen ADDR           address and port to listen on [default: 127.0.0.1:18080]
  --tls FILE              use TLS, as localhost and 127.0.0.1, and write the authority's certificate to FILE
  --key AK:SK             accept these credentials instead of the invented ones
  --delay MS              delay before each response, in milliseconds [default: 0]
  --review MS             how long each step of the CA takes, in milliseconds [default: 5000]
  --certificate ID=STATE  begin with a certificate in a state, such as ISSUED or CHECKING_DOMAIN
  --csr ID                begin with a CSR for www.example.com; the id has 32 characters
  --sts ADDR              also emulate STS, which exchanges an OIDC token for temporary credentials
  --pod-identity ADDR     also emulate the pod identity agent of CCE
  --metadata ADDR         also emulate the metadata service of an ECS with an agency
  --token-folder FOLDER   write the tokens for STS and the agent to this folder [default: the temporary folder]
  --token-validity S      how long a token is valid, in seconds; it is replaced after 80 % [default: 3600]
  --validity S            how long temporary credentials are valid, in seconds [default: as requested, 1 h or 24 h]
  --help                  show this text

There are four certificates to begin with:
  scs1000000000001   PAID, DV, one domain
  scs1000000000002   PAID, OV, ten domains
  scs1000000000003   ISSUED, DV, ten domains
  scs1000000000004   UPLOAD: imported

Every other certificate id of scs and 13 digits exists, too: PAID, DV, ten domains. Some always fail:
  scs0000000000403   belongs to another tenant
  scs0000000000404   does not exist
  scs0000000000412   is already issued: a save is rejected
  scs0000000000429   is throttled: retry after a second
  scs0000000000504   never gets a response: DEADLINE_EXCEEDED

An application moves from CHECKING_DOMAIN, with OV and EV over CHECKING_ORG, to ISSUING and ISSUED, a step at a time. The
CA refuses domains below .invalid: UNPASSED. Revocations, withdrawals and additional domains take one step. A push to the
project nowhere fails, and a deployment to the resource nowhere.

With --sts, --pod-identity or --metadata, the variables that the program prints have no access key: the gateway gets
temporary credentials. Tokens have no valid signature, and the emulator checks none.";

/// The arguments, with a default for each that is not given.
pub(crate) struct Arguments {
    pub(crate) listen: SocketAddr,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) account: Account,
    pub(crate) service_time: Duration,
    pub(crate) review_step: Duration,
    pub(crate) certificates: Vec<Seed>,
    pub(crate) csrs: Vec<String>,
    pub(crate) temporary: Temporary,
}

/// The arguments of the services that issue temporary credentials.
pub(crate) struct Temporary {
    pub(crate) sts: Option<SocketAddr>,
    pub(crate) pod_identity: Option<SocketAddr>,
    pub(crate) metadata: Option<SocketAddr>,
    pub(crate) token_folder: PathBuf,
    pub(crate) token_validity: Duration,
    pub(crate) validity: Option<Duration>,
}

impl Temporary {
    /// Returns whether any service is emulated.
    pub(crate) fn is_any(&self) -> bool {
        self.sts.or(self.pod_identity).or(self.metadata).is_some()
    }
}

/// Parses the arguments. Returns `None` for `--help`.
pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let mut parsed = Arguments {
        listen: SocketAddr::from(([127, 0, 0, 1], 18_080)),
        authority: None,
        account: Account::sample(),
        service_time: Duration::ZERO,
        review_step: Options::default().review_step,
        certificates: Vec::new(),
        csrs: Vec::new(),
        temporary: Temporary {
            sts: None,
            pod_identity: None,
            metadata: None,
            token_folder: std::env::temp_dir(),
            token_validity: Duration::from_secs(3600),
            validity: None,
        },
    };
    let mut of_services = None;
    while let Some(argument) = args.next() {
        if ["--token-folder", "--token-validity", "--validity"].contains(&argument.as_str()) {
            of_services = Some(argument.clone());
        }
        let mut value = || args.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--listen" => parsed.listen = address(&argument, &value()?)?,
            "--tls" => parsed.authority = Some(value()?.into()),
            "--key" => {
                let key = value()?;
                let (access_key, secret_key) = key.split_once(':').ok_or("--key expects AK:SK")?;
                parsed.account.access_key = access_key.to_owned();
                parsed.account.secret_key = secret_key.to_owned();
            }
            "--delay" => parsed.service_time = milliseconds(&argument, &value()?)?,
            "--review" => parsed.review_step = milliseconds(&argument, &value()?)?,
            "--certificate" => parsed.certificates.push(certificate(&value()?)?),
            "--csr" => {
                let id = Some(value()?).filter(|id| id.len() == 32);
                parsed.csrs.push(id.ok_or("--csr expects 32 characters")?);
            }
            "--sts" => parsed.temporary.sts = Some(address(&argument, &value()?)?),
            "--pod-identity" => parsed.temporary.pod_identity = Some(address(&argument, &value()?)?),
            "--metadata" => parsed.temporary.metadata = Some(address(&argument, &value()?)?),
            "--token-folder" => parsed.temporary.token_folder = value()?.into(),
            "--token-validity" => parsed.temporary.token_validity = seconds(&argument, &value()?)?,
            "--validity" => parsed.temporary.validity = Some(seconds(&argument, &value()?)?),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    match of_services.filter(|_| !parsed.temporary.is_any()) {
        Some(argument) => Err(format!("{argument} needs --sts, --pod-identity or --metadata")),
        None => Ok(Some(parsed)),
    }
}

fn address(argument: &str, value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("{argument} expects an address with a port, not {value}"))
}

fn milliseconds(argument: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse().map_err(|_| format!("{argument} expects milliseconds"))?;
    Ok(Duration::from_millis(number))
}

fn seconds(argument: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.map(Duration::from_secs).ok_or(format!("{argument} expects a number of seconds"))
}

fn certificate(value: &str) -> Result<Seed, String> {
    let (id, state) = value.split_once('=').ok_or("--certificate expects ID=STATE")?;
    Ok(Seed::new(id).status(state.parse()?))
}
