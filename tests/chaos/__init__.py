"""The chaos run: labelers and an Apache Kafka are killed again and again, and no input may be lost or labelled twice.

``python -m tests.chaos --kills 200 --broker-kills 10 --seed 0`` needs the environment variable COHOBATE_TEST_KAFKA
(a folder with the script ``kafka``). What may happen is decided beforehand (:mod:`.schedule`, pure and seeded), made to
happen by :mod:`.conduct`, and judged from the broker's records alone (:mod:`.verdict`, pure).
"""
