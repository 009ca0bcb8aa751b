"""The operations, one module a topic. Every module here is imported at start; `awsim.registry` says how to add one."""
