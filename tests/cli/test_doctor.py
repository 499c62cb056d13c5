import json

from mixerkit.cli import doctor


def test_doctor_says_what_is_here(mixer):
    code, out, err = mixer("doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and set(found) == set(doctor.CHECKS)
    assert found["threads"] >= 1 and "torch" in found["versions"]
    assert mixer("doctor")[0] == 0


def test_a_broken_part_does_not_hide_the_others(mixer, monkeypatch):
    def broken():
        raise RuntimeError("driver too old")

    monkeypatch.setitem(doctor.CHECKS, "devices", broken)
    code, out, _ = mixer("doctor")
    assert code == 0 and "not found: driver too old" in out and "python" in out
