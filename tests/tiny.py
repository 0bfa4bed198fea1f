"""2-layer random models of several families with small tokenizers, built in well under a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

BOS, PAD = 256, 257
LABEL_WORDS = ("negative", "neutral", "positive")


def tiny_tokenizer() -> Tokenizer:
    """Every byte is a token; BOS goes before a text, as in Mistral and Gemma."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: i for i, symbol in enumerate(alphabet)}
    vocab |= {"<bos>": BOS, "<pad>": PAD, "<eos>": 258}
    # Label words get a token of their own ("Ġ" is a space), as they have in real vocabularies.
    merges = _add_words(vocab, [f"Ġ{word}" for word in LABEL_WORDS])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special_tokens(tokenizer)


def tiny_spaceless_tokenizer() -> Tokenizer:
    """Merges run across words and lines, with bytes for unknown characters, as in Gemma.

    What a text becomes depends on what follows it, so that cutting one changes its tokens.
    """
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)}
    vocab |= {"<bos>": BOS, "<pad>": PAD, "<eos>": 258, "<unk>": 259}
    for symbol in "▁\n:[]…eaoinstrdlpgvumhcNSвоаеинст":
        vocab[symbol] = len(vocab)
    words = [f"▁{word}" for word in LABEL_WORDS]
    merges = _add_words(
        vocab, [*words, "\n\n", "▁the", "e▁t", "ing▁", "s\n", "в▁с", "то", "[…", "▁▁▁"]
    )
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _with_special_tokens(tokenizer)


def _add_words(vocab: dict[str, int], words: list[str]) -> list[tuple[str, str]]:
    """Put words and their beginnings into ``vocab``; returns the merges that make them."""
    merges = []
    for word in words:
        for end in range(2, len(word) + 1):
            left, right, whole = word[: end - 1], word[end - 1], word[:end]
            if whole not in vocab:
                vocab[whole] = len(vocab)
                merges.append((left, right))
    return merges


def _with_special_tokens(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(["<bos>", "<pad>", "<eos>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BOS)]
    )
    return tokenizer


def tiny_model(kind: str = "mistral", seed: int = 0, **changes: Any) -> Any:
    """A random causal LM: ``mistral``, ``llama``, ``qwen3``, ``gemma3`` (its sliding window is 16
    tokens), or ``granite`` and ``cohere``, which scale their logits."""
    import torch
    import transformers as hf

    config_class, model_class, extra = {
        "mistral": (hf.MistralConfig, hf.MistralForCausalLM, {"sliding_window": None}),
        "llama": (hf.LlamaConfig, hf.LlamaForCausalLM, {}),
        "qwen3": (hf.Qwen3Config, hf.Qwen3ForCausalLM, {}),
        "gemma3": (
            hf.Gemma3TextConfig,
            hf.Gemma3ForCausalLM,
            {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
        ),
        "granite": (hf.GraniteConfig, hf.GraniteForCausalLM, {"logits_scaling": 8.0}),
        "cohere": (hf.CohereConfig, hf.CohereForCausalLM, {"logit_scale": 0.0625}),
    }[kind]
    settings = {
        "vocab_size": tiny_tokenizer().get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": BOS,
        "pad_token_id": PAD,
        "eos_token_id": 258,
    }
    if kind != "cohere":
        settings["head_dim"] = 8
    torch.manual_seed(seed)
    return model_class(config_class(**settings | extra | changes))


def save_tiny_model(folder: Path, seed: int = 0, kind: str = "mistral") -> Path:
    """Write a Hugging Face folder that any of our code loads as a base model."""
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    tiny_model(kind, seed).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
