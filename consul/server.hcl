# A Consul server on a manager's host: /etc/consul.d/server.hcl. Three of them, five for large swarms.
server           = true
bootstrap_expect = 3
data_dir         = "/var/lib/consul"
bind_addr        = "{{ GetPrivateIP }}"
client_addr      = "127.0.0.1"
retry_join       = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]

# `ui = true` is understood by every version to date; newer ones also take `ui_config { enabled = true }`.
ui = true

# Elections within a second or so. With Consul's default of 5, set swarmkeeper's `election: slow`.
performance {
  raft_multiplier = 1
}

# A restarted server must stay a member, or the quorum shrinks at every restart.
leave_on_terminate = false
