from components.control.links import note_rollback_link, rollback_link


def test_the_newest_link_of_a_workload_is_given_until_there_is_none(store):
    assert rollback_link(store, "files") == ""
    note_rollback_link(store, "files", "https://one")
    note_rollback_link(store, "files", "https://two")
    note_rollback_link(store, "mail", "https://mail")
    assert (rollback_link(store, "files"), rollback_link(store, "mail")) == ("https://two", "https://mail")
    note_rollback_link(store, "files", "")
    assert (rollback_link(store, "files"), rollback_link(store, "mail")) == ("", "https://mail")
    assert store.gauges("files") == {}
