"""Makes a Whisper model of random weights in all formats, with their own libraries, for scripts/formats.py.

    python scripts/format_models.py OUT WHISPER.CPP english|multilingual

Runs in an environment with torch, transformers, ctranslate2 and openai-whisper, which scripts/formats.py
makes. OUT gets `hf/` (safetensors), `parts/` (the same, sharded), `ct2/`, `ct2-float32/`, `int8/`,
`openai.pt`, and what upstream's own converters make of `hf/` and `openai.pt`: `h5.bin` and `pt.bin`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import ctranslate2
import torch
import whisper
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperForConditionalGeneration

ASSETS = Path(whisper.__file__).parent / "assets"
SIZES = {
    # tiny.en; and base as large-v3 is (bands, words), distilled to two layers, in float32
    "english": (51_864, 80, 384, 4, 4, torch.float16),
    "multilingual": (51_866, 128, 512, 6, 2, torch.float32),
}
LAYERS = {
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "self_attn": "attn",
    "encoder_attn": "cross_attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "layers": "blocks",
    "embed_tokens": "token_embedding",
}


def main() -> None:
    """Make all of them."""
    out, upstream, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    n_vocab, n_mels, state, layers, text_layers, dtype = SIZES[kind]
    torch.manual_seed(7)
    config = WhisperConfig(
        vocab_size=n_vocab,
        num_mel_bins=n_mels,
        d_model=state,
        encoder_layers=layers,
        decoder_layers=text_layers,
        encoder_attention_heads=state // 64,
        decoder_attention_heads=state // 64,
        encoder_ffn_dim=4 * state,
        decoder_ffn_dim=4 * state,
        dtype=dtype,
        suppress_tokens=[],
        begin_suppress_tokens=[],
    )
    model = WhisperForConditionalGeneration(config).to(dtype).eval()
    with torch.no_grad():  # biases and norms are constant in a new model
        for value in model.parameters():
            if value.dim() == 1:
                value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(out / "hf")
    model.save_pretrained(out / "parts", max_shard_size="30MB")
    for folder in ("hf", "parts"):
        save_words(out / folder, kind, n_vocab)
    for folder, quantisation in (("ct2", "float16"), ("ct2-float32", "float32"), ("int8", "int8")):
        loaded = ctranslate2.converters.TransformersConverter(str(out / "hf"))
        loaded.convert(str(out / folder), quantization=quantisation)

    dims = whisper.ModelDimensions(
        n_mels, 1500, state, state // 64, layers, n_vocab, 448, state, state // 64, text_layers
    )
    named = {openai_name(name): value for name, value in model.model.state_dict().items()}
    whisper.model.Whisper(dims).load_state_dict(named, strict=True)  # these names, and all of them
    published = [line for line in (out / "order").read_text().split("\n") if line]
    torch.save(
        {"dims": vars(dims), "model_state_dict": {name: named[name].half() for name in published}},
        out / "openai.pt",
    )
    repository = Path(whisper.__file__).parents[1]  # has whisper/assets, as the converters want
    for script, made, target in (
        ("convert-h5-to-ggml.py", "hf", "h5.bin"),
        ("convert-pt-to-ggml.py", "openai.pt", "pt.bin"),
    ):
        converter = upstream / "models" / script
        command = [sys.executable, *map(str, (converter, out / made, repository, out))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (out / "ggml-model.bin").rename(out / target)


def openai_name(name: str) -> str:
    """Return what OpenAI calls a tensor of transformers."""
    if name.endswith("embed_positions.weight"):
        return name.replace("embed_positions.weight", "positional_embedding")
    for side, last in (("encoder", "ln_post"), ("decoder", "ln")):
        name = name.replace(f"{side}.layer_norm.", f"{side}.{last}.")
    return ".".join(LAYERS.get(part, part) for part in name.split("."))


def save_words(folder: Path, kind: str, n_vocab: int) -> None:
    """Write the vocabulary as Hugging Face has it: OpenAI's words, and names after them."""
    file = ASSETS / ("gpt2.tiktoken" if kind == "english" else "multilingual.tiktoken")
    letters = whisper_letters()
    spelled = {}
    for line in file.read_bytes().split(b"\n"):
        if line:
            word, rank = line.split()
            spelled["".join(letters[byte] for byte in base64.b64decode(word))] = int(rank)
    end = len(spelled)
    added = {"<|endoftext|>": end} | {f"<|{number}|>": number for number in range(end + 1, n_vocab)}
    (folder / "vocab.json").write_text(json.dumps(spelled | {"<|endoftext|>": end}), "utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(added), "utf-8")
    tokenizer = Tokenizer(models.BPE(vocab=spelled, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in added])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<|endoftext|>").save_pretrained(folder)  # noqa: S106


def whisper_letters() -> dict[int, str]:
    """Return GPT-2's letter for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + len(letters) - len(printable))
    return letters


if __name__ == "__main__":
    main()
