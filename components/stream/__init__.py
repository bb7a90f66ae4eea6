"""The stream: a small contract over Kafka, its Kafka implementation, and one in memory for in-process loops."""
