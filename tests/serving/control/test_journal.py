from serving.control.journal import Journal
from serving.rollout.replay import Looked


def test_lines_of_a_crash_are_cut_off(tmp_path):
    journal = Journal(tmp_path, "r", 0)
    for at in range(3):
        assert journal.append(Looked(at=float(at))) == at + 1
    again = Journal(tmp_path, "r", 2)
    again.append(Looked(at=9.0))
    lines = again.path.read_bytes().splitlines()
    assert [b'"at":0.0' in lines[0], b'"at":1.0' in lines[1], b'"at":9.0' in lines[2], len(lines)] == [
        True,
        True,
        True,
        3,
    ]


def test_a_half_written_line_is_cut_off(tmp_path):
    journal = Journal(tmp_path, "r", 0)
    journal.append(Looked(at=1.0))
    with journal.path.open("ab") as file:
        file.write(b'{"kind":"evid')
    assert len(Journal(tmp_path, "r", 1).path.read_bytes().splitlines()) == 1


def test_missing_lines_are_said(tmp_path, caplog):
    Journal(tmp_path, "r", 2)
    assert "0 lines of 2" in caplog.text


def test_the_digest_changes_with_the_content(tmp_path):
    journal = Journal(tmp_path, "r", 0)
    journal.append(Looked(at=1.0))
    before = journal.digest()
    journal.append(Looked(at=2.0))
    assert journal.digest() != before
