from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from slant.errors import ModelError, UsageError
from slant.model.base import (
    find_pad_id,
    load_causal_lm,
    load_tokenizer,
    pick_device,
    quiet_transformers,
    resolve_base,
    resolve_dtype,
)
from slant.progress import SilentProgress
from slant.task.verbalizer import encode_text
from tiny import PAD, save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "tiny"))


def resolve(name: str, start: Path):
    return resolve_base(name, revision=None, start=start, progress=SilentProgress())


def test_a_folder_is_found_relative_to_the_project_and_by_its_whole_path(folder):
    relative, absolute = resolve("tiny", folder.parent), resolve(str(folder), Path("/"))
    assert relative.folder == absolute.folder == folder
    assert (relative.name, absolute.name) == ("tiny", str(folder))
    assert relative.digest == absolute.digest


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_the_digest_changes_with_a_byte_of_weights_configuration_or_tokenizer(folder, name):
    before = resolve("tiny", folder.parent).digest
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert resolve("tiny", folder.parent).digest != before


def test_the_digest_is_of_contents_and_not_of_places_or_other_files(folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "README.md").write_text("a card")
    assert resolve("copy", tmp_path).digest == resolve("tiny", tmp_path).digest


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("gemma-3-270", "did you mean 'gemma-3-270m'?"),
        ("gemma3-270m", "did you mean 'gemma-3-270m'?"),
        ("nothing-like-it", ""),
        ("./models/tiny", ""),
        ("~/models/tiny", ""),
    ],
)
def test_an_unknown_name_is_an_error_that_says_what_can_be_named(tmp_path, name, suggestion):
    with pytest.raises(UsageError, match="there is no base model") as raised:
        resolve(name, tmp_path)
    assert repr(name) in raised.value.message
    assert suggestion in raised.value.message
    assert ("did you mean" in raised.value.message) == bool(suggestion)
    assert "gemma-3-270m" in raised.value.hint
    assert "mistralai/Mistral-7B-v0.3" in raised.value.hint


@pytest.mark.parametrize("name", ["no-such-team/no-such-model", "a/b/c", "x/" + "y" * 200])
def test_a_hub_id_that_cannot_be_had_is_an_error_of_one_line_and_a_hint(tmp_path, name):
    script = """
import sys
from pathlib import Path
from slant.errors import ModelError, UsageError
from slant.model.base import resolve_base
from slant.progress import SilentProgress
try:
    resolve_base(sys.argv[1], revision=None, start=Path("."), progress=SilentProgress())
except ModelError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, name],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
    )
    message, hint = done.stdout.splitlines()
    assert f"model.base: {name!r} is neither a folder nor to be had from the hub" in message
    assert "Name an embedded model" in hint


def test_pickled_weights_are_refused(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no \*\.safetensors") as raised:
        resolve("tiny", folder.parent)
    assert "pickled" in raised.value.hint
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_causal_lm(folder, dtype=torch.float32)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused_and_the_file_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"tiny: holds no {name}"):
        resolve("tiny", folder.parent)


def test_a_tokenizer_is_loaded_without_the_padding_and_truncation_of_who_saved_it(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = "a text of more than four tokens"
    assert load_tokenizer(tmp_path).encode(text).ids == tiny_tokenizer().encode(text).ids


@pytest.mark.parametrize(
    ("pad", "eos", "found"),
    [
        (PAD, 258, PAD),
        (None, 258, 258),
        (None, [258, 7], 258),
        (None, None, 256),  # its first special token
        (33, 258, 258),  # a letter
        (99_999, [], 256),
        (True, "x", 256),
        ([PAD], {}, PAD),
    ],
)
def test_batches_are_filled_with_a_special_token_that_no_text_becomes(folder, pad, eos, found):
    edit_config(pad_token_id=pad, eos_token_id=eos)(folder)
    assert find_pad_id(load_tokenizer(folder), folder) == found


def test_a_token_for_what_is_unknown_or_written_out_fills_no_batches(tmp_path):
    vocab = {"<unk>": 0, "<x>": 1, "a": 2, "<": 3, "x": 4, ">": 5, "<x": 6, "<end>": 7}
    model = models.BPE(vocab=vocab, merges=[("<", "x"), ("<x", ">")], unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<x>", "<end>"])
    assert encode_text(tokenizer, "é<x>") == [0, 1]
    (tmp_path / "config.json").write_text('{"pad_token_id": 0, "eos_token_id": 1}')
    assert find_pad_id(tokenizer, tmp_path) == 7


def test_a_tokenizer_without_special_tokens_is_refused_and_not_made_to_fill_with_a_letter(folder):
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    with pytest.raises(ModelError, match="no special token that could fill batches") as raised:
        find_pad_id(tokenizer, folder)
    assert "add_special_tokens" in raised.value.hint


def test_a_name_of_a_folder_is_told_from_one_of_a_hub(folder):
    assert resolve("tiny", folder.parent).is_local


def test_a_tokenizer_that_is_not_there_or_damaged_is_an_error(folder):
    (folder / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelError, match=r"tokenizer\.json: cannot be read"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        load_tokenizer(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_loaded_in_the_dtype_asked_for_and_in_evaluation_mode(saved, dtype):
    model = load_causal_lm(saved, dtype=dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not model.training
    weights = load_file(saved / "model.safetensors")
    loaded = model.state_dict()
    for name, weight in weights.items():
        assert torch.equal(loaded[name], weight.to(dtype))


def damage_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def damage_header(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[9:40] = b"\xff" * 31
    (folder / "model.safetensors").write_bytes(content)


def edit_config(**changes):
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_bias_of_the_head_that_the_architecture_would_leave_out_is_an_error(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.bias"] = torch.ones(len(tensors["model.embed_tokens.weight"]))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"holds lm_head\.bias, which MistralForCausalLM"):
        load_causal_lm(folder, dtype=torch.float32)


@pytest.mark.parametrize(
    "damage",
    [
        damage_weights,
        damage_header,
        drop_a_tensor,
        edit_config(num_hidden_layers=3),
        edit_config(hidden_size=64),
        edit_config(hidden_size="large"),
        edit_config(model_type="no-such-family"),
        edit_config(model_type="bert", architectures=["BertModel"]),
        lambda folder: (folder / "config.json").write_text("{"),
        lambda folder: (folder / "config.json").write_text("[]"),
    ],
)
def test_a_folder_that_is_damaged_or_of_another_kind_is_an_error_and_never_half_random(
    folder, damage
):
    damage(folder)
    with pytest.raises(ModelError, match=str(folder)):
        load_causal_lm(folder, dtype=torch.float32)


def test_code_that_comes_with_a_model_is_never_run_nor_asked_about(folder):
    ran = folder.parent / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    auto_map = {
        "AutoConfig": "modeling_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnModel",
    }
    edit_config(model_type="own", auto_map=auto_map)(folder)
    script = """
import sys, torch
from pathlib import Path
from slant.errors import ModelError, UsageError
from slant.model.base import load_causal_lm
try:
    load_causal_lm(Path(sys.argv[1]), dtype=torch.float32)
except ModelError as error:
    print("ModelError")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        input="y\ny\ny\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "ModelError"
    assert not ran.exists()


def test_without_bitsandbytes_four_bits_are_an_error_that_says_what_to_install(saved):
    pytest.importorskip("torch")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(ModelError, match="nf4 needs bitsandbytes") as raised:
            load_causal_lm(saved, dtype=torch.float32, quantize="nf4")
        assert "slant[nf4]" in raised.value.hint
    else:
        pytest.skip("bitsandbytes is installed")


def test_dtypes_are_known_by_name_and_others_refused():
    assert resolve_dtype("bfloat16") == torch.bfloat16
    assert resolve_dtype("float16") == torch.float16
    assert resolve_dtype("float32") == torch.float32
    assert resolve_dtype("auto") in (torch.bfloat16, torch.float32)
    for name in ("float23", "load", "no_such"):
        with pytest.raises(ModelError, match=f"there is no dtype '{name}'"):
            resolve_dtype(name)


def test_the_device_is_one_that_torch_can_use():
    torch.zeros(1, device=pick_device())


def test_transformers_speaks_again_after_the_block():
    from transformers.utils import logging as hf_logging

    before = (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled())
    with suppress(ZeroDivisionError), quiet_transformers():
        assert not hf_logging.is_progress_bar_enabled()
        raise ZeroDivisionError
    assert (hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()) == before


def test_loading_writes_nothing_to_the_terminal(saved, capfd):
    load_causal_lm(saved, dtype=torch.float32)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
