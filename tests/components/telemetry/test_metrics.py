from prometheus_client import CollectorRegistry, generate_latest

from components.stream.contract import TopicPartition
from components.telemetry.metrics import GaugesOfStore, LabelerMetrics, LinkOfStore


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"cohobate_{name}", {"workload": "w", **labels})


def test_what_a_labeler_counts_has_its_name_and_workload():
    metrics = LabelerMetrics("w")
    metrics.consumed.inc(5)
    metrics.labelled.inc(3)
    metrics.duplicates.inc()
    metrics.dead("oversize")
    metrics.dead("undecodable", 2)
    metrics.teacher_failed("timeout")
    assert (value(metrics, "inputs_total"), value(metrics, "labels_total")) == (5, 3)
    assert value(metrics, "duplicates_total") == 1
    assert value(metrics, "dead_letters_total", reason="oversize") == 1
    assert value(metrics, "dead_letters_total", reason="undecodable") == 2
    assert value(metrics, "teacher_failures_total", reason="timeout") == 1


def test_durations_are_seconds_and_sizes_inputs():
    metrics = LabelerMetrics("w")
    metrics.batch_size.observe(64)
    metrics.commit_seconds.observe(0.02)
    metrics.delay_seconds.observe(0.4)
    with metrics.teacher_seconds.time():
        pass
    for name in ("label_batch_size", "commit_seconds", "label_delay_seconds", "teacher_seconds"):
        assert value(metrics, f"{name}_count") == 1
    assert value(metrics, "label_batch_size_bucket", le="64.0") == 1
    assert value(metrics, "label_batch_size_bucket", le="32.0") == 0


def test_lag_is_by_partition_and_forgets_what_went_to_another_labeler():
    metrics, first, second = LabelerMetrics("w"), TopicPartition("w.inputs", 0), TopicPartition("w.inputs", 1)
    metrics.lag({first: 10, second: 7}, {first: 4, second: 7})
    assert value(metrics, "consumer_records_lag", topic="w.inputs", partition="0") == 6
    assert value(metrics, "consumer_records_lag", topic="w.inputs", partition="1") == 0
    metrics.lag({first: 10}, {first: 10})
    assert value(metrics, "consumer_records_lag", topic="w.inputs", partition="0") == 0
    assert value(metrics, "consumer_records_lag", topic="w.inputs", partition="1") is None


def test_states_and_budgets():
    metrics = LabelerMetrics("w")
    metrics.breaker("open")
    metrics.paused.set(1)
    metrics.decided(["audit", "drawn", "drawn"])
    assert value(metrics, "label_decisions_total", reason="drawn") == 2
    metrics.budget_left("calls", "hour", 12)
    states = {s: value(metrics, "teacher_breaker_state", cohobate_teacher_breaker_state=s) for s in ("closed", "open")}
    assert states == {"closed": 0, "open": 1}
    assert value(metrics, "paused") == 1 and value(metrics, "label_budget_left", unit="calls", window="hour") == 12


def test_two_labelers_of_a_process_do_not_meet():
    one, two = LabelerMetrics("w"), LabelerMetrics("w")
    one.labelled.inc()
    assert value(two, "labels_total") == 0


def test_what_workers_reported_is_read_when_asked():
    reports = {}
    registry = CollectorRegistry()
    registry.register(GaugesOfStore("w", lambda: reports))
    reports["drift"] = {"distance": 0.25, "verdict": "ok", "alarm": True}
    text = generate_latest(registry).decode()
    assert 'cohobate_reported{field="distance",report="drift",workload="w"} 0.25' in text
    assert 'field="alarm"' in text and "verdict" not in text


def test_the_link_that_rolls_back_is_a_label_where_there_is_one():
    links = [""]
    registry = CollectorRegistry()
    registry.register(LinkOfStore("w", lambda: links[-1]))
    assert "cohobate_rollback_link_info{" not in generate_latest(registry).decode()
    links.append('https://ui.example/"pipeline"#/runs/new?pipelineId=p')
    text = generate_latest(registry).decode()
    url = r"https://ui.example/\"pipeline\"#/runs/new?pipelineId=p"
    assert f'cohobate_rollback_link_info{{url="{url}",workload="w"}} 1.0' in text
