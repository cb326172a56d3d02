# ACL policy of an agent on a worker, which never leads; `swarmkeeper consul policies` prints it with your names.
service_prefix "" { policy = "write" }                      # registering containers and the agent itself
agent "<node>" { policy = "read" }                          # this agent's address and whether it runs scripts
key_prefix "swarmkeeper/v1/<cluster>/" { policy = "read" }  # what the leader publishes; drains; who leads
