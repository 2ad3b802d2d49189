"""The topics: the only place where the two services meet."""

NOTIFICATION_EVENTS = "notification-events-topic"
NOTIFICATION_STATUS = "notification-status-topic"
EMAIL_DEAD_LETTERS = "email-dlq-topic"
NOTIFICATION_DEAD_LETTERS = "notification-dlq-topic"

ALL = (NOTIFICATION_EVENTS, NOTIFICATION_STATUS, EMAIL_DEAD_LETTERS, NOTIFICATION_DEAD_LETTERS)

PUBLICATION_HEADER = "publication"
"""Kafka header: how often the outbox row was made to be published (1 where absent)."""
