# A Consul client on a worker's host: /etc/consul.d/client.hcl.
data_dir    = "/var/lib/consul"
bind_addr   = "{{ GetPrivateIP }}"
client_addr = "127.0.0.1"
retry_join  = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]

performance {
  raft_multiplier = 1
}

# A restarted node stays a member: what runs on it keeps its registrations.
leave_on_terminate = false

# --- Security: uncomment what you have made the keys for. Every node needs the same. ---

# Gossip between Consul's agents, encrypted; `consul keygen` makes the key, and all nodes share it. Into a running cluster it comes in
# three restarts of every agent: first with both lines below false, then with outgoing true, then with incoming true.
# encrypt                 = "…"
# encrypt_verify_incoming = true
# encrypt_verify_outgoing = true

# TLS. The CA once: `consul tls ca create`; then on each client `consul tls cert create -client -dc dc1` (dc1-client-consul-0.pem).
# For swarmkeeper: `consul tls cert create -client`, and on each node
#   CONSUL_HTTP_ADDR=https://127.0.0.1:8501  CONSUL_CACERT=…/consul-agent-ca.pem  CONSUL_CLIENT_CERT=….pem  CONSUL_CLIENT_KEY=…-key.pem
# Consul 1.12 and newer prefer the same keys in a block `tls { defaults { … } }`, and take these.
# ca_file                = "/etc/consul.d/consul-agent-ca.pem"
# cert_file              = "/etc/consul.d/dc1-client-consul-0.pem"
# key_file               = "/etc/consul.d/dc1-client-consul-0-key.pem"
# verify_incoming        = true      # also of HTTPS: who shows no certificate is not spoken to
# verify_outgoing        = true
# verify_server_hostname = true
# ports { https = 8501, http = -1 }  # http off: a process on the node needs a certificate too

# Instead of TCP on loopback, a socket that only one group may open: CONSUL_HTTP_ADDR=unix:///run/consul/consul.sock
# With TLS as well, `ports.http` above must then not be -1, which turns the socket off, too.
# addresses    { http = "unix:///run/consul/consul.sock" }
# unix_sockets { group = "…", mode = "0660" }

# ACLs: deny what no policy allows. `consul acl bootstrap` gives the first token, `swarmkeeper consul policies --node NODE` the policies.
# In the agent's own token (`tokens.agent`): node "<node>" { policy = "write" }, service_prefix "" { policy = "read" }. For Consul's DNS
# to answer, the anonymous token needs service_prefix "" and node_prefix "" with policy read.
# acl {
#   enabled                  = true
#   default_policy           = "deny"
#   enable_token_persistence = true
# }
