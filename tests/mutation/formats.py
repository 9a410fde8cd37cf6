"""The formats that are read, by the names that the command line takes."""

from __future__ import annotations

from . import readers, seeds_checkpoints, seeds_states, seeds_texts
from .seed import Format

FORMATS = {
    format.name: format
    for format in (
        Format("pth", seeds_checkpoints.torch_files, readers.read_model),
        Format("safetensors", seeds_checkpoints.safetensors_files, readers.read_model),
        Format("index", seeds_checkpoints.index_folders, readers.read_model),
        Format("gguf", seeds_checkpoints.gguf_files, readers.read_gguf),
        Format("ggmf", seeds_checkpoints.ggmf_files, readers.read_model),
        Format("quantised", seeds_checkpoints.quantised_files, readers.read_model),
        Format("state", seeds_states.states, readers.read_state),
        Format("tuned-state", seeds_states.tuned_states, readers.read_state),
        Format("world", seeds_texts.world_vocabularies, readers.read_world),
        Format("tokenizer-json", seeds_texts.tokenizer_files, readers.read_vocabulary),
        Format("config", seeds_texts.config_folders, readers.read_folder),
    )
}
