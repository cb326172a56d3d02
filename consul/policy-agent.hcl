# ACL policy of an agent on a worker, which never leads: it reads what the leader publishes and writes its own report.
service_prefix "" { policy = "write" }
node_prefix    "" { policy = "read" }
agent    "<node>" { policy = "read" }
key_prefix "swarmkeeper/v1/<cluster>/" { policy = "read" }
key_prefix "swarmkeeper/v1/<cluster>/nodes/<node>" { policy = "write" }
