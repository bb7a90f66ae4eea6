"""Notices: what people want to hear of, sent to webhooks from an outbox that survives crashes."""
