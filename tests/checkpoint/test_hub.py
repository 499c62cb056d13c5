"""Publishing on a hub and fetching from it, by its own library, in a process as users have it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixerkit.checkpoint.hub import reason
from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.pretrained import push_to_hub, save_pretrained
from mixerkit.errors import UserError
from tests import fake_hub

pytest.importorskip("huggingface_hub")

PUSH = """
import sys, mixerkit
model = mixerkit.load(sys.argv[1])
print(mixerkit.push_to_hub(model, "me/tiny", private=True, message="Tiny"))
"""
FETCH = """
import sys, mixerkit
model = mixerkit.from_pretrained("me/tiny", image_size=16)
mixerkit.save_pretrained(model, sys.argv[1])
mixerkit.push_to_hub(model, "me/tiny")
"""


def run(hub: fake_hub.FakeHub, code: str, word: Path, token: str = fake_hub.TOKEN):
    """`code` in a fresh process that knows the hub as a user's would: by the environment."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(hub.root.parent / "home"),
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",  # another protocol, for another service
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    for name in ("MIXERKIT_OFFLINE", "HF_HUB_OFFLINE"):
        environment.pop(name, None)
    command = [sys.executable, "-c", code, str(word)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_published_is_the_folder_and_comes_back(tmp_path, model, preprocess):
    model.preprocess = preprocess
    model.about = {"data": {"source": "clothes"}}
    save_pretrained(model, tmp_path / "tiny")
    with fake_hub.running(tmp_path / "hub") as hub:
        done = run(hub, PUSH, tmp_path / "tiny")
        assert done.returncode == 0, done.stderr
        assert fake_hub.COMMIT in done.stdout
        assert hub.made[0] | {"name": "tiny", "organization": "me"} == hub.made[0]
        assert hub.made[0]["visibility"] == "private" and hub.messages == ["Tiny"]
        assert contents(hub.root / "me" / "tiny") == contents(tmp_path / "tiny")
        done = run(hub, FETCH, tmp_path / "again")
        assert done.returncode == 0, done.stderr
        assert len(hub.made) == 1 and hub.messages == ["Tiny", "Add the model"]
        # the card names the folder that it is for
        expected = contents(tmp_path / "again")
        expected["README.md"] = expected["README.md"].replace(b"again", b"tiny")
        assert contents(hub.root / "me" / "tiny") == expected
    again = load(tmp_path / "again")
    assert again.config.image_size == 16 and again.preprocess.class_names == ("a", "b", "c")


def test_without_permission_nothing_is_made_and_the_reason_is_said(tmp_path, model, preprocess):
    model.preprocess = preprocess
    save_pretrained(model, tmp_path / "tiny")
    with fake_hub.running(tmp_path / "hub") as hub:
        done = run(hub, PUSH, tmp_path / "tiny", token="hf_wrong")
    assert done.returncode and "UserError: me/tiny could not be published" in done.stderr
    assert "401" in done.stderr and not hub.made and not hub.root.exists()


@pytest.mark.parametrize("name", ["tiny", "me/tiny@main", "me/tiny/x", "../tiny", ""])
def test_only_org_and_name_are_a_place_to_publish_at(model, name):
    with pytest.raises(UserError, match=f"Expected ORG/NAME, found '{name}'"):
        push_to_hub(model, name)


def test_offline_nothing_is_published(model, monkeypatch):
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    with pytest.raises(UserError, match="MIXERKIT_OFFLINE forbids to publish me/tiny"):
        push_to_hub(model, "me/tiny")


def test_the_reason_of_a_refusal_is_said_with_what_is_behind_it():
    refused = RuntimeError("Error while uploading 'model.safetensors'.\nSee the log.")
    refused.__cause__ = ValueError("413 Too Large")
    assert reason(refused) == "Error while uploading 'model.safetensors'. (413 Too Large)"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"
