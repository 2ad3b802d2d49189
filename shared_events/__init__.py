"""What both services share: contracts, Kafka, the outbox, dead letters. It imports neither project.

Layers from low to high, a lower one never imports an upper one (held by ruff): contracts < kafka < outbox < dead_letters < service.
`runtime` stands beside them and imports none of them.
"""
