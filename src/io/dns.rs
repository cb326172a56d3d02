//! Names as one DNS server answers them, such as Consul's on port 8600; the system's resolver is not asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

/// Longest wait for an answer; a dead server costs this much and no more, since it is asked once.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server said or did not say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server knows no address of that name.
    #[error("{server} knows no address of {name}")]
    Unknown {
        /// The server.
        server: SocketAddr,
        /// The name.
        name: String,
    },
    /// No answer, or one that cannot be read.
    #[error("{server} did not answer for {name}: {reason}")]
    NoAnswer {
        /// The server.
        server: SocketAddr,
        /// The name.
        name: String,
        /// What happened instead.
        reason: String,
    },
}

/// The addresses of `name` at `server`, over UDP and, for long answers, TCP.
pub async fn addresses(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, Error> {
    let no_answer = |reason: String| Error::NoAnswer { server, name: name.to_owned(), reason };
    let resolver = resolver(server).map_err(|error| no_answer(error.to_string()))?;
    // The final dot keeps the resolver from trying search domains.
    match resolver.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await {
        Ok(answer) => Ok(answer.iter().collect()),
        Err(error) if error.is_no_records_found() => Err(Error::Unknown { server, name: name.to_owned() }),
        Err(error) => Err(no_answer(error.to_string())),
    }
}

fn resolver(server: SocketAddr) -> Result<Resolver<TokioRuntimeProvider>, hickory_resolver::net::NetError> {
    let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut name_server.connections {
        connection.port = server.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    // Without EDNS Consul answers 6 of 40 records.
    options.edns0 = true;
    builder.build()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, RecordType, rdata::A};
    use tokio::net::UdpSocket;

    use super::*;

    /// A server that knows `swarmkeeper.service.consul` only.
    async fn serve(socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_vec(&buffer[..length]).unwrap();
            let query = request.queries[0].clone();
            let mut response = request.into_response();
            if query.name().to_utf8() != "swarmkeeper.service.consul." {
                response.metadata.response_code = ResponseCode::NXDomain;
            } else if query.query_type() == RecordType::A {
                response.add_answer(Record::from_rdata(query.name().clone(), 0, RData::A(A::new(10, 0, 0, 7))));
            }
            socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_known_name_has_addresses_and_an_unknown_one_is_named() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = socket.local_addr().unwrap();
        tokio::spawn(serve(socket));
        let known = addresses(server, "swarmkeeper.service.consul").await.unwrap();
        assert_eq!(known, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
        let unknown = addresses(server, "nobody.service.consul.").await.unwrap_err();
        assert_eq!(unknown.to_string(), format!("{server} knows no address of nobody.service.consul."));
    }

    #[tokio::test]
    async fn a_dead_server_costs_one_timeout() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let started = std::time::Instant::now();
        let error = addresses(socket.local_addr().unwrap(), "x.service.consul").await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
        assert!(started.elapsed() < QUERY_TIMEOUT * 3, "{:?}", started.elapsed());
    }
}
