"""The journal holds each event once, however often the run was killed."""

from pathlib import Path

from reallm.training.journal import Journal, read_journal


def test_what_will_happen_again_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin(update=0, epochs_done=0)
    for update in (1, 2):
        journal.write("train", update, 1, {"loss": 1.0 / update})
    journal.write("validation", 2, 1, {"wer": 50.0})
    journal.write("train", 3, 2, {"loss": 0.1})
    journal.write("validation", 3, 2, {"wer": 40.0})
    journal.close()
    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"kind": "train", "upd')
    assert len(read_journal(tmp_path)) == 5

    again = Journal(tmp_path)
    again.begin(update=2, epochs_done=1)
    again.close()
    assert [(line["kind"], line["update"]) for line in read_journal(tmp_path)] == [("train", 1), ("train", 2), ("validation", 2)]

    again.begin(update=2, epochs_done=0)
    again.close()
    assert [(line["kind"], line["update"]) for line in read_journal(tmp_path)] == [("train", 1), ("train", 2)]


def test_seconds_go_on(tmp_path: Path) -> None:
    (tmp_path / "train_log.jsonl").write_text('{"kind": "train", "update": 1, "epoch": 1, "seconds": 100.0, "loss": 1}\n')
    journal = Journal(tmp_path)
    journal.begin(update=1, epochs_done=0)
    journal.write("train", 2, 1, {"loss": 0.5})
    journal.close()
    assert 100 <= read_journal(tmp_path)[-1]["seconds"] < 110


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == []
