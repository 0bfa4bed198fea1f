from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slant.model.base import load_causal_lm
from slant.model.folder import save_causal_lm
from slant.model.license import (
    License,
    copy_adapter_license,
    copy_license,
    join_licenses,
    read_license,
)
from tiny_stages import save_base


def write_card(folder: Path, front_matter: str, name: str = "README.md") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"---\n{front_matter}---\n# A model\n", "utf-8")


def test_the_license_is_the_one_that_the_card_names(tmp_path: Path) -> None:
    write_card(tmp_path, "license: apache-2.0\ntags: [a, b]\n")
    assert read_license("org/model", tmp_path) == License("apache-2.0")


def test_a_license_with_a_name_of_its_own_keeps_name_and_link(tmp_path: Path) -> None:
    named = "license: other\nlicense_name: mine\nlicense_link: "
    write_card(tmp_path, f"{named}https://a.example/license\n")
    found = read_license("org/model", tmp_path)
    assert found == License("other", "mine", "https://a.example/license")
    write_card(tmp_path, f"{named}LICENSE.md\n")  # in its own repository
    assert read_license("org/model", tmp_path) == License("other", "mine")


@pytest.mark.parametrize(
    "front_matter",
    ["tags: [a]\n", "license: [a, b]\n", "license: {{\n", "- a\n", "", "no: no: no\n"],
)
def test_a_card_that_names_none_or_cannot_be_read_gives_none(
    front_matter: str, tmp_path: Path
) -> None:
    write_card(tmp_path, front_matter)
    assert read_license("org/model", tmp_path) is None


def test_a_card_without_front_matter_gives_none(tmp_path: Path) -> None:
    assert read_license("org/model", tmp_path) is None
    (tmp_path / "README.md").write_bytes(b"# \xff\xfe\n\nlicense: mit\n---\n")
    assert read_license("org/model", tmp_path) is None


def test_gemma_is_known_without_a_card(tmp_path: Path) -> None:
    found = read_license("gemma-3-270m", tmp_path)
    assert found == License("gemma", link="https://ai.google.dev/gemma/terms")
    assert read_license("someone/gemma-like", tmp_path) is None


def test_a_license_goes_along_through_every_folder_that_is_written(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base").folder
    write_card(base, "license: llama3\n")
    (base / "LICENSE.txt").write_text("You may.")
    (base / "USE_POLICY.md").write_text("But not that.")
    adapted, exported = tmp_path / "adapted", tmp_path / "exported"
    model = load_causal_lm(base, dtype=torch.float32)
    save_causal_lm(model, base, adapted)
    save_causal_lm(model, adapted, exported)
    assert read_license("org/model", exported) == License("llama3")
    assert (exported / "BASE_MODEL.md").read_bytes() == (base / "README.md").read_bytes()
    assert (exported / "LICENSE.txt").read_text() == "You may."
    assert (exported / "USE_POLICY.md").read_text() == "But not that."
    # The base's card is not that of what was made of it.
    assert not (exported / "README.md").exists()


def test_what_is_made_of_an_adapter_has_its_licence_and_that_of_its_base(tmp_path: Path) -> None:
    base, adapter, made, again = (tmp_path / name for name in ("base", "adapter", "made", "again"))
    for folder, license_ in ((base, "llama3"), (adapter, "cc-by-nc-4.0")):
        write_card(folder, f"license: {license_}\n")
        (folder / "LICENSE").write_text(license_)
    made.mkdir()
    copy_license(base, made)
    copy_adapter_license(adapter, made)
    assert read_license("org/model", made) == License("other", "cc-by-nc-4.0-and-llama3")
    again.mkdir()
    copy_license(made, again)
    assert read_license("org/model", again) == License("other", "cc-by-nc-4.0-and-llama3")
    assert (again / "LICENSE").read_text() == "llama3"
    assert (again / "ADAPTER_LICENSE").read_text() == "cc-by-nc-4.0"


def test_two_licences_are_one_where_they_are_the_same_or_only_one_is_known() -> None:
    mit = License("mit")
    assert join_licenses(mit, None) == join_licenses(None, mit) == join_licenses(mit, mit) == mit
    assert join_licenses(None, None) is None


def test_a_folder_without_any_gives_none_along(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    copy_license(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
