"""The admin API: who may look at rollouts and order verbs on them, over HTTP, with a record of every action."""
