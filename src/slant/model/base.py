"""Base models: where they come from and how they are loaded.

Whatever a configuration names (the embedded model, a Hugging Face folder, a hub id) becomes a local
folder of safetensors first; everything after that knows folders only. Pickled weights and code from
a model's repository are never loaded.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from slant.artifacts import digest_file, digest_json
from slant.errors import ModelError, SlantError, UsageError, did_you_mean
from slant.model.embedded import EMBEDDED, prepare_embedded
from slant.model.license import LICENSE_PATTERNS
from slant.progress import Progress
from slant.task.verbalizer import encode_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "TOKENIZER_FILES",
    "BaseModel",
    "cast_weights",
    "computes_bfloat16",
    "find_model_folder",
    "find_pad_id",
    "find_tokenizer",
    "load_causal_lm",
    "load_tokenizer",
    "pick_device",
    "quiet_transformers",
    "resolve_base",
    "resolve_dtype",
]

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "tokenizer.model",
    "added_tokens.json",
    "chat_template.jinja",
)


_MODEL_FILES = ("*.safetensors", "*.json", "tokenizer.model", "README.md", *LICENSE_PATTERNS)
_DTYPES = ("bfloat16", "float16", "float32")
_UNASSIGNED = "\U0010fffd"
"""A character that no vocabulary has: a tokenizer that knows no bytes says "unknown" to it."""


@dataclass(frozen=True)
class BaseModel:
    """A base model on disk.

    Attributes:
        name: that it was asked for by.
        folder: where it lies.
        digest: of its content.
        is_local: whether ``name`` is that of a folder, and means nothing on other machines.
    """

    name: str
    folder: Path
    digest: str
    is_local: bool = False


def find_model_folder(
    name: str,
    *,
    revision: str | None,
    start: Path,
    progress: Progress,
    where: str = "model.base",
) -> Path:
    """The folder of a model, or of an adapter; brought onto this machine if need be.

    Args:
        name: as ``resolve_base`` takes it, and likewise the rest.

    Raises:
        UsageError: ``name`` is no embedded model, no folder and no hub id.
        ModelError: the hub does not have it.
    """
    if name in EMBEDDED:
        return prepare_embedded(name, progress)
    if (start / name).is_dir():
        return start / name
    return _download(name, revision, where=where)


def resolve_base(
    name: str,
    *,
    revision: str | None,
    start: Path,
    progress: Progress,
    where: str = "model.base",
) -> BaseModel:
    """Bring a base model onto this machine and take its digest.

    Args:
        name: an embedded model, a Hugging Face folder (relative to ``start``) or a hub id.
        revision: commit or tag of a hub id.
        start: folder that a relative path starts from.
        progress: told of conversions and downloads.
        where: what named it, for errors.

    Raises:
        UsageError: ``name`` is no embedded model, no folder and no hub id.
        ModelError: the hub does not have it, or it holds no safetensors or no fast tokenizer.
    """
    folder = find_model_folder(name, revision=revision, start=start, progress=progress, where=where)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{folder}: holds no *.safetensors",
            hint="slant loads no pickled weights; convert them with save_pretrained first.",
        )
    files = [*weights, folder / "config.json", folder / "tokenizer.json"]
    for file in files:
        if not file.is_file():
            raise ModelError(f"{folder}: holds no {file.name}")
    digest = digest_json({file.name: digest_file(file) for file in files})
    return BaseModel(name, folder, digest, name not in EMBEDDED and (start / name).is_dir())


def _download(
    name: str,
    revision: str | None,
    files: Sequence[str] = _MODEL_FILES,
    where: str = "model.base",
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    known = f"{did_you_mean(name, EMBEDDED)}"
    hint = (
        f"Name an embedded model ({', '.join(EMBEDDED)}), an existing Hugging Face folder, or a "
        "hub id such as mistralai/Mistral-7B-v0.3 (a network is needed the first time)."
    )
    if "/" not in name or name.startswith((".", "/", "~")):
        raise UsageError(f"{where}: there is no base model {name!r}{known}", hint=hint)
    try:
        # Sub-folders hold other formats; consolidated*.safetensors are the same weights again.
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(files),
            ignore_patterns=["*/*", "consolidated*"],
        )
        return Path(folder)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{where}: {name!r} is neither a folder nor to be had from the hub{known} ({reason})",
            hint=hint,
        ) from error


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder; raises ModelError where it has no ``tokenizer.json``."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder}: holds no tokenizer.json")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"{path}: cannot be read: {error}") from error
    # The file may carry the settings of whoever saved it; they would cut and fill our texts.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def find_pad_id(tokenizer: Tokenizer, folder: Path) -> int:
    """The token that fills batches: a special one, which no text is ever encoded to.

    slant masks what is filled. A sequence classifier of transformers reads the last token that is
    not this one, and would pass over the end of a text that ended in it.

    Returns:
        The padding token of the folder's ``config.json``, or else the one that ends a text there,
        if they are such tokens; else the first of the tokenizer that is.

    Raises:
        ModelError: the tokenizer has none.
    """
    config = json.loads((folder / "config.json").read_text("utf-8"))
    special = tokenizer.get_added_tokens_decoder()
    unused = [
        token_id
        for token_id, token in sorted(special.items())
        if token.special and token_id not in encode_text(tokenizer, _UNASSIGNED + token.content)
    ]
    for name in ("pad_token_id", "eos_token_id"):
        value = config.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if type(value) is int and value in unused:
            return value
    if unused:
        return unused[0]
    raise ModelError(
        f"{folder}: its tokenizer has no special token that could fill batches",
        hint="Give it one: tokenizer.add_special_tokens({'pad_token': '<pad>'}), and "
        "model.resize_token_embeddings(len(tokenizer)).",
    )


def find_tokenizer(
    name: str, *, revision: str | None, start: Path, progress: Progress
) -> Tokenizer | None:
    """The tokenizer of a base model, without its weights where they would have to be downloaded.

    Args:
        name: as ``resolve_base`` takes it, and likewise the rest.

    Returns:
        None where it is not to be had, for whatever reason: ``resolve_base`` says why.
    """
    try:
        if name in EMBEDDED:
            return load_tokenizer(prepare_embedded(name, progress))
        if (start / name).is_dir():
            return load_tokenizer(start / name)
        return load_tokenizer(_download(name, revision, ["tokenizer.json"]))
    except SlantError:
        return None


def cast_weights(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The model, changed in place, with weights in ``dtype``, as one that is loaded in it.

    ``model.to(dtype)`` would also round the frequencies that positions turn by (``inv_freq``, no
    parameter): on Gemma 3 270M that moves logits at 200 tokens by 0.6 on the average.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def load_causal_lm(
    folder: Path, *, dtype: torch.dtype, quantize: str = "none", device: str = "cpu"
) -> PreTrainedModel:
    """Load a causal language model from a folder, in evaluation mode, on ``device``.

    Args:
        folder: a Hugging Face folder with safetensors.
        dtype: of the weights and of the arithmetic.
        quantize: ``"nf4"`` keeps linear weights in 4 bits (double-quantised NF4, QLoRA).
        device: ``"cpu"``, ``"cuda"``, ``"mps"``.

    Raises:
        ModelError: the folder cannot be loaded by transformers, lacks weights or wants code of its
            own to be run, or bitsandbytes is missing.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {
        "dtype": dtype,
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    if quantize == "nf4":
        options["quantization_config"] = _nf4(dtype)
    try:
        with quiet_transformers():
            model, info = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # transformers, safetensors and the hub's library raise their own
        raise ModelError(
            f"{folder}: cannot be loaded as a causal language model: {error}"
        ) from error
    # transformers fills what is missing with random numbers and goes on.
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"{folder}: lacks weights of a causal language model ({', '.join(missing[:3])}"
            f"{', …' if len(missing) > 3 else ''})",
            hint="Is it a classifier, an embedding model, or half downloaded?",
        )
    if "lm_head.bias" in info["unexpected_keys"]:
        raise ModelError(f"{folder}: holds lm_head.bias, which {type(model).__name__} does not add")
    model.config.use_cache = False
    loaded: PreTrainedModel = model.eval()
    return loaded if quantize == "nf4" else loaded.to(device)


def _nf4(dtype: torch.dtype) -> Any:
    try:
        with quiet_transformers():
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "model.quantize: nf4 needs bitsandbytes, which is not installed",
            hint="pip install 'slant[nf4]'",
        ) from error
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def pick_device() -> str:
    """``"cuda"`` where there is a GPU, else ``"cpu"``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def computes_bfloat16() -> bool:
    """Whether the device that would be used multiplies bfloat16 in hardware."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        flags = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags


def resolve_dtype(name: str) -> torch.dtype:
    """The dtype that ``model.dtype`` names; ``auto`` is bfloat16 where the hardware has it.

    Raises:
        ModelError: there is no such dtype.
    """
    import torch

    known = ("auto", *_DTYPES)
    if name not in known:
        raise ModelError(
            f"there is no dtype {name!r}{did_you_mean(name, known)}",
            hint=f"The dtypes are {', '.join(known)}.",
        )
    if name == "auto":
        return torch.bfloat16 if computes_bfloat16() else torch.float32
    dtype: torch.dtype = getattr(torch, name)
    return dtype


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own bars and advice out of slant's output while it loads or saves."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    # bitsandbytes says what it did not find when it is imported, and peft imports it.
    quantizer = logging.getLogger("bitsandbytes")
    quantizer_level = quantizer.level
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    quantizer.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # PEFT calls what transformers is about to rename; neither is the reader's doing.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        quantizer.setLevel(quantizer_level)
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
