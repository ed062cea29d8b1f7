"""A tiny Llama in one GGUF file, and a wheel of it, as they are published."""

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np


WORDS = ["Yes", "No", "a", "b", "?"]
WIDTH, LAYERS, HEADS, INNER = 16, 2, 2, 32


def write(path: Path, seed: int = 0) -> Path:
    """The model with random float32 weights and a byte-level tokenizer of all bytes and WORDS."""
    rng = np.random.default_rng(seed)
    tokens = ["<|endoftext|>", *_byte_letters(), "ĠY", "ĠYe", "ĠYes", "ĠN", "ĠNo"]
    merges = ["Ġ Y", "ĠY e", "ĠYe s", "Ġ N", "ĠN o"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    shapes = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        square = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
        norms = dict.fromkeys(("attn_norm", "ffn_norm"), (WIDTH,))
        inner = {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        for name, shape in {**square, **norms, **inner}.items():
            shapes[f"blk.{layer}.{name}.weight"] = shape
    for name, shape in shapes.items():
        writer.add_tensor(name, rng.normal(0, 0.5, shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _byte_letters() -> list[str]:
    """GPT-2's letters for the 256 bytes, in their order."""
    shown = {*range(33, 127), *range(161, 173), *range(174, 256)}
    other = iter(range(256, 512))
    return [chr(byte) if byte in shown else chr(next(other)) for byte in range(256)]


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> str:
    """A wheel NAME 1.0.0 in the folder with these files; its SHA-256."""
    stem = name.replace("-", "_")
    about = f"{stem}-1.0.0.dist-info"
    path = folder / f"{stem}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(f"{stem}/{file}", content)
        # It asks for a package that does not exist: nothing that it asks for is installed.
        needs = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\nRequires-Dist: no-such-thing\n"
        )
        archive.writestr(f"{about}/METADATA", needs)
        tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{about}/WHEEL", tag)
        archive.writestr(f"{about}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()
