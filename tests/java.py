"""The environment of a Kafka that tests start: it lives too briefly for what Java's second compiler takes to pay."""

ENVIRONMENT = {"KAFKA_HEAP": "256m", "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"}
